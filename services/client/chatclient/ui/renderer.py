"""How the prompt gets on the terminal and off it again, whatever the terminal does by itself. Built on prompt_toolkit.

The library remembers what it has drawn and where it left the cursor, and moves the cursor from there. That fails where
a terminal disagrees with it, and then it erases too little or too much. There are two ways to disagree:

- Width. What is made of several code points is one picture in some terminals, several in others. So after each wide or
  composed character the cursor is sent to the column where the library believes it to be (Composed, Output.write). Both
  agree again, and what stands between is blank.
- Wrapping. Most terminals wrap rows anew when the window becomes narrower, and the cursor moves down with its text. The
  rows of the prompt are drawn without automatic wrapping, so each is a line of its own, and how many rows it takes now
  follows from its length. So many rows are climbed before the prompt is erased (PromptRenderer).
"""

from __future__ import annotations

import os
import sys
from itertools import accumulate
from typing import TYPE_CHECKING

from prompt_toolkit.data_structures import Size
from prompt_toolkit.layout.containers import Container
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import Renderer

from chatclient.ui.text import clusters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prompt_toolkit.application import Application
    from prompt_toolkit.layout import Dimension, Layout
    from prompt_toolkit.layout.mouse_handlers import MouseHandlers
    from prompt_toolkit.layout.screen import Screen, WritePosition

# After a narrow character it asks for the wide picture, which not every terminal has: the line shows the narrow one.
_PICTURE = "\ufe0f"


def rewraps(environment: Mapping[str, str]) -> bool:
    """Whether the terminal wraps its rows anew when the window becomes narrower, as far as the environment tells.

    Nearly all do. Of those that cut instead, these three tell who they are.
    """
    if "TMUX" in environment:
        return True
    return not ("STY" in environment or "XTERM_VERSION" in environment or environment.get("TERM") == "linux")


class PromptRenderer(Renderer):
    """Draws the prompt, and finds it again after the window has got another width."""

    def erase(self, leave_alternate_screen: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's
        """Take the prompt away; the cursor is where it began."""
        self.output.write_raw("\x1b[G")
        if self._last_screen is not None and self._last_size is not None and rewraps(os.environ):
            columns = self.output.get_size().columns
            if columns < self._last_size.columns:
                self.output.cursor_up(self._cursor_row(self._last_screen, columns) - self._cursor_pos.y)
        super().erase(leave_alternate_screen)

    def render(self, app: Application[str], layout: Layout, is_done: bool = False) -> None:  # noqa: FBT001, FBT002
        """Draw it, and first take away what was drawn for another width."""
        if self._last_size is not None and self._last_size.columns != self.output.get_size().columns:
            self.erase(leave_alternate_screen=False)
        super().render(app, layout, is_done)

    def _cursor_row(self, screen: Screen, columns: int) -> int:
        """In which row of the prompt the cursor is, now that its rows are wrapped to so many columns.

        A cursor behind the end of a row is in the row where that ends.
        """
        above = (screen.data_buffer[y] for y in range(self._cursor_pos.y))
        here = screen.data_buffer[self._cursor_pos.y]
        rows_above = sum(1 + _row_of(row, _length(row), columns) for row in above)
        return rows_above + _row_of(here, min(self._cursor_pos.x, _length(here)), columns)


def _length(row: Mapping[int, Char]) -> int:
    """How many columns are written to; blanks at the end are not."""
    return max((x + (cell.width or 1) for x, cell in row.items() if cell.char.strip(" ")), default=0)


def _row_of(row: Mapping[int, Char], end: int, columns: int) -> int:
    """The number of the row where this one's first ``end`` columns end, after it was wrapped to so many columns."""
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
    """A wide or composed character in a cell, with the columns where it begins and where the next one does."""

    __slots__ = ("begin", "end")
    begin: int
    end: int


class ComposingContainer(Container):
    """Draws what another container does, with each grapheme cluster in one cell, so that it is written in one go."""

    def __init__(self, content: Container) -> None:
        self._content = content

    def reset(self) -> None:
        """As the content."""
        self._content.reset()

    def preferred_width(self, max_available_width: int) -> Dimension:
        """As the content."""
        return self._content.preferred_width(max_available_width)

    def preferred_height(self, width: int, max_available_height: int) -> Dimension:
        """As the content."""
        return self._content.preferred_height(width, max_available_height)

    def get_children(self) -> list[Container]:
        """The content."""
        return [self._content]

    def write_to_screen(
        self,
        screen: Screen,
        mouse_handlers: MouseHandlers,
        write_position: WritePosition,
        parent_style: str,
        erase_bg: bool,  # noqa: FBT001 - the library's
        z_index: int | None,
    ) -> None:
        """Draw the content, and compose what it is made of."""
        self._content.write_to_screen(screen, mouse_handlers, write_position, parent_style, erase_bg, z_index)
        for row in screen.data_buffer.values():
            _compose(row)


def _compose(row: dict[int, Char]) -> None:
    """Put the cells of each cluster into its first one; the others are empty, as behind any wide character."""
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
    """Keeps what is written while it is held: then the terminal gets it at once, and nothing flickers.

    It never asks the terminal where the cursor is: the answer would come in the middle of what is typed.
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
        """As many as are needed: the terminal scrolls. Without an answer there would be no status line."""
        return 1

    def erase_down(self) -> None:
        """Erase from here to the end of the window; the cursor is at the left edge, always.

        In two parts: at the top of the window, tmux would take it for clearing the window, and keep a copy above it.
        """
        self.write_raw("\x1b[K\x1b[C\x1b[J\x1b[D")

    def write(self, data: str) -> None:
        """Write text; one composed character in the columns that are its."""
        if not isinstance(data, Composed):
            super().write(data)
            return
        self.write_raw(f"\x1b[{data.end - data.begin}X")  # blank them: it may be narrower than what was there
        super().write(data.replace(_PICTURE, ""))
        self.write_raw(f"\x1b[{data.end + 1}G")

    def hold(self) -> None:
        """Write nothing from now on."""
        self._is_held = True

    def release(self) -> None:
        """Write all of it."""
        self._is_held = False
        self.flush()

    def flush(self) -> None:
        """Write what there is, unless it is held."""
        if not self._is_held:
            super().flush()


def _window_size() -> Size:
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:  # it is gone
        columns, rows = 0, 0
    return Size(rows or 24, columns or 80)
