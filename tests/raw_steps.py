"""Requests as bytes and back, without the state of a connection: frames and datagram as single steps, register as if
each section came in the state that allows it, websocket after the handshake."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from chatprotocol.requests import Acknowledge, GuestLogin, Leave, Login, Ping, Request, Side
from chatprotocol.wire import Datagram, Decoder, Frames, Register, ServerProtocol, WebSocket, WireProtocol
from chatprotocol.wire.base import ClientEvent
from chatprotocol.wire.datagram import DatagramServer, encode_step
from chatprotocol.wire.frames import FramesServer
from chatprotocol.wire.readers import Section, frame
from chatprotocol.wire.register import RegisterServer
from chatprotocol.wire.steps import COMMAND, DATA, ServerSteps

_LOGIN = Login("alice")


class Command(Struct, frozen=True):
    """A step: C and a text."""

    text: str


class Data(Struct, frozen=True):
    """A step: D and a text."""

    text: str


class CommandBatch(Struct, frozen=True):
    """A keyword, several times, each followed by a text."""

    text: str
    data: Sequence[str]


class RawSteps(ServerSteps):
    """Returns each step as it is, in any order."""

    def take(self, kind: int, text: str) -> Any:
        return (Data if kind == DATA else Command)(text)

    def read_public(self, keyword: str, texts: Sequence[str]) -> Any:
        yield CommandBatch(keyword, texts)


class RawRegister(RegisterServer):
    """Returns each request as it is, in any order."""

    __slots__ = ()

    def read(self, section: Section) -> Request:
        self.side = None if section.word == "REGISTER" else Side.SENDING
        return super().read(section)


def new_server(protocol: WireProtocol) -> ServerProtocol:
    """The server's half of a connection, which does not depend on earlier requests."""
    if isinstance(protocol, Register):
        return RawRegister(protocol)
    if isinstance(protocol, Frames):
        return FramesServer(RawSteps())
    if isinstance(protocol, Datagram):
        return DatagramServer(RawSteps())
    server = protocol.server()
    if isinstance(protocol, WebSocket):
        receive(server, first_bytes(protocol))
        server.data_to_send()
    return server


def new_reader(protocol: WireProtocol) -> Decoder[ClientEvent]:
    """The client's reader of a connection, which does not depend on earlier events."""
    client = protocol.client()
    reader = client.event_decoder()
    if isinstance(protocol, WebSocket):
        server = protocol.server()
        receive(server, client.connect(_LOGIN, ()).send[0].data)
        reader.decode(server.data_to_send())
    return reader


def first_bytes(protocol: WireProtocol, login: Request | Command | Data = _LOGIN) -> bytes:
    """The first bytes of a connection: the login, or the handshake before it."""
    if isinstance(protocol, WebSocket):
        return protocol.client().connect(_LOGIN, ()).send[0].data
    return encode_request(protocol, login)


def receive(server: ServerProtocol, *parts: bytes) -> list[Any]:
    """All requests of the parts."""
    return [request for part in parts for request in server.receive(part)]


def encode_request(protocol: WireProtocol, request: Request | Command | Data) -> bytes:
    """The bytes of a request. Raises TypeError for a request of another protocol."""
    match request:
        case Command(text) | Data(text) if isinstance(protocol, Frames | Datagram):
            kind = COMMAND if isinstance(request, Command) else DATA
            return (frame if isinstance(protocol, Frames) else encode_step)(kind, text.encode())
        case Ping() if isinstance(protocol, Datagram):
            return frame(COMMAND, b"PING")
        case GuestLogin(side, name) if isinstance(protocol, Register):
            return f"REGISTER {side} {name}\n\n".encode()
        case Acknowledge(sender) if isinstance(protocol, Register):
            return b"ERROR 103 Header Incomplete\n\n" if sender is None else f"RECEIVED {sender}\n\n".encode()
        case Leave() if isinstance(protocol, Register):
            raise TypeError(request)
        case _ if isinstance(protocol, Frames | Datagram):
            raise TypeError(request)
    ((data, _),) = protocol.client().request(request).send  # type: ignore[arg-type]
    return data
