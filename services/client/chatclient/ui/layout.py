"""Rows: time, sender and text in columns that fit the width of a window. Pure.

Control characters in received text are escaped here.
"""

import zlib
from typing import Final, NamedTuple, TypeAlias

from chatclient.ui.text import columns_of, escape_control_characters, limit_combining_marks, wrap
from chatprotocol.limits import BODY_MAX_BYTES
from chatprotocol.rules import name_key

# Pieces of text, each with its style: the name of a class of STYLES, or a colour.
Row: TypeAlias = list[tuple[str, str]]

STYLES: Final = {
    "time": "ansibrightblack",
    "gutter": "ansibrightblack",
    "notice": "ansibrightblack",
    "rule": "ansibrightblack",
    "error": "ansired",
    "direct": "ansimagenta",
    "room": "ansicyan",
    "alert": "bold",
    "own": "bold",
    "waits": "ansibrightblack italic",
    "status": "ansibrightblack",
    "status.up": "ansigreen",
    "status.down": "ansired bold",
    "bottom-toolbar": "noreverse",
    "bottom-toolbar.text": "",
}
# Colours readable on black and on white. A name's colour depends on the name only, so it is the same for all users.
_COLOURS: Final = (
    "#d75f5f", "#d7875f", "#af8700", "#5faf00", "#00af87", "#00afaf",
    "#00afd7", "#5f87ff", "#875fff", "#d75fd7", "#ff5f87", "#87875f",
)  # fmt: skip
# Widths of the window. Below _NARROW_COLUMNS there are no columns: the name is above the text, or before a short text.
# From _ROOMY_COLUMNS on, names have the full column. In between, time and name take a quarter of the window, 6 to 10
# columns for names.
_NARROW_COLUMNS: Final = 60
_ROOMY_COLUMNS: Final = 80
_NAME_COLUMNS: Final = 16
_MARGIN_SHARE: Final = 4
_LEAST_COLUMNS: Final = 8
_INDENT: Final = "  "
_RULE_COLUMNS: Final = 76
_TAB_COLUMNS: Final = 4
# Maximum number of rows per message: a message may consist of thousands of empty lines.
_MESSAGE_ROWS_MAX: Final = 60
# Maximum number of characters per message that are wrapped: a server may send more than the longest message.
_MESSAGE_MAX_CHARACTERS: Final = 2 * BODY_MAX_BYTES


class Glyphs(NamedTuple):
    """The separators and marks."""

    gutter: str = "│"
    to: str = "»"
    rule: str = "─"
    waits: str = "…"
    dot: str = "·"


# For terminals that support ASCII only.
ASCII_GLYPHS: Final = Glyphs("|", ">", "-", "...", "-")


class Columns:
    """The columns of a window of a given width."""

    def __init__(self, width: int, glyphs: Glyphs) -> None:
        self._width = width
        self._glyphs = glyphs

    def fit(self, time: str, who: Row, text: str, style: str) -> list[Row]:
        """Rows with time, sender and text. A name too long for its column has its own row."""
        if self._width < _NARROW_COLUMNS:
            return self._fit_narrow(time, who, text, style)
        gutter = f" {self._glyphs.gutter} "
        column = _NAME_COLUMNS
        if self._width < _ROOMY_COLUMNS:
            column = self._width // _MARGIN_SHARE - len(f"{time} {gutter}")
        indent = len(time) + 1 + column
        missing = column - sum(columns_of(part) for _, part in who)
        lines = _lines(text, self._width - indent - len(gutter) - 1)
        head: Row = [("class:time", f"{time} "), ("", " " * missing), *who, ("class:gutter", gutter)]
        rows = self._fold(head) if missing < 0 else [[*head, (style, lines.pop(0))]]
        return rows + [[("", " " * indent), ("class:gutter", gutter), (style, line)] for line in lines]

    def _fit_narrow(self, time: str, who: Row, text: str, style: str) -> list[Row]:
        head: Row = [("class:time", f"{time} "), *who]
        gutter = f" {self._glyphs.gutter} "
        lines = _lines(text, max(_LEAST_COLUMNS, self._width - 3))
        if (
            len(lines) == 1
            and sum(columns_of(part) for _, part in head) + len(gutter) + columns_of(lines[0]) < self._width
        ):
            return [[*head, ("class:gutter", gutter), (style, lines[0])]]
        return [*self._fold(head), *([("", _INDENT), (style, line)] for line in lines)]

    def _fold(self, row: Row) -> list[Row]:
        """Wrap a row between its pieces, and within a piece longer than a row."""
        rows: list[Row] = [[]]
        left = self._width - 1
        room = max(_LEAST_COLUMNS, left - len(_INDENT))
        for style, piece in row:
            lines = [piece] if columns_of(piece) <= left else wrap(piece.strip(), room)
            for line in lines:
                if columns_of(line) > left:
                    rows.append([("", _INDENT)])  # without the indent a name could imitate another user's row
                    left = room
                rows[-1].append((style, line))
                left -= columns_of(line)
        return rows

    def cut(self, text: str) -> str:
        """The text, cut to one row."""
        return wrap(text, self._width - 1)[0]

    def rule(self, what: str) -> Row:
        """A horizontal line with a label."""
        columns = min(self._width - 1, _RULE_COLUMNS)
        line = wrap(f"{self._glyphs.rule * 3} {what}", columns - 1)[0] + " "
        return [("class:rule", line + self._glyphs.rule * (columns - columns_of(line)))]


def colour_of(name: str) -> str:
    """The colour of a name."""
    return _COLOURS[zlib.crc32(name_key(name).encode()) % len(_COLOURS)]


def clean(text: str) -> str:
    """One line of received text, safe to display."""
    return limit_combining_marks(escape_control_characters(text))


def _lines(text: str, columns: int) -> list[str]:
    """The lines of a message, wrapped to its column."""
    shown = text[:_MESSAGE_MAX_CHARACTERS]
    parts = shown.replace("\r\n", "\n").expandtabs(_TAB_COLUMNS).split("\n")
    lines = [line for part in parts for line in wrap(clean(part), columns)]
    if len(lines) > _MESSAGE_ROWS_MAX or len(shown) < len(text):
        left_out = f"{len(lines) - _MESSAGE_ROWS_MAX} more lines are" if len(shown) == len(text) else "more is"
        return lines[:_MESSAGE_ROWS_MAX] + wrap(f"({left_out} not shown)", columns)
    return lines
