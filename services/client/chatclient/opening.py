"""Builds a session with its protocol, connection and inbox. For ChatClient and the command line client."""

import math
import ssl
import time
from functools import partial

from chatclient.inbox import Inbox
from chatclient.links.connection import Connection, Link
from chatclient.links.tcp import connect
from chatclient.links.udp import UdpLink
from chatclient.links.watch import Watch
from chatclient.model import Model
from chatclient.session import ClientSession
from chatprotocol.address import Address
from chatprotocol.wire import Datagram, Register, by_name, protocols_with


def new_session(
    model: Model,
    *,
    dialect: str,
    ops: str,
    register_length: str,
    retry_seconds: float,
    silence_seconds: float,
    tls: ssl.SSLContext | None = None,
    resends_limited: bool = False,
    tells_unavailable: bool = False,
) -> ClientSession:
    """A session that is not connected yet. ``silence_seconds`` of 0 is no limit.

    With ``tls`` the connection is encrypted; the wire format datagram has no encryption.
    """
    inbox = Inbox()
    protocol = by_name(dialect, protocols_with(Register(length=register_length))).client(ops)
    open_unwatched = partial(UdpLink, protocol) if dialect == Datagram.name else partial(connect, protocol, tls=tls)

    def open_link(address: Address, seconds: float) -> Link:
        return open_unwatched(lambda: Watch(session, silence_seconds or math.inf, time.monotonic()), address, seconds)

    session = ClientSession(
        model,
        protocol,
        Connection(open_link, retry_seconds, inbox),
        resends_limited=resends_limited,
        tells_unavailable=tells_unavailable,
    )
    return session
