"""The dialect frames: typed frames, C for commands and D for data, step by step. Its wire: docs/wire/frames.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from chatprotocol import events
from chatprotocol.dialects.base import Sniff
from chatprotocol.errors import ErrorCode, ProtocolError, code_of
from chatprotocol.events import YOU_LEFT, AccountKind, SentStatus
from chatprotocol.framing import HEADER_BYTES, FrameBuffer, frame, frame_header
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.operations import OPS
from chatprotocol.requests import Command, CommandRun, Data, Unreadable
from chatprotocol.rules import unknown_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chatprotocol.events import Event, Message, Run
    from chatprotocol.requests import Request

_COMMAND: Final = ord("C")
_DATA: Final = ord("D")
_KINDS: Final = b"CD"
_PAYLOAD_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES
# What a password was answered with. All other refusals are errors.
_DENIALS: Final = frozenset({ErrorCode.WRONG_PASSWORD, ErrorCode.TOO_MANY_ATTEMPTS})


# --- what a client sends ---


class RequestDecoder:
    """The server's side of a connection: commands and data. What they mean depends on what went before."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)

    def feed(self, data: bytes) -> list[Request]:
        """What all frames say that are whole now. Behind a broken frame there is nothing."""
        for public in _PUBLIC_FRAMES:
            if data.count(public) >= _RUN_MIN:
                return self._read_runs(public, data)
        return self._read(data)

    def _read(self, data: bytes) -> list[Request]:
        was_broken = self._frames.problem is not None
        found = _read_requests(self._frames.feed(data))
        problem = self._frames.problem
        if problem is not None and not was_broken:
            found.append(Unreadable(problem.code, problem.reason, closes=True))
        return found

    def _read_runs(self, public: bytes, data: bytes) -> list[Request]:
        """Where public messages pour in, cut at their first steps: that takes half as long as to go by the lengths.

        It is right where all that lies between two of them is one frame of data.
        """
        first, *between, last = data.split(public)
        found = self._read(first)
        is_between_frames = not self.is_inside and self._frames.problem is None
        if is_between_frames and (texts := _read_texts(between)) is not None:
            found.append(CommandRun(_PUBLIC_FRAMES[public], texts))
            return found + self._read(public + last)
        return found + self._read(data[len(first) :])

    def end(self) -> list[Request]:
        """What is left when the peer sends no more is a frame that was cut short."""
        if not self.is_inside:
            return []
        reason = f"The connection ended inside a frame; {len(self._frames.rest)} bytes were dropped."
        return [Unreadable(ErrorCode.BAD_REQUEST, reason)]

    @property
    def is_inside(self) -> bool:
        """Has a frame begun that is not whole yet?"""
        return bool(self._frames.rest)


# The first step of every public message, in either tradition.
_PUBLIC_FRAMES: Final = {frame(_COMMAND, words.public.encode()): words.public for words in OPS.values()}
# Below so many a run is not worth looking for.
_RUN_MIN: Final = 4


def _read_texts(pieces: Sequence[bytes]) -> list[str] | None:
    """The texts, if each piece is one frame of data, and nothing else."""
    for piece in pieces:
        size_bytes = len(piece) - HEADER_BYTES
        if not 0 <= size_bytes <= _PAYLOAD_MAX_BYTES or piece[:HEADER_BYTES] != frame_header(_DATA, size_bytes):
            return None
    try:
        return [piece[HEADER_BYTES:].decode() for piece in pieces]
    except UnicodeDecodeError:
        return None


def _read_requests(frames: Sequence[tuple[int, bytes]]) -> list[Request]:
    try:
        return [(Data if kind == _DATA else Command)(payload.decode()) for kind, payload in frames]
    except UnicodeDecodeError as error:
        if len(frames) == 1:
            return [Unreadable(ErrorCode.BAD_REQUEST, f"The payload is not UTF-8, from byte {error.start} on.")]
    # Read again one by one, so that the good ones count and each bad one is told what is wrong.
    return [request for each in frames for request in _read_requests([each])]


# --- what a server sends: the payloads of its frames ---


def _command(*words: object) -> bytes:
    return frame(_COMMAND, " ".join(map(str, words)).encode())


def _message(event: Message) -> bytes:
    word = "PUBLIC" if isinstance(event, events.PublicMessage) else "DIRECT"
    return frame(_DATA, f"{word} {event.sender} {event.id} {event.time_ms}\n{event.text}".encode())


def _online(event: events.Online) -> bytes:
    """As many as one frame holds: the recipient of a direct message need not be among them."""
    names, size_bytes = [], len("ONLINE")
    for name in event.users:
        size_bytes += 1 + len(name)
        if size_bytes > _PAYLOAD_MAX_BYTES:
            break
        names.append(name)
    return _command("ONLINE", *names)


def _sent(event: events.Sent) -> bytes:
    return _command("SENT" if event.status is SentStatus.SENT else "STORED", event.id)


def _public_run(run: events.PublicRun) -> bytes:
    before, after = f"PUBLIC {run.sender} ", f" {run.time_ms}\n"
    payloads = [f"{before}{number}{after}{text}".encode() for number, text in enumerate(run.texts, run.id)]
    return b"".join([frame(_DATA, payload) for payload in payloads])


def _sent_run(run: events.SentRun) -> bytes:
    return b"".join([frame(_COMMAND, b"SENT %d" % number) for number in range(run.id, run.id + len(run.nonces))])


def _history(event: events.History) -> bytes:
    return _command("HISTORY", len(event.messages)) + b"".join(map(_encode, event.messages))


def _refused(event: events.Refused) -> bytes:
    if event.code in _DENIALS:
        return _command("DENIED", event.reason)
    if event.code is ErrorCode.UNKNOWN_USER and event.about is not None:
        return _command("NOUSER", event.about)
    return _command("ERROR", event.code, event.reason)


_READY: Final = _command("READY")

# Peers expect no command that they did not ask for, so there is none for Users; who is online is told when they ask.
_FRAMES_OF: Final[dict[type, Callable[[Any], bytes]]] = {
    events.PasswordPrompt: lambda event: _command("PASSWORD", event.account),
    events.Welcome: lambda event: _command("WELCOME", event.account),
    events.PublicMessage: _message,
    events.PublicRun: _public_run,
    events.DirectMessage: _message,
    events.Online: _online,
    events.Ready: lambda _: _READY,
    events.Sent: _sent,
    events.SentRun: _sent_run,
    events.History: _history,
    events.Refused: _refused,
    events.Pong: lambda _: _command("PONG"),
    # The answer to EX is the word alone.
    events.Bye: lambda event: _command("BYE") if event.reason == YOU_LEFT else _command("BYE", event.reason),
}


def _encode(event: Event | Run) -> bytes:
    frames_of = _FRAMES_OF.get(type(event))
    return frames_of(event) if frames_of is not None else b""


# --- what a server sends, as a client reads it ---


# Other servers may show more of it than ours; no client holds more than this.
_HISTORY_MAX_BYTES: Final = 64 * 1024 * 1024
# What an error repeats of what a server sent.
_REASON_MAX_CHARACTERS: Final = 128


class EventDecoder:
    """The client's side of a connection. Commands that it does not know are passed over."""

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        # Of a history that has begun: its messages so far, and how many are still to come.
        self._history: list[Message] = []
        self._history_due = 0
        self._history_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """Events of all frames that are whole now; ProtocolError where one is none of ours."""
        found: list[Event] = []
        try:
            for kind, payload in self._frames.feed(data):
                text = payload.decode()
                found += self._read_data(text) if kind == _DATA else self._read_command(text)
        except ValueError as error:  # UnicodeDecodeError is one, too
            reason = str(error)[:_REASON_MAX_CHARACTERS]
            raise ProtocolError(
                f"The server sent something that is no answer of the dialect frames: {reason}."
            ) from error
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent something that is no frame. {self._frames.problem.reason}")
        return found

    def _read_data(self, text: str) -> Iterable[Event]:
        message = _read_message(text)
        if not self._history_due:
            return (message,)
        self._history.append(message)
        self._history_due -= 1
        self._history_bytes += len(text)
        if self._history_bytes > _HISTORY_MAX_BYTES:
            raise ValueError(f"a history of more than {_HISTORY_MAX_BYTES:,} bytes")
        return self._finish_history() if not self._history_due else ()

    def _read_command(self, text: str) -> Iterable[Event]:
        word, _, rest = text.partition(" ")
        if word == "HISTORY":
            if self._history_due:
                raise ValueError("a history inside another one")
            self._history_due = _number(rest)
            return self._finish_history() if not self._history_due else ()
        read = _READ.get(word)
        return (read(rest),) if read is not None else ()

    def _finish_history(self) -> Iterable[Event]:
        messages, self._history, self._history_bytes = tuple(self._history), [], 0
        return (events.History(messages),)


_MESSAGE: Final = re.compile(r"(PUBLIC|DIRECT) ([^ \n]+) ([0-9]{1,19}) ([0-9]{1,19})\n(.*)", re.DOTALL)


def _read_message(text: str) -> Message:
    found = _MESSAGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is no message with its header")
    kind, sender, message_id, time_ms, body = found.groups()
    if kind == "PUBLIC":
        return events.PublicMessage(int(message_id), int(time_ms), sender, body)
    return events.DirectMessage(int(message_id), int(time_ms), sender, "", body)


def _number(word: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", word):
        raise ValueError(f"{word[:64]!r} is no number")
    return int(word)


def _read_error(rest: str) -> Event:
    code, _, reason = rest.partition(" ")
    return events.Refused(code_of(code), reason)


def _read_no_user(name: str) -> Event:
    refusal = unknown_user(name)
    return events.Refused(refusal.code, refusal.reason, about=refusal.about)


_READ: Final[dict[str, Callable[[str], Event]]] = {
    "PASSWORD": lambda rest: events.PasswordPrompt(AccountKind(rest)),
    "WELCOME": lambda rest: events.Welcome(AccountKind(rest), "", (), None),
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


class Frames:
    """Typed frames. A client's requests are commands and data only: what they mean is for a dialogue to say."""

    name = "frames"
    connections = 1
    opening = "C\0\0\0\5alice"

    def sniff(self, first: bytes) -> Sniff:
        """A command opens, and no length is so great that its first byte were not zero."""
        if first == b"C":
            return Sniff.MORE
        return Sniff.YES if first.startswith(b"C\0") else Sniff.NO

    def request_decoder(self) -> RequestDecoder:
        """For the server's side of a new connection."""
        return RequestDecoder()

    def encode(self, event: Event) -> bytes:
        """A frame; a history is several."""
        return _encode(event)

    def encode_all(self, said: Sequence[Event | Run]) -> bytes:
        """The frames of each."""
        return b"".join(map(_encode, said))

    def event_decoder(self) -> EventDecoder:
        """For the client's side of a new connection."""
        return EventDecoder()

    def connection_for(self, _: Request) -> int:
        """There is only one."""
        return 0

    def encode_request(self, request: Request) -> bytes:
        """One frame."""
        match request:
            case Command(text):
                return frame(_COMMAND, text.encode())
            case Data(text):
                return frame(_DATA, text.encode())
            case _:
                raise TypeError(f"No client of the dialect frames sends {request!r}.")
