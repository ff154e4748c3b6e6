"""Tests of the reactor as dialogues: what is given to it, and what it shows and sends because of that, in order.

    talk = Dialogue()
    talk.connect(sends(Login("alice")))
    talk.type("PM hello", sends(Say("hello", "n1")))
    talk.give(Sent(1, SentStatus.SENT, "n1"), "[sent #1]")

A step that has another outcome fails with the dialogue so far, and the difference.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from chatclient.cli.controller import Controller, EndOfInput, Input, Line, UiState
from chatclient.cli.input import InputParser
from chatclient.client_protocol import ClientEvent, ClientProtocol, JsonClient
from chatclient.links.connection import LinkUp
from chatclient.model import Model
from chatclient.session import ClientSession
from chatclient.ui import view
from chatprotocol.events import AccountKind, Welcome
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import Login, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatclient.cli.exits import Exit
    from chatclient.notices import UiNotice
    from chatprotocol.address import Address

# The face was told not to echo the next line.
HIDES = "(hides what is typed)"
# A connection is wanted.
CONNECTS = "(connects)"
# The connection is ended from here.
HANGS_UP = "(hangs up)"
ALICE = "[welcome existing] alice; online: alice"


def sends(request: Request) -> str:
    """How a request that is sent looks in a dialogue."""
    return f"-> {request!r}"


class FakeLink:
    """A connection that stands: what is sent on it is part of the dialogue."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def send(self, request: Request) -> None:
        self._note(sends(request))

    def shut_down(self) -> None:
        self._note(HANGS_UP)


class Dialogue:
    """A reactor between a fake face and a fake server."""

    is_person = False
    recent_messages = 0
    tells_secrets = False

    def __init__(
        self,
        username: str | None = "alice",
        password: str | None = "secret",
        ops: str = "pm-dm",
        client_protocol: ClientProtocol | None = None,
        parser: InputParser | None = None,
        server: Address | None = ("localhost", 9999),
    ) -> None:
        self.model = Model(server, username, password)
        self.controller = Controller(
            ClientSession(self.model, client_protocol or JsonClient()),
            parser or InputParser(KEYWORD_SETS[ops]),
            self,
            ("localhost", 9999),
            self._connect,
        )
        # Where a connection was wanted to, the last one at the end.
        self.addresses: list[Address] = []
        self.link: FakeLink | None = None
        self.lines_used = 0
        self._story: list[str] = []
        self._new: list[str] = []

    def _connect(self, address: Address) -> None:
        self.addresses.append(address)
        self._new.append(CONNECTS)

    # --- the face ---

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        self._new += [line for each in shown for line in view.lines(each)]

    def update(self, ui_state: UiState) -> None:
        self.ui_state = ui_state

    def ask_password(self) -> None:
        self._new.append(HIDES)

    def took_line(self) -> None:
        self.lines_used += 1

    # --- the test ---

    @property
    def exit(self) -> Exit | None:
        return self.controller.exit

    def begin(self, *outcome: str) -> None:
        """The program starts."""
        self._new = []
        self.controller.begin()
        assert self._new == list(outcome)

    def give(self, given: Input, *outcome: str) -> None:
        """Something arrives; exactly these lines are shown and requests sent."""
        self._step(repr(given), given, outcome)

    def connect(self, *outcome: str) -> None:
        """A connection stands."""
        self.link = FakeLink(lambda line: self._new.append(line))  # noqa: PLW0108 - each step has a new list
        self._step("a connection stands", LinkUp(self.link), outcome)  # type: ignore[arg-type]

    def type(self, line: str, *outcome: str) -> None:
        """Somebody types a line."""
        self._step(f"types {line!r}", Line(line), outcome)

    def end_input(self, *outcome: str) -> None:
        """Nothing more will be typed."""
        self._step("the input ends", EndOfInput(), outcome)

    def come_in(self) -> None:
        """Connect and log in."""
        login = Login(self.model.username, self.model.password)
        self.connect(sends(login))
        name = self.model.username
        self.give(Welcome(AccountKind.EXISTING, name, (name,), 10), f"[welcome existing] {name}; online: {name}")

    def _step(self, what: str, given: Input, outcome: tuple[str, ...]) -> None:
        self._new = []
        assert self.exit is None, self._tell(f"It has ended already; then: {what}")
        self.controller.react(given)
        if self._new != list(outcome):
            difference = "\n".join(difflib.ndiff(outcome, self._new))
            raise AssertionError(self._tell(f"{what}\n(- expected, + happened)\n{difference or '(nothing)'}"))
        self._story += [what, *(f"    {line}" for line in self._new)]

    def _tell(self, end: str) -> str:
        return "\n".join(["the dialogue so far:", *self._story, "and then:", end])
