"""What every dialect is: a pure codec in both directions, and a judge of first bytes."""

import codecs
from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol, TypeVar

from chatprotocol.events import Event, Run
from chatprotocol.requests import Request

Decoded = TypeVar("Decoded")

# Some programs write it at the beginning of every text, such as .NET's StreamWriter. It is no part of what is said.
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8


class Sniff(Enum):
    """What the first bytes of a connection say about one dialect."""

    YES = "yes"
    NO = "no"
    MORE = "more bytes are needed"


def sniff_text(first: bytes, openings: tuple[bytes, ...]) -> Sniff:
    """For a dialect that is text: a connection begins with one of these, before which may be a byte order mark."""
    if BYTE_ORDER_MARK.startswith(first):
        return Sniff.MORE
    text = first.removeprefix(BYTE_ORDER_MARK)
    if text.startswith(openings):
        return Sniff.YES
    return Sniff.MORE if any(opening.startswith(text) for opening in openings) else Sniff.NO


class Decoder(Protocol[Decoded]):
    """One direction of one connection: bytes in, requests or events out."""

    def decode(self, data: bytes) -> list[Decoded]:
        """Everything that is complete after this piece, in order."""


class RequestDecoder(Decoder[Request], Protocol):
    """What the server needs beside that. It never raises: see Unreadable."""

    def end(self) -> list[Request]:
        """The peer sends no more: what is to be said of the bytes left over."""

    @property
    def is_inside(self) -> bool:
        """Has something begun that is not complete yet?"""


class WireProtocol(Protocol):
    """One wire. A dialect holds no state of its own: a connection's state is in its decoder."""

    @property
    def name(self) -> str:
        """As the settings and the metrics spell it."""

    @property
    def connections(self) -> int:
        """How many a user has to the server."""

    @property
    def opening(self) -> str | None:
        """How a connection in this dialect begins, for the text that turns strangers away; None: not over TCP."""

    def sniff(self, first: bytes) -> Sniff:
        """Is a connection that begins with ``first`` (at least one byte) in this dialect?"""

    def request_decoder(self) -> RequestDecoder:
        """For the server's side of a new connection."""

    def encode(self, event: Event) -> bytes:
        """The bytes of an event, the same for every connection."""

    def encode_all(self, said: Sequence[Event | Run]) -> bytes:
        """The bytes of several events, one behind the other: faster than one by one.

        Of what the dialect has no word for, nothing.
        """

    def event_decoder(self) -> Decoder[Event]:
        """For the client's side of a new connection. It raises ProtocolError."""

    def encode_request(self, request: Request) -> bytes:
        """The bytes of a request. TypeError: the dialect's clients don't make it."""

    def connection_for(self, request: Request) -> int:
        """On which of the user's connections it goes, counted from 0."""
