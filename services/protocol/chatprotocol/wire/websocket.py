"""The wire protocol websocket: json or irc in the messages of a WebSocket (RFC 6455), and files of a page before it.

Wire format: docs/wire/websocket.md. The library websockets answers the handshake, and reads frames in
websocket_frames.py. The protocols inside are in websocket_inner.py, and the client's half is in websocket_client.py.

States of the server's half:

    HEAD    The head of an HTTP request is incomplete, or has not begun. A request for a file is answered, and the
            next one may follow. A handshake leads to OPEN.
    OPEN    Frames. Each message has one object of json, or one line of irc.
    CLOSED  The last answer or the close frame is encoded. Nothing more is read, and nothing more is encoded.

The session of the connection ends it, in every state. This module asks for it by a request:

    a file after which the connection ends           Leave; the Bye that follows has no form before OPEN
    an invalid request of HTTP or an invalid frame   Unreadable, which closes. The session's Refused is the HTTP answer
                                                     of ``_problem``, or a text message. Its Bye has the close frame
    a close frame                                    Leave; the Bye is encoded with the peer's close frame, repeated

So everything that was accepted before is answered before the close frame. A ping frame is the request Ping, which costs
the peer as much as the ping of json; ``_pinged`` turns the Pong into a pong frame.

Threads. The reader calls everything except ``encode``. Another thread encodes the last events, at shutdown and if an
operator ends the connection, and then sets the state to CLOSED: one store, which the reader may overwrite with OPEN at
the end of a handshake. The send queue is finished then, and drops what follows. At worst the peer of a handshake gets
an HTTP answer after the accepting one. That is an invalid frame, and the peer ends the connection.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.server import ServerProtocol as Handshake
from websockets.typing import Subprotocol

from chatprotocol.errors import ErrorCode
from chatprotocol.events import SHUTTING_DOWN, YOU_LEFT, Bye, Pong, Refused
from chatprotocol.keywords import DEFAULT_KEYWORDS
from chatprotocol.limits import FRAGMENTS_MAX, LINE_MAX_BYTES
from chatprotocol.requests import Leave, Ping, Unreadable
from chatprotocol.wire.base import (
    LastEncoded,
    ServerProtocol,
    Sniff,
    WireProtocol,
)
from chatprotocol.wire.http import (
    HttpError,
    encode_answer,
    encode_page,
    encode_text,
    read_head,
)
from chatprotocol.wire.json import Json
from chatprotocol.wire.websocket_client import WebSocketClient
from chatprotocol.wire.websocket_frames import (
    FIN,
    IRC_TEXT,
    SILENT_LOGGER,
    MessageReader,
    close_frame,
    encode_frame,
    encode_lines,
    is_utf8,
)
from chatprotocol.wire.websocket_inner import inner_protocols, irc_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch
    from chatprotocol.requests import Request
    from chatprotocol.wire.http import Head, Page
    from chatprotocol.wire.websocket_inner import Inner

_OPENINGS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"PATCH ", b"PRI ")
# Requests for files on one connection. A page has fewer files; a flood must connect again, which has a rate.
_ANSWERS_MAX: Final = 64

# The status of an error before the handshake; 400 for all others.
_STATUSES: Final = {
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.SERVER_FULL: 503,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.BANNED: 403,
    ErrorCode.TLS_REQUIRED: 403,
    ErrorCode.NOT_LOGGED_IN: 408,
}
_VERSION_HEADERS: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
# The library's own texts quote the peer.
_HANDSHAKE_PROBLEMS: Final = {
    405: ("A handshake of WebSocket is a GET.", (("Allow", "GET"),)),
    426: ("A handshake of WebSocket has Upgrade and Connection.", _VERSION_HEADERS),
    505: ("A handshake of WebSocket is HTTP/1.1.", ()),
}
_CLOSE_CODES: Final = {YOU_LEFT: CloseCode.NORMAL_CLOSURE, SHUTTING_DOWN: CloseCode.GOING_AWAY}


class _State(Enum):
    """The state of the server's half. See the module's docstring."""

    HEAD = auto()
    OPEN = auto()
    CLOSED = auto()


# In CPython 3.11 each access of a member through its enum runs Python code, 0.1 us.
_HEAD, _OPEN, _CLOSED = _State


class WebSocketServer(ServerProtocol):
    """The server's half of one connection."""

    idle_seconds = 45.0

    def __init__(self, settings: WebSocket) -> None:
        self._settings = settings
        self._state = _HEAD
        self._head = b""
        # Requests of HTTP that were answered, and those that were answered with a file.
        self._answers = 0
        self.files_sent = 0
        # The answer to an invalid request of HTTP.
        self._problem: HttpError | None = None
        # Bytes that the session does not send.
        self._own = b""
        self._inner: Inner | None = None
        # True until the first message of a client that named no subprotocol. It may be a line of irc.
        self._is_undecided = False
        self._frames: MessageReader | None = None
        # The message in fragments that has begun, its kind, and the number of its fragments.
        self._message = bytearray()
        self._is_binary = False
        self._fragments = 0
        # The payload of the ping frame that is being answered.
        self._pinged: bytes | None = None
        # The close frame for the next Bye, after which no frame is read; None: the Bye decides.
        self._close: bytes | None = None

    def receive(self, data: bytes) -> Iterable[Request]:
        """The requests of all complete messages. In json, a list if all frames are text messages."""
        if self._state is _OPEN and self._close is None:
            return self._read_frames(data)
        return self._read_head(data) if self._state is _HEAD and self._problem is None else []

    def receive_end(self) -> list[Request]:
        if not self.is_incomplete:
            return []
        whole = "a request" if self._state is _HEAD else "a message"
        return [Unreadable(ErrorCode.BAD_REQUEST, f"The connection ended inside {whole}.")]

    def data_to_send(self) -> bytes:
        """Return the answers of HTTP, and those of the protocol inside."""
        own, self._own = self._own, b""
        return own if self._inner is None else own + self._inner.data_to_send()

    @property
    def is_incomplete(self) -> bool:
        if self._state is _HEAD:
            return bool(self._head)
        return self._state is _OPEN and self._close is None and self._frames.is_incomplete  # type: ignore[union-attr]

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as messages; a Bye with a close frame. Before the handshake, as an answer of HTTP."""
        if self._state is not _OPEN or self._inner is None:
            return self._encode_last(items) if self._state is _HEAD else b""
        if self._pinged is not None and items and type(items[0]) is Pong:
            return encode_frame(FIN | Opcode.PONG, self._pinged)
        data = self._inner.encode(items)
        if items and isinstance(last := items[-1], Bye):
            self._state = _CLOSED
            code = _CLOSE_CODES.get(last.reason, CloseCode.POLICY_VIOLATION)
            data += self._close or close_frame(code, last.reason)
        return data

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode as the protocol inside does."""
        return iter(()) if self._inner is None else self._inner.encode_long(event, messages)

    def ping(self) -> bytes:
        return encode_frame(FIN | Opcode.PING, b"")

    # --- HTTP ---

    def _read_head(self, data: bytes) -> Iterator[Request]:
        self._head += data
        try:
            head = read_head(self._head)
            if head is None:
                return
            rest, self._head = self._head[head.size_bytes :], b""
            _check_method(head)
            if "websocket" in head.words("Upgrade") or head.values("Sec-WebSocket-Key"):
                self._own += self._shake_hands(head)
                self._state = _OPEN
                self.files_sent = 0
                if rest:
                    yield from self._read_frames(rest)
            elif self._answer(head, is_last=bool(rest)):
                self._state = _CLOSED
                yield Leave()
        except HttpError as error:
            self._head = b""
            self._problem = error.with_traceback(None)  # which refers to this object
            codes = {403: ErrorCode.NOT_PERMITTED, 414: ErrorCode.TOO_LONG, 431: ErrorCode.TOO_LONG}
            yield Unreadable(codes.get(error.status, ErrorCode.BAD_REQUEST), error.reason, closes=True)

    def _answer(self, head: Head, *, is_last: bool) -> bool:
        """Answer the request for a file. True if the connection ends.

        A request that came with the one before is not answered: ``is_last``. So a connection has one answer to send.
        """
        self._answers += 1
        closes = (
            is_last
            or self._answers >= _ANSWERS_MAX
            or not self._settings.keeps_alive
            or head.version != "1.1"
            or "close" in head.words("Connection")
        )
        page = self._settings.pages.get(head.target.partition("?")[0])
        if page is None:
            omits_body = head.method == "HEAD"
            self._own += encode_text(404, "There is no such file.", closes=closes, omits_body=omits_body)
        else:
            self.files_sent += 1
            self._own += encode_page(page, head, closes=closes)
        return closes

    def _shake_hands(self, head: Head) -> bytes:
        """The answer that accepts a handshake. Raises HttpError."""
        if head.values("Sec-WebSocket-Version") != ["13"]:
            raise HttpError(426, "This server speaks version 13 of WebSocket.", _VERSION_HEADERS)
        self._check_origin(head)
        chosen = self._choose_inner(head)
        handshake = Handshake(subprotocols=None if chosen is None else [Subprotocol(chosen)], logger=SILENT_LOGGER)
        response = handshake.accept(HandshakeRequest(head.target, head.headers, head.method, f"HTTP/{head.version}"))
        handshake.parser.close()  # it refers to the handshake, which would stay in memory
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            other = ("A header of the handshake is missing or invalid; the key has 16 bytes in base64.", ())
            raise HttpError(response.status_code, *_HANDSHAKE_PROBLEMS.get(response.status_code, other))
        inners = self._settings.inners
        self._inner = inners[chosen or next(iter(inners))]()
        self._is_undecided = chosen is None
        self._frames = MessageReader(LINE_MAX_BYTES, is_binary=self._inner.is_binary)
        return response.serialize()

    def _choose_inner(self, head: Head) -> str | None:
        """The first known subprotocol; None if the client names none. Raises HttpError."""
        inners = self._settings.inners
        offered = [name.strip() for value in head.values("Sec-WebSocket-Protocol") for name in value.split(",")]
        known = next((name for name in offered if name in inners), None)
        if offered and known is None:
            raise HttpError(400, f"The subprotocol of this server is {' or '.join(inners)}.")
        return known

    def _check_origin(self, head: Head) -> None:
        """Raise HttpError for a page of another origin, which would act for the user who looks at it.

        Programs send no Origin. The scheme is not compared: a proxy may have ended TLS.
        """
        origins = [origin.lower() for origin in head.values("Origin")]
        if not origins or "*" in self._settings.origins:
            return
        is_same = origins[0].partition("://")[2] == head.values("Host")[0].lower() if head.values("Host") else False
        if len(origins) > 1 or not (is_same or origins[0] in self._settings.origins):
            raise HttpError(403, "Pages of this origin may not connect to this server.")

    def _encode_last(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode the end of a connection before the handshake as an answer of HTTP, if a request waits for one."""
        last = next((each for each in items if isinstance(each, (Refused, Bye))), None)
        if last is None:
            return b""
        self._state = _CLOSED
        if self._problem is not None:
            return encode_text(self._problem.status, self._problem.reason, self._problem.headers, closes=True)
        if self._answers and not self._head:
            return b""
        if isinstance(last, Bye):
            last = Refused(ErrorCode.SHUTTING_DOWN, f"{last.reason[:1].upper()}{last.reason[1:]}.")
        return self._settings.refusal(last)

    # --- frames ---

    def _read_frames(self, data: bytes) -> Iterable[Request]:
        assert self._frames is not None
        assert self._inner is not None
        texts, frames = self._frames.read(data)
        # Together the texts are UTF-8 if each of them is, because a line end is part of no other character.
        if frames or self._frames.problem is not None or not is_utf8(b"\n".join(texts)):
            return self._read_each(texts, frames)
        if self._is_undecided and texts:
            self._decide(texts[0])
        return self._inner.receive_texts(texts)

    def _decide(self, text: bytes) -> None:
        """Choose irc if the first message of a client without a subprotocol, such as gamja, is a line of it."""
        self._is_undecided = False
        if self._settings.is_irc(text):
            self._inner = self._settings.inners[IRC_TEXT]()

    def _read_each(self, texts: Iterable[bytes], frames: Iterable[Frame]) -> Iterator[Request]:
        """Yield the requests of usual messages, and of frames that are not: fragments, control frames, invalid ones."""
        assert self._frames is not None
        assert self._inner is not None
        usual = Opcode.BINARY if self._inner.is_binary else Opcode.TEXT
        for frame in (*(Frame(usual, text) for text in texts), *frames):
            if frame.opcode is Opcode.PING:
                self._pinged = bytes(frame.data)
                yield Ping()
                self._pinged = None
            elif frame.opcode is Opcode.CLOSE:
                self._close = encode_frame(FIN | Opcode.CLOSE, bytes(frame.data))
                yield Leave()
            elif frame.opcode is not Opcode.PONG:
                problem = self._add(frame)
                if problem is not None:
                    yield self._fail(problem)
                    return
                if frame.fin:
                    text, self._message, self._fragments = bytes(self._message), bytearray(), 0
                    if self._is_undecided:
                        self._decide(text)
                    yield from self._inner.receive_texts([text])
        if self._frames.problem is not None:
            yield self._fail(self._frames.problem)

    def _add(self, frame: Frame) -> Close | None:
        """Add a fragment to the message; returns the close frame if it is invalid."""
        if frame.opcode is not Opcode.CONT:
            self._is_binary = frame.opcode is Opcode.BINARY
        if self._is_binary and not self._inner.takes_binary:  # type: ignore[union-attr]
            return Close(CloseCode.UNSUPPORTED_DATA, "There are text messages only.")
        self._message += frame.data
        self._fragments += 1
        if self._fragments > FRAGMENTS_MAX:
            return Close(CloseCode.POLICY_VIOLATION, f"A message has {FRAGMENTS_MAX:,} fragments at most.")
        if frame.fin and not self._is_binary and not is_utf8(self._message):
            return Close(CloseCode.INVALID_DATA, "A text message is not UTF-8.")
        return None

    def _fail(self, close: Close) -> Unreadable:
        """End the connection with this close frame, after an error that says the same."""
        self._message.clear()
        code, reason = ErrorCode.BAD_REQUEST, close.reason
        if close.code == CloseCode.MESSAGE_TOO_BIG:
            code, reason = ErrorCode.TOO_LONG, f"A message has {LINE_MAX_BYTES:,} bytes at most."
        elif close.code == CloseCode.PROTOCOL_ERROR:
            reason = f"A frame is not WebSocket: {reason}."
        elif close.code == CloseCode.INVALID_DATA:
            code = ErrorCode.BAD_JSON
        self._close = close_frame(CloseCode(close.code), reason)
        return Unreadable(code, reason, closes=True)


def _check_method(head: Head) -> None:
    """Raise HttpError for a method other than GET and HEAD, and for a request with a body."""
    if head.method not in ("GET", "HEAD"):
        raise HttpError(405, "This server answers GET and HEAD only.", [("Allow", "GET, HEAD")])
    if head.has_body:
        raise HttpError(400, "A request to this server has no body.")


class WebSocket(WireProtocol):
    """The wire protocol websocket. ``pages`` are the files by path; ``origins`` may connect, too.

    ``irc`` is the protocol irc with its settings; without it there is only json.
    """

    name = "websocket"
    opening = "GET / HTTP/1.1"

    def __init__(
        self,
        pages: Mapping[str, Page] | None = None,
        origins: Collection[str] = (),
        *,
        keeps_alive: bool = True,
        irc: WireProtocol | None = None,
    ) -> None:
        """``keeps_alive``: a client may ask for more than one file on a connection."""
        self.pages = pages or {}
        self.origins = frozenset(origins)
        self.keeps_alive = keeps_alive
        self._irc = irc
        self._last = LastEncoded()
        # The protocols inside, by subprotocol. The first one is that of a client that names none, unless it is of irc.
        self.inners = inner_protocols(irc)

    def is_irc(self, text: bytes) -> bool:
        """True if a message is a line with which clients of irc begin."""
        return self._irc is not None and self._irc.sniff(text) is Sniff.YES

    def sniff(self, first: bytes) -> Sniff:
        """Recognize a method of HTTP and the space after it, but not those that begin like a frame."""
        if first.startswith(_OPENINGS):
            return Sniff.YES
        return Sniff.MORE if any(opening.startswith(first) for opening in _OPENINGS) else Sniff.NO

    def server(self) -> WebSocketServer:
        return WebSocketServer(self)

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        return encode_lines(Json.encode_all(items))

    def encoder(self, variant: str) -> Callable[[Sequence[Event | EventBatch]], bytes]:
        return (
            self.encode_all if self._irc is None or "/" not in variant else irc_encoder(self._irc, variant, self._last)
        )

    def refusal(self, error: Refused) -> bytes:
        """Encode an error before the handshake as an answer of HTTP, with the object of json as its body."""
        headers = []
        if error.code is ErrorCode.TLS_REQUIRED:
            error = Refused(error.code, f"{error.reason} In a browser, begin the address with https://.")
        if error.retry_seconds is not None:
            headers.append(("Retry-After", str(math.ceil(error.retry_seconds))))
        body = Json.encode_all([error])
        return encode_answer(_STATUSES.get(error.code, 400), "application/json", body, headers, closes=True)

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> WebSocketClient:  # noqa: ARG002
        return WebSocketClient()
