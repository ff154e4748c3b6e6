"""The hub: delivers committed messages to all members, encoded once for each wire protocol in use."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.events import DirectMessage, PublicBatch, Refused, Sent, SentBatch, SentStatus, TimeMs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import Users
    from chatserver.chat.batch import MessageBatch
    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.member import BroadcastBuffer, Member
    from chatserver.store.accounts import Account

# Size of the portions in which a commit is flushed. On a slow disk a commit may hold megabytes. Flushed at once, they
# could exceed the lag limit of a receiver that reads fast enough.
_PORTION_CHARACTERS = 64 * 1024
# Per-message overhead on the wire.
_MESSAGE_CHARACTERS = 100


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

    def publish(self, batches: Iterable[MessageBatch]) -> None:
        """Deliver and confirm committed batches in order. For the journal thread."""
        for portion in _portions(batches):
            for buffer in self._buffers.values():
                buffer.wait_for_sender()
            with self._lock:
                self._publish_portion(portion)
            self._wake()

    def wait_for_sender(self, limit_seconds: float) -> None:
        """Wait until the sender has offered all published data to all members, or until the limit."""
        deadline = time.monotonic() + limit_seconds
        for buffer in self._buffers.values():
            buffer.wait_for_sender(0, deadline - time.monotonic())

    def refuse(self, batches: Iterable[MessageBatch], error: Refused) -> None:
        """Send the error to the senders of messages that were not stored. For the journal thread."""
        with self._lock:
            for batch in batches:
                if batch.ack is not None:
                    self._acked_delivery.complete(batch.ack, has_failed=True)
                    continue
                batch.member.send_queue.insert([Refused(error.code, error.reason, nonce) for nonce in batch.nonces])
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

    def _publish_portion(self, portion: Sequence[MessageBatch]) -> None:
        """The lock is held."""
        used = self._used_buffers()
        for batch in portion:
            if batch.repeated:
                self._confirm(batch, SentStatus.SENT)
                continue
            if batch.recipient is None:
                self._publish_public(batch, used)
            else:
                self._publish_direct(batch, batch.recipient)
            self._last_id = batch.last_id
        for buffer in used.values():
            buffer.flush()

    def _used_buffers(self) -> dict[str, BroadcastBuffer]:
        """The buffers that have followers. The lock is held."""
        return {protocol: buffer for protocol, buffer in self._buffers.items() if buffer.has_followers}

    def _publish_public(self, batch: MessageBatch, used: Mapping[str, BroadcastBuffer]) -> None:
        """Encode the batch once for each buffer; its sender gets the confirmation instead. The lock is held."""
        send_queue = batch.member.send_queue
        public = PublicBatch(batch.id, batch.time_ms, batch.member.name, batch.texts)
        for protocol, buffer in used.items():
            start, end = buffer.append([public])
            if protocol == send_queue.protocol:
                send_queue.replace(buffer, start, end, [SentBatch(batch.id, batch.nonces)])
        self._acked_delivery.publish(public, batch.ack)

    def _publish_direct(self, batch: MessageBatch, recipient: Account) -> None:
        """The lock is held."""
        (text,) = batch.texts
        event = DirectMessage(batch.id, TimeMs(batch.time_ms), batch.member.name, recipient.name, text)
        members = self._members.get(recipient.id, [])
        # The sender's other connections receive the message too: it is in their history.
        others = [] if recipient.id == batch.member.account_id else self._members.get(batch.member.account_id, [])
        for member in [*members, *(member for member in others if member is not batch.member)]:
            member.send_queue.insert([event])
        for member in members:
            member.newest_direct_id = batch.id
            if member.has_caught_up:
                self._track(member, batch.id)
        is_online = self._acked_delivery.tell(recipient, event, batch.ack) if recipient.is_guest else bool(members)
        self._confirm(batch, SentStatus.SENT if is_online else SentStatus.STORED)

    def _confirm(self, batch: MessageBatch, status: SentStatus) -> None:
        """Confirm a batch of a single message. The lock is held."""
        is_for_guest = batch.recipient is not None and batch.recipient.is_guest
        if batch.ack is None:
            (nonce,) = batch.nonces
            batch.member.send_queue.insert([Sent(batch.id, status, nonce, looks_public=is_for_guest)])
        elif not is_for_guest:
            self._acked_delivery.complete(batch.ack, has_failed=False)

    def _track_all(self, member: Member) -> None:
        """Track the newest message. The lock is held."""
        if member.has_caught_up:
            self._track(member, self._last_id)

    def _track(self, member: Member, message_id: int) -> None:
        """Move the mark to this message after the peer has acknowledged all data so far. The lock is held."""
        member.send_queue.track(message_id, partial(self._marks.advance, member.account_id))


def _portions(batches: Iterable[MessageBatch]) -> Iterator[list[MessageBatch]]:
    """Divide the batches, in order, into portions that may be flushed at once."""
    portion: list[MessageBatch] = []
    characters = 0
    for batch in batches:
        portion.append(batch)
        characters += sum(map(len, batch.texts)) + _MESSAGE_CHARACTERS * len(batch.texts)
        if characters >= _PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion
