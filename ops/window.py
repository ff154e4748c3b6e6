"""A program in a pseudo-terminal, and the screen that a person sees.

    with Window(["chatclient", "alice"], columns=80, rows=24) as window:
        window.until_shows("connected")
        window.type("hello", ENTER)
        window.until(lambda: window.row_with("hello").endswith("hello"), "the message is shown")

Only the methods that wait read the output, so that several questions are about one screen. Each of these methods has a
deadline.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import pexpect  # type: ignore[import-untyped]
import pyte
from wcwidth import iter_graphemes, wcwidth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyte.screens import Char

DEADLINE_SECONDS: Final = 40.0
_READ_BYTES: Final = 65_536
_LOOK_SECONDS: Final = 0.05

ENTER: Final = "\r"
TAB: Final = "\t"
ESCAPE: Final = "\x1b"
ALT_ENTER: Final = "\x1b\r"
UP: Final = "\x1b[A"
DOWN: Final = "\x1b[B"
LEFT: Final = "\x1b[D"
BACKSPACE: Final = "\x7f"


def control(letter: str) -> str:
    """The character of Ctrl and this letter."""
    return chr(ord(letter.upper()) - 64)


def until_full(pid: int) -> None:
    """Wait until the buffer of a program's standard output, a terminal or pipe, is full. For Linux."""
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    output = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        while select.select([], [output], [], 0)[1]:
            assert time.monotonic() < give_up_at, "the output was never blocked"
            time.sleep(_LOOK_SECONDS)
    finally:
        os.close(output)


class Place(NamedTuple):
    """A position in the window. Both numbers start at 0."""

    row: int
    column: int


class _Emulator(pyte.Screen):
    """A pyte screen that also keeps the rows that scroll out at the top, counts bells, and rewraps rows.

    With ``joins``, a grapheme of several wide characters takes two columns. When the window becomes narrower, most
    terminals rewrap the rows; pyte cuts them, as XTerm does.
    """

    def __init__(self, columns: int, rows: int, *, joins: bool) -> None:
        self.gone: list[str] = []
        self.bells = 0
        self._joins = joins
        super().__init__(columns, rows)

    def bell(self, *_: object) -> None:
        """Count a bell."""
        self.bells += 1

    def draw(self, data: str) -> None:
        """Draw letters and combining marks. Other zero-width characters are not visible."""
        if self._joins:
            data = "".join(each[0] if wcwidth(each[0]) > 1 else each for each in iter_graphemes(data))
        super().draw("".join(letter for letter in data if wcwidth(letter) > 0 or unicodedata.combining(letter)))

    def rewrap(self, columns: int, rows: int) -> None:
        """Resize, and wrap rows that are too long. The cursor keeps its position in the text."""
        lines: list[list[Char]] = []
        cursor_y = cursor_x = 0
        for number in range(max(self.cursor.y, self._last_row()) + 1):
            cells = [self.buffer[number][column] for column in range(len(self.row(number)))]
            parts = [cells[begin : begin + columns] for begin in range(0, max(len(cells), 1), columns)]
            if number == self.cursor.y:
                part = max(min(self.cursor.x, len(cells)) - 1, 0) // columns
                cursor_y, cursor_x = len(lines) + part, min(self.cursor.x - part * columns, columns - 1)
            lines += parts
        out = max(len(lines) - rows, 0)
        self.resize(rows, columns)
        self.gone += ["".join(cell.data for cell in line).rstrip() for line in lines[:out]]
        self.buffer.clear()
        for number, line in enumerate(lines[out:]):
            self.buffer[number].update(enumerate(line))
        self.cursor.y, self.cursor.x = max(cursor_y - out, 0), cursor_x

    def _last_row(self) -> int:
        return max((number for number in range(self.lines) if self.row(number)), default=0)

    def index(self) -> None:
        """Move the cursor one row down. In the last row the window scrolls."""
        if self.cursor.y == self.lines - 1:
            self.gone.append(self.row(0))
        super().index()

    def row(self, number: int) -> str:
        """The text without trailing blanks. The second cell of a wide letter is empty."""
        cells = self.buffer[number]
        return "".join(cells[column].data for column in range(self.columns)).rstrip()


class Window:
    """A program in a pseudo-terminal. Leaving the context kills it.

    ``environment`` is the complete environment. It describes the terminal: ``TERM``, ``NO_COLOR``, ``LC_ALL``,
    ``XTERM_VERSION``. With ``is_shown`` the rows are printed at the end. With ``joins`` emoji sequences are one emoji.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 100,
        rows: int = 30,
        environment: Mapping[str, str],
        folder: str | None = None,
        is_shown: bool = True,
        joins: bool = False,
    ) -> None:
        self._is_shown = is_shown
        self._screen = _Emulator(columns, rows, joins=joins)
        self._rewraps = "XTERM_VERSION" not in environment
        self._stream = pyte.ByteStream(self._screen)
        # All output of the program.
        self.raw = b""
        self._program = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns), env=dict(environment), cwd=folder
        )
        self._program.delaybeforesend = None
        # True if the program has closed the terminal.
        self.has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:  # pytest shows the output of failed tests
            print(f"{self}\n")
        self.close()

    def __str__(self) -> str:
        shown = "\n".join(f"|{row}" for row in self.everything())
        return f"{shown}\n({self._screen.columns} x {self._screen.lines}, cursor at {tuple(self.cursor)})"

    @property
    def pid(self) -> int:
        """The process id of the program."""
        return int(self._program.pid)

    # --- input ---

    def type(self, *keys: str) -> None:
        """Type text and keys such as ENTER."""
        self._program.send("".join(keys))

    def paste(self, text: str) -> None:
        """Paste, with bracketed paste mode."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Resize the window. The program gets a signal."""
        if self._rewraps:
            self._screen.rewrap(columns, rows)
        else:
            self._screen.resize(rows, columns)
            self._screen.cursor.x = min(self._screen.cursor.x, columns - 1)
        self._program.setwinsize(rows, columns)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Suspend the program until :meth:`go_on`."""
        self.signal(signal.SIGSTOP)

    def stall(self) -> None:
        """Read nothing until the program has filled the terminal's buffer. For Linux."""
        until_full(self.pid)

    def hang_up(self) -> None:
        """Close the terminal, as a person closes a window, and wait for the program's end."""
        self._program.ptyproc.fileobj.close()
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not self.is_gone:
            assert time.monotonic() < give_up_at, f"it did not end\n{self}"
            time.sleep(_LOOK_SECONDS)

    def go_on(self) -> None:
        """Resume the program."""
        self.signal(signal.SIGCONT)

    @property
    def is_gone(self) -> bool:
        """True if the program has ended, even if its output was not read."""
        return not self._program.isalive()

    def close(self) -> None:
        """Kill the program if it has not ended."""
        if self._program.isalive():
            self._program.kill(signal.SIGKILL)
            self._program.wait()
        # pexpect's own close() sleeps.
        self._program.ptyproc.fileobj.close()
        self._program.closed = self._program.ptyproc.closed = True

    # --- output ---

    def rows(self) -> list[str]:
        """The rows of the window without trailing blanks."""
        return [self._screen.row(number) for number in range(self._screen.lines)]

    def everything(self) -> list[str]:
        """All rows, including those that have scrolled out, without empty rows at the end."""
        rows = [*self._screen.gone, *self.rows()]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def text(self) -> str:
        """All rows as one text."""
        return "\n".join(self.everything())

    def row_with(self, text: str) -> str:
        """The last row that contains the text; empty if no row does."""
        return next((row for row in reversed(self.everything()) if text in row), "")

    @property
    def cursor(self) -> Place:
        """The position of the cursor."""
        return Place(self._screen.cursor.y, self._screen.cursor.x)

    @property
    def cursor_row(self) -> str:
        """The text of the cursor's row."""
        return self._screen.row(self._screen.cursor.y)

    @property
    def shows_cursor(self) -> bool:
        """True if the cursor is visible."""
        return not self._screen.cursor.hidden

    @property
    def bells(self) -> int:
        """Number of bells."""
        return self._screen.bells

    @property
    def title(self) -> str:
        """The title of the window, or empty."""
        return str(self._screen.title)

    def place(self, text: str) -> Place:
        """The position of the last occurrence of the text in the window. Raises LookupError."""
        for number in reversed(range(self._screen.lines)):
            cells = self._screen.buffer[number]
            datas = [cells[column].data for column in range(self._screen.columns)]
            for column in reversed(range(self._screen.columns)):
                if datas[column] and "".join(datas[column:]).startswith(text):
                    return Place(number, column)
        raise LookupError(f"{text!r} is not in the window\n{self}")

    def cell(self, row: int, column: int) -> Char:
        """The letter and its style: ``data``, ``fg``, ``bg``, ``bold``, ``italics``, ``reverse``."""
        return self._screen.buffer[row][column]

    def look_of(self, text: str) -> Char:
        """The style of the first letter of the text."""
        return self.cell(*self.place(text))

    @property
    def echoes(self) -> bool:
        """True if the terminal echoes input, in line mode."""
        flags = termios.tcgetattr(self._program.child_fd)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    # --- waiting ---

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Read until ``holds()``. Raises AssertionError, with the window, at the deadline or if the program ends.

        A screen without a cursor is half drawn and is not looked at.
        """
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not ((self.shows_cursor or self.has_ended) and holds()):
            left_seconds = give_up_at - time.monotonic()
            if self.has_ended or left_seconds < 0:
                why = "the program ended" if self.has_ended else f"{DEADLINE_SECONDS:g} s have passed"
                raise AssertionError(f"not reached: {what}; {why}\n{self}")
            self._read(min(left_seconds, _LOOK_SECONDS))

    def until_shows(self, *texts: str) -> None:
        """Read until each text has appeared in the rows, including those that have scrolled out."""
        for text in texts:
            self.until(lambda text=text: text in self.text(), f"{text!r} is shown")  # type: ignore[misc]

    def until_line(self, line: str) -> None:
        """Read until the cursor's row is ``line``."""
        self.until(lambda: self.cursor_row == line.rstrip(), f"the line is {line!r}")

    def until_end(self) -> int:
        """Read until the program ends. Returns its exit code, or the negative number of the signal that killed it."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not self.has_ended:
            assert time.monotonic() < give_up_at, f"it did not end\n{self}"
            self._read(_LOOK_SECONDS)
        if self._program.isalive():
            self._program.wait()
        return -self._program.signalstatus if self._program.signalstatus else int(self._program.exitstatus)

    def _read(self, timeout_seconds: float) -> None:
        """Read available output, or wait for some."""
        try:
            data = self._program.read_nonblocking(_READ_BYTES, timeout_seconds)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            self.has_ended = True
            return
        self.raw += data
        self._stream.feed(data)
