"""The texts of the steps that a server sends in frames and datagram: events to steps, and steps to events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from chatprotocol import events
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import YOU_LEFT, AccountKind, SentStatus
from chatprotocol.limits import SERVER_MESSAGES_MAX, SERVER_NAME_MAX_CHARACTERS
from chatprotocol.rules import unknown_user
from chatprotocol.wire.base import Online, Ready
from chatprotocol.wire.steps import COMMAND, DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch, Message
    from chatprotocol.wire.base import ClientEvent
    from chatprotocol.wire.steps import Step

# Error codes of a login, sent as DENIED. All others are sent as ERROR or NOUSER.
_DENIED_CODES: Final = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.TOO_MANY_ATTEMPTS})

# --- events, encoded by the server ---


def event_steps(event: Event | EventBatch, command_max_bytes: int) -> Iterable[Step]:
    """Encode an event: several steps for a history or a batch, none for an event without a form in this protocol.

    ONLINE is truncated to ``command_max_bytes``: the recipient of a direct message need not be in the list.
    """
    if isinstance(event, events.Users):
        return (_online(event, command_max_bytes),)
    steps_of = _STEPS_OF.get(type(event))
    return () if steps_of is None else steps_of(event)


def without_updates(items: Iterable[Event | EventBatch]) -> list[Event | EventBatch]:
    """Leave out updates of the users: peers expect no unsolicited command. As an answer, Users is ONLINE."""
    return [each for each in items if not isinstance(each, events.Users)]


def _command(*words: object) -> tuple[Step]:
    return ((COMMAND, " ".join(map(str, words)).encode()),)


def _welcome(event: events.Welcome) -> tuple[Step]:
    """Encode WELCOME. The history id comes last, only for a peer that asked for it."""
    return _command("WELCOME", event.account, *([event.history_id] if event.history_id is not None else []))


def _message(event: Message) -> tuple[Step]:
    word = "PUBLIC" if isinstance(event, events.PublicMessage) else "DIRECT"
    return ((DATA, f"{word} {event.sender} {event.id} {event.time_ms}\n{event.text}".encode()),)


def _online(event: events.Users, max_bytes: int) -> Step:
    names, size_bytes = ["ONLINE"], len("ONLINE")
    for name in event.users or ():
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


def history_steps(messages: Collection[ChatHistoryItem]) -> Iterator[Step]:
    """Encode a history, which has no events of rooms. The messages are taken one by one."""
    yield from _command("HISTORY", len(messages))
    for message in messages:
        assert not isinstance(message, events.RoomEvent)
        yield from _message(message)


def _refused(event: events.Refused) -> tuple[Step]:
    if event.code in _DENIED_CODES:
        return _command("DENIED", event.reason)
    return _command("ERROR", event.code, event.reason)


def _bye(event: events.Bye) -> tuple[Step]:
    """The answer to EX is BYE without a reason."""
    if event.code is not None:
        return _command("BYE", f"{event.code}:", event.reason)
    return _command("BYE") if event.reason == YOU_LEFT else _command("BYE", event.reason)


_STEPS_OF: Final[dict[type, Callable[[Any], Iterable[Step]]]] = {
    events.PasswordPrompt: lambda event: _command("PASSWORD", event.account),
    events.Welcome: _welcome,
    events.PublicMessage: _message,
    events.PublicBatch: _public_batch,
    events.DirectMessage: _message,
    events.Sent: _sent,
    events.SentBatch: _sent_batch,
    events.History: lambda event: history_steps(event.messages),
    events.Refused: _refused,
    events.UserUnknown: lambda event: _command("NOUSER", event.about),
    events.Pong: lambda _: _command("PONG"),
    events.Bye: _bye,
}


# --- events, decoded by the client ---

# Codes of a Bye after which the client does not reconnect.
_BYE_CODES: Final = frozenset({ErrorCode.BANNED, ErrorCode.KICKED, ErrorCode.REPLACED})

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

    def read(self, steps: Iterable[Step]) -> list[ClientEvent]:
        """The events that are complete after these steps. Raises ProtocolError for an invalid one."""
        found: list[ClientEvent] = []
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

    def _read_data(self, text: str) -> Iterable[ClientEvent]:
        message = _read_message(text)
        if not self._history_missing:
            return (message,)
        self._history.append(message)
        self._history_missing -= 1
        self._history_bytes += len(text)
        if self._history_bytes > _HISTORY_MAX_BYTES:
            raise ValueError(f"a history of more than {_HISTORY_MAX_BYTES:,} bytes")
        return self._finish_history() if not self._history_missing else ()

    def _read_command(self, text: str) -> Iterable[ClientEvent]:
        word, _, rest = text.partition(" ")
        if word == "HISTORY":
            if self._history_missing:
                raise ValueError("a history inside another one")
            self._history_missing = _number(rest)
            if self._history_missing > SERVER_MESSAGES_MAX:
                raise ValueError(f"a history of {self._history_missing:,} messages")
            return self._finish_history() if not self._history_missing else ()
        read = _READ.get(word)
        return (read(rest),) if read is not None else ()

    def _finish_history(self) -> Iterable[ClientEvent]:
        messages, self._history, self._history_bytes = tuple(self._history), [], 0
        return (events.History(messages),)


_MESSAGE: Final = re.compile(
    rf"(PUBLIC|DIRECT) ([^ \n]{{1,{SERVER_NAME_MAX_CHARACTERS}}}) ([0-9]{{1,19}}) ([0-9]{{1,19}})\n(.*)", re.DOTALL
)


def _read_message(text: str) -> Message:
    found = _MESSAGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is not a message with a header")
    kind, sender, message_id, time_ms, body = found.groups()
    if kind == "PUBLIC":
        return events.PublicMessage(int(message_id), events.TimeMs(time_ms), sender, body)
    return events.DirectMessage(int(message_id), events.TimeMs(time_ms), sender, "", body)


def _number(word: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", word):
        raise ValueError(f"{word[:64]!r} is not a number")
    return int(word)


def _read_welcome(rest: str) -> ClientEvent:
    kind, _, history_id = rest.partition(" ")
    return events.Welcome(account=AccountKind(kind), username="", users=(), last_id=None, history_id=history_id or None)


def _read_error(rest: str) -> ClientEvent:
    code, _, reason = rest.partition(" ")
    return events.Refused(ErrorCode(code), reason)


def _read_no_user(name: str) -> ClientEvent:
    error = unknown_user(name)
    return events.UserUnknown(error.code, error.reason, about=name)


def _read_bye(rest: str) -> events.Bye:
    word, _, reason = rest.partition(": ")
    return events.Bye(reason, ErrorCode(word)) if word in _BYE_CODES else events.Bye(rest)


_READ: Final[dict[str, Callable[[str], ClientEvent]]] = {
    "PASSWORD": lambda rest: events.PasswordPrompt(account=AccountKind(rest)),
    "WELCOME": _read_welcome,
    "DENIED": lambda rest: events.Refused(ErrorCode.WRONG_PASSWORD, rest),
    "READY": lambda _: Ready(),
    "ONLINE": lambda rest: Online(tuple(rest.split())),
    "SENT": lambda rest: events.Sent(_number(rest), SentStatus.SENT),
    "STORED": lambda rest: events.Sent(_number(rest), SentStatus.STORED),
    "NOUSER": _read_no_user,
    "ERROR": _read_error,
    "PONG": lambda _: events.Pong(),
    "BYE": _read_bye,
}
