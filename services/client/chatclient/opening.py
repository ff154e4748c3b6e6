"""Builds a session with its protocol, connection and inbox. For ChatClient and the command line client."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from chatclient.inbox import Inbox
from chatclient.links.connection import Connection
from chatclient.links.tcp import connect
from chatclient.links.udp import UdpLink
from chatclient.links.watch import ExpectedAnswer, Watch
from chatclient.session import ClientSession
from chatprotocol.wire import Datagram, Register, by_name, protocols_with

if TYPE_CHECKING:
    from chatclient.links.connection import Link
    from chatclient.model import Model
    from chatprotocol.address import Address
    from chatprotocol.wire.base import Outgoing


def new_session(
    model: Model, *, dialect: str, ops: str, register_length: str, retry_seconds: float, silence_seconds: float
) -> ClientSession:
    """A session that is not connected yet. ``silence_seconds`` of 0 is no limit."""
    inbox = Inbox()
    protocol = by_name(dialect, protocols_with(Register(length=register_length))).client(ops)
    open_unwatched = partial(UdpLink if dialect == Datagram.name else connect, protocol)

    def open_link(address: Address, seconds: float) -> Link:
        watched = WatchedInbox(session, inbox)
        return open_unwatched(lambda: Watch(watched, silence_seconds or math.inf, time.monotonic()), address, seconds)

    session = ClientSession(model, protocol, Connection(open_link, retry_seconds, inbox))
    return session


class WatchedInbox:
    """The state of the session for Watch, as far as the inbox is empty. The receiver thread reads it.

    Lock-free. Only the receiver thread adds server events to the inbox, so no event arrives during its read. An empty
    inbox means that the owner has taken the last event, but may not have handled it; `expected_answer` may then be
    stale. That is harmless, because Watch counts from the last event or, after a long UNKNOWN, from now.
    """

    def __init__(self, session: ClientSession, inbox: Inbox) -> None:
        self._session = session
        self._inbox = inbox

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """UNKNOWN while the inbox has items: an answer may be among them."""
        return self._session.expected_answer if self._inbox.is_empty else ExpectedAnswer.UNKNOWN

    @property
    def ping(self) -> Outgoing | None:
        """None while the inbox has items, because they may start an operation."""
        return self._session.ping if self._inbox.is_empty else None
