"""The dialects: one file each, tried in this order on the first bytes of a connection."""

from chatprotocol.wire.base import BYTE_ORDER_MARK, Decoder, RequestDecoder, Sniff, WireProtocol
from chatprotocol.wire.datagram import Datagram
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.json import Json
from chatprotocol.wire.register import Register


def protocols_with(register: Register) -> tuple[WireProtocol, ...]:
    """All of them, with the one that can be set."""
    return (Json(), Frames(), register, Datagram())


# As they are where nothing was set.
PROTOCOLS: tuple[WireProtocol, ...] = protocols_with(Register())

# Enough of a connection's beginning for every dialect to say yes or no.
SNIFF_MAX_BYTES = 16


def sniff(first: bytes, protocols: tuple[WireProtocol, ...] = PROTOCOLS) -> WireProtocol | Sniff:
    """The dialect of a connection that begins with ``first``; NO when it fits none, MORE while that is open."""
    answers = [(protocol, protocol.sniff(first)) for protocol in protocols]
    for protocol, answer in answers:
        if answer is Sniff.YES:
            return protocol
    undecided = len(first) < SNIFF_MAX_BYTES and any(answer is Sniff.MORE for _, answer in answers)
    return Sniff.MORE if undecided else Sniff.NO


def by_name(name: str, protocols: tuple[WireProtocol, ...] = PROTOCOLS) -> WireProtocol:
    """The dialect that a setting names; KeyError when there is none."""
    return {protocol.name: protocol for protocol in protocols}[name]


__all__ = [
    "BYTE_ORDER_MARK",
    "PROTOCOLS",
    "Datagram",
    "Decoder",
    "Frames",
    "Register",
    "RequestDecoder",
    "Sniff",
    "WireProtocol",
    "by_name",
    "protocols_with",
    "sniff",
]
