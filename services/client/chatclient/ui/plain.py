"""The plain face: lines in, lines out, for pipes, scripts and simple terminals."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from chatclient.cli.controller import Line
from chatclient.cli.script import Transcript
from chatprotocol.encoding import TextDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chatclient.cli.controller import Input
    from chatclient.client_protocol import ClientEvent
    from chatclient.model import UiState
    from chatclient.notices import UiNotice

_READ_BYTES = 64 * 1024
# Typed lines that may wait for the reactor before the input is read no further.
_LINES_AHEAD = 64


class PlainFrontend:
    """Prints each line as it comes, and reads typed lines as long as somebody uses them.

    ``lines_of`` says what is printed of each thing that happens. The reactor thread shows; the main thread reads.
    """

    # Whoever wants to see them asks.
    recent_messages = 0
    tells_secrets = False

    def __init__(self, lines_of: Callable[[ClientEvent | UiNotice], list[str]]) -> None:
        self._lines_of = lines_of
        self.transcript = Transcript()
        self._room = threading.Semaphore(_LINES_AHEAD)
        self._stop_read, self._stop_write = os.pipe()
        os.set_blocking(self._stop_write, False)
        self._ended = False
        self._terminal: list[Any] | None = None

    @property
    def is_person(self) -> bool:
        """Is it somebody who may want a hint?"""
        return _is_terminal(sys.stdin) and _is_terminal(sys.stdout)

    @property
    def wakeup(self) -> int:
        """What a signal writes to, so that waiting for a line ends: see signal.set_wakeup_fd."""
        return self._stop_write

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        """Print its lines, at once. Raises BrokenPipeError when nobody reads them."""
        lines = [line for each in shown for line in self._lines_of(each)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self.transcript.add(lines)

    def update(self, ui_state: UiState) -> None:
        """Nothing of it is shown: lines are for what happens."""

    def ask_password(self) -> None:
        """The next line is a password: a terminal does not echo it."""
        if _is_terminal(sys.stdin) and self._terminal is None:
            self._terminal = termios.tcgetattr(sys.stdin)
            silent = termios.tcgetattr(sys.stdin)
            silent[3] = silent[3] & ~termios.ECHO | termios.ECHONL
            termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)

    def took_line(self) -> None:
        """A typed line was used."""
        self._room.release()
        self._restore_terminal()

    def run(self, give: Callable[[Input], None]) -> None:
        """Give the lines of standard input, until it ends or nobody uses them any more."""
        type_line = self.typist(give, is_played=False)
        for line in self._parsed_lines():
            if not type_line(line):
                return

    def typist(self, give: Callable[[Input], None], *, is_played: bool) -> Callable[[str], bool]:
        """What gives a line as soon as there is room for it; false when none is used any more."""

        def type_line(line: str) -> bool:
            self._room.acquire()
            if not self._ended:
                give(Line(line, is_played))
            return not self._ended

        return type_line

    def _parsed_lines(self) -> Iterator[str]:
        """The lines of standard input, until it ends or :meth:`end` is called."""
        if sys.stdin is None:
            return
        standard_input = sys.stdin.fileno()
        decoder = TextDecoder()
        rest = ""
        while not self._ended:
            ready, _, _ = select.select([standard_input, self._stop_read], [], [])
            if self._stop_read in ready:
                return
            data = os.read(standard_input, _READ_BYTES)
            *lines, rest = (rest + decoder.decode(data, is_last=not data)).split("\n")
            for line in lines:
                yield line.removesuffix("\r")
            if not data:
                break
        if rest:
            yield rest

    def end(self) -> None:
        """Let the reading thread go on: nobody uses lines any more. For any thread, several times."""
        self._ended = True
        self._room.release()
        with suppress(BlockingIOError):  # it is full of that
            os.write(self._stop_write, b"\0")
        self.transcript.end()

    def close(self) -> None:
        """Leave the terminal as it was found. After both threads have ended."""
        self._restore_terminal()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _restore_terminal(self) -> None:
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)
            self._terminal = None


def _is_terminal(stream: TextIO | None) -> bool:
    """A standard stream is None where the program was started with it closed."""
    return stream is not None and stream.isatty()
