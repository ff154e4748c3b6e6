"""A post: messages on their way from the session that accepted them to the disk and to everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from chatserver.chat.member import Member
    from chatserver.store.accounts import Account


class MessageBatch(Struct, gc=False, eq=False):
    """What one seat said in a row to everybody, or to one other: that is a single message. It was accepted.

    The journal gives it its id and time; then it is stored, and never changes.
    """

    member: Member
    texts: list[str]
    # One for each text, or None where the client gave none.
    nonces: list[str | None]
    # None: it is for everybody.
    recipient: Account | None = None
    # Of the first message; the others have those that follow.
    id: int = 0
    time_ms: int = 0
    # The sender sent it before, with its nonce: it has that message's id, and is not delivered again. A single message.
    repeated: bool = False

    @property
    def last_id(self) -> int:
        """Of the last message."""
        return self.id + len(self.texts) - 1
