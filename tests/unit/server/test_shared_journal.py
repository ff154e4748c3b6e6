"""Servers that share a log: each entry is applied once, in one order, whatever happens to the records on their way."""

from __future__ import annotations

import functools
import itertools
import shutil
import sqlite3
import tempfile
import threading
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from unit.server.fake_log import FakeLog, FakeStream

from chatprotocol.events import EventPlace, RoomModes, RoomRole, TimeMs
from chatserver.chat.errors import to_request_error
from chatserver.journal import records
from chatserver.journal.apply import StoreLimits
from chatserver.journal.base import (
    INBOX_MAX_ENTRIES,
    Appended,
    Applied,
    JournalClosedError,
    LogUnavailableError,
    UnfinishedError,
)
from chatserver.journal.entries import (
    AccountProblem,
    AddToken,
    Entry,
    GuestClaim,
    GuestRelease,
    GuestRenamed,
    GuestsGone,
    JoinRoom,
    KnownNetwork,
    Moderated,
    NewAccount,
    Problem,
    PublicMessages,
    RenameGuest,
    Revoked,
    RevokeTokens,
    RoomChange,
    ServerGone,
    ServerStart,
    Stored,
    UseToken,
)
from chatserver.journal.records import Batch, Origin
from chatserver.journal.shared import IN_FLIGHT_MAX, SharedJournal
from chatserver.store.database import Database
from chatserver.store.identity import read_history_id
from chatserver.store.log_position import LogPosition, write_position
from chatserver.store.tokens import Tokens, hash_token

from .helpers import DEADLINE_SECONDS, eventually, in_background, must_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG_ID = "log"
NAMES = ("a", "b", "c")
INTERVAL_SECONDS = 0.05


@functools.cache
def new_store() -> dict[str, bytes]:
    """The files of a store that has joined the log. It is copied, because its migrations take longer than a test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with closing(Database(folder, syncs=False)) as database, database.transaction() as connection:
            read_history_id(connection)
            write_position(connection, LogPosition(LOG_ID, 1, b""))
        return {each.name: each.read_bytes() for each in folder.iterdir()}


class SharingServer:
    """A server without clients: a journal on a store of its own, and its end of the log."""

    _clock = itertools.count(1_000)

    def __init__(self, folder: Path, stream: FakeStream, name: str) -> None:
        self.name = name
        if not folder.exists():
            folder.mkdir(mode=0o700)
            for file, data in new_store().items():
                (folder / file).write_bytes(data)
        self.database = Database(folder, syncs=False)
        self.log = FakeLog(stream)
        self.log.start()
        self.is_lost = False
        self.applied: list[Applied] = []
        self.runs: list[str] = []
        self.journal = SharedJournal(
            self.database,
            lambda: next(self._clock),
            lambda _: None,
            log=self.log,
            server=name,
            on_lost=self._lose,
            retry_seconds=INTERVAL_SECONDS,
            defer_seconds=INTERVAL_SECONDS,
            limits=StoreLimits(waiting_messages=len(name)),
        )
        self.journal.subscribe(self.applied.extend, lambda _: None)
        self.journal.on_new_run(self.runs.append)

    def _lose(self) -> None:
        self.is_lost = True

    def start(self) -> SharingServer:
        self.journal.start()
        return self

    def ready(self) -> SharingServer:
        self.start()
        assert self.journal.wait_until_ready(DEADLINE_SECONDS)
        return self

    def say(self, text: str, origin: str = "") -> Appended[Any]:
        """Append a message. The origin is by default the text."""
        return self.journal.append([PublicMessages(1, "alice", [text], [None])], origin or text)

    def tables(self) -> dict[str, list[Any]]:
        """The rows of all tables; the servers have the same."""
        with self.database.reading() as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            return {
                name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)
                for name in names
                if not name.startswith("sqlite_")
            }

    def texts(self) -> list[str]:
        with self.database.reading() as connection:
            return [text for (text,) in connection.execute("SELECT text FROM message ORDER BY id")]

    def stop(self) -> None:
        self.journal.stop()
        self.journal.close()
        self.database.close()


def new_stream() -> FakeStream:
    stream = FakeStream()
    stream.store("first", records.encode(Origin(LOG_ID, "history")))
    return stream


@pytest.fixture
def stream() -> FakeStream:
    return new_stream()


@pytest.fixture
def servers(stream: FakeStream, tmp_path: Path) -> Iterator[list[SharingServer]]:
    """Two servers that are ready, with the account alice."""
    with ExitStack() as stack:
        found = []
        for name in NAMES[:2]:
            found.append(SharingServer(tmp_path / name, stream, name).ready())
            stack.callback(found[-1].stop)
        found[0].journal.append([NewAccount("alice", "hash")]).result()
        yield found


def settle(servers: Sequence[SharingServer], appended: Sequence[Appended[Any]] = ()) -> None:
    """Deliver everything, and wait until all servers have applied it."""
    for server in servers:
        server.log.mend()
        server.log.repeat()
        server.log.read_until(None)
    for each in appended:
        assert each.wait(DEADLINE_SECONDS)
    eventually(lambda: are_settled(servers))


def are_settled(servers: Sequence[SharingServer]) -> bool:
    """True if all servers have applied all records and have published what follows from them."""
    for server in servers:
        assert server.journal.append(()).wait(DEADLINE_SECONDS)
    last_number = servers[0].log.last_number()
    return all((each.journal.position.number, each.journal.in_flight) == (last_number, 0) for each in servers)


class Play:
    """Servers, what they have said, and the moves of the test."""

    def __init__(self, stream: FakeStream, servers: Sequence[SharingServer]) -> None:
        self.stream = stream
        self.servers = servers
        # The appends of each server by their texts.
        self.said: dict[str, dict[str, Appended[Any]]] = {server.name: {} for server in servers}
        self.others: list[Appended[Any]] = []

    def say(self, server: SharingServer) -> None:
        text = f"{server.name} {len(self.said[server.name])}"
        self.said[server.name][text] = server.say(text)

    def overtake(self, server: SharingServer) -> None:
        """Publish two batches, and store the later one first."""
        server.log.mend()
        assert server.journal.append(()).wait(DEADLINE_SECONDS)
        server.log.hold()
        for count in (1, 2):
            self.say(server)
            eventually(lambda count=count: len(server.log.held) >= count)  # type: ignore[misc]
        self.reverse(server)

    def take_for_gone(self, server: SharingServer) -> None:
        other = self.servers[(self.servers.index(server) + 1) % len(self.servers)]
        self.others.append(other.journal.append([ServerGone(server.name, server.journal.run)]))

    def repeat(self, server: SharingServer) -> None:
        """Publish again what seemed to be lost; the log stores it twice."""
        self.stream.forget_ids()
        server.log.repeat()

    def copy(self, server: SharingServer) -> None:
        """Store an old record again, perhaps the start of a run that is over."""
        count = len(self.stream.records)
        self.stream.store(f"copy {server.name} {count}", self.stream.records[1 + count * 7 % (count - 1)])

    def lose(self, server: SharingServer) -> None:
        server.log.loses_acknowledgements = True

    def hold(self, server: SharingServer) -> None:
        server.log.hold()

    def release(self, server: SharingServer) -> None:
        server.log.release()

    def reverse(self, server: SharingServer) -> None:
        server.log.release(reversed(range(len(server.log.held))))

    def cut(self, server: SharingServer) -> None:
        server.log.cut()

    def mend(self, server: SharingServer) -> None:
        server.log.mend()


MOVES = (Play.copy, Play.overtake, Play.take_for_gone, Play.repeat, Play.lose, Play.hold, Play.release, Play.reverse)
steps = st.lists(st.tuples(st.sampled_from([*MOVES, Play.say, Play.cut, Play.mend]), st.integers(0, 2)), max_size=30)


@given(steps)
def test_each_entry_is_applied_once_and_in_order_on_all_servers(moves: list[tuple[Any, int]]) -> None:
    """Promise: if records are lost, repeated or overtaken, and servers taken for gone, all stores stay equal."""
    stream = new_stream()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for name in NAMES:
            servers.append(SharingServer(Path(folder, name), stream, name).ready())
            stack.callback(servers[-1].stop)
        servers[0].journal.append([NewAccount("alice", "hash")]).result()
        settle(servers)
        play = Play(stream, servers)
        for move, index in moves:
            move(play, servers[index])
        settle(servers, [*play.others, *(each for said in play.said.values() for each in said.values())])
        stored = servers[0].texts()
        for server in servers:
            assert server.tables() == servers[0].tables()
            published = [each for each in server.applied if isinstance(each.entry, PublicMessages)]
            assert [each.entry.texts[0] for each in published if each.time_ms] == stored
            said = play.said[server.name]
            confirmed = [text for text, appended in said.items() if appended.is_successful]
            assert [text for text in stored if text.startswith(server.name)] == confirmed
            assert [each.origin for each in published if each.origin and each.time_ms] == confirmed
            for text in said.keys() - confirmed:
                with pytest.raises(LogUnavailableError):
                    said[text].result()


@pytest.mark.parametrize("is_reversed", [False, True])
def test_late_start_of_a_lost_run_does_not_stop_the_server(servers: list[SharingServer], *, is_reversed: bool) -> None:
    """A server was taken for gone twice, and its starts of both new runs arrive only after that, in any order."""
    paused, other = servers
    paused.log.hold()
    for count in (1, 2):
        run = paused.journal.run
        other.journal.append([ServerGone(paused.name, run)]).result()
        eventually(lambda count=count: len(paused.log.held) == count)  # type: ignore[misc]
    paused.log.release(reversed(range(2)) if is_reversed else None)
    assert paused.say("still here").wait(DEADLINE_SECONDS)
    settle(servers)
    assert paused.texts() == other.texts() == ["still here"]
    assert paused.tables() == other.tables()


def test_server_is_ready_after_all_that_was_confirmed(
    stream: FakeStream, servers: list[SharingServer], tmp_path: Path
) -> None:
    for number in range(10):
        servers[0].say(f"{number}").result()
    late = SharingServer(tmp_path / "late", stream, "late")
    late.log.read_until(5)
    late.start()
    with closing(late.database), late.database.reading():
        eventually(lambda: late.journal.position.number == 5)
        assert late.journal.find_problem(0) == "it is catching up with the shared log"
        late.log.read_until(None)
        assert late.journal.wait_until_ready(DEADLINE_SECONDS)
        assert late.texts() == servers[0].texts() == [f"{number}" for number in range(10)]
        assert late.journal.find_problem(0) == ""
        late.journal.stop()
        late.journal.close()


def test_store_that_lost_its_last_transactions_continues(stream: FakeStream, tmp_path: Path) -> None:
    """Without a sync, a crash of the machine loses transactions; the position is as old as the rest."""
    server = SharingServer(tmp_path / "a", stream, "a").ready()
    server.journal.append([NewAccount("alice", "hash")]).result()
    server.say("1").result()
    copy = tmp_path / "copy"
    copy.mkdir()
    with server.database.reading() as connection:
        connection.execute("VACUUM INTO ?", (str(copy / "chat.db"),))
    server.say("2").result()
    server.stop()
    again = SharingServer(copy, stream, "a").ready()
    assert again.texts() == ["1", "2"]
    again.stop()


def test_batch_that_was_overtaken_comes_first(stream: FakeStream, servers: list[SharingServer]) -> None:
    play = Play(stream, servers)
    for _ in range(3):
        play.overtake(servers[0])
        settle(servers, list(play.said["a"].values()))
    assert servers[1].texts() == [f"a {number}" for number in range(6)]


def test_run_that_is_over_never_begins_again(stream: FakeStream, servers: list[SharingServer], tmp_path: Path) -> None:
    """NATS forgets ids after some minutes, so copies of old records may come late."""
    server = SharingServer(tmp_path / "c", stream, "c").ready()
    server.say("before").result()
    server.stop()
    old = list(stream.records)
    again = SharingServer(tmp_path / "c", stream, "c").ready()
    again.say("after").result()
    for number, data in enumerate(old[1:]):
        stream.store(f"late {number}", data)
    settle([*servers, again])
    assert not again.is_lost
    assert again.texts() == servers[0].texts() == ["before", "after"]
    again.stop()


def test_names_are_given_once(servers: list[SharingServer]) -> None:
    """Two servers register a name, or claim it for a guest, at once: one wins."""
    for server in servers:
        server.log.hold()
    accounts = [server.journal.append([NewAccount("bob", server.name)]) for server in servers]
    guests = [server.journal.append([GuestClaim("guest", server.name)]) for server in servers]
    settle(servers, [*accounts, *guests])
    assert [type(each.result()[0]) for each in accounts].count(AccountProblem) == 1
    assert [each.result()[0] for each in guests].count(None) == 1
    winner = servers[0] if guests[0].result()[0] else servers[1]
    loser = servers[1] if winner is servers[0] else servers[0]
    loser.journal.append([ServerGone(winner.name, winner.journal.run)]).result()
    assert loser.journal.append([GuestClaim("guest", loser.name)]).result()[0] is not None, "its guests have left"


def test_guest_who_registers_can_not_lose_the_name_between_two_records(servers: list[SharingServer]) -> None:
    """The entries of one append stay in one record, also if only the first of them would fit into this one."""
    server = servers[0]
    (guest,) = server.journal.append([GuestClaim("guest", server.name)]).result()
    assert guest is not None
    server.log.hold()
    in_flight = []
    for count in range(1, IN_FLIGHT_MAX + 1):  # what follows is published together
        in_flight.append(server.say("waits"))
        eventually(lambda count=count: len(server.log.held) == count)  # type: ignore[misc]
    texts = ["x" * 8_000] * 48
    long = server.journal.append([PublicMessages(1, "alice", texts, [None] * len(texts))])
    registered = server.journal.append([GuestRelease("guest", guest.claim), NewAccount("guest", "y" * 10_000)])
    settle(servers, [*in_flight, long, registered])
    assert long.is_successful
    assert not isinstance(registered.result()[1], AccountProblem)
    (record,) = (each for each in server.log.stream.records if b"y" * 10_000 in each)
    assert b"guest_gone" in record
    assert b"x" * 8_000 not in record


def test_entries_are_refused_while_the_log_has_a_problem(servers: list[SharingServer]) -> None:
    """Entries in flight wait, and none is confirmed early; a deferred entry is kept."""
    server = servers[0]
    server.log.hold()
    waiting = server.say("waits")
    eventually(lambda: server.log.held)
    server.log.set_problem("NATS has no quorum")
    server.journal.defer("key", KnownNetwork(1, "192.0.2.1"))
    with pytest.raises(LogUnavailableError, match="NATS has no quorum"):
        server.say("refused").result()
    assert [type(each.outcome) for each in server.applied if each.origin == "refused"] == [LogUnavailableError]
    assert not waiting.is_complete
    assert server.journal.find_problem(0) == "NATS has no quorum"
    settle(servers, [waiting])
    server.say("accepted").result()
    assert server.texts() == ["waits", "accepted"]
    assert ("192.0.2.1",) in [row[1:2] for row in server.tables()["known_network"]]


def test_refusal_comes_after_what_is_in_flight(servers: list[SharingServer]) -> None:
    """Promise: each message of a user is answered in order, also with the problem gone meanwhile."""
    server = servers[0]
    server.log.hold()
    first = server.say("first", "alice")
    eventually(lambda: server.log.held)
    server.log.set_problem("NATS has no quorum")
    refused = server.say("refused", "alice")
    with pytest.raises(LogUnavailableError):
        server.say("refused", "bob").result()
    server.log.set_problem("")
    last = server.say("last", "alice")
    eventually(lambda: len(server.log.held) > 1)
    assert not refused.is_complete
    settle(servers, [first, refused, last])
    outcomes = [each.outcome for each in server.applied if each.origin == "alice"]
    assert [isinstance(each, LogUnavailableError) for each in outcomes] == [False, True, False]
    assert server.texts() == ["first", "last"]


def test_entries_in_flight_at_the_end_are_of_unknown_fate(servers: list[SharingServer]) -> None:
    """The callers must not get an error that denies the effect: the log may have the entries."""
    server, other = servers
    server.log.hold()
    in_flight = server.say("in flight")
    eventually(lambda: server.log.held)
    server.journal.stop()
    with pytest.raises(UnfinishedError) as error:
        in_flight.result()
    assert to_request_error(error.value, "").reason.endswith("perhaps this was done.")
    with pytest.raises(JournalClosedError) as closed:
        server.say("late")
    assert to_request_error(closed.value, "").reason.endswith("nothing was done.")
    server.log.release()
    settle([other])
    assert other.texts() == ["in flight"]


def test_deferred_entry_does_not_wait_for_others(servers: list[SharingServer]) -> None:
    """A guest leaves a quiet server: its name is soon free on the others."""
    first, second = servers
    (claimed,) = first.journal.append([GuestClaim("carol", "a")]).result()
    assert second.journal.append([GuestClaim("carol", "b")]).result() == [None]
    first.log.set_problem("NATS has no quorum")
    first.journal.defer("key", GuestRelease("carol", claimed.claim))
    first.log.set_problem("")
    eventually(lambda: second.journal.append([GuestClaim("carol", "b")]).result() != [None])
    records_before = first.log.last_number()
    first.journal.wait_for_pending()
    assert first.log.last_number() == records_before, "nothing is deferred any more"


def test_names_and_rooms_of_guests_are_those_of_all_servers(servers: list[SharingServer]) -> None:
    """A name is taken on all servers until its guest leaves or takes another one. Its rooms go along, or to an heir."""
    first, second = servers

    def ask(server: SharingServer, entry: Entry[Any]) -> Any:
        return server.journal.append([entry]).result()[0]

    rose, dave = ask(first, GuestClaim("rose", "a")), ask(second, GuestClaim("dave", "b"))
    for server, guest in ((first, rose), (second, dave)):
        ask(server, JoinRoom(guest.id, guest.name, "dev", is_private=False, may_create=True))
    rename = RenameGuest("dave", dave.claim, "ROSE", "b")
    assert ask(second, rename) is Problem.NAME_TAKEN
    lily = ask(first, RenameGuest("rose", rose.claim, "lily", "a")).account
    assert isinstance(ask(second, rename), GuestRenamed)
    gone = ask(first, GuestRelease("lily", lily.claim))
    assert [(each.name, each.heir) for each in gone.rooms] == [("dev", "ROSE")]
    settle(servers)
    assert [type(each.outcome) for each in second.applied] == [type(each.outcome) for each in first.applied]
    assert len(second.tables()["membership"]) == 1
    assert first.tables() == second.tables()


def test_digest_has_no_places_of_events() -> None:
    """The value is that of an older server without places, which may be in the same cluster while it is upgraded."""
    place = EventPlace(17, 1, 2, TimeMs(5))
    change = RoomChange(
        *(2, "dev", "tea", True, 17, RoomRole.MEMBER, None),
        heir_id=3,
        heir="carol",
        modes=RoomModes(private=True, key="word"),
        old_modes=RoomModes(),
        roles={"carol": RoomRole.OWNER},
        place=place,
        heir_place=place,
    )
    gone = GuestsGone((change,))
    outcomes = [(Stored(0, 1, 9),), Problem.NOT_PERMITTED, OSError("full"), None]
    digest = records.chain(b"", 7, [*outcomes, change, Moderated("dev", 5, change, place=place), gone])
    assert digest.hex() == "ab60a011c3ad3c47688c1266d55405cf"


def test_refused_messages_that_wait_for_their_turn_are_limited(servers: list[SharingServer]) -> None:
    """The sender waits, as for a slow disk, so that it can't use up the memory while the log is unavailable."""
    server = servers[0]
    appended: list[Appended[Any]] = []

    def send(count: int) -> None:
        for _ in range(count):
            message = PublicMessages(1, "alice", ["hello"], [None])
            appended.append(server.journal.append([message], server))

    server.log.hold()
    send(1)
    eventually(lambda: server.log.held)
    server.log.set_problem("NATS has no quorum")
    sending = in_background(partial(send, 4 * INBOX_MAX_ENTRIES))
    eventually(lambda: len(appended) > 2 * INBOX_MAX_ENTRIES)  # so many are refused, or are in the inbox
    sent = -1
    while sent != len(appended):  # it makes no progress
        sent = len(appended)
        sending.join(0.2)
    assert sending.is_alive()
    server.log.mend()
    must_end(sending)
    settle(servers, appended)
    assert not all(each.is_successful for each in appended)
    assert [each.is_successful for each in appended].count(True) == len(server.texts())


def test_fence_does_not_wait_for_what_is_in_flight(servers: list[SharingServer]) -> None:
    """Promise: without a quorum, logins and answers don't wait for the messages of others."""
    server = servers[0]
    server.log.hold()
    in_flight = server.say("1")
    eventually(lambda: server.log.held)
    must_end(in_background(server.journal.wait_for_pending))
    assert not in_flight.is_complete
    settle(servers, [in_flight])


@pytest.mark.parametrize("broken", ["checksum", "newer", "unknown", "field"])
def test_record_that_can_not_be_read_stops_the_server(
    stream: FakeStream, servers: list[SharingServer], broken: str
) -> None:
    """Skipping it would make the servers differ."""
    data = bytearray(records.encode(Batch("x", "r", 1, 0, 0, StoreLimits(), [ServerStart("x")])))
    if broken == "checksum":
        data[-1] ^= 1
    elif broken == "newer":
        data = bytearray(records.seal(bytes([records.VERSION + 1]) + bytes(data[9:])))
    elif broken == "field":
        record = msgspec.msgpack.decode(bytes(data[9:]))
        record["entries"][0]["later"] = True
        data = bytearray(records.seal(bytes([records.VERSION]) + msgspec.msgpack.encode(record)))
    else:
        data = bytearray(records.seal(bytes(data[8:]).replace(b"start", b"later")))
    before = servers[0].journal.position
    with capture_logs() as log:
        stream.store("broken", bytes(data))
        eventually(lambda: all(server.is_lost for server in servers))
    reasons = [each["error"] for each in log if each["event"] == "shared log lost"]
    expected = "is damaged" if broken == "checksum" else "newer version of the server"
    assert len(reasons) == 2
    assert all(expected in reason for reason in reasons)
    assert servers[0].journal.position == before
    with pytest.raises(JournalClosedError):
        servers[0].say("late").result()


def test_second_server_of_the_same_name_stops_the_first(stream: FakeStream, tmp_path: Path) -> None:
    """A copy of its folder has its run in chat.state, so the lease does not keep it out.

    Promise: if something starts the first one again, it waits: the two do not end each other in turn.
    """
    first = SharingServer(tmp_path / "first", stream, "a").ready()
    copy = tmp_path / "copy"
    copy.mkdir()
    with first.database.reading() as connection:
        connection.execute("VACUUM INTO ?", (str(copy / "chat.db"),))
    shutil.copy(tmp_path / "first" / "chat.state", copy)
    second = SharingServer(copy, stream, "a").ready()
    eventually(lambda: first.is_lost)
    first.stop()
    again = SharingServer(tmp_path / "first", stream, "a").start()
    eventually(lambda: again.journal.awaits_name)
    again.stop()
    assert not second.is_lost
    second.stop()


def test_server_that_waits_for_its_name_can_be_stopped(
    stream: FakeStream, servers: list[SharingServer], tmp_path: Path
) -> None:
    """Promise: a server that is started with the name of another one by mistake, and stopped, does no harm."""
    first = servers[0]
    stream.leases["a"] = first.journal.run
    second = SharingServer(tmp_path / "second", stream, "a").start()
    eventually(lambda: second.journal.awaits_name)
    second.stop()
    first.say("still here").result()
    assert not first.is_lost


def test_entry_with_wrong_values_is_skipped_by_all(servers: list[SharingServer]) -> None:
    """A number that SQLite can't store must not stop every server at the same record, for ever."""
    wrong: Entry[Any] = KnownNetwork(2**63, "192.0.2.1")
    with capture_logs() as log:
        with pytest.raises(OSError, match="can't be encoded"):
            servers[0].journal.append([KnownNetwork(2**70, "192.0.2.1")]).result()
        appended = servers[0].journal.append([PublicMessages(1, "alice", ["before"], [None]), wrong])
        with pytest.raises(OSError, match="can't be applied"):
            appended.result()
        servers[0].say("after").result()
        settle(servers)
    assert [server.texts() for server in servers] == [["before", "after"]] * 2
    assert [each["event"] for each in log].count("entry rejected") == 2
    assert servers[0].journal.position == servers[1].journal.position


def test_token_of_one_server_is_valid_on_all_until_one_revokes_it(servers: list[SharingServer]) -> None:
    """The outcome names the token, so that each server ends the connections that it has."""
    one, other = servers
    added = one.journal.append([AddToken(1, hash_token("token"), "id", "phone")])
    settle(servers, [added])
    tokens = [Tokens(server.database) for server in servers]
    for each in tokens:
        found = each.find("token", "home", 0)
        assert found is not None
        assert (found.id, found.account.name) == ("id", "alice")
    other.journal.defer("use", UseToken(1, "id"))
    settle(servers, [other.journal.append([RevokeTokens(1)])])
    assert [each.find("token", "home", 0) for each in tokens] == [None, None]
    for server in servers:
        assert [each.outcome for each in server.applied if isinstance(each.entry, RevokeTokens)] == [Revoked(("id",))]
    assert one.tables() == other.tables()


def test_disk_that_fails_delays_and_skips_nothing(
    servers: list[SharingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = servers
    failures = iter([sqlite3.OperationalError("disk I/O error")])
    transaction = server.database.transaction

    def failing() -> Any:
        for failure in failures:
            raise failure
        return transaction()

    monkeypatch.setattr(server.database, "transaction", failing)
    with capture_logs() as log:
        assert other.say("hello").result()
        eventually(lambda: server.texts() == ["hello"])
        settle(servers)
    assert [each["event"] for each in log if "journal" in each["event"]] == ["journal failed", "journal recovered"]


def test_digests_are_kept_to_be_compared(stream: FakeStream, servers: list[SharingServer]) -> None:
    for server in servers:
        server.log.read_until(999)
    for number in range(len(stream.records), 1_000):
        stream.store(f"{number}", records.encode(Batch("x", "r", 9, 0, 0, StoreLimits(), [])))
    settle(servers)
    assert (
        servers[0].journal.checkpoints()
        == servers[1].journal.checkpoints()
        == {1_000: servers[0].journal.position.chain}
    )


def test_stop_while_it_catches_up_does_not_wait_for_the_rest(
    servers: list[SharingServer], stream: FakeStream, tmp_path: Path
) -> None:
    """The next start continues."""
    for number in range(100):
        servers[0].say(str(number)).result()
    new = SharingServer(tmp_path / "c", stream, "c")
    has_begun, may_continue = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        has_begun.set()
        assert may_continue.wait(DEADLINE_SECONDS)

    new.journal.subscribe(hold, lambda _: None)
    new.start()
    assert has_begun.wait(DEADLINE_SECONDS)
    stopping = in_background(new.stop)
    eventually(lambda: is_closed(new))
    may_continue.set()
    must_end(stopping)
    assert new.journal.position.number < len(stream.records)
    again = SharingServer(tmp_path / "c", stream, "c").ready()
    assert again.texts() == servers[0].texts()
    again.stop()


def is_closed(server: SharingServer) -> bool:
    try:
        server.say("late")
    except JournalClosedError:
        return True
    return False


def test_each_record_is_reported_by_its_own_server_once(stream: FakeStream, tmp_path: Path) -> None:
    """Exactly one server stores each snapshot, because it is the one that wrote the record."""
    reported: list[int] = []
    servers = [SharingServer(tmp_path / name, stream, name) for name in NAMES]
    for server in servers:
        server.journal.on_own_record(reported.append)
        server.ready()
    servers[0].journal.append([NewAccount("alice", "hash")]).result()
    settle(servers, [server.say("hello") for server in servers])
    assert sorted(reported) == list(range(2, len(stream.records) + 1))
    for server in servers:
        server.stop()


def test_stop_does_not_wait_for_the_records_of_others(stream: FakeStream, tmp_path: Path) -> None:
    """Another server writes as fast as this one applies; the journal has news at any time."""
    numbers = itertools.count(1)
    writes = True

    def write_more(_: object) -> None:
        if writes:
            number = next(numbers)
            stream.store(f"x {number}", records.encode(Batch("x", "r", number, 0, 0, StoreLimits(), [ServerStart()])))

    server = SharingServer(tmp_path / "a", stream, "a")
    server.journal.subscribe(write_more, lambda _: None)
    server.ready()
    eventually(lambda: server.journal.position.number > 10)
    stopping = in_background(server.stop)
    try:
        must_end(stopping)
    finally:
        writes = False


def test_entries_are_refused_while_the_disk_fails(
    servers: list[SharingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No entry can be confirmed, and the inbox must not fill up. Entries in flight wait, also for the next start."""
    server, other = servers
    is_failing = threading.Event()
    is_failing.set()
    transaction = server.database.transaction

    def failing() -> Any:
        if is_failing.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        return transaction()

    monkeypatch.setattr(server.database, "transaction", failing)
    in_flight = server.say("in flight")
    eventually(lambda: server.journal.is_failing)
    for _ in range(2):
        with pytest.raises(OSError, match="disk is full"):
            server.say("refused").result()
    fence = in_background(server.journal.wait_for_pending)
    must_end(fence)
    assert not in_flight.is_complete
    is_failing.clear()
    settle(servers, [in_flight])
    assert server.texts() == other.texts() == ["in flight"]
    is_failing.set()
    in_flight = server.say("late")
    eventually(lambda: server.journal.is_failing)
    with capture_logs() as log:
        server.journal.stop()
    with pytest.raises(JournalClosedError):
        in_flight.result()
    assert "thread died" not in [each["event"] for each in log]
