"""HTTP before the handshake of WebSocket: files of the page, and requests that are refused."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_bytes import ACCEPTED, TEXT, frame, handshake, request

from chatprotocol.errors import ErrorCode
from chatprotocol.events import SHUTTING_DOWN, YOU_LEFT, Bye, Refused
from chatprotocol.requests import Leave, Request, Say, Unreadable
from chatprotocol.wire import ServerProtocol, WebSocket
from chatprotocol.wire.http import HEAD_MAX_BYTES, Head, HttpError, Page, read_head

from .samples import any_pieces, pieces

INDEX, SCRIPT = Page("text/html; charset=utf-8", b"<p>hello", '"1"'), Page("text/javascript", b"run()", '"2"')
PAGES = {"/": INDEX, "/app.js": SCRIPT}
SAY = frame(TEXT, b'{"command":"PM","message":"hello"}')
LONG_HEAD = request("/", X_Padding="x" * HEAD_MAX_BYTES)


class Server:
    """The server's half of a connection, and the answers of a session that has no login."""

    def __init__(self, protocol: WebSocket | None = None) -> None:
        self.half: ServerProtocol = (protocol or WebSocket(PAGES)).server()
        self.requests: list[Request] = []
        self.is_closed = False

    def hear(self, parts: Iterable[bytes]) -> bytes:
        """All that it says to these parts."""
        said = b""
        for part in parts:
            for asked in self.half.receive(part) if not self.is_closed else ():
                self.requests.append(asked)
                said += self.half.data_to_send()
                if isinstance(asked, Unreadable):
                    said += self.half.encode([Refused(asked.code, asked.reason)]) + self.half.encode([Bye("x")])
                elif isinstance(asked, Leave):
                    said += self.half.encode([Bye(YOU_LEFT)])
                self.is_closed = self.is_closed or isinstance(asked, (Leave, Unreadable))
            said += self.half.data_to_send()
        return said


def head_of(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (request("/"), 200, INDEX.body),
        (request("/app.js?v=2"), 200, SCRIPT.body),
        (request("/", "HEAD"), 200, b""),
        (request("/", If_None_Match='"0", W/"1"'), 304, b""),
        (request("/", If_None_Match="*"), 304, b""),
        (request("/", If_None_Match='"2"'), 200, INDEX.body),
        (request("/", Upgrade="h2c", Connection="Upgrade, HTTP2-Settings"), 200, INDEX.body),
        *(
            (request(target), 404, b"There is no such file.\n")
            for target in (
                *("/x", "/app.js/", "//", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/..%2fapp.js", "/%61pp.js", "*"),
                *("http://chat.test/", "chat.test:80", "/APP.JS", "/app.js#x", "/\x7e", "app.js"),
            )
        ),
        (request("/x", "HEAD"), 404, b""),
    ],
)
def test_file_is_served_by_its_exact_path(sent: bytes, status: int, body: bytes) -> None:
    """Another file may follow. Every answer has the headers that keep foreign scripts out."""
    for size in (1, 10, len(sent)):
        server = Server()
        for number in range(1, 4):
            found, headers, text = head_of(server.hear(pieces(sent, size)))
            assert (found, text, headers["Connection"]) == (status, body, "keep-alive")
            assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert server.half.files_sent == (0 if status == 404 else number)
        assert (server.requests, server.half.is_incomplete, list(server.half.receive_end())) == ([], False, [])


@pytest.mark.parametrize(
    ("sent", "protocol"),
    [
        (request("/", Connection="close"), WebSocket(PAGES)),
        (request("/", Connection="Keep-Alive, Close"), WebSocket(PAGES)),
        (request("/", version="HTTP/1.0"), WebSocket(PAGES)),
        (b"GET / HTTP/1.0\r\n\r\n", WebSocket(PAGES)),
        (request("/"), WebSocket(PAGES, keeps_alive=False)),
        (request("/") + b"G", WebSocket(PAGES)),
        (request("/") * 2, WebSocket(PAGES)),
    ],
)
def test_last_file_of_a_connection_says_so(sent: bytes, protocol: WebSocket) -> None:
    """A request that is sent before the answer to the one before is not served."""
    server = Server(protocol)
    status, headers, body = head_of(server.hear([sent]))
    assert (status, headers["Connection"], body) == (200, "close", INDEX.body)
    assert server.requests == [Leave()]
    assert server.half.files_sent == 1


def test_connection_has_a_number_of_files() -> None:
    server = Server()
    answers = [head_of(server.hear([request("/")])) for _ in range(64)]
    assert [headers["Connection"] for _, headers, _ in answers] == ["keep-alive"] * 63 + ["close"]
    assert server.requests == [Leave()]


REFUSED: dict[str, tuple[bytes, int, dict[str, str]]] = {
    "no request": (b"GET nothing\r\n\r\n", 400, {}),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, {}),
    "a control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400, {}),
    "another version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, {}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, {}),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400, {}),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, {}),
    "a header on two lines": (b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 400, {}),
    "a null character": (b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n", 400, {}),
    "lines without CR": (b"GET / HTTP/1.1\nHost: x\n\n", 400, {}),
    "a CR inside a line": (b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400, {}),
    "no Host": (request("/", Host=None), 400, {}),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, {}),
    "a body": (request("/", Content_Length="5"), 400, {}),
    "a body of unknown length": (request("/", Transfer_Encoding="chunked"), 400, {}),
    "a handshake with a body": (handshake(Content_Length="5"), 400, {}),
    **{method: (request("/", method), 405, {"Allow": "GET, HEAD"}) for method in ("POST", "PUT", "OPTIONS", "PATCH")},
    "a long target": (b"GET /" + b"x" * HEAD_MAX_BYTES, 414, {}),
    "long headers": (LONG_HEAD, 431, {}),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2_000, 431, {}),
    "another version of WebSocket": (handshake(Sec_WebSocket_Version="8"), 426, {"Sec-WebSocket-Version": "13"}),
    "no version of WebSocket": (handshake(Sec_WebSocket_Version=None), 426, {"Sec-WebSocket-Version": "13"}),
    "no Upgrade": (handshake(Upgrade=None), 426, {"Upgrade": "websocket"}),
    "no Connection": (handshake(Connection="close"), 426, {"Upgrade": "websocket"}),
    "no list in Connection": (handshake(Connection="Upgrade, \x22"), 400, {}),
    "no key": (handshake(Sec_WebSocket_Key=None), 400, {}),
    "a key of another size": (handshake(Sec_WebSocket_Key="AAAA"), 400, {}),
    "a key that is no base64": (handshake(Sec_WebSocket_Key="\u00e4"), 400, {}),
    "a long key": (handshake(Sec_WebSocket_Key="x" * 7_000), 400, {}),
    "an invalid subprotocol": (handshake(Sec_WebSocket_Protocol="chat json"), 400, {}),
    "a known and an invalid subprotocol": (handshake(Sec_WebSocket_Protocol="chat.json, a b"), 400, {}),
    "an unknown subprotocol": (handshake(Sec_WebSocket_Protocol="mqtt, chat.xml"), 400, {}),
    "HTTP/1.0": (handshake().replace(b"HTTP/1.1", b"HTTP/1.0"), 505, {}),
    "HEAD": (handshake().replace(b"GET", b"HEAD"), 405, {}),
    **{
        f"origin {origin}": (handshake(Origin=origin), 403, {})
        for origin in (
            "https://evil.test",
            "null",
            "https://chat.test.evil.test",
            "http://chat.test:81",
            "chat.test",
            "",
        )
    },
    "two origins": (handshake(Origin="http://chat.test\r\nOrigin: https://evil.test"), 403, {}),
}


@pytest.mark.parametrize(("sent", "status", "expected"), REFUSED.values(), ids=REFUSED)
def test_invalid_request_is_refused_and_logged_as_bad_input(sent: bytes, status: int, expected: dict[str, str]) -> None:
    """One answer, and the end: nothing after it is read."""
    for size in (1 if len(sent) < 1_000 else 100, 1_000, 100_000):
        server = Server()
        found, headers, body = head_of(server.hear([*pieces(sent, size), request("/")]))
        assert (found, headers["Connection"]) == (status, "close")
        assert expected.items() <= headers.items()
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert int(headers["Content-Length"]) == len(body) < 200
        (refused,) = server.requests
        assert isinstance(refused, Unreadable)
        assert refused.closes
        assert body.decode() == f"{refused.reason}\n"


@pytest.mark.parametrize(
    ("sent", "origins"),
    [
        (handshake(), ()),
        (handshake(Origin="https://chat.test"), ()),
        (handshake(Origin="http://CHAT.test"), ()),
        (handshake(Origin="http://[::1]:9999", Host="[::1]:9999"), ()),
        (handshake(Origin="https://other.test"), ("https://other.test",)),
        (handshake(Origin="https://OTHER.test"), ("https://more.test", "https://other.test")),
        (handshake(Origin="null"), ("*",)),
        (handshake(Upgrade="WebSocket", Connection="keep-alive, upgrade"), ()),
        (handshake(Sec_WebSocket_Protocol="chat.json"), ()),
        (handshake(Sec_WebSocket_Protocol="mqtt,chat.json"), ()),
        (handshake(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"), ()),
        (handshake().replace(b"GET / ", b"GET /any/path?x "), ()),
        (request("/") + b"", ()),
    ],
)
def test_handshake_is_accepted_also_after_files(sent: bytes, origins: tuple[str, ...]) -> None:
    """A subprotocol is chosen if the client names one, and an extension never. The first frame may come with it."""
    for size in (1, 1_000):
        server = Server(WebSocket(PAGES, origins))
        if sent == request("/"):
            server.hear([sent, sent])
            sent = handshake()
        status, headers, rest = head_of(server.hear(pieces(sent + SAY, size)))
        assert (status, headers["Sec-WebSocket-Accept"], rest) == (101, ACCEPTED, b"")
        assert ("Sec-WebSocket-Protocol" in headers) == (b"chat.json" in sent)
        assert "Sec-WebSocket-Extensions" not in headers
        assert server.requests == [Say("hello")]
        assert server.half.files_sent == 0


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Refused(ErrorCode.RATE_LIMITED, "Too many.", retry_seconds=2.1), 429, "3"),
        (Refused(ErrorCode.RATE_LIMITED, "Too many."), 429, None),
        (Refused(ErrorCode.SERVER_FULL, "Full."), 503, None),
        (Refused(ErrorCode.BANNED, "Banned."), 403, None),
        (Refused(ErrorCode.TLS_REQUIRED, "TLS."), 403, None),
        (Refused(ErrorCode.NOT_LOGGED_IN, "Too late."), 408, None),
        (Refused(ErrorCode.INTERNAL, "?"), 400, None),
        (Bye(SHUTTING_DOWN), 503, None),
    ],
)
def test_end_before_the_handshake_is_an_answer_with_the_error_of_json(
    error: Refused | Bye, status: int, retry: str | None
) -> None:
    server = Server()
    server.hear([request("/"), b"GET /app"])
    said = server.half.encode([error])
    found, headers, body = head_of(said)
    assert (found, headers.get("Retry-After"), headers["Connection"]) == (status, retry, "close")
    code = error.code if isinstance(error, Refused) else ErrorCode.SHUTTING_DOWN
    assert json.loads(body)["code"] == code
    assert server.half.encode([Bye("x")]) == b""
    assert list(server.half.receive(b".js HTTP/1.1\r\nHost: x\r\n\r\n")) == []
    if isinstance(error, Refused):
        assert WebSocket().refusal(error) == said


def test_end_between_two_files_is_silent() -> None:
    """A browser would take it for the answer to its next request."""
    server = Server()
    server.hear([request("/")])
    assert server.half.encode([Refused(ErrorCode.NOT_LOGGED_IN, "Too late."), Bye("x")]) == b""


def test_incomplete_request_is_reported_at_its_end() -> None:
    server = Server()
    server.hear([b"GET / HTTP/1.1\r\n"])
    assert server.half.is_incomplete
    assert [type(each) for each in server.half.receive_end()] == [Unreadable]


words = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"Host: x\r\n", b"\r\n\r\n", b"\0"]
)
heads = st.lists(words | st.sampled_from([request("/"), handshake(), SAY]) | st.binary(max_size=5), max_size=12)


def found(data: bytes) -> Head | int | None:
    """The head, or the status of the error."""
    try:
        return read_head(data)
    except HttpError as error:
        return error.status // 100  # which error is found first may depend on the pieces


@given(data=st.data(), stream=heads.map(b"".join))
def test_random_heads_in_any_pieces_are_read_alike(data: st.DataObject, stream: bytes) -> None:
    whole, read = found(stream), b""
    for part in data.draw(any_pieces(stream)):
        read += part
        if (head := found(read)) is not None:
            assert whole == head
            break
    Server().hear(data.draw(any_pieces(stream)))
