"""Text on a terminal: made harmless, measured, and wrapped. Pure.

Terminals differ in how wide they draw what is made of several code points: a family of three is one picture of two
columns in one and three pictures in another; flags, skin tones and keycaps likewise. So a text is measured as the
widest of them draws it, code point by code point, and no row is ever longer than the window. What a reader sees as
one character, a grapheme cluster, is never taken apart while it fits in a line.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from wcwidth import iter_graphemes, wcwidth

if TYPE_CHECKING:
    from collections.abc import Iterator

# Format characters that text needs and that do nothing to a terminal: joiners of Persian, Hindi and emoji.
_HARMLESS_FORMATS: Final = frozenset("\u200c\u200d")
# Letters that print as nothing at all, though they are letters: with them a text could look empty, or like another one.
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
# A word, and the spaces behind it; the first word may be none.
_WORDS: Final = re.compile("([^ ]+|^)( *)")
# After a narrow character it asks for the wide picture.
_PICTURE: Final = "\ufe0f"
# No script has more marks than that on one letter; heaps of them climb over the lines above and below.
_HEAP_MAX: Final = 4


# What a text begins with that says what its sender does: "/me waves" is shown as "* alice waves" (XEP-0245).
ACTION: Final = "/me "


def action_of(text: str) -> str | None:
    """What the sender of this text does, if it says that."""
    return text[len(ACTION) :] if text.startswith(ACTION) and not text[len(ACTION) :].isspace() else None


def escape_control_characters(text: str) -> str:
    """The text with everything that could move a cursor, reorder or hide other text written out as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else _escape(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    if letter in _BLANK_LETTERS:
        return False
    return letter.isprintable() or letter in _HARMLESS_FORMATS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def limit_combining_marks(text: str) -> str:
    """The text with no more than a few letters in a row that take no column."""
    if text.isascii():
        return text
    kept: list[str] = []
    heap = 0
    for letter in text:
        heap = 0 if _columns_of(letter) else heap + 1
        if heap <= _HEAP_MAX:
            kept.append(letter)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _columns_of(letter: str) -> int:
    return max(0, wcwidth(letter))


def columns_of(text: str) -> int:
    """How many columns a harmless text takes at most: terminals differ in what they join to one picture."""
    return len(text) if text.isascii() else sum(_columns(text))


def _columns(text: str) -> Iterator[int]:
    """How many columns each character takes, behind those before it."""
    before = 0
    for letter in text:
        here = 1 if letter == _PICTURE and before == 1 else _columns_of(letter)
        yield here
        before = 0 if letter == " " else here or before


def clusters_of(text: str) -> Iterator[str]:
    """What a reader sees as one character each: a letter with its marks, an emoji of several code points."""
    return iter(text) if text.isascii() else iter_graphemes(text)


def wrap(text: str, columns: int) -> list[str]:
    """The text in lines of so many columns at most: between words where there are any, else between characters.

    At least one line. Spaces at a break are left out; those at the beginning stay.
    """
    lines: list[str] = []
    line, taken = "", 0
    for word, gap in _WORDS.findall(text):
        if line and taken + columns_of(word) > columns:
            lines += [line.rstrip(" ")] if line.strip(" ") else []
            line, taken = "", 0
        *full, rest = _pieces(word, columns)
        lines += full
        line += rest + gap
        taken += columns_of(rest) + len(gap)
    return [*lines, line.rstrip(" ")] if line.rstrip(" ") or not lines else lines


def _pieces(word: str, columns: int) -> Iterator[str]:
    """The word in pieces that fit in a line each; a character that is wider than a line is a piece of its own."""
    begin = end = taken = 0
    for unit in _units(word, columns):
        here = columns_of(unit)
        if end > begin and taken + here > columns:
            yield word[begin:end]
            begin, taken = end, 0
        taken += here
        end += len(unit)
    yield word[begin:]


def _units(word: str, columns: int) -> Iterator[str]:
    """What a line may end after: each cluster, and in one that fits in no line each code point with its marks."""
    for cluster in clusters_of(word):
        if columns_of(cluster) <= columns:
            yield cluster
            continue
        begin = 0
        for index, letter in enumerate(cluster):
            if index > begin and _columns_of(letter):
                yield cluster[begin:index]
                begin = index
        yield cluster[begin:]
