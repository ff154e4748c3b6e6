"""A post: a message on its way from the session that accepted it to the disk and to everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatserver.room.seat import Seat
    from chatserver.store.accounts import Account


class Post:
    """A message that was accepted. The journal gives it its id and time; then it is stored, and never changes."""

    __slots__ = ("id", "nonce", "recipient", "repeated", "seat", "text", "time_ms")

    def __init__(self, seat: Seat, text: str, nonce: str | None, recipient: Account | None = None) -> None:
        self.seat = seat
        self.text = text
        self.nonce = nonce
        self.recipient = recipient
        self.id = 0
        self.time_ms = 0
        # The sender sent it before, with this nonce: it has that message's id, and is not delivered again.
        self.repeated = False
