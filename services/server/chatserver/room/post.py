"""A post: a message on its way from the session that accepted it to the disk and to everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from chatserver.room.seat import Seat
    from chatserver.store.accounts import Account


class Post(Struct, gc=False, eq=False):
    """A message that was accepted. The journal gives it its id and time; then it is stored, and never changes."""

    seat: Seat
    text: str
    nonce: str | None
    # None: it is for everybody.
    recipient: Account | None = None
    id: int = 0
    time_ms: int = 0
    # The sender sent it before, with this nonce: it has that message's id, and is not delivered again.
    repeated: bool = False
