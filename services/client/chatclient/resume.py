"""Coming back in a dialect that has no word for it: what was missed is looked for in the history. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, PublicMessage, Refused, Sent, SentStatus
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES
from chatprotocol.requests import Say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Whisper


class Resume:
    """Between coming back and having read the history.

    ``newest_id`` is the newest message that was seen before; None, and nothing can be told to be new.
    """

    def __init__(self, username: str, newest_id: int | None) -> None:
        self._username = username
        self._newest_id = newest_id
        # What arrived meanwhile: what was missed comes before it.
        self._held: list[Message] = []
        # Own messages that the history has and that were not known to be stored.
        self._own: list[Message] = []
        # May there be more that was missed than the history showed?
        self._has_gap = False

    def hold(self, message: Message) -> None:
        """Keep it until the history was read."""
        self._held.append(message)

    def read(self, history: Sequence[Message]) -> list[Message]:
        """All that was missed and what was held, each message once, in order. Nothing where the history was refused."""
        newest_id = self._newest_id
        if newest_id is None:
            self._has_gap = True
            return self._held
        self._has_gap = len(history) >= HISTORY_DEFAULT_MESSAGES and history[0].id > newest_id
        found = {message.id: message for message in (*history, *self._held) if message.id > newest_id}
        self._own = [message for message in found.values() if message.sender == self._username]
        return [found[message_id] for message_id in sorted(found) if found[message_id] not in self._own]

    def answer(self, said: Say | Whisper) -> Event | None:
        """What became of a message that was sent and not confirmed; None: it was not stored, and can be sent again."""
        kind = PublicMessage if isinstance(said, Say) else DirectMessage
        for message in self._own:
            if isinstance(message, kind) and message.text == said.text:
                self._own.remove(message)
                return Sent(message.id, SentStatus.SENT, said.nonce)
        if not self._has_gap:
            return None
        reason = "The connection was lost before it was confirmed; look at the history whether it was stored."
        return Refused(ErrorCode.INTERNAL, reason, said.nonce)
