"""IRC inside a WebSocket (IRCv3, WebSocket): one line a message, text or binary, around any protocol of lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_bytes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, handshake

from chatprotocol.events import YOU_LEFT, Bye, Event, EventBatch, History, Message, Pong, PublicMessage
from chatprotocol.requests import Barrier, ChangeEncoding, Enter, Handled, Leave, Ping, Request, Say, Unreadable
from chatprotocol.wire import Irc, WebSocket
from chatprotocol.wire.base import ServerProtocol, Sniff, WireProtocol

from .irc_connections import default_answer
from .samples import NOON_MS, pieces
from .test_websocket import part, split_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

LINES = "text.ircv3.net", "binary.ircv3.net"
CAFE = "caf\u00e9"


class LineServer(ServerProtocol):
    """Answers CAP by itself, and repeats other lines as messages."""

    def __init__(self) -> None:
        self._own = b""

    def receive(self, data: bytes) -> Iterator[Request]:
        for line in data.decode(errors="replace").split("\r\n")[:-1]:
            match line.split(" "):
                case ["CAP", flags]:
                    self._own += f"CAP * ACK :{flags}\r\n".encode()
                    yield ChangeEncoding(f"irc/{flags}", echoes=False)
                case ["NICK", name]:
                    yield Enter(username=name, variant="irc/t")
                case ["PING", word]:
                    self._own += f"NOTE {word}\r\n".encode()
                    yield Barrier()
                case [""]:
                    yield Handled()
                case _:
                    yield Say(line)

    def receive_end(self) -> list[Request]:
        return []

    def data_to_send(self) -> bytes:
        own, self._own = self._own, b""
        return own

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        return LineProtocol().encode_all(items)

    def encode_long(self, event: Event, messages: Collection[Message]) -> Iterator[bytes]:  # noqa: ARG002
        """Pieces that end anywhere."""
        return pieces(self.encode([*messages]), 7)


class LineProtocol(WireProtocol):
    """``encode_all`` has a line for each event."""

    name = "irc"

    def sniff(self, first: bytes) -> Sniff:
        return Sniff.YES if first.startswith(b"CAP ") else Sniff.NO

    def server(self) -> LineServer:
        return LineServer()

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        lines = [each.text if isinstance(each, PublicMessage) else type(each).__name__.upper() for each in items]
        return b"".join(f"{line}\r\n".encode() for line in lines)

    def encoder(self, variant: str) -> Callable[[Sequence[Event | EventBatch]], bytes]:
        """A line with the name of the variant, and those of ``encode_all``."""
        return lambda items: f"{variant}\r\n".encode() + self.encode_all(items)


def connect(subprotocols: str) -> tuple[ServerProtocol, str]:
    """A connection after the handshake, and the subprotocol that the server chose."""
    server = WebSocket(irc=LineProtocol()).server()
    assert list(server.receive(handshake(Sec_WebSocket_Protocol=subprotocols))) == []
    head = server.data_to_send().decode()
    assert head.startswith("HTTP/1.1 101 ")
    (chosen,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Protocol")]
    return server, chosen


@pytest.fixture(params=LINES)
def server(request: pytest.FixtureRequest) -> ServerProtocol:
    return connect(request.param)[0]


def opcode_of(server: ServerProtocol) -> int:
    ((opcode, _, _),) = split_frames(server.encode([Pong()]))
    return opcode


@pytest.mark.parametrize(
    ("offered", "chosen", "opcode"),
    [
        ("text.ircv3.net", "text.ircv3.net", TEXT),
        ("binary.ircv3.net", "binary.ircv3.net", BINARY),
        ("text.ircv3.net, binary.ircv3.net", "text.ircv3.net", TEXT),
        ("binary.ircv3.net, text.ircv3.net", "binary.ircv3.net", BINARY),
        ("soju, binary.ircv3.net, chat.json", "binary.ircv3.net", BINARY),
        ("chat.json, text.ircv3.net", "chat.json", TEXT),
    ],
)
def test_subprotocol_is_chosen_in_the_order_of_the_client(offered: str, chosen: str, opcode: int) -> None:
    server, got = connect(offered)
    assert (got, opcode_of(server)) == (chosen, opcode)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            frame(TEXT, b"CAP t") + frame(TEXT, b"{}"),
            [ChangeEncoding("websocket/text.ircv3.net/t", echoes=False), Say("{}")],
        ),
        (part(TEXT, b"CA") + frame(CONTINUATION, b"P t"), [ChangeEncoding("websocket/text.ircv3.net/t", echoes=False)]),
        (frame(TEXT, b'{"command":"ping"}') + frame(TEXT, b'{"command":"ping"}'), [Ping(), Ping()]),
    ],
)
@pytest.mark.parametrize("size", [1, 1_000])
def test_first_message_decides_without_a_subprotocol(sent: bytes, expected: list[Request], size: int) -> None:
    """Promise: gamja, which names none, has irc; a bot that names none has json."""
    server = WebSocket(irc=LineProtocol()).server()
    found = [request for each in pieces(handshake() + sent, size) for request in server.receive(each)]
    assert found == expected


def test_irc_is_refused_if_the_server_has_none() -> None:
    server = WebSocket().server()
    (refused,) = server.receive(handshake(Sec_WebSocket_Protocol="text.ircv3.net"))
    assert isinstance(refused, Unreadable)
    assert "chat.json" in refused.reason


@pytest.mark.parametrize("size", [1, 9, 1_000])
def test_each_message_is_a_line_of_either_kind(server: ServerProtocol, size: int) -> None:
    """Also in fragments, and with line ends, which the specification forbids to clients."""
    sent = [
        frame(TEXT, b"one"),
        frame(BINARY, b"two"),
        frame(BINARY, CAFE.encode()) + frame(TEXT, CAFE.encode()),
        part(TEXT, b"th") + frame(CONTINUATION, b"ree"),
        part(BINARY, b"fo") + frame(CONTINUATION, b"ur"),
        frame(TEXT, b"five\r\nsix"),
    ]
    found = [request for each in pieces(b"".join(sent), size) for request in server.receive(each)]
    assert found == [Say(text) for text in ("one", "two", CAFE, CAFE, "three", "four", "five", "six")]
    assert not server.is_incomplete


def test_bytes_that_are_not_utf8_reach_irc_in_a_binary_message(server: ServerProtocol) -> None:
    """It has an answer for them. In a text message they break WebSocket (RFC 6455, section 8.1)."""
    assert list(server.receive(frame(BINARY, b"caf\xe9"))) == [Say("caf\ufffd")]
    assert list(server.receive(part(BINARY, b"caf") + frame(CONTINUATION, b"\xe9"))) == [Say("caf\ufffd")]
    (refused,) = server.receive(frame(TEXT, b"caf\xe9"))
    assert isinstance(refused, Unreadable)
    assert refused.closes
    *_, last = split_frames(server.encode([Bye("it can't be read any further")]))
    assert (last[0], int.from_bytes(last[2][:2])) == (CLOSE, 1007)


def test_answers_of_irc_come_before_the_request_that_follows(server: ServerProtocol) -> None:
    """Promise: rule 3 of ServerProtocol holds through the WebSocket. Each line is a message of its own."""
    opcode = opcode_of(server)
    requests = iter(server.receive(frame(TEXT, b"PING 1") + frame(TEXT, b"PING 2") + frame(TEXT, b"text")))
    said = []
    for request in requests:
        said.append(server.data_to_send())
        said.append(server.encode([Pong()]) if request == Barrier() else b"")
    expected = [b"NOTE 1", b"PONG", b"NOTE 2", b"PONG"]
    assert split_frames(b"".join(said)) == [(opcode, True, line) for line in expected]


def test_variant_names_the_subprotocol() -> None:
    """The hub makes one encoding for each: a text message is no binary message."""
    for chosen in LINES:
        server, _ = connect(chosen)
        entered, changed = server.receive(frame(TEXT, b"NICK alice\r\nCAP est"))
        assert entered == Enter(username="alice", variant=f"websocket/{chosen}/t")
        assert changed == ChangeEncoding(f"websocket/{chosen}/est", echoes=False)
        assert isinstance(changed, ChangeEncoding)
        encode = WebSocket(irc=LineProtocol()).encoder(changed.variant)
        said = encode([PublicMessage(1, NOON_MS, "bob", "hello"), PublicMessage(2, NOON_MS, "bob", "x" * 2_000)])
        opcode = opcode_of(server)
        assert split_frames(said) == [(opcode, True, text) for text in (b"irc/est", b"hello", b"x" * 2_000)]


def test_variant_of_json_is_the_protocol() -> None:
    message = PublicMessage(1, NOON_MS, "bob", "hello")
    for protocol in (WebSocket(), WebSocket(irc=LineProtocol())):
        assert protocol.encoder("websocket")([message]) == protocol.encode_all([message])


def test_long_answer_has_a_message_for_each_line(server: ServerProtocol) -> None:
    opcode = opcode_of(server)
    messages = [PublicMessage(number, NOON_MS, "bob", "x" * number) for number in range(30)]
    said = b"".join(server.encode_long(History(()), messages))
    assert split_frames(said) == [(opcode, True, message.text.encode()) for message in messages]


def test_connection_ends_with_a_line_and_a_close_frame(server: ServerProtocol) -> None:
    opcode = opcode_of(server)
    assert list(server.receive(frame(CLOSE, b"\x03\xe8"))) == [Leave()]
    assert split_frames(server.encode([Bye(YOU_LEFT)])) == [(opcode, True, b"BYE"), (CLOSE, True, b"\x03\xe8")]
    assert list(server.receive(frame(TEXT, b"more"))) == []


# Bytes with a meaning in irc or in frames.
payloads = st.lists(
    st.binary(max_size=20)
    | st.sampled_from(
        [b"NICK a", b"USER a 0 * :a", b"CAP LS 302", b"CAP END", b"PRIVMSG #lobby :x", b"\r\n", b"\n", b"\0"]
    )
    | st.sampled_from([b"@label=x PING a", b"JOIN #lobby,#", b"BATCH +1 draft/multiline a", b"\xff", b"x" * 600]),
    max_size=6,
).map(b"".join)
frames = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, BINARY]), payloads),
    st.builds(lambda kind, one, two: part(kind, one) + frame(CONTINUATION, two), st.just(BINARY), payloads, payloads),
    st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=20)),
    st.binary(max_size=10),
)


@given(st.sampled_from(LINES), st.lists(frames, max_size=12).map(b"".join), st.integers(1, 200))
def test_no_frames_raise_or_break_a_line(chosen: str, data: bytes, size: int) -> None:
    """Promise: every message of the server is one line, of the kind of the subprotocol."""
    server = WebSocket(irc=Irc()).server()
    list(server.receive(handshake(Sec_WebSocket_Protocol=chosen)))
    server.data_to_send()
    said = b""
    for piece in pieces(data, size):
        for request in server.receive(piece):
            said += server.data_to_send() + server.encode(default_answer(request))
        said += server.data_to_send()
    for opcode, is_whole, payload in split_frames(said):
        if opcode not in (CLOSE, PONG):
            assert opcode == (TEXT if chosen == LINES[0] else BINARY)
            assert is_whole
            assert not re.search("[\r\n\0]", payload.decode())
