"""Notices: what a client has to tell whoever is at it, beside what the server says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from chatprotocol.requests import Say, Whisper


class Ask(NamedTuple):
    """What is typed next is this."""

    question: str


class ErrorNotice(NamedTuple):
    """Something was wrong; ``code`` is one of the protocol's, or ``usage``, ``lost``, ``script``, ``refused``."""

    code: str
    text: str


class Help(NamedTuple):
    """What can be typed."""

    lines: tuple[str, ...]


class ConnectionLost(NamedTuple):
    """The connection is lost, and a new one is being tried."""

    reason: str


class Reconnected(NamedTuple):
    """The connection stands again. ``last_id`` is the room's newest message at that moment, where it is known."""

    username: str
    last_id: int | None


class Dropped(NamedTuple):
    """So many events were dropped, because the program did not read them: see inbox.py."""

    how_many: int


class MessageQueued(NamedTuple):
    """A message was taken from the person; it is confirmed or refused later, by its nonce."""

    said: Say | Whisper


class ScriptLine(NamedTuple):
    """A line that a script types."""

    text: str


class Toggle(NamedTuple):
    """A person wants this switched: ``joins`` (who comes and goes) or ``quiet`` (no bell, no highlight)."""

    what: str


UiNotice = Ask | ErrorNotice | Help | ConnectionLost | Reconnected | MessageQueued | ScriptLine | Toggle
