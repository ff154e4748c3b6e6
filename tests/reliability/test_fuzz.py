"""The running server under random and damaged input on many connections, while two users go on talking."""

from __future__ import annotations

import re
import socket
import struct
from contextlib import closing
from typing import TYPE_CHECKING

from integration.room import DatagramPeer, Peer, deadline, split_frames
from reliability.program import Program

from chatprotocol.udp.packet import Datagram, pack
from chatprotocol.wire import SNIFF_MAX_BYTES, Sniff, by_name, sniff

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from chatprotocol.events import Event
    from chatprotocol.wire import Decoder

STRANGERS = 50
# What the good ones say at a turn, and what strangers do between two turns: a slow machine does not get more to do than
# it can.
MESSAGES_A_TURN = 3
STEPS_A_TURN = 50
# So many strangers never listen: the server has to keep for them what the system does not.
DEAF_PART = 0.2
# So many come over UDP. They vanish without a word.
DATAGRAM_PART = 0.3
SILENCE_SECONDS = 2.0
TURNS = 120
# A turn of the good ones may take so long, on a machine that is busy with something else as well.
TURN_MAX_SECONDS = 10.0
_READ_BYTES = 64 * 1024
# The longest that UDP carries.
DATAGRAM_MAX_BYTES = 65_507


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


JSON_LOGINS = [b'{"command":"login","username":"fuzz%d","password":"secret"}\n' % number for number in range(20)]
JSON_LINES = [
    *JSON_LOGINS[:5],
    b'{"command":"login","username":"fuzz1","password":"secret","since":17}\n',
    b'{"command":"login","username":"fuzz2"}\n',
    b'{"command":"password","password":"secret"}\n',
    b'{"command":"PM","message":"hello"}\n',
    b'{"command":"PM","message":"\xe2\x82\xac \\u20ac \\"","nonce":"n1"}\n',
    b'{"command":"PM","message":"' + b"x" * 8_192 + b'"}\n',
    b'{"command":"DM","to":"alice","message":"psst"}\n',
    b'{"command":"DM","to":"fuzz3","message":"psst","nonce":"n2"}\n',
    b'{"command":"CH","limit":500,"before":17}\n',
    b'{"command":"CH","limit":500}\n',
    b'{"command":"users"}\n',
    b'{"command":"ping"}\n',
    b'{"command":"EX"}\n',
    # Good JSON, and no command of ours.
    b'[{"command":"ping"}]\n',
    b'"ping"\n',
    b"17\n",
    b'{"command":["ping"]}\n',
    b'{"command":"PM","message":{"message":"hello"},"nonce":17}\n',
    b'{"command":"CH","limit":1e400,"before":-1.5}\n',
    b'{"command":"CH","limit":true,"before":18446744073709551616}\n',
]
# Both steps at once: whoever is up to no good does not wait.
FRAMES_LOGINS = [frame(b"C", b"fuzz%d" % number) + frame(b"C", b"secret") for number in range(20)]
FRAMES_LINES = [
    *FRAMES_LOGINS[:2],
    frame(b"C", b"fuzz1 bm-pm"),
    frame(b"C", b"secret"),
    frame(b"C", b"PM") + frame(b"D", b"hello"),
    (frame(b"C", b"PM") + frame(b"D", b"one of many")) * 20,
    (frame(b"C", b"BM") + frame(b"D", b"")) * 20,
    frame(b"C", b"PM") + frame(b"D", b"x" * 8_192),
    frame(b"C", b"PM"),
    frame(b"D", b"\xe2\x82\xac\n\xff"),
    frame(b"D", frame(b"C", b"PM") * 4),
    frame(b"C", b"DM") + frame(b"C", b"alice") + frame(b"D", b"psst"),
    frame(b"C", b"DM") + frame(b"C", b"fuzz3"),
    frame(b"C", b"CH"),
    frame(b"C", b"CH 500"),
    frame(b"C", b"USERS"),
    frame(b"C", b"PING"),
    frame(b"C", b"EX"),
    frame(b"C", b""),
]
# One connection or both, of a few names: most are taken, by others or by the same.
REGISTER_LOGINS = [
    b"REGISTER %b fuzzguest%d\n\n" % (side, number) for number in range(10) for side in (b"TOSEND", b"TORECV")
]
REGISTER_LINES = [
    *REGISTER_LOGINS[:4],
    b"SEND ALL\nContent-length: 5\n\nhello",
    b"SEND alice\nContent-length: 4\n\npsst",
    b"SEND fuzzguest3\nContent-length: 4\n\npsst",
    b"SEND fuzzguest3 \r\n Content-Length: 4\r\n \r\n \xf0\x9f\x98\x80\n",
    b"SEND fuzzguest4\nContent-length: 11\n\none of many" * 20,
    b"SEND ALL\nContent-length: 8192\n\n" + b"x" * 8_192,
    b"SEND ALL\nContent-length: 65536\n\n" + b"x" * 65_536,
    b"SEND ALL\nContent-length: -1\n\n",
    b"SEND ALL\n\n",
    b"RECEIVED alice\n\n",
    b"RECEIVED bob\n\n" * 50,
    b"RECEIVED\n\n",
    b"ERROR 103 Header Incomplete\n\n",
    b"FORWARD alice\nContent-length: 5\n\nhello",
    b"\n\n",
]
# What strangers begin with, and what they go on with.
TONGUES = [(JSON_LOGINS, JSON_LINES), (FRAMES_LOGINS, FRAMES_LINES), (REGISTER_LOGINS, REGISTER_LINES)]
LINES = [*JSON_LINES, *FRAMES_LINES, *REGISTER_LINES]


# --- damage: each takes a line and gives another one ---


def flip(line: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(line)
    for _ in range(chance.randint(1, 4)):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def truncate(line: bytes, chance: random.Random) -> bytes:
    return line[: chance.randrange(len(line))]


def repeat(line: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.choices(range(len(line) + 1), k=2))
    return line[:end] + line[start:end] * chance.choice((1, 2, 100)) + line[end:]


def splice(line: bytes, chance: random.Random) -> bytes:
    other = chance.choice(LINES)
    return line[: chance.randrange(len(line))] + other[chance.randrange(len(other)) :]


def insert(line: bytes, chance: random.Random) -> bytes:
    what = chance.choice(
        (b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b'"', b"\\", b"{", b"}", b"1" * 400, b"-1e999")
    )
    where = chance.randrange(len(line))
    return line[:where] + what * chance.choice((1, 1, 3)) + line[where:]


def nest(line: bytes, chance: random.Random) -> bytes:
    levels = chance.choice((10, 64, 70, 1_000, 9_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"command":', b"}")))
    deep = opening * levels + line.strip() + closing * chance.choice((0, levels))
    return (
        chance.choice((deep, b'{"command":"PM","message":' + deep + b"}", b'{"command":"ping","x":' + deep + b"}"))
        + b"\n"
    )


def enlarge(line: bytes, chance: random.Random) -> bytes:
    return line[:-1] + chance.choice((b"x", b" ", b"{", b'"', b"\xff")) * chance.choice((1_000, 65_536, 70_000)) + b"\n"


def miscount(line: bytes, chance: random.Random) -> bytes:
    """Another length than the one that is to come."""
    size = chance.choice((0, 1, len(line), 65_531, 65_532, 2**24 - 1, 2**32 - 1))
    return line[:1] + size.to_bytes(4, "big") + line[5:]


def recount(line: bytes, chance: random.Random) -> bytes:
    """The same where numbers are written as text."""
    size = chance.choice((b"0", b"1", b"-1", b"65536", b"65537", b"9" * 30, b"", b"x"))
    return re.sub(rb"[0-9]+", size, line, count=1)


def flood(line: bytes, chance: random.Random) -> bytes:
    return line * chance.choice((2, 30))


def keep(line: bytes, _: random.Random) -> bytes:
    return line


def forget(_: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 20, 2_000)))


DAMAGE: dict[Callable[[bytes, random.Random], bytes], int] = {
    keep: 30,
    flip: 20,
    truncate: 10,
    repeat: 10,
    splice: 10,
    insert: 10,
    flood: 5,
    forget: 5,
    nest: 3,
    miscount: 3,
    recount: 3,
    enlarge: 2,
}


class Stranger:
    """One connection that is up to no good. It waits for nothing."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._chance = chance
        self._socket = socket.create_connection(("127.0.0.1", port), TURN_MAX_SECONDS)
        self._socket.setblocking(False)
        self._is_deaf = chance.random() < DEAF_PART
        self._logins, self._lines = chance.choice(TONGUES)
        # What was said first, until it is known in which dialect the server answers.
        self._first = b""
        self._decoder: Decoder[Event] | None = None

    def step(self) -> bool:
        """Do something; false when that was the last thing."""
        actions = {self._say: 80, self._listen: 15, self._end_half: 2, self._reset: 2, self._leave: 1}
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        try:
            return action()
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def _say(self) -> bool:
        line = self._chance.choice(self._lines if self._first else self._logins)
        (damage,) = self._chance.choices(list(DAMAGE), list(DAMAGE.values()))
        data = damage(line, self._chance)
        sent_bytes = self._socket.send(data)
        if len(self._first) < SNIFF_MAX_BYTES:
            self._first += data[:sent_bytes]
            protocol = sniff(self._first) if self._first else Sniff.MORE
            if self._decoder is None and not isinstance(protocol, Sniff):
                self._decoder = protocol.event_decoder()
        return True

    def _listen(self) -> bool:
        """What the server says is always well-formed."""
        if self._is_deaf:
            return True
        data = self._socket.recv(_READ_BYTES)
        if self._decoder is not None:
            self._decoder.decode(data)
        return bool(data)

    def _end_half(self) -> bool:
        self._socket.shutdown(socket.SHUT_WR)
        return True

    def _reset(self) -> bool:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _leave(self) -> bool:
        return False


class DatagramStranger:
    """One over UDP. It may have a session; but what it sends there, or elsewhere, is not always what belongs there."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._chance = chance
        self._peer = DatagramPeer(port)
        self._is_deaf = chance.random() < DEAF_PART
        self._decoder = by_name("datagram").event_decoder()

    def step(self) -> bool:
        """Do something; false when that was the last thing."""
        if self._peer.arq is None and not self._chance.randrange(3):
            self._peer.send(self._chance.choice(FRAMES_LOGINS))
        actions = {self._converse: 40, self._throw: 40, self._listen: 19, self._leave: 1}
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        return action()

    def close(self) -> None:
        self._peer.close()

    def _converse(self) -> bool:
        """As the protocol has it."""
        if self._peer.arq is not None and not self._is_deaf:
            self._peer.put(*split_frames(self._chance.choice(FRAMES_LINES)))
        return not self._peer.is_over

    def _throw(self) -> bool:
        kind, payload = self._chance.choice(list(split_frames(self._chance.choice(FRAMES_LINES))))
        session = 0 if self._peer.arq is None else self._peer.session
        sequence = self._chance.choice((0, 1, 2, 3, 5, 20, 100, 1_000, 2**32 - 1))
        data = pack(Datagram(self._chance.choice((kind, kind, *b"CDdAX")), session, sequence, payload))
        (damage,) = self._chance.choices(list(DAMAGE), list(DAMAGE.values()))
        self._peer.throw_bytes(damage(data, self._chance)[:DATAGRAM_MAX_BYTES])
        return True

    def _listen(self) -> bool:
        """What the server says is always well-formed."""
        if not self._is_deaf:
            self._peer.turn()
            for text in self._peer.arrived():
                self._decoder.decode(frame(text[:1].encode(), text[2:].encode()))
        return not self._peer.is_over

    def _leave(self) -> bool:
        return False


def talk(one: Peer, other: Peer, turn: int) -> None:
    """Both say something; both hear all that the other one says, in order, and are confirmed, before the deadline."""
    texts = [f"turn {turn}, message {number}" for number in range(MESSAGES_A_TURN)]
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


class Mob:
    """Many strangers; each step is that of any of them, and one who has gone is replaced."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._port = port
        self._chance = chance
        self._strangers = [self._invite() for _ in range(STRANGERS)]

    def step(self) -> None:
        place = self._chance.randrange(STRANGERS)
        if not self._strangers[place].step():
            self._strangers[place].close()
            self._strangers[place] = self._invite()

    def _invite(self) -> Stranger | DatagramStranger:
        kind = DatagramStranger if self._chance.random() < DATAGRAM_PART else Stranger
        return kind(self._port, self._chance)

    def close(self) -> None:
        for stranger in self._strangers:
            stranger.close()


def test_nobody_else_notices_strangers_who_send_anything(tmp_path: Path, chance: random.Random) -> None:
    with (
        Program(tmp_path, silence_seconds=SILENCE_SECONDS) as program,
        closing(Peer(program.port)) as alice,
        closing(Peer(program.port)) as bob,
    ):
        alice.login("alice")
        bob.login("bob")
        threads, sockets = program.threads(), program.descriptors("socket:")
        with closing(Mob(program.port, chance)) as mob:
            for turn in range(TURNS):
                for _ in range(STEPS_A_TURN):
                    mob.step()
                talk(alice, bob, turn)
        program.wait_until(lambda: program.threads() == threads, "the end of all other threads")
        program.wait_until(lambda: program.descriptors("socket:") == sockets, "the end of all other connections")
        assert program.stop() == 0
    assert "Traceback" not in program.log()
    assert "reader failed" not in program.log()
