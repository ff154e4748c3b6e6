"""The wire protocol json: one JSON object on each line. Wire format: docs/wire/json.md.

The depth guard (decision 1). msgspec's parser recurses in C. CPython 3.12 and later allow 10,000 levels, and a reader
thread has a small stack (chatserver.process), so a deeply nested line would overflow the stack and kill the process. No
text from a peer reaches the parser before it is shown to have at most NESTING_MAX_LEVELS levels.

On the server each line takes one of two paths, both in the reader thread of its connection:

    fast  receive: _is_simple holds, and one decode_lines call parses all lines. If any line fails, all lines
          take the slow path, so that good lines count and each bad line gets its own error. No request was used yet,
          so none is lost or used twice.
    slow  _read_lines: split_objects finds the objects of each line. _read_object accepts an object if _is_shallow
          holds or nesting() measures a depth within the limit. Objects without a line end (_read_tail) come here too.

Why the guard is correct:

- A level needs an opening bracket, so the number of "{" and "[" is at least the depth. Brackets inside strings raise
  the count. Then the slow path or the exact scanner decides.
- nesting() tracks strings and brackets in constant stack. It stops at the end of the first object or array. The parser
  goes no deeper after that end, because it rejects any further text.
- decode_lines skips line ends as white space, so an unclosed object would continue in the next line, and depth could
  add up over lines. _is_simple excludes that, see there.
- RecursionError is caught as well: CPython 3.11 raises it for too many levels.

The client guards each event line in the same way, in _read_event. There a failure ends the connection.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count, repeat
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from msgspec import Struct

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    Deleted,
    DirectDeleted,
    Event,
    Invited,
    InvitedMember,
    Modes,
    ModesMoved,
    PublicBatch,
    PublicMessage,
    Refused,
    RoleChanged,
    RoleMoved,
    SentBatch,
    TaggedEvent,
    TimeMs,
    TopicChanged,
    TopicUnchanged,
    UserUnknown,
)
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import LINE_MAX_BYTES, NESTING_MAX_LEVELS
from chatprotocol.requests import TaggedRequest, Unreadable
from chatprotocol.rules import LOBBY, is_lobby, room_key
from chatprotocol.wire.base import (
    DeliveryUnknown,
    Effects,
    Online,
    OpenDirect,
    OpenPublic,
    Outgoing,
    PossibleGap,
    Ready,
    ServerProtocol,
    Sniff,
    WireProtocol,
    is_other_history,
    join_pieces,
    sniff_text,
)
from chatprotocol.wire.readers import LineBuffer, ObjectScanner, is_object, nesting, split_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from chatprotocol.events import ChatHistoryItem, EventBatch
    from chatprotocol.requests import Request
    from chatprotocol.wire.base import Action, ClientEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Event line limit of a client: other servers may send longer histories than ours.
EVENT_LINE_MAX_BYTES: Final = 64 * 1024 * 1024
# Limit of all other events: a list of 30,000 users. In memory a name takes up to twenty times its bytes on the wire.
_SHORT_EVENT_MAX_BYTES: Final = 1024 * 1024
_LONG_EVENTS: Final = frozenset({"history", "found", "rooms", "bans"})

_REQUESTS: Final[msgspec.json.Decoder[TaggedRequest]] = msgspec.json.Decoder(TaggedRequest)
_REQUEST_TYPES: Final = frozenset(get_args(TaggedRequest))
# Upper-case commands and accepted synonyms, to the tags.
_TAGS: Final = [str(request.__struct_config__.tag) for request in get_args(TaggedRequest)]
_SPELLINGS: Final = {tag.upper(): tag for tag in _TAGS} | {"WHO": "users", "EXIT": "EX"}


@lru_cache(maxsize=1024)  # the same history is read often
def to_iso(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=16)  # new messages are of the same second
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


_EVENT_TYPES: Final = frozenset(get_args(TaggedEvent))
# The only type that the encoder does not know is TimeMs.
_ENCODER: Final = msgspec.json.Encoder(enc_hook=to_iso)


# Events with more than json tells, and those that json has in their place.
_PLAIN: Final[dict[type, Callable[[Any], Event]]] = {
    UserUnknown: lambda event: Refused(event.code, event.reason, event.nonce, event.room),
    RoleMoved: lambda event: RoleChanged(room=event.room, username=event.username, role=event.role, by=event.by),
    ModesMoved: lambda event: Modes(room=event.room, modes=event.modes, by=event.by),
    InvitedMember: lambda event: Invited(event.room, event.username, event.by),
    TopicUnchanged: lambda event: TopicChanged(event.room, event.topic, event.by),
    DirectDeleted: lambda event: Deleted(event.id, event.by, event.room, event.reason),
}


def _encode_all(items: Sequence[Event | EventBatch]) -> bytes:
    """Encode as lines: one for each event, and for each message of a batch."""
    lines: list[Any] = []
    for event in items:
        if type(event) in _EVENT_TYPES:
            lines.append(event)
        elif isinstance(event, PublicBatch):
            time: Any = repeat(to_iso(event.time_ms))  # once, not in the hook for each message
            sender, room = repeat(event.sender), repeat(event.room)
            # Few messages have a flag, and each argument costs time.
            has_flag = event.guest or event.notice or event.bot
            flags = (repeat(event.guest), repeat(event.notice), repeat(event.bot)) if has_flag else ()
            lines += map(PublicMessage, count(event.id), time, sender, event.texts, room, *flags)
        elif isinstance(event, SentBatch):
            lines += event
        elif (plain := _PLAIN.get(type(event))) is not None:
            lines.append(plain(event))
    return _ENCODER.encode_lines(lines)


class JsonServer(ServerProtocol):
    """The server's half of one connection. A bad line becomes an Unreadable; it never raises."""

    __slots__ = ("_buffer", "_scanner")

    def __init__(self) -> None:
        self._buffer = LineBuffer(LINE_MAX_BYTES)
        # For an object without a line end that has begun.
        self._scanner: ObjectScanner | None = None

    def receive(self, data: bytes) -> list[Request]:
        """The requests of all complete lines, and of complete objects without a line end.

        All lines are parsed in one call if they are simple and good, otherwise one by one.
        """
        block = self._buffer.split(data)
        found: list[Request] = []
        if block:
            self._scanner = None
            try:
                if len(block) <= LINE_MAX_BYTES and _is_simple(block, block.count(b"\n")):
                    if not block.isascii():
                        block.decode()  # the parser does not check the UTF-8 of unknown members
                    found = _REQUESTS.decode_lines(block)  # type: ignore[assignment]
                else:
                    found = _read_lines(block)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                found = _read_lines(block)  # good lines count, each bad line gets its own error
        if self._buffer.tail:
            found += self._read_tail()
        return found

    def receive_texts(self, texts: Sequence[bytes]) -> list[Request]:
        """The requests of texts with one object each, for a protocol that has messages. Line ends are white space."""
        block = b"\n".join(texts) + b"\n"
        lines = block.count(b"\n")
        if len(block) <= LINE_MAX_BYTES and lines == len(texts) and _is_simple(block, lines):
            with suppress(msgspec.MsgspecError, RecursionError):
                found: list[Request] = _REQUESTS.decode_lines(block)  # type: ignore[assignment]
                if len(found) == len(texts):
                    return found
        return [_read_object(text) for text in texts]

    def receive_end(self) -> list[Request]:
        left_over = self._buffer.tail.strip()
        if not left_over:
            return []
        reason = f"The connection ended inside an object; {len(left_over)} bytes were dropped."
        return [_unreadable(ErrorCode.BAD_JSON, reason)]

    encode = staticmethod(_encode_all)

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode as one line, in pieces."""
        return join_pieces(_parts(event, messages))

    @property
    def is_incomplete(self) -> bool:
        """True if an object is incomplete. White space between objects does not count."""
        return bool(self._buffer.tail) and not self._buffer.tail.isspace()

    def _read_tail(self) -> list[Request]:
        """Read the complete objects of an incomplete line: simple clients send no line end."""
        found: list[Request] = []
        tail = self._buffer.tail
        taken = 0
        while is_object(tail, taken):
            self._scanner = self._scanner or ObjectScanner()
            end = self._scanner.scan(tail, taken)
            if end < 0:
                break
            found.append(_read_object(tail[taken:end]))
            self._scanner = None
            taken = end
        self._buffer.drop(taken)
        if self._buffer.drop_overflow():
            found.append(_too_long())
            self._scanner = None
        return found


def _is_simple(block: bytes, lines: int) -> bool:
    """True if the block is surely one object per line and within the nesting limit. False means: measure it.

    ``lines`` is the number of line ends.

    Every line end but the last is between "}" and "{". JSON needs a comma there, so inside an object or array this is a
    syntax error: either the object ends at the line end or the parser stops. Depth never carries over to the next line.
    A line end inside a string is an error as well, because JSON strings have no raw control characters.

    With one brace for each line subtracted, ``inner`` counts the other opening brackets of the whole block. No line is
    deeper than 1 + inner, which is at most the limit.
    """
    brackets = block.count(b"[") if b"[" in block else 0  # "in" is faster than count()
    inner = block.count(b"{") - lines + brackets
    return inner < NESTING_MAX_LEVELS and block.count(b"}\n{") == lines - 1


def _is_shallow(line: bytes) -> bool:
    """True if the line is surely within the nesting limit. False means: measure it."""
    return line.count(b"{") + line.count(b"[") <= NESTING_MAX_LEVELS


def _read_lines(block: bytes) -> list[Request]:
    # Thousands of empty lines cost little.
    lines = [line for line in block.split(b"\n") if line and not line.isspace()]
    return [_read_object(text) for line in lines for text in split_objects(line)]


def _read_object(text: bytes) -> Request:
    if len(text) > LINE_MAX_BYTES:
        return _too_long()
    if not _is_shallow(text) and nesting(text) > NESTING_MAX_LEVELS:
        return _unreadable(ErrorCode.BAD_JSON, f"The object is nested more than {NESTING_MAX_LEVELS} levels deep.")
    try:
        members = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _unreadable(ErrorCode.BAD_JSON, f"Not JSON in UTF-8: {error}.")
    if not isinstance(members, dict):
        return _unreadable(ErrorCode.BAD_JSON, 'Not a JSON object; send {"command": ...} on one line.')
    given = members.get("nonce")
    nonce = given if isinstance(given, str) else None
    command = members.get("command")
    if not isinstance(command, str):
        return _unreadable(ErrorCode.BAD_REQUEST, 'The object has no member "command" that is a string.', nonce)
    spelling = _SPELLINGS.get(command.upper())
    if spelling is None:
        known = ", ".join(sorted(set(_SPELLINGS.values())))
        return _unreadable(
            ErrorCode.UNKNOWN_COMMAND, f"There is no command {command[:32]!r}; there are {known}.", nonce
        )
    members["command"] = spelling
    for other in ("recipient", "target"):
        if other in members:
            members.setdefault("to", members[other])
    try:
        return msgspec.convert(members, TaggedRequest)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        return _unreadable(ErrorCode.BAD_REQUEST, f"{spelling} can't be used as it is: {error}.", nonce)


def _unreadable(code: ErrorCode, reason: str, nonce: str | None = None) -> Unreadable:
    return Unreadable(code, reason, nonce)


def _too_long() -> Unreadable:
    return _unreadable(ErrorCode.TOO_LONG, f"A line has {LINE_MAX_BYTES:,} bytes at most; this one was dropped.")


class EventDecoder:
    """The client's side of a json connection. Objects of unknown types are skipped."""

    def __init__(self) -> None:
        self._buffer = LineBuffer(EVENT_LINE_MAX_BYTES)

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The events of all complete lines. Raises ProtocolError for a line that is not an event."""
        block = self._buffer.split(data)
        if self._buffer.drop_overflow():
            raise ProtocolError(f"The server sent a line of more than {EVENT_LINE_MAX_BYTES:,} bytes.")
        found = (_read_event(line) for line in block.split(b"\n") if line.strip())
        return [event for event in found if event is not None]


class _Kind(Struct):
    type: str


_KIND: Final = msgspec.json.Decoder(_Kind)
_EVENT_TAGS: Final = frozenset(event.__struct_config__.tag for event in _EVENT_TYPES)


def _read_event(line: bytes) -> TaggedEvent | None:
    if not _is_shallow(line) and nesting(line) > NESTING_MAX_LEVELS:
        raise ProtocolError("The server sent an object that is nested too deep.")
    try:
        kind = _KIND.decode(line).type
        if kind not in _EVENT_TAGS:
            return None
        if len(line) > _SHORT_EVENT_MAX_BYTES and kind not in _LONG_EVENTS:
            raise ProtocolError(f"The server sent a {kind!r} of {len(line):,} bytes.")
        return _EVENTS.decode(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"The server sent an invalid answer (wire format json): {error}.") from error


def _from_iso(_: type, text: str) -> TimeMs:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return TimeMs((moment - _EPOCH) // timedelta(milliseconds=1))


# The only type that the parser does not know is TimeMs.
_EVENTS: Final[msgspec.json.Decoder[TaggedEvent]] = msgspec.json.Decoder(TaggedEvent, dec_hook=_from_iso)


def _outgoing(request: Request) -> Outgoing:
    """Encode as one line. Raises TypeError for a request of another protocol."""
    if type(request) not in _REQUEST_TYPES:
        raise TypeError(f"No client of the wire format json sends {request!r}.")
    return Outgoing(_ENCODER.encode_lines((request,)))


class JsonClient:
    """The client's half. Requests are independent, and many may be unanswered at a time.

    A server that does not know rooms ignores the member ``room``: a message to a room would be public. So without
    ``rooms`` in the answer to the login, nothing that names a room is sent.
    """

    connections = 1
    is_stepwise = False
    is_guest = False

    def __init__(self) -> None:
        # The answer to the login waits for the check of the password, that to a ping before it does not.
        self.ping = self.probe = _outgoing(requests.Ping())
        # Type of the answer that the next action has to wait for.
        self._awaited: type[Online | events.User] | None = None
        # The room whose users were requested.
        self._awaited_room: str | None = None
        self._login = requests.Login("")
        # True if the server knows rooms, according to its answer to the last login.
        self._has_rooms = True
        self._unconfirmed: tuple[requests.Say | requests.Whisper, ...] = ()

    @property
    def is_busy(self) -> bool:
        """True until the requested list of users, or the requested user, has arrived."""
        return self._awaited is not None

    def event_decoder(self) -> EventDecoder:
        return EventDecoder()

    def connect(
        self,
        login: requests.Login,
        unconfirmed: Sequence[requests.Say | requests.Whisper],
        host: str = "",  # noqa: ARG002
    ) -> Effects:
        """Send the login. The server then sends missed messages; nonces prevent duplicates of unconfirmed messages."""
        self._awaited = None
        self._login = login
        self._unconfirmed = (*unconfirmed,)
        return Effects((_outgoing(login),))

    def request(self, action: Action) -> Effects:
        """A public message needs no permission. Before a direct message the list of users is requested."""
        if not self._has_rooms and _names_room(action):
            return Effects(events=(_no_rooms(action),))
        match action:
            case OpenPublic():
                return Effects(events=(Ready(),))
            case OpenDirect() | requests.AskUsers():
                asked = action if isinstance(action, requests.AskUsers) else requests.AskUsers()
                self._awaited, self._awaited_room = Online, asked.room
                return Effects((_outgoing(asked),))
            case requests.AskUser():
                self._awaited = events.User
                return Effects((_outgoing(action),))
            case _:
                return Effects((_outgoing(action),))

    def handle_event(self, event: ClientEvent) -> Effects:
        """Handle an event. A periodic list of users also counts as the answer to a request for the list."""
        match event:
            case events.Users(users=tuple(users), joined=(), left=(), room=room) if (
                self._awaited is Online and room_key(room or LOBBY) == room_key(self._awaited_room or LOBBY)
            ):
                self._awaited = None
                return Effects(events=(Online(users, room),))
            case events.User() | events.Refused(code=ErrorCode.UNKNOWN_COMMAND, nonce=None) if (
                self._awaited is events.User
            ):
                # Older servers don't know this request. They check the recipient when the message arrives.
                self._awaited = None
                return Effects(events=(Ready(),))
            case events.Welcome():
                self._has_rooms = event.rooms is not None
                shown: list[ClientEvent] = [event, PossibleGap()] if self._has_gap(event) else [event]
                again = [each for each in self._unconfirmed if self._has_rooms or not _names_room(each)]
                shown += [DeliveryUnknown(each) for each in self._unconfirmed if each not in again]
                return Effects(tuple(map(_outgoing, again)), tuple(shown))
            case events.Pong():
                return Effects()
            case events.Refused(nonce=None):
                self._awaited = None
        return Effects(events=(event,))

    def _has_gap(self, welcome: events.Welcome) -> bool:
        """True if messages may be missing, because the server's history was reset or restored from a backup."""
        since, last_id = self._login.since, welcome.last_id
        if since is None:
            return False
        newest_id = max(since.values(), default=0) if isinstance(since, dict) else since
        is_beyond = last_id is not None and last_id < newest_id
        return welcome.since is not None or is_beyond or is_other_history(self._login, welcome)


def _parts(event: Event, messages: Iterable[ChatHistoryItem]) -> Iterator[bytes]:
    """The line of an event; each message of a history or search result is a part of its own."""
    # A quotation mark within a string has a backslash, so this can't be a part of the search words.
    before, brackets, after = _ENCODER.encode(event).partition(b'"messages":[]')
    yield before + brackets[:-1]
    for number, message in enumerate(messages):
        encoded = _ENCODER.encode(message)
        yield b"," + encoded if number else encoded
    yield brackets[-1:] + after + b"\n"


def _names_room(action: Action) -> bool:
    """True for a request about rooms, or about another room than the lobby."""
    return isinstance(action, requests.AskRooms) or not is_lobby(getattr(action, "room", None))


def _no_rooms(action: Action) -> events.Refused:
    nonce, room = getattr(action, "nonce", None), getattr(action, "room", None)
    return events.Refused(ErrorCode.UNKNOWN_COMMAND, "This server has no rooms; nothing was done.", nonce, room)


class Json(WireProtocol):
    """The wire protocol json."""

    name = "json"
    opening = '{"command":"login","username":"alice"}'

    def sniff(self, first: bytes) -> Sniff:
        """Recognize the brace that opens an object."""
        return sniff_text(first, (b"{",))

    def server(self) -> JsonServer:
        return JsonServer()

    encode_all = staticmethod(_encode_all)

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> JsonClient:  # noqa: ARG002
        return JsonClient()
