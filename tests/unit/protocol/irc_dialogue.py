"""One connection of irc without a server: lines of the client in, requests and lines of the server out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.events import AccountKind, Entered, RoomMember, RoomRole, UserInfo, Welcome
from chatprotocol.requests import Enter, Handled
from chatprotocol.wire.irc import IrcServer
from chatprotocol.wire.irc_connection import IrcSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.requests import Request

NAME = "chat.test"
ALICE = UserInfo(username="alice", is_online=True, realname="Alice A.")


class Said(NamedTuple):
    """What followed a line: the requests, and all lines of the server."""

    requests: list[Request]
    lines: list[str]


class Dialogue:
    """The connection of alice, after its login."""

    def __init__(
        self, capabilities: str = "", *, is_guest: bool = False, is_operator: bool = False, seen_id: int | None = None
    ) -> None:
        self._server = IrcServer(IrcSettings(name=NAME))
        self.say(f"CAP REQ :{capabilities}" if capabilities else "CAP LS")
        account = AccountKind.GUEST if is_guest else AccountKind.EXISTING
        welcome = Welcome(
            account=account, username="alice", users=(), last_id=None, operator=is_operator, seen_id=seen_id
        )
        self.say("NICK alice")
        self.say("USER alice 0 * :Alice A.")
        login = self.say("CAP END", welcome)
        assert isinstance(login.requests[0], Enter)

    def say(self, line: str, *answers: Event | Sequence[Event] | None) -> Said:
        """Say a line. Each request but Handled is answered with the next of the answers."""
        said = Said([], [])
        left = list(answers)
        for request in self._server.receive(f"{line}\r\n".encode()):
            said.lines.extend(self._own())
            if isinstance(request, Handled):
                continue
            said.requests.append(request)
            answer = left.pop(0) if left else None
            if answer is not None:
                said.lines.extend(self.hear(*(answer if isinstance(answer, list | tuple) else [answer])))
        said.lines.extend(self._own())
        assert not left
        return said

    def hear(self, *events: Event) -> list[str]:
        """The lines of events."""
        return _lines(self._server.encode(events))

    def enter(self, room: str, role: RoomRole = RoomRole.MEMBER) -> None:
        """Enter a room."""
        self.hear(entered(room, role))

    def _own(self) -> list[str]:
        return _lines(self._server.data_to_send())


def entered(room: str, role: RoomRole = RoomRole.MEMBER, *others: RoomMember) -> Entered:
    """The event of alice entering a room."""
    return Entered(room=room, username="alice", last_id=0, members=(RoomMember(ALICE, role), *others))


def _lines(data: bytes) -> list[str]:
    assert not data or data.endswith(b"\r\n")
    return data.decode().split("\r\n")[:-1]
