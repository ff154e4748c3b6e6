"""Many connections to one server, or several that share a log, in one process and one thread.

A connection logs in with a generator of protocols.py, which yields the bytes to send and gets the bytes received.
Logins make progress in each call that waits for input: ``log_in``, ``wait_until_quiet``, and the caller's own loop of
``ready`` and ``handle_input``. After the logins the caller reads receivers with ``receive`` and sends with ``send``.

A session over UDP (udp.py) looks like a non-blocking socket. In addition it needs regular calls for retransmissions;
``_wait`` makes them.
"""

from __future__ import annotations

import resource
import select
import socket
import sys
from collections import deque
from contextlib import suppress
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

from bench.protocols import RefusedError, Role, Transport
from bench.tls import TlsSocket, unchecked
from bench.udp import RESEND_CHECK_SECONDS, UdpSocket
from chatprotocol.udp.session import PING_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.protocols import Login, WireProtocol

# Default for the number of logins in progress.
LOGINS_AT_ONCE: Final = 32
# Time limit for each load.
LIMIT_SECONDS: Final = 120.0
# A server that has sent nothing for this time has sent all joins and leaves. Our own collects them for 0.2 ms per user:
# 1.8 s with 9,000. Without the last ones, not all receivers of a load get the same bytes, and TLS can't be counted.
QUIET_SECONDS: Final = 0.2
QUIET_SECONDS_PER_CONNECTION: Final = 0.0003
# Limit of this wait, in addition: other servers repeat what they say.
QUIET_MAX_SECONDS: Final = 5.0
# Maximum limit of open files to set: more than any load needs.
DESCRIPTORS_MAX: Final = 65_536
# Size of the receive buffer, half of a processor's second-level cache: the data is in the cache while it is counted.
RECEIVE_BYTES: Final = 512 * 1024
# Maximum events per poll: senders get their turn after each poll.
_EVENTS_MAX: Final = 512
_LOGIN_POLL_SECONDS: Final = 0.1
# Maximum UDP sessions that log out at the same time.
_LOGOUTS_AT_ONCE: Final = 256
# A server that has sent nothing for this time does not read any more.
_LOGOUT_SECONDS: Final = 1.0


class LoadError(Exception):
    """The server failed under the load. The text is the reason."""


if sys.platform == "linux":
    _Poll = select.epoll
    _READABLE: Final = select.EPOLLIN
else:
    _READABLE: Final = select.POLLIN

    class _Poll:
        """select.poll with the interface of epoll."""

        def __init__(self) -> None:
            poll = select.poll()
            self.register = poll.register
            self.unregister = poll.unregister
            self._poll = poll.poll

        def poll(self, seconds: float, _most: int) -> list[tuple[int, int]]:
            return self._poll(seconds * 1_000)

        def close(self) -> None:
            pass


class Connections:
    """Connections to one server, all in its one room. For one thread. All methods raise LoadError.

    With several ports the connections are to each of these servers in turn; they share one room.

    ``poll_seconds`` is the time that ``ready`` waits for input. It is 0 if the load has its own processor, because
    waking a waiting process would be work for the server.
    """

    def __init__(
        self,
        protocol: WireProtocol,
        *ports: int,
        poll_seconds: float = 0.0,
        logins_at_once: int = LOGINS_AT_ONCE,
        login_poll_seconds: float = _LOGIN_POLL_SECONDS,
        logout_seconds: float = _LOGOUT_SECONDS,
    ) -> None:
        self.protocol = protocol
        self._ports = cycle(ports)
        self._poll_seconds = poll_seconds
        self._logins_at_once = logins_at_once
        self._login_poll_seconds = login_poll_seconds
        self._logout_seconds = logout_seconds
        self._poll = _Poll()
        # Sockets by descriptor. Either all connections are UDP sessions, or none.
        self.sockets: dict[int, socket.socket | TlsSocket | UdpSocket] = {}
        self._tls = unchecked()
        self._udp_sockets: dict[int, UdpSocket] = {}
        self._check_resend_at = 0.0
        self._keep_alive_at = perf_counter() + PING_SECONDS
        # Connections whose deliveries count. Other connections are in the room as well.
        self.receivers: set[int] = set()
        self.senders: list[int] = []
        self._logins: dict[int, Login] = {}
        # The bytes of the last receive. All connections share the buffer, so that it stays in the processor's cache.
        self.buffer = bytearray(RECEIVE_BYTES)

    def close(self) -> None:
        """Log out UDP sessions, and close all connections."""
        if self._udp_sockets:
            self._log_out()
        for sock in self.sockets.values():
            sock.close()
        self._poll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- logging in ---

    def log_in(
        self, receivers: Iterable[str], senders: Iterable[str] = (), limit_seconds: float = LIMIT_SECONDS
    ) -> float:
        """Log in all these names, several at once. Returns the seconds until the last login was accepted."""
        begin = perf_counter()
        waiting = deque([(name, Role.RECEIVER) for name in receivers] + [(name, Role.SENDER) for name in senders])
        while waiting or self._logins:
            while waiting and len(self._logins) < self._logins_at_once:
                name, role = waiting.popleft()
                fd = self.begin_login(name, role)
                if role is Role.SENDER:
                    self.senders.append(fd)
                else:
                    self.receivers.add(fd)
            for fd, _ in self._wait(self._login_poll_seconds):
                self.handle_input(fd)
            if perf_counter() - begin > limit_seconds:
                missing = len(waiting) + len(self._logins)
                raise LoadError(f"{missing} logins were not accepted within {limit_seconds:.0f} s")
        return perf_counter() - begin

    def begin_login(self, name: str, role: Role = Role.RECEIVER, receive_bytes: int = 0) -> int:
        """Connect and send the first bytes of a login. Returns the descriptor.

        The connection is neither in ``receivers`` nor in ``senders``. ``receive_bytes`` is the size of the system's
        receive buffer, or 0 for the default.
        """
        try:
            sock = self._connect(receive_bytes)
        except OSError as error:
            raise LoadError(f"no connection for {name}: {error.strerror}") from error
        fd = sock.fileno()
        self.sockets[fd] = sock
        login = self.protocol.log_in(name, role)
        self._logins[fd] = login
        self.send_all(fd, next(login))
        self._poll.register(fd, _READABLE)
        return fd

    def _connect(self, receive_bytes: int) -> socket.socket | TlsSocket | UdpSocket:
        if self.protocol.transport is Transport.UDP:
            udp_socket = UdpSocket(next(self._ports), receive_bytes)
            self._udp_sockets[udp_socket.fileno()] = udp_socket
            return udp_socket
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.connect(("127.0.0.1", next(self._ports)))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        return TlsSocket(sock, self._tls) if self.protocol.transport is Transport.TLS else sock

    @property
    def pending_logins(self) -> int:
        """Number of logins in progress."""
        return len(self._logins)

    def stop_reading(self, fd: int) -> None:
        """Never read from this connection again."""
        self._poll.unregister(fd)

    def decrypt_one(self) -> int | None:
        """Receive ciphertext from all but one receiver, which is returned. None: nothing is encrypted.

        Decrypting everything would take the load longer than encrypting takes the server. Call it while the server is
        quiet. The connections are good for throughput only afterwards.
        """
        if self.protocol.transport is not Transport.TLS:
            return None
        sample = min(self.receivers)
        for fd, sock in self.sockets.items():
            if fd != sample and isinstance(sock, TlsSocket):
                sock.stop_decrypting()
        return sample

    def wait_until_quiet(self) -> None:
        """Read until the server sends nothing more, or goes on for longer than QUIET_MAX_SECONDS."""
        quiet_seconds = QUIET_SECONDS + QUIET_SECONDS_PER_CONNECTION * len(self.sockets)
        deadline = perf_counter() + quiet_seconds + QUIET_MAX_SECONDS
        while events := self._wait(quiet_seconds):
            for fd, _ in events:
                self.handle_input(fd)
            if perf_counter() > deadline:
                return

    # --- receiving and sending ---

    def ready(self) -> list[tuple[int, int]]:
        """The connections that have input: descriptors, and the events of the poller."""
        return self._wait(self._poll_seconds)

    def receive(self, fd: int) -> int:
        """Receive into the buffer. Returns the number of bytes."""
        try:
            size = self.sockets[fd].recv_into(self.buffer)
        except BlockingIOError:  # a datagram of a UDP session may contain nothing new
            return 0
        except OSError as error:
            raise self._lost(fd, error.strerror) from error
        if not size:
            raise self._lost(fd)
        return size

    def handle_input(self, fd: int) -> None:
        """Receive and continue a login in progress. Drop the input of a connection that has logged in."""
        size = self.receive(fd)
        login = self._logins.get(fd)
        if login is None:
            return
        try:
            answer = login.send(bytes(self.buffer[:size]))
        except StopIteration:
            del self._logins[fd]
        except RefusedError as error:
            raise LoadError(f"login refused: {error}") from error
        else:
            self.send_all(fd, answer)

    def send(self, fd: int, data: bytes | memoryview) -> int:
        """Send as many bytes as the socket takes. Returns their number."""
        try:
            return self.sockets[fd].send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(fd, error.strerror) from error

    def send_all(self, fd: int, data: bytes) -> None:
        """Send a few bytes. Raises LoadError if the socket has no room, because the server does not read."""
        if data and self.send(fd, data) < len(data):
            raise LoadError("the server does not read")

    def _lost(self, fd: int, why: str | None = "closed by the server") -> LoadError:
        kind = "a receiver" if fd in self.receivers else "a sender" if fd in self.senders else "a connection"
        return LoadError(f"{kind} was lost: {why}")

    # --- waiting, and the work of UDP sessions ---

    def _wait(self, seconds: float) -> list[tuple[int, int]]:
        if self._udp_sockets and (now := perf_counter()) >= self._check_resend_at:
            self._send_due(now)
        if self.protocol.keep_alive and (now := perf_counter()) >= self._keep_alive_at:
            self._keep_alive_at = now + PING_SECONDS
            for fd in self.receivers - self._logins.keys():
                self.send_all(fd, self.protocol.keep_alive)
        return self._poll.poll(seconds, _EVENTS_MAX)

    def _send_due(self, now: float) -> None:
        """Send retransmissions of senders and of logins in progress; from time to time keep all sessions alive."""
        self._check_resend_at = now + RESEND_CHECK_SECONDS
        for fd in (*self.senders, *self._logins):
            self._send_due_of(fd, now)
        if now >= self._keep_alive_at:
            self._keep_alive_at = now + PING_SECONDS
            for fd in self._udp_sockets:
                self._send_due_of(fd, now)

    def _send_due_of(self, fd: int, now: float) -> None:
        try:
            self._udp_sockets[fd].send_due(now)
        except OSError as error:
            raise self._lost(fd, error.strerror) from error

    def _log_out(self) -> None:
        """Log out all UDP sessions. Otherwise the server would resend to closed sockets until its time limit."""
        waiting = deque(fd for fd, session in self._udp_sockets.items() if session.is_open)
        pending: set[int] = set()
        received_at = perf_counter()
        while (waiting or pending) and (now := perf_counter()) < received_at + self._logout_seconds:
            while waiting and len(pending) < _LOGOUTS_AT_ONCE:
                fd = waiting.popleft()
                pending.add(fd)
                with suppress(OSError):  # the server has ended: the poller reports it as well
                    self._udp_sockets[fd].log_out()
            events = self._poll.poll(RESEND_CHECK_SECONDS, _EVENTS_MAX)
            if events:
                received_at = now
            pending -= {fd for fd, _ in events if self._has_logged_out(fd)}
            for fd in pending:
                with suppress(LoadError):
                    self._send_due_of(fd, now)

    def _has_logged_out(self, fd: int) -> bool:
        try:
            return not self._udp_sockets[fd].recv_into(self.buffer)
        except BlockingIOError:
            return False
        except OSError:  # the server has ended
            return True


def raise_descriptor_limit() -> int:
    """Raise the limit of open files for this process and its children. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
