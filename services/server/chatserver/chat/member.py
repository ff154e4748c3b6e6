"""A seat: one logged-in connection's place in the room, and what the room asks of the streams it writes to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Run
    from chatserver.store.accounts import Account


class BroadcastBuffer(Protocol):
    """One dialect's append-only stream of what everybody hears. Only the feed writes to it."""

    @property
    def followed(self) -> bool:
        """Is anybody listening in this dialect?"""

    def append(self, events: Sequence[Event | Run]) -> tuple[int, int]:
        """Encode events behind the others, unseen until :meth:`show`; where they begin and end."""

    @property
    def tail(self) -> int:
        """Where the next event will begin."""

    def flush(self) -> None:
        """Let everything that was appended be seen."""

    def wait_for_sender(self, ahead_max_bytes: int = ..., limit_seconds: float | None = None) -> None:
        """Wait while the courier has more than this still to offer, but for no longer than the limit.

        Without a size it is what writers may be ahead of the courier: they may not run away from it.
        """


class Follower(Protocol):
    """One who hears what everybody hears, and what is for it alone. What the feed asks of it."""

    @property
    def broadcast(self) -> BroadcastBuffer:
        """The stream of its dialect."""

    def follow(self) -> None:
        """Listen from here on; what is shown is kept back until it is released."""

    def unfollow(self) -> None:
        """Listen to nothing after what is shown now."""

    def insert(self, start: int, end: int, events: Sequence[Event | Run], /) -> None:
        """In the place of the stream's bytes from start to end, say these events."""

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        """Tell of the number once the peer's system has acknowledged all that was said or shown before."""

    def check_acknowledged(self) -> None:
        """Look what the peer's system has acknowledged, and tell of it."""


class SendQueue(Follower, Protocol):
    """What one connection is still to be sent."""

    def release(self, events: Sequence[Event]) -> None:
        """Say this, which is the last of what it missed, and go on to the stream."""

    def put(self, events: Sequence[Event], *, alone: bool = True) -> None:
        """Say this to the one connection, as soon as may be.

        What is not alone goes out with what is spliced in next.
        """

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        """Say this, and nothing more; where it hangs up, listen to nothing more either. For any thread."""

    def wait_for_room(self) -> bool:
        """Wait while the peer leaves too many answers unread; false when the connection ends. For its reader thread."""


class Member:
    """One logged-in connection, or a guest's pair of them. A user may have several."""

    __slots__ = (
        "account_id",
        "guest",
        "has_caught_up",
        "has_posted",
        "name",
        "newest_direct_id",
        "presence_version",
        "send_queue",
    )

    def __init__(self, account_id: int, name: str, send_queue: Follower, guest: Account | None = None) -> None:
        self.account_id = account_id
        # Of a guest, what stands for it as long as it is here: the next one of that name is somebody else.
        self.guest = guest
        self.name = name
        self.send_queue = send_queue
        # Which presence the login's list of users showed; until there is one, no update is for it. See Presence.
        self.presence_version = sys.maxsize
        # Was it given what it missed? Until then what is put in line may never be sent. Under the feed's lock.
        self.has_caught_up = False
        self.newest_direct_id = 0
        # Has it posted since its posts were last known to be settled? Its reader thread's own.
        self.has_posted = False
