"""The wire protocols, one module each, and their detection by the first bytes of a connection."""

from chatprotocol.wire.base import BYTE_ORDER_MARK, Decoder, ServerProtocol, Sniff, WireProtocol
from chatprotocol.wire.datagram import Datagram
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.irc import Irc
from chatprotocol.wire.json import Json
from chatprotocol.wire.register import Register
from chatprotocol.wire.websocket import WebSocket


def protocols_with(
    register: Register, websocket: WebSocket | None = None, irc: Irc | None = None
) -> tuple[WireProtocol, ...]:
    """All protocols, in the order of detection. Only ``register``, ``websocket`` and ``irc`` have settings."""
    irc = irc or Irc()
    return (Json(), websocket or WebSocket(irc=irc), Frames(), register, irc, Datagram())


# All protocols with default settings.
PROTOCOLS: tuple[WireProtocol, ...] = protocols_with(Register())

# Names of the protocols whose requests and events are those of json.
JSON_DIALECTS = frozenset({Json.name, WebSocket.name})

# Detection limit: after this many bytes every protocol answers YES or NO.
SNIFF_MAX_BYTES = 16


def sniff(first: bytes, protocols: tuple[WireProtocol, ...] = PROTOCOLS) -> WireProtocol | Sniff:
    """The protocol of a connection that begins with ``first``; NO if none matches, MORE if more bytes are needed."""
    undecided = False
    for protocol in protocols:
        answer = protocol.sniff(first)
        if answer is Sniff.YES:
            return protocol
        undecided = undecided or answer is Sniff.MORE
    return Sniff.MORE if undecided and len(first) < SNIFF_MAX_BYTES else Sniff.NO


def by_name(name: str, protocols: tuple[WireProtocol, ...] = PROTOCOLS) -> WireProtocol:
    """The protocol of this name. Raises KeyError if there is none."""
    return {protocol.name: protocol for protocol in protocols}[name]


__all__ = [
    "BYTE_ORDER_MARK",
    "JSON_DIALECTS",
    "PROTOCOLS",
    "Datagram",
    "Decoder",
    "Frames",
    "Irc",
    "Register",
    "ServerProtocol",
    "Sniff",
    "WebSocket",
    "WireProtocol",
    "by_name",
    "protocols_with",
    "sniff",
]
