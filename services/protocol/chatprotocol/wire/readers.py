"""Split byte streams: by line, by JSON object, by length prefix, and by header and body."""

import codecs
import re
import struct
from typing import Final, NamedTuple

from chatprotocol.errors import ErrorCode, RequestError

_STRUCTURE = re.compile(rb'["{}\[\]]')
_OBJECT_START = re.compile(rb"[ \t\r\n]*\{")
_STRING_BODY = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)


class LineBuffer:
    """Splits a byte stream into lines. Call :meth:`drop_overflow` after each :meth:`split`.

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


class _Header(NamedTuple):
    word: str
    rest: str
    # Length of the body, or None without a body.
    length: int | None
    # Some peers indent the Content-length by a space, and begin the body with a space that is not counted.
    is_spaced: bool


_HEADER_END = re.compile(rb"\n[ \t\r]*\n")
_LENGTH = re.compile(r"^([ \t]*)content-length[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_WHITE_SPACE = b" \t\r\n"


class SectionBuffer:
    """Splits a byte stream into sections: a header, an empty line, and a body of the length in the header.

    Extra empty lines and white space around names are accepted. Check :attr:`problem` after each piece: after an
    invalid header the rest of the stream is lost.
    """

    __slots__ = (
        "_counts_characters",
        "_header",
        "_header_max_bytes",
        "_limit_bytes",
        "_rest",
        "_wanted_bytes",
        "_words_with_body",
        "problem",
    )

    def __init__(
        self, words_with_body: frozenset[str], header_max_bytes: int, body_max_bytes: int, *, counts_characters: bool
    ) -> None:
        """``words_with_body``: the words whose sections must have a body. Lengths count bytes or characters."""
        self._words_with_body = words_with_body
        self._header_max_bytes = header_max_bytes
        self._limit_bytes = body_max_bytes
        self._counts_characters = counts_characters
        # The incomplete header, or the incomplete body if _header is set.
        self._rest = bytearray()
        self._header: _Header | None = None
        # Number of received bytes for the next attempt to decode a body whose length is in characters.
        self._wanted_bytes = 0
        self.problem: RequestError | None = None

    @property
    def is_incomplete(self) -> bool:
        """True if a section is incomplete."""
        return self._header is not None or bool(self._rest)

    def split(self, data: bytes) -> list[Section]:
        """Add a piece; returns each complete section."""
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
        """Take the header before the first empty line, if it is complete. Raises RequestError."""
        if self._rest[:1] in _WHITE_SPACE:  # a newline after a body that was not counted
            del self._rest[: len(self._rest) - len(self._rest.lstrip(_WHITE_SPACE))]
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
        # Some programs begin each text with a byte order mark.
        word, _, rest = first.removeprefix("\ufeff").strip().partition(" ")
        word = word.upper()
        lengths = {value.strip(): space for space, value in _LENGTH.findall(others)}
        if not lengths and word not in self._words_with_body:
            return _Header(word, rest.strip(), None, is_spaced=False)
        if len(lengths) != 1:
            reason = f"{len(lengths)} different ones" if lengths else "none"
            raise RequestError(ErrorCode.BAD_REQUEST, f"One Content-length must be in this header; there are {reason}.")
        ((value, space),) = lengths.items()
        return _Header(word, rest.strip(), self._check_length(value), is_spaced=bool(space))

    def _check_length(self, value: str) -> int:
        if not re.fullmatch("[0-9]+", value):
            # The value is not quoted: it may contain a message, and the server logs the reason.
            raise RequestError(ErrorCode.BAD_REQUEST, "A Content-length is a number, 0 or more, and nothing else.")
        length = int(value)
        character_bytes = 4 if self._counts_characters else 1
        if length * character_bytes > self._limit_bytes:
            limit = f"{self._limit_bytes:,} bytes at most" + (", 4 for a character" if character_bytes > 1 else "")
            reason = f"A body has {limit}; the Content-length is {f'{length:,}'[:32]}."
            raise RequestError(ErrorCode.TOO_LONG, reason)
        return length

    def _end_of_body(self, start: int, length: int) -> int:
        """The end of the body that begins at ``start``, or -1 if it is incomplete."""
        if len(self._rest) - start < length:  # a character has at least one byte
            return -1
        if not self._counts_characters:
            return start + length
        received_bytes = len(self._rest) - start
        if received_bytes < self._wanted_bytes:
            return -1
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        body = decoder.decode(self._rest[start : start + 4 * length])
        missing = length - len(body)
        if missing > 0:
            # Each missing character needs at least one byte. Up to three bytes may be buffered already: the beginning
            # of a character, which may turn out to be invalid and count as three.
            self._wanted_bytes = received_bytes + max(1, missing - 3)
            return -1
        self._wanted_bytes = 0
        return start + len(body[:length].encode(errors="surrogateescape"))
