"""The state machine of the frames protocol: it combines command and data steps into requests."""

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
    """A state: the expected step type, its description for errors, and the transition."""

    due: type
    what: str
    move: Callable[[Dialogue, str], Request | None]


class Dialogue:
    """The steps of one peer. An unexpected step resets it: an operation is expected next."""

    __slots__ = ("_place", "_recipient", "_words", "readies")

    def __init__(self) -> None:
        # Ready events to send.
        self.readies = 0
        self._words = KEYWORD_SETS[DEFAULT_KEYWORDS]
        self._place = _OPERATION
        self._recipient = ""

    def handle_step(self, given: Command | Data, state: State) -> Request | None:
        """Return the request that this step completes, or None. ``state`` is the session's."""
        due, what, move = self._place if state is State.INSIDE else _LOGIN[state]
        self._place = _OPERATION
        if type(given) is due:
            return move(self, given.text)
        reason = f"A {_KIND[due]} frame was due, with {what}; this is a {_KIND[type(given)]} frame."
        return Unreadable(ErrorCode.NOT_LOGGED_IN if state is State.OUTSIDE else ErrorCode.BAD_REQUEST, reason)

    def is_public(self, run: CommandBatch) -> bool:
        """True if a batch of a logged-in user consists of complete public messages."""
        return self._place is _OPERATION and run.text == self._words.public

    def abandon(self) -> None:
        """Reset after unreadable input: an operation is expected next."""
        self._place = _OPERATION

    # --- transitions for the expected step; the next state is _OPERATION unless the transition sets another ---

    def come_in(self, text: str) -> Request:
        """Parse a username and options: a keyword set, and the request for the history id."""
        if text == self._words.leave:
            return requests.Leave()
        if text in WORDS:  # an operation before the login
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
        """Return the password unchanged."""
        return requests.Password(text)

    def begin(self, text: str) -> Request | None:
        """Parse an operation, case-insensitive; a limit may follow the one for the history."""
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
        """Expect the text of a public message."""
        self.readies += 1
        self._place = _PUBLIC_TEXT

    def begin_direct(self) -> Request:
        """Expect the recipient of a direct message, then its text."""
        self._place = _RECIPIENT
        return requests.AskUsers()

    def say(self, text: str) -> Request:
        """A public message."""
        return requests.Say(text)

    def name_recipient(self, text: str) -> None:
        """Set the recipient; it is checked with the complete request."""
        self._recipient = text.strip()
        self._place = _DIRECT_TEXT

    def whisper(self, text: str) -> Request:
        """A direct message."""
        return requests.Whisper(self._recipient, text)


_OPERATION: Final = StepState(Command, "an operation", Dialogue.begin)
_PUBLIC_TEXT: Final = StepState(Data, "the message", Dialogue.say)
_RECIPIENT: Final = StepState(Command, "the recipient", Dialogue.name_recipient)
_DIRECT_TEXT: Final = StepState(Data, "the message", Dialogue.whisper)
# Before the login, the session's state selects the step.
_LOGIN: Final = {
    State.OUTSIDE: StepState(Command, "your username", Dialogue.come_in),
    State.ASKED: StepState(Command, "your password", Dialogue.give_password),
}
# Operations outside the keyword sets.
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
