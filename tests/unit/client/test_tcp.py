"""TcpLink: what it receives, what it sends, and how it ends. Its Watch is the test's."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chatclient.links.tcp import TcpLink
from chatprotocol.events import Bye, Refused
from chatprotocol.requests import Login
from chatprotocol.wire import WebSocket, WireProtocol
from chatprotocol.wire.base import ClientEvent, Opened
from chatprotocol.wire.json import Json

from .watches import PING, ScriptedWatch

DEADLINE_SECONDS = 20.0
JSON = Json()
BYE = b'{"type":"bye","reason":"enough"}\n'
UNKNOWN = b'{"type":"error","code":"unknown_command","message":"?"}\n'


class Pair:
    """A link of two sockets with its receiver thread, and the server's ends of them."""

    def __init__(self, others_seconds: float, protocol: WireProtocol) -> None:
        ours, self.server = socket.socketpair()
        also_ours, self.other = socket.socketpair()
        self.server.settimeout(DEADLINE_SECONDS)
        self.watch = ScriptedWatch()
        self.client = protocol.client()
        self.link = TcpLink([ours, also_ours], self.client, self.watch, others_seconds)
        self.heard: list[ClientEvent] = []
        self.reason = ""
        self._thread = threading.Thread(target=self._receive, name="receiver", daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            self.reason = self.link.receive(self.heard.append)
        except OSError as error:
            self.reason = str(error)

    def read(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes and (more := self.server.recv(size_bytes - len(data))):
            data += more
        return data

    def close(self) -> str:
        """The server closes both sockets. Returns the reason of the end."""
        self.server.shutdown(socket.SHUT_WR)
        self.other.shutdown(socket.SHUT_WR)
        return self.end()

    def end(self) -> str:
        """The reason of the end."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "it still receives"
        return self.reason


@contextmanager
def pair(others_seconds: float = DEADLINE_SECONDS, protocol: WireProtocol = JSON) -> Iterator[Pair]:
    made = Pair(others_seconds, protocol)
    try:
        yield made
    finally:
        made.link.shut_down()
        made.end()
        made.link.close()
        made.server.close()
        made.other.close()


def test_server_that_is_lost_ends_the_connection() -> None:
    with pair() as made:
        made.server.sendall(b'{"type":"lo')
        made.watch.script.put(TimeoutError("the server was silent"))
        assert made.end() == "the server was silent"


def test_end_of_one_socket_ends_the_link_after_the_other_was_read() -> None:
    """The server closes both sockets of a guest together. The second one has a time limit."""
    with pair() as made:
        made.server.shutdown(socket.SHUT_WR)
        made.other.sendall(BYE)
        made.other.shutdown(socket.SHUT_WR)
        assert made.end() == "the server closed the connection"
        assert made.heard == [Bye("enough")]
    with pair(others_seconds=0.0) as made:
        made.server.shutdown(socket.SHUT_WR)
        assert made.end() == "the server closed the connection"


def test_answer_to_a_ping_is_not_reported() -> None:
    """An older server answers with an error. A second one answers something else and is reported."""
    with pair() as made:
        for answer in (b'{"type":"pong"}\n', UNKNOWN + UNKNOWN + BYE):
            made.watch.script.put(PING)
            assert made.server.recv(100) == b'{"command":"ping"}\n'
            made.server.sendall(answer)
            made.watch.received.get(timeout=DEADLINE_SECONDS)
        assert made.close() == "the server closed the connection"
        assert [type(event) for event in made.heard] == [Refused, Bye]


def test_link_answers_a_ping_of_the_server_itself() -> None:
    """Also while the program reads no event, which may take longer than the server waits."""
    protocol = WebSocket()
    with pair(protocol=protocol) as made:
        server = protocol.server()
        (handshake,) = made.client.connect(Login("alice"), ()).send
        assert [*server.receive(handshake.data)] == []
        made.server.sendall(server.data_to_send() + server.ping())
        assert made.read(6)[:2] == b"\x8a\x80", "a pong without payload, and its mask"
        made.server.sendall(server.encode([Bye("enough")]))
        made.close()
        assert made.heard == [Opened(), Bye("enough")]


def test_send_does_not_block_if_the_server_does_not_read() -> None:
    """Requests that the system does not accept are sent later, in order."""
    texts = [f"{number} {'x' * 8_000}" for number in range(200)]
    with pair() as made:
        for text in texts[:100]:
            made.link.send(text.encode())
        made.server.sendall(BYE)  # received nevertheless
        read = b""
        for text in texts[100:]:  # there is room now, but not for these
            read += made.server.recv(4_000)
            made.link.send(text.encode())
        all_bytes = b"".join(text.encode() for text in texts)
        assert read + made.read(len(all_bytes) - len(read)) == all_bytes
        made.close()
        assert made.heard == [Bye("enough")]


def test_unsent_requests_above_the_limit_end_the_connection() -> None:
    with pair() as made:
        for _ in range(2_000):
            made.link.send(b"x" * 8_000)
        assert made.end()
