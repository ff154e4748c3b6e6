"""Guests: users who have no account. Each has a name while it is here, and two connections, from one address."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, Registered
from chatprotocol.requests import Side
from chatprotocol.rules import name_key
from chatserver.chat.delivery import DeliveryWindow
from chatserver.chat.login import go_out
from chatserver.chat.member import Member

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.member import SendQueue
    from chatserver.chat.services import Services
    from chatserver.store.accounts import Account

_log = structlog.get_logger()

# Some clients send before their other connection is registered. So long after the first one that is waited for.
_SECOND_HALF_SECONDS = 5.0


class Guest:
    """One user, from its first connection to the end of either. What changes in it is under the lock of the guests."""

    __slots__ = (
        "_arrived",
        "_wait_until",
        "account",
        "address",
        "has_gone",
        "member",
        "name",
        "registered",
        "send_queues",
        "window",
    )

    def __init__(self, name: str, address: str, wait_until: float) -> None:
        self.name = name
        self.address = address
        self.send_queues: dict[Side, SendQueue] = {}
        # What it posts as: there is one when both connections are there.
        self.account: Account | None = None
        # Those of its connections that were told so.
        self.registered: set[Side] = set()
        self.member: Member | None = None
        self.window: DeliveryWindow | None = None
        self.has_gone = False
        # Set when it is here, and when it never will be.
        self._arrived = threading.Event()
        self._wait_until = wait_until

    @property
    def is_here(self) -> bool:
        """Are both of its connections registered, and has neither ended?"""
        return self.member is not None and not self.has_gone

    def is_late(self, now: float) -> bool:
        """True if its other connection did not come in time: who wants the name may have it."""
        return len(self.send_queues) < len(Side) and now >= self._wait_until

    def wait_for_arrival(self) -> None:
        """Give its other connection a moment to be registered."""
        self._arrived.wait(max(0.0, self._wait_until - time.monotonic()))

    def end_waiting(self) -> None:
        """It is here, or never will be. For any thread."""
        self._arrived.set()

    def finish(self) -> None:
        """Say nothing more on either connection. For any thread."""
        for send_queue in self.send_queues.values():
            send_queue.finish()


class Guests:
    """The names that guests have, from the first connection on. For any thread.

    A guest that has one connection keeps its name for some seconds only: otherwise one that never opens the other would
    keep a free name from all others until the time to log in has passed. ``clock`` counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards everything below, and every guest. Whoever holds it may take the feed's.
        self._lock = threading.Lock()
        self._by_key: dict[str, Guest] = {}

    def is_claimed(self, name: str) -> bool:
        """Does a guest have this name, or wait to be let in with it?"""
        guest = self._by_key.get(name_key(name))
        return guest is not None and not guest.is_late(self._clock())

    def find(self, name: str) -> Account | None:
        """What stands for the guest of this name, if it is here."""
        guest = self._by_key.get(name_key(name))
        return guest.account if guest is not None and guest.is_here else None

    def claim(self, services: Services, name: str, side: Side, address: str, send_queue: SendQueue) -> Guest:
        """Let one connection of a guest in; :meth:`welcome` is next. Raises Refusal, StoreError, JournalClosedError."""
        if not self.is_claimed(name) and services.accounts.find(name) is not None:
            raise _taken(name)
        self._displace(services, name, side, address)
        with self._lock:
            wait_until = self._clock() + _SECOND_HALF_SECONDS
            guest = self._by_key.setdefault(name_key(name), Guest(name, address, wait_until))
            if guest.address != address or side in guest.send_queues or guest.has_gone:
                raise _taken(name)
            guest.send_queues[side] = send_queue
            is_complete = len(guest.send_queues) == len(Side)
        if is_complete:
            try:
                guest.account = _admit(services, guest.name)
            except BaseException:
                self.leave(services, guest, side)
                raise
        return guest

    def _displace(self, services: Services, name: str, side: Side, address: str) -> None:
        """Take the name from a guest who is late, unless this is the connection that it waits for."""
        late = self._by_key.get(name_key(name))
        if late is None or (late.address == address and side not in late.send_queues):
            return
        with self._lock:
            if late.has_gone or not late.is_late(self._clock()):
                return
            ((its_side, send_queue),) = late.send_queues.items()
        self.leave(services, late, its_side)
        send_queue.finish(hang_up=True)

    def add(self, services: Services, guest: Guest, side: Side, name: str) -> None:
        """Tell one connection of a guest that it is registered as ``name``; with the second one the guest is here."""
        with self._lock:
            if guest.has_gone:
                return
            guest.registered.add(side)
            if len(guest.registered) == len(Side):
                _enter(services, guest)
            guest.send_queues[side].put([Registered(side, name)])
            if guest.window is not None:  # nothing may come before that
                services.acked_delivery.release(guest.window)
        if guest.window is not None:
            guest.end_waiting()
            _log.info(f"{guest.name} came in", account=AccountKind.GUEST.value, address=guest.address)

    def leave(self, services: Services, guest: Guest, side: Side) -> None:
        """One of its connections has ended: so does the other, and the name is free."""
        with self._lock:
            if guest.has_gone:
                return
            guest.has_gone = True
        guest.end_waiting()
        if guest.member is not None:
            _log.info(f"{guest.name} left")
            go_out(services, guest.member)
        with self._lock:
            del self._by_key[name_key(guest.name)]
        for other, send_queue in guest.send_queues.items():  # whoever sees the end may come again at once
            if other is not side:
                send_queue.finish(hang_up=True)


def _admit(services: Services, name: str) -> Account:
    """What stands for the guest, whose name is claimed. Raises Refusal."""
    try:
        account = services.journal.admit_guest(name)
    except OSError as error:
        _log.error("The disk refuses writes; a guest is not let in", error=str(error))
        reason = "The server can't write to its disk; nobody was registered."
        raise RequestError(ErrorCode.NOT_LOGGED_IN, reason) from error
    if account is None:  # registered in the same moment
        raise _taken(name)
    return account


def _taken(name: str) -> RequestError:
    return RequestError(ErrorCode.BAD_USERNAME, f"The name {name} is in use, or belongs to an account.")


def _enter(services: Services, guest: Guest) -> None:
    """Both connections are there. The guests are locked."""
    assert guest.account is not None
    window = DeliveryWindow(services.acked_delivery, guest.send_queues[Side.RECEIVING], guest.name)
    member = Member(guest.account.id, guest.name, window, guest.account)
    services.hub.join(member)
    guest.window, guest.member = window, member
    services.presence.enter(member)  # whoever is told of the guest can find it
