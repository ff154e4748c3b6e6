"""A window of a terminal: a program in a pseudo-terminal, and what a person in front of it sees.

    with Window(["chatclient", "alice"], columns=80, rows=24) as window:
        window.until_shows("connected")
        window.type("hello", ENTER)
        window.until(lambda: window.row_with("hello").endswith("hello"), "the message is shown")

Nothing is read but while something is waited for, and all waiting has a deadline.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
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

DEADLINE_SECONDS: Final = 25.0
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
    """What a keyboard sends for the letter with Ctrl."""
    return chr(ord(letter.upper()) - 64)


class Place(NamedTuple):
    """Where something is in the window; both count from 0."""

    row: int
    column: int


class _Emulator(pyte.Screen):
    """What pyte leaves out: it keeps the rows that leave it at the top, counts bells, and draws what follows a joiner.

    Where it ``joins``, what is made of several wide characters is one picture of two columns. A window that becomes
    narrower has its rows wrapped anew, as in most terminals; pyte cuts them, as XTerm does.
    """

    def __init__(self, columns: int, rows: int, *, joins: bool) -> None:
        self.gone: list[str] = []
        self.bells = 0
        self._joins = joins
        super().__init__(columns, rows)

    def bell(self, *_: object) -> None:
        """Somebody is called."""
        self.bells += 1

    def draw(self, data: str) -> None:
        """Letters, and marks; what takes no column and is no mark is not seen."""
        if self._joins:
            data = "".join(each[0] if wcwidth(each[0]) > 1 else each for each in iter_graphemes(data))
        super().draw("".join(letter for letter in data if wcwidth(letter) > 0 or unicodedata.combining(letter)))

    def rewrap(self, columns: int, rows: int) -> None:
        """Another size; each row that is too long becomes several, and the cursor stays where it was in its text."""
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
        """One row down, where the window may scroll."""
        if self.cursor.y == self.lines - 1:
            self.gone.append(self.row(0))
        super().index()

    def row(self, number: int) -> str:
        """Its text, without the blanks at its end. Behind a wide letter there is nothing."""
        cells = self.buffer[number]
        return "".join(cells[column].data for column in range(self.columns)).rstrip()


class Window:
    """A program in a pseudo-terminal of so many columns and rows. Leaving the context kills it.

    ``environment`` is the whole of it, and says what the terminal can do: ``TERM``, ``NO_COLOR``, ``LC_ALL``,
    ``XTERM_VERSION``. What was to be seen is printed at the end, where it ``is_shown``. ``joins`` is about emoji.
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
        # Every byte that the program wrote.
        self.raw = b""
        self._program = pexpect.spawn(
            command[0], list(command[1:]), dimensions=(rows, columns), env=dict(environment), cwd=folder
        )
        self._program.delaybeforesend = None
        # Has the program closed the terminal?
        self.has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:  # by pytest, when a test fails
            print(f"{self}\n")
        self.close()

    def __str__(self) -> str:
        shown = "\n".join(f"|{row}" for row in self.everything())
        return f"{shown}\n({self._screen.columns} x {self._screen.lines}, cursor at {tuple(self.cursor)})"

    @property
    def pid(self) -> int:
        """The program's."""
        return int(self._program.pid)

    # --- what the person does ---

    def type(self, *keys: str) -> None:
        """Type text, and keys such as ENTER."""
        self._program.send("".join(keys))

    def paste(self, text: str) -> None:
        """As a terminal does it that tells what is pasted from what is typed."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Draw the window's corner to another place; the program is told by a signal."""
        if self._rewraps:
            self._screen.rewrap(columns, rows)
        else:
            self._screen.resize(rows, columns)
            self._screen.cursor.x = min(self._screen.cursor.x, columns - 1)
        self._program.setwinsize(rows, columns)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the program."""
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Stop the program where it is, until it may go on."""
        self.signal(signal.SIGSTOP)

    def stall(self) -> None:
        """Read nothing until the program has written as much as the terminal takes."""
        waiting = -1
        while (now := self._unread_bytes()) != waiting or not now:
            waiting = now
            time.sleep(4 * _LOOK_SECONDS)

    def _unread_bytes(self) -> int:
        return int.from_bytes(fcntl.ioctl(self._program.child_fd, termios.FIONREAD, bytes(4)), sys.byteorder)

    def go_on(self) -> None:
        """The other way round."""
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the program, if it has not ended."""
        if self._program.isalive():
            self._program.kill(signal.SIGKILL)
            self._program.wait()
        # Its own way to close takes naps.
        self._program.ptyproc.fileobj.close()
        self._program.closed = self._program.ptyproc.closed = True

    # --- what the person sees ---

    def rows(self) -> list[str]:
        """The rows of the window, without the blanks at their ends."""
        return [self._screen.row(number) for number in range(self._screen.lines)]

    def everything(self) -> list[str]:
        """All rows, with those that have left the window at the top; without empty ones at the end."""
        rows = [*self._screen.gone, *self.rows()]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def text(self) -> str:
        """All rows as one text."""
        return "\n".join(self.everything())

    def row_with(self, text: str) -> str:
        """The last row with this text; nothing where there is none."""
        return next((row for row in reversed(self.everything()) if text in row), "")

    @property
    def cursor(self) -> Place:
        """Where it is."""
        return Place(self._screen.cursor.y, self._screen.cursor.x)

    @property
    def cursor_row(self) -> str:
        """The text of the row where the cursor is."""
        return self._screen.row(self._screen.cursor.y)

    @property
    def shows_cursor(self) -> bool:
        """Can it be seen?"""
        return not self._screen.cursor.hidden

    @property
    def bells(self) -> int:
        """How often the bell has rung."""
        return self._screen.bells

    @property
    def title(self) -> str:
        """The window's title, where the program has set one."""
        return str(self._screen.title)

    def place(self, text: str) -> Place:
        """Where the text begins; where it is several times in the window, the last one. Raises LookupError."""
        for number in reversed(range(self._screen.lines)):
            cells = self._screen.buffer[number]
            datas = [cells[column].data for column in range(self._screen.columns)]
            for column in reversed(range(self._screen.columns)):
                if datas[column] and "".join(datas[column:]).startswith(text):
                    return Place(number, column)
        raise LookupError(f"{text!r} is not in the window\n{self}")

    def cell(self, row: int, column: int) -> Char:
        """The letter there, and how it looks: ``data``, ``fg``, ``bg``, ``bold``, ``italics``, ``reverse``."""
        return self._screen.buffer[row][column]

    def look_of(self, text: str) -> Char:
        """How the first letter of this text looks."""
        return self.cell(*self.place(text))

    @property
    def echoes(self) -> bool:
        """Does the terminal show by itself what is typed, line by line?"""
        flags = termios.tcgetattr(self._program.child_fd)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    # --- to wait ---

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Read until it holds; raises AssertionError at the deadline and at the program's end, with the window."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            left_seconds = give_up_at - time.monotonic()
            if self.has_ended or left_seconds < 0:
                why = "the program ended" if self.has_ended else f"{DEADLINE_SECONDS:g} s are over"
                raise AssertionError(f"it never came to that: {what}; {why}\n{self}")
            self._read(min(left_seconds, _LOOK_SECONDS))

    def until_shows(self, *texts: str) -> None:
        """Until each of the texts is in a row, be it one that has left the window."""
        for text in texts:
            self.until(lambda text=text: text in self.text(), f"{text!r} is shown")  # type: ignore[misc]

    def until_line(self, line: str) -> None:
        """Until the row of the cursor is this."""
        self.until(lambda: self.cursor_row == line.rstrip(), f"the line is {line!r}")

    def until_end(self) -> int:
        """Until the program has ended: its exit code; a signal that killed it is negative."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not self.has_ended:
            assert time.monotonic() < give_up_at, f"it did not end\n{self}"
            self._read(_LOOK_SECONDS)
        if self._program.isalive():
            self._program.wait()
        return -self._program.signalstatus if self._program.signalstatus else int(self._program.exitstatus)

    def until_gone(self) -> int:
        """The same, and read nothing before."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while self._program.isalive():
            assert time.monotonic() < give_up_at, f"it did not end\n{self}"
            time.sleep(_LOOK_SECONDS)
        return self.until_end()

    def _read(self, patience_seconds: float) -> None:
        """What has come, or comes soon."""
        try:
            data = self._program.read_nonblocking(_READ_BYTES, patience_seconds)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            self.has_ended = True
            return
        self.raw += data
        self._stream.feed(data)
