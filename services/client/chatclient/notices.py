"""Notices: client-side information for the user, in addition to the server's events. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatprotocol.requests import Say, Whisper


class Ask(NamedTuple):
    """The question that the next line answers."""

    question: str


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


UiNotice = Ask | ErrorNotice | Help | ConnectionLost | Reconnected | MessageQueued | ScriptLine | Toggle
