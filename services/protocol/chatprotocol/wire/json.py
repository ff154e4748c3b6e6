"""The wire protocol json: one JSON object on each line. Wire format: docs/wire/json.md.

The depth guard (decision 1). msgspec's parser recurses in C. CPython 3.12 and later allow 10,000 levels, and a reader
thread has a small stack (chatserver.app), so a deeply nested line would overflow the stack and kill the process. No
text from a peer reaches the parser before it is shown to have at most NESTING_MAX_LEVELS levels.

On the server each line takes one of two paths, both in the reader thread of its connection:

    fast  _read_block: _is_simple(block) holds, and one decode_lines call parses all lines. If any line fails, all
          lines take the slow path, so that good lines count and each bad line gets its own error. No request was
          used yet, so none is lost or used twice.
    slow  _read_line: split_objects finds the objects of one line. _read_object accepts an object if _is_shallow
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

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError, code_of
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import (
    HISTORY_DEFAULT_MESSAGES,
    HISTORY_MAX_MESSAGES,
    ID_MAX,
    LINE_MAX_BYTES,
    NESTING_MAX_LEVELS,
)
from chatprotocol.rules import name_key
from chatprotocol.wire.base import (
    Effects,
    OpenDirect,
    OpenPublic,
    Outgoing,
    PossibleGap,
    Sniff,
    is_other_history,
    sniff_text,
)
from chatprotocol.wire.readers import LineBuffer, ObjectScanner, is_object, nesting, split_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatprotocol.requests import Request
    from chatprotocol.wire.base import Action, ClientEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Event line limit of a client: other servers may send longer histories than ours.
_EVENT_LINE_MAX_BYTES: Final = 64 * 1024 * 1024
# Limit of all other events: a list of 30,000 users. In memory a name takes up to twenty times its bytes on the wire.
_SHORT_EVENT_MAX_BYTES: Final = 1024 * 1024
_LONG_EVENTS: Final = frozenset({"history", "found"})

Value = TypeVar("Value")
_Id = Annotated[int, Meta(ge=0, le=ID_MAX)]
_Limit = Annotated[int, Meta(ge=1, le=HISTORY_MAX_MESSAGES)]

# --- requests on the wire: one type for each command, with the wire's member names ---


class _Login(Struct, tag_field="command", tag="login", omit_defaults=True):
    username: str
    password: str | None = None
    since: _Id | None = None
    history_id: str | None = None

    def request(self) -> Request:
        return requests.Login(self.username, self.password, self.since, self.history_id)


class _Password(Struct, tag_field="command", tag="password"):
    password: str

    def request(self) -> Request:
        return requests.Password(self.password)


class _Pm(Struct, tag_field="command", tag="PM", omit_defaults=True, gc=False):
    message: str
    nonce: str | None = None

    def request(self) -> Request:
        return requests.Say(self.message, self.nonce)


class _Dm(Struct, tag_field="command", tag="DM", omit_defaults=True, gc=False):
    to: str
    message: str
    nonce: str | None = None
    # Other names for ``to``, see _read_object. If several are given they must be equal.
    recipient: str | None = None
    target: str | None = None

    def request(self) -> Request:
        if self.recipient is not None or self.target is not None:
            given = {name_key(name) for name in (self.to, self.recipient, self.target) if name is not None}
            if len(given) > 1:
                raise msgspec.ValidationError("`to` and its other names, `recipient` and `target`, differ")
        return requests.Whisper(self.to, self.message, self.nonce)


class _Users(Struct, tag_field="command", tag="users"):
    def request(self) -> Request:
        return requests.AskUsers()


class _User(Struct, tag_field="command", tag="user"):
    username: str

    def request(self) -> Request:
        return requests.AskUser(self.username)


class _Ch(Struct, tag_field="command", tag="CH", omit_defaults=True):
    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None

    def request(self) -> Request:
        return requests.AskHistory(self.limit, self.before)


class _Search(Struct, tag_field="command", tag="search", omit_defaults=True):
    words: str
    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None

    def request(self) -> Request:
        return requests.Search(self.words, self.limit, self.before)


class _ChangePassword(Struct, tag_field="command", tag="change_password"):
    old: str
    new: str

    def request(self) -> Request:
        return requests.ChangePassword(self.old, self.new)


class _Ping(Struct, tag_field="command", tag="ping"):
    def request(self) -> Request:
        return requests.Ping()


class _Ex(Struct, tag_field="command", tag="EX"):
    def request(self) -> Request:
        return requests.Leave()


_Command = _Login | _Password | _Pm | _Dm | _Users | _User | _Ch | _Search | _ChangePassword | _Ping | _Ex


_COMMANDS: Final[msgspec.json.Decoder[_Command]] = msgspec.json.Decoder(_Command)
# Upper-case commands and accepted synonyms, to the spelling of the types above.
_SPELLINGS: Final = {
    "LOGIN": "login",
    "PASSWORD": "password",
    "PM": "PM",
    "DM": "DM",
    "USERS": "users",
    "WHO": "users",
    "USER": "user",
    "CH": "CH",
    "SEARCH": "search",
    "CHANGE_PASSWORD": "change_password",
    "PING": "ping",
    "EX": "EX",
    "EXIT": "EX",
}


class JsonServer:
    """The server's half of one connection. A bad line becomes an Unreadable; it never raises."""

    __slots__ = ("_buffer", "_scanner")

    def __init__(self) -> None:
        self._buffer = LineBuffer(LINE_MAX_BYTES)
        self._scanner = ObjectScanner()

    def receive(self, data: bytes) -> list[Request]:
        """The requests of all complete lines, and of complete objects without a line end."""
        block = self._buffer.split(data)
        found: list[Request] = []
        if block:
            found = self._read_block(block)
            self._scanner = ObjectScanner()
        if self._buffer.tail:
            found += self._read_tail()
        if self._buffer.drop_overflow():
            found.append(_too_long())
            self._scanner = ObjectScanner()
        return found

    def receive_end(self) -> list[Request]:
        """An Unreadable if the input ended inside an object."""
        left_over = self._buffer.tail.strip()
        if not left_over:
            return []
        reason = f"The connection ended inside an object; {len(left_over)} bytes were dropped."
        return [_unreadable(ErrorCode.BAD_JSON, reason)]

    def data_to_send(self) -> bytes:
        """Return nothing: this protocol answers nothing by itself."""
        return b""

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as lines."""
        return _encode_all(items)

    @property
    def is_incomplete(self) -> bool:
        """True if an object is incomplete. White space between objects does not count."""
        return bool(self._buffer.tail) and not self._buffer.tail.isspace()

    def _read_tail(self) -> list[Request]:
        """Read the complete objects of an incomplete line: simple clients send no line end."""
        found: list[Request] = []
        tail = self._buffer.tail
        taken = 0
        while is_object(tail, taken) and (end := self._scanner.scan(tail, taken)) >= 0:
            found.append(_read_object(tail[taken:end]))
            self._scanner = ObjectScanner()
            taken = end
        self._buffer.drop(taken)
        return found

    def _read_block(self, block: bytes) -> list[Request]:
        """Parse all lines in one call if they are simple and good, otherwise one by one."""
        if len(block) <= LINE_MAX_BYTES and _is_simple(block):
            try:
                if not block.isascii():
                    block.decode()  # the parser does not check the UTF-8 of unknown members
                return [command.request() for command in _COMMANDS.decode_lines(block)]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # read again line by line: good lines count, each bad line gets its own error
        return [request for line in block.split(b"\n") for request in _read_line(line)]


def _is_simple(block: bytes) -> bool:
    """True if the block is surely one object per line and within the nesting limit. False means: measure it.

    Every line end but the last is between "}" and "{". JSON needs a comma there, so inside an object or array this is a
    syntax error: either the object ends at the line end or the parser stops. Depth never carries over to the next line.
    A line end inside a string is an error as well, because JSON strings have no raw control characters.

    With one brace for each line subtracted, ``inner`` counts the other opening brackets of the whole block. No line is
    deeper than 1 + inner, which is at most the limit.
    """
    lines = block.count(b"\n")
    brackets = block.count(b"[") if b"[" in block else 0  # "in" is faster than count()
    inner = block.count(b"{") - lines + brackets
    return inner < NESTING_MAX_LEVELS and block.count(b"}\n{") == lines - 1


def _is_shallow(line: bytes) -> bool:
    """True if the line is surely within the nesting limit. False means: measure it."""
    return line.count(b"{") + line.count(b"[") <= NESTING_MAX_LEVELS


def _read_line(line: bytes) -> list[Request]:
    return [_read_object(text) for text in split_objects(line)]


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
        command_object: _Command = msgspec.convert(members, _Command)
        return command_object.request()
    except msgspec.ValidationError as error:
        return _unreadable(ErrorCode.BAD_REQUEST, f"{spelling} can't be used as it is: {error}.", nonce)


def _unreadable(code: ErrorCode, reason: str, nonce: str | None = None) -> requests.Unreadable:
    return requests.Unreadable(code, reason, nonce)


def _too_long() -> requests.Unreadable:
    return _unreadable(ErrorCode.TOO_LONG, f"A line has {LINE_MAX_BYTES:,} bytes at most; this one was dropped.")


# --- events on the wire ---


class _Prompt(Struct, tag_field="type", tag="prompt", kw_only=True):
    field: str = "password"
    account: events.AccountKind

    def event(self) -> Event:
        return events.PasswordPrompt(self.account)


class _Welcome(Struct, tag_field="type", tag="login", kw_only=True):
    status: str = "ok"
    account: events.AccountKind
    username: str
    users: tuple[str, ...]
    last_id: int | None
    history_id: str | UnsetType = UNSET
    since: int | UnsetType = UNSET
    seen_id: int | UnsetType = UNSET

    def event(self) -> Event:
        history_id, since, seen_id = _or_none(self.history_id), _or_none(self.since), _or_none(self.seen_id)
        return events.Welcome(self.account, self.username, self.users, self.last_id, history_id, since, seen_id)


class _Broadcast(Struct, tag_field="type", tag="broadcast", gc=False):
    id: int
    time: str
    sender: str = field(name="from")
    message: str

    def event(self) -> Message:
        return events.PublicMessage(self.id, _from_iso(self.time), self.sender, self.message)


class _Direct(Struct, tag_field="type", tag="direct", gc=False):
    id: int
    time: str
    sender: str = field(name="from")
    to: str
    message: str

    def event(self) -> Message:
        return events.DirectMessage(self.id, _from_iso(self.time), self.sender, self.to, self.message)


class _UserList(Struct, tag_field="type", tag="users"):
    users: tuple[str, ...] | UnsetType = UNSET
    count: int | UnsetType = UNSET
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def event(self) -> Event:
        users = self.users if isinstance(self.users, tuple) else None
        count = self.count if isinstance(self.count, int) else len(users or ())
        return events.Users(count, users, self.joined, self.left)


class _OneUser(Struct, tag_field="type", tag="user"):
    username: str
    online: bool

    def event(self) -> Event:
        return events.User(self.username, self.online)


class _Sent(Struct, tag_field="type", tag="sent", omit_defaults=True, gc=False):
    id: int
    status: events.SentStatus
    nonce: str | None = None
    looks_public: bool = False

    def event(self) -> Event:
        return events.Sent(self.id, self.status, self.nonce, self.looks_public)


class _History(Struct, tag_field="type", tag="history"):
    messages: list[_Broadcast | _Direct]

    def event(self) -> Event:
        return events.History(tuple(message.event() for message in self.messages))


class _Found(Struct, tag_field="type", tag="found"):
    words: str
    messages: list[_Broadcast | _Direct]
    upto: int

    def event(self) -> Event:
        return events.Found(self.words, tuple(message.event() for message in self.messages), self.upto)


class _PasswordChanged(Struct, tag_field="type", tag="password_changed"):
    def event(self) -> Event:
        return events.PasswordChanged()


class _Error(Struct, tag_field="type", tag="error", omit_defaults=True):
    code: str
    message: str
    nonce: str | None = None

    def event(self) -> Event:
        return events.Refused(code_of(self.code), self.message, self.nonce)


class _Pong(Struct, tag_field="type", tag="pong"):
    def event(self) -> Event:
        return events.Pong()


class _Bye(Struct, tag_field="type", tag="bye"):
    reason: str

    def event(self) -> Event:
        return events.Bye(self.reason)


_Reply = (
    _Prompt
    | _Welcome
    | _Broadcast
    | _Direct
    | _UserList
    | _OneUser
    | _Sent
    | _History
    | _Found
    | _PasswordChanged
    | _Error
    | _Pong
    | _Bye
)


class EventDecoder:
    """The client's side of a json connection. Objects of unknown types are skipped."""

    def __init__(self) -> None:
        self._buffer = LineBuffer(_EVENT_LINE_MAX_BYTES)

    def decode(self, data: bytes) -> list[Event]:
        """The events of all complete lines. Raises ProtocolError for a line that is not an event."""
        block = self._buffer.split(data)
        if self._buffer.drop_overflow():
            raise ProtocolError(f"The server sent a line of more than {_EVENT_LINE_MAX_BYTES:,} bytes.")
        found = (_read_event(line) for line in block.split(b"\n") if line.strip())
        return [event for event in found if event is not None]


class _Kind(Struct):
    type: str


_REPLIES: Final[msgspec.json.Decoder[_Reply]] = msgspec.json.Decoder(_Reply)
_KIND: Final = msgspec.json.Decoder(_Kind)
_REPLY_TYPES: Final = frozenset(reply.__struct_config__.tag for reply in get_args(_Reply))


def _read_event(line: bytes) -> Event | None:
    if not _is_shallow(line) and nesting(line) > NESTING_MAX_LEVELS:
        raise ProtocolError("The server sent an object that is nested too deep.")
    try:
        kind = _KIND.decode(line).type
        if kind not in _REPLY_TYPES:
            return None
        if len(line) > _SHORT_EVENT_MAX_BYTES and kind not in _LONG_EVENTS:
            raise ProtocolError(f"The server sent a {kind!r} of {len(line):,} bytes.")
        return _REPLIES.decode(line).event()
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"The server sent an invalid answer (wire format json): {error}.") from error


@lru_cache(maxsize=1024)  # a batch of messages has one time, and the same history is read often
def _to_iso(time_ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03d}Z"


def _from_iso(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _or_unset(value: Value | None) -> Value | UnsetType:
    return UNSET if value is None else value


def _or_none(value: Value | UnsetType) -> Value | None:
    return None if isinstance(value, UnsetType) else value


def _broadcast(event: events.PublicMessage) -> _Broadcast:
    return _Broadcast(event.id, _to_iso(event.time_ms), event.sender, event.text)


def _direct(event: events.DirectMessage) -> _Direct:
    return _Direct(event.id, _to_iso(event.time_ms), event.sender, event.recipient, event.text)


def _message(event: Message) -> _Broadcast | _Direct:
    return _broadcast(event) if isinstance(event, events.PublicMessage) else _direct(event)


def _broadcasts(batch: events.PublicBatch) -> list[Struct]:
    time, sender = _to_iso(batch.time_ms), batch.sender
    return [_Broadcast(message_id, time, sender, text) for message_id, text in enumerate(batch.texts, batch.id)]


def _confirmations(batch: events.SentBatch) -> list[Struct]:
    status = events.SentStatus.SENT
    return [_Sent(message_id, status, nonce) for message_id, nonce in enumerate(batch.nonces, batch.id)]


def _user_list(event: events.Users) -> _UserList:
    if event.users is None:
        return _UserList(count=event.count, joined=event.joined, left=event.left)
    return _UserList(users=event.users, joined=event.joined, left=event.left)


# The wire type of each event.
_REPLY_OF: Final[dict[type, Callable[[Any], Struct]]] = {
    events.PasswordPrompt: lambda event: _Prompt(account=event.account),
    events.Welcome: lambda event: _Welcome(
        account=event.account,
        username=event.username,
        users=event.users,
        last_id=event.last_id,
        history_id=_or_unset(event.history_id),
        since=_or_unset(event.since),
        seen_id=_or_unset(event.seen_id),
    ),
    events.PublicMessage: _broadcast,
    events.DirectMessage: _direct,
    events.Users: _user_list,
    events.Online: lambda event: _UserList(users=event.users),
    events.User: lambda event: _OneUser(event.username, event.online),
    events.Sent: lambda event: _Sent(event.id, event.status, event.nonce, event.looks_public),
    events.History: lambda event: _History([_message(message) for message in event.messages]),
    events.Found: lambda event: _Found(event.words, [_message(message) for message in event.messages], event.upto),
    events.PasswordChanged: lambda _: _PasswordChanged(),
    events.Refused: lambda event: _Error(event.code, event.reason, event.nonce),
    events.Pong: lambda _: _Pong(),
    events.Bye: lambda event: _Bye(event.reason),
}

# The wire types of a batch. Events in neither table have no form in this protocol.
_REPLIES_OF: Final[dict[type, Callable[[Any], list[Struct]]]] = {
    events.PublicBatch: _broadcasts,
    events.SentBatch: _confirmations,
}

# The wire type of each request.
_COMMAND_OF: Final[dict[type, Callable[[Any], Struct]]] = {
    requests.Login: lambda request: _Login(request.username, request.password, request.since, request.history_id),
    requests.Password: lambda request: _Password(request.password),
    requests.Say: lambda request: _Pm(request.text, request.nonce),
    requests.Whisper: lambda request: _Dm(request.to, request.text, request.nonce),
    requests.AskUsers: lambda _: _Users(),
    requests.AskUser: lambda request: _User(request.username),
    requests.AskHistory: lambda request: _Ch(request.limit, request.before),
    requests.Search: lambda request: _Search(request.words, request.limit, request.before),
    requests.ChangePassword: lambda request: _ChangePassword(request.old, request.new),
    requests.Ping: lambda _: _Ping(),
    requests.Leave: lambda _: _Ex(),
}


def _outgoing(request: Request) -> Outgoing:
    """Encode as one line. Raises TypeError for a request of another protocol."""
    command = _COMMAND_OF.get(type(request))
    if command is None:
        raise TypeError(f"No client of the wire format json sends {request!r}.")
    return Outgoing(_ENCODER.encode_lines((command(request),)))


class JsonClient:
    """The client's half. Requests are independent, and many may be unanswered at a time."""

    connections = 1
    is_stepwise = False
    is_guest = False

    def __init__(self) -> None:
        self.ping = _outgoing(requests.Ping())
        # Type of the answer that the next action has to wait for.
        self._awaited: type[events.Online | events.User] | None = None
        self._login = requests.Login("")
        self._unconfirmed: tuple[requests.Say | requests.Whisper, ...] = ()

    @property
    def is_busy(self) -> bool:
        """True until the requested list of users, or the requested user, has arrived."""
        return self._awaited is not None

    def event_decoder(self) -> EventDecoder:
        """Return the decoder for a new connection."""
        return EventDecoder()

    def connect(self, login: requests.Login, unconfirmed: Sequence[requests.Say | requests.Whisper]) -> Effects:
        """Send the login. The server then sends missed messages; nonces prevent duplicates of unconfirmed messages."""
        self._awaited = None
        self._login = login
        self._unconfirmed = (*unconfirmed,)
        return Effects((_outgoing(login),))

    def request(self, action: Action) -> Effects:
        """A public message needs no permission. Before a direct message the list of users is requested."""
        match action:
            case OpenPublic():
                return Effects(events=(events.Ready(),))
            case OpenDirect() | requests.AskUsers():
                self._awaited = events.Online
                return Effects((_outgoing(requests.AskUsers()),))
            case requests.AskUser():
                self._awaited = events.User
                return Effects((_outgoing(action),))
            case _:
                return Effects((_outgoing(action),))

    def handle_event(self, event: Event) -> Effects:
        """Handle an event. A periodic list of users also counts as the answer to a request for the list."""
        match event:
            case events.Users(users=tuple(users), joined=(), left=()) if self._awaited is events.Online:
                self._awaited = None
                return Effects(events=(events.Online(users),))
            case events.User() | events.Refused(code=ErrorCode.UNKNOWN_COMMAND, nonce=None) if (
                self._awaited is events.User
            ):
                # Older servers don't know this request. They check the recipient when the message arrives.
                self._awaited = None
                return Effects(events=(events.Ready(),))
            case events.Welcome():
                shown: tuple[ClientEvent, ...] = (event, PossibleGap()) if self._has_gap(event) else (event,)
                return Effects(tuple(map(_outgoing, self._unconfirmed)), shown)
            case events.Refused(nonce=None):
                self._awaited = None
        return Effects(events=(event,))

    def _has_gap(self, welcome: events.Welcome) -> bool:
        """True if messages may be missing, because the server's history was reset or restored from a backup."""
        since, last_id = self._login.since, welcome.last_id
        if since is None:
            return False
        is_beyond = last_id is not None and last_id < since
        return welcome.since is not None or is_beyond or is_other_history(self._login, welcome)


def _encode_all(items: Sequence[Event | EventBatch]) -> bytes:
    replies: list[Struct] = []
    for event in items:
        if (replies_of := _REPLIES_OF.get(type(event))) is not None:
            replies += replies_of(event)
        elif (reply_of := _REPLY_OF.get(type(event))) is not None:
            replies.append(reply_of(event))
    return _ENCODER.encode_lines(replies)


class Json:
    """The wire protocol json."""

    name = "json"
    opening = '{"command":"login","username":"alice"}'

    def sniff(self, first: bytes) -> Sniff:
        """Recognize the brace that opens an object."""
        return sniff_text(first, (b"{",))

    def server(self) -> JsonServer:
        """Return the server's half of a new connection."""
        return JsonServer()

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as lines: one for each event or message of a batch, none for events of other protocols only."""
        return _encode_all(items)

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> JsonClient:  # noqa: ARG002
        """Return the client's half."""
        return JsonClient()


_ENCODER: Final = msgspec.json.Encoder()
