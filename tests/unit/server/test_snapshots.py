"""A running server stores a snapshot after every so many records, each by one server."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from chatserver.journal.joining import adopt_log
from chatserver.journal.snapshots import Snapshots
from chatserver.store.database import Database

from .fake_log import FakeLog, FakeStream
from .helpers import DEADLINE_SECONDS, register


class SlowLog(FakeLog):
    """Passes the numbers of snapshots to the test; fails while ``fails`` is set."""

    def __init__(self, stream: FakeStream) -> None:
        super().__init__(stream)
        self.tries: SimpleQueue[int] = SimpleQueue()
        self.fails = False

    def put_snapshot(self, number: int, path: Path) -> None:
        self.tries.put(number)
        if self.fails:
            self.fails = False
            raise TimeoutError("NATS does not answer")
        super().put_snapshot(number, path)


@pytest.fixture
def log() -> SlowLog:
    return SlowLog(FakeStream())


@pytest.fixture
def snapshots(folder: Path, log: SlowLog, crash: Callable[[str], None]) -> Iterator[Snapshots]:
    with closing(Database(folder)) as database:
        adopt_log(database, log)
        register(database, "alice")
        running = Snapshots(folder, log, crash, records=100, retry_seconds=0.0)
        running.start()
        yield running
        running.stop()


@pytest.fixture
def crash() -> Callable[[str], None]:
    return pytest.fail


def test_snapshot_is_stored_after_every_hundredth_record_while_the_database_is_in_use(
    tmp_path: Path, log: SlowLog, snapshots: Snapshots
) -> None:
    """A failed one is repeated. The thread takes no reader from the pool: queries go on."""
    log.fails = True
    for number in range(2, 100):
        snapshots.note_own_record(number)
    assert log.tries.empty()
    snapshots.note_own_record(100)
    assert [log.tries.get(timeout=DEADLINE_SECONDS) for _ in range(2)] == [1, 1]
    snapshots.note_own_record(200)
    log.tries.get(timeout=DEADLINE_SECONDS)
    snapshots.stop()
    assert log.get_snapshot(tmp_path / "copy") == 1
    assert b"alice" in (tmp_path / "copy").read_bytes()
