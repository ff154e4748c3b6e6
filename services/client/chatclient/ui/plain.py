"""The plain frontend: lines in, lines out, for pipes, scripts and simple terminals."""

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
from chatclient.cli.signals import wait_interruptibly
from chatprotocol.encoding import TextDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chatclient.cli.controller import Input
    from chatclient.client_protocol import ClientEvent
    from chatclient.model import UiState
    from chatclient.notices import UiNotice

_READ_BYTES = 64 * 1024
# Maximum number of unused lines. No more input is read until one is used.
_LINES_AHEAD = 64


class PlainFrontend:
    """Prints lines immediately, and reads lines from standard input.

    ``lines_of`` converts an event or notice to lines. The controller thread displays; the main thread calls run().
    """

    # No recent messages unless requested.
    recent_messages = 0
    marks_passwords = False

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
        """True if input and output are a terminal."""
        return _is_terminal(sys.stdin) and _is_terminal(sys.stdout)

    @property
    def wakeup(self) -> int:
        """The file descriptor that a signal writes to, to end the wait for a line: see signal.set_wakeup_fd."""
        return self._stop_write

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        """Print the lines and flush. Raises BrokenPipeError if the reader is gone."""
        lines = [line for each in shown for line in self._lines_of(each)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self.transcript.add(lines)

    def update(self, ui_state: UiState) -> None:
        """Do nothing: the state is not shown."""

    def ask_password(self) -> None:
        """Turn off the terminal's echo for the next line."""
        if _is_terminal(sys.stdin) and self._terminal is None:
            self._terminal = termios.tcgetattr(sys.stdin)
            silent = termios.tcgetattr(sys.stdin)
            silent[3] = silent[3] & ~termios.ECHO | termios.ECHONL
            termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)

    def line_used(self) -> None:
        """Make room for one more line, and turn the echo on again."""
        self._room.release()
        self._restore_terminal()

    def run(self, submit: Callable[[Input], None]) -> None:
        """Pass on the lines of standard input until its end, or until end() was called."""
        type_line = self.line_typer(submit, is_from_script=False)
        for line in self._typed_lines():
            if not type_line(line):
                return

    def line_typer(self, submit: Callable[[Input], None], *, is_from_script: bool) -> Callable[[str], bool]:
        """A function that passes on a line once there is room. It returns false after end()."""

        def type_line(line: str) -> bool:
            wait_interruptibly(lambda seconds: self._room.acquire(timeout=seconds))
            if not self._ended:
                submit(Line(line, is_from_script))
            return not self._ended

        return type_line

    def _typed_lines(self) -> Iterator[str]:
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
        """Stop reading lines. For any thread; can be called more than once."""
        # Lock-free: _ended is set before the semaphore and the pipe wake the main thread, which then reads it.
        self._ended = True
        self._room.release()
        with suppress(BlockingIOError):  # the pipe is full of wakeups
            os.write(self._stop_write, b"\0")
        self.transcript.end()

    def close(self) -> None:
        """Restore the terminal. Call it after the controller thread has ended."""
        self._restore_terminal()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _restore_terminal(self) -> None:
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)
            self._terminal = None


def _is_terminal(stream: TextIO | None) -> bool:
    """True for a terminal. A standard stream is None if it was closed when the program started."""
    return stream is not None and stream.isatty()
