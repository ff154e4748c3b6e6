"""One request and one event of each kind and shape, and ways to cut their bytes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from chatprotocol import events, requests
from chatprotocol.dialects import Decoder
from chatprotocol.errors import ErrorCode
from chatprotocol.limits import BODY_MAX_BYTES

T = TypeVar("T")

REQUESTS: tuple[requests.Request, ...] = (
    requests.Login("alice"),
    requests.Login("alice", "secret"),
    requests.Login("alice", "secret", 17),
    requests.Password('with "quotes" and \\'),
    requests.Say("hello"),
    requests.Say("line\nfeed, {brace} and \u20ac", "n-1"),
    requests.Say("x" * BODY_MAX_BYTES),
    requests.Whisper("bob", "psst"),
    requests.Whisper("bob", "psst", "n-2"),
    requests.AskUsers(),
    requests.AskHistory(),
    requests.AskHistory(500, 17),
    requests.Ping(),
    requests.Leave(),
)

PUBLIC = events.PublicMessage(18, 1_769_860_800_123, "bob", "hello")
DIRECT = events.DirectMessage(19, 1_769_860_800_999, "bob", "alice", 'with "quotes"\n\u20ac\U0001f600')

EVENTS: tuple[events.Event, ...] = (
    events.PasswordPrompt(events.AccountKind.NEW),
    events.PasswordPrompt(events.AccountKind.EXISTING),
    events.Welcome(events.AccountKind.NEW, "alice", ("alice", "bob"), 17),
    PUBLIC,
    DIRECT,
    events.Users(2, ("alice", "bob"), ("bob",), ()),
    events.Users(501, None, (), ("bob",)),
    events.Sent(18, events.SentStatus.SENT),
    events.Sent(18, events.SentStatus.STORED, "n-1"),
    events.History(()),
    events.History((PUBLIC, DIRECT)),
    events.Refused(ErrorCode.TOO_LONG, "Too long."),
    events.Refused(ErrorCode.EMPTY_MESSAGE, "Empty.", "n-1"),
    events.Pong(),
    events.Bye("you left"),
)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The data cut into pieces of this size."""
    return (data[at : at + size] for at in range(0, len(data), size))


def decode(decoder: Decoder[T], parts: Iterable[bytes]) -> list[T]:
    """Everything that the decoder makes of the parts."""
    return [found for part in parts for found in decoder.feed(part)]


def held_bytes(thing: object) -> int:
    """How many bytes of what was fed a decoder keeps, in itself and in whatever it is made of."""
    if isinstance(thing, (bytes, bytearray, str)):
        return len(thing)
    if isinstance(thing, (list, tuple)):
        return sum(map(held_bytes, thing))
    return sum(map(held_bytes, vars(thing).values())) if hasattr(thing, "__dict__") else 0
