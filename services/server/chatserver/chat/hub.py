"""The feed: what was committed goes to everybody, encoded once for each dialect in use."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.events import DirectMessage, PublicBatch, Refused, Sent, SentBatch, SentStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chatprotocol.events import Users
    from chatserver.chat.batch import MessageBatch
    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.member import BroadcastBuffer, Member
    from chatserver.store.accounts import Account

# What is shown at once. A batch that waited for a slow disk may hold megabytes, and no receiver may fall behind by more
# than its limit for no fault of its own.
_PORTION_CHARACTERS = 64 * 1024
# Of a message beside its text: what a dialect puts around it.
_MESSAGE_CHARACTERS = 100


# Devices of an account that are asked at each login, the newest ones: a few system calls for each.
_CHECKED_MAX = 4


class Joined(NamedTuple):
    """Where a seat's time in the room begins."""

    # The seat hears what comes after this message.
    last_id: int
    # The account's mark since the server started; 0 if it has not moved. See DeliveryMarks.
    delivered_id: int
    # True if no other connection of the account is in the room.
    is_alone: bool = True


class Hub:
    """Everybody who is in the room, and the streams that they follow.

    ``wake`` is called after something was published: it tells the courier.
    """

    def __init__(
        self, broadcasts: Sequence[BroadcastBuffer], last_id: int, deliveries: DeliveryMarks, wake: Callable[[], None]
    ) -> None:
        self._broadcasts = broadcasts
        self._deliveries = deliveries
        self._wake = wake
        # Guards everything below, and the order in which streams and outboxes are written.
        self._lock = threading.Lock()
        self._last_id = last_id
        self._members: dict[int, list[Member]] = {}

    def check_acknowledged(self, account_id: int) -> None:
        """Look what the account's devices have acknowledged, so that its mark is up to date. Before a login."""
        with self._lock:
            members = self._members.get(account_id, [])[-_CHECKED_MAX:]
        for member in members:
            member.send_queue.check_acknowledged()

    def join(self, member: Member) -> Joined:
        """Take a seat, whose outbox is held from now on: put what it missed, and release it."""
        with self._lock:
            members = self._members.setdefault(member.account_id, [])
            members.append(member)
            member.send_queue.follow()
            return Joined(self._last_id, self._deliveries.newest(member.account_id), len(members) == 1)

    def leave(self, member: Member) -> None:
        """Give the seat up: nothing that is published later is for it.

        Once its peer has acknowledged all that was, the account's mark moves up to the newest message.
        """
        with self._lock:
            members = self._members[member.account_id]
            members.remove(member)
            if not members:
                del self._members[member.account_id]
            member.send_queue.unfollow()
            self._track_all(member)

    def end(self) -> None:
        """Nothing more is published, and everybody leaves: see :meth:`leave`."""
        with self._lock:
            for members in self._members.values():
                for member in members:
                    self._track_all(member)

    def last_id(self) -> int:
        """The newest message that was published: what is put into an outbox now comes behind it."""
        with self._lock:
            return self._last_id

    def publish(self, batches: Iterable[MessageBatch]) -> None:
        """Deliver and confirm what was committed, in this order. For the journal thread."""
        for portion in _portions(batches):
            for broadcast in self._broadcasts:
                broadcast.wait_for_sender()
            with self._lock:
                self._publish_portion(portion)
            self._wake()

    def wait_for_sender(self, limit_seconds: float) -> None:
        """Wait until what was published has been offered to everybody, but no longer than this."""
        patience_ends = time.monotonic() + limit_seconds
        for broadcast in self._broadcasts:
            broadcast.wait_for_sender(0, patience_ends - time.monotonic())

    def refuse(self, batches: Iterable[MessageBatch], error: Refused) -> None:
        """Tell the senders that nothing was stored. For the journal thread."""
        with self._lock:
            for batch in batches:
                send_queue = batch.member.send_queue
                answers = [Refused(error.code, error.reason, nonce) for nonce in batch.nonces]
                send_queue.insert(send_queue.broadcast.tail, send_queue.broadcast.tail, answers)
        self._wake()

    def announce(self, update: Users, version: int) -> None:
        """Tell everybody who is in, except those whose login said as much. For the presence thread."""
        with self._lock:
            spans = {id(broadcast): broadcast.append([update]) for broadcast in self._broadcasts if broadcast.followed}
            for members in self._members.values():
                for member in members:
                    if member.presence_version >= version:
                        member.send_queue.insert(*spans[id(member.send_queue.broadcast)], [])
            for broadcast in self._broadcasts:
                broadcast.flush()
        self._wake()

    def catch_up(self, member: Member, upto_id: int) -> None:
        """The seat was given all that it missed, up to this message, and released.

        Once its peer has acknowledged it, its direct messages count as delivered.
        """
        with self._lock:
            member.has_caught_up = True
            self._track(member, max(upto_id, member.newest_direct_id))

    def _publish_portion(self, portion: Sequence[MessageBatch]) -> None:
        """The lock is held."""
        broadcasts = [broadcast for broadcast in self._broadcasts if broadcast.followed]
        for batch in portion:
            if batch.repeated:
                self._confirm(batch, SentStatus.SENT)
                continue
            if batch.recipient is None:
                self._publish_public(batch, broadcasts)
            else:
                self._publish_direct(batch, batch.recipient)
            self._last_id = batch.last_id
        for broadcast in broadcasts:
            broadcast.flush()

    def _publish_public(self, batch: MessageBatch, broadcasts: Sequence[BroadcastBuffer]) -> None:
        """One call of each encoder and one edit to the sender's stream, however many they are. The lock is held."""
        member = batch.member
        run = PublicBatch(batch.id, batch.time_ms, member.name, batch.texts)
        own = member.send_queue.broadcast
        start = end = own.tail
        for broadcast in broadcasts:
            span = broadcast.append([run])
            if broadcast is own:
                start, end = span
        member.send_queue.insert(start, end, [SentBatch(batch.id, batch.nonces)])

    def _publish_direct(self, batch: MessageBatch, recipient: Account) -> None:
        """The lock is held."""
        (text,) = batch.texts
        event = DirectMessage(batch.id, batch.time_ms, batch.member.name, recipient.name, text)
        members = [
            member
            for member in self._members.get(recipient.id, [])
            if member.guest is None or member.guest is recipient
        ]
        # The sender's other connections see it as well, as their history does. A guest has none.
        is_alone = recipient.id == batch.member.account_id or batch.member.guest is not None
        others = [] if is_alone else self._members.get(batch.member.account_id, [])
        for member in [*members, *(member for member in others if member is not batch.member)]:
            tail = member.send_queue.broadcast.tail
            member.send_queue.insert(tail, tail, [event])
        for member in members:
            member.newest_direct_id = batch.id
            if member.has_caught_up:
                self._track(member, batch.id)
        self._confirm(batch, SentStatus.SENT if members else SentStatus.STORED)

    def _confirm(self, batch: MessageBatch, status: SentStatus) -> None:
        """Of a single message. The lock is held."""
        (nonce,) = batch.nonces
        send_queue = batch.member.send_queue
        looks_public = batch.recipient is not None and batch.recipient.is_guest
        send_queue.insert(
            send_queue.broadcast.tail, send_queue.broadcast.tail, [Sent(batch.id, status, nonce, looks_public)]
        )

    def _track_all(self, member: Member) -> None:
        """Up to the newest message. Not of a guest, who is nobody when it comes again. The lock is held."""
        if member.has_caught_up and member.guest is None:
            self._track(member, self._last_id)

    def _track(self, member: Member, message_id: int) -> None:
        """Once the seat's peer has acknowledged all that it was told so far, this message is delivered. Locked."""
        member.send_queue.track(message_id, partial(self._deliveries.note, member.account_id))


def _portions(batches: Iterable[MessageBatch]) -> Iterator[list[MessageBatch]]:
    """The posts in their order, in pieces that may be shown at once."""
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
