"""The wire protocol register: REGISTER, SEND, FORWARD, over two connections per user, who has no password.

   REGISTER TOSEND ->   <- REGISTERED   REGISTER TORECV ->   <- REGISTERED      SEND bob ->   <- SEND bob

Wire format: docs/wire/register.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import YOU_LEFT, AccountKind, SentStatus, expand_batches
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import HEADER_SECTION_MAX_BYTES, SECTION_BODY_MAX_BYTES
from chatprotocol.requests import Side, Unreadable
from chatprotocol.rules import EVERYONE, is_everyone
from chatprotocol.wire.base import (
    DeliveryUnknown,
    Effects,
    Forwarded,
    Outcome,
    Outgoing,
    PossibleGap,
    Ready,
    ServerProtocol,
    Sniff,
    WireProtocol,
    sniff_text,
)
from chatprotocol.wire.readers import SectionBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatprotocol.requests import Login, Request, Say, Whisper
    from chatprotocol.wire.base import Action, ClientEvent
    from chatprotocol.wire.readers import Section

# Possible words for a confirmed delivery: the specification has one in its table, the other in its prose.
DELIVERED_WORDS: Final = ("SEND", "SENT")
# Possible units of a Content-length: bytes is correct, but many programs count the characters of their strings.
LENGTH_UNITS: Final = ("bytes", "characters")

# Smallest valid limit of a FORWARD: it has room for the header (at most 63 bytes) and a useful body.
FORWARD_MAX_LEAST_BYTES: Final = 256

_LINE_END: Final = re.compile("\r\n|\n|\r")

# First words that identify this protocol. A connection that begins with another word than REGISTER gets an error.
_WORDS: Final = ("REGISTER", "SEND", "RECEIVED", "ERROR")
_OPENINGS: Final = tuple(f"{word} ".encode() for word in _WORDS)
# Side by its word in upper case.
_SIDES: Final = {side.value: side for side in Side}


# --- the server's half ---

_MALFORMED_USERNAME: Final = b"ERROR 100 Malformed username\n\n"
_NOT_REGISTERED: Final = b"ERROR 101 No user registered\n\n"
_TLS_REQUIRED: Final = b"ERROR 101 TLS required\n\n"
_NOT_SENT: Final = b"ERROR 102 Unable to send\n\n"
_HEADER_INCOMPLETE: Final = b"ERROR 103 Header incomplete\n\n"


class RegisterServer(ServerProtocol):
    """The server's half of one connection: its registration, and the request that is being answered.

    An answer repeats the name of its request, and the number of an error depends on the request. An error that answers
    no request, or an acknowledgement, ends the connection.
    """

    __slots__ = ("_asked", "_asked_to", "_protocol", "_sections", "side")

    def __init__(self, protocol: Register) -> None:
        self._protocol = protocol
        self._sections = _buffer("SEND", counts_characters=protocol.counts_characters)
        # The side of a registered connection.
        self.side: Side | None = None
        # The request that is being answered, and the recipient of a SEND as the client wrote it.
        self._asked: Request | None = None
        self._asked_to = ""

    def receive(self, data: bytes) -> Iterator[Request]:
        """The requests of all complete sections. After an invalid header, one Unreadable and then nothing."""
        was_broken = self._sections.problem is not None
        for section in self._sections.split(data):
            self._asked = self.read(section)
            yield self._asked
            self._asked, self._asked_to = None, ""
        problem = self._sections.problem
        if problem is not None and not was_broken:
            yield Unreadable(problem.code, problem.reason, closes=True)

    def receive_end(self) -> list[Request]:
        if not self.is_incomplete:
            return []
        return [Unreadable(ErrorCode.BAD_REQUEST, "The connection ended inside a header or a body.", closes=True)]

    @property
    def is_incomplete(self) -> bool:
        return self._sections.is_incomplete

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode messages as FORWARD, and the answer to the request that is being answered."""
        return b"".join(map(self._encode, items))

    def _encode(self, event: Event | EventBatch) -> bytes:
        match event:
            case events.PublicMessage() | events.DirectMessage():
                return self._protocol.forward(event)
            case events.Welcome() if isinstance(self._asked, requests.GuestLogin):
                self.side = self._asked.side
                return f"REGISTERED {self.side} {self._asked.username}\n\n".encode()
            case events.Sent():
                return f"{self._protocol.delivered} {self._asked_to}\n\n".encode()
            case events.Refused(ErrorCode.BAD_USERNAME):
                return _MALFORMED_USERNAME
            case events.Refused(code) if self.side is None or code is ErrorCode.NOT_LOGGED_IN:
                return _NOT_REGISTERED
            case events.Refused():
                is_answer = self._asked is not None and not isinstance(self._asked, requests.Acknowledge)
                return _NOT_SENT if is_answer else _HEADER_INCOMPLETE
            case _:
                return b""

    def read(self, section: Section) -> Request:
        """Decode a section, as far as this side may send it."""
        match section:
            case ("REGISTER", rest, _):
                return self._read_register(rest)
            case ("SEND" | "RECEIVED" | "ERROR", _, _) if self.side is None:
                reason = "This connection is not registered; send REGISTER first."
                return Unreadable(ErrorCode.NOT_LOGGED_IN, reason)
            case ("SEND", to, str(text)):
                return self._read_send(to, text)
            case ("RECEIVED", sender, _):
                return requests.Acknowledge(sender)
            case ("ERROR", _, _):
                return requests.Acknowledge(None)
            case (word, _, _):
                known = ", ".join(_WORDS)
                return Unreadable(ErrorCode.UNKNOWN_COMMAND, f"A header begins with {known}, not with {word[:32]!r}.")

    def _read_register(self, rest: str) -> Request:
        word, _, username = rest.partition(" ")
        side = _SIDES.get(word.upper())
        if side is None:
            reason = f"A REGISTER header continues with {' or '.join(Side)} and a username."
            return Unreadable(ErrorCode.UNKNOWN_COMMAND, reason)
        if self.side is not None:
            return Unreadable(ErrorCode.BAD_USERNAME, "This connection is registered already.")
        return requests.GuestLogin(side, username.strip())

    def _read_send(self, to: str, text: str) -> Request:
        if self.side is Side.RECEIVING:
            reason = "This connection is for receiving; send on the other one."
            return Unreadable(ErrorCode.BAD_REQUEST, reason)
        try:
            text.encode()  # bytes that are not UTF-8 were decoded to lone surrogates
        except UnicodeEncodeError:
            return Unreadable(ErrorCode.BAD_REQUEST, "The body is not UTF-8; nothing was sent.")
        self._asked_to = to
        return requests.Say(text) if is_everyone(to) else requests.Whisper(to, text)


def _buffer(words_with_body: str, *, counts_characters: bool) -> SectionBuffer:
    return SectionBuffer(
        frozenset({words_with_body}),
        HEADER_SECTION_MAX_BYTES,
        SECTION_BODY_MAX_BYTES,
        counts_characters=counts_characters,
    )


# --- the client's half ---

# Code of the errors that mean: the message was not delivered. They have number 102, or an unknown one.
_NOT_DELIVERED: Final = ErrorCode.INTERNAL
# Codes of the other errors, by number.
_CODES: Final = {
    "100": ErrorCode.BAD_USERNAME,
    "101": ErrorCode.NOT_LOGGED_IN,
    "103": ErrorCode.BAD_REQUEST,
}


class RegisterClient:
    """The client's half. It sends one message at a time, and acknowledges each received message."""

    connections = len(Side)
    is_stepwise = True
    is_guest = True
    probe = None
    # The protocol has no ping.
    ping = None

    def __init__(self, protocol: Register) -> None:
        self._protocol = protocol
        self._name = ""
        self._was_logged_in = False
        self._is_logged_in = False
        # Messages sent on previous connections and not answered.
        self._unconfirmed: tuple[Say | Whisper, ...] = ()
        # The unanswered message, and true if the client leaves after the answer.
        self._unanswered: Say | Whisper | None = None
        self._is_leaving = False

    @property
    def is_busy(self) -> bool:
        """True while a message is unanswered."""
        return self._unanswered is not None

    def event_decoder(self) -> EventDecoder:
        return EventDecoder(counts_characters=self._protocol.counts_characters)

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper], host: str = "") -> Effects:  # noqa: ARG002
        """Register the sending connection, then the receiving connection: some servers need this order."""
        self._name = login.username
        self._unconfirmed = tuple(unconfirmed)
        self._is_logged_in = self._is_leaving = False
        self._unanswered = None
        return _send(f"REGISTER {Side.SENDING} {self._name}\n\n".encode(), Side.SENDING)

    def request(self, action: Action) -> Effects:
        """Send a message, or leave by closing the connections. Raises TypeError for all other actions."""
        match action:
            case requests.Say() | requests.Whisper():
                self._unanswered = action
                to = action.to if isinstance(action, requests.Whisper) else EVERYONE
                return _send(self._protocol.section(f"SEND {to}", action.text), Side.SENDING)
            case requests.Leave() if self.is_busy:
                self._is_leaving = True
                return Effects()
            case requests.Leave():
                return Effects(events=(events.Bye(YOU_LEFT),))
            case _:
                raise TypeError(f"{action!r} can't be sent by a guest.")

    def handle_event(self, event: ClientEvent) -> Effects:
        """Continue the registration, acknowledge a message, or finish the unanswered one."""
        match event:
            case Ready() | events.Welcome() if self._is_logged_in:
                return Effects()
            case Ready():
                return _send(f"REGISTER {Side.RECEIVING} {self._name}\n\n".encode(), Side.RECEIVING)
            case events.Welcome():
                return Effects(events=self._on_registered(event))
            case Forwarded(sender):
                return _send(f"RECEIVED {sender}\n\n".encode(), Side.RECEIVING)._replace(events=(event,))
            case events.Refused(code, reason) if not self._is_logged_in:
                return Effects(events=(events.Refused(code, self._login_error(code, reason)),))
            case events.Sent() | events.Refused() if self._unanswered is not None:
                return Effects(events=self._finish(self._unanswered, event))
            case events.Sent() | events.Refused(ErrorCode.INTERNAL):  # an answer to nothing
                return Effects()
            case _:
                return Effects(events=(event,))

    def _on_registered(self, welcome: events.Welcome) -> tuple[ClientEvent, ...]:
        self._is_logged_in = True
        welcome = replace(welcome, username=self._name)
        if not self._was_logged_in:
            self._was_logged_in = True
            return (welcome,)
        unknown = (DeliveryUnknown(message, has_history=False) for message in self._unconfirmed)
        return (welcome, PossibleGap(has_history=False), *unknown)

    def _login_error(self, code: ErrorCode, reason: str) -> str:
        name = self._name
        if code is not ErrorCode.BAD_USERNAME:
            why = "it may be full, accept no guests or new names, or require --tls"
            return f"The server rejected {name} ({reason}); {why}."
        if self._was_logged_in:
            return f"The name {name} is taken now; trying again."
        return f"The name {name} is taken or not allowed; choose another one."

    def _finish(self, message: Say | Whisper, event: events.Sent | events.Refused) -> tuple[ClientEvent, ...]:
        """Return the outcome of the unanswered message, and the goodbye if it was requested meanwhile."""
        self._unanswered = None
        outcome = Outcome(message, isinstance(event, events.Sent))
        is_error = isinstance(event, events.Refused) and event.code is not _NOT_DELIVERED
        goodbye: tuple[ClientEvent, ...] = (events.Bye(YOU_LEFT),) if self._is_leaving else ()
        return (*((event,) if is_error else ()), outcome, *goodbye)


def _send(data: bytes, side: Side) -> Effects:
    return Effects((Outgoing(data, int(side is Side.RECEIVING)),))


class EventDecoder:
    """The client's side of a connection. Unknown words are skipped."""

    def __init__(self, *, counts_characters: bool) -> None:
        self._sections = _buffer("FORWARD", counts_characters=counts_characters)

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The events of all complete sections. Raises ProtocolError for an invalid one."""
        found = [event for section in self._sections.split(data) if (event := _read_event(section)) is not None]
        if self._sections.problem is not None:
            raise ProtocolError(f"The server sent an invalid header or body. {self._sections.problem.reason}")
        return found


def _read_event(section: Section) -> ClientEvent | None:
    match section:
        case ("REGISTERED", rest, _):
            word, _, username = rest.partition(" ")
            side = _SIDES.get(word.upper())
            if side is None:
                raise ProtocolError(f"The server registered {word[:32]!r}, which is neither {' nor '.join(Side)}.")
            if side is Side.SENDING:
                return Ready()
            return events.Welcome(account=AccountKind.GUEST, username=username.strip(), users=(), last_id=None)
        case ("FORWARD", sender, str(text)):
            # Bytes that are not UTF-8 become replacement characters.
            return Forwarded(sender, text.encode(errors="surrogateescape").decode(errors="replace"))
        case ("SEND" | "SENT", _, _):
            return events.Sent(0, SentStatus.SENT)
        case ("ERROR", rest, _):
            # Servers spell the texts differently; the number decides.
            number, _, text = rest.partition(" ")
            return events.Refused(_CODES.get(number, _NOT_DELIVERED), text.strip())
        case (word, _, _) if not word.isalpha():
            raise ProtocolError(f"The server sent an invalid answer (wire format register): {word[:64]!r}.")
        case _:
            return None


class Register(WireProtocol):
    """REGISTER, SEND, FORWARD.

    ``delivered`` confirms a delivery and is one of DELIVERED_WORDS. ``length`` is the unit of a Content-length, one of
    LENGTH_UNITS. If ``forward_max_bytes`` is not 0, :meth:`split` splits messages that are longer or have line breaks.
    """

    name = "register"
    opening = "REGISTER TOSEND alice\n\n"

    def __init__(
        self, delivered: str = DELIVERED_WORDS[0], length: str = LENGTH_UNITS[0], forward_max_bytes: int = 0
    ) -> None:
        self.delivered = delivered
        self.counts_characters = length == "characters"
        self._forward_max_bytes = forward_max_bytes

    def sniff(self, first: bytes) -> Sniff:
        """Recognize a request's first word and a space."""
        return sniff_text(first, _OPENINGS)

    def server(self) -> RegisterServer:
        return RegisterServer(self)

    def split(self, message: Message) -> tuple[Message, ...]:
        """Split a message into parts whose FORWARD is within the limit; a message within the limit is the only part."""
        if not self._forward_max_bytes:
            return (message,)
        # The longest header: a length in characters is never more than the length in bytes.
        header = f"FORWARD {message.sender}\nContent-length: {self._forward_max_bytes}\n\n"
        body_max_bytes = self._forward_max_bytes - len(header)
        lines = _LINE_END.split(message.text)
        if len(lines) == 1 and len(message.text.encode()) <= body_max_bytes:
            return (message,)
        # At least one part: no message consists of white space only.
        return tuple(replace(message, text=part) for line in lines for part in _cut(line, body_max_bytes))

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode messages as FORWARD, and errors as for a connection that is not registered."""
        return b"".join(map(self._encode, expand_batches(items)))

    def _encode(self, event: Event) -> bytes:
        match event:
            case events.PublicMessage() | events.DirectMessage():
                return self.forward(event)
            case events.Refused(ErrorCode.TLS_REQUIRED):
                return _TLS_REQUIRED
            case events.Refused(code):
                return _MALFORMED_USERNAME if code is ErrorCode.BAD_USERNAME else _NOT_REGISTERED
            case _:
                return b""

    def forward(self, message: Message) -> bytes:
        """Encode a message as FORWARD."""
        return self.section(f"FORWARD {message.sender}", message.text)

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> RegisterClient:  # noqa: ARG002
        return RegisterClient(self)

    def section(self, first: str, text: str) -> bytes:
        """Encode a header with this first line, and a body."""
        body = text.encode()
        length = len(text) if self.counts_characters else len(body)
        return b"%b\nContent-length: %d\n\n%b" % (first.encode(), length, body)


def _cut(line: str, max_bytes: int) -> Iterator[str]:
    """Split a line into pieces of at most ``max_bytes`` in UTF-8, at spaces if possible and never inside a character.

    The space at a split is dropped, and so are pieces of white space only.
    """
    while line:
        piece = line.encode()[:max_bytes].decode(errors="ignore")  # drops an incomplete character at the end
        if len(piece) < len(line):
            words = line[: len(piece) + 1].rpartition(" ")[0]
            piece = words if words.strip() else piece
        line = line[len(piece) :].removeprefix(" ") if len(piece) < len(line) else ""
        if piece.strip():
            yield piece
