"""Bytes to frames: by line, by JSON object inside a line, and by length."""

import re
import struct
from typing import Final

from chatprotocol.errors import ErrorCode, Refusal

_STRUCTURE = re.compile(rb'["{}\[\]]')
_OBJECT_START = re.compile(rb"[ \t\r\n]*\{")
_STRING_BODY = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)


class LineBuffer:
    """Collects a byte stream into whole lines. Between two pieces it holds no more than ``limit_bytes``.

    After each piece, call :meth:`drop_overflow`: of a line over the limit the rest is skipped.
    """

    __slots__ = ("_limit_bytes", "_skipping", "_tail")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._tail = b""
        self._skipping = False

    @property
    def tail(self) -> bytes:
        """What has come of a line that is not ended yet."""
        return self._tail

    def feed(self, data: bytes) -> bytes:
        """Add a piece; all lines that are whole now come back as one block."""
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        if self._tail:
            data = self._tail + data
        cut = data.rfind(b"\n") + 1
        block, self._tail = (data, b"") if cut == len(data) else (data[:cut], data[cut:])
        return block

    def drop(self, size_bytes: int) -> None:
        """The beginning of the tail was used."""
        self._tail = self._tail[size_bytes:]

    def drop_overflow(self) -> bool:
        """Was the tail over the limit? Then it is given up, and so is what is still to come of its line."""
        if len(self._tail) <= self._limit_bytes:
            return False
        self._tail = b""
        self._skipping = True
        return True


class ObjectScanner:
    """Finds where a JSON object ends in text that arrives in pieces, each byte looked at once.

    It knows strings and brackets only; whether the object is good JSON is for a parser to say. What it is for: peers
    that end objects with nothing at all, and measuring depth before a recursive parser is let in.
    """

    __slots__ = ("_in_string", "_position", "_scanned", "deepest", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self.deepest = 0
        # Relative to where the object starts.
        self._scanned = 0
        self._position = 0
        self._in_string = False

    def scan(self, text: bytes, start: int = 0) -> int:
        """The offset just behind the object that begins at ``start``, or -1 while it has not ended.

        While the answer is -1, the next call must be given the object with more behind it.
        """
        self._position = start + self._scanned
        end = self._walk(text)
        self._scanned = self._position - start
        return end

    def _walk(self, text: bytes) -> int:
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


def is_object(text: bytes, start: int = 0) -> bool:
    """Does the text, from ``start`` on, begin like an object?"""
    return _OBJECT_START.match(text, start) is not None


def split_objects(line: bytes) -> list[bytes]:
    """The JSON objects that stand one behind the other in a line; a rest that is none, or does not end, is the last."""
    objects: list[bytes] = []
    start = 0
    while is_object(line, start) and (end := ObjectScanner().scan(line, start)) >= 0:
        objects.append(line[start:end].strip())
        start = end
    rest = line[start:].strip()
    return [*objects, rest] if rest else objects


def nesting(text: bytes) -> int:
    """How deep the first object of ``text`` is nested."""
    scanner = ObjectScanner()
    scanner.scan(text)
    return scanner.deepest


# A frame's kind, and the length of its payload in bytes, in network byte order.
_HEADER: Final = struct.Struct(">BI")
HEADER_BYTES: Final = _HEADER.size


# The header of a frame, from its kind, which is the value of a byte, and the length of its payload in bytes.
frame_header: Final = _HEADER.pack


def frame(kind: int, payload: bytes) -> bytes:
    """The frame of a payload."""
    return frame_header(kind, len(payload)) + payload


class FrameBuffer:
    """Cuts a byte stream into frames. Between two pieces it holds less than ``limit_bytes``, which count the header.

    After each piece, look at :attr:`problem`: where a header can't be one, the rest of the stream is lost.
    """

    __slots__ = ("_kinds", "_payload_max_bytes", "problem", "rest")

    def __init__(self, kinds: bytes, limit_bytes: int) -> None:
        self._kinds = kinds
        self._payload_max_bytes = limit_bytes - HEADER_BYTES
        # What has come of a frame that is not whole yet.
        self.rest = b""
        self.problem: Refusal | None = None

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Add a piece; returns kind and payload of each frame that is whole now."""
        if self.problem is not None:
            return []
        if self.rest:
            data = self.rest + data
        found: list[tuple[int, bytes]] = []
        start, payload = 0, HEADER_BYTES
        while payload <= len(data):
            kind, size_bytes = _HEADER.unpack_from(data, start)
            stop = payload + size_bytes
            if stop > len(data) or size_bytes > self._payload_max_bytes or kind not in self._kinds:
                break
            found.append((kind, data[payload:stop]))
            start, payload = stop, stop + HEADER_BYTES
        self.rest = data[start:]
        if self.rest:
            self._check_header()
        return found

    def _check_header(self) -> None:
        """Can the rest be the beginning of a frame?"""
        kind = self.rest[0]
        if kind not in self._kinds:
            kinds = " or ".join(chr(each) for each in self._kinds)
            self.problem = Refusal(
                ErrorCode.BAD_REQUEST, f"A frame begins with {kinds}, not with the byte 0x{kind:02x}."
            )
        elif len(self.rest) >= HEADER_BYTES:
            _, size_bytes = _HEADER.unpack_from(self.rest)
            if size_bytes > self._payload_max_bytes:
                limit_bytes = self._payload_max_bytes + HEADER_BYTES
                reason = f"A frame has {limit_bytes:,} bytes at most; this one has {size_bytes + HEADER_BYTES:,}."
                self.problem = Refusal(ErrorCode.TOO_LONG, reason)
        if self.problem is not None:
            self.rest = b""
