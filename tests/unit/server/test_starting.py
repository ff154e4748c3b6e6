"""The start of a server that shares its log: it says what it waits for, tries again, and a signal ends it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from chatserver.journal.log import LogError
from chatserver.journal.starting import LogStart, StartStoppedError
from chatserver.store.log_position import LogPosition

from .fake_log import FakeLog, FakeStream


class Start:
    """A start whose pauses are steps of the test: a list of what happens in them, and then a signal in each."""

    def __init__(self, log: FakeLog, *happens: Callable[[], object], has_signal: bool = True) -> None:
        self.now = 0.0
        self.reasons: list[str] = []
        self._happens = list(happens)
        self._has_signal = has_signal
        self.start = LogStart(log, self.pause, lambda: self.now)

    def pause(self, seconds: float) -> bool:
        self.now += max(seconds, 1.0)
        if self.start.reason not in self.reasons:
            self.reasons.append(self.start.reason)
        if self._happens:
            self._happens.pop(0)()
            return False
        return self._has_signal


class FakeJournal:
    position = LogPosition("log", 2, b"")
    is_ready = False
    awaits_name = False

    def wait_until_ready(self, _: float) -> bool:
        return self.is_ready

    def move_to(self, number: int) -> None:
        self.position = self.position._replace(number=number)

    def await_name(self, awaits: bool) -> None:
        self.awaits_name = awaits

    def make_ready(self) -> None:
        self.is_ready = True


@pytest.fixture
def log() -> FakeLog:
    stream = FakeStream()
    for number in range(12_347):
        stream.records.append(str(number).encode())
    return FakeLog(stream)


def nothing() -> None:
    """Only time passes."""


def test_start_waits_until_nats_can_be_reached(log: FakeLog) -> None:
    log.cut()
    log.set_problem("it can't reach NATS")
    waiting = Start(log, *[nothing] * 11, log.mend)
    with capture_logs() as logged:
        waiting.start.open()
    assert waiting.reasons == ["it waits for NATS: it can't reach NATS"]
    assert [entry["event"] for entry in logged] == ["start waits"] * 2  # every five seconds


def test_signal_ends_every_wait(log: FakeLog) -> None:
    """Also a step that hangs, such as the download of a snapshot."""
    forever = threading.Event()
    journal = FakeJournal()
    log.cut()
    waits: list[Callable[[LogStart], Any]] = [
        lambda start: start.open(),
        lambda start: start.do("it loads", forever.wait),
        lambda start: start.catch_up(journal),
    ]
    for wait in waits:
        with pytest.raises(StartStoppedError):
            wait(Start(log, nothing).start)
    forever.set()


def test_unusable_log_ends_the_start(log: FakeLog) -> None:
    log.open_error = LogError("NATS is too old.")
    with pytest.raises(LogError, match="too old"):
        Start(log).start.open()


def test_step_is_repeated_after_an_error_of_nats_and_no_other(log: FakeLog) -> None:
    errors = [ConnectionError("it can't reach NATS"), TimeoutError(110, "late"), OSError("busy"), OSError(28, "full")]
    tries = iter([*errors, None])

    def step() -> str:
        if (error := next(tries)) is not None:
            raise error
        return "done"

    waiting = Start(log, has_signal=False)
    assert waiting.start.do("it loads", step) == "done"
    assert [reason for reason in waiting.reasons if reason != "it loads"] == [
        "it waits for NATS: it can't reach NATS",
        "it waits for NATS: late",
        "it waits for NATS: busy",
        "it can't write to its disk: full",
    ]

    def broken() -> None:
        raise LogError("It is of another cluster.")

    with pytest.raises(LogError, match="another cluster"):
        Start(log, has_signal=False).start.do("it loads", broken)


def test_progress_of_catching_up_is_told(log: FakeLog) -> None:
    journal = FakeJournal()
    waiting = Start(
        log,
        lambda: log.set_problem("NATS has no quorum"),
        lambda: log.set_problem(""),
        lambda: journal.await_name(True),
        lambda: journal.await_name(False),
        lambda: journal.move_to(12_346),
        lambda: journal.move_to(12_347),
        journal.make_ready,
    )
    with capture_logs() as logged:
        waiting.start.catch_up(journal)
    assert waiting.reasons == [
        "it is catching up: 12,345 records to go",
        "it waits for NATS: NATS has no quorum",
        "it waits for the end of another server with its name",
        "it is catching up: 1 records to go",
        "it waits until its start is in the shared log",
    ]
    assert waiting.start.reason == ""
    assert (logged[-1]["event"], logged[-1]["records"]) == ("caught up", 12_345)
