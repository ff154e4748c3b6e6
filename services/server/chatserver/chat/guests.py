"""Guests: users without an account. Each has a name while online.

There are two kinds. A :class:`Guest` has one connection, and is a member of the hub like a user. A :class:`GuestPair`
has two connections from one address, acknowledges each message, and is in the lobby only: see ``delivery.py``. Both
claim their names here, and in the journal.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from chatprotocol.address import is_in_network, network_of
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, Welcome
from chatprotocol.requests import Side
from chatprotocol.rules import check_username, name_key
from chatserver.chat.delivery import DeliveryWindow
from chatserver.chat.problems import write_error
from chatserver.chat.room import Member
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import (
    GuestClaim,
    GuestRelease,
    GuestRenamed,
    KickFromServer,
    Problem,
    RenameGuest,
    Sanction,
)
from chatserver.store.accounts import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from chatserver.chat.delivery import AckedDelivery
    from chatserver.chat.presence import Presence
    from chatserver.chat.registration import RegistrationLimits
    from chatserver.journal.base import Journal
    from chatserver.net.sendqueue import SendQueue
    from chatserver.store.accounts import Accounts

_log = structlog.get_logger()

# Maximum time between the first and the second connection: some clients send before both are registered.
_SECOND_CONNECTION_SECONDS = 5.0


class Guest:
    """A guest with one connection, from its claim to its end. The lock of Guests guards all changes."""

    __slots__ = ("account", "address", "has_left", "member", "name", "send_queues")

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.send_queues: list[SendQueue] = []
        # The account row of the guest's messages; set after the journal has the claim.
        self.account: Account | None = None
        # Set when the guest comes online.
        self.member: Member | None = None
        self.has_left = False

    @property
    def is_online(self) -> bool:
        """True if the guest is logged in and has not left."""
        return self.member is not None and not self.has_left

    def is_late(self, now: float) -> bool:  # noqa: ARG002 -- that of pairs
        """True if another guest may take the name."""
        return False


class GuestPair(Guest):
    """A guest with two connections, from the first of them to the end of either."""

    __slots__ = ("_clock", "_wait_over", "_wait_until", "registered", "sides", "window")

    def __init__(self, name: str, address: str, wait_until: float, clock: Callable[[], float]) -> None:
        super().__init__(name, address)
        self._clock = clock
        self.sides: dict[Side, SendQueue] = {}
        # Connections whose registration was confirmed.
        self.registered: set[Side] = set()
        self.window: DeliveryWindow | None = None
        # Set when both connections are registered, and when the wait for that ends in vain.
        self._wait_over = threading.Event()
        self._wait_until = wait_until

    def is_late(self, now: float) -> bool:
        """True if the second connection is late."""
        return len(self.sides) < len(Side) and now >= self._wait_until

    def wait_until_registered(self) -> None:
        """Wait for the registration of the other connection, within the limit."""
        self._wait_over.wait(max(0.0, self._wait_until - self._clock()))

    def stop_waiting(self) -> None:
        """Wake the thread that waits in :meth:`wait_until_registered`. For any thread."""
        self._wait_over.set()

    def finish(self) -> None:
        """Finish the send queues of both connections. For any thread."""
        for send_queue in self.send_queues:
            send_queue.finish()


class Guests:
    """The guests by name, from the first connection on. For any thread.

    A pair of which only one connection is there keeps its name for a few seconds only; otherwise the name would be
    blocked until the login timeout.
    """

    def __init__(
        self,
        accounts: Accounts,
        journal: Journal,
        presence: Presence,
        acked_delivery: AckedDelivery,
        on_empty: Callable[[], None],
        *,
        limits: RegistrationLimits,
        allowed: bool,
        reserved: Collection[str] = (),
        server: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``allowed``: true if guests may register. ``reserved``: names that they can't have.

        ``server``: the name of this server if it shares its log with others. ``on_empty`` is called after the last user
        left. ``clock`` returns seconds.
        """
        self._accounts = accounts
        self._journal = journal
        self._presence = presence
        self._acked_delivery = acked_delivery
        self._on_empty = on_empty
        self._limits = limits
        self._allowed = allowed
        self._reserved = frozenset(map(name_key, reserved))
        self._server = server
        self._clock = clock
        # Guards everything below, and all guests. Taken before the hub's lock. Single dict lookups need no lock.
        self._lock = threading.Lock()
        self._by_key: dict[str, Guest] = {}

    def set_allowed(self, *, allowed: bool) -> None:
        """Change whether guests may register, from now on. Those who are online stay."""
        self._allowed = allowed

    def is_claimed(self, name: str) -> bool:
        """True if a guest has claimed the name and is not late."""
        guest = self._by_key.get(name_key(name))
        return guest is not None and not guest.is_late(self._clock())

    def find(self, name: str) -> Account | None:
        """Return the account object of the online guest of this name, on any server. Raises StoreError."""
        guest = self._by_key.get(name_key(name))
        if guest is not None and guest.is_online:
            return guest.account
        claimed = self._accounts.find_claimed(name) if self._server else None
        return claimed if claimed is not None and self._presence.is_elsewhere(claimed.name) else None

    def end_run(self, _: str) -> None:
        """End the connections of all guests: the other servers took this one for gone, so their claims are over.

        For the journal's thread.
        """
        for guest in list(self._by_key.values()):
            for send_queue in list(guest.send_queues):
                send_queue.finish(hang_up=True)

    def claim(self, name: str, address: str, send_queue: SendQueue, *, is_exempt: bool = False) -> Guest:
        """Claim the name for a guest with one connection; call :meth:`join` after its login, or else :meth:`leave`.

        ``is_exempt``: the limits of registrations don't apply. Raises RequestError, StoreError, JournalClosedError.
        """
        self._check(name)
        self._remove_late(name, None, address)
        guest = Guest(name, address)
        guest.send_queues.append(send_queue)
        with self._lock:
            if self._by_key.setdefault(name_key(name), guest) is not guest:
                raise _name_taken(name)
        self._admit(guest, send_queue, is_exempt=is_exempt)
        return guest

    def claim_side(
        self, name: str, side: Side, address: str, send_queue: SendQueue, *, is_exempt: bool = False
    ) -> GuestPair:
        """Claim the name for one connection of a pair; call :meth:`confirm_registration` next. See :meth:`claim`."""
        self._check(name)
        self._remove_late(name, side, address)
        with self._lock:
            wait_until = self._clock() + _SECOND_CONNECTION_SECONDS
            guest = self._by_key.setdefault(name_key(name), GuestPair(name, address, wait_until, self._clock))
            is_possible = isinstance(guest, GuestPair) and guest.address == address and side not in guest.sides
            if not isinstance(guest, GuestPair) or not is_possible or guest.has_left:
                raise _name_taken(name)
            guest.sides[side] = send_queue
            guest.send_queues.append(send_queue)
            is_complete = len(guest.sides) == len(Side)
        if is_complete:
            self._admit(guest, send_queue, is_exempt=is_exempt)
        return guest

    def _check(self, name: str) -> None:
        """RequestError: no guest may have the name."""
        check_username(name)
        if not self._allowed:
            raise RequestError(ErrorCode.NOT_LOGGED_IN, "This server lets no guests in.")
        if name_key(name) in self._reserved or (not self.is_claimed(name) and self._accounts.find(name) is not None):
            raise _name_taken(name)

    def join(self, guest: Guest, member: Member) -> None:
        """Note that the guest with one connection is a member of the hub."""
        with self._lock:
            guest.member = member

    def rename(self, guest: Guest, name: str, *, is_exempt: bool = False) -> None:
        """Give a guest with one connection, who is online, another name. The hub has then told all who see it.

        Call it in the thread that calls :meth:`leave`. Raises RequestError, StoreError, JournalClosedError.
        """
        self._check(name)
        old, former_key, key = guest.account, name_key(guest.name), name_key(name)
        assert old is not None
        self._remove_late(name, None, guest.address)
        with self._lock:  # both names are taken during the commit
            if self._by_key.setdefault(key, guest) is not guest:
                raise _name_taken(name)
        outcome: Any = None
        try:
            outcome = self._append(
                RenameGuest(old.name, old.claim, name, self._server), name, guest, is_exempt=is_exempt
            )
        except OSError as error:
            raise write_error(error, "the name was not changed") from error
        finally:
            with self._lock:
                if isinstance(outcome, GuestRenamed):
                    guest.name, guest.account = name, outcome.account
                if key != former_key:
                    del self._by_key[former_key if isinstance(outcome, GuestRenamed) else key]
        if outcome is Problem.NOT_PERMITTED:
            reason = f"You are muted or banned, or the name {name} is; your name was not changed."
            raise RequestError(ErrorCode.NOT_PERMITTED, reason)
        if isinstance(outcome, Problem):
            raise _name_taken(name)
        _log.info("guest renamed", user=old.name, name=name)

    def _remove_late(self, name: str, side: Side | None, address: str) -> None:
        """Remove a late pair of this name, unless this connection is the missing one."""
        late = self._by_key.get(name_key(name))
        if not isinstance(late, GuestPair):
            return
        if side is not None and late.address == address and side not in late.sides:
            return
        with self._lock:
            if late.has_left or not late.is_late(self._clock()):
                return
            (send_queue,) = late.send_queues
        self.leave(late, send_queue)
        send_queue.finish(hang_up=True)

    def confirm_registration(self, guest: GuestPair, side: Side) -> None:
        """Confirm the registration of one connection. With the second connection, the guest joins the room."""
        with self._lock:
            if guest.has_left:
                return
            guest.registered.add(side)
            if len(guest.registered) == len(Side):
                self._join_pair(guest)
            guest.sides[side].put([Welcome(account=AccountKind.GUEST, username=guest.name, users=(), last_id=None)])
            if guest.window is not None:  # after the confirmation
                self._acked_delivery.release(guest.window)
        if guest.window is not None:
            guest.stop_waiting()
            _log.info("login", user=guest.name, account=AccountKind.GUEST.value, address=guest.address)

    def leave(self, guest: Guest, send_queue: SendQueue) -> None:
        """Remove the guest after the end of the connection of this queue: close the other one and free the name.

        A guest with one connection has left the hub before.
        """
        with self._lock:
            if guest.has_left:
                return
            guest.has_left = True
            account = guest.account
        if isinstance(guest, GuestPair):
            guest.stop_waiting()
        if isinstance(guest, GuestPair) and guest.window is not None:
            _log.info("logout", user=guest.name, address=guest.address)
            self._acked_delivery.leave(guest.window)
            if self._presence.remove(guest.name):
                self._on_empty()
        if account is not None:
            self._release(account)
            if not isinstance(guest, GuestPair):
                self._release_now()
        with self._lock:
            del self._by_key[name_key(guest.name)]
        for other in guest.send_queues:  # last, because the peer may reconnect when it sees the end
            if other is not send_queue:
                other.finish(hang_up=True)

    def expel(self, entry: KickFromServer | Sanction) -> None:
        """End the connections of pairs after a kick or ban; the hub ends those of the others. For its thread."""
        network = entry.network if isinstance(entry, Sanction) else ""
        for guest in [each for each in list(self._by_key.values()) if isinstance(each, GuestPair)]:
            is_target = guest.account is not None and guest.account.id == entry.account_id
            if is_target or (network and is_in_network(guest.address, network)):
                for send_queue in list(guest.send_queues):
                    send_queue.finish(hang_up=True)

    def address_of(self, name: str) -> str | None:
        """Return the address of the online guest of this name, if it is on this server."""
        guest = self._by_key.get(name_key(name))
        return guest.address if guest is not None and guest.is_online else None

    def _admit(self, guest: Guest, send_queue: SendQueue, *, is_exempt: bool) -> None:
        """Give the guest its row, or let it leave. Raises RequestError, JournalClosedError."""
        try:
            account = self._take_row(guest, is_exempt=is_exempt)
        except BaseException:
            self.leave(guest, send_queue)
            raise
        with self._lock:
            guest.account = account
        if guest.has_left:  # during the commit
            self._release(account)

    def _take_row(self, guest: Guest, *, is_exempt: bool) -> Account:
        """Claim the name in the journal, and return the row of the guest. Raises RequestError.

        A new spelling makes a new row, so it counts as a registration.
        """
        entry = GuestClaim(guest.name, self._server)
        try:
            account: Account | None = self._append(entry, guest.name, guest, is_exempt=is_exempt)
        except OSError as error:
            _log.error("guest not admitted", user=guest.name, error=str(error))
            reason = "The server can't write to its disk; the guest was not registered."
            raise RequestError(ErrorCode.NOT_LOGGED_IN, reason) from error
        if account is None:  # an account was registered at the same time
            raise _name_taken(guest.name)
        return account

    def _append(self, entry: GuestClaim | RenameGuest, name: str, guest: Guest, *, is_exempt: bool) -> Any:
        """Append the entry for this name; count it if the spelling is new. Returns the outcome. Raises OSError."""
        network, outcome = network_of(guest.address), None
        is_counted = not is_exempt and not self._accounts.has_guest(name)
        if is_counted:
            self._limits.take(network)
        try:
            (outcome,) = self._journal.append([entry], guest.member).result()
        finally:
            if is_counted and not isinstance(outcome, (Account, GuestRenamed)):
                self._limits.give_back(network)
        return outcome

    def _release(self, account: Account) -> None:
        """Give up the name in the journal. The next commit does so first, so a later claim or registration gets it."""
        self._journal.defer((account.name, account.claim), GuestRelease(account.name, account.claim))

    def _release_now(self) -> None:
        """Commit the release soon: the memberships of the guest end with it, and its rooms may need a new owner."""
        with suppress(JournalClosedError):  # then the journal's last commit has it
            self._journal.append(())

    def _join_pair(self, guest: GuestPair) -> None:
        """Join the room with both connections. The lock of Guests is held."""
        assert guest.account is not None
        receiving = guest.sides[Side.RECEIVING]
        guest.window = DeliveryWindow(guest.account, receiving)
        guest.member = Member(guest.account.id, guest.name, receiving, address=guest.address, is_guest=True)
        self._acked_delivery.join(guest.window)
        self._presence.add(guest.name)  # last, so that an announced guest can be found


def _name_taken(name: str) -> RequestError:
    return RequestError(ErrorCode.BAD_USERNAME, f"The name {name} is in use, or belongs to an account.")
