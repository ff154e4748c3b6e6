"""The records of a shared log: what the servers write, in the form in which it is stored.

The first record of a log is an :class:`Origin`. Each later one is a :class:`Batch`: entries of one server, which all
servers apply in one transaction. A record is MessagePack after a checksum (8 bytes of BLAKE2b) and a version (1 byte).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict

from chatserver.journal import entries
from chatserver.journal.apply import StoreLimits  # noqa: TC001 -- msgspec evaluates it
from chatserver.journal.log import LogError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Version of the form of records. Raise it when an older server could not apply a record.
VERSION: Final = 1
_CHECKSUM_BYTES: Final = 8
# The fields of outcomes with places of events.
_PLACES: Final = frozenset({"place", "heir_place"})


def _concrete(base: type) -> list[type]:
    """The class and its subclasses that have a tag."""
    found: list[type] = [] if base.__struct_config__.tag is None else [base]  # type: ignore[attr-defined]
    children: list[type] = base.__subclasses__()
    return sum(map(_concrete, children), found)


_AnyEntry: TypeAlias = Union[tuple(_concrete(entries.Entry))]  # type: ignore[valid-type]  # noqa: UP007


class Origin(Struct, frozen=True, forbid_unknown_fields=True, tag="origin"):
    """The beginning of a log. It is the same for all servers that apply it: see identity.py."""

    # Random: tells this log from others.
    log_id: str
    history_id: str
    # True if the log continues the data of one server: others can't begin without a snapshot.
    has_base: bool = False


class Batch(Struct, frozen=True, forbid_unknown_fields=True, tag="batch"):
    """Entries of one server."""

    server: str
    # A random name: another one at each start of the server, and after it was taken for gone.
    run: str
    # Counts the batches of a run, from 1. The first one has the entry ServerStart.
    number: int
    # Raised when a batch was overtaken, and this one and the later ones are published again.
    attempt: int
    # In milliseconds since 1970 UTC, by the clock of the server.
    time_ms: int
    # The limits of the server that wrote it: they decide outcomes, and settings may differ.
    limits: StoreLimits
    entries: list[_AnyEntry]


Record: TypeAlias = Origin | Batch

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the bytes of a record."""
    return seal(bytes([VERSION]) + _encoder.encode(record))


def seal(body: bytes) -> bytes:
    """Return version and content after their checksum."""
    return _checksum(body) + body


def decode(number: int, data: bytes) -> Record:
    """Read a record. LogError: it is damaged, or from a newer server; skipping it would make the servers differ."""
    checksum, body = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    if not body or checksum != _checksum(body):
        raise LogError(f"Record {number} of the shared log is damaged; restore it, or start a new log from a snapshot.")
    try:
        if body[0] > VERSION:
            raise LogError(_newer(number))
        return _decoder.decode(body[1:])
    except msgspec.MsgspecError as error:  # an entry or a value of a later version
        raise LogError(_newer(number)) from error


def encode_entry(entry: entries.Entry[Any]) -> Raw:
    """Return an entry as it is in a record. ``encode`` takes it for the entry. OverflowError, ValueError: its values.

    So an entry whose size is needed first, or that is published again, is encoded once.
    """
    return Raw(_encoder.encode(entry))


def chain(before: bytes, number: int, outcomes: Sequence[Any]) -> bytes:
    """The digest of all outcomes up to this record: it is the same on all servers, or they differ."""
    # Tuples, the outcomes of messages, are the common case.
    encoded = _encoder.encode([each if type(each) is tuple else _digested(each) for each in outcomes])
    return hashlib.blake2b(before + number.to_bytes(8, "big") + encoded, digest_size=16).digest()


def _digested(value: Any) -> Any:
    """What the digest has of an outcome, or of a value in one.

    The places of events are left out: older servers of a cluster have none, and one that was upgraded later than the
    others counts differently (see docs/decisions/0046-playback-of-events-of-rooms.md).
    """
    match value:
        case OSError():
            return str(value)
        case entries.RoomChange() | entries.Moderated() | entries.GuestsGone():
            return {name: _digested(each) for name, each in asdict(value).items() if name not in _PLACES}
        case tuple():
            return tuple(map(_digested, value))
        case _:
            return value


def _newer(number: int) -> str:
    return f"Record {number} of the shared log was written by a newer version of the server; install that version here."


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
