"""The wire protocol register: REGISTER, SEND, FORWARD, over two connections per user.

Wire format: docs/wire/register.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import HEADER_SECTION_MAX_BYTES, SECTION_BODY_MAX_BYTES
from chatprotocol.requests import Side, Unreadable
from chatprotocol.wire.base import Sniff, sniff_text
from chatprotocol.wire.readers import SectionBuffer
from chatprotocol.wire.register_client import RegisterClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatprotocol.requests import Request
    from chatprotocol.wire.readers import Section

# Possible words for a confirmed delivery: the specification has one in its table, the other in its prose.
DELIVERED_WORDS: Final = ("SEND", "SENT")
# Possible units of a Content-length: bytes is correct, but many programs count the characters of their strings.
LENGTH_UNITS: Final = ("bytes", "characters")

# Smallest valid limit of a FORWARD: it has room for the header (at most 63 bytes) and a useful body.
FORWARD_MAX_LEAST_BYTES: Final = 256

_LINE_END: Final = re.compile("\r\n|\n|\r")

# First words that identify this protocol. A connection that begins with another word than REGISTER gets an error.
_WORDS: Final = ("REGISTER", "SEND", "RECEIVED", "ERROR")
_OPENINGS: Final = tuple(f"{word} ".encode() for word in _WORDS)
# Side by its word in upper case.
_SIDES: Final = {side.value: side for side in Side}


# --- requests ---


class RegisterServer:
    """The server's side of a connection."""

    __slots__ = ("_sections", "encode")

    def __init__(self, encode: Callable[[Sequence[Event | EventBatch]], bytes], *, counts_characters: bool) -> None:
        self.encode = encode
        self._sections = _buffer("SEND", counts_characters=counts_characters)

    def receive(self, data: bytes) -> list[Request]:
        """The requests of all complete sections. After an invalid header, one Unreadable and then nothing."""
        was_broken = self._sections.problem is not None
        found = [_read_request(section) for section in self._sections.split(data)]
        problem = self._sections.problem
        if problem is not None and not was_broken:
            found.append(Unreadable(problem.code, problem.reason, closes=True))
        return found

    def receive_end(self) -> list[Request]:
        """An Unreadable if the input ended inside a header or a body."""
        if not self.is_incomplete:
            return []
        return [Unreadable(ErrorCode.BAD_REQUEST, "The connection ended inside a header or a body.", closes=True)]

    def data_to_send(self) -> bytes:
        """Return nothing: this protocol answers nothing by itself."""
        return b""

    @property
    def is_incomplete(self) -> bool:
        """True if a section is incomplete."""
        return self._sections.is_incomplete


def _buffer(words_with_body: str, *, counts_characters: bool) -> SectionBuffer:
    return SectionBuffer(
        frozenset({words_with_body}),
        HEADER_SECTION_MAX_BYTES,
        SECTION_BODY_MAX_BYTES,
        counts_characters=counts_characters,
    )


def _read_request(section: Section) -> Request:
    match section:
        case ("REGISTER", rest, _):
            return _read_register(rest)
        case ("SEND", to, str(text)):
            if not _is_text(text):
                return Unreadable(ErrorCode.BAD_REQUEST, "The body is not UTF-8; nothing was sent.")
            return requests.Send(to, text)
        case ("RECEIVED", sender, _):
            return requests.Received(sender)
        case ("ERROR", _, _):
            return requests.NotReceived()
        case (word, _, _):
            known = ", ".join(_WORDS)
            return Unreadable(ErrorCode.UNKNOWN_COMMAND, f"A header begins with {known}, not with {word[:32]!r}.")


def _read_register(rest: str) -> Request:
    word, _, username = rest.partition(" ")
    side = _SIDES.get(word.upper())
    if side is None:
        reason = f"A REGISTER header continues with {' or '.join(Side)} and a username."
        return Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)
    return requests.Register(side, username.strip())


def _is_text(body: str) -> bool:
    """True if the body was UTF-8: other bytes are decoded to lone surrogates."""
    try:
        body.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- events, encoded by the server ---

_ERRORS: Final = {
    ErrorCode.BAD_USERNAME: (100, "Malformed username"),
    ErrorCode.NOT_LOGGED_IN: (101, "No user registered"),
    ErrorCode.SERVER_FULL: (101, "No user registered"),
    ErrorCode.BAD_REQUEST: (103, "Header incomplete"),
}
_NOT_DELIVERED: Final = (102, "Unable to send")


def _error(number: int, text: str) -> bytes:
    return f"ERROR {number} {text}\n\n".encode()


# --- events, decoded by the client ---

# Error code of each number. All other numbers mean: not delivered.
_CODES: Final = {
    "100": ErrorCode.BAD_USERNAME,
    "101": ErrorCode.NOT_LOGGED_IN,
    "103": ErrorCode.BAD_REQUEST,
}


class EventDecoder:
    """The client's side of a connection. Unknown words are skipped."""

    def __init__(self, *, counts_characters: bool) -> None:
        self._sections = _buffer("FORWARD", counts_characters=counts_characters)

    def decode(self, data: bytes) -> list[Event]:
        """The events of all complete sections. Raises ProtocolError for an invalid one."""
        found = [event for section in self._sections.split(data) if (event := _read_event(section)) is not None]
        if self._sections.problem is not None:
            raise ProtocolError(f"The server sent an invalid header or body. {self._sections.problem.reason}")
        return found


def _read_event(section: Section) -> Event | None:
    match section:
        case ("REGISTERED", rest, _):
            word, _, username = rest.partition(" ")
            side = _SIDES.get(word.upper())
            if side is None:
                raise ProtocolError(f"The server registered {word[:32]!r}, which is neither {' nor '.join(Side)}.")
            return events.Registered(side, username.strip())
        case ("FORWARD", sender, str(text)):
            # Bytes that are not UTF-8 become replacement characters.
            return events.Forwarded(sender, text.encode(errors="surrogateescape").decode(errors="replace"))
        case ("SEND" | "SENT", to, _):
            return events.Delivered(to)
        case ("ERROR", rest, _):
            # Servers spell the texts differently; the number decides.
            number, _, text = rest.partition(" ")
            code = _CODES.get(number)
            return events.Refused(code, text.strip()) if code is not None else events.NotDelivered()
        case (word, _, _) if not word.isalpha():
            raise ProtocolError(f"The server sent an invalid answer (wire format register): {word[:64]!r}.")
        case _:
            return None


class Register:
    """REGISTER, SEND, FORWARD.

    ``delivered`` confirms a delivery and is one of DELIVERED_WORDS. ``length`` is the unit of a Content-length, one of
    LENGTH_UNITS. If ``forward_max_bytes`` is not 0, :meth:`split` splits messages that are longer or have line breaks.
    """

    name = "register"
    opening = "REGISTER TOSEND alice\n\n"

    def __init__(
        self, delivered: str = DELIVERED_WORDS[0], length: str = LENGTH_UNITS[0], forward_max_bytes: int = 0
    ) -> None:
        self._delivered = delivered
        self._forward_max_bytes = forward_max_bytes
        self._counts_characters = length == "characters"
        self._sections_of: dict[type, Callable[[Any], bytes]] = {
            events.Registered: lambda event: f"REGISTERED {event.side} {event.username}\n\n".encode(),
            events.PublicMessage: self._forward,
            events.DirectMessage: self._forward,
            events.Forwarded: self._forward,
            events.PublicBatch: lambda batch: b"".join(map(self._forward, batch)),
            events.Delivered: lambda event: f"{self._delivered} {event.to}\n\n".encode(),
            events.NotDelivered: lambda _: _error(*_NOT_DELIVERED),
            events.Refused: lambda event: _error(*_ERRORS.get(event.code, _NOT_DELIVERED)),
        }

    def sniff(self, first: bytes) -> Sniff:
        """Recognize a request's first word and a space."""
        return sniff_text(first, _OPENINGS)

    def server(self) -> RegisterServer:
        """Return the server's half of a new connection."""
        return RegisterServer(self.encode_all, counts_characters=self._counts_characters)

    def split(self, message: Message) -> tuple[Message, ...]:
        """Split a message into parts whose FORWARD is within the limit; a message within the limit is the only part."""
        if not self._forward_max_bytes:
            return (message,)
        # The longest header: a length in characters is never more than the length in bytes.
        header = f"FORWARD {message.sender}\nContent-length: {self._forward_max_bytes}\n\n"
        body_max_bytes = self._forward_max_bytes - len(header)
        lines = _LINE_END.split(message.text)
        if len(lines) == 1 and len(message.text.encode()) <= body_max_bytes:
            return (message,)
        # At least one part: no message consists of white space only.
        return tuple(replace(message, text=part) for line in lines for part in _cut(line, body_max_bytes))

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as sections."""
        sections_of = self._sections_of
        return b"".join([sections_of[type(event)](event) for event in items if type(event) in sections_of])

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> RegisterClient:  # noqa: ARG002
        """Return the client's half."""
        return RegisterClient(self)

    def event_decoder(self) -> EventDecoder:
        """Return the decoder for the client's side of a new connection."""
        return EventDecoder(counts_characters=self._counts_characters)

    def encode_request(self, request: Request) -> bytes:
        """Encode as a section; only a message has a body. Raises TypeError for a request of another protocol."""
        match request:
            case requests.Register(side, username):
                return f"REGISTER {side} {username}\n\n".encode()
            case requests.Send(to, text):
                return self._section(f"SEND {to}", text)
            case requests.Received(sender):
                return f"RECEIVED {sender}\n\n".encode()
            case requests.NotReceived():
                return _error(103, "Header Incomplete")
            case _:
                raise TypeError(f"No client of the wire format register sends {request!r}.")

    def connection_for(self, request: Request) -> int:
        """Return 1 (receiving) for its registration and for acknowledgements, otherwise 0 (sending)."""
        match request:
            case requests.Register(Side.RECEIVING) | requests.Received() | requests.NotReceived():
                return 1
            case _:
                return 0

    def _forward(self, event: events.Message | events.Forwarded) -> bytes:
        return self._section(f"FORWARD {event.sender}", event.text)

    def _section(self, first: str, text: str) -> bytes:
        body = text.encode()
        length = len(text) if self._counts_characters else len(body)
        return b"%b\nContent-length: %d\n\n%b" % (first.encode(), length, body)


def _cut(line: str, max_bytes: int) -> Iterator[str]:
    """Split a line into pieces of at most ``max_bytes`` in UTF-8, at spaces if possible and never inside a character.

    The space at a split is dropped, and so are pieces of white space only.
    """
    while line:
        piece = line.encode()[:max_bytes].decode(errors="ignore")  # drops an incomplete character at the end
        if len(piece) < len(line):
            words = line[: len(piece) + 1].rpartition(" ")[0]
            piece = words if words.strip() else piece
        line = line[len(piece) :].removeprefix(" ") if len(piece) < len(line) else ""
        if piece.strip():
            yield piece
