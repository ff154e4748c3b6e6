"""Requests as bytes and back, without the state of a connection: frames and datagram as single steps, register as if
each section came in the state that allows it, websocket after the handshake, and irc after the login."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from chatprotocol.events import AccountKind, Entered, Welcome
from chatprotocol.requests import (
    Acknowledge,
    Enter,
    EnterLobby,
    GuestLogin,
    Handled,
    Leave,
    Login,
    Password,
    Ping,
    Request,
    Side,
)
from chatprotocol.wire import Datagram, Decoder, Frames, Irc, Register, ServerProtocol, WebSocket, WireProtocol
from chatprotocol.wire.base import ClientEvent
from chatprotocol.wire.datagram import DatagramServer, encode_step
from chatprotocol.wire.frames import FramesServer
from chatprotocol.wire.irc import IrcServer
from chatprotocol.wire.irc_client import IrcClient
from chatprotocol.wire.readers import Section, frame
from chatprotocol.wire.register import RegisterServer
from chatprotocol.wire.steps import COMMAND, DATA, ServerSteps

_LOGIN = Login("alice")
_CAPABILITIES = (
    "batch draft/chathistory draft/message-redaction draft/multiline echo-message labeled-response message-tags sasl"
    " server-time"
)


class Command(Struct, frozen=True):
    """A step: C and a text."""

    text: str


class Data(Struct, frozen=True):
    """A step: D and a text."""

    text: str


class Line(Struct, frozen=True):
    """A line of irc, without its end."""

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


class RawIrc(IrcServer):
    """Returns the requests of alice, who is in the lobby, without those that the protocol has answered."""

    __slots__ = ()

    def receive(self, data: bytes) -> Iterator[Request]:
        return (request for request in super().receive(data) if not isinstance(request, Handled))

    def log_in(self) -> None:
        lines = (f"CAP REQ :{_CAPABILITIES}", "NICK alice", "USER alice 0 * :Alice", "CAP END", "JOIN #lobby")
        for request in self.receive("".join(f"{line}\r\n" for line in lines).encode()):
            if isinstance(request, Enter):
                self.encode([Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=0)])
            elif isinstance(request, EnterLobby):
                self.encode([Entered(room="lobby", username="alice", last_id=0, members=())])
        self.data_to_send()


class IrcReader:
    """What a client shows, which is logged in."""

    def __init__(self) -> None:
        self.client = IrcClient()
        self._decoder = self.client.event_decoder()
        self.client.connect(_LOGIN, ())
        lines = (f"CAP * LS :{_CAPABILITIES}", f"CAP * ACK :{_CAPABILITIES}", "001 alice", "366 alice #lobby :end")
        self.decode("".join(f":s {line}\r\n" for line in lines).encode())

    def decode(self, data: bytes) -> list[ClientEvent]:
        events = self._decoder.decode(data)
        return [shown for event in events for shown in self.client.handle_event(event).events]


def new_server(protocol: WireProtocol) -> ServerProtocol:
    """The server's half of a connection, which does not depend on earlier requests."""
    if isinstance(protocol, Register):
        return RawRegister(protocol)
    if isinstance(protocol, Frames):
        return FramesServer(RawSteps())
    if isinstance(protocol, Datagram):
        return DatagramServer(RawSteps())
    if isinstance(protocol, Irc):
        irc = RawIrc(protocol.settings)
        irc.log_in()
        return irc
    server = protocol.server()
    if isinstance(protocol, WebSocket):
        receive(server, first_bytes(protocol))
        server.data_to_send()
    return server


def new_reader(protocol: WireProtocol) -> Decoder[ClientEvent]:
    """The client's reader of a connection, which does not depend on earlier events."""
    if isinstance(protocol, Irc):
        return IrcReader()
    client = protocol.client()
    reader = client.event_decoder()
    if isinstance(protocol, WebSocket):
        server = protocol.server()
        receive(server, client.connect(_LOGIN, ()).send[0].data)
        reader.decode(server.data_to_send())
    return reader


def first_bytes(protocol: WireProtocol, login: Request | Command | Data | Line = _LOGIN) -> bytes:
    """The first bytes of a connection: the login, or what comes before it."""
    if isinstance(protocol, WebSocket | Irc):
        return protocol.client().connect(_LOGIN, ()).send[0].data
    return encode_request(protocol, login)


def receive(server: ServerProtocol, *parts: bytes) -> list[Any]:
    """All requests of the parts."""
    return [request for part in parts for request in server.receive(part)]


def encode_request(protocol: WireProtocol, request: Request | Command | Data | Line) -> bytes:
    """The bytes of a request. Raises TypeError for a request of another protocol."""
    match request:
        case Line(text) if isinstance(protocol, Irc):
            return f"{text}\r\n".encode()
        case _ if isinstance(protocol, Irc):
            effects = IrcReader().client.request(request)  # type: ignore[arg-type]
            if isinstance(request, Password) or not effects.send:  # a part of the login, or nothing
                raise TypeError(request)
            return b"".join(each.data for each in effects.send)
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
