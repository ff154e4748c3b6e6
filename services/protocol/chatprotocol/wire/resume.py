"""Reconnect in a protocol without resumption: finds missed messages in the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chatprotocol.events import DirectMessage, History, PublicMessage, Sent, SentStatus
from chatprotocol.requests import Say
from chatprotocol.rules import name_key
from chatprotocol.wire.base import DeliveryUnknown, PossibleGap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Message, Welcome
    from chatprotocol.requests import Whisper
    from chatprotocol.wire.base import ClientEvent


# Maximum number of messages held until the history arrives: twice the longest history.
_HELD_MAX_MESSAGES: Final = 1_000


class Resume:
    """State between the login and the history. Call :meth:`hold`, then :meth:`read` once, then the other methods.

    :attr:`welcome` is complete after :meth:`read`.

    ``known_id`` is the id of the newest known message; with None, no message can be identified as new. ``is_other`` is
    true if ``known_id`` belongs to another history: every message may then be new, and the caller must drop the
    messages that it has seen.
    """

    def __init__(self, welcome: Welcome, known_id: int | None, *, is_other: bool) -> None:
        self.welcome = welcome
        self._known_id = known_id
        self._is_other = is_other
        self._history: tuple[Message, ...] = ()
        # New messages by id. Before read(): messages that arrived since the login.
        self._missed: dict[int, Message] = {}
        # True if the history does not reach back to the known message.
        self._has_gap = True
        self._has_dropped = False

    def hold(self, message: Message) -> None:
        """Keep a new message until the history is read. Beyond the limit the oldest is dropped, which makes a gap."""
        self._missed[message.id] = message
        if len(self._missed) > _HELD_MAX_MESSAGES:
            del self._missed[next(iter(self._missed))]
            self._has_dropped = True

    def read(self, history: Sequence[Message]) -> None:
        """Take the history, oldest message first; empty if the request was rejected."""
        if not history:
            return
        self._history = (*history,)
        self.welcome = replace(self.welcome, last_id=history[-1].id)
        if self._known_id is None:
            return
        self._is_other |= history[-1].id < self._known_id
        self._has_gap = self._is_other or self._has_dropped or history[0].id > self._known_id
        for message in history:
            if self._is_other or message.id > self._known_id:
                self._missed[message.id] = message

    def outcome_of(self, own_message: Say | Whisper) -> Sent | DeliveryUnknown | None:
        """Outcome of an unconfirmed message. None if it was not stored and can be sent again."""
        if self._known_id is None or self._is_other:
            return DeliveryUnknown(own_message)
        kind = PublicMessage if isinstance(own_message, Say) else DirectMessage
        for message in self._missed.values():
            is_own = name_key(message.sender) == name_key(self.welcome.username)
            if is_own and isinstance(message, kind) and message.text == own_message.text:
                del self._missed[message.id]
                return Sent(message.id, SentStatus.SENT, own_message.nonce)
        return DeliveryUnknown(own_message) if self._has_gap else None

    def missed(self) -> list[ClientEvent]:
        """The missed messages without this client's own: each once, in order."""
        new: list[ClientEvent] = [self._missed[message_id] for message_id in sorted(self._missed)]
        if self._known_id is not None:
            return [PossibleGap(), *new] if self._has_gap else new
        # No message is known to be new, so the history is shown as a history.
        shown_ids = {message.id for message in self._history}
        gap = [PossibleGap()] if self._is_other else []
        return [
            *gap,
            History(self._history),
            *(self._missed[number] for number in sorted(self._missed.keys() - shown_ids)),
        ]
