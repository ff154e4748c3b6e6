"""Draws and erases the prompt, corrected for differences between terminals. Built on prompt_toolkit.

The library stores the rows that it drew and the cursor position, and moves the cursor relative to that position. If the
terminal's cursor is elsewhere, too little or too much is erased. There are two causes:

- Width. A sequence of code points is one picture in some terminals and several in others. So after each wide or
  composed character the cursor is moved to the column that the library expects (Composed, Output.write). The columns
  in between are blank.
- Wrapping. Most terminals wrap rows again when the window becomes narrower, and the cursor moves down with its text.
  The rows of the prompt are drawn without automatic wrapping, so the lengths of the rows give the number of rows after
  wrapping. PromptRenderer moves the cursor up by that number before it erases.
"""

import os
import sys
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Size
from prompt_toolkit.layout import Layout
from prompt_toolkit.layout.containers import DynamicContainer
from prompt_toolkit.layout.screen import Char, Screen
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import Renderer

from chatclient.ui.text import clusters_of

# Variation selector for wide emoji, which some terminals lack: it is removed, so the narrow form is shown.
_EMOJI_SELECTOR = "\ufe0f"


def rewraps(environment: Mapping[str, str]) -> bool:
    """True if the terminal wraps rows again when the window becomes narrower, according to the environment.

    Nearly all terminals wrap again. Three of the terminals that cut rows instead can be recognized.
    """
    if "TMUX" in environment:
        return True
    return not ("STY" in environment or "XTERM_VERSION" in environment or environment.get("TERM") == "linux")


class PromptRenderer(Renderer):
    """Draws the prompt, and finds its position after the window's width has changed."""

    def erase(self, leave_alternate_screen: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's
        """Erase the prompt. The cursor moves to its beginning."""
        self.output.write_raw("\x1b[G")
        if self._last_screen is not None and self._last_size is not None and rewraps(os.environ):
            columns = self.output.get_size().columns
            if columns < self._last_size.columns:
                self.output.cursor_up(self._cursor_row(self._last_screen, columns) - self._cursor_pos.y)
        super().erase(leave_alternate_screen)

    def render(self, app: Application[str], layout: Layout, is_done: bool = False) -> None:  # noqa: FBT001, FBT002
        """Draw the prompt. If the width has changed, erase it first."""
        if self._last_size is not None and self._last_size.columns != self.output.get_size().columns:
            self.erase(leave_alternate_screen=False)
        super().render(app, layout, is_done)

    def _cursor_row(self, screen: Screen, columns: int) -> int:
        """The cursor's row in the prompt after wrapping to ``columns`` columns.

        If the cursor is after the text of its row, the end of the text counts instead.
        """
        above = (screen.data_buffer[y] for y in range(self._cursor_pos.y))
        here = screen.data_buffer[self._cursor_pos.y]
        rows_above = sum(1 + _row_of(row, _length(row), columns) for row in above)
        return rows_above + _row_of(here, min(self._cursor_pos.x, _length(here)), columns)


def _length(row: Mapping[int, Char]) -> int:
    """The number of columns without trailing blanks."""
    return max((x + (cell.width or 1) for x, cell in row.items() if cell.char.strip(" ")), default=0)


def _row_of(row: Mapping[int, Char], end: int, columns: int) -> int:
    """Number of line breaks in the first ``end`` columns of the row, after wrapping to ``columns`` columns."""
    x = taken = number = 0
    while x < end:
        width = row[x].width or 1
        if taken + width > columns:
            number += 1
            taken = 0
        taken += width
        x += width
    return number


class Composed(str):
    """A wide or composed character in a cell, with its first column and that of the next character."""

    __slots__ = ("begin", "end")
    begin: int
    end: int


class ComposingContainer(DynamicContainer):
    """Draws another container, with each grapheme cluster in one cell, so that it is written at once."""

    def write_to_screen(self, screen: Screen, *arguments: Any, **named: Any) -> None:
        """Draw the content, and compose its cells."""
        super().write_to_screen(screen, *arguments, **named)
        for row in screen.data_buffer.values():
            _compose(row)


def _compose(row: dict[int, Char]) -> None:
    """Join the cells of each cluster in the first one. The others are empty, as after any wide character."""
    cells = [(x, row[x]) for x in sorted(row) if row[x].char]
    text = "".join(cell.char for _, cell in cells)
    if text.isascii():
        return
    begins = {0, *accumulate(map(len, clusters_of(text)))}
    written, end = 0, 0
    clusters: list[list[tuple[int, Char]]] = []
    for x, cell in cells:
        if written in begins or x != end:
            clusters.append([])
        clusters[-1].append((x, cell))
        written += len(cell.char)
        end = x + (cell.width or 1)
    for cluster in clusters:
        _put(row, cluster)


def _put(row: dict[int, Char], cluster: list[tuple[int, Char]]) -> None:
    begin, first = cluster[0]
    end = cluster[-1][0] + (cluster[-1][1].width or 1)
    composed = Composed("".join(cell.char for _, cell in cluster))
    if composed.isascii() or (len(composed) == 1 and end == begin + 1):
        return
    composed.begin, composed.end = begin, end
    for x, cell in cluster[1:]:
        row[x] = Char("", cell.style)
    row[begin] = cell = Char("", first.style)
    cell.char, cell.width = composed, end - begin


class Output(Vt100_Output):
    """Buffers output while held, so that the terminal receives it in one write and does not flicker.

    The cursor position is never requested, because the terminal's answer would arrive within the typed input.
    """

    def __init__(self) -> None:
        self._is_held = False
        super().__init__(
            sys.stdout,
            _window_size,
            term=os.environ.get("TERM"),
            default_color_depth=ColorDepth.from_env(),  # NO_COLOR
            enable_cpr=False,
        )

    def get_rows_below_cursor_position(self) -> int:
        """Return 1: the terminal scrolls if needed. Without this value the library draws no status line."""
        return 1

    def erase_down(self) -> None:
        """Erase from the cursor, which is always at the left edge, to the end of the window.

        The erase has two parts: at the top of the window tmux would treat a single erase as a clear, and keep a copy.
        """
        self.write_raw("\x1b[K\x1b[C\x1b[J\x1b[D")

    def write(self, data: str) -> None:
        """Write text, and a composed character exactly in its columns."""
        if not isinstance(data, Composed):
            super().write(data)
            return
        self.write_raw(f"\x1b[{data.end - data.begin}X")  # blank the columns: the character may be narrower
        super().write(data.replace(_EMOJI_SELECTOR, ""))
        self.write_raw(f"\x1b[{data.end + 1}G")

    def hold(self) -> None:
        """Hold the output until release()."""
        self._is_held = True

    def release(self) -> None:
        """Write the held output."""
        self._is_held = False
        self.flush()

    def flush(self) -> None:
        """Write the buffered output, unless it is held."""
        if not self._is_held:
            super().flush()


def _window_size() -> Size:
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:  # the terminal is gone
        columns, rows = 0, 0
    return Size(rows or 24, columns or 80)
