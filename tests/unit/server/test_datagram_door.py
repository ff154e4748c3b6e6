"""The door for UDP: who gets a session, who gets an answer, and that nobody gets more than was sent before that."""

import gc
import re
import secrets
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from random import Random
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatprotocol.requests import Command, Data
from chatprotocol.udp import arq as arq_module
from chatprotocol.udp.arq import Arq
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, PIECE, Datagram, pack, unpack
from chatprotocol.wire import PROTOCOLS, by_name
from chatserver.memory import ShortOfMemoryError, no_limit
from chatserver.net import udp_listener as datagram_module
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.connection import ConnectionServices
from chatserver.net.connections import Connections, FullError
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import SendQueue
from chatserver.net.transport import TcpTransport
from chatserver.net.udp_listener import UdpListener

from .lines import NotingSocket
from .rooms import DEADLINE_SECONDS, FakeSession, eventually, in_background, must_end

C, D = ord("C"), ord("D")
KINDS = {"command": C, "data": D, "piece": PIECE, "none of ours": ord("x"), "zero": 0}
HEADER_BYTES = 13
# The shortest opening that is answered has so many bytes of payload.
OPENING_BYTES = 23
COOKIE = re.compile(rb"COOKIE ([0-9a-f]{16})")
# A peer that nobody has asked whether it is there.
FORGED = ("192.0.2.1", 4_711)
# When the tests begin that have a clock of their own: a span of 30 s, too.
NOW = 30_000.0
NO_SESSION = b"ERROR no_session There is no such session; open a new one."
SERVER_FULL = b"ERROR server_full The server is full; try again later."
SHUTTING_DOWN = b"ERROR shutting_down The server is shutting down."


class FakeBound(NotingSocket):
    """Stands for the bound socket where a test says itself what comes and when."""

    def close(self) -> None:
        """There is nothing to close."""

    def answers(self) -> list[tuple[Datagram, object]]:
        """What was sent whereto since somebody looked."""
        found: list[tuple[Datagram, object]] = []
        while self.sent:
            data, address = self.sent.popleft()
            datagram = unpack(data)
            assert datagram is not None
            found.append((datagram, address))
        return found


class Hall:
    """The door, with a real courier behind it, and fake sessions."""

    def __init__(self, bound: Any = None, max_connections: int = 10, claim: Callable[[int], None] = no_limit) -> None:
        self.bound: Any = bound
        if bound is None:
            self.bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.bound.bind(("127.0.0.1", 0))
            self.bound.setblocking(False)
        self.broadcasts = {protocol.name: BroadcastBuffer(protocol.encode_all, 1_000_000) for protocol in PROTOCOLS}
        self.crashes: list[str] = []
        self.sender = Sender(list(self.broadcasts.values()), 1_000_000, self.crashes.append)
        services = ConnectionServices(PROTOCOLS, self.broadcasts, self.sender, 1_000.0, self._open_session)
        self.connections = Connections(services, max_connections, claim)
        self.listener = UdpListener(self.bound, self.connections, by_name("datagram"), self.crashes.append)
        self.sessions: list[FakeSession] = []
        # The label and the address of each.
        self.labels: list[tuple[str, str]] = []
        self._is_stopped = False
        self.sender.start()

    def _open_session(self, protocol: str, send_queue: SendQueue, label: str, address: str) -> FakeSession:
        self.labels.append((label, address))
        self.sessions.append(FakeSession(send_queue, protocol=protocol, is_logged_in=True))
        return self.sessions[-1]

    @property
    def is_empty(self) -> bool:
        """Does the door know nobody?"""
        return not self.listener._transports and not self.listener._opened

    def take(self, data: Datagram, address: tuple[object, ...] = FORGED, now: float = NOW) -> None:
        """This comes to a door that was not started."""
        self.listener._take(data, address, now)

    def stop(self) -> None:
        self._is_stopped = True
        self.connections.drain(0.0)
        self.sender.stop(0.0)
        self.listener.stop()
        for broadcast in self.broadcasts.values():
            broadcast.close()

    def close(self) -> None:
        if not self._is_stopped:
            self.stop()
        assert self.crashes == []


class Client:
    """One socket of a client, and at most one session."""

    _fences = count(1)

    def __init__(self, hall: Hall, host: str = "127.0.0.1") -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 0))
        self._sock.settimeout(DEADLINE_SECONDS)
        self._listener: tuple[str, int] = hall.bound.getsockname()
        self.arq = Arq(0, 0.0)
        # What was said last to get a session.
        self.opening = b""

    def send(self, *said: Datagram | bytes) -> None:
        for each in said:
            self._sock.sendto(each if isinstance(each, bytes) else pack(each), self._listener)

    def receive(self) -> Datagram:
        datagram = unpack(self._sock.recv(65_536))
        assert datagram is not None
        return datagram

    def answers(self, *said: Datagram | bytes) -> list[Datagram]:
        """What this is answered: all that comes before the answer to something else that is said behind it."""
        fence = Datagram(D, next(self._fences), 1, b" " * len(NO_SESSION))
        self.send(*said, fence)
        found: list[Datagram] = []
        while (datagram := self.receive()).session != fence.session:
            found.append(datagram)
        return found

    def cookie(self, text: bytes) -> bytes:
        """The cookie for this text, in hexadecimal."""
        (answer,) = self.answers(Datagram(C, 0, 0, text.ljust(OPENING_BYTES)))
        found = COOKIE.fullmatch(answer.payload)
        assert found is not None
        return found[1]

    def open(self, text: bytes = b"alice") -> None:
        """Get a session, and the answer to what was said to get it."""
        self.opening = text + b" " + self.cookie(text)
        self.send(Datagram(C, 0, 0, self.opening))
        first = self.receive()
        assert first.session != 0
        self.arq = Arq(first.session, time.monotonic())
        assert self._take(first) == [(C, b"PONG")]

    def say(self, *frames: tuple[int, bytes]) -> None:
        """In the session."""
        self.arq.put(frames)
        self.send(*self.arq.due(time.monotonic()))

    def hear(self, size: int = 1) -> list[tuple[int, bytes]]:
        """The next of what the session says."""
        heard: list[tuple[int, bytes]] = []
        while len(heard) < size:
            heard += self._take(self.receive())
        return heard

    def _take(self, datagram: Datagram) -> list[tuple[int, bytes]]:
        arrival = self.arq.receive(datagram, time.monotonic())
        self.send(*arrival.acks)
        return arrival.frames

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hall(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Hall:
    """However fast the machine is, these tests ask the door more than strangers may."""
    monkeypatch.setattr(datagram_module, "_STRANGERS_MAX", 10**9)
    hall = opened.enter_context(closing(Hall()))
    hall.listener.start()
    return hall


@pytest.fixture
def still_hall(opened: ExitStack) -> Hall:
    """One whose door does only what a test says, at the time that it says."""
    return opened.enter_context(closing(Hall(FakeBound())))


@pytest.fixture
def client(hall: Hall, opened: ExitStack) -> Client:
    return opened.enter_context(closing(Client(hall)))


@pytest.fixture
def another(hall: Hall, opened: ExitStack) -> Callable[[], Client]:
    """More clients, each with an address of its own."""
    return lambda: opened.enter_context(closing(Client(hall)))


def opening(text: bytes) -> Datagram:
    return Datagram(C, 0, 0, text)


# --- getting a session ---


def test_who_says_its_name_is_given_a_cookie(client: Client) -> None:
    (answer,) = client.answers(opening(b"alice".ljust(OPENING_BYTES)))

    assert answer[:3] == (C, 0, 0)
    assert COOKIE.fullmatch(answer.payload)


@pytest.mark.parametrize("text", [b"alice", b"alice bm-pm"])
def test_who_sends_the_cookie_back_has_a_session_and_is_answered_what_it_said(
    hall: Hall, client: Client, text: bytes
) -> None:
    client.send(opening(text + b" " + client.cookie(text)))
    first = client.receive()

    assert first.session != 0
    assert (first.kind, first.sequence, first.payload) == (C, 1, b"PONG")
    (session,) = hall.sessions
    assert session.protocol == "datagram"
    assert session.handled == [Command(text.decode())]
    assert hall.labels == [("1@127.0.0.1", "127.0.0.1")]


def test_the_engine_of_the_client_gets_a_session(hall: Hall, client: Client) -> None:
    handshake = UdpHandshake(b"alice", NOW)
    client.send(*handshake.due(NOW))
    assert handshake.receive_reply(client.receive(), NOW) is None
    client.send(*handshake.due(NOW))
    first = client.receive()
    session = handshake.receive_reply(first, NOW)

    assert isinstance(session, Arq)
    assert session.receive(first, NOW).frames == [(C, b"PONG")]
    eventually(lambda: session.session in hall.listener._transports)


def test_the_dialogue_goes_both_ways(hall: Hall, client: Client) -> None:
    client.open()
    said = [(C, b"PM"), (D, b"hello"), (C, b"USERS")]
    for each in said:
        client.say(each)
        assert client.hear() == [(C, b"PONG")]

    assert hall.sessions[0].handled[1:] == [Command("PM"), Data("hello"), Command("USERS")]


def test_what_is_said_at_once_is_answered_in_order(hall: Hall, client: Client) -> None:
    client.open()
    client.say(*[(C, b"%d" % number) for number in range(60)])
    assert client.hear(60) == [(C, b"PONG")] * 60

    assert hall.sessions[0].handled[1:] == [Command(str(number)) for number in range(60)]


def test_each_session_has_a_number_that_cannot_be_guessed(
    client: Client, another: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could guess it could speak in it. 0 is none."""
    asked: list[int] = []
    monkeypatch.setattr(secrets, "randbelow", lambda limit: asked.append(limit) or limit - len(asked))  # type: ignore[func-returns-value]
    other = another()
    client.open()
    other.open()

    assert asked == [2**64 - 1] * 2
    assert [client.arq.session, other.arq.session] == [2**64 - 1, 2**64 - 2]


def test_one_address_may_have_several_sessions(hall: Hall, client: Client) -> None:
    client.open(b"alice")
    client.open(b"bob")

    assert [session.handled for session in hall.sessions] == [[Command("alice")], [Command("bob")]]


# --- cookies ---


def test_the_cookie_of_another_address_gets_another_cookie(
    hall: Hall, client: Client, another: Callable[[], Client]
) -> None:
    """Promise: a forged address costs nothing."""
    cookie = client.cookie(b"alice")
    other = another()
    (answer,) = other.answers(opening(b"alice " + cookie + b" "))

    assert answer.payload == b"COOKIE " + other.cookie(b"alice")
    assert other.cookie(b"alice") != cookie
    assert hall.is_empty


@pytest.mark.parametrize("text", [b"bob", b"Alice", b"alice bm-pm"])
def test_the_cookie_of_another_text_gets_another_cookie(hall: Hall, client: Client, text: bytes) -> None:
    cookie = client.cookie(b"alice")
    (answer,) = client.answers(opening((text + b" " + cookie).ljust(OPENING_BYTES)))

    assert answer.payload == b"COOKIE " + client.cookie(text)
    assert hall.is_empty


def cookie_of(hall: Hall) -> bytes:
    """The one that was answered last, by a door that was not started."""
    *_, (answer, address) = hall.bound.answers()
    found = COOKIE.fullmatch(answer.payload)
    assert found is not None
    assert address == FORGED
    return bytes(found[1])


@pytest.mark.parametrize(("later", "is_good"), [(0.0, True), (59.9, True), (60.0, False)])
def test_a_cookie_that_is_too_old_gets_another_cookie(still_hall: Hall, later: float, is_good: bool) -> None:
    still_hall.take(opening(b"alice".ljust(OPENING_BYTES)))
    cookie = cookie_of(still_hall)
    still_hall.take(opening(b"alice " + cookie + b" "), now=NOW + later)

    assert len(still_hall.listener._transports) == is_good
    assert is_good or cookie_of(still_hall) != cookie


# --- an opening that comes twice ---


def test_an_opening_that_comes_twice_gets_one_session(hall: Hall, client: Client) -> None:
    """Its answer was late, perhaps; and it is sent again by itself."""
    client.open()
    assert client.answers(*[opening(client.opening)] * 3, opening(client.opening + b"  ")) == []

    assert len(hall.sessions) == 1
    client.say((C, b"PM"))
    assert client.hear() == [(C, b"PONG")]


def test_from_another_address_the_same_opening_is_somebody_elses(
    hall: Hall, client: Client, another: Callable[[], Client]
) -> None:
    client.open()
    (answer,) = another().answers(opening(client.opening + b" "))

    assert COOKIE.fullmatch(answer.payload)
    assert len(hall.sessions) == 1


def leave(hall: Hall, client: Client) -> None:
    """Say the last word, get the answer, and be gone."""
    client.say((C, b"EX"))
    assert client.hear() == [(C, b"BYE x")]
    eventually(lambda: client.arq.session not in hall.listener._transports)


def test_after_its_session_the_same_opening_gets_a_new_one(hall: Hall, client: Client) -> None:
    """The cookie is good for a while."""
    client.open()
    leave(hall, client)
    client.send(opening(client.opening))
    while (first := client.receive()).session in (0, client.arq.session):
        pass

    assert (first.sequence, first.payload) == (1, b"PONG")
    assert len(hall.sessions) == 2


def test_a_session_that_has_ended_just_now_is_none_that_an_opening_can_mean(still_hall: Hall) -> None:
    """Though the door has not looked yet who is gone. And when it does, it forgets no more than that one."""
    still_hall.take(opening(b"alice".ljust(OPENING_BYTES)))
    said = opening(b"alice " + cookie_of(still_hall))
    still_hall.take(said)
    (first,) = still_hall.listener._transports.values()
    eventually(lambda: still_hall.bound.sent)
    still_hall.take(Datagram(ACK, first.session, 1))
    first.hang_up()
    eventually(lambda: first.closed)
    still_hall.take(said)
    assert len(still_hall.listener._transports) == 2
    still_hall.listener._look(NOW)
    still_hall.take(said)

    (second,) = still_hall.listener._transports.values()
    assert second is not first


# --- whose session it is ---


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_from_another_address_a_session_is_an_unknown_one(
    hall: Hall, client: Client, another: Callable[[], Client], kind: int
) -> None:
    """Promise: nobody else can speak in a session, though it knows the number."""
    client.open()
    session = client.arq.session
    stolen = Datagram(kind, session, 2, b"EX".ljust(len(NO_SESSION)))

    assert another().answers(stolen) == [Datagram(C, session, 0, NO_SESSION)]
    client.say((C, b"PM"))
    assert client.hear() == [(C, b"PONG")]
    assert hall.sessions[0].handled[1:] == [Command("PM")]


def test_from_another_address_nothing_is_acknowledged(
    hall: Hall, client: Client, another: Callable[[], Client]
) -> None:
    client.send(opening(b"alice " + client.cookie(b"alice")))
    first = client.receive()
    assert another().answers(Datagram(ACK, first.session, 1)) == []

    assert hall.listener._transports[first.session].unacknowledged_bytes() > 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_who_speaks_in_a_session_that_is_not_there_is_told_so(client: Client, kind: int) -> None:
    for session in (1, 2**64 - 1):
        assert client.answers(Datagram(kind, session, 1, NO_SESSION)) == [Datagram(C, session, 0, NO_SESSION)]


@pytest.mark.parametrize(
    "datagram",
    [
        Datagram(ACK, 5, 1, NO_SESSION),
        Datagram(ACK, 0, 0, NO_SESSION),
        Datagram(ACK, 0, 1, NO_SESSION),
        Datagram(C, 5, 0, NO_SESSION),
        Datagram(D, 5, 0, NO_SESSION),
        Datagram(D, 0, 0, NO_SESSION),
    ],
)
def test_what_may_be_an_answer_itself_is_not_answered(client: Client, datagram: Datagram) -> None:
    """Two servers would go on for ever."""
    assert client.answers(datagram) == []


def test_a_session_that_has_ended_is_forgotten(hall: Hall, client: Client) -> None:
    """Promise: memory stays bounded."""
    client.open()
    leave(hall, client)

    assert hall.is_empty
    said = Datagram(C, client.arq.session, 9, NO_SESSION)
    assert Datagram(C, client.arq.session, 0, NO_SESSION) in client.answers(said)


def test_one_that_ends_leaves_the_others_alone(hall: Hall, client: Client, another: Callable[[], Client]) -> None:
    other = another()
    client.open()
    other.open()
    leave(hall, client)
    other.say((C, b"PM"))

    assert other.hear() == [(C, b"PONG")]


# --- peers that are lost ---


def lost(log: list[Any]) -> list[Any]:
    return [entry for entry in log if entry["event"] == "disconnected"]


def test_a_peer_that_vanishes_without_a_word_is_lost(
    hall: Hall, client: Client, another: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: gone from the list within 60 s, with a line in the log; who says something stays."""
    other = another()
    client.open()
    other.open()
    monkeypatch.setattr(arq_module, "SILENCE_SECONDS", 0.5)
    with capture_logs() as log:
        while not (lost(log) and hall.sessions[0].calls):
            other.say((C, b"PM"))
            assert other.hear() == [(C, b"PONG")]

    said = {"reason": "peer_lost", "connection": "1@127.0.0.1", "detail": "nothing was heard for 0.5 s"}
    assert lost(log) == [{"event": "disconnected", **said, "log_level": "info"}]
    assert hall.sessions[0].calls == ["end"]
    eventually(lambda: len(hall.listener._transports) == len(hall.listener._opened) == 1)


def test_a_peer_that_acknowledges_nothing_is_lost(hall: Hall, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arq_module, "RESEND_SECONDS", 0.0005)
    with capture_logs() as log:
        client.send(opening(b"alice " + client.cookie(b"alice")))
        eventually(lambda: lost(log) and hall.sessions[0].calls)

    assert [entry["detail"] for entry in lost(log)] == ["a datagram was not acknowledged, and was sent 9 times"]
    eventually(lambda: hall.is_empty)
    said = client.answers()
    assert len(said) == 9
    assert len(set(said)) == 1


def test_what_gets_lost_on_its_way_to_the_peer_is_sent_again(client: Client) -> None:
    client.send(opening(b"alice " + client.cookie(b"alice")))
    first = client.receive()

    assert client.receive() == first


# --- nobody is answered with more than it sent ---


# Every length up to where the longest answer fits in, and some beyond; the last are more than is read.
LENGTHS = (*range(80), 100, 500, 1_199, 1_200, 1_201, 1_500, 9_000)


def expected(answers: tuple[bytes, ...], room_bytes: int) -> list[bytes]:
    """The longest of these that there is room for."""
    return [answer for answer in answers if len(answer) <= room_bytes][:1]


def check_answers(client: Client, said: Datagram, answers: tuple[bytes, ...]) -> None:
    """It is answered the longest of these that is no longer, from the same session, or not at all."""
    heard = client.answers(said)
    assert sum(len(pack(each)) for each in heard) <= len(pack(said))
    assert heard == [Datagram(C, said.session, 0, each) for each in expected(answers, len(said.payload))]


@pytest.mark.parametrize("filling", [b" ", b"a", b"\0", b"\xff"])
def test_a_cookie_is_no_longer_than_what_was_said_to_get_it(hall: Hall, client: Client, filling: bytes) -> None:
    """Promise: no amplification."""
    for length in LENGTHS:
        said = opening((b"a" + filling * length)[:length])
        heard = client.answers(said)

        assert sum(len(pack(each)) for each in heard) <= len(pack(said))
        assert len(heard) == (length >= OPENING_BYTES)
        assert all(COOKIE.fullmatch(each.payload) for each in heard)
    assert hall.is_empty


def test_the_answer_to_a_bad_cookie_is_no_longer_than_the_bad_one(client: Client) -> None:
    """Promise: no amplification. The shortest opening with a cookie is shorter than the answer."""
    for length in range(1, 60):
        said = opening(b"a" * length + b" " + b"0" * 16)
        heard = client.answers(said)

        assert len(heard) == (length + 17 >= OPENING_BYTES)
        assert sum(len(pack(each)) for each in heard) <= len(pack(said))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("session", [0, 5])
def test_that_there_is_no_session_is_said_in_no_more_than_was_sent(client: Client, kind: int, session: int) -> None:
    """Promise: no amplification."""
    for length in LENGTHS:
        check_answers(client, Datagram(kind, session, 1, b"x" * length), (NO_SESSION, b"ERROR no_session"))


@pytest.mark.parametrize("length", [1, 5, 40, 1_000])
def test_who_has_shown_its_cookie_is_told_in_full_that_the_server_is_full(opened: ExitStack, length: int) -> None:
    """Its address is not forged."""
    hall = opened.enter_context(closing(Hall(max_connections=0)))
    hall.listener.start()
    client = opened.enter_context(closing(Client(hall)))
    text = b"a" * length
    said = opening(text + b" " + client.cookie(text))

    for _ in range(2):
        assert client.answers(said) == [Datagram(C, 0, 0, SERVER_FULL)]
    assert hall.is_empty
    assert hall.sessions == []


@pytest.mark.parametrize("length", [1, 5, 40, 1_000])
def test_who_has_shown_its_cookie_is_told_in_full_that_the_server_shuts_down(
    hall: Hall, client: Client, length: int
) -> None:
    hall.listener.close()
    text = b"a" * length
    said = opening(text + b" " + client.cookie(text))

    for _ in range(2):
        assert client.answers(said) == [Datagram(C, 0, 0, SHUTTING_DOWN)]
    assert hall.is_empty
    assert hall.sessions == []


def test_a_server_that_is_full_or_shuts_down_tells_nobody_so_without_a_cookie(opened: ExitStack) -> None:
    """Promise: no amplification."""
    for is_closing in (False, True):
        hall = opened.enter_context(closing(Hall(max_connections=0)))
        hall.listener.start()
        if is_closing:
            hall.listener.close()
        client = opened.enter_context(closing(Client(hall)))
        for length in LENGTHS:
            (*answers,) = client.answers(opening(b"a" * length))
            assert len(answers) == (length >= OPENING_BYTES)
            assert all(COOKIE.fullmatch(each.payload) for each in answers)


def test_what_is_too_short_for_a_datagram_is_dropped_without_a_word(client: Client) -> None:
    with capture_logs() as log:
        for length in range(HEADER_BYTES):
            assert client.answers(pack(opening(b""))[:length], b"\xff" * length) == []

    assert log == []


def test_that_an_opening_is_too_short_is_logged_once_a_minute_at_most(still_hall: Hall) -> None:
    """Who writes a client has to learn it somewhere; and nobody can fill the disk with it."""
    with capture_logs() as log:
        for now in (NOW, NOW, NOW + 59.9):
            still_hall.take(opening(b"alice"), now=now)
        assert len(log) == 1
        for now in (NOW + 60.0, NOW + 119.9):
            still_hall.take(opening(b"bob".ljust(OPENING_BYTES - 1)), FORGED, now)

    said = {
        "event": "handshake ignored",
        "reason": "too_short",
        "address": FORGED[0],
        "min_bytes": HEADER_BYTES + OPENING_BYTES,
        "log_level": "warning",
    }
    assert log == [said, said]
    assert not still_hall.bound.sent


# --- a flood of forged addresses ---


def flood(hall: Hall, dice: Random, size: int) -> None:
    """From addresses that nobody has asked, what makes the server do most."""
    for number in range(size):
        address = (f"198.51.{number // 250 % 250}.{number % 250}", dice.randrange(1, 65_536))
        name = b"user%d" % number
        said = dice.choice(
            [
                opening(name.ljust(OPENING_BYTES)),
                opening(name + b" %016x" % dice.getrandbits(64)),
                opening(name),
                Datagram(dice.choice([C, D, PIECE, ACK]), dice.getrandbits(64), dice.getrandbits(32), name * 100),
            ]
        )
        hall.take(said, address, NOW + number / 1_000)
        hall.bound.sent.clear()
        if number % 500 == 0:
            hall.listener._look(NOW + number / 1_000)


def test_a_flood_of_openings_leaves_nothing_behind(still_hall: Hall) -> None:
    """Promise: a forged source address costs nothing. Neither memory, nor a thread, nor a line each in the log."""
    dice = Random(6)
    with capture_logs() as log:
        flood(still_hall, dice, 200)
        threads = threading.active_count()
        tracemalloc.start()
        try:
            flood(still_hall, dice, 200)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            flood(still_hall, dice, 5_000)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert after - before < 20_000, "that is four bytes for each"
    assert threading.active_count() == threads
    assert still_hall.is_empty
    assert still_hall.sessions == []
    assert len(log) == 1


def test_a_flood_of_strangers_is_not_answered_any_more_before_those_inside_were_looked_after(still_hall: Hall) -> None:
    """Promise: strangers don't take all the time from those who have a session."""
    hello, unknown = opening(b"alice".ljust(OPENING_BYTES)), Datagram(D, 77, 5, b" " * 60)
    for each in [hello, unknown] * 3_000:
        still_hall.take(each)
    assert len(still_hall.bound.answers()) == 2_000

    still_hall.listener._look(NOW)
    still_hall.take(hello)
    assert len(still_hall.bound.answers()) == 1


# --- two servers that take each other for clients ---


PAYLOADS = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"COOKIE", b"ERROR", b"alice", b"COOKIE COOKIE", NO_SESSION, SERVER_FULL]).flatmap(
        lambda text: st.sampled_from(
            [text, text.ljust(60), text + b" " + b"0" * 16, text + b" " + b"f" * 16 + b" " * 40]
        )
    ),
)
NUMBERS = st.sampled_from([0, 0, 1, 2**32 - 1])


ANYTHING = st.builds(
    Datagram, st.sampled_from([C, D, PIECE, ACK, 0]), st.one_of(NUMBERS, st.just(2**64 - 1)), NUMBERS, PAYLOADS
)


@given(said=ANYTHING)
@example(said=opening(b"COOKIE".ljust(OPENING_BYTES)))
def test_a_server_does_not_talk_for_ever_to_what_sends_everything_back(said: Datagram) -> None:
    """As echo services do, or the server itself, where somebody forges its address."""
    with closing(Hall(FakeBound())) as hall:
        on_its_way = [said]
        for _ in range(3):
            for each in on_its_way:
                hall.take(each)
            on_its_way = [datagram for datagram, _ in hall.bound.answers()]
        assert on_its_way == []
        assert hall.sessions == []


@given(said=ANYTHING)
def test_two_servers_do_not_go_on_for_ever(said: Datagram) -> None:
    """Whatever somebody sends to one of them with the address of the other."""
    with closing(Hall(FakeBound())) as one, closing(Hall(FakeBound())) as other:
        addresses = {one: ("192.0.2.1", 9_999), other: ("192.0.2.2", 9_999)}
        on_their_way = [said]
        here, there = one, other
        for _ in range(4):
            for each in on_their_way:
                here.take(each, addresses[there])
            answers = here.bound.answers()
            assert all(address == addresses[there] for _, address in answers)
            on_their_way = [datagram for datagram, _ in answers]
            here, there = there, here

        assert on_their_way == []


# --- the limit of connections, and the end ---


def test_while_memory_is_short_nobody_comes_in(opened: ExitStack) -> None:
    def refuse(_: int) -> NoReturn:
        raise ShortOfMemoryError

    hall = opened.enter_context(closing(Hall(claim=refuse)))
    with capture_logs() as log:
        for _ in range(2):
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            opened.enter_context(theirs)
            with pytest.raises(FullError):
                hall.connections.add(TcpTransport(ours), "here")
    assert [(entry["event"], entry["reason"]) for entry in log] == [("refusing connections", "memory_short")]


def test_sessions_and_connections_of_tcp_are_counted_together(opened: ExitStack) -> None:
    """Promise: the limit holds for both."""
    hall = opened.enter_context(closing(Hall(max_connections=2)))
    hall.listener.start()
    clients = [opened.enter_context(closing(Client(hall))) for _ in range(2)]
    pairs = [socket.socketpair() for _ in range(2)]
    for sock in (sock for pair in pairs for sock in pair):
        opened.enter_context(closing(sock))
    with capture_logs() as log:
        hall.connections.add(TcpTransport(pairs[0][0]), "10.0.0.1")
        clients[0].open()
        text = b"b" * 60
        said = opening(text + b" " + clients[1].cookie(text))
        for _ in range(3):
            assert clients[1].answers(said) == [Datagram(C, 0, 0, SERVER_FULL)]
        with pytest.raises(FullError, match="the limit of 2 connections is reached"):
            hall.connections.add(TcpTransport(pairs[1][0]), "10.0.0.2")

    assert [(entry["event"], entry["reason"]) for entry in log] == [("refusing connections", "connection_limit")]
    leave(hall, clients[0])
    clients[1].open(text)


def test_while_the_server_shuts_down_nobody_comes_in_and_who_is_in_stays(
    hall: Hall, client: Client, another: Callable[[], Client]
) -> None:
    """Promise: shutdown."""
    client.open()
    hall.listener.close()
    other = another()
    text = b"b" * 60
    assert other.answers(opening(text + b" " + other.cookie(text))) == [Datagram(C, 0, 0, SHUTTING_DOWN)]
    client.say((C, b"PM"))

    assert client.hear() == [(C, b"PONG")]
    assert len(hall.sessions) == 1


def test_when_the_server_shuts_down_each_session_is_told_and_waited_for(hall: Hall, client: Client) -> None:
    """Promise: shutdown. Each client is told, and has the time to say that it knows."""
    client.open()
    hall.listener.close()
    parting = in_background(lambda: hall.connections.drain(DEADLINE_SECONDS))
    bye = client.receive()
    assert (bye.kind, bye.payload) == (C, b"BYE x")
    assert client.receive() == bye, "it is sent again until it is acknowledged"
    assert parting.is_alive()
    client.send(Datagram(ACK, bye.session, bye.sequence))

    must_end(parting)
    hall.stop()


def test_a_peer_that_does_not_say_that_it_knows_is_given_up(hall: Hall, client: Client) -> None:
    """Promise: shutdown within 8 s."""
    client.open()
    hall.listener.close()
    must_end(in_background(hall.stop))


def test_the_thread_has_a_name_and_ends_and_the_port_is_free(hall: Hall, opened: ExitStack) -> None:
    address = hall.bound.getsockname()
    assert "datagrams" in {thread.name for thread in threading.enumerate()}
    hall.stop()

    assert "datagrams" not in {thread.name for thread in threading.enumerate()}
    opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(address)


# --- bad input ---


def test_whatever_comes_the_door_goes_on(hall: Hall, client: Client, another: Callable[[], Client]) -> None:
    """Strangers' rubbish, and a session's own."""
    dice = Random(6)
    stranger = another()
    client.open()
    for number in range(2_000):
        kind, payload = (
            dice.choice([*KINDS.values(), ACK]),
            dice.randbytes(dice.choice([0, 1, 40, 1_200, 1_201, 3_000])),
        )
        sequence = dice.choice([0, 2, number, dice.getrandbits(32)])
        client.send(Datagram(kind, dice.choice([0, client.arq.session]), sequence, payload))
        stranger.answers(dice.randbytes(dice.randrange(60)))
    newcomer = another()
    newcomer.open()

    assert hall.crashes == []
    assert hall.labels[-1] == ("2@127.0.0.1", "127.0.0.1")
