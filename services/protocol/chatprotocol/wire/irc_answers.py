"""Answers to commands of IRC about rooms and users, and their refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.events import Refused

if TYPE_CHECKING:
    from chatprotocol.wire.irc_connection import IrcConnection


def answer_lines(event: object, connection: IrcConnection) -> list[str]:
    """The lines of an answer; none if the event is no answer."""
    if isinstance(event, Refused):
        return [connection.failure(connection.command.name, event.code.name, event.reason)]
    return []
