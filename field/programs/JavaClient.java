import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.List;

/** Submits with the JDK's client as it comes: it offers HTTP/2. First in one piece, then in several, on one client. */
public class JavaClient {
    public static void main(String[] words) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String mark = "java-boundary";
        String head = "--" + mark + "\r\nContent-Disposition: form-data; name=\"pricer\"\r\n\r\ncat\r\n--" + mark
            + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"book.csv\"\r\n\r\n";
        byte[] whole = (head + "id\r\nt1\r\n--" + mark + "--\r\n").getBytes();
        byte[] first = head.getBytes(), rest = ("x".repeat(200_000) + "\r\n--" + mark + "--\r\n").getBytes();
        send(client, words[0] + "/submit/java-one-" + words[1], mark, BodyPublishers.ofByteArray(whole));
        send(client, words[0] + "/submit/java-many-" + words[1], mark, BodyPublishers.ofByteArrays(List.of(first, rest)));
        send(client, words[0] + "/submit/java-stream-" + words[1], mark,
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(whole)));
    }

    static void send(HttpClient client, String url, String mark, HttpRequest.BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(30))
            .header("Content-Type", "multipart/form-data; boundary=" + mark).POST(body).build();
        HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body().length() + " " + answer.body().strip().split("\n")[0]);
    }
}
