"""The wire protocol irc: RFC 1459 and 2812 as modern clients use them, and IRCv3. Wire format: docs/wire/irc.md.

    irc_lines.py         lines, and texts that are cut to their length
    irc_capabilities.py  capabilities, and the variants of the encoding
    irc_connection.py    the state of a connection: names, labels, what is being answered
    irc_registration.py  the commands before the login
    irc_messages.py      messages, both ways
    irc_info.py          what the server says of itself
    irc_commands.py      commands about rooms and users
    irc_answers.py       answers to them
    irc_events.py        events of rooms and users
    irc_client.py        the client's half

This file puts them together. ``IrcServer.receive`` reads a line, finds the handler of its command, and yields the
handler's requests one by one; own answers leave with ``data_to_send`` before the request that follows. The session's
answer comes by ``encode``, in most cases while the handler waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, PublicBatch, SentBatch
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import IRC_LINE_MAX_BYTES, IRC_TAGS_MAX_BYTES
from chatprotocol.requests import Unreadable
from chatprotocol.rules import room_key
from chatprotocol.wire import irc_answers, irc_commands, irc_events, irc_info, irc_messages, irc_registration
from chatprotocol.wire.base import LastEncoded, ServerProtocol, Sniff, WireProtocol, join_pieces, sniff_text
from chatprotocol.wire.irc_capabilities import Encoding, letters_for
from chatprotocol.wire.irc_client import IrcClient
from chatprotocol.wire.irc_connection import IrcConnection, IrcSettings
from chatprotocol.wire.irc_lines import Command, LineError, encode_lines, format_line, parse_line
from chatprotocol.wire.readers import LineBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch, Refused
    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_connection import Handler

# Silence after which the server sends a PING.
IDLE_SECONDS: Final = 120.0
# A line with its tags.
_BUFFER_MAX_BYTES: Final = IRC_TAGS_MAX_BYTES + IRC_LINE_MAX_BYTES
_OPENINGS: Final = (b"CAP ", b"NICK ", b"PASS ", b"USER ", b"PING ", b"QUIT ", b"AUTHENTICATE ")
_BEFORE_LOGIN: Final = irc_registration.COMMANDS
_COMMANDS: Final[Mapping[str, Handler]] = {
    **irc_registration.COMMANDS,
    **irc_info.COMMANDS,
    **irc_messages.COMMANDS,
    **irc_commands.COMMANDS,
}
_LOGINS: Final = (requests.Authenticate, requests.Enter, requests.Rename)


# --- what connections share ---


def _shared_lines(encoding: Encoding, event: Event | EventBatch) -> list[str]:
    """The lines of an event that are the same for all connections of a variant; none if it has no form there."""
    if isinstance(event, PublicBatch):
        return irc_messages.batch_lines(encoding, event)
    if isinstance(event, events.PublicMessage | events.DirectMessage):
        return irc_messages.message_lines(encoding, event)
    if isinstance(event, events.Relayed):
        return irc_messages.relayed_lines(encoding, event)
    if isinstance(event, events.Placed):
        return irc_events.placed_lines(encoding, event.place, _shared_lines(encoding, event.event))
    return irc_events.shared_lines(event, encoding)


def _encode_shared(encoding: Encoding, items: Sequence[Event | EventBatch]) -> bytes:
    return encode_lines([line for event in items for line in _shared_lines(encoding, event)])


# --- one connection ---


class IrcServer(ServerProtocol):
    """The server's half of one connection."""

    __slots__ = ("_buffer", "_connection")

    idle_seconds = IDLE_SECONDS

    def __init__(self, settings: IrcSettings) -> None:
        self._buffer = LineBuffer(_BUFFER_MAX_BYTES)
        self._connection = IrcConnection(settings)

    def receive(self, data: bytes) -> Iterator[Request]:
        """The requests of all complete lines."""
        block = self._buffer.split(data)
        is_too_long = self._buffer.drop_overflow()
        texts = irc_messages.read_plain_texts(self._connection, block)
        if texts:
            yield from irc_messages.say_all(self._connection, texts)
            block = b""
        for line in block.split(b"\n"):
            if len(line) > _BUFFER_MAX_BYTES:  # in pieces, the buffer would have dropped it
                yield from self._refuse_line(LineError(is_long=True))
            elif line and line != b"\r":
                yield from self.receive_line(line.removesuffix(b"\r"))
        if is_too_long:
            yield from self._refuse_line(LineError(is_long=True))

    def receive_line(self, line: bytes) -> Iterator[Request]:
        """The requests of a line without its end, for a protocol that has messages."""
        try:
            command = parse_line(line)
        except LineError as error:
            yield from self._refuse_line(error)
            return
        if command is None:  # to read it has cost as much as a command
            yield requests.Handled()
        else:
            yield from self._connection.run(command, self._handler(command.name))

    def _handler(self, name: str) -> Handler:
        if not self._connection.is_registered:
            return _BEFORE_LOGIN.get(name, _refuse_unregistered)
        return _COMMANDS.get(name, _refuse_unknown)

    def _refuse_line(self, error: LineError) -> Iterator[Request]:
        if error.is_long:
            limits = f"{IRC_LINE_MAX_BYTES} bytes, and {IRC_TAGS_MAX_BYTES:,} bytes of tags,"
            refused = Unreadable(ErrorCode.TOO_LONG, f"A line has {limits} at most; this one was dropped.")
        else:
            refused = Unreadable(ErrorCode.BAD_REQUEST, "The line is not UTF-8; it was dropped.")
        yield from self._connection.run(error.command, lambda *_: iter((refused,)))

    def receive_end(self) -> list[Request]:
        if not self.is_incomplete:
            return []
        return [Unreadable(ErrorCode.BAD_REQUEST, "The connection ended inside a line.")]

    @property
    def is_incomplete(self) -> bool:
        return bool(self._buffer.tail)

    def data_to_send(self) -> bytes:
        return encode_lines(self._connection.take_out())

    def ping(self) -> bytes:
        return encode_lines([format_line("", "PING", self._connection.settings.name)])

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events for this connection. A message after its confirmation is the echo."""
        connection = self._connection
        lines: list[str] = []
        position = 0
        while position < len(items):
            event = items[position]
            following = items[position + 1] if position + 1 < len(items) else None
            position += 1
            match event:
                case SentBatch() | events.Sent():
                    is_echoed = connection.echoes and _is_echo(event, following)
                    position += is_echoed
                    lines += _confirm(connection, event, following if is_echoed else None)
                case events.Refused() if connection.sending:
                    lines += irc_messages.refuse(connection, event)
                case events.Welcome():
                    counts = following if isinstance(following, events.Counts) else None
                    position += counts is not None
                    is_first = not connection.is_registered
                    _enter(connection, event)
                    if is_first:
                        lines += connection.answer_lines(irc_info.welcome_lines(connection, event, counts))
                    elif "account-notify" in connection.enabled:
                        lines.append(format_line(connection.prefix, "ACCOUNT", connection.account))
                case _:
                    found = self._own_lines(event)
                    lines += connection.answer_lines(found) if connection.is_answer(event) else found
        return encode_lines(lines)

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode an answer with messages; the lines of a history are a batch, if the client knows batches."""
        connection = self._connection
        if not isinstance(event, events.ChatHistory):
            return
        lines = irc_messages.history_lines(connection, messages)
        first = next(lines, None)
        if first is not None:
            yield encode_lines(connection.answer_lines([first]))
        yield from join_pieces(encode_lines([line]) for line in lines)

    def _own_lines(self, event: Event | EventBatch) -> list[str]:
        connection = self._connection
        match event:
            case events.Refused():
                connection.was_refused = True
                return _refusal_lines(connection, event)
            case events.Authenticated(username):
                connection.account = username
                return []
            case events.Counts() if connection.command.name != "LIST":
                return irc_info.counts_lines(connection, event)
            case events.Pong():
                return [irc_registration.pong(connection)]
            case events.Bye(reason):
                text = connection.closing or reason
                return [format_line("", "ERROR", f"Closing Link: {connection.target} ({text})")]
            case events.DirectMessage(sender=sender) if sender == connection.nick != event.recipient:
                # From another connection of the user: without an echo, a client would show it as another's.
                return irc_messages.message_lines(connection.encoding, event) if connection.echoes else []
            case events.PublicMessage() | events.DirectMessage() | PublicBatch() | events.Relayed():
                return _shared_lines(connection.encoding, event)
            case events.Placed(inner, place):
                return irc_events.placed_lines(connection.encoding, place, self._own_lines(inner))
            case events.ChatHistory():
                return list(irc_messages.history_lines(connection, event.messages))
            case _:
                _note(connection, event)
                return irc_answers.answer_lines(event, connection) or irc_events.own_lines(event, connection)


def _note(connection: IrcConnection, event: object) -> None:
    """Note what an event of the user itself changes. For any thread: each change is one operation."""
    match event:
        case events.Entered(room=room):
            connection.rooms.add(room_key(room))
        case events.Parted(room=room):
            connection.rooms.discard(room_key(room))
        case events.Renamed(username, new_username) if username == connection.nick:
            connection.nick = new_username


def _is_echo(sent: SentBatch | events.Sent, following: object) -> bool:
    """True if this is the message that was confirmed."""
    return isinstance(following, PublicBatch | events.PublicMessage | events.DirectMessage) and following.id == sent.id


def _confirm(connection: IrcConnection, sent: SentBatch | events.Sent, echo: Any) -> list[str]:
    if isinstance(sent, SentBatch) and not isinstance(echo, events.PublicMessage):
        return irc_messages.confirm_batch(connection, len(sent.nonces), echo)
    messages = () if echo is None else tuple(echo) if isinstance(echo, PublicBatch) else (echo,)
    return irc_messages.confirm(connection, messages)


def _enter(connection: IrcConnection, welcome: events.Welcome) -> None:
    """Note the login."""
    connection.nick = welcome.username
    connection.is_guest = welcome.account is AccountKind.GUEST
    connection.account = "" if connection.is_guest else welcome.username
    connection.is_operator = welcome.operator
    connection.is_registered = True
    connection.password = None
    connection.seen_id = welcome.seen_id


def _refusal_lines(connection: IrcConnection, error: Refused) -> list[str]:
    """The lines for a request that was refused, or for an error that answers nothing."""
    asked, command = connection.asked, connection.command
    if isinstance(asked, Unreadable):
        if error.code is ErrorCode.TOO_LONG:
            return [connection.numeric("417", "Input line was too long")]
        words = (command.name or "*", "INVALID_UTF8", "Message rejected, this server accepts UTF-8 only")
        return [format_line(connection.settings.name, "FAIL", *words)]
    if asked is None:
        return [format_line(connection.settings.name, "NOTICE", connection.target, error.reason)]
    if isinstance(asked, _LOGINS):
        return irc_registration.refused_login(connection, error)
    if isinstance(asked, requests.Relay):
        return irc_messages.refused_relay(connection, asked, error)
    return irc_answers.answer_lines(error, connection)


def _refuse_unregistered(connection: IrcConnection, _command: Command) -> Iterator[Request]:
    connection.reply("451", "You have not registered")
    yield from ()


def _refuse_unknown(connection: IrcConnection, command: Command) -> Iterator[Request]:
    connection.reply("421", command.name, "Unknown command")
    yield from ()


class Irc(WireProtocol):
    """The wire protocol irc."""

    name = "irc"
    opening = "NICK alice"

    def __init__(self, settings: IrcSettings | None = None) -> None:
        self.settings = settings or IrcSettings()
        self._last = LastEncoded()

    def sniff(self, first: bytes) -> Sniff:
        """Recognize the first commands of clients."""
        return sniff_text(first.upper(), _OPENINGS)

    def server(self) -> IrcServer:
        return IrcServer(self.settings)

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        return _encode_shared(Encoding(self.settings.name, users=self.settings.users), items)

    def encoder(self, variant: str) -> Callable[[Sequence[Event | EventBatch]], bytes]:
        """See WireProtocol. The variants share the bytes of an event if it has the same lines in them."""
        name, letters = self.settings.name, variant.partition("/")[2]
        users = self.settings.users
        encoding = Encoding(name, letters, users)
        # The encoding that has the same lines, and its letters, by the type of the event.
        encodings: dict[type, tuple[str, Encoding]] = {}

        def encode(items: Sequence[Event | EventBatch]) -> bytes:
            if len(items) != 1:
                return _encode_shared(encoding, items)
            kind = type(items[0])
            found = encodings.get(kind)
            if found is None:
                event = items[0]
                if isinstance(event, events.Placed):  # not one kind: it depends on the event inside
                    needed = letters_for(type(event.event), letters, is_placed=True)
                    found = needed, Encoding(name, needed, users)
                else:
                    needed = letters_for(kind, letters)
                    found = encodings[kind] = needed, Encoding(name, needed, users)
            return self._last.encode(items[0], found[0], lambda: _encode_shared(found[1], items))

        return encode

    def refusal(self, error: Refused) -> bytes:
        """Encode the error, and the end of the connection."""
        name = self.settings.name
        numeric = [format_line(name, "465", "*", error.reason)] if error.code is ErrorCode.BANNED else []
        return encode_lines([*numeric, format_line("", "ERROR", f"Closing Link: {error.reason}")])

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> IrcClient:  # noqa: ARG002
        return IrcClient()
