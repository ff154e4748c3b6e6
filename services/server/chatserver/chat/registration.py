"""Registration of new names: its mode, its limits, and invitations."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from chatprotocol.duration import format_wait
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import INVITATION_MAX_BYTES
from chatprotocol.rules import name_key
from chatserver.chat.passwords import Urgency
from chatserver.chat.problems import write_error
from chatserver.clock import wall_ms
from chatserver.journal.entries import AccountProblem, GuestRelease, NewAccount
from chatserver.store.accounts import Account, Role
from chatserver.store.invitations import hash_code

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from chatserver.chat.passwords import Passwords
    from chatserver.counters import Counters
    from chatserver.journal.base import Journal
    from chatserver.store.accounts import Accounts

# The limits of new names are per hour from one network, and per ten minutes from all.
_NETWORK_WINDOW_SECONDS = 3_600.0
_WINDOW_SECONDS = 600.0


class RegistrationLimits:
    """Limits how many names are registered, by accounts and guests together. For any thread.

    A registration is counted before the password is hashed, and given back if it fails. The memory is bounded by the
    limits: a network is remembered for an hour after it registered a name.
    """

    def __init__(
        self,
        network_max: int,
        all_max: int,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_reserved: Callable[[], bool] = lambda: False,
    ) -> None:
        """0 is no limit. ``clock`` returns seconds. ``is_reserved``: true if free connections are for known users."""
        self._network_max = network_max
        self._all_max = all_max
        self._counters = counters
        self._clock = clock
        self._is_reserved = is_reserved
        # Guards the times of the counted registrations: of all networks, and of each.
        self._lock = threading.Lock()
        self._all: deque[float] = deque()
        self._networks: dict[str, deque[float]] = {}

    def change(self, network_max: int, all_max: int) -> None:
        """Change the limits, from now on."""
        with self._lock:
            self._network_max = network_max
            self._all_max = all_max

    def take(self, network: str) -> None:
        """Count a new name. Raises RequestError if that exceeds a limit."""
        if self._is_reserved():
            self._counters.limits_hit["reserved_percent"] += 1
            raise RequestError(
                ErrorCode.SERVER_FULL, "The server is nearly full and accepts known users only; try again later."
            )
        now = self._clock()
        with self._lock:
            for each in [each for each, times in self._networks.items() if times[-1] <= now - _NETWORK_WINDOW_SECONDS]:
                del self._networks[each]
            its_times = self._networks.get(network, deque())
            its_wait = _seconds_until_free(its_times, self._network_max, now, _NETWORK_WINDOW_SECONDS)
            wait = _seconds_until_free(self._all, self._all_max, now, _WINDOW_SECONDS)
            if not its_wait and not wait:
                if self._all_max:
                    self._all.append(now)
                if self._network_max:
                    its_times.append(now)
                    self._networks[network] = its_times
                return
        name, what = ("address_registrations", "your address") if its_wait else ("registrations", "all users together")
        self._counters.limits_hit[name] += 1
        wait = max(its_wait, wait)
        raise RequestError(
            ErrorCode.RATE_LIMITED,
            f"Too many new names from {what}; nothing was registered. Try again in {format_wait(math.ceil(wait))}.",
            retry_seconds=wait,
        )

    def give_back(self, network: str) -> None:
        """Give back a registration that was counted and then failed."""
        with self._lock:
            if self._all:
                self._all.pop()
            its_times = self._networks.get(network)
            if its_times:
                its_times.pop()
                if not its_times:
                    del self._networks[network]


class Registration:
    """Registers names. For any thread."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        journal: Journal,
        passwords: Passwords,
        limits: RegistrationLimits,
        is_guest: Callable[[str], bool],
        mode: str,
        operators: Collection[str] = (),
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``mode``: open, invite or closed. ``operators``: names that need an invitation, and become operators.

        ``is_guest``: true for the names of guests.
        """
        self._accounts = accounts
        self._journal = journal
        self._passwords = passwords
        self._limits = limits
        self._is_guest = is_guest
        self._mode = mode
        self._operators = frozenset(map(name_key, operators))
        self._now_ms = now_ms

    def set_mode(self, mode: str) -> None:
        """Change the mode of registration, from now on."""
        self._mode = mode

    @property
    def is_closed(self) -> bool:
        """True if no name can be registered. Unknown names must then look like known ones."""
        return self._mode == "closed"

    def check(self, username: str, invitation: str | None, *, is_own: bool = False) -> None:
        """Check if an unknown name can be registered, before its password is known. Raises RequestError.

        ``is_own``: the guest who has the name asks.
        """
        if not is_own and self._is_guest(username):
            raise name_in_use(username)
        is_reserved = name_key(username) in self._operators
        if self._mode == "open" and not is_reserved:
            return
        if not invitation:
            reason = (
                f"The name {username} is reserved for an operator of this server: it needs an invitation code."
                if is_reserved
                else f"The name {username} is new, and this server needs an invitation code for new names."
            )
            raise RequestError(ErrorCode.INVITATION_REQUIRED, reason)
        if len(invitation) > INVITATION_MAX_BYTES or not self._accounts.has_invitation(
            hash_code(invitation), self._now_ms()
        ):
            raise _bad_invitation()

    def register(
        self,
        username: str,
        password: str,
        invitation: str | None,
        network: str,
        *,
        is_exempt: bool,
        is_abandoned: Callable[[float], bool],
        guest: Account | None = None,
    ) -> Account | None:
        """Return the new account, or None if the name was taken meanwhile. Raises RequestError.

        ``is_exempt``: the limits don't apply to this network. See Passwords for ``is_abandoned``. ``guest``: the guest
        who has the name now, and gives it up for the account.
        """
        self.check(username, invitation, is_own=guest is not None)
        is_reserved = name_key(username) in self._operators
        code_hash = hash_code(invitation or "") if is_reserved or self._mode == "invite" else ""
        role = Role.OPERATOR if is_reserved else Role.USER
        if not is_exempt:
            self._limits.take(network)
        outcome: object = None
        try:
            password_hash = self._passwords.hash(password, Urgency.REGISTRATION, is_abandoned)
            given_up = [GuestRelease(guest.name, guest.claim)] if guest is not None else []
            account = NewAccount(username, password_hash, network, code_hash, role)
            *_, outcome = self._journal.append([*given_up, account]).result()
        except OSError as error:
            raise write_error(error, "nothing was registered") from error
        finally:
            if not is_exempt and not isinstance(outcome, Account):
                self._limits.give_back(network)
        if outcome is AccountProblem.BAD_INVITATION:
            raise _bad_invitation()
        return outcome if isinstance(outcome, Account) else None


def name_in_use(username: str) -> RequestError:
    return RequestError(ErrorCode.BAD_USERNAME, f"A guest uses the name {username} now; choose another one, or wait.")


def _bad_invitation() -> RequestError:
    return RequestError(
        ErrorCode.INVITATION_REQUIRED,
        "This invitation code is wrong, used or expired; ask an operator for another one.",
    )


def _seconds_until_free(times: deque[float], most: int, now: float, window_seconds: float) -> float:
    """Drop the times before the window. Returns the seconds until a name may be registered; 0: at once."""
    while times and times[0] <= now - window_seconds:
        times.popleft()
    return times[0] + window_seconds - now if most and len(times) >= most else 0.0
