"""The hub: delivers what was committed to the members, encoded once for each room and variant in use.

The lobby has all members. The hub also knows the other rooms (``room.py``) of each user who is online. It reads them at
the user's first login, and then changes them with each entry of the journal, in order. So a member gets exactly the
messages between the begin and the end of its membership, and the events about both in the same order.

Acts of moderation are told to those whom they concern, and end connections. The connections end after the rest of the
portion, with the reason as the last event.

At the first login of a user, the store may have entries that the hub has not seen, and the hub may see more entries
after the rooms were read. Therefore the caller calls :meth:`Hub.begin_join`, reads the rooms, and calls
:meth:`Hub.join`. If an entry changed the rooms between the calls, or the hub knows other rooms than those that were
read, the join fails. The caller then waits until the hub has seen all committed entries, and reads again. A ban and a
change of the user's role on the server count as such changes: see Login.

Connections that track members are told of each change of their rooms: see ``tracking.py``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from operator import ne
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import structlog
from msgspec.structs import replace

from chatprotocol import events
from chatprotocol.address import is_in_network
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    Bye,
    PublicBatch,
    Refused,
    RoomRole,
    SanctionKind,
    Sent,
    SentBatch,
    SentStatus,
    TimeMs,
)
from chatprotocol.rules import LOBBY, room_key
from chatserver.chat.delivery import Ack
from chatserver.chat.problems import problem_error, sanction_error, sanction_text, write_error
from chatserver.chat.room import Member, Room, User
from chatserver.chat.tracking import Tracking
from chatserver.clock import wall_ms
from chatserver.counters import Counters
from chatserver.journal import entries
from chatserver.journal.entries import (
    DeletedMessage,
    DirectMessage,
    GuestRenamed,
    GuestsGone,
    Marked,
    MessageBatch,
    Moderated,
    Problem,
    PublicMessages,
    Removed,
    Revoked,
    RoomChange,
)
from chatserver.store.accounts import Role
from chatserver.store.errors import StoreError
from chatserver.store.messages import IndexedMessage
from chatserver.store.moderation import ActiveSanction
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import Event, Users
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.presence import Presence
    from chatserver.chat.tracking import Listing
    from chatserver.journal.base import Applied
    from chatserver.journal.entries import Stored
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.store.rooms import RoomView

    # None: another server's.
    _Origin = Member | Ack | None

_log = structlog.get_logger()

# Size of the portions in which a commit is flushed. On a slow disk a commit may hold megabytes. Flushed at once, they
# could exceed the lag limit of a receiver that reads fast enough.
_PORTION_CHARACTERS = 64 * 1024
# Per-message overhead on the wire.
_MESSAGE_CHARACTERS = 100

_REPLACED = events.Bye("replaced by a newer connection", ErrorCode.REPLACED)
_REVOKED = events.Bye("the session was revoked", ErrorCode.REVOKED)

# Outcomes of entries that changed nothing that the hub tells: the session answers them.
_UNCHANGED = (OSError, Problem, ActiveSanction, NoneType)

# The id of the room in which nothing is said. No room has it.
_QUIET_ID = -1

# Maximum members of the account that each login checks, newest first: each check takes a few system calls.
_CHECKED_MAX = 4


class JoinState(NamedTuple):
    """The state of the hub when a member joined."""

    # The member receives messages after this one, of the lobby and of its rooms.
    last_id: int
    # The account's mark; 0 if it has not moved since the server started. See DeliveryMarks.
    delivered_id: int
    # Names of all users who are online.
    users: tuple[str, ...] = ()
    # True if the account has no other member, here or on another server.
    is_alone: bool = True
    # For a member that tracks members: the users that were listed in each of its rooms.
    listings: Mapping[int, Listing] = {}


class LobbyEntered(NamedTuple):
    """The lobby when a member entered it."""

    # The member receives messages after this one.
    last_id: int
    listing: Listing
    # True if the member was in it before.
    was_in: bool


class Hub:
    """The members and the broadcast buffers that they follow. For any thread.

    ``buffers`` has the lobby's buffer for each protocol by its name. ``open_buffer`` and ``close_buffer`` are for other
    rooms, and for other variants: see Room. ``wake`` wakes the sender, after each publication.
    """

    def __init__(
        self,
        buffers: Mapping[str, BroadcastBuffer],
        open_buffer: Callable[[str], BroadcastBuffer],
        close_buffer: Callable[[BroadcastBuffer], None],
        acked_delivery: AckedDelivery,
        presence: Presence,
        last_id: int,
        marks: DeliveryMarks,
        wake: Callable[[], None],
        user_connections: int = 0,
        counters: Counters | None = None,
        read_roles: Callable[[int], Mapping[str, RoomRole]] = lambda _: {},
        read_guests: Callable[[Sequence[str]], Collection[str]] = lambda _: (),
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``user_connections``: maximum number of connections of a user; 0: no limit.

        ``read_roles`` reads the members of a room whose role is more than that of a member, and ``read_guests`` returns
        those of the names that guests have.
        """
        self._user_connections = user_connections
        self._counters = counters or Counters()
        self._open_buffer = open_buffer
        self._close_buffer = close_buffer
        self._acked_delivery = acked_delivery
        self._presence = presence
        self._marks = marks
        self._wake = wake
        self._on_expelled: Callable[[entries.KickFromServer | entries.Sanction], None] = lambda _: None
        self._on_deleted: Callable[[IndexedMessage], None] = lambda _: None
        self._on_removed: Callable[[], None] = lambda: None
        # For the journal's thread: the buffers of the last publication, and the calls after a portion, unlocked.
        self._buffers: list[BroadcastBuffer] = []
        self._later: list[Callable[[], None]] = []
        # Guards everything below, and the order of writes to broadcast buffers and send queues.
        self._lock = threading.Lock()
        self._last_id = last_id
        self._lobby = Room(LOBBY_ID, None, partial(self._open_lobby, buffers), partial(self._close_lobby, buffers))
        self._rooms = {LOBBY_ID: self._lobby}
        # Nothing is said in it. Members that follow no room can be sent events of their own because they follow it.
        self._quiet = Room(_QUIET_ID, None, open_buffer, close_buffer)
        self._tracking = Tracking(presence, self._lobby, now_ms)
        self._now_ms, self._read_roles, self._read_guests = now_ms, read_roles, read_guests
        # Members by wire protocol.
        self._members_count: Counter[str] = Counter()
        self._users: dict[int, User] = {}
        # The members that are operators of the server.
        self._operators: dict[Member, None] = {}
        presence.on_update(self.announce)

    def on_moderation(
        self,
        expelled: Callable[[entries.KickFromServer | entries.Sanction], None],
        deleted: Callable[[IndexedMessage], None],
        removed: Callable[[], None],
    ) -> None:
        """Set the functions that end the connections of guests, get each deleted message as it was, or note a removal.

        The last one follows the removal of many messages. All are called in the journal's thread, without the lock,
        also for entries of other servers.
        """
        self._on_expelled, self._on_deleted, self._on_removed = expelled, deleted, removed

    def _open_lobby(self, buffers: Mapping[str, BroadcastBuffer], variant: str) -> BroadcastBuffer:
        return buffers[variant] if variant in buffers else self._open_buffer(variant)

    def _close_lobby(self, buffers: Mapping[str, BroadcastBuffer], buffer: BroadcastBuffer) -> None:
        if all(buffer is not each for each in buffers.values()):
            self._close_buffer(buffer)

    def count_members(self) -> dict[str, int]:
        """Return the number of members by wire protocol; guests of register are no members. For any thread."""
        with self._lock:
            return dict(+self._members_count)

    @property
    def rooms_online(self) -> int:
        """Number of rooms with members who are online, and the lobby. For any thread."""
        return len(self._rooms)

    def check_acknowledged(self, account_id: int) -> None:
        """Update the account's mark from the acknowledgements of its devices. Call it before a login."""
        with self._lock:
            user = self._users.get(account_id)
            members = user.members[-_CHECKED_MAX:] if user else []
        for member in members:
            member.send_queue.check_acknowledged()

    def begin_join(self, member: Member) -> None:
        """Note changes of the user's rooms from now on. Call it before they are read, and :meth:`join` after it."""
        with self._lock:
            user = self._users.setdefault(member.account_id, User(member.name))
            user.logins[member] = False

    def cancel_join(self, member: Member) -> None:
        """Undo :meth:`begin_join`."""
        with self._lock:
            user = self._users[member.account_id]
            del user.logins[member]
            self._forget(member.account_id, user)

    def join(self, member: Member, rooms: Sequence[RoomView]) -> JoinState | None:
        """Add a member. Its send queue is held: the caller puts the missed messages and releases it.

        None: the rooms that were read are not those that the hub knows. The caller waits for the journal, reads them
        again and calls again.
        """
        with self._lock:
            user = self._users[member.account_id]
            if user.logins[member]:
                user.logins[member] = False
                return None
            if user.is_loaded:
                if {room.id for room in user.rooms.values()} != {room.room_id for room in rooms}:
                    return None
            else:
                user.is_loaded = True
                for room in rooms:
                    self._enter(user, room.room_id, room.name)
            del user.logins[member]
            user.note_login(member, self._now_ms())
            if member.is_operator:
                self._operators[member] = None
            if member.is_counted and self._user_connections:
                self._replace_oldest(user)
            self._presence.add(member.name)
            if len(user.members) == 1:
                self._tracking.came_online(user, {room.room_id: room.role or RoomRole.MEMBER for room in rooms})
                if self._tracking.is_used:
                    self._wake()
            users, version = self._presence.users()
            self._members_count[_protocol_of(member)] += 1
            (self._lobby if member.follows_lobby else self._quiet).follow(member, version)
            if member.knows_rooms:
                self._follow_rooms(user, member)
            is_alone = len(user.members) == 1 and not self._presence.is_elsewhere(member.name)
            listed = user.rooms.values() if member.tracks_members else ()
            listings = {room.id: self._tracking.listing(room) for room in listed}
            return JoinState(self._last_id, self._marks.mark_of(member.account_id), users, is_alone, listings)

    def _replace_oldest(self, user: User) -> None:
        """End the oldest connection of a user that has too many. It may belong to a peer whose network has gone."""
        counted = [member for member in user.members if member.is_counted and not member.is_replaced]
        if len(counted) > self._user_connections:
            counted[0].is_replaced = True
            counted[0].quit_reason = _REPLACED.reason
            counted[0].send_queue.finish([_REPLACED], hang_up=True)
            _log.info("connection replaced", user=user.name)

    def show_rooms(self, member: Member) -> None:
        """Send the member the events of its rooms, from now on."""
        with self._lock:
            member.knows_rooms = True
            self._follow_rooms(self._users[member.account_id], member)

    def leave(self, member: Member) -> bool:
        """Remove a member, which receives no later messages. True if no user of this server is online any more.

        After its peer has acknowledged all earlier messages, the account's mark moves to the newest message.
        """
        with self._lock:
            user = self._users[member.account_id]
            user.members.remove(member)
            self._operators.pop(member, None)
            for room in user.rooms.values():
                self._unfollow(room, member)
            self._forget(member.account_id, user)
            self._members_count[_protocol_of(member)] -= 1
            self._unfollow(self._lobby, member)
            self._quiet.unfollow(member)
            self._track_all(member)
            self._tracking.forget(member)
            is_empty = self._presence.remove(member.name)
            if not user.members:
                self._tracking.went_offline(user, member.quit_reason)
                if self._tracking.is_used:
                    self._wake()
            return is_empty

    def track_newest(self) -> None:
        """Track the newest message for all members at shutdown, as :meth:`leave` does. Nothing is published later."""
        with self._lock:
            for user in self._users.values():
                for member in user.members:
                    self._track_all(member)

    def enter_lobby(self, member: Member) -> LobbyEntered:
        """Send the member what is said in the lobby from now on.

        Its send queue is held, so that the caller can put the answer before it.
        """
        with self._lock:
            was_in = member.follows_lobby
            member.send_queue.hold()
            if not was_in:
                member.follows_lobby = True
                self._follow(self._lobby, member, self._presence.users()[1])
            return LobbyEntered(self._last_id, self._tracking.listing(self._lobby), was_in)

    def leave_lobby(self, member: Member, *, tells: bool = True) -> None:
        """Undo :meth:`enter_lobby`. The other members of the lobby are not told."""
        with self._lock:
            member.follows_lobby = False
            self._unfollow(self._lobby, member)
            if tells:
                member.send_queue.insert([events.Parted(LOBBY)])

    def members_of(self, listing: Listing, roles: Mapping[str, RoomRole]) -> tuple[events.RoomMember, ...]:
        """Describe the listed users. For any thread."""
        return self._tracking.members(listing, roles)

    def infos(self, names: Iterable[str]) -> list[events.UserInfo]:
        """Return what is known of users who are online. For any thread.

        Without the lock: 10,000 take 30 ms, and the lock delays the messages of all.
        """
        return [self._tracking.info(name) for name in names]

    def ident_of(self, name: str) -> str:
        """Return the ident of a user who is online, or the name. For any thread, without the lock."""
        return self._tracking.ident_of(name)

    def is_account(self, name: str) -> bool:
        """Return True for a user who is online, and no guest. For any thread, without the lock."""
        return self._tracking.is_account(name)

    def is_bot(self, name: str) -> bool:
        """True for a user of this server who is online, and has said that it is a program. For any thread."""
        return self._tracking.is_bot(name)

    def past(self, name: str, limit: int) -> tuple[events.PastUser, ...]:
        """Return the users of this name who went offline last. For any thread."""
        with self._lock:
            return self._tracking.past(name, limit)

    def counts(self, unknown: int) -> events.Counts:
        """Return the numbers of users and rooms. ``unknown``: connections that are not logged in."""
        users = self._presence.count
        with self._lock:
            self._tracking.users_max = users_max = max(users, self._tracking.users_max)
            operators = len({member.account_id for member in self._operators})
            return events.Counts(
                users=users, users_max=users_max, operators=operators, unknown=unknown, rooms=len(self._rooms)
            )

    def set_away(self, member: Member, text: str) -> None:
        """Note that the user is away, and tell those who share a room with it; empty: the user is back."""
        with self._lock:
            user = self._users[member.account_id]
            user.away = text
            self._tracking.tell_about(user, events.AwayChanged(user.name, text))
        self._wake()

    def set_realname(self, member: Member, realname: str) -> None:
        """Replace the description of the user, and tell those who share a room with it."""
        with self._lock:
            user = self._users[member.account_id]
            user.realname = member.realname = realname
            self._tracking.tell_about(user, events.RealnameChanged(user.name, realname))
        self._wake()

    def set_bot(self, member: Member, *, is_bot: bool) -> None:
        """Note whether the user is a program."""
        with self._lock:
            self._users[member.account_id].is_bot = member.is_bot = is_bot

    def watch(
        self, member: Member, names: Sequence[str], removed: Sequence[str], *, clears: bool, is_extended: bool = False
    ) -> None:
        """Answer requests.Watch. RequestError: too many names."""
        with self._lock:
            watched = self._tracking.watch(member, names, removed, clears=clears, is_extended=is_extended)
            member.send_queue.insert([watched])

    def relay(self, member: Member, event: events.Relayed, target_id: int, *, is_room: bool) -> None:
        """Pass an event on to the tracking connections in a room, or those of an account, but not to this one."""
        with self._lock:
            if is_room:
                room = self._rooms.get(target_id)
                if room is not None and room.listed is not None:
                    room.append_tracking([event], [member], is_for_own=False)
                    room.flush()
            else:
                for each in self._members_of(target_id):
                    if each.tracks_members and each is not member:
                        each.send_queue.insert([event])
        self._wake()

    def rename(self, account_id: int, new_account_id: int, name: str) -> None:
        """Give a user another name, and tell those who share a room with it. The lock is held: see _CHANGES."""
        user = self._users.get(account_id)
        if user is None:
            return
        before, user.name = user.name, name
        if new_account_id != account_id:
            self._users[new_account_id] = self._users.pop(account_id)
        for member in user.members:
            member.name, member.account_id = name, new_account_id
            self._presence.add(name)
        for room in user.rooms.values():
            self._presence.add(name, room.id, room.name)
            self._presence.remove(before, room.id)
        for _ in user.members:
            self._presence.remove(before)
        if user.members:
            self._tracking.renamed(user, before)

    def change_encoding(self, member: Member, variant: str, *, echoes: bool) -> None:
        """Encode what follows for the member in another variant: see requests.ChangeEncoding."""
        with self._lock:
            before, member.variant, member.echoes = member.variant, variant, echoes
            for room in (self._quiet, self._lobby, *self._users[member.account_id].rooms.values()):
                room.change_variant(member, before)

    def room_id(self, member: Member, name: str) -> int | None:
        """Return the id of a room that the user is in, ignoring the case of the name; None if it is not known."""
        with self._lock:
            room = self._users[member.account_id].rooms.get(room_key(name))
            return room.id if room else None

    def last_id(self) -> int:
        """Return the id of the newest published message. Events that are put into a send queue now follow it."""
        with self._lock:
            return self._last_id

    def handle_applied(self, applied: Sequence[Applied]) -> None:
        """Deliver and confirm what was committed, in order; refuse messages that can't be stored.

        A subscriber of the journal: it is called in the journal's thread. The origin of an entry is the Member that
        sent it, or the Ack that a guest waits for.
        """
        for portion, room_ids in self._portions(applied):
            with self._lock:
                self._buffers = self._buffers_of(room_ids)
            for buffer in self._buffers:
                buffer.wait_for_sender()
            with self._lock:
                for each in portion:
                    entry: Any = each.entry
                    outcome, origin = each.outcome, each.origin
                    if isinstance(outcome, tuple):  # the common case first
                        publish = self._publish_direct if isinstance(entry, DirectMessage) else self._publish_public
                        for part in outcome:
                            publish(entry, part, origin, each.time_ms)
                    elif isinstance(entry, MessageBatch):
                        self._refuse(entry, outcome, origin)
                    elif not isinstance(outcome, _UNCHANGED):
                        self._CHANGES[type(entry)](self, entry, outcome, origin)
                for buffer in self._buffers_of(room_ids):
                    buffer.flush()
            self._wake()
            if self._later:
                self._run_later()

    def _portions(self, applied: Iterable[Applied]) -> Iterator[tuple[list[Applied], set[int]]]:
        """Divide the messages and the entries of _CHANGES, in order, into portions that may be flushed at once.

        Each comes with the ids of the lobby and of the rooms that its messages are in.
        """
        portion: list[Applied] = []
        room_ids = {LOBBY_ID}
        characters = 0
        for each in applied:
            entry = each.entry
            if isinstance(entry, MessageBatch):
                characters += sum(map(len, entry.texts)) + _MESSAGE_CHARACTERS * len(entry.texts)
                if isinstance(entry, PublicMessages):
                    room_ids.add(entry.room_id)
            elif type(entry) in self._CHANGES:
                characters += _MESSAGE_CHARACTERS
            else:
                continue
            portion.append(each)
            if characters >= _PORTION_CHARACTERS:
                yield portion, room_ids
                portion, room_ids, characters = [], {LOBBY_ID}, 0
        if portion:
            yield portion, room_ids

    def _run_later(self) -> None:
        """Make the calls that the entries of a portion need after it. For the journal's thread, without the lock."""
        later, self._later = self._later, []
        for call in later:
            call()

    def _expel(self, entry: entries.KickFromServer | entries.Sanction, bye: Bye) -> None:
        """End the connections of the account, or those from the network. Without the lock."""
        network = entry.network if isinstance(entry, entries.Sanction) else ""
        with self._lock:
            users = self._users.values() if network else filter(None, [self._users.get(entry.account_id)])
            members = [member for user in users for member in user.members]
        if network:  # 10,000 take 0.1 s
            members = [member for member in members if is_in_network(member.address, network)]
        _hang_up(members, bye)
        self._on_expelled(entry)  # the lock of the guests comes before the hub's

    def gather(self, limit_seconds: float) -> None:
        """Wait until the sender has offered the last publication to all members. For the journal's thread."""
        deadline = time.monotonic() + limit_seconds
        for buffer in self._buffers:
            buffer.wait_for_sender(0, deadline - time.monotonic())

    def announce(self, room_id: int, update: Users, version: int) -> None:
        """Send the update to all followers of the room that have seen an older version. For the presence thread."""
        room = self._rooms.get(room_id)
        # Users of other servers may have roles that only the store knows.
        is_listed = room is not None and room.listed is not None
        needs_roles = is_listed and room is not self._lobby and update.joined
        roles = self._read_roles(room_id) if needs_roles else {}
        is_lobby = room is self._lobby
        others = [name for name in update.joined if not self._tracking.is_user(name)] if is_listed or is_lobby else []
        guests: Collection[str] = ()
        if others:
            with suppress(StoreError):  # it is reported when a user asks for the history
                guests = self._read_guests(others)
        with self._lock:
            self._tracking.note_guests(update, guests, is_lobby=is_lobby)
            room = self._rooms.get(room_id)
            if room is None:  # its last member has gone offline
                return
            self._tracking.reconcile(room, update, roles)
            for buffer, seen_versions, tracks_members in room.followers.values():
                if tracks_members:
                    continue
                start, end = buffer.append([update])
                for member, seen_version in seen_versions.items():
                    if seen_version >= version:
                        member.send_queue.replace(buffer, start, end)
            room.flush()
        self._wake()

    def catch_up(self, member: Member, upto_id: int) -> None:
        """Note that the member's send queue has all missed messages up to this one, and is released.

        The member's direct messages count as delivered after its peer has acknowledged them.
        """
        with self._lock:
            member.has_caught_up = True
            self._track(member, max(upto_id, member.newest_direct_id))

    def _buffers_of(self, room_ids: Iterable[int]) -> list[BroadcastBuffer]:
        """Return the buffers of those of the rooms that have members online. The lock is held."""
        # Loops, because this runs twice for each publication, and mostly finds one buffer.
        buffers: list[BroadcastBuffer] = []
        for room_id in room_ids:
            room = self._rooms.get(room_id)
            if room is not None:
                for buffer, _, _ in room.followers.values():
                    buffers.append(buffer)
        for buffer, _, _ in self._quiet.followers.values():  # the sender has to offer what was inserted
            buffers.append(buffer)
        return buffers

    def _publish_public(self, batch: PublicMessages, part: Stored, origin: _Origin, time_ms: int) -> None:
        """Encode the messages once for each buffer; the sender gets the confirmation instead. The lock is held."""
        if part.is_repeated:
            self._confirm(batch, part, origin, SentStatus.SENT)
            return
        count = part.stop - part.start
        self._last_id = part.id + count - 1
        self._counters.public_messages += count
        room = self._rooms.get(batch.room_id)
        if room is None:  # none of its members is online
            return
        texts, nonces = batch.texts, batch.nonces
        if count < len(texts):
            texts, nonces = texts[part.start : part.stop], nonces[part.start : part.stop]
        author = origin if isinstance(origin, Member) else None
        is_bot = author is not None and author.is_bot
        public = PublicBatch(part.id, time_ms, batch.sender, texts, room.name, batch.is_guest, batch.is_notice, is_bot)
        confirmation: list[SentBatch | PublicBatch] = []
        if author is not None:
            author.said_ms = time_ms
            confirmation = [SentBatch(part.id, nonces), public] if author.echoes else [SentBatch(part.id, nonces)]
        is_follower = False
        for buffer, seen_versions, _ in room.followers.values():
            start, end = buffer.append([public])
            self._counters.deliveries += count * len(seen_versions)
            if author in seen_versions:
                author.send_queue.replace(buffer, start, end, confirmation)
                self._counters.deliveries -= count
                is_follower = True
        if author is not None and not is_follower:  # it has not entered the lobby
            author.send_queue.insert(confirmation)
        if room is self._lobby and (
            guests := self._acked_delivery.guests
        ):  # without one, the ack of a guest has failed
            self._counters.deliveries += count * (guests - isinstance(origin, Ack))
            self._acked_delivery.publish(public, origin if isinstance(origin, Ack) else None)

    def _publish_direct(self, message: DirectMessage, part: Stored, origin: _Origin, time_ms: int) -> None:
        """The lock is held."""
        if part.is_repeated:
            self._confirm(message, part, origin, SentStatus.SENT)
            return
        self._last_id = part.id
        (text,) = message.texts
        is_bot = isinstance(origin, Member) and origin.is_bot
        flags = (message.is_guest, message.is_notice, is_bot)
        event = events.DirectMessage(part.id, TimeMs(time_ms), message.sender, message.recipient, text, *flags)
        recipients = self._recipients_of(message)
        members = [] if part.is_ignored else recipients
        # The sender's other connections receive the message too: it is in their history.
        others = [] if message.recipient_id == message.sender_id else self._members_of(message.sender_id)
        receivers = [*members, *(member for member in others if member is not origin)]
        self._counters.direct_messages += 1
        self._counters.deliveries += len(receivers)
        for member in receivers:
            member.send_queue.insert([event])
        for member in members:
            member.newest_direct_id = part.id
            if member.has_caught_up:
                self._track(member, part.id)
        is_online = bool(recipients)
        ack = origin if message.recipient_claim and not recipients and isinstance(origin, Ack) else None
        if message.recipient_claim and not recipients:
            is_online = self._acked_delivery.tell(message.recipient_id, message.recipient_claim, event, ack)
            self._counters.deliveries += is_online
        if not is_online:
            is_online = self._presence.is_elsewhere(message.recipient)
            if ack is not None:  # a guest of another server acknowledges the message there
                self._acked_delivery.complete(ack, part.id if is_online else None)
        self._confirm(message, part, origin, SentStatus.SENT if is_online else SentStatus.STORED, event)
        if isinstance(origin, Member):
            origin.said_ms = time_ms
            recipient = self._users.get(message.recipient_id)
            if origin.tracks_members and recipient is not None and recipient.away and not message.is_notice:
                origin.send_queue.insert([events.IsAway(recipient.name, recipient.away)])

    def _confirm(
        self,
        batch: MessageBatch,
        part: Stored,
        origin: _Origin,
        status: SentStatus,
        echo: events.DirectMessage | None = None,
    ) -> None:
        """Confirm a part of a single message, with its echo in one piece. The lock is held."""
        is_for_pair = isinstance(batch, DirectMessage) and batch.recipient_claim > 0 and not self._recipients_of(batch)
        if isinstance(origin, Member):
            nonce = batch.nonces[part.start]
            sent = Sent(part.id, status, nonce, looks_public=is_for_pair)
            origin.send_queue.insert([sent, echo] if echo is not None and origin.echoes else [sent])
        elif origin is not None and not is_for_pair:
            self._acked_delivery.complete(origin, part.id)

    def _refuse(self, batch: MessageBatch, outcome: OSError | Problem | ActiveSanction, origin: _Origin) -> None:
        """Tell the sender that its messages were not stored. The lock is held."""
        if isinstance(origin, Ack):
            self._acked_delivery.complete(origin, None)
        elif isinstance(origin, Member):
            asked = (batch.room or None) if isinstance(batch, PublicMessages) else None
            if isinstance(outcome, OSError):
                error = write_error(outcome, "the message was not stored")
            elif isinstance(outcome, Problem):
                error = problem_error(outcome, asked, batch.recipient if isinstance(batch, DirectMessage) else None)
            else:
                error = sanction_error(outcome, asked)
            self._counters.refusals[error.code.value] += len(batch.nonces)
            origin.send_queue.insert([Refused(error.code, error.reason, nonce, asked) for nonce in batch.nonces])

    # --- rooms: the lock is held ---

    def _publish_join(self, entry: entries.JoinRoom, change: RoomChange, origin: _Origin) -> None:
        """All connections of the user are told of a change, else the one that asked."""
        user = self._users.get(entry.account_id)
        role = change.role or RoomRole.MEMBER
        room = None
        if user is not None:
            user.note_change()
            if change.is_changed and user.is_loaded:
                room = self._enter(user, change.room_id, change.name)
        if change.is_changed and self._presence.is_online(entry.username) and change.room_id in self._rooms:
            self._tracking.joined(self._rooms[change.room_id], entry.username, role)
        if user is None:  # it has gone offline, or is on another server
            return
        users, version = self._presence.users(change.room_id)
        joined = events.Joined(change.name, change.topic, users, change.last_id, change.is_private, role)
        entered: events.Entered | None = None
        for member in user.members:
            if not (member is origin or (room is not None and member.knows_rooms)):
                continue
            if room is not None and member.knows_rooms:
                self._follow(room, member, version)
            if member.tracks_members:
                entered = entered or self._entered(entry, change)
            member.send_queue.insert([entered if member.tracks_members and entered else joined])

    def _entered(self, entry: entries.JoinRoom, change: RoomChange) -> events.Entered:
        """The answer for a tracking connection, which follows the room by now."""
        room = self._rooms[change.room_id]
        return events.Entered(
            room=change.name,
            username=entry.username,
            topic=change.topic,
            topic_by=change.topic_by,
            topic_ms=change.topic_ms,
            created_ms=change.created_ms,
            modes=change.modes,
            last_id=change.last_id,
            members=self._tracking.members(self._tracking.listing(room), change.roles),
        )

    def _publish_part(self, entry: entries.PartRoom, change: RoomChange, _: _Origin) -> None:
        room = self._rooms.get(change.room_id)
        self._end_membership(entry.account_id, change, reason=entry.reason)
        if room is not None and change.old_role is not None:
            self._tracking.left(room, entry.username, entry.reason)

    def _publish_kick(self, entry: entries.KickMember, change: RoomChange, origin: _Origin) -> None:
        kicked = events.Kicked(room=change.name, username=entry.username, by=entry.by, reason=entry.reason)
        if change.old_role is None:  # an invitation, of which the other members don't know
            self._tell_origin(origin, kicked)
            return
        self._end_membership(entry.account_id, change, entry.by, entry.reason)
        room = self._rooms.get(change.room_id)
        if room is None or room.listed is None or self._tracking.note_left(room, entry.username):
            self._tell_room(change, kicked, origin)
        else:  # the tracking followers don't know of the member, who is offline
            room.append_untracked([kicked])
            room.flush()
            if isinstance(origin, Member) and (origin.tracks_members or not room.is_followed_by(origin)):
                origin.send_queue.insert([kicked])
        for member in self._operators:
            if member.knows_moderation and member is not origin and not (room and room.is_followed_by(member)):
                member.send_queue.insert([kicked])

    def _publish_topic(self, entry: entries.SetTopic, change: RoomChange, origin: _Origin) -> None:
        self._tell_changed(change, events.TopicChanged(change.name, change.topic, entry.by), origin)

    def _publish_role(self, entry: entries.SetRole, change: RoomChange, origin: _Origin) -> None:
        about = {"room": change.name, "username": entry.username, "by": entry.by}
        role, old_role = change.role or RoomRole.MEMBER, change.old_role or RoomRole.MEMBER
        self._tell_changed(change, events.RoleMoved(**about, role=role, old_role=old_role), origin)
        if (user := self._users.get(entry.account_id)) is not None:
            user.note_change()  # the others are told the role of a user who logs in

    def _publish_modes(self, entry: entries.SetRoomModes, change: RoomChange, origin: _Origin) -> None:
        moved = events.ModesMoved(
            room=change.name, modes=change.modes, by=entry.by, old=change.old_modes, created_ms=change.created_ms
        )
        self._tell_changed(change, moved, origin)

    def _publish_invitation(self, entry: entries.InviteUser, change: RoomChange, origin: _Origin) -> None:
        """Tell the one who invited, the user, and those of the members who track members."""
        kind = events.Invited if change.role is None else events.InvitedMember
        invited = kind(change.name, entry.username, entry.by)
        self._tell_origin(origin, invited)
        if not change.is_changed:
            return
        for member in () if change.is_ignored else self._members_of(entry.account_id):
            if member.knows_rooms:
                member.send_queue.insert([invited])
        room = self._rooms.get(change.room_id)
        if room is not None:
            room.append_tracking([invited], [origin] if isinstance(origin, Member) else (), is_for_own=False)
            room.flush()

    def _publish_rename(self, _: entries.RenameGuest, renamed: GuestRenamed, origin: _Origin) -> None:
        account = renamed.account
        if not isinstance(origin, Member):  # a guest of another server, whose presence comes from there
            for room_id, role in renamed.roles.items():
                room = self._rooms.get(room_id)
                if room is not None and account.name in (room.listed or ()):  # its presence came first
                    room.append_tracking([events.RoleChanged(room=room.name, username=account.name, role=role)])
                    room.flush()
            return
        origin.claim = account.claim
        origin.first_id = self._last_id + 1  # messages to an earlier guest of the name have the same row
        self.rename(origin.account_id, account.id, account.name)

    def _publish_heirs(self, _: entries.GuestsLeave, gone: GuestsGone, __: _Origin) -> None:
        """The guests are offline already: their server has said so, or is gone itself."""
        for change in gone.rooms:
            self._tell_heir(change)

    # --- moderation: the lock is held ---

    def _publish_sanction(self, entry: entries.Sanction, done: Moderated, origin: _Origin) -> None:
        if done.change is not None:
            self._end_membership(entry.account_id, done.change, entry.by, entry.reason)
            room = self._rooms.get(done.change.room_id)
            if room is not None and self._tracking.note_left(room, entry.username):
                kicked = events.Kicked(room=done.change.name, username=entry.username, by=entry.by, reason=entry.reason)
                room.append_tracking([kicked])
                room.flush()
        kind = events.Banned if entry.kind is SanctionKind.BAN else events.Muted
        until = None if done.until_ms is None else TimeMs(done.until_ms)
        event = kind(**_target(entry, done), by=entry.by, until=until, reason=entry.reason)
        target_id = 0 if done.is_hidden else entry.account_id
        self._tell_concerned(event, target_id, entry.room_id, origin)
        if entry.kind is SanctionKind.BAN and entry.room_id is None:
            for user in [self._users.get(entry.account_id)] if entry.account_id else self._users.values():
                if user is not None:
                    user.note_change()
            text = sanction_text(ActiveSanction(entry.kind, done.until_ms, entry.reason))
            self._later.append(partial(self._expel, entry, Bye(text[0].lower() + text[1:], ErrorCode.BANNED)))

    def _publish_lift(self, entry: entries.LiftSanction, done: Moderated, origin: _Origin) -> None:
        kind = events.Unbanned if entry.kind is SanctionKind.BAN else events.Unmuted
        target_id = 0 if done.is_hidden else entry.account_id
        self._tell_concerned(kind(**_target(entry, done), by=entry.by), target_id, entry.room_id, origin)

    def _publish_kick_off(self, entry: entries.KickFromServer, _: Moderated, origin: _Origin) -> None:
        kicked = events.Kicked(username=entry.username, by=entry.by, reason=entry.reason)
        self._tell_concerned(kicked, entry.account_id, None, origin)
        if (user := self._users.get(entry.account_id)) is not None:
            user.note_change()  # perhaps the account is deleted
        reason = f": {entry.reason}" if entry.reason else ""
        bye = Bye(f"{entry.by} ended your connections{reason}", ErrorCode.KICKED)
        self._later.append(partial(self._expel, entry, bye))

    def _publish_server_role(self, entry: entries.SetServerRole, _: Moderated, origin: _Origin) -> None:
        role = RoomRole.OPERATOR if entry.role is Role.OPERATOR else RoomRole.MEMBER
        changed = events.RoleChanged(username=entry.username, role=role, by=entry.by)
        self._tell_concerned(changed, entry.account_id, None, origin)
        user = self._users.get(entry.account_id)
        if user is None:
            return
        user.note_change()
        for member in user.members:
            member.is_operator = entry.role is Role.OPERATOR
            if member.is_operator:
                self._operators[member] = None
            else:
                self._operators.pop(member, None)

    def _publish_deletion(self, entry: entries.DeleteMessage, message: DeletedMessage, origin: _Origin) -> None:
        deleted = events.Deleted(entry.message_id, entry.by, message.room, entry.reason)
        if message.recipient:
            users = {"sender": message.sender, "recipient": message.recipient}
            deleted = events.DirectDeleted(entry.message_id, entry.by, reason=entry.reason, **users)
        if not message.text:  # it was deleted before
            self._tell_origin(origin, deleted)
            return
        recipient_id = message.recipient_id
        was = IndexedMessage(entry.message_id, message.conversation_id, message.sender_id, recipient_id, message.text)
        self._later.append(partial(self._on_deleted, was))
        if message.conversation_id == DIRECT_ID and message.is_ignored:
            self._tell(deleted, origin, message.sender_id)
            self._tell(replace(deleted, reason=""), None, recipient_id or 0)
        elif message.conversation_id == DIRECT_ID:
            self._tell(deleted, origin, message.sender_id, recipient_id or 0)
        else:
            room = self._rooms.get(message.conversation_id)
            self._tell(deleted, origin, members=room.members() if room else ())

    def _note_removal(self, _: entries.Prune | entries.EraseMessages, removed: Removed, __: _Origin) -> None:
        if removed.after_id is None:
            self._later.append(self._on_removed)

    def _publish_report(self, entry: entries.Report, done: Moderated, origin: _Origin) -> None:
        about: dict[str, Any] = {"id": entry.message_id} if entry.message_id else {"username": entry.username}
        reported = events.Reported(room=done.room, by=entry.by, reason=entry.reason, **about)
        self._tell(reported, origin, members=self._operators)

    def _publish_revocation(self, entry: entries.AddToken | entries.RevokeTokens, revoked: Revoked, _: _Origin) -> None:
        if revoked.token_ids:
            self._end_sessions(entry.account_id, revoked.token_ids.__contains__)

    def _publish_read_mark(self, entry: entries.ReadMark, marked: Marked, origin: _Origin) -> None:
        """Tell the other connections of the user; the session answers the one that asked."""
        if not marked.is_changed:
            return
        room = None if entry.other_id else entry.room or LOBBY
        event = events.ReadMarked(room, entry.other or None, marked.time_ms)
        for member in self._members_of(entry.account_id):
            if member.tracks_members and member is not origin:
                member.send_queue.insert([event])

    def _publish_password(self, entry: entries.PasswordChange, has_changed: bool, _: _Origin) -> None:  # noqa: FBT001
        if has_changed and not entry.is_rehash:
            self._end_sessions(entry.account_id, partial(ne, entry.kept_token))

    def _end_sessions(self, account_id: int, is_revoked: Callable[[str], bool]) -> None:
        """End the connections of the account whose tokens are revoked. Logins look for theirs again."""
        user = self._users.get(account_id)
        if user is None:
            return
        user.note_change()
        members = [member for member in user.members if member.token_id and is_revoked(member.token_id)]
        if members:
            self._later.append(partial(_hang_up, members, _REVOKED))

    def _tell_concerned(self, event: Event, account_id: int, room_id: int | None, origin: _Origin) -> None:
        """Send the event to the target (0: none), the operators of the server, and the members of the room."""
        room = self._rooms.get(room_id) if room_id is not None else None
        members = room.members() if room is not None else []
        self._tell(event, origin, account_id, members=[*self._operators, *members])

    def _tell(self, event: Event, origin: _Origin, *account_ids: int, members: Iterable[Member] = ()) -> None:
        """Send the event once to these members, those of the accounts (if they know moderation), and the origin."""
        told = dict.fromkeys(members)
        for account_id in account_ids:
            told |= dict.fromkeys(self._members_of(account_id))
        for member in told:
            if member.knows_moderation and member is not origin:
                member.send_queue.insert([event])
        self._tell_origin(origin, event)

    _CHANGES: ClassVar[dict[type, Callable[[Hub, Any, Any, _Origin], None]]] = {
        entries.JoinRoom: _publish_join,
        entries.PartRoom: _publish_part,
        entries.KickMember: _publish_kick,
        entries.SetTopic: _publish_topic,
        entries.SetRole: _publish_role,
        entries.SetRoomModes: _publish_modes,
        entries.InviteUser: _publish_invitation,
        entries.Sanction: _publish_sanction,
        entries.LiftSanction: _publish_lift,
        entries.KickFromServer: _publish_kick_off,
        entries.SetServerRole: _publish_server_role,
        entries.DeleteMessage: _publish_deletion,
        entries.Report: _publish_report,
        entries.RenameGuest: _publish_rename,
        entries.GuestRelease: _publish_heirs,
        entries.ServerStart: _publish_heirs,
        entries.ServerGone: _publish_heirs,
        entries.Prune: _note_removal,
        entries.EraseMessages: _note_removal,
        entries.PasswordChange: _publish_password,
        entries.AddToken: _publish_revocation,
        entries.RevokeTokens: _publish_revocation,
        entries.ReadMark: _publish_read_mark,
    }

    def _tell_changed(self, change: RoomChange, event: Event, origin: _Origin) -> None:
        """Tell the room of a change; if nothing changed, answer the request."""
        if change.is_changed:
            self._tell_room(change, event, origin)
        else:
            self._tell_origin(origin, event)

    def _tell_room(self, change: RoomChange, event: Event, origin: _Origin = None) -> None:
        """Send the event to the followers of the room, and to the origin, which may be an operator outside of it.

        An origin that tracks members gets it encoded for itself, as the answer to its request.
        """
        room = self._rooms.get(change.room_id)
        if isinstance(origin, Member) and not (room and room.is_followed_by(origin)):
            origin.send_queue.insert([event])
        if room is not None:
            room.append_untracked([event])
            room.append_tracking([event], [origin] if isinstance(origin, Member) else ())
            room.flush()

    def _tell_origin(self, origin: _Origin, event: Event) -> None:
        if isinstance(origin, Member):
            origin.send_queue.insert([event])

    def _end_membership(self, account_id: int, change: RoomChange, by: str | None = None, reason: str = "") -> None:
        """End the membership of a user, and send the events to its connections and, of a new owner, to the room."""
        if change.old_role is None:  # an invitation
            return
        user = self._users.get(account_id)
        if user is not None:
            user.note_change()
            room = user.rooms.get(room_key(change.name))
            for member in user.members:
                if member.knows_rooms:
                    if room is not None:
                        self._unfollow(room, member)
                    member.send_queue.insert([events.Parted(change.name, by, reason)])
            if room is not None:
                self._exit(user, room_key(change.name))
        if change.heir_id:
            self._tell_heir(change)

    def _tell_heir(self, change: RoomChange) -> None:
        self._tell_room(change, events.RoleChanged(room=change.name, username=change.heir, role=RoomRole.OWNER))

    def _enter(self, user: User, room_id: int, name: str) -> Room:
        """Add a user to a room, once."""
        key = room_key(name)
        if key not in user.rooms:
            room = self._rooms.get(room_id)
            if room is None:
                room = self._rooms[room_id] = Room(room_id, name, self._open_buffer, self._close_buffer)
            user.rooms[key] = room
            self._presence.add(user.name, room_id, name)
        return user.rooms[key]

    def _follow(self, room: Room, member: Member, version: int) -> None:
        """Let a member follow a room; list the room's users for the first one that tracks them."""
        room.follow(member, version)
        if member.tracks_members:
            self._tracking.begin(room)

    def _unfollow(self, room: Room, member: Member) -> None:
        """Undo :meth:`_follow`."""
        room.unfollow(member)
        if room.listed is not None and not any(each.tracks_members for each in room.followers.values()):
            self._tracking.end(room)

    def _exit(self, user: User, key: str) -> None:
        """Remove a user, whose members no longer follow the room; forget a room without users."""
        room = user.rooms.pop(key)
        if self._presence.remove(user.name, room.id):
            del self._rooms[room.id]

    def _follow_rooms(self, user: User, member: Member) -> None:
        """Follow all rooms of the user. The first update about each room has news."""
        for room in user.rooms.values():
            self._follow(room, member, 0)

    def _forget(self, account_id: int, user: User) -> None:
        """Remove a user that has neither a member nor a login that begins."""
        if not user.members and not user.logins:
            for key in list(user.rooms):
                self._exit(user, key)
            del self._users[account_id]

    def _members_of(self, account_id: int) -> list[Member]:
        user = self._users.get(account_id)
        return user.members if user else []

    def _recipients_of(self, message: DirectMessage) -> list[Member]:
        """The members that a direct message is for. One for a guest is not for a later guest of the name."""
        members = self._members_of(message.recipient_id)
        if not message.recipient_claim:
            return members
        return [member for member in members if member.claim == message.recipient_claim]

    def _track_all(self, member: Member) -> None:
        """Track the newest message. The lock is held."""
        if member.has_caught_up:
            self._track(member, self._last_id)

    def _track(self, member: Member, message_id: int) -> None:
        """Move the mark to this message after the peer has acknowledged all data so far. The lock is held.

        Guests have none: nothing is kept for them.
        """
        if member.is_guest:
            return
        member.send_queue.track(message_id, partial(self._marks.advance, member.account_id))


def _protocol_of(member: Member) -> str:
    return member.variant.partition("/")[0]


def _hang_up(members: Iterable[Member], bye: Bye) -> None:
    """End these connections. Without the lock."""
    for member in members:
        member.quit_reason = bye.reason
        member.send_queue.finish([bye], hang_up=True)


def _target(entry: entries.Sanction | entries.LiftSanction, done: Moderated) -> dict[str, Any]:
    """The members of an event that say what it is about."""
    return {"room": done.room, "username": entry.username or None, "address": entry.network or None}
