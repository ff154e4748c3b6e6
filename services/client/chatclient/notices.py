"""Notices: client-side information for the user, in addition to the server's events. Pure."""

from enum import Enum
from typing import NamedTuple

from chatprotocol.requests import Say, Whisper


class Asked(Enum):
    """The kind of a question."""

    SERVER = "server"
    USERNAME = "username"
    PASSWORD = "password of an account"  # noqa: S105 - a kind of question, as the next ones
    PASSWORD_NEW_ACCOUNT = "password of a new account"  # noqa: S105
    PASSWORD_AGAIN = "password of a new account again"  # noqa: S105
    PASSWORD_CHANGE = "passwords to change the password"  # noqa: S105
    INVITATION = "invitation code"
    OPERATION = "operation"
    RECIPIENT = "recipient"
    TEXT = "message"


class Question(NamedTuple):
    """A question that the next line answers. ``text`` is its form in lines of output."""

    kind: Asked
    text: str

    @property
    def is_secret(self) -> bool:
        """True if the answer is a password, and must not be shown."""
        return self.kind.name.startswith("PASSWORD")


ASK_USERNAME = Question(Asked.USERNAME, "username")
ASK_RECIPIENT = Question(Asked.RECIPIENT, "recipient")


class Ask(NamedTuple):
    """The question that the next line answers."""

    question: Question


class ErrorNotice(NamedTuple):
    """An error; ``code`` is one of the protocol's, or ``usage``, ``lost``, ``script``, ``refused``."""

    code: str
    text: str


class Help(NamedTuple):
    """Lines of help."""

    lines: tuple[str, ...]


class ConnectionLost(NamedTuple):
    """The connection is lost; reconnecting."""

    reason: str


class Reconnected(NamedTuple):
    """Logged in again. ``last_id`` is the newest message on the server at that time, if known."""

    username: str
    last_id: int | None
    # If this is another server than before: its HOST:PORT, and that of the lost one. Otherwise empty.
    server: str = ""
    gone: str = ""


class Dropped(NamedTuple):
    """Number of events that were dropped because the program did not read them: see inbox.py."""

    how_many: int


class MessageQueued(NamedTuple):
    """A typed message was accepted. Its confirmation or error follows, with the same nonce."""

    message: Say | Whisper


class ScriptLine(NamedTuple):
    """A line typed by a script."""

    text: str


class Toggle(NamedTuple):
    """Toggle a display setting: ``joins`` (show joins and leaves) or ``quiet`` (no bell, no highlight)."""

    what: str


class CurrentRoom(NamedTuple):
    """The room that the next messages go to, with its topic; an empty name for the lobby."""

    room: str
    topic: str = ""
    # The event before this one was the answer to a join, and had the topic.
    was_joined: bool = False


UiNotice = CurrentRoom | Ask | ErrorNotice | Help | ConnectionLost | Reconnected | MessageQueued | ScriptLine | Toggle
