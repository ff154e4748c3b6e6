"""Bytes to frames: by line, and by JSON object inside a line."""

import re
from typing import NamedTuple

_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_BODY = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)


class Lines(NamedTuple):
    """What a piece of a stream completed: the bytes up to and with its last line end."""

    block: bytes
    overflowed: bool


class LineBuffer:
    """Collects a byte stream into whole lines, and never holds more than ``limit_bytes``.

    A line over the limit is given up: ``overflowed`` is said once, and the rest of that line is skipped.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._tail = b""
        self._skipping = False

    @property
    def tail(self) -> bytes:
        """What has come of a line that is not ended yet."""
        return self._tail

    def take_tail(self, size_bytes: int) -> bytes:
        """Hand out the beginning of the unended line, as if it had ended there."""
        taken, self._tail = self._tail[:size_bytes], self._tail[size_bytes:]
        return taken

    def feed(self, data: bytes) -> Lines:
        """Add a piece; all lines that are complete now come back as one block."""
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        if self._tail:
            data = self._tail + data
        cut = data.rfind(b"\n") + 1
        block, self._tail = (data, b"") if cut == len(data) else (data[:cut], data[cut:])
        if len(self._tail) <= self._limit_bytes:
            return Lines(block, overflowed=False)
        self._tail = b""
        self._skipping = True
        return Lines(block, overflowed=True)


class ObjectScanner:
    """Finds where a JSON object ends in text that arrives in pieces, each byte looked at once.

    It knows strings and brackets only; whether the object is good JSON is for a parser to say. What it is for: peers
    that end objects with nothing at all, and measuring depth before a recursive parser is let in.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.deepest = 0
        self._position = 0
        self._in_string = False

    def scan(self, text: bytes) -> int:
        """The offset just behind the first object of ``text``, or -1 while it has not ended.

        While the answer is -1, the next call must be given the same text with more behind it.
        """
        while self._position < len(text):
            if self._in_string:
                self._position = _STRING_BODY.match(text, self._position).end()  # type: ignore[union-attr]
                if text[self._position : self._position + 1] != b'"':
                    return -1  # the piece ends inside the string, perhaps behind a lone backslash
                self._in_string = False
                self._position += 1
                continue
            found = _STRUCTURE.search(text, self._position)
            if found is None:
                self._position = len(text)
                return -1
            self._position = found.end()
            if self._enter(found.group()):
                return self._position
        return -1

    def _enter(self, token: bytes) -> bool:
        """Take one token outside a string; true when it closes the object."""
        if token == b'"':
            self._in_string = True
        elif token in b"{[":
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
        else:
            self.depth -= 1
        return token in b"}]" and self.depth <= 0


def split_objects(line: bytes) -> list[bytes]:
    """The JSON objects that stand one behind the other in a line; a rest that does not end is the last one."""
    objects: list[bytes] = []
    while line := line.strip():
        end = ObjectScanner().scan(line)
        if end < 0:
            return [*objects, line]
        objects.append(line[:end])
        line = line[end:]
    return objects


def nesting(text: bytes) -> int:
    """How deep the first object of ``text`` is nested."""
    scanner = ObjectScanner()
    scanner.scan(text)
    return scanner.deepest
