"""Commands of IRC about rooms and users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_connection import Handler, IrcConnection

COMMANDS: Final[Mapping[str, Handler]] = {}


def finish_entering(_connection: IrcConnection, _room: str) -> Iterator[Request]:
    """Answer the rest of what follows the entry into a room."""
    yield from ()
