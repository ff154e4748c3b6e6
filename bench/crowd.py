"""The crowd: many connections to one server, in one process and one thread."""

from __future__ import annotations

import resource
import select
import socket
import sys
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

from bench.datagrams import STAY_SECONDS, TEND_SECONDS, Link
from bench.protocols import Part, RefusedError, Transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.protocols import Entrance, Wire

# Logins under way at the same time, where nothing else is said.
LOGINS_AT_ONCE: Final = 32
# Nothing takes longer than this, however slow the server is.
LIMIT_SECONDS: Final = 120.0
# A server that says nothing for so long has told what it had to tell of comings and goings.
QUIET_SECONDS: Final = 0.2
SETTLE_MAX_SECONDS: Final = 5.0
# More than any load needs.
DESCRIPTORS_MAX: Final = 65_536
# Half of a processor's second cache, so that what was received is still there when it is counted.
RECEIVE_BYTES: Final = 512 * 1024
# Taken from the poller at once; then it is the senders' turn again.
_EVENTS_MAX: Final = 512
# How long it is waited for those who are entering, before it is looked at the clock again.
_ENTERING_SECONDS: Final = 0.1
# Over UDP the server is told that one leaves, by so many at the same time. A server that has said nothing for so long
# does not listen any more.
_LEAVING_AT_ONCE: Final = 256
_LEAVING_SECONDS: Final = 1.0


class LoadError(Exception):
    """The server did not bear the load. The text says how."""


if sys.platform == "linux":
    _Poll = select.epoll
    _READABLE: Final = select.EPOLLIN
else:
    _READABLE: Final = select.POLLIN

    class _Poll:
        """What there is where there is no epoll, with its face."""

        def __init__(self) -> None:
            poll = select.poll()
            self.register = poll.register
            self.unregister = poll.unregister
            self._poll = poll.poll

        def poll(self, seconds: float, _most: int) -> list[tuple[int, int]]:
            return self._poll(seconds * 1_000)

        def close(self) -> None:
            pass


class Crowd:
    """Connections to one server, all of them in its one room. For one thread. Everything raises LoadError.

    ``patience_seconds`` is how long it sleeps when there is nothing to do. With a processor of its own it need not
    sleep at all, and then the server does not have to wake it, which would be work of the server's.
    """

    def __init__(
        self, wire: Wire, port: int, *, patience_seconds: float = 0.0, logins_at_once: int = LOGINS_AT_ONCE
    ) -> None:
        self.wire = wire
        self._port = port
        self._patience_seconds = patience_seconds
        self._logins_at_once = logins_at_once
        self._poll = _Poll()
        # All connections, by their descriptors.
        self.sockets: dict[int, socket.socket | Link] = {}
        # Those of them that are carried by UDP: all, or none.
        self._links: dict[int, Link] = {}
        self._tend_at = 0.0
        self._stay_at = perf_counter() + STAY_SECONDS
        # Those whose deliveries count, and those who speak. There may be others, who are only there.
        self.receivers: set[int] = set()
        self.senders: list[int] = []
        self._entering: dict[int, Entrance] = {}
        # What was received last. One for all, so that it stays in the processor's cache.
        self.buffer = bytearray(RECEIVE_BYTES)

    def close(self) -> None:
        """Close all connections."""
        if self._links:
            self._leave()
        for sock in self.sockets.values():
            sock.close()
        self._poll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- coming in ---

    def enter(
        self, receivers: Iterable[str], senders: Iterable[str] = (), limit_seconds: float = LIMIT_SECONDS
    ) -> float:
        """Let them in, several at once; returns the seconds until the last one was. Comings are not counted."""
        begin = perf_counter()
        waiting = deque([(name, Part.HEARS) for name in receivers] + [(name, Part.SPEAKS) for name in senders])
        while waiting or self._entering:
            while waiting and len(self._entering) < self._logins_at_once:
                name, part = waiting.popleft()
                fd = self.begin_entering(name, part)
                if part is Part.SPEAKS:
                    self.senders.append(fd)
                else:
                    self.receivers.add(fd)
            for fd, _ in self._come(_ENTERING_SECONDS):
                self.hear(fd)
            if perf_counter() - begin > limit_seconds:
                missing = len(waiting) + len(self._entering)
                raise LoadError(f"{missing} were not let in within {limit_seconds:.0f} s")
        return perf_counter() - begin

    def begin_entering(self, name: str, part: Part = Part.HEARS, receive_bytes: int = 0) -> int:
        """Connect and say the first words; the rest happens while something else waits. Returns the descriptor.

        Whoever comes in this way is in the room, but neither a receiver nor a sender of ours.
        """
        try:
            sock = self._connect(receive_bytes)
        except OSError as error:
            raise LoadError(f"no connection for {name}: {error.strerror}") from error
        fd = sock.fileno()
        self.sockets[fd] = sock
        entrance = self.wire.enter(name, part)
        self._entering[fd] = entrance
        self.say(fd, next(entrance))
        self._poll.register(fd, _READABLE)
        return fd

    def _connect(self, receive_bytes: int) -> socket.socket | Link:
        if self.wire.carrier is Transport.UDP:
            link = Link(self._port, receive_bytes)
            self._links[link.fileno()] = link
            return link
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.connect(("127.0.0.1", self._port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        return sock

    @property
    def entering(self) -> int:
        """How many are on their way in."""
        return len(self._entering)

    def stop_reading(self, fd: int) -> None:
        """Nothing is read from this connection from now on."""
        self._poll.unregister(fd)

    def settle(self) -> None:
        """Wait until the server has nothing to tell any more."""
        deadline = perf_counter() + SETTLE_MAX_SECONDS
        while events := self._come(QUIET_SECONDS):
            for fd, _ in events:
                self.hear(fd)
            if perf_counter() > deadline:
                return

    # --- while they are there ---

    def ready(self) -> list[tuple[int, int]]:
        """Connections for which something has come: descriptors, and what the poller says of them."""
        return self._come(self._patience_seconds)

    def receive(self, fd: int) -> int:
        """Take what has come for one; returns how many bytes of the buffer it fills."""
        try:
            size = self.sockets[fd].recv_into(self.buffer)
        except BlockingIOError:  # over UDP something may come that is nothing new
            return 0
        except OSError as error:
            raise self._lost(fd, error.strerror) from error
        if not size:
            raise self._lost(fd)
        return size

    def hear(self, fd: int) -> None:
        """Take what has come for one whose deliveries do not count now; one who is entering may have to answer."""
        size = self.receive(fd)
        entrance = self._entering.get(fd)
        if entrance is None:
            return
        try:
            answer = entrance.send(bytes(self.buffer[:size]))
        except StopIteration:
            del self._entering[fd]
        except RefusedError as error:
            raise LoadError(f"not let in: {error}") from error
        else:
            self.say(fd, answer)

    def send(self, fd: int, data: bytes | memoryview) -> int:
        """Say what the socket takes; returns how many bytes that was."""
        try:
            return self.sockets[fd].send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(fd, error.strerror) from error

    def say(self, fd: int, data: bytes) -> None:
        """Say a few bytes, for which there is room unless the server reads nothing at all."""
        if data and self.send(fd, data) < len(data):
            raise LoadError("the server does not read")

    # --- what the system does for TCP ---

    def _come(self, seconds: float) -> list[tuple[int, int]]:
        """Wait for something to come, and do what is due meanwhile."""
        if self._links and (now := perf_counter()) >= self._tend_at:
            self._tend(now)
        return self._poll.poll(seconds, _EVENTS_MAX)

    def _tend(self, now: float) -> None:
        """Send again what may be lost, of those who say something; the others are there still."""
        self._tend_at = now + TEND_SECONDS
        for fd in (*self.senders, *self._entering):
            self._tend_one(fd, now)
        if now >= self._stay_at:
            self._stay_at = now + STAY_SECONDS
            for fd in self._links:
                self._tend_one(fd, now, stays=True)

    def _tend_one(self, fd: int, now: float, *, stays: bool = False) -> None:
        try:
            if stays:
                self._links[fd].stay()
            self._links[fd].tend(now)
        except OSError as error:
            raise self._lost(fd, error.strerror) from error

    def _leave(self) -> None:
        """Let the server know: it would else send what is said to nobody, again and again."""
        waiting = deque(fd for fd, link in self._links.items() if link.is_open)
        leaving: set[int] = set()
        heard_at = perf_counter()
        while (waiting or leaving) and (now := perf_counter()) < heard_at + _LEAVING_SECONDS:
            while waiting and len(leaving) < _LEAVING_AT_ONCE:
                fd = waiting.popleft()
                leaving.add(fd)
                with suppress(OSError):  # there is no server any more, which the poller will say, too
                    self._links[fd].leave()
            events = self._poll.poll(TEND_SECONDS, _EVENTS_MAX)
            if events:
                heard_at = now
            leaving -= {fd for fd, _ in events if self._has_left(fd)}
            for fd in leaving:
                with suppress(LoadError):
                    self._tend_one(fd, now)

    def _has_left(self, fd: int) -> bool:
        try:
            return not self._links[fd].recv_into(self.buffer)
        except BlockingIOError:
            return False
        except OSError:  # there is no server any more
            return True

    def _lost(self, fd: int, why: str | None = "closed by the server") -> LoadError:
        who = "a receiver" if fd in self.receivers else "a sender" if fd in self.senders else "a connection"
        return LoadError(f"{who} was lost: {why}")


def allow_descriptors() -> int:
    """Raise the limit of open files, for this process and those that it starts; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
