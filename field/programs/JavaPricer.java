import java.nio.file.Files;
import java.nio.file.Path;

/** A pricer for the JVM: counts the lines of its input. */
public class JavaPricer {
    public static void main(String[] words) throws Exception {
        int lines = Files.readAllLines(Path.of(words[0])).size();
        Files.writeString(Path.of("prices.csv"), "lines," + lines + "\n");
        System.out.println("counted " + lines);
    }
}
