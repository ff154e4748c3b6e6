"""The hub: delivers committed messages to the members, encoded once for each room and variant in use.

The hub is a subscriber of the journal. It delivers the messages itself, and passes changes of rooms and users to
``changes.py``, in the order of the journal. ``local_users.py`` has the members, and the rooms that they follow.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chatprotocol import events
from chatprotocol.events import PublicBatch, Refused, RoomRole, Sent, SentBatch, SentStatus, TimeMs
from chatserver.chat.delivery import Ack
from chatserver.chat.problems import problem_error, sanction_error, write_error
from chatserver.chat.room import Member
from chatserver.counters import Counters
from chatserver.journal.entries import DirectMessage, MessageBatch, Problem, PublicMessages
from chatserver.store.errors import StoreError
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import Users
    from chatserver.chat.changes import ChangePublisher, Origin
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.presence import Presence
    from chatserver.journal.base import Applied
    from chatserver.journal.entries import Stored
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.store.moderation import ActiveSanction

# Size of the portions in which a commit is flushed. On a slow disk a commit may hold megabytes. Flushed at once, they
# could exceed the lag limit of a receiver that reads fast enough.
_PORTION_CHARACTERS = 64 * 1024
# Per-message overhead on the wire.
_MESSAGE_CHARACTERS = 100


class Hub:
    """Delivers messages, and updates of Presence. For the journal's thread; :meth:`announce` for that of Presence."""

    def __init__(
        self,
        users: LocalUsers,
        changes: ChangePublisher,
        acked_delivery: AckedDelivery,
        presence: Presence,
        wake: Callable[[], None],
        counters: Counters | None = None,
        read_roles: Callable[[int], Mapping[str, RoomRole]] = lambda _: {},
        read_guests: Callable[[Sequence[str]], Collection[str]] = lambda _: (),
    ) -> None:
        """``wake`` wakes the sender, after each publication.

        ``read_roles`` reads the members of a room whose role is more than that of a member, and ``read_guests`` returns
        those of the names that guests have.
        """
        self._users = users
        self._changes = changes
        self._acked_delivery = acked_delivery
        self._presence = presence
        self._wake = wake
        self._counters = counters or Counters()
        self._read_roles, self._read_guests = read_roles, read_guests
        # The buffers of the last publication.
        self._buffers: list[BroadcastBuffer] = []
        presence.on_update(self.announce)

    def handle_applied(self, applied: Sequence[Applied]) -> None:
        """Deliver and confirm what was committed, in order; refuse messages that can't be stored.

        A subscriber of the journal: it is called in the journal's thread. The origin of an entry is the Member that
        sent it, or the Ack that a guest waits for.
        """
        for portion, room_ids in self._portions(applied):
            with self._users.lock:
                self._buffers = self._buffers_of(room_ids)
            for buffer in self._buffers:
                buffer.wait_for_sender()
            with self._users.lock:
                for each in portion:
                    entry: Any = each.entry
                    outcome, origin = each.outcome, each.origin
                    if isinstance(outcome, tuple):  # the common case first
                        publish = self._publish_direct if isinstance(entry, DirectMessage) else self._publish_public
                        for part in outcome:
                            publish(entry, part, origin, each.time_ms)
                    elif isinstance(entry, MessageBatch):
                        self._refuse(entry, outcome, origin)
                    else:
                        self._changes.publish(entry, outcome, origin)
                for buffer in self._buffers_of(room_ids):
                    buffer.flush()
            self._wake()
            self._changes.finish()

    def _portions(self, applied: Iterable[Applied]) -> Iterator[tuple[list[Applied], set[int]]]:
        """Divide the messages and changes, in order, into portions that may be flushed at once.

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
            elif self._changes.is_published(entry):
                characters += _MESSAGE_CHARACTERS
            else:
                continue
            portion.append(each)
            if characters >= _PORTION_CHARACTERS:
                yield portion, room_ids
                portion, room_ids, characters = [], {LOBBY_ID}, 0
        if portion:
            yield portion, room_ids

    def gather(self, limit_seconds: float) -> None:
        """Wait until the sender has offered the last publication to all members. For the journal's thread."""
        deadline = time.monotonic() + limit_seconds
        for buffer in self._buffers:
            buffer.wait_for_sender(0, deadline - time.monotonic())

    def announce(self, room_id: int, update: Users, version: int) -> None:
        """Send the update to all followers of the room that have seen an older version. For the presence thread."""
        tracking = self._users.tracking
        room = self._users.rooms.get(room_id)
        is_listed = room is not None and room.listed is not None
        is_lobby = room_id == LOBBY_ID
        # Users of other servers may have roles that only the store knows.
        roles = self._read_roles(room_id) if is_listed and not is_lobby and update.joined else {}
        others = [name for name in update.joined if not tracking.is_user(name)] if is_listed or is_lobby else []
        guests: Collection[str] = ()
        if others:
            with suppress(StoreError):  # it is reported when a user asks for the history
                guests = self._read_guests(others)
        with self._users.lock:
            tracking.note_guests(update, guests, is_lobby=is_lobby)
            room = self._users.rooms.get(room_id)
            if room is None:  # its last member has gone offline
                return
            tracking.reconcile(room, update, roles)
            for buffer, seen_versions, tracks_members in room.followers.values():
                if tracks_members:
                    continue
                start, end = buffer.append([update])
                for member, seen_version in seen_versions.items():
                    if seen_version >= version:
                        member.send_queue.replace(buffer, start, end)
            room.flush()
        self._wake()

    def _buffers_of(self, room_ids: Iterable[int]) -> list[BroadcastBuffer]:
        """Return the buffers of those of the rooms that have members online. The lock is held."""
        # Loops, because this runs twice for each publication, and mostly finds one buffer.
        buffers: list[BroadcastBuffer] = []
        for room_id in room_ids:
            room = self._users.rooms.get(room_id)
            if room is not None:
                for buffer, _, _ in room.followers.values():
                    buffers.append(buffer)
        for buffer, _, _ in self._users.quiet.followers.values():  # the sender has to offer what was inserted
            buffers.append(buffer)
        return buffers

    def _publish_public(self, batch: PublicMessages, part: Stored, origin: Origin, time_ms: int) -> None:
        """Encode the messages once for each buffer; the sender gets the confirmation instead. The lock is held."""
        if part.is_repeated:
            self._confirm(batch, part, origin, SentStatus.SENT)
            return
        count = part.stop - part.start
        self._users.newest_id = part.id + count - 1
        self._counters.public_messages += count
        room = self._users.rooms.get(batch.room_id)
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
        if room is self._users.lobby and (
            guests := self._acked_delivery.guests
        ):  # without one, the ack of a guest has failed
            self._counters.deliveries += count * (guests - isinstance(origin, Ack))
            self._acked_delivery.publish(public, origin if isinstance(origin, Ack) else None)

    def _publish_direct(self, message: DirectMessage, part: Stored, origin: Origin, time_ms: int) -> None:
        """The lock is held."""
        if part.is_repeated:
            self._confirm(message, part, origin, SentStatus.SENT)
            return
        self._users.newest_id = part.id
        (text,) = message.texts
        is_bot = isinstance(origin, Member) and origin.is_bot
        flags = (message.is_guest, message.is_notice, is_bot)
        event = events.DirectMessage(part.id, TimeMs(time_ms), message.sender, message.recipient, text, *flags)
        recipients = self._recipients_of(message)
        members = [] if part.is_ignored else recipients
        # The sender's other connections receive the message too: it is in their history.
        others = [] if message.recipient_id == message.sender_id else self._users.members_of(message.sender_id)
        receivers = [*members, *(member for member in others if member is not origin)]
        self._counters.direct_messages += 1
        self._counters.deliveries += len(receivers)
        for member in receivers:
            member.send_queue.insert([event])
        for member in members:
            member.newest_direct_id = part.id
            if member.has_caught_up:
                self._users.track(member, part.id)
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
            recipient = self._users.by_account.get(message.recipient_id)
            if origin.tracks_members and recipient is not None and recipient.away and not message.is_notice:
                origin.send_queue.insert([events.IsAway(recipient.name, recipient.away)])

    def _confirm(
        self,
        batch: MessageBatch,
        part: Stored,
        origin: Origin,
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

    def _refuse(self, batch: MessageBatch, outcome: OSError | Problem | ActiveSanction, origin: Origin) -> None:
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

    def _recipients_of(self, message: DirectMessage) -> list[Member]:
        """The members that a direct message is for. One for a guest is not for a later guest of the name."""
        members = self._users.members_of(message.recipient_id)
        if not message.recipient_claim:
            return members
        return [member for member in members if member.claim == message.recipient_claim]
