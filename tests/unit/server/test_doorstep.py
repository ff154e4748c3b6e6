"""The doorstep: those who can't come in are told so in their dialect, and nobody waits for them."""

import selectors
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatprotocol.wire import PROTOCOLS, by_name
from chatserver.net.reject_queue import RejectQueue

from .rooms import DEADLINE_SECONDS

FULL = Refused(ErrorCode.SERVER_FULL, "The server is full; try again later.")
IN_JSON = by_name("json").encode(FULL)
IN_FRAMES = by_name("frames").encode(FULL)
# Seconds, as the module has them: how long one has to speak, and then to read.
SPEAK, READ = 1.0, 1.0
# When the tests begin; the clock is theirs.
NOW = 1_000.0
STANDING_MAX = 64


class Step:
    """A doorstep, and those who stand on it."""

    def __init__(self) -> None:
        self.reject_queue = RejectQueue(PROTOCOLS, FULL)
        self._sockets: list[socket.socket] = []
        self._is_cleared = False

    def visitor(self, first: bytes = b"", now: float = NOW) -> "Visitor":
        """Somebody who can't come in, and has said this before."""
        ours, theirs = socket.socketpair()
        self._sockets += (ours, theirs)
        theirs.settimeout(DEADLINE_SECONDS)
        theirs.sendall(first)
        self.reject_queue.add(ours, now)
        return Visitor(ours, theirs)

    def clear(self) -> None:
        self._is_cleared = True
        self.reject_queue.close_all()

    def close(self) -> None:
        if not self._is_cleared:
            self.clear()
        for sock in self._sockets:
            sock.close()


class Visitor:
    """Both ends of one connection."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours = ours
        self.theirs = theirs

    @property
    def is_open(self) -> bool:
        return self.ours.fileno() != -1

    def was_told(self) -> bytes:
        """All that it was told until now; it does not wait for more."""
        told = b""
        self.theirs.setblocking(False)
        with suppress(BlockingIOError):
            while part := self.theirs.recv(100_000):
                told += part
        return told


@pytest.fixture
def step() -> Iterator[Step]:
    with closing(Step()) as step:
        yield step


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (b'{"command":"login","username":"alice"}\n', IN_JSON),
        (b"{", IN_JSON),
        (b"C\0\0\0\5alice", IN_FRAMES),
        (b"C\0", IN_FRAMES),
        (b"C\0\0\0\5alice" * 10_000, IN_FRAMES),
        (b"C", IN_JSON),
        (b"GET / HTTP/1.1", IN_JSON),
        (b"\0", IN_JSON),
    ],
)
def test_who_speaks_is_told_at_once_in_the_dialect_of_what_it_says(step: Step, first: bytes, answer: bytes) -> None:
    """In json where that is not known: what has come must do."""
    visitor = step.visitor(first)
    step.reject_queue.check(NOW)

    assert visitor.was_told() == answer
    assert visitor.theirs.recv(1) == b"", "it is told that nothing more comes"


def test_the_answer_says_that_the_server_is_full() -> None:
    assert b'"code":"server_full"' in IN_JSON
    assert IN_FRAMES[5:].startswith(b"ERROR server_full ")


def test_who_says_nothing_is_told_in_json_after_a_second(step: Step) -> None:
    visitor = step.visitor()
    step.reject_queue.check(NOW + SPEAK - 0.01)
    assert visitor.was_told() == b""
    step.reject_queue.check(NOW + SPEAK)

    assert visitor.was_told() == IN_JSON
    assert visitor.is_open


def test_who_speaks_late_is_told_in_its_dialect(step: Step) -> None:
    visitor = step.visitor()
    step.reject_queue.check(NOW + 0.5)
    visitor.theirs.sendall(b"C\0")
    step.reject_queue.check(NOW + SPEAK)

    assert visitor.was_told() == IN_FRAMES


@pytest.mark.parametrize("first", [b"", b"C\0\0\0\5alice"])
def test_who_was_told_has_a_second_to_read_it_and_is_closed(step: Step, first: bytes) -> None:
    """To close over what it has sent would destroy what it has not read."""
    visitor = step.visitor(first)
    told_at = NOW if first else NOW + SPEAK
    step.reject_queue.check(told_at)
    step.reject_queue.check(told_at + READ - 0.01)
    assert visitor.is_open
    assert not step.reject_queue.is_empty
    step.reject_queue.check(told_at + READ)

    assert not visitor.is_open
    assert step.reject_queue.is_empty


def test_each_has_its_own_time(step: Step) -> None:
    visitors = [step.visitor(now=NOW + number) for number in range(3)]
    step.reject_queue.check(NOW + SPEAK)
    assert [visitor.was_told() for visitor in visitors] == [IN_JSON, b"", b""]
    step.reject_queue.check(NOW + SPEAK + 1)
    assert [visitor.is_open for visitor in visitors] == [False, True, True]
    assert [visitor.was_told() for visitor in visitors[1:]] == [IN_JSON, b""]


def test_a_selector_sees_that_somebody_has_spoken_and_no_more_than_that(step: Step) -> None:
    """Who goes on to talk keeps nobody busy."""
    with selectors.DefaultSelector() as selector:
        selector.register(step.reject_queue, selectors.EVENT_READ)
        visitor = step.visitor()
        assert selector.select(0) == []
        visitor.theirs.sendall(b"{")
        assert len(selector.select(0)) == 1
        step.reject_queue.check(NOW)
        visitor.theirs.sendall(b"and so on")
        assert selector.select(0) == []
        visitor.theirs.close()
        assert selector.select(0) == []
        gone = step.visitor()
        gone.theirs.close()
        assert len(selector.select(0)) == 1
        step.reject_queue.check(NOW)
        assert selector.select(0) == []


def test_who_goes_away_is_forgotten_and_the_others_are_told(step: Step) -> None:
    gone, half_gone, stays = step.visitor(), step.visitor(b"C\0"), step.visitor(b"C\0")
    gone.theirs.close()
    half_gone.theirs.shutdown(socket.SHUT_WR)
    step.reject_queue.check(NOW)
    assert half_gone.was_told() == IN_FRAMES
    assert stays.was_told() == IN_FRAMES
    step.reject_queue.check(NOW + READ)

    assert not gone.is_open
    assert step.reject_queue.is_empty


def test_nobody_waits_for_one_whose_socket_is_full(step: Step) -> None:
    visitor, other = step.visitor(), step.visitor(b"{")
    with suppress(BlockingIOError):
        while visitor.ours.send(b"x" * 10_000, socket.MSG_DONTWAIT):
            pass
    visitor.theirs.sendall(b"{")
    step.reject_queue.check(NOW)
    assert other.was_told() == IN_JSON
    step.reject_queue.check(NOW + READ)

    assert not visitor.is_open


def test_of_a_flood_the_oldest_go_first_and_those_who_were_told_before_those_who_were_not(step: Step) -> None:
    """What a flood may cost in descriptors is limited."""
    silent = [step.visitor() for _ in range(STANDING_MAX - 2)]
    told = [step.visitor(b"C\0"), step.visitor(b"{")]
    step.reject_queue.check(NOW)
    assert [visitor.was_told() for visitor in told] == [IN_FRAMES, IN_JSON]
    assert all(visitor.is_open for visitor in silent + told)
    late = [step.visitor()]
    assert [visitor.is_open for visitor in told] == [False, True]
    late += [step.visitor(), step.visitor()]
    assert [visitor.is_open for visitor in told] == [False, False]
    assert [visitor.is_open for visitor in silent] == [False] + [True] * (STANDING_MAX - 3)

    step.reject_queue.check(NOW + SPEAK)
    assert all(visitor.was_told() == IN_JSON for visitor in silent[1:] + late)


def test_at_the_end_everybody_is_told_and_closed(step: Step) -> None:
    silent, speaking, told = step.visitor(), step.visitor(b"C\0"), step.visitor(b"C\0")
    step.reject_queue.check(NOW)
    late = step.visitor(b"C\0")
    step.clear()

    assert silent.was_told() == IN_JSON
    for visitor in (speaking, told, late):
        with suppress(ConnectionResetError):  # what it said was not read
            assert visitor.was_told() == IN_FRAMES
    assert not any(visitor.is_open for visitor in (silent, speaking, told, late))
    assert step.reject_queue.is_empty
