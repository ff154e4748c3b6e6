"""The UDP listener: opening sessions, cookies, foreign packets, limits, floods, lost peers and the end.

Most tests call the listener as its thread does, with a recording socket and a clock that the test moves.
"""

import gc
import re
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from random import Random
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatprotocol.address import read_networks
from chatprotocol.requests import Leave, StepLogin
from chatprotocol.udp.packet import ACK, PIECE, Datagram, pack
from chatprotocol.wire import PROTOCOLS, by_name
from chatserver.memory import ShortOfMemoryError, no_limit
from chatserver.net.connection import ConnectionServices
from chatserver.net.connections import Connections, Slots
from chatserver.net.limits import ConnectionLimits, OpeningLimits, RefusedError
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import SendQueue
from chatserver.net.transport import TcpTransport
from chatserver.net.udp_listener import UdpListener

from .helpers import DEADLINE_SECONDS, FakeSession, eventually, in_background, must_end
from .udp_line import Clock, RecordingSocket

C, D = ord("C"), ord("D")
# Length of the shortest opening that is answered.
OPENING_BYTES = 23
COOKIE = re.compile(rb"COOKIE ([0-9a-f]{16})")
PEER, OTHER_PORT, OTHER_HOST = ("192.0.2.1", 4_711), ("192.0.2.1", 4_712), ("192.0.2.2", 4_711)
NO_SESSION = b"ERROR no_session There is no such session; open a new one."
SERVER_FULL = b"ERROR server_full The server is full; try again later."
SHUTTING_DOWN = b"ERROR shutting_down The server is shutting down."


class FakeBound(RecordingSocket):
    """In place of the bound socket."""

    def close(self) -> None:
        """Nothing to close."""


def opening(text: bytes) -> Datagram:
    return Datagram(C, 0, 0, text)


class Fixture:
    """A listener with a real sender and fake sessions, which answer each request with a pong."""

    def __init__(
        self,
        bound: Any = None,
        max_connections: int = 10,
        claim: Callable[[int], None] = no_limit,
        openings_max: int = 1_000_000,
        **limits: int,
    ) -> None:
        self.bound: Any = bound or FakeBound()
        self.clock = Clock(30_000.0)
        self.crashes: list[str] = []
        self.sender = Sender(1_000_000, self.crashes.append)
        all_exempt = ConnectionLimits(exempt=read_networks("0.0.0.0/0"))
        services = ConnectionServices(PROTOCOLS, self.sender, 1_000.0, self._open_session, all_exempt)
        self.connections = Connections(services, Slots.of(max_connections), claim)
        openings = OpeningLimits(lambda _: False, services.counters, all_max=openings_max)
        more: dict[str, Any] = limits if bound else {"clock": self.clock, **limits}
        self.listener = UdpListener(
            self.bound, self.connections, by_name("datagram"), openings, self.crashes.append, **more
        )
        self.sessions: list[FakeSession] = []
        # The label and the address of each session.
        self.labels: list[tuple[str, str]] = []
        self._is_stopped = False
        self.sender.start()

    def _open_session(self, send_queue: SendQueue, label: str, address: str, _: bool) -> FakeSession:
        self.labels.append((label, address))
        self.sessions.append(FakeSession(send_queue, is_logged_in=True))
        return self.sessions[-1]

    def answers(self, *said: Datagram, address: tuple[str, int] = PEER) -> list[Datagram]:
        """The listener's own answers to these."""
        for each in said:
            self.listener.receive(each, address)
        return [datagram for datagram, to in self.bound.take() if to == address]

    def sent(self, count: int = 1) -> list[Datagram]:
        """The next datagrams to PEER, when a session has sent this many."""
        eventually(lambda: len(self.bound.sent) >= count)
        return [datagram for datagram, to in self.bound.take() if to == PEER]

    def cookie(self, text: bytes = b"alice", address: tuple[str, int] = PEER) -> bytes:
        (answer,) = self.answers(opening(text.ljust(OPENING_BYTES)), address=address)
        found = COOKIE.fullmatch(answer.payload)
        assert found is not None
        return found[1]

    def open(self, text: bytes = b"alice") -> tuple[int, Datagram]:
        """Open a session. Returns its number, and the opening with the cookie."""
        said = opening(text + b" " + self.cookie(text))
        self.listener.receive(said, PEER)
        (first,) = self.sent()
        assert (first.kind, first.sequence, first.payload) == (C, 1, b"PONG")
        assert first.session != 0
        assert self.answers(Datagram(ACK, first.session, 1)) == []
        return first.session, said

    def leave(self, session: int) -> None:
        """End a session whose first two packets were acknowledged. Wait for its place."""
        open_count = len(self.connections)
        self.listener.receive(Datagram(C, session, 1, b"EX"), PEER)
        assert sorted(each.payload for each in self.sent(2)) == [b"", b"BYE x"]
        self.listener.receive(Datagram(ACK, session, 2), PEER)
        number = next(at for at, each in enumerate(self.sessions) if Leave() in each.handled)
        eventually(lambda: self.sessions[number].send_queue.transport.closed)  # type: ignore[attr-defined]
        eventually(lambda: len(self.connections) < open_count)

    def stop(self) -> None:
        self._is_stopped = True
        self.connections.drain(0.0)
        self.sender.stop(0.0)
        self.listener.stop()

    def close(self) -> None:
        if not self._is_stopped:
            self.stop()
        assert self.crashes == []


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def fixture(stack: ExitStack) -> Fixture:
    return stack.enter_context(closing(Fixture()))


@pytest.mark.parametrize("text", [b"alice", b"alice bm-pm"])
def test_opening_with_its_cookie_opens_a_session(fixture: Fixture, text: bytes) -> None:
    """Without it the server keeps no state. The text of the opening is the first command."""
    cookie = fixture.cookie(text)
    assert fixture.listener.is_empty
    fixture.listener.receive(opening(text + b" " + cookie), PEER)
    (first,) = fixture.sent()
    assert (first.kind, first.sequence, first.payload) == (C, 1, b"PONG")
    (session,) = fixture.sessions
    assert (session.send_queue.protocol, session.handled) == ("datagram", [StepLogin("alice")])
    assert fixture.labels == [("1@192.0.2.1", "192.0.2.1")]


@pytest.mark.parametrize(
    ("address", "text", "later", "is_good"),
    [
        (PEER, b"alice", 59.9, True),
        (PEER, b"alice", 60.0, False),
        (OTHER_PORT, b"alice", 0.0, False),
        (OTHER_HOST, b"alice", 0.0, False),
        (PEER, b"Alice", 0.0, False),
        (PEER, b"alice bm-pm", 0.0, False),
    ],
)
def test_cookie_is_good_for_one_address_and_text_for_a_while(
    fixture: Fixture, address: tuple[str, int], text: bytes, later: float, is_good: bool
) -> None:
    """Promise: a forged address costs nothing. A bad cookie is answered with a good one."""
    cookie = fixture.cookie(b"alice")
    fixture.clock.now += later
    answers = fixture.answers(opening(text + b" " + cookie + b"  "), address=address)
    assert fixture.listener.is_empty is not is_good
    assert is_good or [each.payload for each in answers] == [b"COOKIE " + fixture.cookie(text, address)]
    assert is_good or fixture.cookie(text, address) != cookie


def test_repeated_opening_opens_one_session(fixture: Fixture) -> None:
    """Within 10 s it is a resend. After that, the client has forgotten its session."""
    _, said = fixture.open()
    fixture.clock.now += 9.9
    assert fixture.answers(said, said, said._replace(payload=said.payload + b"  ")) == []
    assert len(fixture.sessions) == 1
    fixture.clock.now += 0.2
    fixture.listener.receive(said, PEER)
    eventually(lambda: len(fixture.sessions) == 2)


def test_opening_after_the_end_of_its_session_opens_another(fixture: Fixture) -> None:
    """Also before the listener has forgotten the first one. It then forgets no more than that.

    Promise: memory stays bounded, nothing is left of an ended session.
    """
    first, said = fixture.open()
    fixture.leave(first)
    fixture.listener.receive(said, PEER)
    eventually(lambda: len(fixture.sessions) == 2)
    (second,) = {datagram.session for datagram in fixture.sent()}
    fixture.listener.check_timeouts()
    assert fixture.answers(said) == []
    assert len(fixture.sessions) == 2
    assert fixture.answers(Datagram(D, first, 9, NO_SESSION)) == [Datagram(C, first, 0, NO_SESSION)]
    assert fixture.answers(Datagram(D, second, 9, NO_SESSION)) == [Datagram(ACK, second, 9)]
    fixture.connections.drain(0.0)
    fixture.listener.check_timeouts()
    eventually(lambda: fixture.listener.check_timeouts() or fixture.listener.is_empty)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("kind", [C, D, PIECE, ord("x"), 0])
def test_unknown_session_is_answered_with_an_error(fixture: Fixture, kind: int) -> None:
    """Promise: no stranger can speak in a session: its number is random, and from another address it is unknown."""
    session, _ = fixture.open()
    assert session > 2**40
    for number, address in ((session, OTHER_PORT), (session, OTHER_HOST), (1, PEER), (2**64 - 1, PEER)):
        said = Datagram(kind, number, 1, b"EX".ljust(len(NO_SESSION)))
        assert fixture.answers(said, address=address) == [Datagram(C, number, 0, NO_SESSION)]
    fixture.listener.receive(Datagram(C, session, 1, b"PM"), PEER)
    fixture.sent(2)
    assert fixture.answers(Datagram(ACK, session, 2, NO_SESSION), address=OTHER_PORT) == []
    assert fixture.sessions[0].send_queue.transport.unacknowledged_bytes() > 0
    assert len(fixture.sessions[0].handled) == 2


payloads = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda text, cookie, size: (text + cookie).ljust(size),
        st.sampled_from([b"COOKIE", b"ERROR", b"alice", b"COOKIE COOKIE", NO_SESSION, SERVER_FULL]),
        st.sampled_from([b"", b" " + b"0" * 16]),
        st.integers(0, 100),
    ),
)
numbers = st.sampled_from([0, 0, 1, 2**32 - 1])
datagrams = st.builds(Datagram, st.sampled_from([C, D, PIECE, ACK, 0]), numbers, numbers, payloads)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (opening(b"a" * (OPENING_BYTES - 1)), None),
        (opening(b"a" * OPENING_BYTES), b"COOKIE"),
        (Datagram(D, 5, 1, b"x" * 15), None),
        (Datagram(D, 5, 1, b"x" * 16), b"ERROR no_session"),
        (Datagram(D, 0, 1, b"x" * (len(NO_SESSION) - 1)), b"ERROR no_session"),
        (Datagram(D, 5, 1, b"x" * 9_000), NO_SESSION),
    ],
)
def test_answer_to_a_stranger_fits_its_packet(fixture: Fixture, said: Datagram, answer: bytes | None) -> None:
    answers = [each.payload for each in fixture.answers(said)]
    assert [COOKIE.sub(b"COOKIE", each) for each in answers] == ([] if answer is None else [answer])


@given(said=datagrams, limit=st.sampled_from([0, 10]), is_closing=st.booleans())
@example(said=Datagram(C, 5, 0, NO_SESSION), limit=10, is_closing=False)
@example(said=opening(b"COOKIE".ljust(OPENING_BYTES)), limit=10, is_closing=False)
def test_servers_do_not_answer_each_other_for_ever(said: Datagram, limit: int, is_closing: bool) -> None:
    """Promise: no amplification. The forged address is that of another server, of an echo, or of the server itself."""
    with closing(Fixture(max_connections=limit)) as one, closing(Fixture(max_connections=limit)) as other:
        if is_closing:
            one.listener.close()
        for servers in ([one, one, one, one], [one, other, one, other]):
            under_way = [said]
            for server in servers:
                answers = server.answers(*under_way)
                assert sum(len(pack(each)) for each in answers) <= sum(len(pack(each)) for each in under_way)
                under_way = answers
            assert under_way == []
        assert one.listener.is_empty


def test_short_opening_is_logged_once_a_minute(fixture: Fixture) -> None:
    """Authors of clients learn of it, and a flood does not fill the disk."""
    with capture_logs() as log:
        for later in (0.0, 0.0, 59.9, 0.1, 59.9):
            fixture.clock.now += later
            assert fixture.answers(opening(b"bob".ljust(OPENING_BYTES - 1))) == []
    details = {"address": PEER[0], "min_bytes": 13 + OPENING_BYTES, "log_level": "warning"}
    assert log == [{"event": "handshake ignored", "reason": "too_short", **details}] * 2


def flood(fixture: Fixture, dice: Random, count: int) -> None:
    """From forged addresses, with the packets that cost most."""
    for number in range(count):
        name = b"user%d" % number
        fixture.clock.now += 0.001
        said = dice.choice(
            [
                opening(name.ljust(OPENING_BYTES)),
                opening(name + b" %016x" % dice.getrandbits(64)),
                opening(name),
                Datagram(dice.choice([C, D, PIECE, ACK]), dice.getrandbits(64), dice.getrandbits(32), name * 100),
            ]
        )
        fixture.answers(said, address=(f"198.51.{number // 250 % 250}.{number % 250}", dice.randrange(1, 65_536)))
        if number % 500 == 0:
            fixture.listener.check_timeouts()


def test_flood_of_forged_openings_leaves_nothing_behind(fixture: Fixture) -> None:
    """Promise: a forged source address costs nothing: neither memory, nor a thread, nor a line each in the log."""
    dice = Random(6)
    with capture_logs() as log:
        flood(fixture, dice, 200)
        threads = threading.active_count()
        tracemalloc.start()
        try:
            flood(fixture, dice, 200)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            flood(fixture, dice, 5_000)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 20_000, "that is four bytes for each"
    assert threading.active_count() <= threads
    assert fixture.listener.is_empty
    assert len(log) == 1


def test_strangers_get_a_limited_number_of_answers(stack: ExitStack) -> None:
    """Promise: strangers don't take all the time from those who have a session."""
    fixture = stack.enter_context(closing(Fixture(openings_max=5)))
    session, _ = fixture.open()
    fixture.clock.now += 1.0
    strangers = [opening(b"alice".ljust(OPENING_BYTES)), Datagram(D, 77, 5, b" " * 60)] * 10
    assert len(fixture.answers(*strangers)) == 5
    assert fixture.answers(Datagram(C, session, 2, b"early")) == [Datagram(ACK, session, 2)]
    fixture.clock.now += 1.0
    assert len(fixture.answers(*strangers)) == 5


def test_udp_sessions_and_tcp_connections_have_one_limit(stack: ExitStack) -> None:
    """A client that has shown its cookie is told in full. The log has one line for many."""
    fixture = stack.enter_context(closing(Fixture(max_connections=2)))
    pairs = [socket.socketpair() for _ in range(2)]
    for sock in (sock for pair in pairs for sock in pair):
        stack.enter_context(closing(sock))
    with capture_logs() as log:
        fixture.connections.add(lambda: TcpTransport(pairs[0][0]), "10.0.0.1")
        session, _ = fixture.open()
        said = opening(b"b " + fixture.cookie(b"b"))
        assert fixture.answers(said, said) == [Datagram(C, 0, 0, SERVER_FULL)] * 2
        with pytest.raises(RefusedError, match="The server is full"):
            fixture.connections.add(lambda: TcpTransport(pairs[1][0]), "10.0.0.2")
    assert [entry["event"] for entry in log] == ["refusing connections"]
    fixture.leave(session)
    fixture.open(b"b")


def test_connection_is_refused_while_memory_is_short(stack: ExitStack) -> None:
    def refuse(_: int) -> NoReturn:
        raise ShortOfMemoryError

    fixture = stack.enter_context(closing(Fixture(claim=refuse)))
    with capture_logs() as log:
        for _ in range(2):
            said = opening(b"a " + fixture.cookie(b"a"))
            assert fixture.answers(said) == [Datagram(C, 0, 0, SERVER_FULL)]
    assert [(entry["event"], entry["reason"]) for entry in log] == [("refusing connections", "memory_short")]
    assert fixture.listener.is_empty


def test_closed_listener_opens_no_session_and_keeps_the_others(fixture: Fixture) -> None:
    """Promise: shutdown."""
    session, _ = fixture.open()
    fixture.listener.close()
    assert fixture.answers(opening(b"b " + fixture.cookie(b"b"))) == [Datagram(C, 0, 0, SHUTTING_DOWN)]
    fixture.listener.receive(Datagram(C, session, 1, b"PM"), PEER)
    assert sorted(each.payload for each in fixture.sent(2)) == [b"", b"PONG"]


def test_shutdown_waits_for_the_acknowledgement_of_the_goodbye(fixture: Fixture) -> None:
    """Promise: shutdown. Each client is told, and the goodbye is resent."""
    session, _ = fixture.open()
    draining = in_background(lambda: fixture.connections.drain(DEADLINE_SECONDS))
    (bye,) = fixture.sent()
    assert (bye.kind, bye.payload) == (C, b"BYE x")
    fixture.clock.now += 0.2
    fixture.listener.check_timeouts()
    assert fixture.sent() == [bye]
    assert draining.is_alive()
    fixture.listener.receive(Datagram(ACK, session, bye.sequence), PEER)
    must_end(draining)


def test_shutdown_gives_up_a_silent_peer(fixture: Fixture) -> None:
    """Promise: shutdown within 8 s."""
    fixture.open()
    must_end(in_background(fixture.stop))


def test_silent_peer_is_lost_and_forgotten(stack: ExitStack) -> None:
    """Promise: gone from the list within 60 s, with a line in the log. A peer that sends anything stays."""
    fixture = stack.enter_context(closing(Fixture(silence_seconds=2)))
    fixture.open(b"alice")
    session, _ = fixture.open(b"bob")
    with capture_logs() as log:
        for later in (1.9, 0.1, 0.1):
            fixture.clock.now += later
            fixture.listener.receive(Datagram(ACK, session, 1), PEER)
            fixture.listener.check_timeouts()
        eventually(lambda: fixture.sessions[0].calls == ["end"])
    expected = {"reason": "peer_lost", "connection": "1@192.0.2.1", "detail": "nothing was heard for 2 s"}
    assert log == [{"event": "disconnected", **expected, "log_level": "info"}]
    assert fixture.sessions[1].calls == []
    fixture.clock.now += 2.0
    eventually(lambda: fixture.listener.check_timeouts() or fixture.listener.is_empty)  # type: ignore[func-returns-value]


def test_stopped_listener_frees_its_thread_and_port(stack: ExitStack) -> None:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    running = stack.enter_context(closing(Fixture(bound)))
    running.listener.start()
    assert "datagrams" in {thread.name for thread in threading.enumerate()}
    running.stop()
    assert "datagrams" not in {thread.name for thread in threading.enumerate()}
    assert bound.fileno() == -1
