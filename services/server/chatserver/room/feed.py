"""The feed: what was committed goes to everybody, encoded once for each dialect in use."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.events import DirectMessage, PublicRun, Refused, Sent, SentRun, SentStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chatprotocol.events import Users
    from chatserver.room.deliveries import DeliveryMarks
    from chatserver.room.post import Post
    from chatserver.room.seat import Seat, Stream
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


class Feed:
    """Everybody who is in the room, and the streams that they follow.

    ``wake`` is called after something was published: it tells the courier.
    """

    def __init__(
        self, streams: Sequence[Stream], last_id: int, deliveries: DeliveryMarks, wake: Callable[[], None]
    ) -> None:
        self._streams = streams
        self._deliveries = deliveries
        self._wake = wake
        # Guards everything below, and the order in which streams and outboxes are written.
        self._lock = threading.Lock()
        self._last_id = last_id
        self._seats: dict[int, list[Seat]] = {}

    def check_acknowledged(self, account_id: int) -> None:
        """Look what the account's devices have acknowledged, so that its mark is up to date. Before a login."""
        with self._lock:
            seats = self._seats.get(account_id, [])[-_CHECKED_MAX:]
        for seat in seats:
            seat.outbox.check_acknowledged()

    def join(self, seat: Seat) -> Joined:
        """Take a seat, whose outbox is held from now on: put what it missed, and release it."""
        with self._lock:
            seats = self._seats.setdefault(seat.account_id, [])
            seats.append(seat)
            seat.outbox.follow()
            return Joined(self._last_id, self._deliveries.newest(seat.account_id), len(seats) == 1)

    def leave(self, seat: Seat) -> None:
        """Give the seat up: nothing that is published later is for it.

        Once its peer has acknowledged all that was, the account's mark moves up to the newest message.
        """
        with self._lock:
            seats = self._seats[seat.account_id]
            seats.remove(seat)
            if not seats:
                del self._seats[seat.account_id]
            seat.outbox.unfollow()
            self._track_all(seat)

    def end(self) -> None:
        """Nothing more is published, and everybody leaves: see :meth:`leave`."""
        with self._lock:
            for seats in self._seats.values():
                for seat in seats:
                    self._track_all(seat)

    def last_id(self) -> int:
        """The newest message that was published: what is put into an outbox now comes behind it."""
        with self._lock:
            return self._last_id

    def publish(self, posts: Iterable[Post]) -> None:
        """Deliver and confirm what was committed, in this order. For the journal thread."""
        for portion in _portions(posts):
            for stream in self._streams:
                stream.wait_for_sender()
            with self._lock:
                self._publish_portion(portion)
            self._wake()

    def wait_for_sender(self, limit_seconds: float) -> None:
        """Wait until what was published has been offered to everybody, but no longer than this."""
        patience_ends = time.monotonic() + limit_seconds
        for stream in self._streams:
            stream.wait_for_sender(0, patience_ends - time.monotonic())

    def refuse(self, posts: Iterable[Post], refusal: Refused) -> None:
        """Tell the senders that nothing was stored. For the journal thread."""
        with self._lock:
            for post in posts:
                outbox = post.seat.outbox
                answers = [Refused(refusal.code, refusal.reason, nonce) for nonce in post.nonces]
                outbox.insert(outbox.stream.tail, outbox.stream.tail, answers)
        self._wake()

    def announce(self, update: Users, version: int) -> None:
        """Tell everybody who is in, except those whose login said as much. For the presence thread."""
        with self._lock:
            spans = {id(stream): stream.append([update]) for stream in self._streams if stream.followed}
            for seats in self._seats.values():
                for seat in seats:
                    if seat.presence_version >= version:
                        seat.outbox.insert(*spans[id(seat.outbox.stream)], [])
            for stream in self._streams:
                stream.flush()
        self._wake()

    def catch_up(self, seat: Seat, upto_id: int) -> None:
        """The seat was given all that it missed, up to this message, and released.

        Once its peer has acknowledged it, its direct messages count as delivered.
        """
        with self._lock:
            seat.has_caught_up = True
            self._track(seat, max(upto_id, seat.newest_direct_id))

    def _publish_portion(self, portion: Sequence[Post]) -> None:
        """The lock is held."""
        streams = [stream for stream in self._streams if stream.followed]
        for post in portion:
            if post.repeated:
                self._confirm(post, SentStatus.SENT)
                continue
            if post.recipient is None:
                self._publish_public(post, streams)
            else:
                self._publish_direct(post, post.recipient)
            self._last_id = post.last_id
        for stream in streams:
            stream.flush()

    def _publish_public(self, post: Post, streams: Sequence[Stream]) -> None:
        """One call of each encoder and one edit to the sender's stream, however many they are. The lock is held."""
        seat = post.seat
        run = PublicRun(post.id, post.time_ms, seat.name, post.texts)
        own = seat.outbox.stream
        start = end = own.tail
        for stream in streams:
            span = stream.append([run])
            if stream is own:
                start, end = span
        seat.outbox.insert(start, end, [SentRun(post.id, post.nonces)])

    def _publish_direct(self, post: Post, recipient: Account) -> None:
        """The lock is held."""
        (text,) = post.texts
        event = DirectMessage(post.id, post.time_ms, post.seat.name, recipient.name, text)
        seats = [seat for seat in self._seats.get(recipient.id, []) if seat.guest is None or seat.guest is recipient]
        # The sender's other connections see it as well, as their history does. A guest has none.
        is_alone = recipient.id == post.seat.account_id or post.seat.guest is not None
        others = [] if is_alone else self._seats.get(post.seat.account_id, [])
        for seat in [*seats, *(seat for seat in others if seat is not post.seat)]:
            tail = seat.outbox.stream.tail
            seat.outbox.insert(tail, tail, [event])
        for seat in seats:
            seat.newest_direct_id = post.id
            if seat.has_caught_up:
                self._track(seat, post.id)
        self._confirm(post, SentStatus.SENT if seats else SentStatus.STORED)

    def _confirm(self, post: Post, status: SentStatus) -> None:
        """Of a single message. The lock is held."""
        (nonce,) = post.nonces
        outbox = post.seat.outbox
        looks_public = post.recipient is not None and post.recipient.is_guest
        outbox.insert(outbox.stream.tail, outbox.stream.tail, [Sent(post.id, status, nonce, looks_public)])

    def _track_all(self, seat: Seat) -> None:
        """Up to the newest message. Not of a guest, who is nobody when it comes again. The lock is held."""
        if seat.has_caught_up and seat.guest is None:
            self._track(seat, self._last_id)

    def _track(self, seat: Seat, message_id: int) -> None:
        """Once the seat's peer has acknowledged all that it was told so far, this message is delivered. Locked."""
        seat.outbox.track(message_id, partial(self._deliveries.note, seat.account_id))


def _portions(posts: Iterable[Post]) -> Iterator[list[Post]]:
    """The posts in their order, in pieces that may be shown at once."""
    portion: list[Post] = []
    characters = 0
    for post in posts:
        portion.append(post)
        characters += sum(map(len, post.texts)) + _MESSAGE_CHARACTERS * len(post.texts)
        if characters >= _PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion
