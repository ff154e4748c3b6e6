"""Frames of WebSocket (RFC 6455): read those of a peer, and encode our own.

The library websockets reads frames, checks them, and knows the state of messages in fragments. It takes 5 us for a
frame, and 12 us if the frame is a read of its own. So the server reads messages of one frame, which are almost all
input, without it (:func:`split_messages`). The library reads any other frame, and
all input until the message of that frame is complete. Its reader takes 1.4 KB, and exists until then.

A server's frames have no mask, so they are the same for all receivers. The library's own answers, to pings and close
frames, are dropped: both halves answer in their order with other messages.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final

from websockets.frames import Close, CloseCode, Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import OPEN, Protocol, Side

from chatprotocol.wire.base import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# The subprotocol of json.
SUBPROTOCOL: Final = "chat.json"
# The subprotocols of irc (IRCv3, WebSocket).
IRC_TEXT: Final = "text.ircv3.net"
IRC_BINARY: Final = "binary.ircv3.net"
# A close frame has a code of two bytes and a reason, 125 bytes together.
_REASON_MAX_BYTES: Final = 123
FIN: Final = 0x80
_MASKED: Final = 0x80
# In place of a size: the next two bytes are the size.
_SIZE_OF_2_BYTES: Final = 126
# First byte of a message that is one frame. An operation with the enum takes 0.1 us.
_WHOLE_TEXT: Final = int(FIN | Opcode.TEXT)
_WHOLE_BINARY: Final = int(FIN | Opcode.BINARY)
# The shortest header, with the mask.
_MASKED_HEADER_BYTES: Final = 6
# Take mask and payload from a short frame, by its size. One call takes less time than two slices.
_SHORT_FRAMES: Final = [struct.Struct(f"2x4s{size}s").unpack_from for size in range(_SIZE_OF_2_BYTES)]
_long_header = struct.Struct(">BBH").pack


def _header(first_byte: int, size_bytes: int) -> bytes:
    """The first bytes of a frame of at most 65,535 bytes without a mask."""
    if size_bytes < _SIZE_OF_2_BYTES:
        return bytes((first_byte, size_bytes))
    return _long_header(first_byte, _SIZE_OF_2_BYTES, size_bytes)


# First bytes of a short message, by its size. Almost all are short.
_TEXT_HEADERS: Final = [_header(_WHOLE_TEXT, size) for size in range(1_024)]
_BINARY_HEADERS: Final = [_header(_WHOLE_BINARY, size) for size in range(1_024)]


def encode_frame(first_byte: int, payload: bytes) -> bytes:
    return _header(first_byte, len(payload)) + payload


def encode_fragments(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Encode a text message, given in parts, with a line end as the last byte, in fragments of PIECE_BYTES."""
    opcode, rest = Opcode.TEXT, b""
    for part in parts:
        rest += part
        start = 0
        while len(rest) - start > PIECE_BYTES + 1:  # one byte more may be the line end
            yield encode_frame(opcode, rest[start : start + PIECE_BYTES])
            opcode, start = Opcode.CONT, start + PIECE_BYTES
        rest = rest[start:]
    yield encode_frame(FIN | opcode, rest[:-1])


def encode_lines(lines: bytes) -> bytes:
    """Encode each line as a text message, and a long one in fragments."""
    size = lines.find(b"\n") + 1
    count = len(lines) // size if size else 0
    # Lines of one size: a single message, and almost always confirmations.
    if 0 < size <= len(_TEXT_HEADERS) and size * count == len(lines) and lines[size - 1 :: size] == b"\n" * count:
        header = _TEXT_HEADERS[size - 1]
        frames = header + lines[:-1].replace(b"\n", header)
        if len(frames) == len(lines) + count * (len(header) - 1):  # there was no other line end
            return frames
    texts = lines.split(b"\n")
    texts.pop()  # nothing follows the last line end
    try:
        return _join(_TEXT_HEADERS, texts)
    except IndexError:
        return b"".join([each for text in texts for each in encode_fragments((text, b"\n"))])


def encode_irc_lines(lines: bytes, *, is_binary: bool) -> bytes:
    """Encode each line as a message without its line end, CR LF."""
    texts = lines.split(b"\r\n")
    texts.pop()  # nothing follows the last line end
    headers, whole = (_BINARY_HEADERS, _WHOLE_BINARY) if is_binary else (_TEXT_HEADERS, _WHOLE_TEXT)
    try:
        return _join(headers, texts)
    except IndexError:
        return b"".join([encode_frame(whole, text) for text in texts])


def _join(headers: Sequence[bytes], texts: list[bytes]) -> bytes:
    """Each text after the header of its size. Raises IndexError for a text that is too long."""
    parts = texts * 2
    parts[::2] = [headers[len(text)] for text in texts]
    parts[1::2] = texts
    return b"".join(parts)


def close_frame(code: CloseCode, reason: str) -> bytes:
    """Encode a close frame; a reason that is too long is cut."""
    cut = reason.encode()[:_REASON_MAX_BYTES].decode(errors="ignore")
    return encode_frame(FIN | Opcode.CLOSE, Close(code, cut).serialize())


def masked(opcode: Opcode, payload: bytes) -> bytes:
    """Encode a frame of a client."""
    return Frame(opcode, payload).serialize(mask=True)


def is_utf8(text: bytes | bytearray) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


# The library logs what a peer does; the session does that here.
SILENT_LOGGER: Final = logging.getLogger("chatprotocol.websocket")
SILENT_LOGGER.setLevel(logging.CRITICAL + 1)


class FrameReader(Protocol):
    """The library's reader of frames, for one side of an open connection."""

    def __init__(self, side: Side, message_max_bytes: int) -> None:
        super().__init__(side, state=OPEN, max_size=message_max_bytes, logger=SILENT_LOGGER)
        self._rest_bytes = 0

    def read_frames(self, data: bytes) -> list[Frame]:
        """Add a piece; returns all complete frames."""
        self._rest_bytes = len(data) or self._rest_bytes  # an empty piece changes nothing
        self.receive_data(data)
        self.data_to_send()  # dropped
        return self.events_received()  # type: ignore[return-value]

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # the library refuses it inside a message in fragments
        super().recv_frame(frame)
        self._rest_bytes = len(self.reader.buffer)

    @property
    def is_incomplete(self) -> bool:
        """True if a frame or a message in fragments is incomplete."""
        return self._rest_bytes > 0 or self.current_size is not None

    @property
    def problem(self) -> Close | None:
        """The close frame that answers an invalid frame; None if all were valid."""
        return self.close_sent if self.parser_exc is not None else None


class MessageReader:
    """The server's reader of frames. It is fast and small for messages of one frame and the usual kind."""

    __slots__ = ("_message_max_bytes", "_others", "_rest", "_usual")

    def __init__(self, message_max_bytes: int, *, is_binary: bool = False) -> None:
        self._message_max_bytes = message_max_bytes
        # The first byte of the usual message.
        self._usual = _WHOLE_BINARY if is_binary else _WHOLE_TEXT
        # A usual message of one frame that is incomplete.
        self._rest = b""
        # The reader of a frame or message of another kind that is incomplete, or after an invalid frame.
        self._others: FrameReader | None = None

    def read(self, data: bytes) -> tuple[list[bytes], list[Frame]]:
        """Add a piece; returns the usual messages at its beginning that have one frame each, and all frames after them.

        Texts may be invalid UTF-8.
        """
        texts: list[bytes] = []
        if self._others is None:
            texts, data = split_messages(self._rest + data if self._rest else data, self._usual)
            if not data or begins_message(data, self._usual):
                self._rest = data
                return texts, []
            self._rest = b""
            self._others = FrameReader(Side.SERVER, self._message_max_bytes)
        frames = self._others.read_frames(data)
        if not self._others.is_incomplete and self._others.problem is None:
            self._others.parser.close()  # it refers to its reader, which would stay in memory
            self._others = None
        return texts, frames

    @property
    def is_incomplete(self) -> bool:
        return bool(self._rest) or (self._others is not None and self._others.is_incomplete)

    @property
    def problem(self) -> Close | None:
        """As of a FrameReader."""
        return None if self._others is None else self._others.problem


def split_messages(data: bytes, usual: int) -> tuple[list[bytes], bytes]:
    """The messages of one masked frame each, which begin with ``usual``, at the beginning of ``data``, and the rest."""
    found = []
    start, end = 0, len(data)
    while end - start >= _MASKED_HEADER_BYTES and data[start] == usual:
        size = data[start + 1] - _MASKED
        if 0 <= size < _SIZE_OF_2_BYTES:
            stop = start + _MASKED_HEADER_BYTES + size
            if stop > end:
                break
            mask, payload = _SHORT_FRAMES[size](data, start)
        elif size == _SIZE_OF_2_BYTES:
            first = start + _MASKED_HEADER_BYTES + 2
            stop = first + int.from_bytes(data[start + 2 : start + 4])
            if stop > end:
                break
            mask, payload = data[first - 4 : first], data[first:stop]
        else:
            break
        found.append(apply_mask(payload, mask))
        start = stop
    return found, data[start:] if start else data


def begins_message(rest: bytes, usual: int) -> bool:
    """True for the beginning of a frame of :func:`split_messages`."""
    return rest[0] == usual and (len(rest) == 1 or _MASKED <= rest[1] <= _MASKED + _SIZE_OF_2_BYTES)
