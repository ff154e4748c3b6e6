"""The messages of one conversation between two points of the history, each of which is an id or a time.

Theory of operation
-------------------

The order of messages is that of their ids, and mostly times grow with it. Not always: the system clock may be set back,
a server may start with another clock than the one before, and each of several servers that share a log has a clock of
its own. So a message may be older than one with a lower id, by milliseconds or by years. A binary search for a time
could then miss any number of messages.

Therefore the table message_times has the lowest and the highest time of each *block* of 4,096 ids. The messages
between two times are in the blocks whose times overlap with theirs, or in the ids after the last block, which are not
a complete block yet. A query reads these ranges of ids, and compares the time of each message. If times grow, it looks
at one block too many at most at each end. If not, it looks at more, and finds the same messages.

Five million messages have 1,221 blocks, in six pages of the database. The entry whose message begins the next block
adds the row of the last one, and nothing is written for other messages. Messages that are removed leave the row as it
is: its times may be wider than those of the rest, which costs a look at more messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import merge
from typing import TYPE_CHECKING, Final

from chatprotocol.events import RoomEvent
from chatprotocol.limits import ID_MAX
from chatprotocol.requests import Bound, HistoryOrder
from chatserver.memory import no_limit
from chatserver.store.message_table import IdRange, find_range, read_times
from chatserver.store.room_events import Between, Place, read_events

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from chatprotocol.events import ChatHistoryItem, Message
    from chatserver.store.messages import Messages
    from chatserver.store.sqlite import Readable

# Ids of a block. A query compares the times of as many messages in vain, which takes half a millisecond.
BLOCK_IDS: Final = 4096
_BLOCKS: Final = (
    "SELECT block FROM message_times WHERE last_ms > :after_ms AND first_ms < :before_ms"
    " AND block BETWEEN :first AND :last ORDER BY block"
)
# Memory of an event, with the longest reason or topic.
_EVENT_BYTES: Final = 1024
_NEXT_BLOCK: Final = "SELECT coalesce(max(block) + 1, 0) FROM message_times"


class ConversationHistory:
    """Reads what a user may see of one conversation. For any thread. Raises StoreError, as Messages does."""

    def __init__(self, database: Readable, messages: Messages, claim: Callable[[int], None] = no_limit) -> None:
        """``claim`` gets the bytes that events take, before they are read. It may raise."""
        self._database = database
        self._messages = messages
        self._claim = claim

    def read(
        self,
        reader_id: int,
        room_id: int,
        ids: range,
        limit: int,
        *,
        order: HistoryOrder,
        after: Bound | None = None,
        before: Bound | None = None,
        other_id: int | None = None,
        has_events: bool = False,
    ) -> Collection[ChatHistoryItem]:
        """Messages of a room, or of the direct messages with ``other_id``, oldest first: see requests.AskChatHistory.

        ``ids`` are all that the reader may see; ``has_events``: with the events of the room after these. AROUND takes
        half of the messages and events from before the bound, and more if there are too few after it. An answer of more
        than one page is read in pages: see messages.Pages.
        """
        events: dict[Place, RoomEvent] = {}

        def find(after: Bound | None, before: Bound | None, *, newest_first: bool) -> list[Place]:
            """The places of at most ``limit`` messages and events between the bounds, in the order of the search."""
            found = [Place(each) for each in find_messages(after, before, newest_first=newest_first)]
            if not has_events:
                return found
            between = _between(after, before)
            with self._database.reading() as connection:
                for each in read_events(connection, reader_id, room_id, ids, between, limit, newest_first=newest_first):
                    place = _place_of(each)
                    events[place] = each
                    found.append(place)
            return sorted(found, reverse=newest_first)[:limit]

        def find_messages(after: Bound | None, before: Bound | None, *, newest_first: bool) -> list[int]:
            """The ids of at most ``limit`` messages between the bounds."""
            inner, between_ms = _bounds(ids, after, before)
            found: list[int] = []
            for part in self._ranges(inner, between_ms, newest_first=newest_first):
                found += self._messages.find_ids(
                    *(reader_id, room_id, part, limit - len(found)),
                    other_id=other_id,
                    between_ms=between_ms,
                    newest_first=newest_first,
                )
                if len(found) >= limit:
                    break
            return found

        if has_events:
            self._claim(_EVENT_BYTES * limit)
        if order is HistoryOrder.AROUND:
            assert after is not None
            older = find(None, after, newest_first=True)
            newer = find(_just_before(after), None, newest_first=False)
            count = max(limit // 2, limit - len(newer))
            found = older[:count]
            found += newer[: limit - len(found)]
        else:
            found = find(after, before, newest_first=order is HistoryOrder.NEWEST)
        messages = self._messages.visible(reader_id, [each.id for each in found if not each.number], room_id, other_id)
        shown = [events[each] for each in sorted(found) if each.number]
        return _Merged(messages, shown) if shown else messages

    def _ranges(self, ids: range, between_ms: tuple[int, int] | None, *, newest_first: bool) -> Iterator[range]:
        """The ranges of ids that may have messages between the times, in the order in which they are read."""
        if between_ms is None or not ids:
            return iter([ids])
        with self._database.reading() as connection:
            found = find_ranges(connection, ids, between_ms)
        return reversed(found) if newest_first else iter(found)


class _Merged(Collection["ChatHistoryItem"]):
    """The messages and the events of an answer, which both are in order."""

    def __init__(self, messages: Collection[Message], events: Collection[RoomEvent]) -> None:
        self._messages, self._events = messages, events

    def __len__(self) -> int:
        return len(self._messages) + len(self._events)

    def __contains__(self, _: object) -> bool:
        raise NotImplementedError("The messages are not in memory.")

    def __iter__(self) -> Iterator[ChatHistoryItem]:
        return merge(self._messages, self._events, key=_place_of)


def _place_of(item: ChatHistoryItem) -> Place:
    return Place(item.after_id, item.number) if isinstance(item, RoomEvent) else Place(item.id)


def _bounds(ids: range, after: Bound | None, before: Bound | None) -> tuple[range, tuple[int, int] | None]:
    """The ids between the bounds, and the times, both of which are excluded; None if no bound is a time."""
    between = _between(after, before)
    start = max(ids.start, between.after.id + 1)
    stop = min(ids.stop, between.before.id + (between.before.number > 0))
    times_ms = (between.after_ms, between.before_ms)
    return range(start, stop), times_ms if times_ms != (-ID_MAX, ID_MAX) else None


def _between(after: Bound | None, before: Bound | None) -> Between:
    """The bounds of a query. SQLite has no numbers above ID_MAX, and clients may send any."""
    after, before = after or Bound(), before or Bound()
    return Between(
        Place(-1 if after.id is None else _capped(after.id), _capped(after.number)),
        Place(ID_MAX if before.id is None else _capped(before.id), _capped(before.number)),
        -ID_MAX if after.time_ms is None else _capped(after.time_ms),
        ID_MAX if before.time_ms is None else _capped(before.time_ms),
    )


def _capped(number: int) -> int:
    return max(min(number, ID_MAX), -ID_MAX)


def _just_before(bound: Bound) -> Bound:
    """The bound after which the message, event or time itself comes."""
    if bound.time_ms is not None:
        return Bound(time_ms=bound.time_ms - 1)
    assert bound.id is not None
    return Bound(bound.id, number=bound.number - 1) if bound.number else Bound(bound.id - 1, number=ID_MAX)


def find_ranges(connection: sqlite3.Connection, ids: range, between_ms: tuple[int, int]) -> list[range]:
    """The parts of the ids that may have messages between the two times, both of which are excluded, in order."""
    after_ms, before_ms = between_ms
    first, last = ids.start // BLOCK_IDS, (ids.stop - 1) // BLOCK_IDS
    values = {"after_ms": after_ms, "before_ms": before_ms, "first": first, "last": last}
    blocks = [block for (block,) in connection.execute(_BLOCKS, values)]
    (next_block,) = connection.execute(_NEXT_BLOCK).fetchone()
    # The first id and the one after the last of each range; the ids after the last complete block have no row.
    bounds: list[tuple[int, int]] = []
    for start, stop in [*((block, block + 1) for block in blocks), (next_block, last + 1)]:
        if bounds and bounds[-1][1] == start:
            bounds[-1] = (bounds[-1][0], stop)
        else:
            bounds.append((start, stop))
    parts = (range(max(ids.start, start * BLOCK_IDS), min(ids.stop, stop * BLOCK_IDS)) for start, stop in bounds)
    return [part for part in parts if part]


def note_times(connection: sqlite3.Connection, last_id: int) -> None:
    """Store the times of all blocks before that of the newest message. Call it when this one begins a block."""
    (block,) = connection.execute(_NEXT_BLOCK).fetchone()
    # Blocks without messages are skipped: after a message was lost, the ids go on with a higher one.
    while (oldest := find_range(connection, block * BLOCK_IDS - 1, 1)) is not None:
        block = oldest.first_id // BLOCK_IDS
        if block >= last_id // BLOCK_IDS:
            break
        times_ms = read_times(connection, IdRange(block * BLOCK_IDS, (block + 1) * BLOCK_IDS - 1))
        connection.execute("INSERT INTO message_times VALUES (?, ?, ?)", (block, *times_ms))
        block += 1
