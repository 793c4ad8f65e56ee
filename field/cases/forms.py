"""Forms of other HTTP libraries: their bytes are decoded correctly, or refused."""

from __future__ import annotations

import base64
import socket
import time
import uuid
from http.client import BadStatusLine, HTTPResponse

from field import http
from field.account import Account
from field.case import case
from field.desk import Desk
from field.tools import CURL, JAVA

DATA = "id,kind\r\nt1,コール\r\n".encode()
CURL_H2 = ("--http2", "-sS", "-m", "20", "-w", "\n%{http_code}")


@case("encoded parts", "Content-Transfer-Encoding in a part")
def encoded_parts(desk: Desk, account: Account) -> None:
    """The pricer gets the decoded bytes, or the submit is refused; it never gets the encoded text."""
    encoded = base64.encodebytes(DATA).replace(b"\n", b"\r\n")
    quoted = b"id,kind=\r\n=0D=0At1,=E3=82=B3=E3=83=BC=E3=83=AB=0D=0A"
    for kind, data in (
        ("base64", encoded),
        ("BASE64", encoded),
        ("quoted-printable", quoted),
        ("8bit", DATA),
        ("binary", DATA),
    ):
        more = [f"Content-Transfer-Encoding: {kind}"]
        body, headers = http.form(http.field("pricer", "show"), http.part('name="file"; filename="b.csv"', data, more))
        answer = desk.grid.request("POST", f"/submit/{uuid.uuid4()}", body, headers)
        got = answer.text.splitlines()[-1] if answer.status == 200 else ""
        refused = answer.status in {400, 415, 422} and kind not in {"8bit", "binary"}
        account.check(f"part in {kind}", answer.short, refused or got == DATA.hex())
    more = ["Content-Transfer-Encoding: base64"]
    name = http.part('name="args"', base64.b64encode(b"spot"), more)
    body, headers = http.form(http.field("pricer", "show_args"), name, http.part('name="file"; filename="b.csv"', DATA))
    answer = desk.grid.request("POST", f"/submit/{uuid.uuid4()}", body, headers)
    refused = answer.status in {400, 415, 422}
    account.check("field in base64", answer.short, refused or answer.body == b"spot\n")


@case("upgrade", "offers of HTTP/2 over HTTP/1.1", CURL)
def upgrade(desk: Desk, account: Account) -> None:
    """An offer is ignored: the body is read, in one segment or in several, and the connection stays usable."""
    path = desk.scratch / "book.csv"
    path.write_bytes(DATA)
    big = desk.scratch / "big.csv"
    big.write_bytes(b"x" * 3_000_000)
    for each in (path, big):
        url = f"{desk.grid.url}/submit/{uuid.uuid4()}"
        done = desk.run("curl", *CURL_H2, "-F", "pricer=cat", "-F", f"file=@{each}", url)
        account.check(f"curl --http2, {each.stat().st_size:,} bytes", done.stdout[-60:], done.stdout.endswith(b"\n200"))
    body, headers = http.form(http.field("pricer", "cat"), http.part('name="file"; filename="b.csv"', DATA))
    offer = {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__", "Connection": "Upgrade, HTTP2-Settings"}
    head = [f"POST /submit/{uuid.uuid4()} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in {**headers, **offer}.items()]
    with socket.create_connection(("127.0.0.1", desk.grid.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        for at in range(0, len(body), 50):
            time.sleep(0.02)  # so that each piece is a separate segment
            connection.sendall(body[at : at + 50])
        first = _status_line(connection)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        second = _status_line(connection)
    right = " 200 " in first and " 200 " in second
    account.check("body in many segments, then a GET on the same connection", f"{first}; {second}", right)


@case("java client", "the JDK's HttpClient with default settings", JAVA)
def java_client(desk: Desk, account: Account) -> None:
    """It offers HTTP/2 with its first request, and sends bodies of known and of unknown length."""
    done = desk.run("java", desk.program("JavaClient.java"), desk.grid.url, uuid.uuid4().hex)
    said = done.stdout.decode().splitlines()
    right = [line.split()[0] for line in said] == ["200"] * 3
    account.check("java.net.http.HttpClient: one piece, several, a stream", "; ".join(said) or done.stderr, right)


def _status_line(connection: socket.socket) -> str:
    """The first line of an answer; the answer is read completely."""
    answer = HTTPResponse(connection)
    try:
        answer.begin()
    except (BadStatusLine, ConnectionError) as error:
        return f"no answer: {error}"
    with answer:
        answer.read()
    return f"HTTP/1.1 {answer.status} {answer.reason}"
