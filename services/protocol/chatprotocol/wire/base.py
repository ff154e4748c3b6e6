"""The interfaces of a wire protocol: its two halves, and detection by the first bytes. All of it is pure."""

import codecs
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from chatprotocol.events import ChatHistoryItem, Event, EventBatch, Refused, TaggedEvent, Welcome
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.requests import Login, Request, Say, Whisper

Decoded = TypeVar("Decoded")

# Byte order mark: some programs, such as .NET's StreamWriter, write it before every text. It is skipped.
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8


# Size of the pieces of a long answer: one waits in memory while the peer reads the one before.
PIECE_BYTES: Final = 32 * 1024


def join_pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join parts to pieces of at least PIECE_BYTES, except for the last one."""
    piece: list[bytes] = []
    size_bytes = 0
    for part in parts:
        piece.append(part)
        size_bytes += len(part)
        if size_bytes >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size_bytes = [], 0
    if piece:
        yield b"".join(piece)


class Sniff(Enum):
    """Result of the detection of one protocol by the first bytes of a connection."""

    YES = "yes"
    NO = "no"
    MORE = "more bytes are needed"


def sniff_text(first: bytes, openings: tuple[bytes, ...]) -> Sniff:
    """Detect a text protocol: a connection begins with one of ``openings``, after an optional byte order mark."""
    if BYTE_ORDER_MARK.startswith(first):
        return Sniff.MORE
    text = first.removeprefix(BYTE_ORDER_MARK)
    if text.startswith(openings):
        return Sniff.YES
    return Sniff.MORE if any(opening.startswith(text) for opening in openings) else Sniff.NO


class Decoder(Protocol[Decoded]):
    """One direction of one connection: bytes in, events out."""

    def decode(self, data: bytes) -> list[Decoded]:
        """Add a piece; returns all complete events, in order."""


class ServerProtocol(Protocol):
    """The server's half of one connection: bytes in, requests out; events in, bytes out. It holds all state.

    For the connection's reader thread, except ``encode``.

    1. ``receive`` and ``receive_end`` MUST NOT raise. Invalid input becomes an Unreadable.
    2. ``receive`` may be lazy. The caller MUST take the requests one by one, answer each one before it takes the next,
       and take all of them unless the connection ends: the meaning of the next bytes may depend on the answer.
       A list means that it does not depend on it; rule 3 then does not apply, which is faster.
    3. ``data_to_send`` MUST be asked before each request is answered, and after the last one. It returns what the
       protocol answers without the session. These bytes come before the answer to the request, and after all earlier
       answers.
    4. ``encode`` gets all events for this connection alone in the order in which they are sent, so that it sees the
       login. Events of the login come from the reader thread; for all others ``encode`` MUST NOT change the state,
       because other threads send events as well.
    """

    __slots__ = ()

    # Silence after which the connection of a logged-in user is tested with ``ping``; None: it is not.
    idle_seconds: float | None = None
    # Requests that were answered with a file, on a connection that has had no other use.
    files_sent: int = 0

    def receive(self, data: bytes) -> Iterable[Request]:
        """Add a piece; returns the requests that it completes, in order."""

    def receive_end(self) -> Iterable[Request]:
        """Handle the end of the input; returns an Unreadable if a request is incomplete."""

    def data_to_send(self) -> bytes:
        """Return the bytes that the protocol sends without the session, and forget them; by default none."""
        return b""

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events that go to this connection alone."""

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:  # noqa: ARG002
        """Encode an answer with many messages in pieces of about PIECE_BYTES.

        ``event`` has no messages: they are taken from ``messages`` one by one, so that they need not be in memory at
        the same time. Joined, the pieces are what ``encode`` returns for the event with all messages. A protocol that
        has no long answers has one piece.
        """
        yield self.encode((event,))

    @property
    def is_incomplete(self) -> bool:
        """True if a request is incomplete."""

    def ping(self) -> bytes:
        """Encode a test of the connection, which the peer answers; by default there is none."""
        return b""


# Actions and events of the client's half. No server knows them.


class OpenPublic(NamedTuple):
    """The user begins a public message. The answer is Ready."""


class OpenDirect(NamedTuple):
    """The user begins a direct message. The answer is Online, with the possible recipients."""


class Ready(Struct, frozen=True, gc=False):
    """The next step may follow: the text of a public message, or the registration of the other connection."""


class Online(Struct, frozen=True):
    """The answer to AskUsers or OpenDirect: all online users, or members of a room.

    The wire format json has Users in its place, which comes without a request as well.
    """

    users: tuple[str, ...]
    room: str | None = None


class Forwarded(Struct, frozen=True, gc=False):
    """A message in register, which has no id and no time, and does not tell direct messages from public ones."""

    sender: str
    text: str


class Opened(Struct, frozen=True, gc=False):
    """The server has accepted the handshake of the protocol: the login follows."""


class OwnAnswer(Struct, frozen=True, gc=False):
    """Bytes that the link sends at once: the answer of the protocol to a test of the connection, or to its end."""

    data: bytes


class IrcLine(Struct, frozen=True):
    """A line of a server of IRC. ``source`` has no colon; ``tags`` have unescaped values."""

    name: str
    params: tuple[str, ...]
    source: str
    tags: dict[str, str]


class PossibleGap(NamedTuple):
    """Some missed messages may not be shown."""

    # True if the protocol can request the history.
    has_history: bool = True


class DeliveryUnknown(NamedTuple):
    """It is unknown whether this unconfirmed message was stored. It is not sent again."""

    said: Say | Whisper
    has_history: bool = True


class Outcome(NamedTuple):
    """Result of a message in a protocol that confirms delivery: has_come is true if all recipients received it."""

    said: Say | Whisper
    has_come: bool


Action: TypeAlias = Request | OpenPublic | OpenDirect
ClientEvent: TypeAlias = (
    TaggedEvent | Ready | Online | Forwarded | PossibleGap | DeliveryUnknown | Outcome | Opened | OwnAnswer | IrcLine
)


class Outgoing(NamedTuple):
    """Bytes to send on one of the user's connections."""

    data: bytes
    connection: int = 0


class Effects(NamedTuple):
    """Result of an action or a server event: bytes to send, in order, and client events to show."""

    send: tuple[Outgoing, ...] = ()
    events: tuple[ClientEvent, ...] = ()


class ClientProtocol(Protocol):
    """The client's half: the state of one client, over all of its connections.

    For the owner's thread, except ``ping`` and the decoders: the receiver thread decodes what each connection brings,
    and passes the events to the owner.
    """

    @property
    def connections(self) -> int:
        """The number of connections per user."""

    @property
    def is_stepwise(self) -> bool:
        """True if the protocol runs one operation at a time."""

    @property
    def is_guest(self) -> bool:
        """True if a login needs only a name. A rejected name is then replaced by another one."""

    @property
    def is_busy(self) -> bool:
        """True if the next action has to wait for an answer."""

    @property
    def ping(self) -> Outgoing | None:
        """The bytes that test a silent server, or None if they would disturb an operation. For the receiver thread."""

    @property
    def probe(self) -> Outgoing | None:
        """A request before a login that is answered at once; None if the answer to the login begins at once."""

    def event_decoder(self) -> Decoder[ClientEvent]:
        """Return the decoder for a new connection. It raises ProtocolError for invalid input."""

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper], host: str = "") -> Effects:
        """Log in. After the login, send each unconfirmed message once.

        ``host`` is the server's name, with the port, for the first login of a new connection; empty for a further one.
        """

    def request(self, action: Action) -> Effects:
        """Translate an action of the user. Raises TypeError for an action of another protocol."""

    def handle_event(self, event: ClientEvent) -> Effects:
        """Handle a decoded event."""


def is_other_history(login: Login, welcome: Welcome) -> bool:
    """True if the history id differs from the id that the client knows. False if the server sends no id."""
    known_id, history_id = login.history_id, welcome.history_id
    return known_id is not None and history_id is not None and known_id != history_id


class LastEncoded:
    """The bytes of the last event, by what else they depend on, so that several variants share them. For any thread.

    They are kept until the next event: a batch of messages has about the size of a read.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[object, dict[Hashable, bytes]] = (None, {})

    def encode(self, event: object, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        """The result of ``encode`` for this event and key. Two threads at a time may both encode."""
        last, found = self._last
        if last is not event:
            found = {}
            self._last = event, found
        data = found.get(key)
        if data is None:
            data = found[key] = encode()
        return data


class WireProtocol(Protocol):
    """A wire protocol. It is stateless, and makes the objects that hold the state of a connection."""

    @property
    def name(self) -> str:
        """The name in settings and metrics."""

    @property
    def opening(self) -> str | None:
        """An example of first bytes, for the text that rejects unknown protocols; None if it is not used over TCP."""

    def sniff(self, first: bytes) -> Sniff:
        """Detect this protocol by the first bytes of a connection, at least one."""

    def server(self) -> ServerProtocol:
        """Return the server's half of a new connection."""

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events that are the same for every connection. Events without a form in this protocol are skipped."""

    def encoder(self, variant: str) -> Callable[[Sequence[Event | EventBatch]], bytes]:  # noqa: ARG002
        """Return ``encode_all`` for the connections that need this variant of the encoding: see requests.Enter.

        The name of a variant begins with that of the protocol, followed by a slash.
        """
        return self.encode_all

    def refusal(self, error: Refused) -> bytes:
        """Encode the error for a peer that is refused before it has a session."""
        return self.encode_all([error])

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> ClientProtocol:
        """Return the client's half. ``keywords`` is the keyword set, in protocols that have them."""
