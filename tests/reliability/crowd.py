"""Many clients of one server, driven by one thread: users of json over TCP and users of datagram."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec
from integration.room import DatagramPeer, c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Answer: TypeAlias = dict[str, Any]
# Deadline of every wait, on a busy machine.
DEADLINE_SECONDS = 30.0
_READ_BYTES = 256 * 1024
# Interval of the check for retransmissions over UDP.
_TICK_SECONDS = 0.05


class Member:
    """A client over TCP. ``seen`` has all objects in order, except changes of the user list.

    ``react``, if set, is called with each object by the crowd's thread.
    """

    def __init__(self, crowd: Crowd, name: str, connected: socket.socket) -> None:
        self.name = name
        self.seen: list[Answer] = []
        # True after the end of the connection.
        self.is_over = False
        self.react: Callable[[Member, Answer], None] | None = None
        self.socket = connected
        self._crowd = crowd
        self._unsent = bytearray()
        self._unread = b""

    def ask(self, **members: Any) -> None:
        """Send a command. For any thread."""
        self.send(msgspec.json.encode(members) + b"\n")

    def send(self, data: bytes) -> None:
        """Send without waiting. For any thread."""
        with self._crowd.changed:
            self._unsent += data
            self._crowd.note_unsent(self)

    def of(self, *types: str) -> list[Answer]:
        """The objects of these types."""
        with self._crowd.changed:
            return [answer for answer in self.seen if answer["type"] in types]

    # --- for the crowd's thread, under its lock ---

    def read(self) -> None:
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.is_over = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            answer = msgspec.json.decode(line)
            if answer["type"] != "users":
                self.seen.append(answer)
            if self.react is not None:
                self.react(self, answer)

    def write(self) -> bool:
        """Send what the socket accepts. True if nothing is left."""
        try:
            del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:  # the next read finds the end
            self._unsent.clear()
        return not self._unsent


class UdpMember:
    """A client over UDP. ``seen`` has all frames in order, and ``react``, if set, is called with each."""

    def __init__(self, crowd: Crowd, name: str, port: int) -> None:
        self.name = name
        self.seen: list[str] = []
        # True after the end of the session.
        self.is_over = False
        self.react: Callable[[str], None] | None = None
        self._crowd = crowd
        self._peer = DatagramPeer(port)
        # True after a send, which also takes from the socket what has arrived.
        self._has_sent = False
        self.socket = self._peer.socket

    def command(self, text: str) -> None:
        self.send(c(text))

    def send(self, frames: bytes) -> None:
        """For any thread."""
        with self._crowd.changed:
            self._peer.send(frames)
            self._has_sent = True

    def of(self, *beginnings: str) -> list[str]:
        """The frames with one of these beginnings."""
        return [frame for frame in self.seen if frame.startswith(beginnings)]

    # --- for the crowd's thread, under its lock ---

    def due_at(self) -> float:
        """The time of the next read, if the socket has no input before."""
        return 0.0 if self._has_sent else self._peer.look_at()

    def read(self) -> None:
        """Read what has arrived, and retransmit."""
        self._peer.turn()
        while frames := self._peer.arrived():  # a reaction may receive more
            for frame in frames:
                self.seen.append(frame)
                if self.react is not None:
                    self.react(frame)
        self._has_sent = False
        self.is_over = self._peer.is_over


class Crowd:
    """The clients and their thread. Leaving the context closes all connections and joins the thread."""

    def __init__(self) -> None:
        # Guards everything, and is notified after each input.
        self.changed = threading.Condition()
        self.members: list[Member] = []
        self.udp_members: list[UdpMember] = []
        self._selector = selectors.DefaultSelector()
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_reader.setblocking(False)
        self._wakeup_writer.setblocking(False)
        self._selector.register(self._wakeup_reader, selectors.EVENT_READ)
        self._unsent: set[Member] = set()
        self._next_tick = 0.0
        self._is_closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._is_closing = True
        self._wake()
        self._thread.join()
        self._selector.close()
        for end in (self._wakeup_reader, self._wakeup_writer):
            end.close()
        for member in (*self.members, *self.udp_members):
            member.socket.close()

    def enter(self, port: int, names: Iterable[str], **login: Any) -> list[Member]:
        """Connect and log in a client for each name. Returns after all welcomes."""
        members = [self.connect(port, name) for name in names]
        for member in members:
            member.ask(command="login", username=member.name, password="secret", **login)
        self.wait_until(lambda: all(member.seen or member.is_over for member in members), "all welcomes")
        for member in members:
            assert member.seen, f"the server closed the connection of {member.name}"
            assert member.seen[0]["type"] == "login", member.seen
        return members

    def connect(self, port: int, name: str) -> Member:
        """Connect a client, and send nothing."""
        connected = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        connected.setblocking(False)
        member = Member(self, name, connected)
        with self.changed:
            self.members.append(member)
            self._selector.register(connected, selectors.EVENT_READ, member)
        return member

    def enter_udp(self, port: int, names: Iterable[str]) -> list[UdpMember]:
        """Log in a client over UDP for each name. Returns after all welcomes."""
        members = [UdpMember(self, name, port) for name in names]
        with self.changed:
            for member in members:
                self.udp_members.append(member)
                self._selector.register(member.socket, selectors.EVENT_READ, member)
                member.command(member.name)
                member.command("secret")
        self._wake()
        self.wait_until(lambda: all(each.of("C WELCOME") or each.is_over for each in members), "all welcomes")
        for member in members:
            assert member.of("C WELCOME"), f"the server rejected {member.name}: {member.seen}"
        return members

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait for a condition on what has arrived. Fails after ``seconds``."""
        with self.changed:
            is_met = self.changed.wait_for(lambda: self._failure is not None or holds(), seconds)
            if self._failure is not None:
                raise AssertionError("a reaction failed") from self._failure
            assert is_met, f"waited {seconds:g} s in vain for {what}"

    def wait_until_all_are_over(self) -> None:
        self.wait_until(
            lambda: all(member.is_over for member in (*self.members, *self.udp_members)), "the end of all connections"
        )

    def note_unsent(self, member: Member) -> None:
        """The caller holds the lock."""
        self._unsent.add(member)
        if threading.current_thread() is not self._thread:
            self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake
            self._wakeup_writer.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._is_closing:
                ready = self._selector.select(_TICK_SECONDS if self.udp_members else None)
                with self.changed:
                    self._turn([key.data for key, _ in ready if key.data is not None])
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                self._failure = error
                self.changed.notify_all()

    def _turn(self, ready: list[Member | UdpMember]) -> None:
        with suppress(BlockingIOError):
            self._wakeup_reader.recv(_READ_BYTES)
        for member in ready:
            member.read()
            if isinstance(member, Member) and member.is_over:
                self._selector.unregister(member.socket)
                member.socket.close()
        unsent, self._unsent = self._unsent, set()
        for writer in unsent:
            if writer.is_over:
                continue
            is_done = writer.write()
            if not is_done:
                self._unsent.add(writer)
            interest = selectors.EVENT_READ if is_done else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(writer.socket, interest, writer)
        if (now := time.monotonic()) >= self._next_tick:
            self._next_tick = now + _TICK_SECONDS
            for caller in self.udp_members:
                if now >= caller.due_at():
                    caller.read()
