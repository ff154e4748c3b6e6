"""Guests: users who have no account. Each has a name while it is here, and two connections, from one address."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import structlog

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import AccountKind, Registered
from chatprotocol.requests import Side
from chatprotocol.rules import name_key
from chatserver.room.mailroom import Mailbox
from chatserver.room.seat import Seat
from chatserver.session.entrance import go_out

if TYPE_CHECKING:
    from chatserver.room.seat import Outbox
    from chatserver.session.context import Context
    from chatserver.store.accounts import Account

_log = structlog.get_logger()


class Guest:
    """One user, from its first connection to the end of either. What changes in it is under the lock of the guests."""

    __slots__ = ("account", "address", "arrived", "has_gone", "mailbox", "name", "outboxes", "registered", "seat")

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        # Settled by the session that came first: None, and the name is an account's.
        self.account: Future[Account | None] = Future()
        self.outboxes: dict[Side, Outbox] = {}
        # Those of its connections that were told so.
        self.registered: set[Side] = set()
        self.seat: Seat | None = None
        self.mailbox: Mailbox | None = None
        # Set when it is here, and when it never will be.
        self.arrived = threading.Event()
        self.has_gone = False

    @property
    def is_here(self) -> bool:
        """Are both of its connections registered, and does neither have ended?"""
        return self.seat is not None and not self.has_gone

    def finish(self) -> None:
        """Say nothing more on either connection. For any thread."""
        for outbox in self.outboxes.values():
            outbox.finish()


class Guests:
    """The names that guests have, from the first connection on. For any thread."""

    def __init__(self) -> None:
        # Guards everything below, and every guest. Whoever holds it may take the feed's.
        self._lock = threading.Lock()
        self._by_key: dict[str, Guest] = {}

    def is_claimed(self, name: str) -> bool:
        """Does a guest have this name, or wait to be let in with it?"""
        return name_key(name) in self._by_key

    def find(self, name: str) -> Account | None:
        """What stands for the guest of this name, if it is here."""
        guest = self._by_key.get(name_key(name))
        return guest.account.result() if guest is not None and guest.is_here else None

    def claim(self, context: Context, name: str, side: Side, address: str, outbox: Outbox) -> Guest:
        """Let one connection of a guest in; :meth:`welcome` is next. Raises Refusal, JournalClosedError."""
        with self._lock:
            guest = self._by_key.get(name_key(name))
            is_first = guest is None
            if guest is None:
                guest = self._by_key[name_key(name)] = Guest(name, address)
            elif guest.address != address or side in guest.outboxes or guest.has_gone:
                raise Refusal(ErrorCode.BAD_USERNAME, f"The name {name} is in use.")
            guest.outboxes[side] = outbox
        if is_first:
            self._admit(context, guest)
        if guest.account.result() is None:
            raise Refusal(ErrorCode.BAD_USERNAME, f"The name {name} belongs to an account.")
        return guest

    def welcome(self, context: Context, guest: Guest, side: Side, name: str) -> None:
        """Tell one connection of a guest that it is registered as ``name``; with the second one the guest is here."""
        with self._lock:
            if guest.has_gone:
                return
            guest.registered.add(side)
            if len(guest.registered) == len(Side):
                self._enter(context, guest)
            guest.outboxes[side].put([Registered(side, name)])
            if guest.mailbox is not None:  # nothing may come before that
                context.mailroom.release(guest.mailbox)

    def leave(self, context: Context, guest: Guest, side: Side) -> None:
        """One of its connections has ended: so does the other, and the name is free."""
        with self._lock:
            if guest.has_gone:
                return
            guest.has_gone = True
        guest.arrived.set()
        if guest.seat is not None:
            _log.info(f"{guest.name} left")
            go_out(context, guest.seat)
        for other, outbox in [*guest.outboxes.items()]:
            if other is not side:
                outbox.finish(hang_up=True)
        self._forget(guest)

    def _admit(self, context: Context, guest: Guest) -> None:
        """The name is claimed: is it an account's? For the session that came first; the other one waits."""
        try:
            account = context.journal.admit_guest(guest.name)
        except Exception as error:
            self._forget(guest)
            guest.account.set_exception(_as_refusal(error))
            return
        if account is None:
            self._forget(guest)
        guest.account.set_result(account)

    def _forget(self, guest: Guest) -> None:
        """The name is free."""
        with self._lock:
            guest.has_gone = True
            del self._by_key[name_key(guest.name)]

    def _enter(self, context: Context, guest: Guest) -> None:
        """Both connections are there. Locked."""
        account = guest.account.result()
        assert account is not None
        mailbox = Mailbox(context.mailroom, guest.outboxes[Side.RECEIVING], guest.name, guest.finish)
        seat = Seat(account.id, guest.name, mailbox)
        context.feed.join(seat)
        context.presence.enter(seat)
        guest.mailbox, guest.seat = mailbox, seat
        guest.arrived.set()
        _log.info(f"{guest.name} came in", account=AccountKind.GUEST.value, address=guest.address)


def _as_refusal(error: Exception) -> Exception:
    """What both connections of a guest are told who can't be let in."""
    if not isinstance(error, OSError):
        return error
    _log.error("The disk refuses writes; a guest is not let in", error=str(error))
    return Refusal(ErrorCode.NOT_LOGGED_IN, "The server can't write to its disk; nobody was registered.")
