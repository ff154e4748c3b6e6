"""The interfaces of a wire protocol: its two halves, and detection by the first bytes. All of it is pure."""

import codecs
from collections.abc import Iterable, Sequence
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
    """One direction of one connection: bytes in, events out."""

    def decode(self, data: bytes) -> list[Decoded]:
        """Add a piece; returns all complete events, in order."""


class ServerProtocol(Protocol):
    """The server's half of one connection: bytes in, requests out; events in, bytes out. It holds all state.

    For the connection's reader thread, except ``encode``.

    1. ``receive`` and ``receive_end`` MUST NOT raise. Invalid input becomes an Unreadable.
    2. ``receive`` may be lazy. The caller MUST take the requests one by one, answer each one before it takes the next,
       and take all of them unless the connection ends: the meaning of the next bytes may depend on the answer.
    3. ``data_to_send`` MUST be asked before each request is answered, and after the last one. It returns what the
       protocol answers by itself; these bytes come before the answer to the request, and after all earlier answers.
    4. ``encode`` gets all events for this connection alone in the order in which they are sent, so that it sees the
       login. Events of the login come from the reader thread; for all others ``encode`` MUST NOT change the state,
       because other threads send events as well.
    """

    def receive(self, data: bytes) -> Iterable[Request]:
        """Add a piece; returns the requests that it completes, in order."""

    def receive_end(self) -> Iterable[Request]:
        """Handle the end of the input; returns an Unreadable if a request is incomplete."""

    def data_to_send(self) -> bytes:
        """Return the bytes that the protocol sends by itself, and forget them; mostly none."""

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events that go to this connection alone."""

    @property
    def is_incomplete(self) -> bool:
        """True if a request is incomplete."""


class WireProtocol(Protocol):
    """A wire protocol. It is stateless, and makes the objects that hold the state of a connection."""

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

    def server(self) -> ServerProtocol:
        """Return the server's half of a new connection."""

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events that are the same for every connection. Events without a form in this protocol are skipped."""

    def event_decoder(self) -> Decoder[Event]:
        """Return the decoder for the client's side of a new connection. It raises ProtocolError for invalid input."""

    def encode_request(self, request: Request) -> bytes:
        """Encode a request. Raises TypeError for a request of another protocol."""

    def connection_for(self, request: Request) -> int:
        """The index of the user's connection that carries this request, from 0."""
