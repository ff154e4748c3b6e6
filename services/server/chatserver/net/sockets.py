"""Binding: one port number, for TCP and for UDP."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG: Final = 4_096
# Of datagrams so much is kept while nobody has the time to read; less where the system's limit is lower.
_KEPT_BYTES: Final = 4 * 1024 * 1024
# Where any port will do: a number that is free for TCP may be taken for UDP.
_TRIES: Final = 20


def bind_udp(host: str, port: int) -> socket.socket:
    """A bound socket of UDP, in non-blocking mode. OSError."""
    family = _family(host)
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, _KEPT_BYTES)
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
    """A listening socket of TCP, and one of UDP with the same number; 0 takes a free one. OSError, UnicodeError.

    A TCP connection whose peer acknowledges nothing for this time is ended by the system.
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
    # Each connection has these from the socket that accepts it: to set them anew would be five system calls a login.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _lost_peer_options(peer_timeout_seconds):
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening


def _lost_peer_options(timeout_seconds: float) -> tuple[tuple[str, int], ...]:
    """TCP options that end a connection whose peer is lost: options of the level IPPROTO_TCP, and their values.

    Keepalive probes a connection only while nothing is unacknowledged, and the user list that everybody gets twice a
    minute makes sure that something is. Then TCP_USER_TIMEOUT decides, and it decides for keepalive as well (tcp(7)):
    the first probe after two thirds of the time, and the connection ends at a probe after all of it. A peer that is
    alive but whose receive buffer stays full for that long is ended, too.
    """
    return (
        ("TCP_KEEPIDLE", max(1, round(timeout_seconds * 2 / 3))),
        ("TCP_KEEPINTVL", max(1, round(timeout_seconds / 6))),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", round(timeout_seconds * 1000)),
    )
