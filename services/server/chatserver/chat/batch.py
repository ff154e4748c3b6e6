"""Message batches: accepted messages on the way from a session to the journal and the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from chatserver.chat.delivery import Ack
    from chatserver.chat.member import Member
    from chatserver.store.accounts import Account


class MessageBatch(Struct, gc=False, eq=False):
    """Consecutive public messages of one member, or one direct message.

    The journal sets the id and the time before the commit; a batch does not change after the commit.
    """

    member: Member
    texts: list[str]
    # One for each text; None if the client sent no nonce.
    nonces: list[str | None]
    # None for public messages.
    recipient: Account | None = None
    # The ack of a guest's message; None for other members, which are confirmed through their send queue.
    ack: Ack | None = None
    # Id of the first message; the following messages have the next ids.
    id: int = 0
    time_ms: int = 0
    # True if the nonce was used before. The batch is then a single message with the id of the earlier message, and is
    # confirmed but not delivered.
    repeated: bool = False

    @property
    def last_id(self) -> int:
        """Id of the last message."""
        return self.id + len(self.texts) - 1
