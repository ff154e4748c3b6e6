"""The protocols inside a WebSocket: json, and irc. Each turns messages into requests, and events into frames.

In json a message has one object. In irc it has one line, without its end, as the specification "WebSocket" of IRCv3
says. Texts with line ends are accepted as several lines, and binary messages in both subprotocols of irc: there are
clients that send them. A message of the server has the kind of the subprotocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from chatprotocol.requests import ChangeEncoding, Enter
from chatprotocol.wire.json import Json, JsonServer
from chatprotocol.wire.websocket_frames import (
    IRC_BINARY,
    IRC_TEXT,
    SUBPROTOCOL,
    encode_fragments,
    encode_irc_lines,
    encode_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch
    from chatprotocol.requests import Request
    from chatprotocol.wire.base import LastEncoded, ServerProtocol, WireProtocol

_LINE_END: Final = b"\r\n"
# The name of this wire protocol begins the names of its variants.
_WEBSOCKET: Final = "websocket/"


class Inner(Protocol):
    """The server's half of a connection inside a WebSocket. For the same threads as a ServerProtocol."""

    __slots__ = ()

    # The kind of almost all messages of the peer. Other messages are read more slowly.
    is_binary: bool = False
    takes_binary: bool = False

    def receive_texts(self, texts: Sequence[bytes]) -> Iterable[Request]:
        """The requests of messages, in order. Like ``ServerProtocol.receive``."""

    def data_to_send(self) -> bytes:
        """Return what the protocol says without the session, as frames."""
        return b""

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode events for this connection alone, as frames."""

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode an answer with many messages, as frames. Like ``ServerProtocol.encode_long``."""


class JsonMessages(JsonServer):
    """json: an object in each text message."""

    __slots__ = ()

    is_binary = False
    takes_binary = False

    @staticmethod
    def encode(items: Sequence[Event | EventBatch]) -> bytes:
        return encode_lines(Json.encode_all(items))

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode as one text message, in fragments."""
        return encode_fragments(super().encode_long(event, messages))


class IrcMessages(Inner):
    """irc: a line in each message."""

    __slots__ = ("_irc", "_prefix", "is_binary")

    takes_binary = True

    def __init__(self, irc: ServerProtocol, subprotocol: str) -> None:
        self._irc = irc
        self.is_binary = subprotocol == IRC_BINARY
        self._prefix = f"{_WEBSOCKET}{subprotocol}/"

    def receive_texts(self, texts: Sequence[bytes]) -> Iterator[Request]:
        """The requests of lines. A connection's variant is that of this subprotocol."""
        for request in self._irc.receive(b"".join([text + _LINE_END for text in texts])):
            if isinstance(request, Enter | ChangeEncoding):
                _, _, flags = request.variant.partition("/")
                yield replace(request, variant=self._prefix + flags)
            else:
                yield request

    def data_to_send(self) -> bytes:
        lines = self._irc.data_to_send()
        return lines and encode_irc_lines(lines, is_binary=self.is_binary)

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        return encode_irc_lines(self._irc.encode(items), is_binary=self.is_binary)

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode each line as a message."""
        rest = b""
        for piece in self._irc.encode_long(event, messages):
            lines, end, rest = (rest + piece).rpartition(_LINE_END)
            yield encode_irc_lines(lines + end, is_binary=self.is_binary)


def inner_protocols(irc: WireProtocol | None) -> dict[str, Callable[[], Inner]]:
    """The protocols by subprotocol. The first one is that of a client that names none and sends an object."""
    found: dict[str, Callable[[], Inner]] = {SUBPROTOCOL: JsonMessages}
    if irc is not None:
        found[IRC_TEXT] = lambda: IrcMessages(irc.server(), IRC_TEXT)
        found[IRC_BINARY] = lambda: IrcMessages(irc.server(), IRC_BINARY)
    return found


def irc_encoder(irc: WireProtocol, variant: str, last: LastEncoded) -> Callable[[Sequence[Event | EventBatch]], bytes]:
    """The encoder of a variant: ``websocket/``, the subprotocol, and the flags of irc. The variants share ``last``."""
    _, subprotocol, flags = variant.split("/")
    encode_lines_of = irc.encoder(f"{irc.name}/{flags}")
    is_binary = subprotocol == IRC_BINARY

    def encode(items: Sequence[Event | EventBatch]) -> bytes:
        lines = encode_lines_of(items)
        if len(items) != 1:
            return encode_irc_lines(lines, is_binary=is_binary)
        return last.encode(items[0], (is_binary, lines), lambda: encode_irc_lines(lines, is_binary=is_binary))

    return encode
