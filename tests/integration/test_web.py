"""The web page and WebSocket on the port of the server: files, handshakes, frames, and what is wrong with them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from integration.room import wait_for
from integration.web import WebPeer, enter_web
from web_bytes import ACCEPTED, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, handshake, request

from chatprotocol.limits import FRAGMENTS_MAX, LINE_MAX_BYTES
from chatprotocol.wire import WebSocket, protocols_with
from chatprotocol.wire.websocket import WebSocketServer
from chatserver.app import Server
from chatserver.web.pages import read_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Peer, Room, ServerLog

    from chatserver.config import Config

    Name = Callable[[str], str]

PAGES = read_pages()
# Sent with every answer, also with errors.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


def readers() -> set[threading.Thread]:
    """The threads of the server's connections."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("reader ")}


@pytest.fixture(scope="module")
def witness(shared_room: Room) -> Peer:
    """A user of json, who notices nothing but who is online."""
    return shared_room.enter("witness")


@pytest.fixture
def unnoticed(shared_room: Room, witness: Peer) -> Iterator[None]:
    """After the test, the connection has left neither a thread nor a trace in the room."""
    before = readers()
    yield
    shared_room.wait_for_connections(1)
    wait_for(lambda: readers() <= before, "the end of the threads")
    assert {each["type"] for each in witness.until_fence()} <= {"users"}
    assert witness.say("as if nothing had happened")


# --- files ---


def test_files_are_served_over_one_connection(shared_room: Room) -> None:
    """Each with its type, and again only if it has changed. HEAD and queries are for the same files."""
    peer, other = (shared_room.connect(WebPeer) for _ in range(2))  # a connection gets 64 answers at most
    for path, page in PAGES.items():
        answer = peer.get(path)
        assert (answer.status, answer.body) == (200, page.body)
        assert answer.headers.items() >= {**SECURITY_HEADERS, "content-type": page.content_type}.items()
        same = other.get(f"{path}?again", If_None_Match=answer.headers["etag"])
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", answer.headers["etag"])
    peer.send(request("/", "HEAD"))
    head = peer.answer(has_body=False)
    assert (head.status, head.headers["content-length"]) == (200, str(len(PAGES["/"].body)))
    assert peer.get("/").status == 200
    assert peer.get("/", Connection="close").headers["connection"] == "close"
    assert peer.is_closed()
    peer.close()
    other.close()


def test_start_logs_the_address_of_the_page(open_room: Callable[..., Room], log: ServerLog) -> None:
    room = open_room()
    log.wait_for(f"web page served address=http://127.0.0.1:{room.server.port}/")
    with urlopen(f"http://127.0.0.1:{room.server.port}/", timeout=10) as answer:
        assert answer.read() == PAGES["/"].body


def test_web_off_serves_no_file_and_keeps_websocket(open_room: Callable[..., Room], log: ServerLog) -> None:
    room = open_room(web="off")
    answer = room.connect(WebPeer).get("/")
    assert (answer.status, answer.headers.items() >= SECURITY_HEADERS.items()) == (404, True)
    assert enter_web(room, "alice").say("hello")["id"] == 1
    assert "web page served" not in log.getvalue()


# Requests, the status of the answer, and a header that it must have. Each but 404 ends the connection.
BAD_REQUESTS = [
    (request("/../../etc/passwd"), 404, {}),
    (request("/%2e%2e/%2e%2e/etc/passwd"), 404, {}),
    (request("/..%2f..%2fetc/passwd"), 404, {}),
    (request("//etc/passwd"), 404, {}),
    (request("/index.html/"), 404, {}),
    (request("/static"), 404, {}),
    (request("/\\..\\app.py"), 404, {}),
    (request("http://chat.test/"), 404, {}),
    (request("chat.test:80"), 404, {}),
    (request("*", "OPTIONS"), 405, {"allow": "GET, HEAD"}),
    (request("/", "POST", Content_Length="5") + b"hello", 405, {"allow": "GET, HEAD"}),
    (request("/", "PUT", Transfer_Encoding="chunked") + b"0\r\n\r\n", 405, {}),
    (request("/", Content_Length="5") + b"hello", 400, {}),
    (request("/", Transfer_Encoding="chunked") + b"0\r\n\r\n", 400, {}),
    (request("/", Host=None), 400, {}),
    (request("/", Host="a", host="b"), 400, {}),
    (request("/", version="HTTP/2.0"), 505, {}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, {}),
    (b"GET /\r\n\r\n", 400, {}),
    (b"GET / HTTP/1.1\nHost: chat.test\n\n", 400, {}),
    (b"GET / HTTP/1.1\r\nHost: chat.test\r\n folded: x\r\n\r\n", 400, {}),
    (b"GET / HTTP/1.1\r\nHost : chat.test\r\n\r\n", 400, {}),
    (request("/" + "x" * 9_000), 414, {}),
    (request("/", X="x" * 9_000), 431, {}),
    (request("/", **{f"x{number}": "x" for number in range(3_000)}), 431, {}),
    (handshake(Sec_WebSocket_Version="8"), 426, {"sec-websocket-version": "13"}),
    (handshake(Sec_WebSocket_Version=None), 426, {"sec-websocket-version": "13"}),
    (handshake(Sec_WebSocket_Key="short"), 400, {}),
    (handshake(Sec_WebSocket_Key=None), 400, {}),
    (handshake(Upgrade=None), 426, {"upgrade": "websocket"}),
    (handshake(Connection="close"), 426, {"upgrade": "websocket"}),
    (handshake(Host=None), 400, {}),
    (handshake(Sec_WebSocket_Protocol="chat.xml"), 400, {}),
    (handshake(Origin="https://elsewhere.test"), 403, {}),
    (handshake(Origin="https://chat.test.elsewhere.test"), 403, {}),
    (handshake(Origin="https://chat.test:8443"), 403, {}),
    (handshake(Origin="null"), 403, {}),
    (handshake(Origin=""), 403, {}),
    (handshake(Origin="https://chat.test", origin="https://elsewhere.test"), 403, {}),
]


@pytest.mark.usefixtures("unnoticed")
@pytest.mark.parametrize(("sent", "status", "headers"), BAD_REQUESTS)
def test_bad_request_is_answered_and_closed(
    shared_room: Room, sent: bytes, status: int, headers: dict[str, str]
) -> None:
    peer = shared_room.connect(WebPeer)
    peer.send(sent)
    answer = peer.answer()
    assert answer.status == status, answer
    assert answer.headers.items() >= {**SECURITY_HEADERS, **headers}.items()
    assert b"root:" not in answer.body
    if status == 404:  # it may ask for another file
        assert peer.get("/", Connection="close").status == 200
    assert peer.is_closed()
    peer.close()


@pytest.mark.usefixtures("unnoticed")
def test_second_request_before_the_answer_is_not_served(shared_room: Room) -> None:
    """No pipelining: a request that is smuggled behind another one reaches nothing."""
    peer = shared_room.connect(WebPeer)
    peer.send(request("/") + request("/app.js") + handshake())
    assert peer.answer().headers["connection"] == "close"
    assert peer.socket.recv(1) == b""
    peer.close()


def test_connection_fetches_a_number_of_files(shared_room: Room) -> None:
    peer = shared_room.connect(WebPeer)
    answers = [peer.get("/nothing") for _ in range(64)]
    assert [answer.headers["connection"] for answer in answers] == ["keep-alive"] * 63 + ["close"]
    assert peer.is_closed()
    peer.close()


# --- handshakes ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://chat.test"},
        {"Origin": "http://CHAT.test"},
        {"Host": "chat.test:9999", "Origin": "http://chat.test:9999"},
        {"Sec_WebSocket_Protocol": "chat.xml, chat.json"},
        {"Connection": "keep-alive, Upgrade"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
    ],
)
def test_handshake_is_accepted(shared_room: Room, headers: dict[str, str]) -> None:
    """Of programs, which send no Origin, and of the page itself. No extension is accepted."""
    peer = shared_room.connect(WebPeer)
    answer = peer.shake_hands(**headers)
    assert (answer.status, answer.headers["sec-websocket-accept"]) == (101, ACCEPTED)
    assert answer.headers.get("sec-websocket-protocol") == (
        "chat.json" if "Sec_WebSocket_Protocol" in headers else None
    )
    assert "sec-websocket-extensions" not in answer.headers
    peer.send(frame(CLOSE, (1_000).to_bytes(2, "big")))
    assert peer.close_code() == 1_000


def test_pages_of_named_origins_may_connect(open_room: Callable[..., Room]) -> None:
    """And of no others. ``*`` names all of them."""
    for named, origin, status in (
        ("https://friend.test", "https://friend.test", 101),
        ("https://friend.test", "http://friend.test", 403),
        ("https://friend.test", "https://chat.test", 101),
        ("*", "https://elsewhere.test", 101),
    ):
        room = open_room(web_origins=(named,))
        assert room.connect(WebPeer).shake_hands(Origin=origin).status == status
        room.close()


@pytest.mark.usefixtures("unnoticed")
def test_users_of_websocket_and_of_json_are_in_one_room(shared_room: Room, witness: Peer, fresh_name: Name) -> None:
    name = fresh_name("alice")
    alice = enter_web(shared_room, name)
    alice.say("from the web")
    heard = witness.next("broadcast")
    assert (heard["from"], heard["message"]) == (name, "from the web")
    witness.say("ünd zurück " + "x" * 8_000)
    assert alice.next("broadcast")["message"].startswith("ünd zurück")
    alice.ask(command="EX")
    assert alice.next("bye")["reason"] == "you left"
    assert alice.close_code() == 1_000
    alice.close()


def test_page_and_websocket_inside_tls(open_tls_room: Callable[..., Room]) -> None:
    """As https:// and wss://, in one room with others."""
    room = open_tls_room()
    assert room.connect(WebPeer).get("/").body == PAGES["/"].body
    alice, bob = enter_web(room, "alice"), room.enter("bob")
    texts = [f"{number} " + "x" * (number * 37 % 8_000) for number in range(100)]
    for text in texts:
        bob.say(text)
    assert [alice.next("broadcast")["message"] for _ in texts] == texts


# --- frames ---

HELLO = b'{"command":"ping"}'
# Frames of a user, and the code of the close frame.
BAD_FRAMES = [
    (frame(BINARY, HELLO), 1_003),
    (frame(TEXT, HELLO, mask=None), 1_002),
    (frame(TEXT, HELLO, reserved=0x40), 1_002),
    (frame(TEXT, HELLO, reserved=0x20), 1_002),
    (frame(0x3, HELLO), 1_002),
    (frame(0xB), 1_002),
    (frame(PING, b"x" * 126), 1_002),
    (frame(PING, fin=False), 1_002),
    (frame(CLOSE, b"x" * 126), 1_002),
    (frame(CLOSE, b"\x03"), 1_002),
    (frame(CLOSE, (1_005).to_bytes(2, "big")), 1_002),
    (frame(CONTINUATION, HELLO), 1_002),
    (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1_002),
    (frame(TEXT, b'"\xff\xfe"'), 1_007),
    (frame(TEXT, b'"\xed\xa0\x80"'), 1_007),
    (frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b""), 1_007),
    (frame(TEXT, b"x" * (LINE_MAX_BYTES + 1)), 1_009),
    (frame(TEXT, b"x" * LINE_MAX_BYTES, fin=False) + frame(CONTINUATION, b"x"), 1_009),
    (b"\x81\xff" + (1 << 62).to_bytes(8, "big"), 1_009),
    (b"\x81\xff" + b"\xff" * 8, 1_009),
    (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * FRAGMENTS_MAX, 1_008),
    (frame(TEXT, b"{", fin=False) + frame(CONTINUATION, b" ", fin=False) * 10_000, 1_008),
    (frame(CLOSE, (1_000).to_bytes(2, "big")) + frame(TEXT, b'{"command":"PM","message":"too late"}') * 100, 1_000),
    (frame(CLOSE), 1_005),
]


@pytest.mark.usefixtures("unnoticed")
@pytest.mark.parametrize(("sent", "code"), BAD_FRAMES)
def test_bad_frame_is_answered_by_a_close_code(shared_room: Room, fresh_name: Name, sent: bytes, code: int) -> None:
    """It is the last frame, also if the peer goes on sending."""
    peer = enter_web(shared_room, fresh_name("sender"))
    peer.send(sent)
    assert peer.close_code() == (0 if code == 1_005 else code)
    peer.close()


@pytest.mark.usefixtures("unnoticed")
def test_object_that_is_no_request_is_an_error_as_in_json(shared_room: Room, fresh_name: Name) -> None:
    """The connection goes on."""
    peer = enter_web(shared_room, fresh_name("sender"))
    for text, code in (
        (b"", "bad_json"),
        (b"nonsense", "bad_json"),
        (HELLO + b"\n" + HELLO, "bad_json"),
        (b"[]", "bad_json"),
        (b'{"command":"nonsense"}', "unknown_command"),
    ):
        peer.send(frame(TEXT, text))
        assert peer.next("error")["code"] == code, text
    peer.send(frame(TEXT, HELLO[:5], fin=False) + frame(PING, b"between") + frame(CONTINUATION, HELLO[5:]))
    assert peer.frame() == (FIN | PONG, b"between")
    assert peer.next("pong")
    peer.close()


def test_flood_of_pings_is_slowed_down(open_room: Callable[..., Room]) -> None:
    """A ping costs as much as a request: they have one rate, and other users do not wait."""
    room = open_room(exempt=(), request_burst=5, request_rate=0.5, login_seconds=60.0)
    alice, bob = enter_web(room, "alice", "127.0.0.2"), room.enter("bob")
    alice.send(frame(PING, b"x") * 5_000)
    for _ in range(4):
        while alice.frame() != (FIN | PONG, b"x"):
            pass
    assert bob.say("hello")
    alice.close()


# --- time ---


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        (b"", b""),
        (b"GET ", b"/" + b"x" * 1_000),
        (request("/", Slow="x").removesuffix(b"\r\n"), b"x: y\r\n" * 200),
        (handshake(), b"\x81\xfe\x01\x00" + bytes(260)),
    ],
    ids=["nothing", "target", "headers", "frame"],
)
def test_request_without_an_end_is_closed_in_time(open_room: Callable[..., Room], sent: bytes, rest: bytes) -> None:
    """However slowly it goes on: the time is that of a login."""
    room = open_room(login_seconds=0.5)
    peer = room.connect(WebPeer)
    peer.send(sent)
    peer.socket.settimeout(0.05)
    received = b""
    for byte in rest:
        try:
            while part := peer.socket.recv(65_536):
                received += part
            break
        except TimeoutError:
            with suppress(ConnectionError):  # it was closed meanwhile
                peer.send(bytes([byte]))
        except ConnectionResetError:
            break
    else:
        assert not rest, "it was never closed"
    peer.socket.settimeout(10.0)
    assert peer.is_closed()
    peer.close()
    room.wait_for_connections(0)
    if sent.startswith(b"GET ") and b"Upgrade" not in sent:
        assert received.startswith(b"HTTP/1.1 408 ")


def test_peer_that_reads_no_answer_is_closed_in_time(open_room: Callable[..., Room]) -> None:
    """Its reader waits for room, and not longer than for a login."""
    room = open_room(login_seconds=0.5)
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        peer.settimeout(0.25)
        peer.connect(("127.0.0.1", room.server.port))
        with suppress(OSError):  # all buffers are full
            peer.sendall(handshake() + frame(PING, b"x" * 125) * 200_000)
        room.wait_for_connections(0)


class _ImpatientServer(WebSocketServer):
    def __init__(self, settings: WebSocket, idle_seconds: float) -> None:
        super().__init__(settings)
        self.idle_seconds = idle_seconds


def test_client_that_answers_no_ping_is_disconnected(config: Config) -> None:
    """A client that answers stays, without a word."""
    before = set(threading.enumerate())
    # The second client must answer in time, also on a machine that stalls.
    idle_seconds = iter((0.2, 2.0))

    class Impatient(WebSocket):
        def server(self) -> WebSocketServer:
            return _ImpatientServer(self, next(idle_seconds))

    server = Server(
        config, lambda: None, protocols=lambda register, web, irc: protocols_with(register, Impatient(web.pages), irc)
    )
    server.start()
    lost, alive = (WebPeer(server.port) for _ in range(2))
    try:
        for peer, name in ((lost, "lost"), (alive, "alive")):
            peer.shake_hands()
            peer.login(name)
        for _ in range(2):
            while (got := alive.frame())[0] != FIN | PING:
                assert got[0] != -1
            alive.send(frame(PONG, got[1]))
        assert lost.close_code() == 1_008
        alive.say("still here")
    finally:
        lost.close()
        alive.close()
        assert server.stop()
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of the threads")


def test_shutdown_is_a_close_frame(open_room: Callable[..., Room]) -> None:
    room = open_room()
    alice, browser = enter_web(room, "alice"), room.connect(WebPeer)
    browser.get("/")
    assert room.stop()
    assert alice.next("bye")["reason"] == "the server is shutting down"
    assert alice.close_code() == 1_001
    assert browser.socket.recv(1) == b""
