"""Frames of WebSocket (RFC 6455): read those of a peer, and encode our own.

The library websockets reads frames, checks them, and knows the state of messages in fragments. It is slow for short
messages: a message in a read of its own takes 12 us. So :func:`split_texts` takes reads that have complete text
messages of one frame only, which is almost all input, in a quarter of that time. Any other read is the library's.

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
    from collections.abc import Iterable, Iterator

# The subprotocol of json.
SUBPROTOCOL: Final = "chat.json"
# A close frame has a code of two bytes and a reason, 125 bytes together.
_REASON_MAX_BYTES: Final = 123
FIN: Final = 0x80
_MASKED: Final = 0x80
# In place of a size: the next two bytes are the size.
_SIZE_OF_2_BYTES: Final = 126
# The shortest header, with the mask.
_MASKED_HEADER_BYTES: Final = 6
# First bytes of a text message that is one frame, by its size.
_SHORT_HEADERS: Final = [bytes((FIN | Opcode.TEXT, size)) for size in range(126)]
_header = struct.Struct(">BBH").pack


def encode_frame(first_byte: int, payload: bytes) -> bytes:
    """Encode a frame of at most 65,535 bytes without a mask."""
    if len(payload) < len(_SHORT_HEADERS):
        return bytes((first_byte, len(payload))) + payload
    return _header(first_byte, _SIZE_OF_2_BYTES, len(payload)) + payload


def _text_message(text: bytes) -> bytes:
    """Encode a text message, in fragments of PIECE_BYTES if it is longer."""
    if len(text) < len(_SHORT_HEADERS):
        return _SHORT_HEADERS[len(text)] + text
    if len(text) <= PIECE_BYTES:
        return _header(FIN | Opcode.TEXT, _SIZE_OF_2_BYTES, len(text)) + text
    return b"".join(encode_fragments((text, b"\n")))


def encode_fragments(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Encode a text message, which comes in parts and ends with a line end, in fragments of PIECE_BYTES."""
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
    """Encode each line as a text message."""
    return b"".join([_text_message(line) for line in lines.split(b"\n")[:-1]])


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


def split_texts(data: bytes) -> list[bytes] | None:
    """The masked text messages of one frame each that ``data`` consists of; None if there is anything else in it."""
    found = []
    start = 0
    while start < len(data):
        if data[start] != FIN | Opcode.TEXT or len(data) - start < _MASKED_HEADER_BYTES:
            return None
        size, mask = data[start + 1] - _MASKED, start + 2
        if size == _SIZE_OF_2_BYTES:
            size, mask = int.from_bytes(data[mask : mask + 2]), mask + 2
        elif not 0 <= size < _SIZE_OF_2_BYTES:
            return None
        payload = mask + 4
        start = payload + size
        if start > len(data):
            return None
        found.append(apply_mask(data[payload:start], data[mask:payload]))
    return found if all(map(is_utf8, found)) else None


# The library logs what a peer does; the session does that here.
SILENT_LOGGER: Final = logging.getLogger("chatprotocol.websocket")
SILENT_LOGGER.setLevel(logging.CRITICAL + 1)


class FrameReader(Protocol):
    """The library's reader of frames, for one side of an open connection."""

    def __init__(self, side: Side, message_max_bytes: int) -> None:
        super().__init__(side, state=OPEN, max_size=message_max_bytes, logger=SILENT_LOGGER)
        self._rest_bytes = 0

    def read(self, data: bytes) -> list[Frame]:
        """Add a piece; returns all complete frames."""
        self._rest_bytes = len(data)
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
