"""A data folder and a shared log come together, or the error says why they can't. Each step survives a crash."""

import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from chatserver.journal.apply import StoreLimits, Transaction, apply
from chatserver.journal.entries import JoinRoom, PublicMessages
from chatserver.journal.joining import adopt_log, prepare_folder, refuse_shared, share, upload_snapshot
from chatserver.journal.log import LogError
from chatserver.journal.records import Batch, Origin, decode, encode
from chatserver.store.accounts import Accounts
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.guests import claim_name, is_claimed
from chatserver.store.identity import HistoryIdentity
from chatserver.store.log_position import LogPosition, read_position, write_position
from chatserver.store.reconcile import reconcile

from .fake_log import FakeLog, FakeStream
from .helpers import register

LIMITS = StoreLimits()
T = TypeVar("T")


class CrashedError(BaseException):
    """The process is killed."""


def start(folder: Path, log: FakeLog) -> LogPosition:
    """The start of a server."""
    prepare_folder(folder, log)
    with closing(Database(folder)) as database:
        return adopt_log(database, log, end_known_seconds=0)


def make_data(folder: Path, *names: str) -> Path:
    with closing(Database(folder)) as database:
        for name in names:
            register(database, name)
    return folder


def share_folder(folder: Path, log: FakeLog) -> LogPosition:
    with closing(Database(folder)) as database:
        return share(database, log)


def append(stream: FakeStream, count: int) -> None:
    """Append records that no server of the test applies."""
    for number in range(count):
        batch = Batch(server="a", run="1", number=number + 1, attempt=0, time_ms=0, limits=LIMITS, entries=[])
        stream.store(f"{len(stream.records)}", encode(batch))


def move_to(folder: Path, number: int) -> None:
    """As if the server had applied records up to this one."""
    with closing(Database(folder)) as database, database.transaction() as connection:
        position = read_position(connection)
        assert position is not None
        write_position(connection, position._replace(number=number))


def history_of(folder: Path) -> str:
    with closing(Database(folder)) as database:
        return HistoryIdentity(database).history_id


def has_account(folder: Path, name: str) -> bool:
    with closing(Database(folder)) as database:
        return Accounts(database).find(name) is not None


def origin_of(stream: FakeStream) -> Origin:
    record = decode(1, stream.records[0])
    assert isinstance(record, Origin)
    return record


@pytest.fixture
def stream() -> FakeStream:
    return FakeStream()


@pytest.fixture
def log(stream: FakeStream) -> FakeLog:
    return FakeLog(stream)


def test_first_server_creates_the_log_and_others_take_over_its_identity(
    tmp_path: Path, stream: FakeStream, log: FakeLog
) -> None:
    positions = [start(tmp_path / name, log) for name in "abc"]
    again = start(tmp_path / "a", log)
    assert {*positions, again} == {positions[0]}
    assert positions[0].number == 1
    assert len(stream.records) == 1
    assert {history_of(tmp_path / name) for name in "abc"} == {origin_of(stream).history_id}


def test_of_servers_that_create_the_log_at_once_one_wins(tmp_path: Path, stream: FakeStream) -> None:
    """The other server finds the log empty at first, and then an Origin in it."""

    class SlowLog(FakeLog):
        def create_first(self, data: bytes) -> bool:
            start(tmp_path / "faster", FakeLog(stream))
            return super().create_first(data)

    position = start(tmp_path / "slower", SlowLog(stream))
    assert position == start(tmp_path / "faster", FakeLog(stream))
    assert history_of(tmp_path / "slower") == history_of(tmp_path / "faster")


def test_unreachable_log_is_tried_again_and_changes_nothing(tmp_path: Path, log: FakeLog) -> None:
    log.cut()
    with pytest.raises(OSError, match="can't reach NATS"):
        start(tmp_path / "a", log)
    log.mend()
    assert start(tmp_path / "a", log).number == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda stream: stream.records.clear(), "The shared log is empty, and .* has its first 5 records"),
        (lambda stream: stream.records.__setitem__(0, encode(Origin("other", "x"))), "is of another cluster"),
        (lambda stream: stream.records.__delitem__(slice(3, 9)), "has record 5, and the shared log ends at 3"),
        (lambda stream: stream.records.__setitem__(0, stream.records[1]), "is not one of a chat server"),
        (lambda stream: stream.records.__setitem__(0, b"x" * 50), "is damaged"),
    ],
)
def test_folder_follows_no_other_log(
    tmp_path: Path, stream: FakeStream, log: FakeLog, spoil: Callable[[FakeStream], None], reason: str
) -> None:
    folder = tmp_path / "a"
    start(folder, log)
    append(stream, 8)
    move_to(folder, 5)
    assert start(folder, log).number == 5
    spoil(stream)
    with pytest.raises(LogError, match=reason) as error:
        start(folder, log)
    assert "\n" not in str(error.value)


def test_start_waits_until_the_end_of_the_log_is_known(tmp_path: Path, stream: FakeStream) -> None:
    """The number of the newest record may lag, for example while NATS elects a leader."""

    class LaggingLog(FakeLog):
        known = iter([1, 1])

        def last_number(self) -> int:
            return next(self.known, 4)

    folder = tmp_path / "a"
    start(folder, FakeLog(stream))
    append(stream, 3)
    move_to(folder, 4)
    with closing(Database(folder)) as database:
        assert adopt_log(database, LaggingLog(stream)).number == 4


def test_data_of_a_single_server_need_the_command_share(tmp_path: Path, stream: FakeStream, log: FakeLog) -> None:
    single = make_data(tmp_path / "single", "alice")
    with pytest.raises(LogError, match="chatserver admin share"):
        start(single, log)
    assert not stream.records
    start(tmp_path / "other", log)
    with pytest.raises(LogError, match="single server; name an empty data folder"):
        start(single, log)
    with closing(Database(single)) as database:
        refuse_shared(database)


def test_folder_of_a_log_is_refused_without_it(tmp_path: Path, log: FakeLog) -> None:
    start(tmp_path / "a", log)
    with closing(Database(tmp_path / "a")) as database, pytest.raises(StoreError, match=r"CHAT_NATS.*unshare"):
        refuse_shared(database)


def test_new_server_starts_from_the_newest_snapshot(tmp_path: Path, stream: FakeStream, log: FakeLog) -> None:
    single = make_data(tmp_path / "single", "alice")
    history_id = history_of(single)
    share_folder(single, log)
    append(stream, 5)
    move_to(single, 3)
    assert upload_snapshot(single, log) == 3
    assert start(tmp_path / "new", log).number == 3
    assert has_account(tmp_path / "new", "alice")
    assert history_of(tmp_path / "new") == history_id
    assert stat.S_IMODE((tmp_path / "new" / "chat.db").stat().st_mode) == 0o600
    assert not [each.name for each in (*single.iterdir(), *(tmp_path / "new").iterdir()) if "snapshot" in each.name]


def test_folder_with_data_is_not_replaced_by_a_snapshot(tmp_path: Path, stream: FakeStream, log: FakeLog) -> None:
    """The folder is that of a server of the cluster, that of a single server, or one whose database was lost."""
    shared = make_data(tmp_path / "shared", "alice")
    share_folder(shared, log)
    upload_snapshot(shared, log)
    append(stream, 2)
    move_to(shared, 2)
    assert start(shared, log).number == 2
    single = make_data(tmp_path / "single", "bob")
    with pytest.raises(LogError, match="single server"):
        start(single, log)
    assert has_account(single, "bob")
    lost = make_data(tmp_path / "lost", "carol")
    with closing(Database(lost)) as database:
        reconcile(database)
    (lost / "chat.db").unlink()
    with pytest.raises(StoreError, match="is missing or empty, and there was one"):
        start(lost, log)


def test_empty_database_is_replaced_by_a_snapshot(tmp_path: Path, log: FakeLog) -> None:
    """Such a database is left by a first start without the log, or by one that was killed."""
    share_folder(make_data(tmp_path / "single", "alice"), log)
    with pytest.raises(LogError, match="has no snapshot; run `chatserver admin snapshot FILE` on another server"):
        start(tmp_path / "new", log)
    upload_snapshot(tmp_path / "single", log)
    start(tmp_path / "new", log)
    assert has_account(tmp_path / "new", "alice")


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("kind", ["damaged", "no database", "of another cluster", "of a single server", "newer"])
def test_unusable_snapshot_is_left_out_if_the_log_has_everything(
    tmp_path: Path, stream: FakeStream, log: FakeLog, kind: str, has_base: bool
) -> None:
    """A log that continues the data of one server has not everything: then the error says how to get a snapshot."""
    if has_base:
        share_folder(make_data(tmp_path / "a", "alice"), log)
    else:
        start(tmp_path / "a", log)
    upload_snapshot(tmp_path / "a", log)
    assert stream.snapshot is not None
    data = stream.snapshot[1]
    match kind:
        case "damaged":
            data = data[: len(data) // 2]
        case "no database":
            data = b"hello" * 1000
        case "of another cluster":
            start(tmp_path / "other", FakeLog(FakeStream()))
            data = (tmp_path / "other" / "chat.db").read_bytes()
        case "of a single server":
            data = make_data(tmp_path / "single", "bob").joinpath("chat.db").read_bytes()
        case "newer":
            data = data[:60] + (99).to_bytes(4, "big") + data[64:]  # user_version
    stream.snapshot = (1, data)
    if has_base:
        with pytest.raises(LogError, match=r"its snapshot can't be used \(.*`chatserver admin restore FILE`"):
            start(tmp_path / "new", log)
    else:
        assert start(tmp_path / "new", log).number == 1
    assert not has_account(tmp_path / "new", "bob")


def test_share_keeps_all_data_and_ends_guests(tmp_path: Path, stream: FakeStream, log: FakeLog) -> None:
    single = make_data(tmp_path / "single", "alice")
    with closing(Database(single)) as database, database.transaction() as connection:
        guest = claim_name(connection, "guest", 0)
        assert guest is not None
        applying = Transaction(connection, 5, 0)
        apply(applying, JoinRoom(1, "alice", "dev", is_private=False, may_create=True))
        apply(applying, JoinRoom(guest.id, "guest", "dev", is_private=False, may_create=False))
        apply(applying, PublicMessages(1, "alice", ["hello"], [None]))
    history_id = history_of(single)
    position = share_folder(single, log)
    assert origin_of(stream) == Origin(position.log_id, history_id, has_base=True)
    assert share_folder(single, log) == position
    assert start(single, log) == position
    assert has_account(single, "alice")
    assert history_of(single) == history_id
    with closing(Database(single)) as database, database.reading() as connection:
        assert not is_claimed(connection, "guest")
        left = connection.execute("SELECT after_id, time_ms, kind FROM room_event ORDER BY after_id, number").fetchall()
        assert left == [(0, 5, "join"), (0, 5, "join"), (1, 5, "quit")]


def test_share_needs_an_empty_log(tmp_path: Path, log: FakeLog) -> None:
    start(tmp_path / "a", log)
    single = make_data(tmp_path / "single", "alice")
    with pytest.raises(LogError, match="has 1 records already"):
        share_folder(single, log)
    with closing(Database(single)) as database:
        refuse_shared(database)
    other = FakeLog(FakeStream())
    start(tmp_path / "other", other)
    with pytest.raises(LogError, match="another cluster"):
        share_folder(tmp_path / "other", log)


class CrashingLog(FakeLog):
    """Crashes before a call of this number, or after it."""

    def __init__(self, stream: FakeStream, number: int, *, is_before: bool) -> None:
        super().__init__(stream)
        self._number = number
        self._is_before = is_before

    def _count(self, call: Callable[[], T]) -> T:
        self._number -= 1
        if not self._number and self._is_before:
            raise CrashedError
        result = call()
        if not self._number:
            raise CrashedError
        return result

    def read_first(self) -> bytes | None:
        return self._count(super().read_first)

    def create_first(self, data: bytes) -> bool:
        return self._count(lambda: super(CrashingLog, self).create_first(data))


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_share_and_start_can_be_killed_and_repeated(
    tmp_path: Path, stream: FakeStream, log: FakeLog, number: int, is_before: bool
) -> None:
    """No server starts with a half-shared folder, or joins its log without the data."""
    single = make_data(tmp_path / "single", "alice")
    with pytest.raises(CrashedError):
        share_folder(single, CrashingLog(stream, number, is_before=is_before))
    with pytest.raises(LogError, match="chatserver admin share"):
        start(single, log)
    position = share_folder(single, log)
    assert start(single, log) == position
    assert origin_of(stream).log_id == position.log_id
    other = FakeStream()
    with pytest.raises(CrashedError):
        start(tmp_path / "new", CrashingLog(other, number, is_before=is_before))
    assert start(tmp_path / "new", FakeLog(other)).log_id == origin_of(other).log_id


def test_log_that_is_taken_while_share_is_interrupted_is_left_alone(
    tmp_path: Path, stream: FakeStream, log: FakeLog
) -> None:
    single = make_data(tmp_path / "single", "alice")
    with pytest.raises(CrashedError):
        share_folder(single, CrashingLog(stream, 2, is_before=True))
    start(tmp_path / "other", log)
    with pytest.raises(LogError, match="has 1 records already"):
        share_folder(single, log)
    with closing(Database(single)) as database:
        refuse_shared(database)
