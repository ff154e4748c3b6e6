"""The dialogue of peers that go one step at a time: commands and data become the requests that they mean together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.keywords import DEFAULT_KEYWORDS, HISTORY_ID, KEYWORD_SETS, PING, WORDS, Keywords
from chatprotocol.requests import Command, CommandBatch, Data, Unreadable
from chatprotocol.rules import history_limit
from chatserver.chat.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.requests import Request

_KIND: Final[dict[type, str]] = {Command: "C", Data: "D"}


class StepState(NamedTuple):
    """Where a dialogue stands: what is due there, and the move that it means. The rest is out of place."""

    due: type
    what: str
    move: Callable[[Dialogue, str], Request | None]


class Dialogue:
    """What one peer has said of an operation so far. After a step that is out of place an operation is due again."""

    __slots__ = ("_place", "_recipient", "_words", "readies")

    def __init__(self) -> None:
        # How often the peer is still to be told to go on.
        self.readies = 0
        self._words = KEYWORD_SETS[DEFAULT_KEYWORDS]
        self._place = _OPERATION
        self._recipient = ""

    def handle_step(self, given: Command | Data, state: State) -> Request | None:
        """The request that is complete with this step, if one is. ``state`` is where the connection stands."""
        due, what, move = self._place if state is State.INSIDE else _LOGIN[state]
        self._place = _OPERATION
        if type(given) is due:
            return move(self, given.text)
        reason = f"A {_KIND[due]} frame was due, with {what}; this is a {_KIND[type(given)]} frame."
        return Unreadable(ErrorCode.NOT_LOGGED_IN if state is State.OUTSIDE else ErrorCode.BAD_REQUEST, reason)

    def is_public(self, run: CommandBatch) -> bool:
        """Of somebody who is logged in: are these public messages, of which all steps are in their place?"""
        return self._place is _OPERATION and run.text == self._words.public

    def abandon(self) -> None:
        """What came in the place of a step could not be read: an operation is due."""
        self._place = _OPERATION

    # --- moves: what a step of the kind that is due means. Then an operation is due, if the move says nothing else ---

    def come_in(self, text: str) -> Request:
        """A username; after it may come the tradition of the operations, and whether the history's id is wanted."""
        if text == self._words.leave:
            return requests.Leave()
        if text in WORDS:  # meant as an operation
            return Unreadable(ErrorCode.NOT_LOGGED_IN, "You are not logged in; send your username in a C frame first.")
        name, _, options = text.strip().partition(" ")
        chosen = options.split()
        wants_history_id = HISTORY_ID in chosen
        if wants_history_id:
            chosen.remove(HISTORY_ID)
        words = KEYWORD_SETS.get(" ".join(chosen) or DEFAULT_KEYWORDS)
        if words is None:
            reason = f"After the username there may be {' or '.join(KEYWORD_SETS)}, and {HISTORY_ID}, nothing else."
            return Unreadable(ErrorCode.BAD_REQUEST, reason)
        self._words = words
        return requests.Login(name, wants_history_id=wants_history_id, is_stepwise=True)

    def give_password(self, text: str) -> Request:
        """Taken as it is."""
        return requests.Password(text)

    def begin(self, text: str) -> Request | None:
        """An operation, in any case; behind the one for the history may stand a number."""
        operation, _, limit = text.strip().upper().partition(" ")
        if operation == self._words.history:
            return _ask_history(limit.strip())
        begin = None if limit else _OPERATIONS_OF[self._words].get(operation)
        if begin is not None:
            return begin(self)
        known = ", ".join([*self._words, *_CONVENIENCES])
        reason = f"There is no operation {text[:32]!r}; there are {known}, each alone in its frame."
        return Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)

    def begin_public(self) -> None:
        """A public message: its text is next."""
        self.readies += 1
        self._place = _PUBLIC_TEXT

    def begin_direct(self) -> Request:
        """A direct message: its recipient is next, and then its text."""
        self._place = _RECIPIENT
        return requests.AskUsers()

    def say(self, text: str) -> Request:
        """A public message."""
        return requests.Say(text)

    def name_recipient(self, text: str) -> None:
        """Whether there is such a user is looked at when the message has come."""
        self._recipient = text.strip()
        self._place = _DIRECT_TEXT

    def whisper(self, text: str) -> Request:
        """A direct message."""
        return requests.Whisper(self._recipient, text)


_OPERATION: Final = StepState(Command, "an operation", Dialogue.begin)
_PUBLIC_TEXT: Final = StepState(Data, "the message", Dialogue.say)
_RECIPIENT: Final = StepState(Command, "the recipient", Dialogue.name_recipient)
_DIRECT_TEXT: Final = StepState(Data, "the message", Dialogue.whisper)
# Until a peer is logged in, where it stands is for the session to say.
_LOGIN: Final = {
    State.OUTSIDE: StepState(Command, "your username", Dialogue.come_in),
    State.ASKED: StepState(Command, "your password", Dialogue.give_password),
}
# Beyond the four of the traditions.
_CONVENIENCES: Final[dict[str, Callable[[Dialogue], Request | None]]] = {
    "USERS": lambda _: requests.AskUsers(),
    PING: lambda _: requests.Ping(),
}
_OPERATIONS_OF: Final[dict[Keywords, dict[str, Callable[[Dialogue], Request | None]]]] = {
    words: {
        words.public: Dialogue.begin_public,
        words.direct: Dialogue.begin_direct,
        words.leave: lambda _: requests.Leave(),
        **_CONVENIENCES,
    }
    for words in KEYWORD_SETS.values()
}


def _ask_history(limit: str) -> Request:
    try:
        return requests.AskHistory(history_limit(limit))
    except RequestError as error:
        return Unreadable(error.code, error.reason)
