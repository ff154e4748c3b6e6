"""The plain frontend: lines in, lines out, for pipes, scripts and simple terminals.

One loop in the main thread waits for the inbox, a line, a signal and a deadline, with select(). The receiver thread and
signals write to a pipe that ends the wait. Writing may block: then nothing is received either, and after an interrupt
a timer of the operating system ends the process.
"""

import math
import os
import select
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

from chatclient.cli.controller import Controller
from chatclient.cli.exits import Exit
from chatclient.cli.frontend import EndOfInput, Interrupt, Line, Resend
from chatclient.cli.script import ScriptError, ScriptPlayer
from chatclient.cli.signals import ENDING_SIGNALS
from chatclient.inbox import Inbox
from chatclient.model import UiState
from chatclient.notices import Ask, ErrorNotice, UiNotice
from chatprotocol.encoding import TextDecoder
from chatprotocol.wire.base import ClientEvent

_READ_BYTES: Final = 64 * 1024
# Maximum number of unused lines. No more input is read until one is used.
_LINES_AHEAD: Final = 64
# Maximum time for received items before input and signals are looked at.
_TURN_SECONDS: Final = 0.05
# Time after the first interrupt in which the client ends unless its output is blocked: the goodbye takes 5 s, and the
# end of the connection 1 s. After a second interrupt only the latter is waited for.
_BLOCKED_SECONDS: Final = 8.0
_BLOCKED_AGAIN_SECONDS: Final = 2.0


class StandardInput:
    """The lines of standard input: a source of lines, like ScriptPlayer."""

    is_script = False
    deadline = None

    def __init__(self) -> None:
        self._decoder = TextDecoder()
        self._lines: deque[str] = deque()
        self._rest = ""
        # A standard stream is None if it was closed when the program started.
        self._has_ended = sys.stdin is None

    @property
    def descriptor(self) -> int | None:
        """None while lines are unused, and at the end."""
        return None if self._lines or self._has_ended else sys.stdin.fileno()

    @property
    def is_over(self) -> bool:
        return self._has_ended and not self._lines

    def read(self) -> None:
        data = os.read(sys.stdin.fileno(), _READ_BYTES)
        self._has_ended = not data
        *lines, self._rest = (self._rest + self._decoder.decode(data, is_last=not data)).split("\n")
        self._lines.extend(line.removesuffix("\r") for line in lines)
        if not data and self._rest:
            self._lines.append(self._rest)

    def next_line(self, _: float) -> str | None:
        return self._lines.popleft() if self._lines else None

    def note_shown(self, lines: Sequence[str]) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class PlainFrontend:
    """Prints lines immediately. For the main thread.

    ``lines_of`` converts an event or notice to lines. ``is_for_programs``: see Frontend.
    """

    is_terminal = False

    def __init__(
        self,
        lines_of: Callable[[ClientEvent | UiNotice], list[str]],
        source: StandardInput | ScriptPlayer,
        *,
        is_for_programs: bool = False,
    ) -> None:
        self._lines_of = lines_of
        self.is_for_programs = is_for_programs
        self._source = source
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        # The modes of the terminal whose echo is off.
        self._terminal: list[Any] | None = None
        # Number of signals that arrived, and that were handled.
        self._signals = self._signals_handled = 0

    @property
    def is_person(self) -> bool:
        """True if input and output are a terminal."""
        return _is_terminal(sys.stdin) and _is_terminal(sys.stdout)

    def display(self, shown: ClientEvent | UiNotice) -> None:
        """Print the lines and flush. Raises BrokenPipeError if the reader is gone."""
        if isinstance(shown, Ask) and shown.question.is_secret:
            self._turn_echo_off()
        lines = self._lines_of(shown)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        self._source.note_shown(lines)

    def update(self, ui_state: UiState) -> None:
        """Turn the echo on again after a password."""
        if ui_state.question is None or not ui_state.question.is_secret:
            self._restore_terminal()

    def run(self, controller: Controller, inbox: Inbox) -> Exit:
        for each in ENDING_SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self._on_signal)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            return self._run(controller, inbox)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.set_wakeup_fd(-1)
            self._restore_terminal()

    def _run(self, controller: Controller, inbox: Inbox) -> Exit:
        inbox.wake = self._wake
        controller.begin()
        is_input_open, script_failed = True, False
        while controller.exit is None:
            self._wait(controller, reads=is_input_open and controller.waiting_lines < _LINES_AHEAD)
            if self._signals_handled < self._signals:
                self._signals_handled += 1
                is_input_open = False
                controller.react(Interrupt())
            for item in inbox.take(_TURN_SECONDS):
                if controller.exit is None:
                    controller.react(item)
            try:
                is_input_open = is_input_open and self._use_lines(controller)
            except ScriptError as error:
                self.display(ErrorNotice("script", str(error)))
                is_input_open, script_failed = False, True
                controller.react(Interrupt())
            if controller.exit is None and controller.deadline is not None and time.monotonic() >= controller.deadline:
                controller.on_deadline()
            if (
                controller.exit is None
                and controller.resend_at is not None
                and time.monotonic() >= controller.resend_at
            ):
                controller.react(Resend())
        try:
            if is_input_open:
                self._source.end()
        except ScriptError as error:  # the exit code of the client explains it
            self.display(ErrorNotice("script", str(error)))
        return Exit.SCRIPT if script_failed else controller.exit

    def _wait(self, controller: Controller, *, reads: bool) -> None:
        """Wait for the receiver thread, a signal, a deadline, and with ``reads`` for lines, which are read."""
        descriptor, deadline = (self._source.descriptor, self._source.deadline) if reads else (None, None)
        times = (controller.deadline, controller.resend_at, deadline)
        until = min((each for each in times if each is not None), default=math.inf)
        if self._signals_handled < self._signals:
            until = 0.0
        seconds = None if until == math.inf else max(0.0, until - time.monotonic())
        ready, _, _ = select.select([self._woken, *([] if descriptor is None else [descriptor])], [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, _READ_BYTES)
        if descriptor in ready:
            self._source.read()

    def _use_lines(self, controller: Controller) -> bool:
        """Pass lines to the controller, as far as there is room. Returns false after the end of the input."""
        while controller.exit is None and controller.waiting_lines < _LINES_AHEAD and not self._signals:
            if self._source.is_over:
                controller.react(EndOfInput())
                return False
            line = self._source.next_line(time.monotonic())
            if line is not None:
                controller.react(Line(line, self._source.is_script))
            elif not self._source.is_over:  # it may be over now: after the last wait of a script
                break
        return True

    def _on_signal(self, number: int, _: object) -> None:
        """Count the signal. Python calls this during a blocked write, too, and continues the write."""
        if number == signal.SIGALRM and self._signals:
            self._give_up()
        self._signals += 1
        if self._signals <= 2:  # noqa: PLR2004 - further ones change nothing
            seconds = _BLOCKED_SECONDS if self._signals == 1 else _BLOCKED_AGAIN_SECONDS
            signal.signal(signal.SIGALRM, self._on_signal)  # a parent process may have set it to ignored
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _give_up(self) -> None:
        """End the process: a normal exit would wait for the output."""
        self._restore_terminal()
        with suppress(OSError):
            os.write(2, b"chatclient: the output is not read; the rest of it is lost.\n")
        os._exit(Exit.LOST)

    def _wake(self) -> None:
        """End the wait. For any thread."""
        with suppress(BlockingIOError):  # the pipe is full of wakeups
            os.write(self._waker, b"\0")

    def _turn_echo_off(self) -> None:
        if _is_terminal(sys.stdin) and self._terminal is None:
            self._terminal = termios.tcgetattr(sys.stdin)
            silent = termios.tcgetattr(sys.stdin)
            silent[3] = silent[3] & ~termios.ECHO | termios.ECHONL
            termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)

    def _restore_terminal(self) -> None:
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._terminal)
            self._terminal = None


def _is_terminal(stream: TextIO | None) -> bool:
    """True for a terminal. A standard stream is None if it was closed when the program started."""
    return stream is not None and stream.isatty()
