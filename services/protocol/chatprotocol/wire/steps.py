"""The steps of the wire protocols frames and datagram: their texts, and the server's state machine.

In these protocols an operation takes several steps. A step is a command (C) or data (D) with a text. Its meaning
depends on the steps before it, and during the login on the server's answers:

    USERNAME      C name and options     -> Login               PasswordPrompt leads to PASSWORD
    PASSWORD      C password             -> Password            Welcome leads to OPERATION
    OPERATION     C CH, USERS, PING, EX  -> the request
                  C PM                   -> READY is sent       PUBLIC_TEXT
                  C DM                   -> AskUsers            RECIPIENT
    PUBLIC_TEXT   D text                 -> Say                 OPERATION
    RECIPIENT     C name                                        DIRECT_TEXT
    DIRECT_TEXT   D text                 -> Whisper             OPERATION

An unexpected or unreadable step returns to USERNAME, PASSWORD or OPERATION, whichever the login has reached.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from msgspec.structs import replace

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError, RequestError, code_of
from chatprotocol.events import YOU_LEFT, AccountKind, SentStatus
from chatprotocol.keywords import DEFAULT_KEYWORDS, HISTORY_ID, KEYWORD_SETS, PING, WORDS
from chatprotocol.rules import check_text, history_limit, unknown_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatprotocol.requests import Request

COMMAND: Final = ord("C")
DATA: Final = ord("D")
# COMMAND or DATA, and the payload.
Step: TypeAlias = tuple[int, bytes]

# Error codes of a login, sent as DENIED. All others are sent as ERROR or NOUSER.
_DENIED_CODES: Final = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.TOO_MANY_ATTEMPTS})
# The step that answers PM.
READY_STEP: Final = COMMAND, b"READY"


# --- requests, decoded by the server ---


class State(Enum):
    """The step that the server expects."""

    USERNAME = auto()
    PASSWORD = auto()
    OPERATION = auto()
    PUBLIC_TEXT = auto()
    RECIPIENT = auto()
    DIRECT_TEXT = auto()


class ServerSteps:
    """The server's half of one connection. For its reader thread; :meth:`encoded` is for any thread after the login."""

    __slots__ = ("_keywords", "_reached", "_recipient", "_state", "_wants_history_id", "ready_count")

    def __init__(self) -> None:
        # Number of READY that were not sent yet.
        self.ready_count = 0
        self._state = State.USERNAME
        # The state that the login has reached: USERNAME, PASSWORD or OPERATION.
        self._reached = State.USERNAME
        self._keywords = KEYWORD_SETS[DEFAULT_KEYWORDS]
        self._wants_history_id = False
        self._recipient = ""

    def read(self, kind: int, payload: bytes) -> Request | None:
        """Decode a step. Returns the request that it completes, or None."""
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            return self.unreadable(ErrorCode.BAD_REQUEST, f"The payload is not UTF-8, from byte {error.start} on.")
        return self.take(kind, text)

    def take(self, kind: int, text: str) -> Request | None:
        """Return the request that this step completes, or None."""
        state, self._state = self._state, self._reached
        expected, description, transition = self._TRANSITIONS[state]
        if kind == expected:
            return transition(self, text)
        code = ErrorCode.NOT_LOGGED_IN if state is State.USERNAME else ErrorCode.BAD_REQUEST
        reason = f"A {expected:c} frame was due, with {description}; this is a {kind:c} frame."
        return requests.Unreadable(code, reason)

    def read_public(self, keyword: str, texts: Sequence[str]) -> Iterator[Request]:
        """Read several times the keyword and a text: as one batch if they are valid public messages."""
        if self._state is State.OPERATION and keyword == self._keywords.public and _are_valid(texts):
            self.ready_count += len(texts)
            yield requests.SayBatch(texts)
            return
        for text in texts:
            for kind, word in ((COMMAND, keyword), (DATA, text)):
                request = self.take(kind, word)
                if request is not None:
                    yield request

    def unreadable(self, code: ErrorCode, reason: str, *, closes: bool = False) -> requests.Unreadable:
        """Drop the incomplete operation, and return the error."""
        self._state = self._reached
        return requests.Unreadable(code, reason, closes=closes)

    def login_events(self, said: Sequence[Event | EventBatch]) -> Sequence[Event | EventBatch]:
        """Follow the login in the events for this connection. Returns them as this client gets them.

        After the login this method changes nothing, so that any thread may encode.
        """
        if self._reached is State.OPERATION:
            return said
        found: list[Event | EventBatch] = []
        for each in said:
            event = each
            if isinstance(event, events.PasswordPrompt):
                self._state = self._reached = State.PASSWORD
            elif isinstance(event, events.Welcome):
                self._state = self._reached = State.OPERATION
                if not self._wants_history_id:
                    event = replace(event, history_id=None)
            found.append(event)
        return found

    # --- transitions for the expected step; they set _state only if the operation continues ---

    def _read_username(self, text: str) -> Request:
        """Parse a username and options: a keyword set, and the request for the history id."""
        if text == self._keywords.leave:
            return requests.Leave()
        if text in WORDS:  # an operation before the login
            reason = "You are not logged in; send your username in a C frame first."
            return requests.Unreadable(ErrorCode.NOT_LOGGED_IN, reason)
        name, _, options = text.strip().partition(" ")
        words = options.split()
        self._wants_history_id = HISTORY_ID in words
        if self._wants_history_id:
            words.remove(HISTORY_ID)
        keywords = KEYWORD_SETS.get(" ".join(words) or DEFAULT_KEYWORDS)
        if keywords is None:
            reason = f"After the username there may be {' or '.join(KEYWORD_SETS)}, and {HISTORY_ID}, nothing else."
            return requests.Unreadable(ErrorCode.BAD_REQUEST, reason)
        self._keywords = keywords
        return requests.Login(name, is_stepwise=True)

    def _read_password(self, text: str) -> Request:
        return requests.Password(text)

    def _read_operation(self, text: str) -> Request | None:
        """Parse an operation, case-insensitive. A limit may follow the keyword of the history."""
        operation, _, limit = text.strip().upper().partition(" ")
        words = self._keywords
        if operation == words.history:
            return _ask_history(limit.strip())
        match "" if limit else operation:
            case words.public:
                self.ready_count += 1
                self._state = State.PUBLIC_TEXT
                return None
            case words.direct:
                self._state = State.RECIPIENT
                return requests.AskUsers()
            case words.leave:
                return requests.Leave()
            case "USERS":
                return requests.AskUsers()
            case "PING":
                return requests.Ping()
        known = ", ".join([*words, "USERS", PING])
        reason = f"There is no operation {text[:32]!r}; there are {known}, each alone in its frame."
        return requests.Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)

    def _read_public_text(self, text: str) -> Request:
        return requests.Say(text)

    def _read_recipient(self, text: str) -> None:
        """The recipient is checked with the complete request."""
        self._recipient = text.strip()
        self._state = State.DIRECT_TEXT

    def _read_direct_text(self, text: str) -> Request:
        return requests.Whisper(self._recipient, text)

    # By state: the expected kind, its description for errors, and the method that reads it.
    _TRANSITIONS: ClassVar[dict[State, tuple[int, str, Callable[[ServerSteps, str], Request | None]]]] = {
        State.USERNAME: (COMMAND, "your username", _read_username),
        State.PASSWORD: (COMMAND, "your password", _read_password),
        State.OPERATION: (COMMAND, "an operation", _read_operation),
        State.PUBLIC_TEXT: (DATA, "the message", _read_public_text),
        State.RECIPIENT: (COMMAND, "the recipient", _read_recipient),
        State.DIRECT_TEXT: (DATA, "the message", _read_direct_text),
    }


def _are_valid(texts: Sequence[str]) -> bool:
    try:
        for text in texts:
            check_text(text)
    except RequestError:
        return False
    return True


def _ask_history(limit: str) -> Request:
    try:
        return requests.AskHistory(history_limit(limit))
    except RequestError as error:
        return requests.Unreadable(error.code, error.reason)


def request_step(request: Request) -> Step:
    """Encode a request. Raises TypeError if it is not a Command or Data."""
    match request:
        case requests.Command(text):
            return COMMAND, text.encode()
        case requests.Data(text):
            return DATA, text.encode()
        case _:
            raise TypeError(f"{request!r} is neither a Command nor a Data.")


# --- events, encoded by the server ---


def event_steps(event: Event | EventBatch, command_max_bytes: int) -> Iterable[Step]:
    """Encode an event: several steps for a history or a batch, none for an event without a form in this protocol.

    ONLINE is truncated to ``command_max_bytes``: the recipient of a direct message need not be in the list.
    """
    steps_of = _STEPS_OF.get(type(event))
    if steps_of is not None:
        return steps_of(event)
    return (_online(event, command_max_bytes),) if isinstance(event, events.Online) else ()


def _command(*words: object) -> tuple[Step]:
    return ((COMMAND, " ".join(map(str, words)).encode()),)


def _welcome(event: events.Welcome) -> tuple[Step]:
    """Encode WELCOME. The history id comes last, only for a peer that asked for it."""
    return _command("WELCOME", event.account, *([event.history_id] if event.history_id is not None else []))


def _message(event: Message) -> tuple[Step]:
    word = "PUBLIC" if isinstance(event, events.PublicMessage) else "DIRECT"
    return ((DATA, f"{word} {event.sender} {event.id} {event.time_ms}\n{event.text}".encode()),)


def _online(event: events.Online, max_bytes: int) -> Step:
    names, size_bytes = ["ONLINE"], len("ONLINE")
    for name in event.users:
        size_bytes += 1 + len(name)
        if size_bytes > max_bytes:
            break
        names.append(name)
    return COMMAND, " ".join(names).encode()


def _sent(event: events.Sent) -> tuple[Step]:
    return _command("SENT" if event.status is SentStatus.SENT else "STORED", event.id)


def _public_batch(batch: events.PublicBatch) -> list[Step]:
    before, after = f"PUBLIC {batch.sender} ", f" {batch.time_ms}\n"
    return [(DATA, f"{before}{number}{after}{text}".encode()) for number, text in enumerate(batch.texts, batch.id)]


def _sent_batch(batch: events.SentBatch) -> list[Step]:
    return [(COMMAND, b"SENT %d" % number) for number in range(batch.id, batch.id + len(batch.nonces))]


def _history(event: events.History) -> list[Step]:
    return [*_command("HISTORY", len(event.messages)), *(step for each in event.messages for step in _message(each))]


def _refused(event: events.Refused) -> tuple[Step]:
    if event.code in _DENIED_CODES:
        return _command("DENIED", event.reason)
    if event.code is ErrorCode.UNKNOWN_USER and event.about is not None:
        return _command("NOUSER", event.about)
    return _command("ERROR", event.code, event.reason)


# Users has no entry, because peers expect no unsolicited command. They get the list of users when they ask for it.
_STEPS_OF: Final[dict[type, Callable[[Any], Iterable[Step]]]] = {
    events.PasswordPrompt: lambda event: _command("PASSWORD", event.account),
    events.Welcome: _welcome,
    events.PublicMessage: _message,
    events.PublicBatch: _public_batch,
    events.DirectMessage: _message,
    events.Sent: _sent,
    events.SentBatch: _sent_batch,
    events.History: _history,
    events.Refused: _refused,
    events.Pong: lambda _: _command("PONG"),
    # The reply to EX is BYE without a reason.
    events.Bye: lambda event: _command("BYE") if event.reason == YOU_LEFT else _command("BYE", event.reason),
}


# --- events, decoded by the client ---


# History limit of a client: other servers may send longer histories than ours.
_HISTORY_MAX_BYTES: Final = 64 * 1024 * 1024
# Length limit of server text that is quoted in an error.
_REASON_MAX_CHARACTERS: Final = 128


class EventReader:
    """Decodes the steps of one connection to events. Unknown commands are skipped."""

    __slots__ = ("_history", "_history_bytes", "_history_missing", "_protocol_name")

    def __init__(self, protocol_name: str) -> None:
        self._protocol_name = protocol_name
        # The incomplete history: its messages so far, and the number of missing ones.
        self._history: list[Message] = []
        self._history_missing = 0
        self._history_bytes = 0

    def read(self, steps: Iterable[Step]) -> list[Event]:
        """The events that are complete after these steps. Raises ProtocolError for an invalid one."""
        found: list[Event] = []
        try:
            for kind, payload in steps:
                text = payload.decode()
                found += self._read_data(text) if kind == DATA else self._read_command(text)
        except ValueError as error:  # UnicodeDecodeError is one, too
            reason = str(error)[:_REASON_MAX_CHARACTERS]
            raise ProtocolError(
                f"The server sent an invalid answer (wire format {self._protocol_name}): {reason}."
            ) from error
        return found

    def _read_data(self, text: str) -> Iterable[Event]:
        message = _read_message(text)
        if not self._history_missing:
            return (message,)
        self._history.append(message)
        self._history_missing -= 1
        self._history_bytes += len(text)
        if self._history_bytes > _HISTORY_MAX_BYTES:
            raise ValueError(f"a history of more than {_HISTORY_MAX_BYTES:,} bytes")
        return self._finish_history() if not self._history_missing else ()

    def _read_command(self, text: str) -> Iterable[Event]:
        word, _, rest = text.partition(" ")
        if word == "HISTORY":
            if self._history_missing:
                raise ValueError("a history inside another one")
            self._history_missing = _number(rest)
            return self._finish_history() if not self._history_missing else ()
        read = _READ.get(word)
        return (read(rest),) if read is not None else ()

    def _finish_history(self) -> Iterable[Event]:
        messages, self._history, self._history_bytes = tuple(self._history), [], 0
        return (events.History(messages),)


_MESSAGE: Final = re.compile(r"(PUBLIC|DIRECT) ([^ \n]+) ([0-9]{1,19}) ([0-9]{1,19})\n(.*)", re.DOTALL)


def _read_message(text: str) -> Message:
    found = _MESSAGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is not a message with a header")
    kind, sender, message_id, time_ms, body = found.groups()
    if kind == "PUBLIC":
        return events.PublicMessage(int(message_id), int(time_ms), sender, body)
    return events.DirectMessage(int(message_id), int(time_ms), sender, "", body)


def _number(word: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", word):
        raise ValueError(f"{word[:64]!r} is not a number")
    return int(word)


def _read_welcome(rest: str) -> Event:
    kind, _, history_id = rest.partition(" ")
    return events.Welcome(AccountKind(kind), "", (), None, history_id or None)


def _read_error(rest: str) -> Event:
    code, _, reason = rest.partition(" ")
    return events.Refused(code_of(code), reason)


def _read_no_user(name: str) -> Event:
    error = unknown_user(name)
    return events.Refused(error.code, error.reason, about=error.about)


_READ: Final[dict[str, Callable[[str], Event]]] = {
    "PASSWORD": lambda rest: events.PasswordPrompt(AccountKind(rest)),
    "WELCOME": _read_welcome,
    "DENIED": lambda rest: events.Refused(ErrorCode.WRONG_PASSWORD, rest),
    "READY": lambda _: events.Ready(),
    "ONLINE": lambda rest: events.Online(tuple(rest.split())),
    "SENT": lambda rest: events.Sent(_number(rest), SentStatus.SENT),
    "STORED": lambda rest: events.Sent(_number(rest), SentStatus.STORED),
    "NOUSER": _read_no_user,
    "ERROR": _read_error,
    "PONG": lambda _: events.Pong(),
    "BYE": events.Bye,
}
