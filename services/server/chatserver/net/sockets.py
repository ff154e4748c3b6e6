"""Binds one port number for TCP and UDP."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Connections that the system keeps until they are accepted; the system's limit may be lower.
_BACKLOG: Final = 4_096
# Size of the kernel's UDP buffers: datagrams may arrive faster than they are read. The system's limit may be lower.
_UDP_BUFFER_BYTES: Final = 4 * 1024 * 1024
# Attempts to find a free port: a number that is free for TCP may be in use for UDP.
_TRIES: Final = 20


def bind_udp(host: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket. Raises OSError."""
    family = _family(host)
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, _UDP_BUFFER_BYTES)
        bound.setblocking(False)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def bind(
    host: str,
    port: int,
    peer_timeout_seconds: float,
    bind_udp: Callable[[str, int], socket.socket] = bind_udp,
) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket, and a UDP socket with the same port number; 0 picks a free one.

    The system ends a TCP connection whose peer acknowledges nothing for ``peer_timeout_seconds``. Raises OSError, with
    the note "(UDP)" if the UDP socket failed, and UnicodeError for an invalid host name.
    """
    for _ in range(_TRIES):
        listening = _bind_tcp(host, port, peer_timeout_seconds)
        try:
            return listening, bind_udp(host, listening.getsockname()[1])
        except OSError as error:
            listening.close()
            error.add_note("(UDP)")
            problem = error
        if port or problem.errno != errno.EADDRINUSE:
            break
    raise problem


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bind_tcp(host: str, port: int, peer_timeout_seconds: float) -> socket.socket:
    family = _family(host)
    listening = socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=family == socket.AF_INET6
    )
    listening.setblocking(False)
    # Accepted sockets inherit these options, which saves five system calls per connection.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _lost_peer_options(peer_timeout_seconds):
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening


def _lost_peer_options(timeout_seconds: float) -> tuple[tuple[str, int], ...]:
    """TCP options (level IPPROTO_TCP) that end the connection of a lost peer, and their values.

    Keepalive probes a connection only while all data is acknowledged. Usually some data is not, because all users get a
    user list twice a minute; then TCP_USER_TIMEOUT applies. It also limits keepalive (tcp(7)): the first probe is sent
    after two thirds of the timeout, and the connection ends at the first probe after the timeout. A peer whose receive
    buffer stays full for the timeout is disconnected as well.
    """
    return (
        ("TCP_KEEPIDLE", max(1, round(timeout_seconds * 2 / 3))),
        ("TCP_KEEPINTVL", max(1, round(timeout_seconds / 6))),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", round(timeout_seconds * 1000)),
    )
