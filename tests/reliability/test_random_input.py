"""Random and damaged input on many connections and UDP sessions, while two users go on talking."""

from __future__ import annotations

import re
import socket
import struct
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import DatagramPeer, Peer, c, d, deadline, split_frames, typed_frame
from reliability.program import Program
from web_bytes import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, handshake, request
from websockets.frames import Opcode
from websockets.protocol import Side

from chatprotocol.limits import IRC_LINE_MAX_BYTES, LINE_MAX_BYTES
from chatprotocol.udp.packet import Datagram, pack
from chatprotocol.wire import SNIFF_MAX_BYTES, Sniff, by_name, sniff
from chatprotocol.wire.websocket_client import EventDecoder
from chatprotocol.wire.websocket_frames import FrameReader

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from chatprotocol.events import Event
    from chatprotocol.wire import Decoder, WireProtocol

CLIENTS = 50
# Per turn, so that a slow machine gets no more work than it can do.
MESSAGES_PER_TURN = 3
STEPS_PER_TURN = 50
# Share of clients that never read: the server must buffer what the system does not.
UNREAD_SHARE = 0.2
UDP_SHARE = 0.3
SILENCE_SECONDS = 2.0
# Deadline of a turn, on a busy machine.
TURN_MAX_SECONDS = 10.0
_READ_BYTES = 64 * 1024
UDP_MAX_BYTES = 65_507

# A client begins with a login of a few names, most of them taken, and goes on with any request of its protocol.
JSON_LOGINS = [b'{"command":"login","username":"fuzz%d","password":"secret"}\n' % number for number in range(20)]
JSON_REQUESTS = [
    *JSON_LOGINS[:3],
    b'{"command":"login","username":"fuzz2","since":17}\n{"command":"password","password":"secret"}\n',
    b'{"command":"PM","message":"\xe2\x82\xac \\u20ac \\"","nonce":"n1"}\n',
    b'{"command":"PM","message":"' + b"x" * 8_192 + b'"}\n',
    b'{"command":"DM","to":"fuzz3","message":"psst","nonce":"n2"}\n',
    b'{"command":"CH","limit":500,"before":17}\n{"command":"users"}\n{"command":"ping"}\n',
    b'{"command":"EX"}\n',
    b'{"command":"join","room":"fuzz"}\n{"command":"PM","room":"FUZZ","message":"psst"}\n{"command":"part","room":"fuzz"}\n',
    b'{"command":"join","room":"fuzz2","private":true}\n{"command":"invite","room":"fuzz2","username":"fuzz3"}\n',
    b'{"command":"kick","room":"fuzz","username":"fuzz3"}\n{"command":"rooms"}\n{"command":"CH","room":"fuzz2"}\n',
    b'{"command":"login","username":"fuzz4","password":"secret","since":{"lobby":0,"fuzz":3,"fuzz2":0}}\n',
    # Valid JSON, but no command.
    b'[{"command":"ping"}]\n"ping"\n17\n{"command":["ping"]}\n',
    b'{"command":"CH","limit":1e400,"before":18446744073709551616}\n',
]
FRAMES_LOGINS = [c(f"fuzz{number}") + c("secret") for number in range(20)]
FRAMES_REQUESTS = [
    *FRAMES_LOGINS[:2],
    c("fuzz1 bm-pm"),
    (c("PM") + d("one of many")) * 20,
    (c("BM") + d("")) * 20,
    c("PM") + d("x" * 8_192),
    c("PM"),
    typed_frame(b"D", b"\xe2\x82\xac\n\xff"),
    c("DM") + c("alice") + d("psst"),
    c("DM") + c("fuzz3"),
    c("CH 500") + c("USERS") + c("PING"),
    c("EX"),
    c(""),
]
REGISTER_LOGINS = [
    b"REGISTER %b fuzzguest%d\n\n" % (side, number) for number in range(10) for side in (b"TOSEND", b"TORECV")
]
REGISTER_REQUESTS = [
    *REGISTER_LOGINS[:4],
    b"SEND ALL\nContent-length: 5\n\nhello",
    b"SEND alice\nContent-length: 4\n\npsst",
    b"SEND fuzzguest3 \r\n Content-Length: 4\r\n \r\n \xf0\x9f\x98\x80\n",
    b"SEND fuzzguest4\nContent-length: 11\n\none of many" * 20,
    b"SEND ALL\nContent-length: 65536\n\n" + b"x" * 65_536,
    b"SEND ALL\n\n",
    b"RECEIVED bob\n\n" * 50,
    b"ERROR 103 Header Incomplete\n\n",
    b"FORWARD alice\nContent-length: 5\n\nhello",
]
WEB_LOGINS = [*(handshake() + frame(TEXT, login.strip()) for login in JSON_LOGINS), request("/"), handshake()]
WEB_REQUESTS = [
    *(frame(TEXT, each.strip()) for each in JSON_REQUESTS),
    *(frame(TEXT, each[:9], fin=False) + frame(CONTINUATION, each[9:].strip()) for each in JSON_REQUESTS[:3]),
    frame(PING, b"hello") * 20,
    frame(PONG),
    frame(TEXT, b"{", fin=False) + frame(CONTINUATION, fin=False) * 2_000,
    frame(BINARY, b"hello"),
    frame(CLOSE, b"\x03\xe8hello"),
    request("/", "HEAD", Connection="close"),
]
IRC_LOGINS = [
    *(b"NICK fuzzirc%d\r\nUSER f 0 * :f\r\nJOIN #lobby,#fuzz\r\n" % number for number in range(10)),
    *(b"PASS fuzz%d:secret\r\nNICK fuzz%d\r\nUSER f 0 * :f\r\n" % (number, number) for number in range(10)),
    b"CAP LS 302\r\nCAP REQ :batch draft/multiline echo-message labeled-response message-tags sasl server-time\r\n",
]
IRC_REQUESTS = [
    *IRC_LOGINS[:2],
    b"CAP END\r\nNICK fuzzirc3\r\nUSER f 0 * :f\r\n",
    b"AUTHENTICATE PLAIN\r\nAUTHENTICATE " + b"QUFB" * 100 + b"\r\n",
    (
        b"@label=17;+typing=active PRIVMSG #fuzz :\x01ACTION waves \xe2\x82\xac\x01\r\n"
        b"NOTICE alice,fuzzirc4 :\x0304psst\r\n"
    ),
    b"@+typing=active TAGMSG #fuzz,alice\r\nPRIVMSG fuzzirc5 :\x01VERSION\x01\r\n",
    b"BATCH +1 draft/multiline #fuzz\r\n@batch=1 PRIVMSG #fuzz :one\r\n@batch=1 PRIVMSG #fuzz :of many\r\nBATCH -1\r\n",
    b"JOIN #fuzz2,#lobby key\r\nMODE #fuzz2 +siklb-t key 17 fuzzirc6!*@*\r\nTOPIC #fuzz2 :x\r\nINVITE alice #fuzz2\r\n",
    b"KICK #fuzz2 fuzzirc6,fuzzirc7 :out\r\nPART #fuzz2,#lobby :bye\r\nMODE #fuzz2 +ov fuzz1 fuzz2\r\n",
    (
        b"NAMES #lobby\r\nWHO * %tcuhnfar,17\r\nWHOIS alice,fuzz1\r\nWHOWAS fuzzirc3 9\r\n"
        b"LIST\r\nLUSERS\r\nISON alice bob\r\n"
    ),
    (
        b"CHATHISTORY BETWEEN #fuzz msgid=1 timestamp=2026-01-31T12:00:00.000Z 500\r\nREDACT #fuzz 17\r\n"
        b"MARKREAD alice\r\n"
    ),
    b"MONITOR + alice,bob,fuzzirc8\r\nMONITOR S\r\nAWAY :x\r\nSETNAME :y\r\nNICK fuzzirc9\r\nPING 17\r\n",
    b"QUIT :bye\r\n",
]
WEB_IRC_LOGINS = [
    handshake(Sec_WebSocket_Protocol=each) + b"".join(frame(kind, line) for line in login.splitlines())
    for login in IRC_LOGINS
    for each, kind in (("text.ircv3.net", TEXT), ("binary.ircv3.net", BINARY))
]
WEB_IRC_REQUESTS = [
    *(frame(TEXT, each) for each in IRC_REQUESTS),
    *(frame(BINARY, each[:9], fin=False) + frame(CONTINUATION, each[9:]) for each in IRC_REQUESTS[:5]),
    frame(BINARY, b"PRIVMSG #lobby :\xff"),
    frame(TEXT),
]
DIALOGUES = [
    (JSON_LOGINS, JSON_REQUESTS),
    (WEB_LOGINS, WEB_REQUESTS),
    (FRAMES_LOGINS, FRAMES_REQUESTS),
    (REGISTER_LOGINS, REGISTER_REQUESTS),
    (IRC_LOGINS, IRC_REQUESTS),
    (WEB_IRC_LOGINS, WEB_IRC_REQUESTS),
]
REQUESTS = [*JSON_REQUESTS, *WEB_REQUESTS, *FRAMES_REQUESTS, *REGISTER_REQUESTS, *IRC_REQUESTS, *WEB_IRC_REQUESTS]
INSERTS = (b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b'"', b"\\", b"{", b"1" * 400, b"-1e999")
LENGTHS = tuple(size.to_bytes(4, "big") for size in (0, 1, 65_531, 65_532, 2**24 - 1, 2**32 - 1))
DIGITS = (b"0", b"1", b"-1", b"65536", b"65537", b"9" * 30, b"x")


def nest(data: bytes, _: int, chance: random.Random) -> bytes:
    levels = chance.choice((10, 64, 70, 1_000, 9_000))
    opening, end = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"command":', b"}")))
    deep = opening * levels + data.strip() + end * chance.choice((0, levels))
    return chance.choice((deep, b'{"command":"PM","message":' + deep + b"}")) + b"\n"


# Kinds of damage and their weights. Each gets the request, a random place in it, and the generator.
DAMAGE: dict[Callable[[bytes, int, random.Random], bytes], int] = {
    lambda data, _at, _chance: data: 30,
    lambda data, at, chance: (
        data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 2]) + data[at + 2 :]
    ): 20,
    lambda data, at, _chance: data[:at]: 10,
    lambda data, at, chance: data[:at] + chance.choice(REQUESTS)[at:]: 10,
    lambda data, at, chance: data[:at] + data[at : at + 20] * chance.choice((2, 100)) + data[at:]: 10,
    lambda data, at, chance: data[:at] + chance.choice(INSERTS) * chance.choice((1, 1, 3)) + data[at:]: 10,
    lambda data, _at, chance: data[:1] + chance.choice(LENGTHS) + data[5:]: 3,
    lambda data, _at, chance: re.sub(rb"[0-9]+", chance.choice(DIGITS), data, count=1): 3,
    lambda data, _at, chance: data * chance.choice((2, 30)): 5,
    lambda _data, _at, chance: chance.randbytes(chance.choice((1, 20, 2_000))): 5,
    lambda data, _at, chance: (
        data[:-1] + chance.choice((b"x", b"{", b"\xff")) * chance.choice((1_000, 70_000)) + b"\n"
    ): 2,
    nest: 3,
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    (damage,) = chance.choices(list(DAMAGE), list(DAMAGE.values()))
    return damage(data, chance.randrange(len(data)), chance)


# --- clients ---


class WebDecoder:
    """Reads answers of HTTP, and after the handshake, whose key may be damaged, frames: of json or of irc."""

    def __init__(self) -> None:
        self._head = b""
        self._events: EventDecoder | IrcFrames | None = None

    def decode(self, data: bytes) -> list[Any]:
        if self._events is not None:
            return [*self._events.decode(data)]
        self._head += data
        assert self._head.startswith(b"HTTP/1.1 "[: len(self._head)])
        accepted = re.match(rb"HTTP/1.1 101 .*Sec-WebSocket-Accept: (\S+)\r\n.*\r\n\r\n", self._head, re.DOTALL)
        if accepted is None:
            return []
        if b".ircv3.net\r\n" in accepted[0]:
            self._events = IrcFrames()
            return self._events.decode(self._head[accepted.end() :])
        self._events = EventDecoder(accepted[1].decode())
        return [*self._events.decode(self._head)]


class IrcFrames:
    """Reads frames with a line of irc each."""

    def __init__(self) -> None:
        self._frames = FrameReader(Side.CLIENT, LINE_MAX_BYTES)
        self._lines = IrcDecoder()

    def decode(self, data: bytes) -> list[Any]:
        frames = [each for each in self._frames.read_frames(data) if each.opcode in (Opcode.TEXT, Opcode.BINARY)]
        assert self._frames.problem is None
        return [line for each in frames for line in self._lines.decode(bytes(each.data) + b"\r\n")]


class IrcDecoder:
    """Reads lines of IRC."""

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, data: bytes) -> list[Any]:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            assert re.fullmatch(rb"(?:@\S+ )?(?::\S+ )?[A-Z0-9]+(?: [^\r\n\0]*)?", line), line
            assert len(re.sub(rb"^@\S+ ", b"", line)) + 2 <= IRC_LINE_MAX_BYTES
        return [*lines]


def decoder_of(protocol: WireProtocol) -> Decoder[Any]:
    own = {"websocket": WebDecoder, "irc": IrcDecoder}.get(protocol.name)
    return own() if own is not None else protocol.client().event_decoder()


class TcpClient:
    """A random client. It never waits."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._chance = chance
        self._socket = socket.create_connection(("127.0.0.1", port), TURN_MAX_SECONDS)
        self._socket.setblocking(False)
        self._reads = chance.random() >= UNREAD_SHARE
        self._logins, self._requests = chance.choice(DIALOGUES)
        # The first bytes, until they determine the protocol of the answers.
        self._first = b""
        self._decoder: Decoder[Event] | None = None

    def step(self) -> bool:
        """Do something. False after the last step."""
        actions = {self._send: 80, self._read: 15, self._half_close: 2, self._reset: 2, self._leave: 1}
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        try:
            return action()
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def _send(self) -> bool:
        data = damaged(self._chance.choice(self._requests if self._first else self._logins), self._chance)
        sent_bytes = self._socket.send(data)
        if len(self._first) < SNIFF_MAX_BYTES:
            self._first += data[:sent_bytes]
            protocol = sniff(self._first) if self._first else Sniff.MORE
            if self._decoder is None and not isinstance(protocol, Sniff):
                self._decoder = decoder_of(protocol)
        return True

    def _read(self) -> bool:
        """Answers are always well formed."""
        if not self._reads:
            return True
        data = self._socket.recv(_READ_BYTES)
        if self._decoder is not None:
            self._decoder.decode(data)
        return bool(data)

    def _half_close(self) -> bool:
        self._socket.shutdown(socket.SHUT_WR)
        return True

    def _reset(self) -> bool:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _leave(self) -> bool:
        return False


class UdpClient:
    """A random client over UDP. It may have a session, and sends valid and invalid packets in it and beside it."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._chance = chance
        self._peer = DatagramPeer(port)
        self._reads = chance.random() >= UNREAD_SHARE
        self._decoder = by_name("datagram").client().event_decoder()

    def step(self) -> bool:
        """Do something. False after the last step."""
        if not self._peer.session and not self._chance.randrange(3):
            self._peer.send(self._chance.choice(FRAMES_LOGINS))
        actions = {self._send: 40, self._send_packet: 40, self._read: 19, self._leave: 1}
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        return action()

    def close(self) -> None:
        self._peer.close()

    def _send(self) -> bool:
        if self._peer.session and self._reads:
            self._peer.put(*split_frames(self._chance.choice(FRAMES_REQUESTS)))
        return not self._peer.is_over

    def _send_packet(self) -> bool:
        kind, payload = self._chance.choice(list(split_frames(self._chance.choice(FRAMES_REQUESTS))))
        session = self._peer.session
        sequence = self._chance.choice((0, 1, 2, 3, 5, 20, 100, 1_000, 2**32 - 1))
        data = pack(Datagram(self._chance.choice((kind, kind, *b"CDdAX")), session, sequence, payload))
        self._peer.throw_bytes(damaged(data, self._chance)[:UDP_MAX_BYTES])
        return True

    def _read(self) -> bool:
        """Answers are always well formed."""
        if self._reads:
            self._peer.turn()
            for text in self._peer.arrived():
                self._decoder.decode(typed_frame(text[:1].encode(), text[2:].encode()))
        return not self._peer.is_over

    def _leave(self) -> bool:
        return False


def random_client(port: int, chance: random.Random) -> TcpClient | UdpClient:
    return (UdpClient if chance.random() < UDP_SHARE else TcpClient)(port, chance)


def talk(one: Peer, other: Peer, turn: int) -> None:
    """Both send; both hear the messages of the other in order, and get their confirmations, before the deadline."""
    texts = [f"turn {turn}, message {number}" for number in range(MESSAGES_PER_TURN)]
    with deadline(TURN_MAX_SECONDS, f"turn {turn}"):
        for peer in (one, other):
            for text in texts:
                peer.ask(command="PM", message=text)
        for peer, name in ((one, "bob"), (other, "alice")):
            heard, confirmed = [], []
            while len(heard) < len(texts) or len(confirmed) < len(texts):
                answer = peer.next("broadcast", "sent")
                if answer["type"] == "sent":
                    confirmed.append(answer["id"])
                elif answer["from"] == name:
                    heard.append(answer["message"])
            assert heard == texts
            assert confirmed == sorted(set(confirmed))


@pytest.mark.parametrize("turns", [10, pytest.param(120, marks=pytest.mark.long)])
def test_random_input_disturbs_no_other_client(tmp_path: Path, chance: random.Random, turns: int) -> None:
    """Afterwards no thread and no connection is left."""
    with ExitStack() as stack:
        program = stack.enter_context(Program(tmp_path, silence_seconds=SILENCE_SECONDS))
        alice, bob = (stack.enter_context(closing(Peer(program.port))) for _ in range(2))
        alice.login("alice")
        bob.login("bob")
        threads, sockets = program.threads(), program.descriptors("socket:")
        clients = [random_client(program.port, chance) for _ in range(CLIENTS)]
        stack.callback(lambda: [client.close() for client in clients])
        for turn in range(turns):
            for _ in range(STEPS_PER_TURN):
                place = chance.randrange(CLIENTS)
                if not clients[place].step():
                    clients[place].close()
                    clients[place] = random_client(program.port, chance)
            talk(alice, bob, turn)
        for client in clients:
            client.close()
        program.wait_until(lambda: program.threads() == threads, "the end of all other threads")
        program.wait_until(lambda: program.descriptors("socket:") == sockets, "the end of all other connections")
        assert program.stop() == 0
    assert "Traceback" not in program.log()
    assert "reader failed" not in program.log()
