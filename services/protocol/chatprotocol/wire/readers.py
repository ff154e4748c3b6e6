"""Split byte streams: by line, by JSON object, by length prefix, and by header and body."""

import codecs
import re
import struct
from collections.abc import Generator, Iterator
from enum import Enum, auto
from typing import Final, NamedTuple

from chatprotocol.errors import ErrorCode, RequestError

_STRUCTURE = re.compile(rb'["{}\[\]]')
_OBJECT_START = re.compile(rb"[ \t\r\n]*\{")
_STRING_BODY = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)


class LineBuffer:
    """Splits a byte stream into lines. Call :meth:`drop_overflow` after each :meth:`split` that leaves a tail.

    The buffer then holds at most ``limit_bytes`` between two pieces. The rest of a line over the limit is skipped.
    """

    __slots__ = ("_limit_bytes", "_skipping", "_tail")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._tail = b""
        self._skipping = False

    @property
    def tail(self) -> bytes:
        """The incomplete line."""
        return self._tail

    def split(self, data: bytes) -> bytes:
        """Add a piece; returns all complete lines as one block."""
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        if self._tail:
            data = self._tail + data
        cut = data.rfind(b"\n") + 1
        block, self._tail = (data, b"") if cut == len(data) else (data[:cut], data[cut:])
        return block

    def drop(self, size_bytes: int) -> None:
        """Remove the first ``size_bytes`` of the tail."""
        self._tail = self._tail[size_bytes:]

    def drop_overflow(self) -> bool:
        """Drop a tail over the limit, and skip the rest of its line. True if the tail was over the limit."""
        if len(self._tail) <= self._limit_bytes:
            return False
        self._tail = b""
        self._skipping = True
        return True


class ObjectScanner:
    """Finds the end of a JSON object in text that arrives in pieces. Scans each byte once, in constant stack.

    The scanner knows strings and brackets only, and does not validate. The decoder uses it for peers that send no line
    end, and to measure the depth before a recursive parser runs.
    """

    __slots__ = ("_in_string", "_position", "_scanned", "deepest", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self.deepest = 0
        # Offset from the start of the object.
        self._scanned = 0
        self._position = 0
        self._in_string = False

    def scan(self, text: bytes, start: int = 0) -> int:
        """The offset after the object that begins at ``start``, or -1 if it is incomplete.

        After -1, the next call must pass the same object with more text appended.
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
                    return -1  # the piece ends inside the string, perhaps after a lone backslash
                self._in_string = False
                self._position += 1
                continue
            found = _STRUCTURE.search(text, self._position)
            if found is None:
                self._position = len(text)
                return -1
            self._position = found.end()
            if self._handle_token(found.group()):
                return self._position
        return -1

    def _handle_token(self, token: bytes) -> bool:
        """Process one token outside a string. True if it closes the object."""
        if token == b'"':
            self._in_string = True
        elif token in b"{[":
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
        else:
            self.depth -= 1
        return token in b"}]" and self.depth <= 0


def is_object(text: bytes, start: int = 0) -> bool:
    """True if an object begins at ``start``, after optional white space."""
    return _OBJECT_START.match(text, start) is not None


def split_objects(line: bytes) -> list[bytes]:
    """Split a line into concatenated JSON objects; trailing garbage or an incomplete object is the last item."""
    objects: list[bytes] = []
    start = 0
    while is_object(line, start) and (end := ObjectScanner().scan(line, start)) >= 0:
        objects.append(line[start:end].strip())
        start = end
    rest = line[start:].strip()
    return [*objects, rest] if rest else objects


def nesting(text: bytes) -> int:
    """The nesting depth of the first object or array of ``text``."""
    scanner = ObjectScanner()
    scanner.scan(text)
    return scanner.deepest


# Kind, payload length in bytes; in network byte order.
_HEADER: Final = struct.Struct(">BI")
HEADER_BYTES: Final = _HEADER.size
# For a FrameBuffer that accepts every kind.
ANY_KIND: Final = bytes(range(256))


# frame_header(kind, payload_bytes) -> bytes
frame_header: Final = _HEADER.pack


def frame(kind: int, payload: bytes) -> bytes:
    """Encode a frame."""
    return frame_header(kind, len(payload)) + payload


class FrameBuffer:
    """Splits a byte stream into frames. Between two pieces it holds less than ``limit_bytes``, headers included.

    A loop over the piece, and not a generator: that takes 2.4 times as long for each frame.

    Check :attr:`problem` after each piece: after an invalid header the rest of the stream is lost.
    """

    __slots__ = ("_kinds", "_payload_max_bytes", "problem", "rest")

    def __init__(self, kinds: bytes, limit_bytes: int) -> None:
        self._kinds = kinds
        self._payload_max_bytes = limit_bytes - HEADER_BYTES
        # The incomplete frame.
        self.rest = b""
        self.problem: RequestError | None = None

    def split(self, data: bytes) -> list[tuple[int, bytes]]:
        """Add a piece; returns kind and payload of each complete frame."""
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
        """Set ``problem`` if the rest can't begin a frame."""
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
    """A header, and its body if it has one.

    ``word`` is the first word of the header, in upper case; ``rest`` is the remainder of that line.
    """

    word: str
    rest: str
    # A byte that is not UTF-8 is decoded to a lone surrogate.
    body: str | None


class _Need(Enum):
    """The next part that the parser of sections needs."""

    HEADER = auto()
    BODY = auto()


_HEADER_END = re.compile(rb"\n[ \t\r]*\n")
_LENGTH = re.compile(r"^([ \t]*)content-length[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_WHITE_SPACE = b" \t\r\n"


class SectionBuffer:
    """Splits a byte stream into sections: a header, an empty line, and a body of the length in the header.

    Extra empty lines and white space around names are accepted. Check :attr:`problem` after each piece: after an
    invalid header the rest of the stream is lost.
    """

    __slots__ = ("_need", "_parser", "_unread", "problem")

    def __init__(
        self, words_with_body: frozenset[str], header_max_bytes: int, body_max_bytes: int, *, counts_characters: bool
    ) -> None:
        """``words_with_body``: the words whose sections must have a body. Lengths count bytes or characters."""
        self._unread = bytearray()
        self._need = _Need.HEADER
        # It has no reference to this object, so that no cycle keeps a closed connection in memory.
        self._parser = _parse_sections(
            self._unread, words_with_body, header_max_bytes, body_max_bytes, 4 if counts_characters else 1
        )
        self.problem: RequestError | None = None

    @property
    def is_incomplete(self) -> bool:
        """True if a section is incomplete."""
        return self._need is _Need.BODY or bool(self._unread)

    def split(self, data: bytes) -> list[Section]:
        """Add a piece; returns each complete section."""
        found: list[Section] = []
        if self.problem is not None:
            return found
        self._unread += data
        try:
            while isinstance(parsed := next(self._parser), Section):
                found.append(parsed)
            self._need = parsed
        except RequestError as problem:
            self.problem = problem
            self._need = _Need.HEADER
            self._unread.clear()
        return found


def _parse_sections(
    unread: bytearray,
    words_with_body: frozenset[str],
    header_max_bytes: int,
    body_max_bytes: int,
    unit_max_bytes: int,
) -> Iterator[Section | _Need]:
    """Take sections from ``unread``. If bytes are missing, yields what it waits for; resume it with more bytes.

    A length counts units of one byte, or characters of 1 to 4 bytes. Raises RequestError for an invalid header.
    """
    while True:
        first, others = yield from _read_header(unread, header_max_bytes)
        # Some programs begin each text with a byte order mark.
        word, _, rest = first.removeprefix("\ufeff").strip().partition(" ")
        word, body = word.upper(), None
        lengths = {value.strip(): space for space, value in _LENGTH.findall(others)}
        if lengths or word in words_with_body:
            if len(lengths) != 1:
                reason = f"{len(lengths)} different ones" if lengths else "none"
                raise RequestError(
                    ErrorCode.BAD_REQUEST, f"One Content-length must be in this header; there are {reason}."
                )
            ((value, space),) = lengths.items()
            length = _check_length(value, body_max_bytes, unit_max_bytes)
            if space and length:
                # Some peers indent the Content-length by a space, and begin the body with a space that is not counted.
                while not unread:
                    yield _Need.BODY
                if unread.startswith(b" "):
                    del unread[:1]
            body = yield from _read_body(unread, length, unit_max_bytes)
        yield Section(word, rest.strip(), body)


def _read_header(unread: bytearray, max_bytes: int) -> Generator[_Need, None, tuple[str, str]]:
    """Take the lines before the next empty line: the first one, and the others."""
    while True:
        # White space before a header is skipped: it may be a newline after a body that was not counted.
        del unread[: len(unread) - len(unread.lstrip(_WHITE_SPACE))]
        end = _HEADER_END.search(unread)
        if (end.end() if end else len(unread)) > max_bytes:
            reason = f"A header has {max_bytes:,} bytes at most, and ends with an empty line."
            raise RequestError(ErrorCode.BAD_REQUEST, reason)
        if end is not None:
            break
        yield _Need.HEADER
    first, _, others = unread[: end.start()].decode(errors="replace").partition("\n")
    del unread[: end.end()]
    return first, others


def _read_body(unread: bytearray, length: int, unit_max_bytes: int) -> Generator[_Need, None, str]:
    """Take ``length`` bytes, or characters if a unit has up to 4 bytes. Decodes a few times, not for each piece."""
    size_bytes = wanted_bytes = length
    missing = 1
    while missing > 0:
        while len(unread) < wanted_bytes:
            yield _Need.BODY
        if unit_max_bytes == 1:
            break
        text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(unread[: unit_max_bytes * length])
        size_bytes = len(text[:length].encode(errors="surrogateescape"))
        # Each missing character needs at least one byte. Up to three bytes may be here already: the beginning of a
        # character, which may turn out to be invalid and count as three.
        missing = length - len(text)
        wanted_bytes = len(unread) + max(1, missing - 3)
    body = unread[:size_bytes].decode(errors="surrogateescape")
    del unread[:size_bytes]
    return body


def _check_length(value: str, body_max_bytes: int, unit_max_bytes: int) -> int:
    if not re.fullmatch("[0-9]+", value):
        # The value is not quoted: it may contain a message, and the server logs the reason.
        raise RequestError(ErrorCode.BAD_REQUEST, "A Content-length is a number, 0 or more, and nothing else.")
    length = int(value)
    if length * unit_max_bytes > body_max_bytes:
        limit = f"{body_max_bytes:,} bytes at most" + (", 4 for a character" if unit_max_bytes > 1 else "")
        reason = f"A body has {limit}; the Content-length is {f'{length:,}'[:32]}."
        raise RequestError(ErrorCode.TOO_LONG, reason)
    return length
