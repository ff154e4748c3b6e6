"""A crowd: many json clients of one server, driven by one thread."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Answer: TypeAlias = dict[str, Any]
# How long a crowd waits for anything, on a machine that is busy with something else.
DEADLINE_SECONDS = 30.0
_READ_BYTES = 256 * 1024


class Member:
    """One client. What arrives is collected in ``seen``, in order, but for updates of who is online.

    ``react``, if it is set, is called with each object as it arrives, by the crowd's thread.
    """

    def __init__(self, crowd: Crowd, name: str, connected: socket.socket) -> None:
        self.name = name
        self.seen: list[Answer] = []
        # The server has closed the connection, or the process that it was is gone.
        self.is_over = False
        self.react: Callable[[Member, Answer], None] | None = None
        self.socket = connected
        self._crowd = crowd
        self._unsent = bytearray()
        self._unread = b""

    def ask(self, **members: Any) -> None:
        """Send a command, some time soon. From any thread."""
        self.send(msgspec.json.encode(members) + b"\n")

    def send(self, data: bytes) -> None:
        """Send bytes, some time soon. From any thread."""
        with self._crowd.changed:
            self._unsent += data
            self._crowd.note_unsent(self)

    def of(self, *types: str) -> list[Answer]:
        """What was seen of these types."""
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
        """Send what the socket takes; is nothing left?"""
        try:
            del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:  # the end is noticed by reading
            self._unsent.clear()
        return not self._unsent


class Crowd:
    """The clients and their thread. Leaving the context closes every connection and joins it."""

    def __init__(self) -> None:
        # Guards everything, and is notified whenever something arrived.
        self.changed = threading.Condition()
        self.members: list[Member] = []
        self._selector = selectors.DefaultSelector()
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_reader.setblocking(False)
        self._wakeup_writer.setblocking(False)
        self._selector.register(self._wakeup_reader, selectors.EVENT_READ)
        self._unsent: set[Member] = set()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._is_closing = True
        self._ring()
        self._thread.join()
        self._selector.close()
        for end in (self._wakeup_reader, self._wakeup_writer, *(member.socket for member in self.members)):
            end.close()

    def enter(self, port: int, names: Iterable[str], **login: Any) -> list[Member]:
        """Connect and log in a client for each name; returns when all are welcome."""
        members = [self.connect(port, name) for name in names]
        for member in members:
            member.ask(command="login", username=member.name, password="secret", **login)
        self.wait_until(lambda: all(member.seen or member.is_over for member in members), "everybody's welcome")
        for member in members:
            assert member.seen, f"the server sent {member.name} away"
            assert member.seen[0]["type"] == "login", member.seen
        return members

    def connect(self, port: int, name: str) -> Member:
        """Connect a client, and say nothing."""
        connected = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        connected.setblocking(False)
        member = Member(self, name, connected)
        with self.changed:
            self.members.append(member)
            self._selector.register(connected, selectors.EVENT_READ, member)
        self._ring()
        return member

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something is true that changes by what arrives; fail when it takes too long."""
        with self.changed:
            came = self.changed.wait_for(lambda: self._failure is not None or holds(), DEADLINE_SECONDS)
            if self._failure is not None:
                raise AssertionError("a reaction failed") from self._failure
            assert came, f"waited {DEADLINE_SECONDS:g} s in vain for {what}"

    def note_unsent(self, member: Member) -> None:
        """A member has something to send. The lock is held."""
        self._unsent.add(member)
        if threading.current_thread() is not self._thread:
            self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._wakeup_writer.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._is_closing:
                ready = self._selector.select()
                with self.changed:
                    self._go_round([key.data for key, _ in ready if key.data is not None])
                    self.changed.notify_all()
        except Exception as error:
            with self.changed:
                self._failure = error
                self.changed.notify_all()

    def _go_round(self, ready: list[Member]) -> None:
        with suppress(BlockingIOError):  # nobody rang
            self._wakeup_reader.recv(_READ_BYTES)
        for member in ready:
            member.read()
            if member.is_over:
                self._selector.unregister(member.socket)
        unsent, self._unsent = self._unsent, set()
        for member in unsent:
            is_done = member.is_over or member.write()
            if not is_done:
                self._unsent.add(member)
            if not member.is_over:
                interest = selectors.EVENT_READ if is_done else selectors.EVENT_READ | selectors.EVENT_WRITE
                self._selector.modify(member.socket, interest, member)
