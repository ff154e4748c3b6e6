"""The dialects: one file each, tried in this order on the first bytes of a connection."""

from chatprotocol.dialects.base import Decoder, Dialect, RequestDecoder, Sniff
from chatprotocol.dialects.frames import Frames
from chatprotocol.dialects.json import Json

DIALECTS: tuple[Dialect, ...] = (Json(), Frames())

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


def by_name(name: str) -> Dialect:
    """The dialect that a setting names; KeyError when there is none."""
    return {dialect.name: dialect for dialect in DIALECTS}[name]


__all__ = ["DIALECTS", "Decoder", "Dialect", "RequestDecoder", "Sniff", "by_name", "sniff"]
