"""Lines of IRC: parse them, format them, and cut texts to their length.

No line that leaves this module has a line end or a NUL inside, or more than LINE_MAX_BYTES without its tags, whatever
the names and texts are: see :func:`format_line` and :func:`cut_text`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.encoding import decode_text
from chatprotocol.limits import IRC_LINE_MAX_BYTES, IRC_MESSAGE_LINES_MAX, IRC_TAGS_MAX_BYTES, MOTD_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LINE_END_BYTES: Final = 2
_NO_TAGS: Final[Mapping[str, str]] = {}
# Escape sequences of tag values (IRCv3, message-tags). Any other escaped character stands for itself.
_ESCAPES: Final = {":": ";", "s": " ", "r": "\r", "n": "\n"}
_ESCAPED: Final = re.compile(r"\\(.?)", re.DOTALL)
_TO_ESCAPE: Final = str.maketrans({";": r"\:", " ": r"\s", "\\": r"\\", "\r": r"\r", "\n": r"\n", "\0": None})
# A line has no place for these; each becomes a space.
_ENDS: Final = re.compile(r"[\r\n\0]+")
_BREAKS: Final = re.compile(r"\r\n|\r|\n")
# Formatting codes of mIRC: bold, colors, hexadecimal colors, reset, monospace, reverse, italics, strikethrough,
# underline.
_FORMATTING: Final = re.compile(
    "\x03(?:[0-9]{1,2}(?:,[0-9]{1,2})?)?|\x04(?:[0-9A-Fa-f]{6}(?:,[0-9A-Fa-f]{6})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]"
)
_IS_FORMATTED: Final = re.compile("[\x02-\x04\x0f\x11\x16\x1d-\x1f]")
# Zero width joiner, and the skin tones of emoji.
_JOINER: Final = "\u200d"
_SKIN_TONES: Final = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
# Characters that are shown as one: a family of four has eleven with their skin tones.
_SHOWN_MAX_CHARACTERS: Final = 16
# The byte at both ends of a message for the program of the recipient (CTCP).
CTCP: Final = "\x01"
ACTION_PREFIX: Final = "/me "


class Command(NamedTuple):
    """A line of a client. ``name`` is in upper case; ``tags`` have unescaped values."""

    name: str
    params: tuple[str, ...] = ()
    tags: Mapping[str, str] = _NO_TAGS
    # The tags as they were sent, without "@"; for those that are passed on.
    raw_tags: str = ""

    def param(self, number: int, default: str = "") -> str:
        """The parameter with this number, from 0."""
        return self.params[number] if number < len(self.params) else default


_UNNAMED: Final = Command("*")


class LineError(Exception):
    """A line can't be read. ``is_long``: it is over the limit; otherwise it is not UTF-8.

    ``command`` has what could be read of its name and tags.
    """

    def __init__(self, command: Command = _UNNAMED, *, is_long: bool = False) -> None:
        super().__init__(command)
        self.command = command
        self.is_long = is_long


def parse_line(line: bytes) -> Command | None:
    """Parse a line without its line end; None for an empty one. Raises LineError.

    The source is skipped, because a client can only name itself. A NUL or a carriage return inside the line ends it.
    """
    if b"\0" in line or b"\r" in line:
        line = re.split(rb"[\r\0]", line, maxsplit=1)[0]
    raw_tags = b""
    if line.startswith(b"@"):
        raw_tags, _, line = line[1:].partition(b" ")
        if len(raw_tags) + LINE_END_BYTES > IRC_TAGS_MAX_BYTES:
            raise LineError(is_long=True)
    if len(line) + LINE_END_BYTES > IRC_LINE_MAX_BYTES:
        raise LineError(_parse_broken(b"", raw_tags), is_long=True)
    try:
        return _parse_text(line.decode(), raw_tags.decode())
    except UnicodeDecodeError:
        raise LineError(_parse_broken(line, raw_tags)) from None


def _parse_broken(line: bytes, raw_tags: bytes) -> Command:
    """The name and the tags of a line that can't be read."""
    tags = raw_tags.decode(errors="replace")
    command = _parse_text(line.decode(errors="replace"), tags)
    name = "" if command is None else command.name
    return Command(name if name.isascii() and name.isalnum() else "*", tags=parse_tags(tags))


def _parse_text(text: str, raw_tags: str) -> Command | None:
    text = text.lstrip(" ")
    if text.startswith(":"):
        text = text.partition(" ")[2].lstrip(" ")
    head, colon, trailing = text.partition(" :")
    words = head.split(" ")
    name = words[0].upper()
    if not name:
        return None
    params = [word for word in words[1:] if word]
    if colon:
        params.append(trailing)
    return Command(name, tuple(params), parse_tags(raw_tags) if raw_tags else _NO_TAGS, raw_tags)


def parse_tags(raw_tags: str) -> dict[str, str]:
    """The tags of a line, without "@". The last of several with one name counts."""
    tags = {}
    for tag in raw_tags.split(";"):
        name, _, value = tag.partition("=")
        if name:
            tags[name] = _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), value) if "\\" in value else value
    return tags


def escape_tag(value: str) -> str:
    """Escape the value of a tag."""
    return value.translate(_TO_ESCAPE)


def format_line(source: str, command: str, *params: str, tags: str = "") -> str:
    """Format a line, without its line end. ``source`` and ``tags`` may be empty; ``tags`` are escaped and have no "@".

    The last parameter may be any text; a line end in it becomes a space. A line over the limit loses the end of this
    text. Any other parameter is one word; "*" replaces one that can't stand in the middle of a line.
    """
    line = f":{source} {command}" if source else command
    if params:
        *middle, last = params
        for word in middle:
            line += f" {word}" if _is_word(word) else " *"
        line += f" {last}" if _is_word(last) else f" :{last}"
    if "\n" in line or "\r" in line or "\0" in line:
        line = _ENDS.sub(" ", line)
    limit_bytes = IRC_LINE_MAX_BYTES - LINE_END_BYTES
    if len(line) * 4 > limit_bytes and len(line.encode(errors="replace")) > limit_bytes:
        line = line.encode(errors="replace")[:limit_bytes].decode(errors="ignore")
    return f"@{tags} {line}" if tags else line


def _is_word(text: str) -> bool:
    """True if the text can be a parameter in the middle of a line."""
    return bool(text) and text[0] != ":" and " " not in text and _ENDS.search(text) is None


def add_tag(line: str, tag: str) -> str:
    """Put a tag, which is escaped, before all others of a line."""
    return f"@{tag};{line[1:]}" if line.startswith("@") else f"@{tag} {line}"


def tag_all(lines: Iterable[str], batch: str) -> list[str]:
    """Put lines into a batch, except for those of a batch inside it: their first tag names it."""
    return [line if line.startswith("@batch=") else add_tag(line, f"batch={batch}") for line in lines]


def encode_lines(lines: list[str]) -> bytes:
    """Encode lines with their line ends."""
    if not lines:
        return b""
    return ("\r\n".join(lines) + "\r\n").encode(errors="replace")


def clip(text: str, limit_bytes: int) -> str:
    """The beginning of a text that fits the limit."""
    if len(text) * 4 <= limit_bytes:
        return text
    return text.encode(errors="replace")[:limit_bytes].decode(errors="ignore")


def wrap_words(words: Iterable[str], limit_bytes: int) -> list[str]:
    """Join words with spaces to lines that fit the limit; a longer word is a line of its own."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1].encode()) + 1 + len(word.encode()) <= limit_bytes:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def read_motd(data: bytes) -> tuple[str, ...]:
    """The lines of a file with the message of the day. Raises ValueError if it is too large, or not text."""
    if len(data) > MOTD_MAX_BYTES:
        raise ValueError(f"it has more than {MOTD_MAX_BYTES:,} bytes")
    try:
        return tuple(line.expandtabs() for line in decode_text(data).splitlines())
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


# --- texts of messages ---


def remove_formatting(text: str) -> str:
    """Remove the formatting codes of mIRC."""
    return _FORMATTING.sub("", text) if _IS_FORMATTED.search(text) else text


class Piece(NamedTuple):
    """A part of a message that fits one line. ``continues`` is True if no line break is before it."""

    text: str
    continues: bool = False


def cut_text(text: str, limit_bytes: int) -> Iterator[Piece]:
    """Cut a text at its line breaks, and too long lines at words, into pieces of at most ``limit_bytes`` in UTF-8.

    ``limit_bytes`` is at least 4, which a character may have. Joined, with a line break before each piece that does not
    continue, the pieces are the text; except that a NUL and the byte of CTCP are removed, and that breaks after the
    first IRC_MESSAGE_LINES_MAX are spaces. Otherwise a message of line breaks would be a hundred times as long.
    """
    lines = _BREAKS.split(text.replace("\0", "").replace(CTCP, ""))
    if len(lines) > IRC_MESSAGE_LINES_MAX:
        lines[IRC_MESSAGE_LINES_MAX - 1 :] = [" ".join(lines[IRC_MESSAGE_LINES_MAX - 1 :])]
    for line in lines:
        if len(line) * 4 <= limit_bytes or len(line.encode(errors="replace")) <= limit_bytes:
            yield Piece(line)
        else:
            yield from _cut_line(line.encode(errors="replace"), limit_bytes)


def _cut_line(line: bytes, limit_bytes: int) -> Iterator[Piece]:
    """Cut a line after the last space that fits, or else between two characters as they are shown."""
    start = 0
    while len(line) - start > limit_bytes:
        end = line.rfind(b" ", start + limit_bytes // 2, start + limit_bytes) + 1
        if not end:
            end = start + limit_bytes
            while line[end] & 0xC0 == 0x80:  # noqa: PLR2004 - inside a character
                end -= 1
            end -= _bytes_of_next(line[start:end].decode(), line[end : end + 4].decode(errors="ignore")[:1])
        yield Piece(line[start:end].decode(), continues=start > 0)
        start = end
    yield Piece(line[start:].decode(), continues=start > 0)


def _bytes_of_next(text: str, after: str) -> int:
    """The bytes at the end of a text that are shown as one character with what follows, ``after``; at most its half."""
    for end in range(len(text), max(len(text) // 2, len(text) - _SHOWN_MAX_CHARACTERS), -1):
        if not _are_joined(text[end - 1], text[end] if end < len(text) else after):
            return len(text[end:].encode())
    return 0


def _are_joined(first: str, second: str) -> bool:
    """True if two characters are shown as one: a letter and its mark, or parts of an emoji."""
    return _JOINER in (first, second) or second in _SKIN_TONES or unicodedata.category(second)[0] == "M"
