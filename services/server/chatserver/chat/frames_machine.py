"""The state machine of the protocols frames and datagram: combines command and data steps into requests."""

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

    expected: type
    description: str
    transition: Callable[[FramesMachine, str], Request | None]


class FramesMachine:
    """The steps of one peer. An unexpected step resets the state: an operation is expected next."""

    __slots__ = ("_keywords", "_recipient", "_step_state", "ready_count")

    def __init__(self) -> None:
        # Ready events to send.
        self.ready_count = 0
        self._keywords = KEYWORD_SETS[DEFAULT_KEYWORDS]
        self._step_state = _OPERATION
        self._recipient = ""

    def handle_step(self, step: Command | Data, state: State) -> Request | None:
        """Return the request that this step completes, or None. ``state`` is the session's."""
        expected, description, transition = self._step_state if state is State.LOGGED_IN else _LOGIN[state]
        self._step_state = _OPERATION
        if type(step) is expected:
            return transition(self, step.text)
        reason = f"A {_KIND[expected]} frame was due, with {description}; this is a {_KIND[type(step)]} frame."
        return Unreadable(ErrorCode.NOT_LOGGED_IN if state is State.NOT_LOGGED_IN else ErrorCode.BAD_REQUEST, reason)

    def is_public(self, batch: CommandBatch) -> bool:
        """True if a batch of a logged-in user consists of complete public messages."""
        return self._step_state is _OPERATION and batch.text == self._keywords.public

    def reset(self) -> None:
        """Reset after unreadable input: an operation is expected next."""
        self._step_state = _OPERATION

    # --- transitions for the expected step; the next state is _OPERATION unless the transition sets another ---

    def read_username(self, text: str) -> Request:
        """Parse a username and options: a keyword set, and the request for the history id."""
        if text == self._keywords.leave:
            return requests.Leave()
        if text in WORDS:  # an operation before the login
            return Unreadable(ErrorCode.NOT_LOGGED_IN, "You are not logged in; send your username in a C frame first.")
        name, _, options = text.strip().partition(" ")
        option_words = options.split()
        wants_history_id = HISTORY_ID in option_words
        if wants_history_id:
            option_words.remove(HISTORY_ID)
        keywords = KEYWORD_SETS.get(" ".join(option_words) or DEFAULT_KEYWORDS)
        if keywords is None:
            reason = f"After the username there may be {' or '.join(KEYWORD_SETS)}, and {HISTORY_ID}, nothing else."
            return Unreadable(ErrorCode.BAD_REQUEST, reason)
        self._keywords = keywords
        return requests.Login(name, wants_history_id=wants_history_id, is_stepwise=True)

    def read_password(self, text: str) -> Request:
        """Return the password unchanged."""
        return requests.Password(text)

    def read_operation(self, text: str) -> Request | None:
        """Parse an operation, case-insensitive. A limit may follow the keyword of the history."""
        operation, _, limit = text.strip().upper().partition(" ")
        if operation == self._keywords.history:
            return _ask_history(limit.strip())
        begin = None if limit else _OPERATIONS_OF[self._keywords].get(operation)
        if begin is not None:
            return begin(self)
        known = ", ".join([*self._keywords, *_OTHER_OPERATIONS])
        reason = f"There is no operation {text[:32]!r}; there are {known}, each alone in its frame."
        return Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)

    def begin_public(self) -> None:
        """Expect the text of a public message."""
        self.ready_count += 1
        self._step_state = _PUBLIC_TEXT

    def begin_direct(self) -> Request:
        """Expect the recipient of a direct message, then its text."""
        self._step_state = _RECIPIENT
        return requests.AskUsers()

    def read_public_text(self, text: str) -> Request:
        """A public message."""
        return requests.Say(text)

    def read_recipient(self, text: str) -> None:
        """Set the recipient; it is checked with the complete request."""
        self._recipient = text.strip()
        self._step_state = _DIRECT_TEXT

    def read_direct_text(self, text: str) -> Request:
        """A direct message."""
        return requests.Whisper(self._recipient, text)


_OPERATION: Final = StepState(Command, "an operation", FramesMachine.read_operation)
_PUBLIC_TEXT: Final = StepState(Data, "the message", FramesMachine.read_public_text)
_RECIPIENT: Final = StepState(Command, "the recipient", FramesMachine.read_recipient)
_DIRECT_TEXT: Final = StepState(Data, "the message", FramesMachine.read_direct_text)
# Before the login, the session's state selects the step.
_LOGIN: Final = {
    State.NOT_LOGGED_IN: StepState(Command, "your username", FramesMachine.read_username),
    State.PASSWORD_REQUESTED: StepState(Command, "your password", FramesMachine.read_password),
}
# Operations outside the keyword sets.
_OTHER_OPERATIONS: Final[dict[str, Callable[[FramesMachine], Request | None]]] = {
    "USERS": lambda _: requests.AskUsers(),
    PING: lambda _: requests.Ping(),
}
_OPERATIONS_OF: Final[dict[Keywords, dict[str, Callable[[FramesMachine], Request | None]]]] = {
    keywords: {
        keywords.public: FramesMachine.begin_public,
        keywords.direct: FramesMachine.begin_direct,
        keywords.leave: lambda _: requests.Leave(),
        **_OTHER_OPERATIONS,
    }
    for keywords in KEYWORD_SETS.values()
}


def _ask_history(limit: str) -> Request:
    try:
        return requests.AskHistory(history_limit(limit))
    except RequestError as error:
        return Unreadable(error.code, error.reason)
