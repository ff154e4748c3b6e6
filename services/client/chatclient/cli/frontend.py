"""Between the controller and the user interface: the inputs of the controller, and what it calls."""

from typing import NamedTuple, Protocol, TypeAlias

from chatclient.links.connection import Signal
from chatclient.model import UiState
from chatclient.notices import UiNotice
from chatprotocol.wire.base import ClientEvent


class Line(NamedTuple):
    """A line, typed or from a script. The controller displays script lines, because no terminal echoed them."""

    text: str
    is_from_script: bool = False
    # True if the password prompt was active. The line is then used only as a password.
    is_secret: bool = False
    # The current room at the time when a person typed the line. A message goes there, even if the line has to wait.
    # None: the current room at the time when the line is used.
    room: str | None = None


class SelectRoom(NamedTuple):
    """A key that changes the current room: 1 for the lobby, 2 to 9 for other rooms."""

    number: int


class EndOfInput(NamedTuple):
    """The end of the input."""


class Interrupt(NamedTuple):
    """A request to end now: a signal, a key, or a failed script."""


class Resend(NamedTuple):
    """It is time to send messages again that were refused for their rate."""


Input: TypeAlias = Line | SelectRoom | EndOfInput | Interrupt | Resend | ClientEvent | Signal


class Frontend(Protocol):
    """The user interface."""

    @property
    def is_person(self) -> bool:
        """True if a person reads the output and may need a hint."""

    @property
    def is_terminal(self) -> bool:
        """True if Line.is_secret marks passwords. Otherwise the next line is the password, even if typed earlier."""

    @property
    def is_for_programs(self) -> bool:
        """True if the output has everything that arrives. Otherwise messages of ignored users are left out."""

    def display(self, shown: ClientEvent | UiNotice) -> None:
        """Show an event or notice. A secret question hides the next line."""

    def update(self, ui_state: UiState) -> None:
        """Show the new state. Called after every input."""
