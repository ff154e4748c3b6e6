"""Messages between two points of the history: ids or times, in any order of times."""

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.events import RoomRole
from chatprotocol.limits import ID_MAX
from chatprotocol.requests import Bound, HistoryOrder
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import (
    DeleteMessage,
    DirectMessage,
    Entry,
    NewAccount,
    Prune,
    PublicMessages,
    SetIgnored,
)
from chatserver.store.conversation_history import BLOCK_IDS, ConversationHistory, note_times
from chatserver.store.messages import Messages
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, insert_invitation, insert_room, set_role

from .helpers import CountingDatabase, MemoryDatabase, memory_database, new_store

if TYPE_CHECKING:
    from chatserver.store.database import Database

ACCOUNTS = range(1, 4)
DEV_ID = 2
NAMES = {1: "ann", 2: "bob", 3: "carol"}


class Sent(NamedTuple):
    """A message of the model. Its text is empty if it is deleted."""

    id: int
    time_ms: int
    room_id: int
    sender: int
    recipient: int | None
    is_deleted: bool


@st.composite
def histories(draw: st.DrawFn) -> list[Sent]:
    """Messages in order of ids, with gaps of several blocks. Times repeat, grow, and go back."""
    account = st.sampled_from(ACCOUNTS)
    sent: list[Sent] = []
    message_id = 0
    for _ in range(draw(st.integers(0, 15))):
        message_id += draw(st.sampled_from([1, 1, 2, BLOCK_IDS - 1, BLOCK_IDS, 3 * BLOCK_IDS]))
        room_id = draw(st.sampled_from([DIRECT_ID, DIRECT_ID, LOBBY_ID, DEV_ID]))
        recipient = draw(account) if room_id == DIRECT_ID else None
        is_deleted = draw(st.sampled_from([False, False, False, True]))
        sent.append(Sent(message_id, draw(st.integers(1, 6)), room_id, draw(account), recipient, is_deleted))
    return sent


def fill(connection: sqlite3.Connection, sent: list[Sent], ignored: set[tuple[int, int]]) -> None:
    """Ann and bob are in the room dev, and carol is invited."""
    for name in NAMES.values():
        apply(Transaction(connection, 0, 0), NewAccount(name, "hash"))
    assert insert_room(connection, "dev", 0, is_private=True) == DEV_ID
    for account_id in (1, 2):
        set_role(connection, DEV_ID, account_id, RoomRole.MEMBER)
    insert_invitation(connection, DEV_ID, 3)
    for account_id, ignored_id in ignored:
        apply(Transaction(connection, 0, 0), SetIgnored(account_id, ignored_id, is_ignored=True))
    last_id = 0
    for each in sent:
        entry: Entry[Any] = PublicMessages(each.sender, NAMES[each.sender], ["text"], [None], each.room_id)
        if each.recipient is not None:
            entry = DirectMessage(each.sender, "", ["text"], [None], recipient_id=each.recipient, recipient="")
        elif each.room_id == DEV_ID and each.sender == 3:
            set_role(connection, DEV_ID, 3, RoomRole.MEMBER)
        applying = Transaction(connection, each.time_ms, last_id)
        applying.use_ids(each.id - last_id - 1)
        assert isinstance(apply(applying, entry), tuple)
        last_id = applying.last_id
        if each.is_deleted:
            apply(
                applying,
                DeleteMessage(
                    by_id=each.sender, by="", message_id=each.id, room_id=DEV_ID if each.room_id == DEV_ID else LOBBY_ID
                ),
            )
        if each.room_id == DEV_ID and each.sender == 3:
            set_role(connection, DEV_ID, 3, None)


def matches(each: Sent, after: Bound | None, before: Bound | None) -> bool:
    return not (
        (after is not None and after.id is not None and each.id <= after.id)
        or (after is not None and after.time_ms is not None and each.time_ms <= after.time_ms)
        or (before is not None and before.id is not None and each.id >= before.id)
        or (before is not None and before.time_ms is not None and each.time_ms >= before.time_ms)
    )


def expected(view: list[Sent], order: HistoryOrder, after: Bound | None, before: Bound | None, limit: int) -> list[int]:
    if order is HistoryOrder.AROUND:
        older = [each.id for each in view if matches(each, None, after)]
        newer = [each.id for each in view if each.id not in older]
        count = max(limit // 2, limit - len(newer))
        older = older[-count:] if count else []
        return sorted(older + newer[: limit - len(older)])
    found = [each.id for each in view if matches(each, after, before)]
    return found[-limit:] if order is HistoryOrder.NEWEST else found[:limit]


far_times = st.sampled_from([-(2**70), 2**70])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Sent], Bound, Bound]:
    """A history and two bounds, most of them at one of its messages."""
    sent = draw(histories())
    ids = st.sampled_from([0, 5 * BLOCK_IDS, *(each.id for each in sent)])
    bounds = st.builds(Bound, id=ids) | st.builds(Bound, time_ms=st.integers(0, 7) | far_times)
    return sent, draw(bounds), draw(bounds)


@given(
    cases(),
    st.sets(st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS)).filter(lambda pair: pair[0] != pair[1])),
    st.sampled_from(HistoryOrder),
    st.sampled_from([(True, True), (True, False), (False, True), (False, False)]),
    st.integers(1, 8),
    st.sampled_from([0, 0, 3, BLOCK_IDS + 1]),
)
@example(
    # The second message is older than the first one, which is in a block of its own.
    (
        [Sent(1, 5, LOBBY_ID, 1, None, False), Sent(BLOCK_IDS, 2, LOBBY_ID, 1, None, False)],
        Bound(time_ms=1),
        Bound(time_ms=3),
    ),
    set(),
    HistoryOrder.OLDEST,
    (True, True),
    8,
    0,
)
@example(
    # A block whose messages are partly after the lower bound.
    (
        [Sent(number, time_ms, LOBBY_ID, 1, None, False) for number, time_ms in ((1, 1), (2, 5), (BLOCK_IDS, 9))],
        Bound(time_ms=3),
        Bound(time_ms=7),
    ),
    set(),
    HistoryOrder.OLDEST,
    (True, True),
    8,
    0,
)
def test_log_has_the_messages_between_its_bounds(
    case: tuple[list[Sent], Bound, Bound],
    ignored: set[tuple[int, int]],
    order: HistoryOrder,
    has: tuple[bool, bool],
    limit: int,
    first_id: int,
) -> None:
    """Promise: each message that the reader may see, once, in order; none of another conversation, nor of a bound."""
    sent, after, before = case
    with closing(new_store()) as connection:
        database = cast("Database", MemoryDatabase(connection))
        messages = Messages(database)
        fill(connection, sent, ignored)
        history = ConversationHistory(database, messages)
        lower = after if has[0] or order is HistoryOrder.AROUND else None
        upper = before if has[1] and order is not HistoryOrder.AROUND else None
        ids = range(first_id, sent[-1].id + 1 if sent else 1)
        for reader in ACCOUNTS:
            seen = [
                each
                for each in sent
                if not each.is_deleted
                and each.id >= first_id
                and not (each.recipient == reader and (reader, each.sender) in ignored)
            ]
            views: dict[tuple[int, int | None], list[Sent]] = {
                (LOBBY_ID, None): [each for each in seen if each.room_id == LOBBY_ID],
                (DEV_ID, None): [each for each in seen if each.room_id == DEV_ID and reader != 3],
            }
            for other in ACCOUNTS:
                views[LOBBY_ID, other] = [
                    each for each in seen if each.recipient and {each.sender, each.recipient} == {reader, other}
                ]
            for (room_id, other_id), view in views.items():
                found = history.read(
                    reader, room_id, ids, limit, order=order, after=lower, before=upper, other_id=other_id
                )
                assert [each.id for each in found] == expected(view, order, lower, upper, limit)
            check_active(messages, reader, ids, views, (lower, upper), limit)


def check_active(
    messages: Messages,
    reader: int,
    ids: range,
    views: dict[tuple[int, int | None], list[Sent]],
    bounds: tuple[Bound | None, Bound | None],
    limit: int,
) -> None:
    """Rooms and users are listed by the time of their newest message, which is between the times."""
    after_ms, before_ms = (each.time_ms if each and each.time_ms is not None else 3 for each in bounds)
    newest = sorted(
        (view[-1].time_ms, view[-1].id, {LOBBY_ID: "lobby", DEV_ID: "dev"}[room_id] if other is None else NAMES[other])
        for (room_id, other), view in views.items()
        if view and after_ms < view[-1].time_ms < before_ms
    )
    for newest_first in (False, True):
        found = messages.active(reader, ids, (after_ms, before_ms), limit, newest_first=newest_first)
        part = newest[-limit:] if newest_first else newest[:limit]
        assert [(each.time_ms, each.room or each.with_user) for each in found] == [(each[0], each[2]) for each in part]


def test_times_of_a_block_are_noted_when_the_next_one_begins() -> None:
    """Also if a batch goes from one to the next, and for blocks that were not noted; not for the incomplete one."""
    with closing(new_store()) as connection:
        apply(Transaction(connection, 0, 0), NewAccount("ann", "hash"))
        applying = Transaction(connection, 7, 0)

        def say(count: int, time_ms: int) -> None:
            applying.time_ms = time_ms
            apply(applying, PublicMessages(1, "ann", ["x"] * count, [None] * count))

        say(BLOCK_IDS - 2, 7)
        assert noted(connection) == []
        say(2, 5)
        assert noted(connection) == [(0, 5, 7)]
        say(3 * BLOCK_IDS, 9)
        blocks = [(0, 5, 7), (1, 5, 9), (2, 9, 9), (3, 9, 9)]
        assert noted(connection) == blocks
        connection.execute("DELETE FROM message_times")
        note_times(connection, applying.last_id)
        assert noted(connection) == blocks
        apply(applying, Prune(100, 0, BLOCK_IDS * 2))
        say(BLOCK_IDS, 1)
        assert noted(connection) == [*blocks, (4, 1, 9)]


def noted(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    return connection.execute("SELECT * FROM message_times").fetchall()


@pytest.mark.parametrize("order", HistoryOrder)
def test_time_is_found_without_a_look_at_all_messages(order: HistoryOrder) -> None:
    """The cost is that of a block of messages, however many there are."""
    blocks = 40
    with closing(new_store()) as connection:
        apply(Transaction(connection, 0, 0), NewAccount("ann", "hash"))
        last_id = 0
        for time_ms in range(blocks * 8):
            applying = Transaction(connection, 1_000 + time_ms, last_id)
            count = BLOCK_IDS // 8
            apply(applying, PublicMessages(1, "ann", ["x"] * count, [None] * count))
            last_id = applying.last_id
        counting = CountingDatabase(MemoryDatabase(connection))
        history = ConversationHistory(counting, Messages(counting))
        bound = Bound(time_ms=1_000 + blocks * 4)
        after, before = (None, bound) if order is HistoryOrder.NEWEST else (bound, None)
        found = history.read(1, LOBBY_ID, range(last_id + 1), 10, order=order, after=after, before=before)
        assert len(found) == 10
        per_message = 12
        assert counting.instructions < per_message * 2 * BLOCK_IDS


def test_bounds_that_leave_nothing_are_no_error() -> None:
    with memory_database() as database:
        history = ConversationHistory(database, Messages(database))
        for bound in (Bound(id=ID_MAX), Bound(id=-1), Bound(time_ms=-1), Bound(time_ms=ID_MAX)):
            for order in HistoryOrder:
                assert not history.read(1, LOBBY_ID, range(1), 5, order=order, after=bound, before=None)
