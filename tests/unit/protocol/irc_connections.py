"""Connections of irc without a server, whose requests a function answers: bytes and lines in, lines out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chatprotocol import events, requests
from chatprotocol.events import AccountKind, Event, EventBatch
from chatprotocol.wire.irc import IrcServer
from chatprotocol.wire.irc_connection import IrcSettings

Answer = Callable[[Any], Sequence[Event | EventBatch]]
EVERYTHING = (
    "account-tag batch draft/multiline echo-message labeled-response message-tags sasl server-time standard-replies"
)


def default_answer(request: Any) -> Sequence[Event]:
    """The answers of a session that accepts everything."""
    match request:
        case requests.Authenticate(username=username):
            return [events.Authenticated(username)]
        case requests.Enter(username=username):
            return [events.Welcome(account=AccountKind.GUEST, username=username, users=(), last_id=3)]
        case requests.Barrier() | requests.Ping():
            return [events.Pong()]
        case requests.Quit() | requests.Leave():
            return [events.Bye("you left")]
        case requests.Rename(username):
            return [events.Renamed("bob", username)]
        case requests.Unreadable(code, reason):
            return [events.Refused(code, reason)]
        case _:
            return []


class Dialogue:
    """One connection. ``said`` has the lines of the server, ``asked`` the requests but Handled."""

    def __init__(self, answer: Answer = default_answer, settings: IrcSettings | None = None) -> None:
        self.server = IrcServer(settings or IrcSettings())
        self.answer = answer
        self.said: list[str] = []
        self.asked: list[Any] = []

    def send(self, *lines: str) -> list[str]:
        """Send lines; returns those that the server says until all of them are answered."""
        return self.send_bytes("".join(f"{line}\r\n" for line in lines).encode())

    def send_bytes(self, data: bytes) -> list[str]:
        """Send bytes; returns the lines that the server says until all of them are answered."""
        return self.handle(self.server.receive(data))

    def handle(self, found: Iterable[Any]) -> list[str]:
        """Answer requests; returns the lines that the server says until all of them are answered."""
        before = len(self.said)
        for request in found:
            self._hear(self.server.data_to_send())
            if not isinstance(request, requests.Handled):
                self.asked.append(request)
            self._hear(self.server.encode(self.answer(request)))
        self._hear(self.server.data_to_send())
        return self.said[before:]

    def tell(self, *said: Event | EventBatch) -> list[str]:
        """Events that go to this connection; returns their lines."""
        before = len(self.said)
        self._hear(self.server.encode(said))
        return self.said[before:]

    def last(self) -> Any:
        """The last request."""
        return self.asked[-1]

    def _hear(self, data: bytes) -> None:
        assert not data or data.endswith(b"\r\n")
        self.said += data.decode().split("\r\n")[:-1]


def logged_in(capabilities: str = EVERYTHING, answer: Answer = default_answer) -> Dialogue:
    """The dialogue of the guest bob after the login."""
    dialogue = Dialogue(answer)
    dialogue.send("CAP LS 302", f"CAP REQ :{capabilities}", "NICK bob", "USER b 0 * :Bob", "CAP END")
    assert isinstance(dialogue.last(), requests.Enter)
    return dialogue
