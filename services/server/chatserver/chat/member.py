"""Members of the hub, and the protocols of the buffers and queues that the hub writes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch


class BroadcastBuffer(Protocol):
    """The broadcast buffer of one room and wire protocol. Only the hub writes to it."""

    def append(self, events: Sequence[Event | EventBatch]) -> tuple[int, int]:
        """Encode and stage events until :meth:`flush`; return the positions of their start and end."""

    def flush(self) -> None:
        """Release all staged events to the followers."""

    def wait_for_sender(self, ahead_max_bytes: int = ..., limit_seconds: float | None = None) -> None:
        """Wait until the sender has at most ``ahead_max_bytes`` left to send, or until the limit.

        The default size is the maximum that the hub publishes ahead of the sender.
        """


class SendQueue(Protocol):
    """The unsent events of one connection, which follows broadcast buffers."""

    @property
    def protocol(self) -> str:
        """The name of its wire protocol: it follows buffers of this protocol only."""

    def follow(self, buffer: Any, /) -> None:
        """Follow the buffer from its end on. Nothing of it is sent before the release."""

    def unfollow(self, buffer: Any, /) -> None:
        """Stop following the buffer after the data flushed so far."""

    def insert(self, events: Sequence[Event | EventBatch], /) -> None:
        """Send these events on this connection alone, after everything staged in the buffers that it follows."""

    def replace(self, buffer: Any, start: int, end: int, events: Sequence[Event | EventBatch] = (), /) -> None:
        """Send these events instead of the staged bytes of the buffer from start to end, which it follows."""

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        """Call back with the number after the peer's system has acknowledged all earlier data."""

    def check_acknowledged(self) -> None:
        """Poll the acknowledgements of the peer's system and call back."""

    def release(self, events: Sequence[Event]) -> None:
        """Send the last missed events, then continue with the buffer."""

    def put(self, events: Sequence[Event]) -> None:
        """Send the events on this connection."""

    def put_long(self, event: Event, /) -> None:
        """Send an answer with many messages, as the peer reads. Live events wait. For its reader thread."""

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        """Send the last events; with ``hang_up``, also stop reading. For any thread."""

    def wait_for_room(self) -> bool:
        """Wait while the peer has too many unread replies. False if the connection ends. For its reader thread."""


class Member:
    """One logged-in connection, or a guest's pair of them. A user may have several.

    A guest is no member of the hub: AckedDelivery delivers to it.
    """

    __slots__ = (
        "account_id",
        "has_appended",
        "has_caught_up",
        "knows_rooms",
        "name",
        "newest_direct_id",
        "send_queue",
    )

    def __init__(self, account_id: int, name: str, send_queue: SendQueue, *, knows_rooms: bool = False) -> None:
        self.account_id = account_id
        self.name = name
        self.send_queue = send_queue
        # True if the connection gets the events of rooms. Set under the hub's lock, by the reader thread alone.
        self.knows_rooms = knows_rooms
        # True after the send queue got all missed messages. Earlier, queued data may be dropped. Under the hub's lock.
        self.has_caught_up = False
        self.newest_direct_id = 0
        # True if messages were appended since the last wait_for_pending. Reader thread only.
        self.has_appended = False
