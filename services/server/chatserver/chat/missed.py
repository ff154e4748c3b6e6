"""Missed messages: which ones a login gets, and how they are sent.

A login names the last message that the client has seen, for all conversations or for each. Other logins get the direct
messages that were not delivered to any device of the user. The hub delivers what follows the moment of the join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol.events import Refused
from chatprotocol.limits import HISTORY_MAX_MESSAGES, ROOMS_JOINED_MAX
from chatprotocol.rules import LOBBY, room_key, unknown_room
from chatserver.memory import ShortOfMemoryError
from chatserver.store.errors import DamagedError, StoreError
from chatserver.store.messages import RECEIVED_ID, is_last_page
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol import requests
    from chatprotocol.events import Event, Message
    from chatserver.chat.room import Member
    from chatserver.net.sendqueue import SendQueue
    from chatserver.store.identity import HistoryIdentity
    from chatserver.store.messages import Messages
    from chatserver.store.rooms import RoomView

    Query = Callable[[int, int, int, int], Sequence[Message]]

_log = structlog.get_logger()

# Maximum messages of a page of missed messages. Its text is limited as well: see PAGE_CHARACTERS.
_PAGE_MESSAGES = 500


class Range(NamedTuple):
    """A query for the messages after one id and up to another."""

    query: Query
    after_id: int
    upto_id: int


class LoginAbortedError(Exception):
    """Missed messages can't be read after the welcome was sent. The text is the reason; the cause is the error."""


class MissedMessages:
    """Finds the messages that a client has missed. For any thread."""

    def __init__(self, messages: Messages, identity: HistoryIdentity) -> None:
        self._messages = messages
        self._identity = identity

    def ranges(
        self, account_id: int, login: requests.Login, delivered_id: int, last_id: int, rooms: Sequence[RoomView]
    ) -> tuple[list[Range], int | None, list[Refused]]:
        """Return the ranges to read at a login, and the ``since`` of the welcome: None if the client's is valid.

        ``delivered_id``: the account's delivery mark. ``last_id``: the hub delivers the messages after this one.

        After a backup was restored, the last message that a client saw may be missing. The client then gets the
        messages after the last message that both histories share. If that message is unknown, the client gets the
        undelivered direct messages, which no later login would deliver, and the most recent messages, because the whole
        history may be millions of messages.

        If ``since`` has an id for each room, all of this is about each of them; the errors are for the names of rooms
        that the user is not in.
        """
        messages = self._messages
        since, history_id = login.since, login.history_id
        if since is None:
            return [Range(messages.undelivered, delivered_id, last_id)], None, []
        after_ids, unknown = each_since(since, rooms)
        since = max(after_ids.values(), default=0)

        def missed(after_id: int, most: int) -> Range:
            """The messages of each room after its own id, which is ``most`` at most, and after ``after_id``."""
            capped = {each: min(its_id, most) for each, its_id in after_ids.items()}
            return Range(_Missed(messages, capped, delivered_id), after_id, last_id)

        is_other = history_id is not None and history_id != self._identity.history_id
        if since == 0 or (since <= last_id and not is_other):
            return [missed(0, since)], since if is_other else None, unknown
        shared_id = self._identity.shared_upto(history_id)
        if shared_id is not None:
            after_id = min(since, shared_id)
            return [missed(0, after_id)], after_id, unknown
        recent = messages.history(account_id, last_id + 1, HISTORY_MAX_MESSAGES)
        after_id = next((each.id - 1 for each in recent), last_id)
        waited = Range(messages.undelivered, delivered_id, after_id)
        return [waited, missed(after_id, 0)], after_id, unknown


@dataclass(frozen=True)
class _Missed:
    """A query for the messages of several conversations after one id each.

    Without an id for direct messages, it finds those that were not delivered.
    """

    messages: Messages
    after_ids: dict[int, int]
    delivered_id: int

    def __call__(self, account_id: int, after_id: int, upto_id: int, limit: int) -> Sequence[Message]:
        """A page of the messages after ``after_id``, oldest first."""
        after_ids = {each: max(its_id, after_id) for each, its_id in self.after_ids.items()}
        if DIRECT_ID not in after_ids:
            after_ids[RECEIVED_ID] = max(self.delivered_id, after_id)
        return self.messages.missed(account_id, after_ids, upto_id, limit)


def each_since(since: int | dict[str, int], rooms: Sequence[RoomView]) -> tuple[dict[int, int], list[Refused]]:
    """Return the ids by conversation, and the errors for rooms that the user is not in, ROOMS_JOINED_MAX at most.

    A client has no more rooms than that. The rooms of the welcome tell of the others.
    """
    if isinstance(since, int):
        return {LOBBY_ID: since, DIRECT_ID: since}, []
    known = {LOBBY: LOBBY_ID, "direct": DIRECT_ID, **{room_key(room.name): room.room_id for room in rooms}}
    after_ids: dict[int, int] = {}
    unknown: list[Refused] = []
    for name, after_id in since.items():
        conversation_id = known.get(room_key(name))
        if conversation_id is None:
            if len(unknown) < ROOMS_JOINED_MAX:
                error = unknown_room(name)
                unknown.append(Refused(error.code, error.reason, room=error.room))
        else:
            after_ids[conversation_id] = min(after_id, after_ids.get(conversation_id, after_id))
    return after_ids, unknown


def login_aborted(error: Exception) -> LoginAbortedError:
    """The reason why the rest of the missed messages can't be sent."""
    is_short = isinstance(error, ShortOfMemoryError)
    return LoginAbortedError("the server is short of memory" if is_short else "the server can't read its disk")


def send_pages(
    send_queue: SendQueue, first: Sequence[Event], member: Member, ranges: Sequence[Range]
) -> tuple[Sequence[Event] | None, bool]:
    """Put the first events and the missed messages, a page at a time, no faster than the peer reads.

    Returns the last page, which the caller must send, or None if the connection ends; and whether it is complete.
    Pages after a damaged one are skipped, and the user is logged in, because another login would not help.
    """
    held = first
    for query, from_id, upto_id in ranges:
        after_id = from_id
        while after_id < upto_id:
            try:
                found = query(member.account_id, after_id, upto_id, _PAGE_MESSAGES)
            except DamagedError as error:
                _log.error("missed messages damaged", user=member.name, error=str(error))
                return held, False
            except (StoreError, ShortOfMemoryError) as error:
                if held is first:  # nothing was sent yet: the login is rejected
                    raise
                raise login_aborted(error) from error
            if not found:
                break
            is_last = is_last_page(found, _PAGE_MESSAGES)
            for page in (held,) if is_last else (held, found):
                send_queue.put(page)
                if not send_queue.wait_for_room():
                    return None, True
            held = found if is_last else ()
            if is_last:
                break
            after_id = found[-1].id
    return held, True
