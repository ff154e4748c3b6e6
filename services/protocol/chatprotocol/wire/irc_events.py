"""Events of rooms and users as lines of IRC: those that connections share, and those for one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatprotocol.wire.irc_capabilities import Encoding
    from chatprotocol.wire.irc_connection import IrcConnection


def shared_lines(_event: object, _encoding: Encoding) -> list[str]:
    """The lines of an event that are the same for all connections of a variant; none if it has no form there."""
    return []


def own_lines(event: object, connection: IrcConnection) -> list[str]:
    """The lines of an event for one connection."""
    return shared_lines(event, connection.encoding)
