"""Text on a terminal: escaping, measuring and wrapping. Pure.

Terminals draw sequences of code points in different widths: a family emoji is one picture of two columns in one
terminal and three pictures in another. The same is true of flags, skin tones and keycaps. So the width here is the sum
over all code points, which is the maximum of all terminals, and no row exceeds the window. A grapheme cluster, which a
reader sees as one character, is not split if it fits in a line.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from wcwidth import iter_graphemes, wcwidth

# Format characters that text needs and terminals ignore: joiners of Persian, Hindi and emoji.
_SAFE_FORMATS: Final = frozenset("\u200c\u200d")
# Invisible letters: with them a text could look empty, or like a different text.
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
# A word and the spaces after it. The first word may be empty.
_WORDS: Final = re.compile("([^ ]+|^)( *)")
# Variation selector: requests the wide emoji form of the character before it.
_EMOJI_SELECTOR: Final = "\ufe0f"
# Maximum number of combining marks in a row: no script uses more, and longer runs cover the lines above and below.
_MARKS_MAX: Final = 4


# Prefix of an action: "/me waves" is shown as "* alice waves" (XEP-0245).
ACTION: Final = "/me "


def action_of(text: str) -> str | None:
    """The action in a text that begins with /me, or None."""
    return text[len(ACTION) :] if text.startswith(ACTION) and not text[len(ACTION) :].isspace() else None


def escape_control_characters(text: str) -> str:
    """Escape all characters that could move the cursor, or reorder or hide other text."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _is_safe(letter) else _escape(letter) for letter in text)


def _is_safe(letter: str) -> bool:
    if letter in _BLANK_LETTERS:
        return False
    return letter.isprintable() or letter in _SAFE_FORMATS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def limit_combining_marks(text: str) -> str:
    """Drop zero-width characters above the maximum in a row."""
    if text.isascii():
        return text
    kept: list[str] = []
    marks = 0
    for letter in text:
        marks = 0 if _columns_of(letter) else marks + 1
        if marks <= _MARKS_MAX:
            kept.append(letter)
    return "".join(kept)


@lru_cache(maxsize=4096)
def _columns_of(letter: str) -> int:
    return max(0, wcwidth(letter))


def columns_of(text: str) -> int:
    """Maximum number of columns of an escaped text, in any terminal."""
    return len(text) if text.isascii() else sum(_columns(text))


def _columns(text: str) -> Iterator[int]:
    """The number of columns of each character, in context."""
    before = 0
    for letter in text:
        here = 1 if letter == _EMOJI_SELECTOR and before == 1 else _columns_of(letter)
        yield here
        before = 0 if letter == " " else here or before


def clusters_of(text: str) -> Iterator[str]:
    """Grapheme clusters: a letter with its marks, or an emoji of several code points."""
    return iter(text) if text.isascii() else iter_graphemes(text)


def wrap(text: str, columns: int) -> list[str]:
    """Wrap the text to lines of at most ``columns`` columns, between words if possible.

    Returns at least one line. Spaces at a break are dropped, leading spaces are kept.
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
    """Split a word into pieces that fit in a line. A character that is wider than a line is a separate piece."""
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
    """The parts of a word that are not split: grapheme clusters.

    A cluster that is too wide for a line is split into code points, each with its combining marks.
    """
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
