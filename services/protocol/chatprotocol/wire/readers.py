"""Bytes to frames: by line, by JSON object inside a line, by length, and by header and body."""

import codecs
import re
import struct
from typing import Final, NamedTuple

from chatprotocol.errors import ErrorCode, RequestError

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

    def split(self, data: bytes) -> bytes:
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
# For a buffer to which every byte is a kind.
ANY_KIND: Final = bytes(range(256))


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
        self.problem: RequestError | None = None

    def split(self, data: bytes) -> list[tuple[int, bytes]]:
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
            self.problem = RequestError(
                ErrorCode.BAD_REQUEST, f"A frame begins with {kinds}, not with the byte 0x{kind:02x}."
            )
        elif len(self.rest) >= HEADER_BYTES:
            _, size_bytes = _HEADER.unpack_from(self.rest)
            if size_bytes > self._payload_max_bytes:
                limit_bytes = self._payload_max_bytes + HEADER_BYTES
                reason = f"A frame has {limit_bytes:,} bytes at most; this one has {size_bytes + HEADER_BYTES:,}."
                self.problem = RequestError(ErrorCode.TOO_LONG, reason)
        if self.problem is not None:
            self.rest = b""


class Section(NamedTuple):
    """A header, and the body behind it if there is one.

    ``word`` is the first of the header, in upper case; ``rest`` is what stands behind it in its line.
    """

    word: str
    rest: str
    # What is no UTF-8 stands in it as lone surrogates.
    body: str | None


class _Header(NamedTuple):
    word: str
    rest: str
    # Of the body, or None where there is none.
    length: int | None
    # Some peers put a space before the length, and another one before the body, which does not count.
    is_spaced: bool


_HEADER_END = re.compile(rb"\n[ \t\r]*\n")
_LENGTH = re.compile(r"^([ \t]*)content-length[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_WHITE = b" \t\r\n"


class SectionBuffer:
    """Cuts a byte stream into sections: a header, an empty line, and a body as long as the header says.

    A forgiving reader: of empty lines and of white space around names there may be too much. After each piece, look at
    :attr:`problem`: where a header can't be one, the rest of the stream is lost.
    """

    __slots__ = (
        "_bodied",
        "_counts_characters",
        "_header",
        "_header_max_bytes",
        "_limit_bytes",
        "_rest",
        "_wanted_bytes",
        "problem",
    )

    def __init__(
        self, bodied: frozenset[str], header_max_bytes: int, body_max_bytes: int, *, counts_characters: bool
    ) -> None:
        """``bodied`` are the words behind which there must be a body; lengths count bytes, or characters."""
        self._bodied = bodied
        self._header_max_bytes = header_max_bytes
        self._limit_bytes = body_max_bytes
        self._counts_characters = counts_characters
        # What has come of a header that has not ended; or behind one that has, what has come of its body.
        self._rest = bytearray()
        self._header: _Header | None = None
        # A body of characters is not whole before so many bytes of it have come, and not looked at sooner.
        self._wanted_bytes = 0
        self.problem: RequestError | None = None

    @property
    def is_inside(self) -> bool:
        """Has a section begun that is not whole yet?"""
        return self._header is not None or bool(self._rest)

    def split(self, data: bytes) -> list[Section]:
        """Add a piece; returns each section that is whole now."""
        found: list[Section] = []
        if self.problem is not None:
            return found
        self._rest += data
        try:
            while (section := self._next()) is not None:
                found.append(section)
        except RequestError as problem:
            self.problem = problem
            self._rest.clear()
        return found

    def _next(self) -> Section | None:
        header = self._header or self._take_header()
        if header is None:
            return None
        self._header = header
        body = None
        if header.length is not None:
            start = int(header.is_spaced and self._rest.startswith(b" "))
            end = self._end_of_body(start, header.length)
            if end < 0:
                return None
            body = self._rest[start:end].decode(errors="surrogateescape")
            del self._rest[:end]
        self._header = None
        return Section(header.word, header.rest, body)

    def _take_header(self) -> _Header | None:
        """Read what stands before the first empty line, if that has come. Raises Refusal."""
        if self._rest[:1] in _WHITE:  # a newline behind a body, that was not counted
            del self._rest[: len(self._rest) - len(self._rest.lstrip(_WHITE))]
        end = _HEADER_END.search(self._rest)
        if (end.end() if end else len(self._rest)) > self._header_max_bytes:
            reason = f"A header has {self._header_max_bytes:,} bytes at most, and ends with an empty line."
            raise RequestError(ErrorCode.BAD_REQUEST, reason)
        if end is None:
            return None
        text = self._rest[: end.start()].decode(errors="replace")
        del self._rest[: end.end()]
        return self._read_header(text)

    def _read_header(self, text: str) -> _Header:
        first, _, others = text.partition("\n")
        # Some programs begin what they write with a byte order mark.
        word, _, rest = first.removeprefix("\ufeff").strip().partition(" ")
        word = word.upper()
        lengths = {value.strip(): space for space, value in _LENGTH.findall(others)}
        if not lengths and word not in self._bodied:
            return _Header(word, rest.strip(), None, is_spaced=False)
        if len(lengths) != 1:
            reason = f"{len(lengths)} different ones" if lengths else "none"
            raise RequestError(ErrorCode.BAD_REQUEST, f"One Content-length must be in this header; there are {reason}.")
        ((value, space),) = lengths.items()
        return _Header(word, rest.strip(), self._check_length(value), is_spaced=bool(space))

    def _check_length(self, value: str) -> int:
        if not re.fullmatch("[0-9]+", value):
            reason = f"A Content-length is a number, 0 or more; this one is {value[:32]!r}."
            raise RequestError(ErrorCode.BAD_REQUEST, reason)
        length = int(value)
        letter_bytes = 4 if self._counts_characters else 1
        if length * letter_bytes > self._limit_bytes:
            limit = f"{self._limit_bytes:,} bytes at most" + (", 4 for a character" if letter_bytes > 1 else "")
            reason = f"A body has {limit}; the Content-length is {f'{length:,}'[:32]}."
            raise RequestError(ErrorCode.TOO_LONG, reason)
        return length

    def _end_of_body(self, start: int, length: int) -> int:
        """Where the body that begins at ``start`` ends, or -1 while it has not come."""
        if len(self._rest) - start < length:  # a character is a byte at least
            return -1
        if not self._counts_characters:
            return start + length
        has_come = len(self._rest) - start
        if has_come < self._wanted_bytes:
            return -1
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        body = decoder.decode(self._rest[start : start + 4 * length])
        missing = length - len(body)
        if missing > 0:
            # Each takes a byte at least. Up to three may be here: of one that has begun, and may turn out to be none.
            self._wanted_bytes = has_come + max(1, missing - 3)
            return -1
        self._wanted_bytes = 0
        return start + len(body[:length].encode(errors="surrogateescape"))
