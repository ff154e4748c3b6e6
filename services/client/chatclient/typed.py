"""What was typed: lines to operations, in one line or step by step. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from chatclient.exchange import OpenDirect, OpenPublic
from chatprotocol.errors import Refusal
from chatprotocol.requests import AskHistory, AskUsers, Leave, Say, Whisper
from chatprotocol.rules import EVERYBODY, check_username, history_limit, is_everybody

if TYPE_CHECKING:
    from chatclient.exchange import Wish
    from chatprotocol.operations import Words


class Due(Enum):
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


class Typing:
    """Where a person stands between two lines. Feed it lines; it remembers what is due."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.due = Due.OPERATION
        self._recipient = ""

    def feed(self, line: str) -> Typed:
        """Take one line, without its end."""
        due, self.due = self.due, Due.OPERATION
        if due is Due.OPERATION:
            return self._operation(line.strip())
        if not line.strip():
            return Typed(complaint="Nothing was typed; the operation is cancelled.")
        if due is Due.PUBLIC_TEXT:
            return Typed(Say(line))
        if due is Due.RECIPIENT:
            return self._take_recipient(line.strip().removeprefix("@").rstrip())
        return self._addressed(self._recipient, line)

    def cancel(self) -> None:
        """The server did not want it: the next line is an operation."""
        self.due = Due.OPERATION

    def is_leave(self, line: str) -> bool:
        """Would this line, now, be the wish to leave?"""
        return self.due is Due.OPERATION and line.strip().upper() in (self._words.leave, "/QUIT")

    def is_farewell(self, line: str) -> bool:
        """Where a name is asked for: does somebody want to leave? In small letters it would be a name."""
        return line.strip() in (self._words.leave, "/quit")

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
            f"{words.direct} [USER [MESSAGE]] a direct message, to one user (also: @USER MESSAGE)",
            f"{words.history} [NUMBER]         the last messages that you may see",
            f"{words.leave}                  leave (also: /quit)",
            "/users              who is online",
            "/help               this list",
            "                    an empty line leads out of an operation that asks for something",
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
        if complaint := _complaint_about(recipient):
            return Typed(complaint=complaint)
        self._recipient = recipient
        self.due = Due.DIRECT_TEXT
        return Typed(question=f"message for {recipient}")

    def _public(self, text: str) -> Typed:
        if text:
            return Typed(Say(text))
        self.due = Due.PUBLIC_TEXT
        return Typed(OpenPublic(), question="message for everybody")

    def _direct(self, rest: str) -> Typed:
        if not rest:
            self.due = Due.RECIPIENT
            return Typed(OpenDirect(), question="recipient")
        recipient, _, text = rest.partition(" ")
        return self._addressed(recipient.removeprefix("@"), text.strip())

    def _addressed(self, recipient: str, text: str) -> Typed:
        if not text:
            return self._take_recipient(recipient)
        if complaint := _complaint_about(recipient):
            return Typed(complaint=complaint)
        return Typed(Say(text) if is_everybody(recipient) else Whisper(recipient, text))

    def _history(self, rest: str) -> Typed:
        try:
            return Typed(AskHistory(history_limit(rest)))
        except Refusal as refusal:
            return Typed(complaint=refusal.reason)


class Addressing(Typing):
    """Of a guest: every line says whom it is for, and there is nothing else to be asked."""

    def hint(self) -> str:
        """What somebody needs who comes in for the first time."""
        return f"Type @USER MESSAGE, @{EVERYBODY} MESSAGE or {self._words.leave}."

    def prompt(self) -> str:
        """What is asked between two messages."""
        return f"@USER MESSAGE or @{EVERYBODY} MESSAGE"

    def help(self) -> list[str]:
        """One line for each form of a line."""
        return [
            "@USER MESSAGE      a message to one user",
            f"@{EVERYBODY} MESSAGE       a message to everybody",
            f"{self._words.leave}                 leave (also: /quit)",
            "/help              this list",
        ]

    def _operation(self, line: str) -> Typed:
        if not line:
            return Typed()
        recipient, *text = line.split(maxsplit=1)
        if recipient.startswith("@") and text:
            return self._addressed(recipient[1:], text[0])
        if self.is_leave(line):
            return Typed(Leave())
        if line.upper() == "/HELP":
            return Typed(wants_help=True)
        return Typed(complaint=f"Type {self.prompt()}; nothing was sent. {self._words.leave} leaves.")


def _complaint_about(recipient: str) -> str:
    """Why nobody can have this name, if so. ALL stands for everybody."""
    try:
        if not is_everybody(recipient):
            check_username(recipient)
    except Refusal as refusal:
        return f"{refusal.reason} Nothing was sent."
    return ""
