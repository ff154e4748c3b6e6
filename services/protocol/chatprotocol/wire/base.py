"""The interface of a wire protocol: a pure codec in both directions, and detection by the first bytes."""

import codecs
from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol, TypeVar

from chatprotocol.events import Event, EventBatch
from chatprotocol.requests import Request

Decoded = TypeVar("Decoded")

# Byte order mark: some programs, such as .NET's StreamWriter, write it before every text. It is skipped.
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8


class Sniff(Enum):
    """Result of the detection of one protocol by the first bytes of a connection."""

    YES = "yes"
    NO = "no"
    MORE = "more bytes are needed"


def sniff_text(first: bytes, openings: tuple[bytes, ...]) -> Sniff:
    """Detect a text protocol: a connection begins with one of ``openings``, after an optional byte order mark."""
    if BYTE_ORDER_MARK.startswith(first):
        return Sniff.MORE
    text = first.removeprefix(BYTE_ORDER_MARK)
    if text.startswith(openings):
        return Sniff.YES
    return Sniff.MORE if any(opening.startswith(text) for opening in openings) else Sniff.NO


class Decoder(Protocol[Decoded]):
    """One direction of one connection: bytes in, requests or events out."""

    def decode(self, data: bytes) -> list[Decoded]:
        """Add a piece; returns all complete requests or events, in order."""


class RequestDecoder(Decoder[Request], Protocol):
    """A decoder of the server. It never raises: invalid input becomes an Unreadable."""

    def end(self) -> list[Request]:
        """Handle the end of the input; returns an Unreadable if a request is incomplete."""

    @property
    def is_incomplete(self) -> bool:
        """True if a request is incomplete."""


class WireProtocol(Protocol):
    """A wire protocol. It is stateless: the state of a connection is in its decoder."""

    @property
    def name(self) -> str:
        """The name in settings and metrics."""

    @property
    def connections(self) -> int:
        """The number of connections per user."""

    @property
    def opening(self) -> str | None:
        """An example of first bytes, for the text that rejects unknown protocols; None if it is not used over TCP."""

    def sniff(self, first: bytes) -> Sniff:
        """Detect this protocol by the first bytes of a connection, at least one."""

    def request_decoder(self) -> RequestDecoder:
        """Return the decoder for the server's side of a new connection."""

    def encode(self, event: Event) -> bytes:
        """Encode an event. The bytes are the same for every connection."""

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode several events; faster than one by one. Events without a form in this protocol are skipped."""

    def event_decoder(self) -> Decoder[Event]:
        """Return the decoder for the client's side of a new connection. It raises ProtocolError for invalid input."""

    def encode_request(self, request: Request) -> bytes:
        """Encode a request. Raises TypeError for a request of another protocol."""

    def connection_for(self, request: Request) -> int:
        """The index of the user's connection that carries this request, from 0."""
