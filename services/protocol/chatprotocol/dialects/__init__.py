"""The dialects: one file each, tried in this order on the first bytes of a connection."""

from chatprotocol.dialects.base import BYTE_ORDER_MARK, Decoder, Dialect, RequestDecoder, Sniff
from chatprotocol.dialects.datagram import Datagram
from chatprotocol.dialects.frames import Frames
from chatprotocol.dialects.json import Json
from chatprotocol.dialects.register import Register


def dialects_with(register: Register) -> tuple[Dialect, ...]:
    """All of them, with the one that can be set."""
    return (Json(), Frames(), register, Datagram())


# As they are where nothing was set.
DIALECTS: tuple[Dialect, ...] = dialects_with(Register())

# Enough of a connection's beginning for every dialect to say yes or no.
SNIFF_MAX_BYTES = 16


def sniff(first: bytes, dialects: tuple[Dialect, ...] = DIALECTS) -> Dialect | Sniff:
    """The dialect of a connection that begins with ``first``; NO when it fits none, MORE while that is open."""
    answers = [(dialect, dialect.sniff(first)) for dialect in dialects]
    for dialect, answer in answers:
        if answer is Sniff.YES:
            return dialect
    undecided = len(first) < SNIFF_MAX_BYTES and any(answer is Sniff.MORE for _, answer in answers)
    return Sniff.MORE if undecided else Sniff.NO


def by_name(name: str, dialects: tuple[Dialect, ...] = DIALECTS) -> Dialect:
    """The dialect that a setting names; KeyError when there is none."""
    return {dialect.name: dialect for dialect in dialects}[name]


__all__ = [
    "BYTE_ORDER_MARK",
    "DIALECTS",
    "Datagram",
    "Decoder",
    "Dialect",
    "Frames",
    "Register",
    "RequestDecoder",
    "Sniff",
    "by_name",
    "dialects_with",
    "sniff",
]
