"""Coming back in a dialect that has no word for it: what was missed is looked for in the history. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chatclient.client_protocol import DeliveryUnknown, PossibleGap
from chatprotocol.events import DirectMessage, History, PublicMessage, Sent, SentStatus
from chatprotocol.requests import Say
from chatprotocol.rules import name_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatclient.client_protocol import ClientEvent
    from chatprotocol.events import Message, Welcome
    from chatprotocol.requests import Whisper


# Messages that may arrive before the history has: as many as a server's history can have, twice.
_HELD_MAX_MESSAGES: Final = 1_000


class Resume:
    """Between coming back and having read the history. The :attr:`welcome` is no news before that.

    ``known_id`` is the newest message that was known before; None, and nothing can be told to be new. ``is_other`` says
    that it was in another history than the server's: then all that the server has may be new, and only who remembers
    what was seen can tell that it is not.
    """

    def __init__(self, welcome: Welcome, known_id: int | None, *, is_other: bool) -> None:
        self.welcome = welcome
        self._known_id = known_id
        self._is_other = is_other
        self._history: tuple[Message, ...] = ()
        # What is new to this client, by id. Before the history was read: what has arrived meanwhile.
        self._missed: dict[int, Message] = {}
        # Does the history not reach back to what was known?
        self._has_gap = True
        self._has_dropped = False

    def hold(self, message: Message) -> None:
        """Something new, which comes behind what was missed. Of too much the oldest is dropped: there is a gap then."""
        self._missed[message.id] = message
        if len(self._missed) > _HELD_MAX_MESSAGES:
            del self._missed[next(iter(self._missed))]
            self._has_dropped = True

    def read(self, history: Sequence[Message]) -> None:
        """The history, the oldest message first; nothing where it was refused."""
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

    def complete(self, said: Say | Whisper) -> Sent | DeliveryUnknown | None:
        """What became of a message that was not confirmed; None: it was not stored, and can be sent again."""
        if self._known_id is None or self._is_other:
            return DeliveryUnknown(said)
        kind = PublicMessage if isinstance(said, Say) else DirectMessage
        for message in self._missed.values():
            is_own = name_key(message.sender) == name_key(self.welcome.username)
            if is_own and isinstance(message, kind) and message.text == said.text:
                del self._missed[message.id]
                return Sent(message.id, SentStatus.SENT, said.nonce)
        return DeliveryUnknown(said) if self._has_gap else None

    def missed(self) -> list[ClientEvent]:
        """What was missed, and did not settle anything: each message once and in order."""
        new: list[ClientEvent] = [self._missed[message_id] for message_id in sorted(self._missed)]
        if self._known_id is not None:
            return [PossibleGap(), *new] if self._has_gap else new
        # Nothing is known to be new: so it is shown as what it is.
        shown = {message.id for message in self._history}
        gap = [PossibleGap()] if self._is_other else []
        return [*gap, History(self._history), *(self._missed[number] for number in sorted(self._missed.keys() - shown))]
