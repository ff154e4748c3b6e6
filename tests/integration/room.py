"""A server in this process, and peers that speak each protocol with their own bytes."""

from __future__ import annotations

import io
import json
import math
import re
import select
import socket
import sqlite3
import struct
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from chatprotocol.udp.packet import ACK, NO_SESSION, READ_BYTES, Datagram, pack, unpack
from chatprotocol.udp.session import UdpClientSession
from chatprotocol.wire.datagram import in_pieces
from chatprotocol.wire.readers import frame
from chatserver.app import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    from chatprotocol.udp.arq import Frame
    from chatserver.config import Config

DEADLINE_SECONDS = 40.0
_POLL_SECONDS = 0.01


class _Peer:
    """One TCP connection. Every read has a deadline."""

    def __init__(self, port: int, address: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        """``address`` is the peer's own address, to look like another host. With ``tls`` it is encrypted."""
        source = None if address is None else (address, 0)
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS, source)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _read_until(self, has_come: Callable[[], bool]) -> bool:
        """Read into the buffer until the condition holds. Returns False at the end of the connection."""
        while not has_come():
            part = self.socket.recv(65_536)
            if not part:
                return False
            self._buffer += part
        return True

    def is_closed(self) -> bool:
        """Wait until the server closes. Input is skipped."""
        with suppress(ConnectionResetError):
            while self.socket.recv(65_536):
                pass
        return True

    def close(self) -> None:
        self.socket.close()


class Peer(_Peer):
    """A peer of json."""

    def ask(self, **members: Any) -> None:
        self.send(json.dumps(members).encode() + b"\n")

    def line(self) -> bytes:
        """The next line; empty at the end."""
        if not self._read_until(lambda: b"\n" in self._buffer):
            return self._buffer
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def next(self, *types: str) -> dict[str, Any]:
        """The next object of one of these types. Others are skipped, but not errors."""
        while line := self.line():
            answer: dict[str, Any] = json.loads(line)
            if answer["type"] in types:
                return answer
            assert answer["type"] != "error" or "error" in types, f"waiting for {types}, got {answer}"
        raise AssertionError(f"the server closed before {types}")

    def until_fence(self) -> list[dict[str, Any]]:
        """All objects before the answer to a ping that is sent now."""
        self.ask(command="ping")
        answers = []
        while (answer := json.loads(self.line()))["type"] != "pong":
            answers.append(answer)
        return answers

    def login(self, name: str, password: str = "secret", **members: Any) -> dict[str, Any]:
        self.ask(command="login", username=name, password=password, **members)
        return self.next("login")

    def say(self, text: str, **members: Any) -> dict[str, Any]:
        self.ask(command="PM", message=text, **members)
        return self.next("sent")


class FramesPeer(_Peer):
    """A peer of frames. A frame is its kind, a space and its payload: ``C READY``."""

    def command(self, text: str) -> None:
        self.send(typed_frame(b"C", text.encode()))

    def data(self, text: str) -> None:
        self.send(typed_frame(b"D", text.encode()))

    def frame(self) -> str:
        """The next frame; empty at the end."""
        if not self._read_until(lambda: len(self._buffer) >= 5):
            assert self._buffer == b"", f"the server closed inside a frame: {self._buffer!r}"
            return ""
        (size_bytes,) = struct.unpack(">I", self._buffer[1:5])
        assert self._read_until(lambda: len(self._buffer) >= 5 + size_bytes), "the server closed inside a frame"
        kind, payload = self._buffer[:1], self._buffer[5 : 5 + size_bytes]
        self._buffer = self._buffer[5 + size_bytes :]
        return f"{kind.decode()} {payload.decode()}"

    def next_command(self) -> str:
        """The payload of the next C frame. Messages are skipped."""
        while text := self.frame():
            if text.startswith("C "):
                return text[2:]
        raise AssertionError("the server closed before a command")

    def next_message(self) -> list[str]:
        """The next frame, which must be a message: the words of its header, and its text."""
        text = self.frame()
        assert text.startswith("D "), f"waiting for a message, got {text!r}"
        header, _, body = text[2:].partition("\n")
        return [*header.split(" "), body]

    def until_fence(self) -> list[str]:
        """All frames before the answer to a PING that is sent now."""
        self.command("PING")
        frames: list[str] = []
        while (text := self.frame()) != "C PONG":
            assert text, f"the server closed after {frames}"
            frames.append(text)
        return frames

    def rest(self) -> list[str]:
        """All frames up to the end."""
        return list(iter(self.frame, ""))

    def login(self, name: str, password: str = "secret") -> str:
        """``name`` may have options. Missed messages follow the welcome."""
        self.command(name)
        prompt = self.next_command()
        assert prompt.startswith("PASSWORD "), prompt
        self.command(password)
        welcome = self.next_command()
        assert welcome == prompt.replace("PASSWORD", "WELCOME"), welcome
        return welcome

    def say(self, text: str) -> int:
        """Returns the id."""
        self.command("PM")
        assert self.next_command() == "READY"
        self.data(text)
        return self._confirmed("SENT")

    def whisper(self, to: str, text: str, status: str = "SENT") -> int:
        """Returns the id."""
        self.command("DM")
        assert self.next_command().startswith("ONLINE ")
        self.command(to)
        self.data(text)
        return self._confirmed(status)

    def history(self, asked: str = "CH") -> list[list[str]]:
        """The words and text of each message."""
        self.command(asked)
        word, count = self.next_command().split(" ")
        assert word == "HISTORY"
        return [self.next_message() for _ in range(int(count))]

    def _confirmed(self, status: str) -> int:
        word, number = self.next_command().split(" ")
        assert word == status
        return int(number)


def typed_frame(kind: bytes, payload: bytes) -> bytes:
    """A frame of docs/wire/frames.md."""
    return kind + struct.pack(">I", len(payload)) + payload


def c(text: str) -> bytes:
    """A command frame."""
    return typed_frame(b"C", text.encode())


def d(text: str) -> bytes:
    """A data frame."""
    return typed_frame(b"D", text.encode())


def leave(peer: Peer | FramesPeer) -> None:
    """Log out. After the goodbye the user is offline."""
    if isinstance(peer, Peer):
        peer.ask(command="EX")
        assert peer.next("bye")
        assert peer.is_closed()
    else:
        peer.command("EX")
        assert peer.rest()[-1:] == ["C BYE"]


PAYLOAD_MAX = 1_200
# Silence before a peer asks if it still has a session.
_PROBE_SECONDS = 1.0


class DatagramPeer(FramesPeer):
    """A peer of datagram. Its first command opens the session.

    It has no thread: it sends, retransmits and acknowledges only while the test waits for something. Otherwise it looks
    like a peer that has vanished.
    """

    def __init__(self, port: int, address: str | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((address or "127.0.0.1", 0))
        self.socket.connect(("127.0.0.1", port))
        # Pings and probes would be answered by frames that no test expects.
        self._session = UdpClientSession(time.monotonic(), ping_seconds=math.inf, probe_seconds=math.inf)
        # True if the server's port is closed.
        self._is_refused = False
        # The unknown sessions of catch_until_fence().
        self._fences: set[int] = set()
        # Pieces of incomplete data, and frames that the test has not read.
        self._pieces = b""
        self._arrived: deque[str] = deque()

    # --- a session ---

    @property
    def session(self) -> int:
        """The session number; 0 before the session is open."""
        return self._session.arq.session

    @property
    def is_over(self) -> bool:
        """True after the server's last frame, or if the server does not exist any more."""
        return self._is_refused or self._session.is_over

    def send(self, data: bytes) -> None:
        """Send frames as in the protocol frames. Long ones are split. The first one opens the session."""
        self.put(*(piece for step in split_frames(data) for piece in in_pieces(*step)))

    def put(self, *frames: Frame) -> None:
        """Send each frame in one datagram."""
        self._send_all(self._session.write(b"".join(frame(*each) for each in frames), time.monotonic()))
        self.turn()

    def turn(self) -> None:
        """Read the datagrams that have arrived, and send the ones that are due. It never waits."""
        for datagram in self.take_all():
            answers = self._session.receive(datagram, time.monotonic())
            for kind, payload in split_frames(self._session.read()):
                self._note(kind, payload)
            self._send_all(answers)
        self._send_all(self._session.datagrams_to_send(time.monotonic()))

    def look_at(self) -> float:
        """The time of the next turn, if no datagram arrives before."""
        return min(self._session.next_check_at, time.monotonic() + DEADLINE_SECONDS)

    def arrived(self) -> list[str]:
        """All frames that have arrived and were not read."""
        frames = list(self._arrived)
        self._arrived.clear()
        return frames

    def frame(self) -> str:
        """The next frame; empty after the end of the session."""
        patience_ends = time.monotonic() + DEADLINE_SECONDS
        probe_at = time.monotonic() + _PROBE_SECONDS
        while True:
            self.turn()
            if self._arrived:
                return self._arrived.popleft()
            if self.is_over:
                return ""
            now = time.monotonic()
            if now > patience_ends:
                raise TimeoutError
            if self.session and now > probe_at:
                self._probe()
                probe_at = now + _PROBE_SECONDS
            self._wait(min(self.look_at(), probe_at, patience_ends))

    def is_closed(self) -> bool:
        """Wait for the end of the session. Input is skipped."""
        return self.rest() is not None

    # --- single datagrams, without acknowledgements and retransmissions ---

    def throw(self, kind: bytes, session: int, sequence: int, payload: bytes = b"") -> None:
        self.throw_bytes(pack(Datagram(kind[0], session, sequence, payload)))

    def throw_bytes(self, data: bytes) -> None:
        with suppress(ConnectionRefusedError):  # the error of an earlier one
            self.socket.send(data)

    def catch(self) -> Datagram:
        """The next datagram."""
        patience_ends = time.monotonic() + DEADLINE_SECONDS
        while True:
            for datagram in self.take_all(1):
                return datagram
            if time.monotonic() > patience_ends:
                raise TimeoutError
            self._wait(patience_ends)

    def catch_until_fence(self) -> list[Datagram]:
        """All datagrams before the answer to one of an unknown session that is sent now.

        One thread of the server reads the socket and sends these answers. A busy machine may lose a datagram, so it is
        sent repeatedly.
        """
        fence = (1 << 63) + time.monotonic_ns()
        self._fences.add(fence)
        caught: list[Datagram] = []
        patience_ends = time.monotonic() + DEADLINE_SECONDS
        while (now := time.monotonic()) < patience_ends:
            self.throw(b"C", fence, 1, b" " * len("ERROR no_session"))
            while time.monotonic() < now + _PROBE_SECONDS:
                for datagram in self.take_all(1):
                    if datagram.session == fence:
                        return caught
                    if datagram.session not in self._fences:  # a late answer to an earlier one
                        caught.append(datagram)
                self._wait(now + _PROBE_SECONDS)
        raise TimeoutError

    def acknowledge(self) -> None:
        """Acknowledge the datagrams that have arrived."""
        for datagram in self.take_all():
            if datagram.kind != ACK and datagram.sequence:
                self.throw(b"A", datagram.session, datagram.sequence)

    def cookie_for(self, text: bytes) -> bytes:
        """The cookie that the server gives for this first command.

        Answers to earlier commands are skipped: those that are not acknowledged come again.
        """
        self.throw(b"C", NO_SESSION, 0, text.ljust(len("COOKIE 0123456789abcdef")))
        while (answer := self.catch()).session != NO_SESSION:
            pass
        assert (answer.kind, answer.sequence, answer.payload[:7]) == (ord("C"), 0, b"COOKIE ")
        return answer.payload[7:]

    def take_all(self, most: int = 1_000) -> list[Datagram]:
        """The datagrams that have arrived."""
        found: list[Datagram] = []
        with suppress(BlockingIOError):
            while len(found) < most:
                try:
                    datagram = unpack(self.socket.recv(READ_BYTES))
                except ConnectionRefusedError:
                    self._is_refused = True
                    break
                assert datagram is not None, "the server sent something that is no datagram"
                found.append(datagram)
        return found

    def _note(self, kind: int, payload: bytes) -> None:
        if kind == ord("d"):
            self._pieces += payload
            return
        assert not self._pieces or kind == ord("D"), "the last piece is missing"
        text, self._pieces = (self._pieces + payload).decode(), b""
        self._arrived.append(f"{chr(kind)} {text}")

    def _send_all(self, datagrams: Iterable[bytes]) -> None:
        for each in datagrams:
            try:
                self.socket.send(each)
            except ConnectionRefusedError:
                self._is_refused = True
            except OSError:  # equal to a lost datagram
                pass

    def _probe(self) -> None:
        """Ask if the session exists. The sequence number is too high for anything else."""
        self.throw(b"C", self.session, 1 << 31, b"PING".ljust(len("ERROR no_session")))

    def _wait(self, until: float) -> None:
        select.select([self.socket], [], [], max(0.0, until - time.monotonic()))


def split_frames(data: bytes) -> Iterator[Frame]:
    """Kind and payload of each frame."""
    while data:
        (size_bytes,) = struct.unpack(">I", data[1:5])
        yield data[0], data[5 : 5 + size_bytes]
        data = data[5 + size_bytes :]


class RegisterPeer(_Peer):
    """One connection of register."""

    def register(self, side: str, name: str) -> bytes:
        """Returns the answer."""
        self.send(f"REGISTER {side} {name}\n\n".encode())
        return self.section()

    def section(self) -> bytes:
        """The next header, with its body; empty at the end."""
        if not self._read_until(lambda: b"\n\n" in self._buffer):
            assert self._buffer == b"", f"the server closed inside a section: {self._buffer!r}"
            return b""
        size_bytes = self._buffer.index(b"\n\n") + 2
        length = re.search(rb"\nContent-length: ([0-9]+)\n\n", self._buffer[:size_bytes])
        if length is not None:
            size_bytes += int(length[1])
            assert self._read_until(lambda: len(self._buffer) >= size_bytes), "the server closed inside a section"
        section, self._buffer = self._buffer[:size_bytes], self._buffer[size_bytes:]
        return section

    def piece(self) -> bytes:
        """The result of one read: simple clients take it for one answer."""
        assert self._buffer == b""
        return self.socket.recv(1_024)

    def until_fence(self) -> bytes:
        """All input before the answer to a second registration, which is always an error."""
        self.send(b"REGISTER TOSEND fence\n\n")
        before = b""
        while (section := self.section()) != MALFORMED:
            assert section, f"the server closed after {before!r}"
            before += section
        return before

    def rest(self) -> bytes:
        """All input up to the end."""
        return b"".join(iter(self.section, b""))


class Guest:
    """A user of register, with its two connections."""

    def __init__(self, port: int, name: str, address: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.sending, self.receiving = (RegisterPeer(port, address, tls) for _ in range(2))

    def register(self) -> None:
        for side, peer in (("TOSEND", self.sending), ("TORECV", self.receiving)):
            answer = peer.register(side, self.name)
            assert answer == f"REGISTERED {side} {self.name}\n\n".encode(), answer

    def send(self, to: str, text: str) -> None:
        """Send without waiting for the answer."""
        self.sending.send(message_to(to, text))

    def say(self, to: str, text: str) -> bytes:
        """Returns the answer."""
        self.send(to, text)
        return self.sending.section()

    def forwarded(self) -> tuple[str, str]:
        """Sender and text of the next message, without an acknowledgement."""
        section = self.receiving.section()
        header, _, body = section.partition(b"\n\n")
        found = re.fullmatch(rb"FORWARD (\w+)\nContent-length: [0-9]+", header)
        assert found is not None, f"waiting for a message, got {section!r}"
        return found[1].decode(), body.decode()

    def confirm(self, sender: str) -> None:
        self.receiving.send(f"RECEIVED {sender}\n\n".encode())

    def take(self) -> tuple[str, str]:
        """Sender and text of the next message, which is acknowledged."""
        sender, text = self.forwarded()
        self.confirm(sender)
        return sender, text

    def is_over(self) -> bool:
        """Wait until the server closes both. Input is skipped."""
        return self.sending.is_closed() and self.receiving.is_closed()

    def close(self) -> None:
        self.sending.close()
        self.receiving.close()


# The answers of docs/wire/register.md.
MALFORMED = b"ERROR 100 Malformed username\n\n"
NOT_REGISTERED = b"ERROR 101 No user registered\n\n"
NOT_SENT = b"ERROR 102 Unable to send\n\n"
INCOMPLETE = b"ERROR 103 Header incomplete\n\n"


def message_to(to: str, text: str) -> bytes:
    """A message of docs/wire/register.md."""
    return b"SEND %b\nContent-length: %d\n\n%b" % (to.encode(), len(text.encode()), text.encode())


def sent(to: str) -> bytes:
    """The answer to a delivered message."""
    return f"SEND {to}\n\n".encode()


AnyPeer = TypeVar("AnyPeer", bound=_Peer | Guest)


class Room:
    """A running server and its peers."""

    def __init__(self, config: Config, tls: ssl.SSLContext | None = None) -> None:
        """With ``tls`` all peers over TCP are encrypted."""
        self.config = config
        self._tls = tls
        self.has_crashed = False
        self._peers = ExitStack()
        self._datagram_peers: list[DatagramPeer] = []
        self.server = Server(config, self._note_crash)
        self.server.start()
        self.is_stopped = False

    def _note_crash(self) -> None:
        self.has_crashed = True

    def _close_later(self, peer: AnyPeer) -> AnyPeer:
        self._peers.callback(peer.close)
        return peer

    def peer(self, address: str | None = None) -> Peer:
        return self._close_later(Peer(self.server.port, address, self._tls))

    def connect(self, kind: Callable[..., AnyPeer], address: str | None = None) -> AnyPeer:
        """A peer over TCP of another class."""
        return self._close_later(kind(self.server.port, address, self._tls))

    def frames_peer(self, address: str | None = None) -> FramesPeer:
        return self._close_later(FramesPeer(self.server.port, address, self._tls))

    def datagram_peer(self, address: str | None = None) -> DatagramPeer:
        peer = DatagramPeer(self.server.port, address)
        self._datagram_peers.append(peer)
        return peer

    def register_peer(self, address: str | None = None) -> RegisterPeer:
        return self._close_later(RegisterPeer(self.server.port, address, self._tls))

    def guest(self, name: str, address: str | None = None) -> Guest:
        """Two connections, not registered."""
        return self._close_later(Guest(self.server.port, name, address, self._tls))

    def enter_guest(self, name: str, address: str | None = None) -> Guest:
        guest = self.guest(name, address)
        guest.register()
        return guest

    def enter(self, name: str, **members: Any) -> Peer:
        peer = self.peer()
        peer.login(name, **members)
        return peer

    def enter_frames(self, name: str, password: str = "secret") -> FramesPeer:
        peer = self.frames_peer()
        peer.login(name, password)
        return peer

    def enter_datagram(self, name: str, password: str = "secret") -> DatagramPeer:
        peer = self.datagram_peer()
        peer.login(name, password)
        return peer

    def wait_for_connections(self, count: int) -> None:
        """A connection ends a moment after its user has left."""
        wait_for(lambda: self.server.connections == count, f"{count} connections")

    def close_peers(self) -> None:
        """Close all peers of TCP and wait until the server has noticed: then the names of guests are free."""
        self._peers.close()
        self.wait_for_connections(0)

    def stop(self) -> bool:
        self.is_stopped = True
        return self.server.stop()

    def close(self) -> None:
        self._peers.close()
        if not self.is_stopped:
            with ThreadPoolExecutor(1) as pool:
                stopping = pool.submit(self.stop)
                while not stopping.done():  # the server waits for acknowledgements
                    for peer in self._datagram_peers:
                        peer.acknowledge()
                    time.sleep(_POLL_SECONDS)
            assert stopping.result(), "a thread of the server died"
        for peer in self._datagram_peers:
            peer.close()


def appoint(config: Config, name: str) -> None:
    """Make a user an operator of the server, which does not run."""
    with closing(sqlite3.connect(config.data / "chat.db")) as connection, connection:
        assert connection.execute("UPDATE account SET role = 'operator' WHERE name = ?", (name,)).rowcount == 1


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds."""
    patience_ends = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < patience_ends, f"in vain: {what}"
        time.sleep(_POLL_SECONDS)


class ServerLog(io.StringIO):
    """The log of a server in this process. Its threads may write an entry after the peer has got the answer."""

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.getvalue(), f"{text} in the log")


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Fail if the block takes longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds, f"{what} took {time.monotonic() - started:.1f} s"
