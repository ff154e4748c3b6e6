"""The client's half of the wire protocol websocket: the handshake, then json in text messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.frames import Opcode
from websockets.protocol import Side
from websockets.utils import accept_key, generate_key

from chatprotocol.errors import ProtocolError
from chatprotocol.wire.base import Effects, Opened, Outgoing, OwnAnswer
from chatprotocol.wire.http import HEAD_MAX_BYTES
from chatprotocol.wire.json import EVENT_LINE_MAX_BYTES, Json
from chatprotocol.wire.websocket_frames import SUBPROTOCOL, FrameReader, masked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chatprotocol import requests
    from chatprotocol.wire.base import Action, ClientEvent


class EventDecoder:
    """The client's side of a connection: the answer to the handshake, then frames."""

    def __init__(self, accept: str) -> None:
        """``accept`` is the value that proves that the server has read the handshake."""
        self._accept = accept
        self._head = b""
        self._frames: FrameReader | None = None
        self._inner = Json().client().event_decoder()

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The events of all complete messages. Raises ProtocolError for bytes that are not WebSocket."""
        if self._frames is not None:
            return self._read_frames(data)
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > HEAD_MAX_BYTES:
                raise ProtocolError("The server's answer to the handshake is too long.")
            return []
        first, *lines = self._head[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        rest = self._head[end + 4 :]
        status = first.split(" ")[1:2]
        if status != ["101"]:
            return self._read_refusal(first, headers, rest)
        if headers.get("sec-websocket-accept") != self._accept:
            raise ProtocolError("The server has not read the handshake of WebSocket.")
        self._head = b""
        self._frames = FrameReader(Side.CLIENT, EVENT_LINE_MAX_BYTES)
        return [Opened(), *(self._read_frames(rest) if rest else ())]

    def _read_refusal(self, first: str, headers: Mapping[str, str], body: bytes) -> list[ClientEvent]:
        """The error in the body of another answer."""
        if headers.get("content-type") != "application/json":
            raise ProtocolError(f"The server answered the handshake of WebSocket with {first[:80]!r}.")
        return self._inner.decode(body) if body.endswith(b"\n") else []

    def _read_frames(self, data: bytes) -> list[ClientEvent]:
        assert self._frames is not None
        found: list[ClientEvent] = []
        for frame in self._frames.read_frames(data):
            if frame.opcode is Opcode.PING:
                found.append(OwnAnswer(masked(Opcode.PONG, bytes(frame.data))))
            elif frame.opcode is Opcode.CLOSE:
                found.append(OwnAnswer(masked(Opcode.CLOSE, bytes(frame.data))))
            elif frame.opcode is not Opcode.PONG:
                found += self._inner.decode(bytes(frame.data) + b"\n" if frame.fin else bytes(frame.data))
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent an invalid frame: {self._frames.problem.reason}.")
        return found


class WebSocketClient:
    """The client's half: the handshake, then json in text messages."""

    connections = 1
    is_stepwise = False
    is_guest = False
    probe = None

    def __init__(self) -> None:
        self._inner = Json().client()
        # The same for all connections of this client: it proves that the server has read the handshake.
        self._key = generate_key()
        # Bytes to send after the handshake; None after it.
        self._waiting: tuple[Outgoing, ...] | None = None
        self._has_begun = False
        self.ping = _wrapped(self._inner.ping)

    @property
    def is_busy(self) -> bool:
        return self._inner.is_busy

    def event_decoder(self) -> EventDecoder:
        return EventDecoder(accept_key(self._key))

    def connect(
        self, login: requests.Login, unconfirmed: Sequence[requests.Say | requests.Whisper], host: str = ""
    ) -> Effects:
        """Send the handshake on a new connection, and the login after its answer."""
        effects = self._wrap(self._inner.connect(login, unconfirmed))
        if not host and self._has_begun:
            if self._waiting is None:
                return effects
            self._waiting = effects.send
            return Effects()
        self._has_begun, self._waiting = True, effects.send
        lines = [
            "GET / HTTP/1.1",
            f"Host: {host or 'localhost'}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self._key}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        ]
        return Effects((Outgoing("".join(f"{line}\r\n" for line in (*lines, "")).encode()),))

    def request(self, action: Action) -> Effects:
        return self._wrap(self._inner.request(action))

    def handle_event(self, event: ClientEvent) -> Effects:
        match event:
            case Opened():
                waiting, self._waiting = self._waiting or (), None
                return Effects(waiting)
            case OwnAnswer():
                return Effects((Outgoing(event.data),))
            case _:
                return self._wrap(self._inner.handle_event(event))

    def _wrap(self, effects: Effects) -> Effects:
        return Effects(tuple(map(_wrapped, effects.send)), effects.events)


def _wrapped(outgoing: Outgoing) -> Outgoing:
    """The line of json as a text message."""
    return Outgoing(masked(Opcode.TEXT, outgoing.data.removesuffix(b"\n")), outgoing.connection)
