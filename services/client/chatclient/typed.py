"""What was typed: lines to operations, in one line or step by step. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from chatclient.exchange import OpenDirect, OpenPublic
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES, HISTORY_MAX_MESSAGES
from chatprotocol.requests import AskHistory, AskUsers, Leave, Say, Whisper

if TYPE_CHECKING:
    from chatclient.exchange import Wish
    from chatprotocol.operations import Words


class Step(Enum):
    """What the next typed line is, in the middle of a dialogue."""

    OPERATION = "operation"
    PUBLIC_TEXT = "message"
    RECIPIENT = "recipient"
    DIRECT_TEXT = "message to one user"


class Typed(NamedTuple):
    """What follows from a typed line: a wish, a complaint, or help; and the question that is asked next.

    With a wish that opens something, the question is for when its answer has come.
    """

    wish: Wish | None = None
    question: str | None = None
    complaint: str | None = None
    wants_help: bool = False


class Dialogue:
    """Where a person stands between two lines. Feed it lines; it remembers the step."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.step = Step.OPERATION
        self._recipient = ""

    def feed(self, line: str) -> Typed:
        """Take one line, without its end."""
        step, self.step = self.step, Step.OPERATION
        if step is Step.OPERATION:
            return self._operation(line.strip())
        if not line.strip():
            return Typed(complaint="Nothing was typed; the operation is cancelled.")
        if step is Step.PUBLIC_TEXT:
            return Typed(Say(line))
        if step is Step.RECIPIENT:
            return self._take_recipient(line.strip().removeprefix("@"))
        return self._addressed(self._recipient, line)

    def cancel(self) -> None:
        """The server did not want it: the next line is an operation."""
        self.step = Step.OPERATION

    def is_leave(self, line: str) -> bool:
        """Would this line, now, be the wish to leave?"""
        return self.step is Step.OPERATION and line.strip().upper() in (self._words.leave, "/QUIT")

    def hint(self) -> str:
        """What somebody needs who comes in for the first time."""
        words = self._words
        return f"Type {words.public}, {words.direct}, {words.history} or {words.leave}; /help tells more."

    def prompt(self) -> str:
        """What is asked between two operations."""
        return f"operation ({', '.join(self._words)})"

    def help(self) -> list[str]:
        """One line for each operation."""
        words = self._words
        return [
            f"{words.public} [MESSAGE]        a public message, to everybody (also: @ALL MESSAGE)",
            f"{words.direct} [USER MESSAGE]   a direct message, to one user (also: @USER MESSAGE)",
            f"{words.history} [NUMBER]         the last messages that you may see",
            f"{words.leave}                  leave (also: /quit)",
            "/users              who is online",
            "/help               this list",
        ]

    def _operation(self, line: str) -> Typed:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        words = self._words
        if not word:
            return Typed()
        if word.startswith("@"):
            return self._addressed(word[1:], rest)
        operation = word.upper()
        if operation == words.public:
            return self._public(rest)
        if operation == words.direct:
            return self._direct(rest)
        if operation == words.history:
            return self._history(rest)
        if operation in (words.leave, "/QUIT"):
            return Typed(Leave())
        if operation == "/USERS":
            return Typed(AskUsers())
        if operation == "/HELP":
            return Typed(wants_help=True)
        return Typed(
            complaint=f"{word} is no operation, so nothing was sent. There are {words.public} (to everybody), "
            f"{words.direct} (to one user), {words.history} (history), {words.leave} (leave) and /help."
        )

    def _take_recipient(self, recipient: str) -> Typed:
        if not recipient:
            return Typed(complaint="A name is missing; the operation is cancelled.")
        self._recipient = recipient
        self.step = Step.DIRECT_TEXT
        return Typed(question=f"message for {recipient}")

    def _public(self, text: str) -> Typed:
        if text:
            return Typed(Say(text))
        self.step = Step.PUBLIC_TEXT
        return Typed(OpenPublic(), question="message for everybody")

    def _direct(self, rest: str) -> Typed:
        if not rest:
            self.step = Step.RECIPIENT
            return Typed(OpenDirect(), question="recipient")
        recipient, _, text = rest.partition(" ")
        return self._addressed(recipient.removeprefix("@"), text.strip())

    def _addressed(self, recipient: str, text: str) -> Typed:
        if not recipient or not text:
            return Typed(complaint=f"A direct message needs a user and a text: {self._words.direct} bob hello")
        return Typed(Say(text) if recipient.upper() == "ALL" else Whisper(recipient, text))

    def _history(self, rest: str) -> Typed:
        if not rest:
            return Typed(AskHistory(HISTORY_DEFAULT_MESSAGES))
        if re.fullmatch("[0-9]{1,9}", rest) and 1 <= int(rest) <= HISTORY_MAX_MESSAGES:
            return Typed(AskHistory(int(rest)))
        return Typed(complaint=f"{self._words.history} takes a number from 1 to {HISTORY_MAX_MESSAGES}.")
