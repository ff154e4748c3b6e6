"""The messages that a user may see: history, missed messages, conversations; and those for the search index.

Each query for a user has the access control in it. Other access to the table: message_table.py.
"""

# ruff: noqa: S608 -- the queries are built of constants

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import partial
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chatprotocol.events import ActiveTarget, Conversation, DirectMessage, Message, PublicMessage, TimeMs
from chatprotocol.limits import ID_MAX
from chatserver.memory import no_limit
from chatserver.store.errors import RemovedError
from chatserver.store.message_table import ACTIVE, IN_ANY, LAST_ID, LOWEST_ID, ROOM_NAME, find_range, read_last_id
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from chatserver.store.sqlite import Readable

_IN_ROOM: Final = "key BETWEEN :low - (:room << 40) AND :high - (:room << 40)"
_IN_DIRECT: Final = "key BETWEEN :low - (1 << 40) AND :high - (1 << 40) AND recipient_id IS NOT NULL"
# Only members see a room; all users are in the lobby.
_IS_MEMBER: Final = (
    "(:room = 0 OR EXISTS (SELECT 1 FROM membership"
    " WHERE account_id = :reader AND conversation_id = :room AND role <> 'invited'))"
)
# The columns of a message with names, as ``_message`` takes it. The first one is the id, the last one the text.
# A guest's name has a space behind it: another look at the sender would make a history slower by a fifth.
_NAMED: Final = (
    "id, time_ms, (SELECT iif(kind = 'guest', name || ' ', name) FROM account WHERE account.id = sender_id),"
    f" (SELECT name FROM account WHERE account.id = recipient_id), {ROOM_NAME}, is_notice, text"
)
# Conditions of the queries below. A deleted message has an empty text. Direct messages of ignored users are left out.
_PRESENT: Final = " AND text <> ''"
_HEARD: Final = " AND NOT EXISTS (SELECT 1 FROM ignored WHERE account_id = :reader AND ignored_id = sender_id)"
_SHOWN: Final = {"columns": _NAMED, "present": _PRESENT, "heard": _HEARD}
# The rest of an answer that has begun: the client knows its number of messages, so a deleted one is not left out.
_REST: Final = {
    "columns": f"{_NAMED.removesuffix('text')}iif(text = '', '(deleted)', text)",
    "present": "",
    "heard": "",
}
# The messages of a room, and the sent and received direct messages of an account. Each is in the order of an index:
# SQLite reads a row when it is asked for, without a temporary table, of which malloc would keep 4 KiB for each thread.
_OF_ROOM: Final = f"SELECT {{columns}} FROM message WHERE {_IN_ROOM} AND {_IS_MEMBER}{{present}} ORDER BY key"
_SENT: Final = f"SELECT {{columns}} FROM message WHERE sender_id = :reader AND {_IN_DIRECT}{{present}} ORDER BY key"
_RECEIVED, _RECEIVED_FROM_OTHERS = (
    f"SELECT {{columns}} FROM message WHERE recipient_id = :reader AND {_IN_DIRECT}{condition}{{present}}{{heard}}"
    " ORDER BY key"
    for condition in ("", " AND sender_id <> :reader")
)
# In place of DIRECT_ID: only the direct messages that the account received, which are those that may be undelivered.
RECEIVED_ID: Final = -1
# The direct messages between the account and another one, or to itself.
_SENT_TO: Final = (
    "SELECT {columns} FROM message WHERE sender_id = :reader AND recipient_id = :other"
    f" AND {_IN_DIRECT}{{present}} ORDER BY key"
)
_RECEIVED_FROM: Final = (
    "SELECT {columns} FROM message WHERE recipient_id = :reader AND sender_id = :other AND :other <> :reader"
    f" AND {_IN_DIRECT}{{present}}{{heard}} ORDER BY key"
)
_QUERIES: Final = {DIRECT_ID: (_SENT, _RECEIVED_FROM_OTHERS), RECEIVED_ID: (_RECEIVED,)}
# This query decides which messages an account may see; the search index is not trusted for that. With the lobby it
# finds direct messages as well.
_VISIBLE: Final = (
    "SELECT {columns} FROM message WHERE key IN ("
    "SELECT value - (:room << 40) FROM json_each(:ids)"
    " UNION ALL SELECT value - (1 << 40) FROM json_each(:ids) WHERE :room = 0)"
    f" AND iif(recipient_id IS NULL, {_IS_MEMBER}, sender_id = :reader OR (recipient_id = :reader{{heard}}))"
    " AND (:other IS NULL OR (recipient_id IS NOT NULL AND iif(sender_id = :reader, recipient_id, sender_id) = :other))"
    "{present} ORDER BY id"
)
# Steps from one of the other accounts to the next, with a look into an index each: the number of messages is no cost.
_OTHERS: Final = (
    "{name} (id) AS (SELECT min({other}) FROM message WHERE {own} = :reader AND recipient_id IS NOT NULL"
    " UNION ALL SELECT (SELECT min({other}) FROM message WHERE {own} = :reader AND {other} > {name}.id)"
    " FROM {name} WHERE id IS NOT NULL)"
)
_WITH_OTHERS: Final = (
    "WITH RECURSIVE "
    f"{_OTHERS.format(name='receiver', own='sender_id', other='recipient_id')}, "
    f"{_OTHERS.format(name='sender', own='recipient_id', other='sender_id')}"
)
# The id of the newest direct message from :low to :high with each of the other accounts.
_NEWEST_OF_OTHERS: Final = (
    "SELECT other_id, max(last_id) AS newest_id FROM ("
    "SELECT id AS other_id, (SELECT message.id FROM message WHERE sender_id = :reader AND recipient_id = receiver.id"
    f" AND {_IN_DIRECT}{_PRESENT} ORDER BY key DESC LIMIT 1) AS last_id FROM receiver WHERE id IS NOT NULL"
    " UNION ALL SELECT id, (SELECT message.id FROM message WHERE recipient_id = :reader AND sender_id = sender.id"
    f" AND {_IN_DIRECT}{_PRESENT} ORDER BY key DESC LIMIT 1) FROM sender WHERE id IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM ignored WHERE account_id = :reader AND ignored_id = sender.id))"
    " GROUP BY other_id HAVING newest_id IS NOT NULL"
)
_CONVERSATIONS: Final = (
    f"{_WITH_OTHERS} SELECT (SELECT name FROM account WHERE account.id = other_id), newest_id"
    f" FROM ({_NEWEST_OF_OTHERS} ORDER BY newest_id DESC LIMIT :limit)"
)
# The same of those whose newest message is between two times, with its time; and of the rooms of the account. The
# second column is 1 for a room.
_ACTIVE_USERS: Final = (
    f"{_WITH_OTHERS} SELECT (SELECT name FROM account WHERE account.id = other_id), 0, time_ms, newest_id"
    f" FROM ({_NEWEST_OF_OTHERS}) CROSS JOIN message ON key = newest_id - (1 << 40)"
    " WHERE time_ms > :after_ms AND time_ms < :before_ms ORDER BY time_ms {order}, newest_id {order} LIMIT :limit"
)
_ACTIVE_ROOMS: Final = (
    "SELECT conversation.name, 1, time_ms, message.id FROM (SELECT 0 AS room_id UNION ALL"
    " SELECT conversation_id FROM membership WHERE account_id = :reader AND role <> 'invited')"
    " CROSS JOIN conversation ON conversation.id = room_id"
    " CROSS JOIN message ON key = (SELECT key FROM message"
    f" WHERE {_IN_ROOM.replace(':room', 'room_id')}{_PRESENT} ORDER BY key DESC LIMIT 1)"
    " WHERE time_ms > :after_ms AND time_ms < :before_ms"
)
_INDEXED: Final = (
    "SELECT message.id, conversation.id, sender_id, recipient_id, text"
    f" FROM {ACTIVE} CROSS JOIN message ON {IN_ANY} AND text <> '' ORDER BY message.id"
)
_FINGERPRINT: Final = f"SELECT time_ms, sender_id, recipient_id, text FROM {ACTIVE} CROSS JOIN message ON {IN_ANY}"


# Text of a page. A page ends after the message that reaches it: it is in memory while the peer reads.
PAGE_CHARACTERS: Final = 32 * 1024
# Memory of a message in an answer, which is encoded in pieces as the peer reads: a fixed part, a byte for a character,
# and seven more in a text that is not ASCII: four in the text, and four in the UTF-8 that the encoder keeps beside it.
_MESSAGE_BYTES = 256
_WIDE_CHARACTER_BYTES = 7


class IndexedMessage(NamedTuple):
    """A message for the search index. ``recipient_id`` is None in a room."""

    id: int
    conversation_id: int
    sender_id: int
    recipient_id: int | None
    text: str


class Pages(Collection[Message]):
    """Messages whose number is known, and that are read a page at a time while they are taken, once.

    Pages claim no memory: an answer that has begun must be completed, and a page is small.
    The first page is read by the constructor, whose errors are those of ``read``.
    """

    def __init__(self, count: int, read: Callable[[int], Sequence[Message]]) -> None:
        """``read`` returns the page after an id, oldest first; its errors leave the iteration."""
        self._count = count
        self._read = read
        self._first = read(0)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, _: object) -> bool:
        raise NotImplementedError("The messages are not in memory.")

    def __iter__(self) -> Iterator[Message]:
        """RemovedError: some are gone meanwhile, so the number is wrong."""
        page, self._first = self._first, ()
        count = 0
        while page:
            yield from page
            count += len(page)
            page = self._read(page[-1].id) if count < self._count else ()
        if count != self._count:
            raise RemovedError


class Messages:
    """Queries, for any thread. A query with ``reader_id`` returns only messages that this account may see.

    Every method raises StoreError or DamagedError if the database can't be read.
    """

    def __init__(self, database: Readable, claim: Callable[[int], None] = no_limit) -> None:
        """``claim`` gets the bytes that a result takes; its errors leave the query."""
        self._database = database
        self._claim = claim

    def last_id(self) -> int:
        """The id of the newest message; 0 if there are no messages."""
        with self._database.reading() as connection:
            return read_last_id(connection)

    def first_id(self) -> int | None:
        """The id of the oldest message; None if there are no messages."""
        with self._database.reading() as connection:
            found = find_range(connection, 0, 1)
        return None if found is None else found.first_id

    def history(
        self,
        reader_id: int,
        before_id: int,
        limit: int,
        room_id: int | None = None,
        *,
        after_id: int | None = None,
        other_id: int | None = None,
        first_id: int = 0,
    ) -> Collection[Message]:
        """The newest messages with an id below ``before_id``, or the oldest after ``after_id``; oldest first.

        They are those of the room if the account is a member, or of the lobby and the account's direct messages; or
        only the direct messages between the account and ``other_id``. None is older than ``first_id``. If they are more
        than one page, only their ids are read at first: see Pages.
        """
        conversation_ids = (LOBBY_ID, DIRECT_ID) if room_id is None else (room_id,)
        if other_id is not None:
            conversation_ids = (DIRECT_ID,)
        first_ids = dict.fromkeys(conversation_ids, max(first_id, 0 if after_id is None else after_id + 1))
        merge_rows = partial(self._merge, reader_id, limit=limit, other_id=other_id)
        order = "DESC" if after_id is None else "ASC"
        rows, is_cut = merge_rows(first_ids, before_id - 1, order=order)
        if not is_cut:
            return self._decode(rows[::-1] if after_id is None else rows)
        rows, _ = merge_rows(first_ids, before_id - 1, parts={**_SHOWN, "columns": "id"}, order=order)
        ids = {message_id for (message_id,) in rows}

        def read(read_id: int) -> Sequence[Message]:
            rest_ids = dict.fromkeys(first_ids, max(min(ids), read_id + 1))
            return _decode(merge_rows(rest_ids, max(ids), parts=_REST, ids=ids, claim=no_limit).rows)

        return Pages(len(ids), read)

    def find_ids(
        self,
        reader_id: int,
        room_id: int,
        ids: range,
        limit: int,
        *,
        other_id: int | None = None,
        between_ms: tuple[int, int] | None = None,
        newest_first: bool = False,
    ) -> list[int]:
        """The ids of messages of a room, or of the direct messages with ``other_id``: the oldest or newest ``limit``.

        ``between_ms``: only messages between the two times, both of which are excluded.
        """
        conversation_id = room_id if other_id is None else DIRECT_ID
        parts = {**_SHOWN, "columns": "id", "present": _PRESENT}
        if between_ms is not None:
            parts["present"] += " AND time_ms > :after_ms AND time_ms < :before_ms"
        rows, _ = self._merge(
            reader_id,
            {conversation_id: ids.start},
            ids.stop - 1,
            limit,
            parts,
            order="DESC" if newest_first else "ASC",
            other_id=other_id,
            between_ms=between_ms or (0, 0),
        )
        return [message_id for (message_id,) in rows]

    def conversations(self, reader_id: int, newest_id: int, limit: int, *, first_id: int = 0) -> Sequence[Conversation]:
        """The accounts with which this one has direct messages up to ``newest_id``: the newest ``limit``, newest first.

        Deleted messages do not count, nor those from ignored users, nor those before ``first_id``.
        """
        values = {"reader": reader_id, "low": first_id, "high": min(newest_id, LAST_ID), "limit": limit}
        with self._database.reading() as connection:
            self._claim(_MESSAGE_BYTES * limit)
            return [Conversation(*row) for row in connection.execute(_CONVERSATIONS, values)]

    def active(
        self, reader_id: int, ids: range, between_ms: tuple[int, int], limit: int, *, newest_first: bool
    ) -> list[ActiveTarget]:
        """The rooms of the account, the lobby, and the accounts with which it has direct messages, by their activity.

        Those are meant whose newest message is between the two times, both of which are excluded: the oldest or newest
        ``limit``, the oldest first. ``ids`` are all that the reader may see; else, messages count as in
        :meth:`conversations`.
        """
        values = {"reader": reader_id, "low": ids.start, "high": min(ids.stop - 1, LAST_ID), "limit": limit}
        values["after_ms"], values["before_ms"] = (min(max(each, -ID_MAX), ID_MAX) for each in between_ms)
        users = _ACTIVE_USERS.format(order="DESC" if newest_first else "ASC")
        with self._database.reading() as connection:
            self._claim(_MESSAGE_BYTES * limit)
            found = connection.execute(_ACTIVE_ROOMS, values).fetchall() + connection.execute(users, values).fetchall()
        found.sort(key=itemgetter(2, 3))
        found = found[-limit:] if newest_first else found[:limit]
        return [
            ActiveTarget(name if is_room else None, None if is_room else name, time_ms)
            for name, is_room, time_ms, _ in found
        ]

    def missed(self, reader_id: int, after_ids: Mapping[int, int], upto_id: int, limit: int) -> Sequence[Message]:
        """A page of the messages of several conversations, each after an id of its own, up to ``upto_id``.

        The oldest come first, and the account's own are included. ``after_ids`` has the ids of rooms, and perhaps
        LOBBY_ID, and DIRECT_ID or RECEIVED_ID. A room that the account is no member of has no messages. For the next
        page, raise each id to that of the last message.
        """
        first_ids = {conversation_id: after_id + 1 for conversation_id, after_id in after_ids.items()}
        return self._decode(self._merge(reader_id, first_ids, upto_id, limit)[0])

    def undelivered(self, reader_id: int, after_id: int, upto_id: int, limit: int) -> Sequence[Message]:
        """A page of the direct messages to this account after ``after_id`` up to ``upto_id``, oldest first."""
        return self.missed(reader_id, {RECEIVED_ID: after_id}, upto_id, limit)

    def visible(
        self, reader_id: int, ids: Sequence[int], room_id: int = LOBBY_ID, other_id: int | None = None
    ) -> Collection[Message]:
        """The messages of these ids that are in the room, oldest first; with the lobby also direct messages.

        ``other_id``: only direct messages between the two accounts. Messages that the account may not see are left out.
        If there is more than one page, see Pages.
        """

        def query(parts: Mapping[str, str], ids: Iterable[int]) -> _Page:
            wanted = list(ids)
            with self._database.reading() as connection:
                values = {"reader": reader_id, "ids": str(wanted), "room": room_id, "other": other_id}
                with closing(connection.execute(_VISIBLE.format_map(parts), values)) as rows:
                    return _page(rows, len(wanted))

        self._claim(0)
        rows, is_cut = query(_SHOWN, ids)
        if not is_cut:
            return self._decode(rows)
        shown = [message_id for (message_id,) in query({**_SHOWN, "columns": "id"}, ids).rows]

        def read(after_id: int) -> Sequence[Message]:
            return _decode(query(_REST, (each for each in shown if each > after_id)).rows)

        return Pages(len(shown), read)

    def after(self, after_id: int, limit: int) -> list[IndexedMessage]:
        """The oldest messages after ``after_id``, without access control or deleted ones. For the search index only.

        Each step reads the messages of a range of ids, of each conversation. Ids are dense but for lost messages.
        """
        found: list[IndexedMessage] = []
        with self._database.reading() as connection:
            while len(found) < limit:
                values = {"low": after_id + 1, "high": LAST_ID}
                (low,) = connection.execute(LOWEST_ID, values).fetchone()
                if low is None:
                    break
                after_id = low + limit - len(found) - 1
                values = {"low": low, "high": after_id}
                found += [IndexedMessage(*row) for row in connection.execute(_INDEXED, values)]
        return found

    def deletions(self, after_number: int, limit: int) -> list[tuple[int, int]]:
        """Number and message id of the oldest deletions after a number. For the search index only."""
        query = "SELECT number, id FROM deletion WHERE number > ? ORDER BY number LIMIT ?"
        with self._database.reading() as connection:
            return connection.execute(query, (after_number, limit)).fetchall()

    def fingerprint(self, message_id: int) -> str | None:
        """A fingerprint of the message, to detect another database with the same ids; None if it does not exist."""
        with self._database.reading() as connection:
            row = connection.execute(_FINGERPRINT, {"low": message_id, "high": message_id}).fetchone()
        if row is None:
            return None
        time_ms, sender_id, recipient_id, text = row
        return f"{time_ms} {sender_id} {recipient_id or 0} {zlib.crc32(text.encode())}"

    def _merge(
        self,
        reader_id: int,
        first_ids: Mapping[int, int],
        last_id: int,
        limit: int,
        parts: Mapping[str, str] = _SHOWN,
        *,
        ids: Container[int] | None = None,
        order: str = "ASC",
        other_id: int | None = None,
        between_ms: tuple[int, int] = (0, 0),
        claim: Callable[[int], None] | None = None,
    ) -> _Page:
        """A page of the oldest or newest rows of several conversations, each from an id of its own to ``last_id``.

        ``parts`` are those of the queries; with ``ids``, all other rows are left out. ``other_id``: of the direct
        messages, only those between the two accounts.
        """
        cursors: list[sqlite3.Cursor] = []
        with self._database.reading() as connection:
            (claim or self._claim)(0)
            try:
                for conversation_id, first_id in first_ids.items():
                    # Clients may send any number; a key has room for 40 bits.
                    low, high = min(first_id, LAST_ID), min(last_id, LAST_ID)
                    values = {"reader": reader_id, "room": conversation_id, "low": low, "high": high}
                    values["after_ms"], values["before_ms"] = between_ms
                    queries = _QUERIES.get(conversation_id, (_OF_ROOM,))
                    if other_id is not None:
                        values["other"] = other_id
                        queries = (_SENT_TO, _RECEIVED_FROM)
                    cursors += [connection.execute(f"{sql.format_map(parts)} {order}", values) for sql in queries]
                rows: Iterable[tuple[Any, ...]] = merge(*cursors, key=itemgetter(0), reverse=order == "DESC")
                return _page(rows if ids is None else (row for row in rows if row[0] in ids), limit)
            finally:
                for cursor in cursors:
                    cursor.close()

    def _decode(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Message, ...]:
        texts: list[str] = [row[-1] for row in rows]
        characters_bytes = sum(map(len, texts))
        if not all(map(str.isascii, texts)):
            characters_bytes += _WIDE_CHARACTER_BYTES * sum(len(text) for text in texts if not text.isascii())
        self._claim(_MESSAGE_BYTES * len(rows) + characters_bytes)
        return _decode(rows)


def _decode(rows: Iterable[tuple[Any, ...]]) -> tuple[Message, ...]:
    return tuple(_message(*row) for row in rows)


def _message(
    message_id: int,
    time_ms: int,
    sender: str,
    recipient: str | None,
    room: str | None,
    is_notice: int,
    text: str,
) -> Message:
    flags: tuple[bool, ...] = ()
    if is_notice or sender[-1] == " ":
        flags = (sender[-1] == " ", is_notice > 0)
        sender = sender.rstrip()
    if recipient is None:
        return PublicMessage(message_id, TimeMs(time_ms), sender, text, room, *flags)
    return DirectMessage(message_id, TimeMs(time_ms), sender, recipient, text, *flags)


class _Page(NamedTuple):
    """Rows of a query; ``is_cut`` is true if there may be more because they have PAGE_CHARACTERS."""

    rows: Sequence[tuple[Any, ...]]
    is_cut: bool


def _page(rows: Iterable[tuple[Any, ...]], limit: int) -> _Page:
    """The first ``limit`` rows, or as many as have PAGE_CHARACTERS. Rows of ids have no text, and no such limit."""
    page = []
    characters = 0
    for row in islice(rows, limit):
        page.append(row)
        if len(row) > 1:
            characters += len(row[-1])
            if characters >= PAGE_CHARACTERS:
                break
    return _Page(page, characters >= PAGE_CHARACTERS and len(page) < limit)


def is_last_page(page: Sequence[Message], limit: int) -> bool:
    """True if there are no more messages after this page of a query with this limit."""
    return len(page) < limit and sum(len(each.text) for each in page) < PAGE_CHARACTERS
