"""The hub: delivers committed messages to all members, encoded once for each wire protocol in use."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import PublicBatch, Refused, Sent, SentBatch, SentStatus, TimeMs
from chatserver.chat.delivery import Ack
from chatserver.chat.member import Member
from chatserver.journal.entries import DirectMessage, MessageBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import Users
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.member import BroadcastBuffer
    from chatserver.journal.base import Applied
    from chatserver.journal.entries import Stored

    # None: another server's.
    _Origin = Member | Ack | None

# Size of the portions in which a commit is flushed. On a slow disk a commit may hold megabytes. Flushed at once, they
# could exceed the lag limit of a receiver that reads fast enough.
_PORTION_CHARACTERS = 64 * 1024
# Per-message overhead on the wire.
_MESSAGE_CHARACTERS = 100

_NOT_STORED = "The server can't write to its disk; the message was not stored."

# Maximum members of the account that each login checks, newest first: each check takes a few system calls.
_CHECKED_MAX = 4


class Joined(NamedTuple):
    """The state of the hub when a member joined."""

    # The member receives messages after this one.
    last_id: int
    # The account's mark; 0 if it has not moved since the server started. See DeliveryMarks.
    delivered_id: int
    # True if the account has no other member.
    is_alone: bool = True


class Hub:
    """The members and the broadcast buffers that they follow. For any thread.

    ``buffers`` has the buffer of each protocol by its name. ``wake`` wakes the sender, after each publication.
    """

    def __init__(
        self,
        buffers: Mapping[str, BroadcastBuffer],
        acked_delivery: AckedDelivery,
        last_id: int,
        marks: DeliveryMarks,
        wake: Callable[[], None],
    ) -> None:
        self._buffers = buffers
        self._acked_delivery = acked_delivery
        self._marks = marks
        self._wake = wake
        # Guards everything below, and the order of writes to broadcast buffers and send queues.
        self._lock = threading.Lock()
        self._last_id = last_id
        self._members: dict[int, list[Member]] = {}

    def check_acknowledged(self, account_id: int) -> None:
        """Update the account's mark from the acknowledgements of its devices. Call it before a login."""
        with self._lock:
            members = self._members.get(account_id, [])[-_CHECKED_MAX:]
        for member in members:
            member.send_queue.check_acknowledged()

    def join(self, member: Member) -> Joined:
        """Add a member. Its send queue is held: the caller puts the missed messages and releases it."""
        with self._lock:
            members = self._members.setdefault(member.account_id, [])
            members.append(member)
            member.send_queue.follow(self._buffers[member.send_queue.protocol])
            return Joined(self._last_id, self._marks.mark_of(member.account_id), len(members) == 1)

    def leave(self, member: Member) -> None:
        """Remove a member, which receives no later messages.

        After its peer has acknowledged all earlier messages, the account's mark moves to the newest message.
        """
        with self._lock:
            members = self._members[member.account_id]
            members.remove(member)
            if not members:
                del self._members[member.account_id]
            member.send_queue.unfollow(self._buffers[member.send_queue.protocol])
            self._track_all(member)

    def track_newest(self) -> None:
        """Track the newest message for all members at shutdown, as :meth:`leave` does. Nothing is published later."""
        with self._lock:
            for members in self._members.values():
                for member in members:
                    self._track_all(member)

    def last_id(self) -> int:
        """Return the id of the newest published message. Events that are put into a send queue now follow it."""
        with self._lock:
            return self._last_id

    def handle_applied(self, applied: Sequence[Applied]) -> None:
        """Deliver and confirm committed messages, in order; refuse those that can't be stored.

        A subscriber of the journal: it is called in the journal's thread. The origin of a message is its sender's
        Member, or the Ack that a guest waits for.
        """
        for portion in _portions(applied):
            for buffer in self._buffers.values():
                buffer.wait_for_sender()
            with self._lock:
                self._publish_portion(portion)
            self._wake()

    def announce(self, update: Users, version: int) -> None:
        """Send the update to all members whose login showed an older version. For the presence thread."""
        with self._lock:
            used = self._used_buffers()
            spans = {protocol: (buffer, *buffer.append([update])) for protocol, buffer in used.items()}
            for members in self._members.values():
                for member in members:
                    if member.presence_version >= version and member.send_queue.protocol in spans:
                        member.send_queue.replace(*spans[member.send_queue.protocol])
            for buffer in used.values():
                buffer.flush()
        self._wake()

    def catch_up(self, member: Member, upto_id: int) -> None:
        """Note that the member's send queue has all missed messages up to this one, and is released.

        The member's direct messages count as delivered after its peer has acknowledged them.
        """
        with self._lock:
            member.has_caught_up = True
            self._track(member, max(upto_id, member.newest_direct_id))

    def _publish_portion(self, portion: Sequence[Applied]) -> None:
        """The lock is held."""
        used = self._used_buffers()
        for applied in portion:
            batch: Any = applied.entry
            origin, time_ms = applied.origin, applied.time_ms
            if isinstance(applied.outcome, OSError):
                self._refuse(batch, origin)
                continue
            for part in applied.outcome:
                if part.is_repeated:
                    self._confirm(batch, part, origin, SentStatus.SENT)
                elif isinstance(batch, DirectMessage):
                    self._publish_direct(batch, part, origin, time_ms)
                    self._last_id = part.id
                else:
                    self._publish_public(batch, part, origin, time_ms, used)
                    self._last_id = part.id + part.stop - part.start - 1
        for buffer in used.values():
            buffer.flush()

    def _used_buffers(self) -> dict[str, BroadcastBuffer]:
        """The buffers that have followers. The lock is held."""
        return {protocol: buffer for protocol, buffer in self._buffers.items() if buffer.has_followers}

    def _publish_public(
        self, batch: MessageBatch, part: Stored, origin: _Origin, time_ms: int, used: Mapping[str, BroadcastBuffer]
    ) -> None:
        """Encode the messages once for each buffer; the sender gets the confirmation instead. The lock is held."""
        texts, nonces = batch.texts, batch.nonces
        if part.stop - part.start < len(texts):
            texts, nonces = texts[part.start : part.stop], nonces[part.start : part.stop]
        public = PublicBatch(part.id, time_ms, batch.sender, texts)
        send_queue = origin.send_queue if isinstance(origin, Member) else None
        for protocol, buffer in used.items():
            start, end = buffer.append([public])
            if send_queue is not None and protocol == send_queue.protocol:
                send_queue.replace(buffer, start, end, [SentBatch(part.id, nonces)])
        self._acked_delivery.publish(public, origin if isinstance(origin, Ack) else None)

    def _publish_direct(self, message: DirectMessage, part: Stored, origin: _Origin, time_ms: int) -> None:
        """The lock is held."""
        (text,) = message.texts
        event = events.DirectMessage(part.id, TimeMs(time_ms), message.sender, message.recipient, text)
        members = self._members.get(message.recipient_id, [])
        # The sender's other connections receive the message too: it is in their history.
        others = [] if message.recipient_id == message.sender_id else self._members.get(message.sender_id, [])
        for member in [*members, *(member for member in others if member is not origin)]:
            member.send_queue.insert([event])
        for member in members:
            member.newest_direct_id = part.id
            if member.has_caught_up:
                self._track(member, part.id)
        is_online = bool(members)
        if message.recipient_claim:
            ack = origin if isinstance(origin, Ack) else None
            is_online = self._acked_delivery.tell(message.recipient_id, message.recipient_claim, event, ack)
        self._confirm(message, part, origin, SentStatus.SENT if is_online else SentStatus.STORED)

    def _confirm(self, batch: MessageBatch, part: Stored, origin: _Origin, status: SentStatus) -> None:
        """Confirm a part of a single message. The lock is held."""
        is_for_guest = isinstance(batch, DirectMessage) and batch.recipient_claim > 0
        if isinstance(origin, Member):
            nonce = batch.nonces[part.start]
            origin.send_queue.insert([Sent(part.id, status, nonce, looks_public=is_for_guest)])
        elif origin is not None and not is_for_guest:
            self._acked_delivery.complete(origin, part.id)

    def _refuse(self, batch: MessageBatch, origin: _Origin) -> None:
        """Tell the sender that its messages were not stored. The lock is held."""
        if isinstance(origin, Member):
            origin.send_queue.insert([Refused(ErrorCode.INTERNAL, _NOT_STORED, nonce) for nonce in batch.nonces])
        elif origin is not None:
            self._acked_delivery.complete(origin, None)

    def _track_all(self, member: Member) -> None:
        """Track the newest message. The lock is held."""
        if member.has_caught_up:
            self._track(member, self._last_id)

    def _track(self, member: Member, message_id: int) -> None:
        """Move the mark to this message after the peer has acknowledged all data so far. The lock is held."""
        member.send_queue.track(message_id, partial(self._marks.advance, member.account_id))


def wait_for_sender(buffers: Iterable[BroadcastBuffer], limit_seconds: float) -> None:
    """Wait until the sender has offered all published data to all members, or until the limit."""
    deadline = time.monotonic() + limit_seconds
    for buffer in buffers:
        buffer.wait_for_sender(0, deadline - time.monotonic())


def _portions(applied: Iterable[Applied]) -> Iterator[list[Applied]]:
    """Divide the message batches, in order, into portions that may be flushed at once."""
    portion: list[Applied] = []
    characters = 0
    for each in applied:
        if not isinstance(each.entry, MessageBatch):
            continue
        portion.append(each)
        texts = each.entry.texts
        characters += sum(map(len, texts)) + _MESSAGE_CHARACTERS * len(texts)
        if characters >= _PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion
