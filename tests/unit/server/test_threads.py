"""Workers and the watchdog: a thread that dies ends the process, whatever else fails."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest
import structlog

from chatserver.threads import Worker


@pytest.fixture
def failing_log() -> Iterator[None]:
    """A log that raises MemoryError."""

    def fail(*_: object) -> NoReturn:
        raise MemoryError

    structlog.configure(processors=[fail])
    yield
    structlog.reset_defaults()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("failing_log")
@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit])
def test_crash_is_reported_even_if_it_can_not_be_logged(error: type[BaseException]) -> None:
    reported: list[str] = []

    def work() -> NoReturn:
        raise error

    worker = Worker("journal", work, reported.append)
    worker.start()
    worker.join()
    assert reported == ["journal"]


def test_end_of_the_work_is_no_crash() -> None:
    reported: list[str] = []
    worked = threading.Event()
    worker = Worker("journal", worked.set, reported.append)
    worker.join()  # it may not have been started
    worker.start()
    worker.join()
    assert worked.is_set()
    assert reported == []


# The main thread waits for a thread that never ends.
STUCK = """
import threading, time
from chatserver.threads import Watchdog
watchdog = Watchdog({})
watchdog.start()
{}
threading.Thread(target=threading.Event().wait).start()
"""


def run(script: str) -> int:
    """The exit code of a script that prints nothing."""
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert process.stdout + process.stderr == ""
    return process.returncode


def test_watchdog_ends_a_stuck_process() -> None:
    assert run(STUCK.format(0.05, "watchdog.trip(); watchdog.trip()")) == 1


@pytest.mark.parametrize(
    ("timeout_seconds", "crash"), [(1_000.0, "watchdog.trip()"), (0.0, "")], ids=["ends in time", "no crash"]
)
def test_watchdog_leaves_an_orderly_end_alone(timeout_seconds: float, crash: str) -> None:
    assert run(STUCK.format(timeout_seconds, f"{crash}; time.sleep(0.05); raise SystemExit(3)".strip("; "))) == 3
