"""Tests of the controller as transcripts: each step is one input, and all that it makes the client show and send.

    client = Dialogue()
    client.connect(sends(login("alice")))
    client.type("PM hello", sends(Say("hello", "n1")))
    client.give(Sent(1, SentStatus.SENT, "n1"), "[sent #1]")

A step with another outcome fails with the transcript so far and a diff. The nonces of messages are n1, n2, n3...
"""

import difflib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from raw_steps import Command, Data, new_server

from chatclient.cli.controller import Controller
from chatclient.cli.exits import Exit
from chatclient.cli.frontend import EndOfInput, Input, Line
from chatclient.cli.input import InputParser
from chatclient.inbox import Inbox
from chatclient.links.connection import Connection, LinkUp
from chatclient.model import Model, UiState
from chatclient.notices import Ask
from chatclient.session import ClientSession
from chatclient.ui import view
from chatprotocol.address import Address
from chatprotocol.events import AccountKind, Welcome
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import Login, Request
from chatprotocol.wire import PROTOCOLS, WireProtocol, by_name

from .samples import Shown

SERVER = ("localhost", 9999)
HIDES = "(hides what is typed)"
CONNECTS = "(connects)"
HANGS_UP = "(hangs up)"


def login(username: str, password: str | None = None, *since: Any) -> Login:
    """The login of a client, which always says that it knows rooms."""
    return Login(username, password, *since, rooms=True, moderation=True)


def sends(request: Request | Command | Data) -> str:
    """The transcript's line for a request that is sent."""
    return f"-> {request!r}"


def nonces() -> Callable[[], str]:
    """Nonces in order: n1, n2, n3..."""
    numbers = itertools.count(1)
    return lambda: f"n{next(numbers)}"


class FakeLink:
    """An open connection. It reads what is sent on it, and tells ``note``."""

    def __init__(self, note: Callable[[str], None] = lambda _: None, protocol: WireProtocol = PROTOCOLS[0]) -> None:
        self._note = note
        self._servers = [new_server(protocol) for _ in range(protocol.client().connections)]
        self.sent: list[Request | Command | Data] = []
        self.is_shut = False

    def send(self, data: bytes, connection: int = 0) -> None:
        for request in self._servers[connection].receive(data):
            self.sent.append(request)
            self._note(sends(request))

    def shut_down(self) -> None:
        self.is_shut = True
        self._note(HANGS_UP)


class FakeConnection(Connection):
    """Opens nothing. It keeps the servers of all connections that were started, and tells ``note``."""

    def __init__(self, note: Callable[[], None] = lambda: None) -> None:
        super().__init__(None, 0.0, Inbox())
        self._note = note
        self.addresses: list[Address] = []
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def start(self, servers: Sequence[Address]) -> None:
        self.addresses.extend(servers)
        self._note()


class Dialogue:
    """A controller between a fake frontend and a fake server."""

    is_person = False
    is_terminal = False
    is_for_programs = False

    def __init__(
        self,
        username: str | None = "alice",
        password: str | None = "secret",
        ops: str = "pm-dm",
        protocol: str = "json",
        parser: InputParser | None = None,
        server: Address | None = SERVER,
        *,
        resends_limited: bool = False,
    ) -> None:
        self._protocol = by_name(protocol)
        self.model = Model((server,) if server else (), username, password)
        self.parser = parser or InputParser(KEYWORD_SETS[ops])
        self._transcript: list[str] = []
        self._new: list[str] = []
        self.connection = FakeConnection(lambda: self._new.append(CONNECTS))
        session = ClientSession(
            self.model, self._protocol.client(ops), self.connection, nonces(), resends_limited=resends_limited
        )
        self.now = 1_000.0
        self.controller = Controller(session, self.parser, self, SERVER, lambda: self.now)

    # --- the frontend ---

    def display(self, shown: Shown) -> None:
        self._new += [HIDES] if isinstance(shown, Ask) and shown.question.is_secret else []
        self._new += view.lines(shown)

    def update(self, ui_state: UiState) -> None:
        self.ui_state = ui_state

    # --- the test ---

    @property
    def exit(self) -> Exit | None:
        return self.controller.exit

    @property
    def question(self) -> str:
        """The question that the prompt shows."""
        return self.ui_state.question.text if self.ui_state.question else ""

    def begin(self, *outcome: str) -> None:
        """The program starts."""
        self._new = []
        self.controller.begin()
        assert self._new == list(outcome)

    def give(self, given: Input, *outcome: str) -> None:
        """An input of the controller, such as an event of the server."""
        self._step(repr(given), given, outcome)

    def connect(self, *outcome: str) -> None:
        """A connection is open."""
        link = FakeLink(lambda line: self._new.append(line), self._protocol)  # noqa: PLW0108 - a new list each step
        self._step("a connection is open", LinkUp(link, SERVER), outcome)  # type: ignore[arg-type]

    def type(self, line: str, *outcome: str) -> None:
        """The user types a line."""
        self._step(f"types {line!r}", Line(line), outcome)

    def end_input(self, *outcome: str) -> None:
        """The input ends."""
        self._step("the input ends", EndOfInput(), outcome)

    def log_in(self) -> None:
        """Connect and log in."""
        name = self.model.username
        self.connect(sends(login(name, self.model.password)))
        self.give(
            Welcome(account=AccountKind.EXISTING, username=name, users=(name,), last_id=10),
            f"[welcome existing] {name}; online: {name}",
        )

    def _step(self, what: str, given: Input, outcome: tuple[str, ...]) -> None:
        self._new = []
        assert self.exit is None, self._report(f"The client has ended; then: {what}")
        self.controller.react(given)
        if self._new != list(outcome):
            difference = "\n".join(difflib.ndiff(outcome, self._new))
            raise AssertionError(self._report(f"{what}\n(- expected, + happened)\n{difference or '(nothing)'}"))
        self._transcript += [what, *(f"    {line}" for line in self._new)]

    def _report(self, end: str) -> str:
        return "\n".join(["the transcript so far:", *self._transcript, "and then:", end])
