"""Authentication: who a peer is, by a password or a session token; registration, and changes of the password.

A login has a password or a session token. A valid token needs no turn and no hash. An unknown one counts as a wrong try
of its network, so that its sender is slowed down like one who guesses passwords.

The result is a :class:`Proof`. The password may be changed, or the token revoked, before the user is online. Therefore
the login calls :meth:`Authentication.check_standing` after the hub watches the account: see login.py.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import structlog
from msgspec.structs import replace

from chatprotocol import requests
from chatprotocol.duration import format_wait
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind
from chatprotocol.rules import check_label, check_password, check_username, name_key
from chatserver.chat.passwords import AbandonedError, PasswordsClosedError, Urgency, Verdict
from chatserver.chat.problems import append_one, sanction_error
from chatserver.chat.registration import name_in_use
from chatserver.journal.entries import PasswordChange

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.catch_up import CatchUp
    from chatserver.chat.login_throttle import LoginThrottle, Try
    from chatserver.chat.passwords import Passwords
    from chatserver.chat.registration import Registration
    from chatserver.chat.room import Member
    from chatserver.chat.tokens import SessionTokens
    from chatserver.counters import Counters
    from chatserver.journal.base import Journal
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.moderation import ModerationRecords, Standing
    from chatserver.store.tokens import FoundToken

_log = structlog.get_logger()

# How often a try that waits looks if its peer is still there.
_LOOK_SECONDS = 1.0
# Time for which a server of several looks for an unknown token: another one may have made it a moment ago.
_TOKEN_WAIT_SECONDS = 1.0


class Proof(NamedTuple):
    """The account of a login, and what has proved that the peer is its user: a password, or a token."""

    account: Account
    kind: AccountKind
    password: str = ""
    token_id: str = ""
    # The time of the account's last login from the peer's network: see LoginAccount.
    last_login_ms: int | None = None


class Peer(NamedTuple):
    """The connection of a login."""

    address: str
    # The address, as limits count it: see network_of.
    network: str
    # True if the limits of addresses don't apply. Wrong passwords cost time nevertheless.
    is_exempt: bool
    # Wrong passwords on this connection.
    wrong_passwords: int
    # True if a login that has waited for this number of seconds need not be answered: its peer is gone.
    is_abandoned: Callable[[float], bool]
    # Called before the try waits for its turn, with a function that makes it look at ``is_abandoned``; and after the
    # wait, with None.
    note_wait: Callable[[Callable[[], None] | None], None]


class Authentication:
    """Finds and registers the accounts of peers. For any thread."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        journal: Journal,
        passwords: Passwords,
        throttle: LoginThrottle,
        registration: Registration,
        counters: Counters,
        records: ModerationRecords,
        tokens: SessionTokens,
        catch_up: CatchUp,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` returns seconds."""
        self._accounts = accounts
        self._journal = journal
        self._passwords = passwords
        self._throttle = throttle
        self._registration = registration
        self._counters = counters
        self._records = records
        self._tokens = tokens
        self._catch_up = catch_up
        self._clock = clock
        # Set once, at shutdown.
        self._is_stopping = False

    def check_address(self, address: str) -> None:
        """Raise RequestError if the address is banned."""
        ban = self._records.ban_of_address(address)
        if ban is not None:
            raise sanction_error(ban)

    def account_kind(self, login: requests.Login) -> AccountKind:
        """Return NEW or EXISTING for the name. RequestError: the name can't be registered."""
        check_username(login.username)
        if self._registration.is_closed or self._accounts.find(login.username) is not None:
            return AccountKind.EXISTING
        self._registration.check(login.username, login.invitation)
        return AccountKind.NEW

    def authenticate(self, login: requests.Login, password: str, peer: Peer) -> Proof:
        """Find the account of the token, or of the name and password; register a new name.

        RequestError: also for a banned address, before the password is checked.

        Waits for its turn among other tries, and for a hasher: see login_throttle.py and passwords.py.
        """
        if login.token is not None:
            return self._authenticate_token(login, login.token, peer)
        check_username(login.username)
        check_password(password)
        if login.remember is not None:
            check_label(login.remember)
        account, last_login_ms = self._find_account(login.username, peer)
        if account is None and not self._registration.is_closed:
            registered = self._register(login, password, peer)
            if registered is not None:
                return registered
            # Another login registered it at the same time.
            account, last_login_ms = self._find_account(login.username, peer)
            if account is None:
                raise name_in_use(login.username)
        return self._authenticate_password(login, password, peer, account, last_login_ms)

    def prove(self, request: requests.Authenticate, peer: Peer, guest: Account | None = None) -> Proof:
        """Find or register the account of a user who does not log in yet. Raises RequestError, also for a banned one.

        ``guest``: the guest who registers its own name, and then has it no more.
        An unknown name takes the same time as a wrong password, and is answered by the same error.
        """
        name = request.username
        if request.token is not None:
            proof = self._authenticate_token(requests.Login(name, token=request.token), request.token, peer)
        else:
            check_username(name)
            check_password(request.password)
            login = requests.Login(name, request.password)
            account, last_login_ms = self._find_account(name, peer)
            if request.registers:
                proof = self._register_new(login, request.password, peer, account, guest)
            else:
                proof = self._authenticate_password(login, request.password, peer, account, last_login_ms)
        self.check_standing(self._records.standing(proof.account.id, peer.address), proof)
        return proof

    def _find_account(self, username: str, peer: Peer) -> tuple[Account | None, int | None]:
        """Return the account, and the time of its last login from the peer's network.

        RequestError: the address is banned.
        """
        found = self._accounts.find_for_login(username, peer.network)
        if found.has_network_bans:
            self.check_address(peer.address)
        return found.account, found.last_login_ms

    def _register_new(
        self, login: requests.Login, password: str, peer: Peer, account: Account | None, guest: Account | None
    ) -> Proof:
        """Register a name. RequestError: it is known, as that of the account, or can't be registered."""
        if self._registration.is_closed:  # first: on a closed server the names must stay unknown
            raise RequestError(
                ErrorCode.NOT_PERMITTED, "This server registers no new names; ask an operator for an account."
            )
        if account is None:
            proof = self._register(login, password, peer, guest)
            if proof is not None:
                return proof
        raise RequestError(ErrorCode.BAD_USERNAME, f"The name {login.username} belongs to an account.")

    def _register(self, login: requests.Login, password: str, peer: Peer, guest: Account | None = None) -> Proof | None:
        """Register a new name; None if it was taken meanwhile. Raises RequestError."""
        account = self._registration.register(
            login.username,
            password,
            login.invitation,
            peer.network,
            is_exempt=peer.is_exempt,
            is_abandoned=peer.is_abandoned,
            guest=guest,
        )
        return None if account is None else Proof(account, AccountKind.NEW, password)

    def _authenticate_password(
        self, login: requests.Login, password: str, peer: Peer, account: Account | None, last_login_ms: int | None
    ) -> Proof:
        """Check the password. An unknown name, None, costs the same and has the same error as a wrong password."""
        is_known = last_login_ms is not None
        enter = partial(
            self._throttle.enter,
            account=name_key(login.username),
            network=peer.network,
            is_known=is_known,
            failures=peer.wrong_passwords,
        )
        password_hash = account.password_hash if account is not None else None
        urgency = Urgency.KNOWN if is_known else Urgency.LOGIN
        verdict = self._check(
            enter, login.username, password_hash, password, urgency, peer.is_abandoned, peer.note_wait
        )
        if verdict is Verdict.WRONG or account is None:
            raise RequestError(ErrorCode.WRONG_PASSWORD, f"That is not the password of {login.username}.")
        account = self._accept(account, login, password, verdict)
        return Proof(account, AccountKind.EXISTING, password, last_login_ms=last_login_ms)

    def _authenticate_token(self, login: requests.Login, token: str, peer: Peer) -> Proof:
        """Find the account of a token. RequestError: it is not valid, or the user must change the password."""
        self.check_address(peer.address)
        found = self._find_token(token, peer.network)
        if found is None or (login.username and name_key(login.username) != name_key(found.account.name)):
            # A try of no account: it delays the network alone.
            enter = partial(
                self._throttle.enter, account="", network=peer.network, is_known=True, failures=peer.wrong_passwords
            )
            attempt = self._wait_for_turn(
                enter, "Too many wrong tokens from your address", peer.is_abandoned, peer.note_wait
            )
            self._throttle.finish(attempt, self._clock(), was_right=False)
            raise RequestError(ErrorCode.BAD_TOKEN, "This session has ended or was revoked; log in with the password.")
        if found.account.must_change_password:
            raise _must_change_password(found.account.name)
        self._tokens.note_use(found)
        return Proof(found.account, AccountKind.EXISTING, token_id=found.id, last_login_ms=found.last_login_ms)

    def _find_token(self, token: str, network: str) -> FoundToken | None:
        """Find a token. One of several servers may not have a token yet that another one has just made."""
        for _ in self._catch_up.looks(_TOKEN_WAIT_SECONDS):
            found = self._tokens.find(token, network)
            if found is not None:
                return found
        return None

    def _accept(self, checked: Account, login: requests.Login, password: str, verdict: Verdict) -> Account:
        """Return the account after a right password. Replace the password or its hash, if needed.

        RequestError: the password must be changed, or was changed meanwhile. Only the join finds that in the usual
        case, in which the account is not read again: see check_standing.
        """
        if verdict is Verdict.RIGHT and login.new_password is None and not checked.must_change_password:
            return checked
        key = name_key(login.username)
        account = self._accounts.find(login.username)
        if account is not None and account.password_hash != checked.password_hash:
            # It was replaced during the wait: by an operator, or by another login that found it outdated.
            verdict = self._passwords.check(account.password_hash, password, account=key)
        if verdict is Verdict.WRONG or account is None or account.id != checked.id:
            raise RequestError(
                ErrorCode.WRONG_PASSWORD, f"The password of {login.username} was changed meanwhile; log in again."
            )
        new = login.new_password
        if account.must_change_password and (
            new is None or self._passwords.check(account.password_hash, new, account=key) is not Verdict.WRONG
        ):
            raise _must_change_password(account.name)
        if new is not None:
            ban = self._records.standing(account.id, "").ban  # of the account; that of the address was checked before
            if ban is not None:
                raise sanction_error(ban)
            return self._replace_password(account, new)
        if verdict is Verdict.OUTDATED:
            new_hash = self._passwords.hash(password, account=key)
            self._journal.append([PasswordChange(account.id, account.password_hash, new_hash, is_rehash=True)])
        return account

    def check_standing(self, standing: Standing, proof: Proof) -> None:
        """RequestError: the user is banned or deleted, or the password was changed since the account was read.

        A change by an administrator ended the connections of the user, but not this one.
        """
        name = proof.account.name
        if standing.ban is not None:
            raise sanction_error(standing.ban)
        if standing.password_hash is None:
            raise RequestError(ErrorCode.WRONG_PASSWORD, f"The account {name} was deleted.")
        is_same = proof.token_id or standing.password_hash == proof.account.password_hash
        if not is_same and (
            self._passwords.check(standing.password_hash, proof.password, account=name_key(name)) is Verdict.WRONG
        ):
            raise RequestError(ErrorCode.WRONG_PASSWORD, f"The password of {name} was changed meanwhile; log in again.")
        if standing.must_change_password:
            raise _must_change_password(name)

    def change_password(self, member: Member, old: str, new: str, is_abandoned: Callable[[float], bool]) -> None:
        """Replace the password of a logged-in user; on return it is committed. Raises RequestError.

        The user's tokens are revoked, except that of the member.

        The tries of all connections of the account wait for each other, apart from logins.
        """
        username = member.name
        check_password(new)
        account = self._accounts.find(username)
        enter = partial(self._throttle.enter_change, account=name_key(username))
        password_hash = account.password_hash if account is not None else None
        verdict = self._check(enter, username, password_hash, old, Urgency.CHANGE, is_abandoned)
        if account is None or verdict is Verdict.WRONG:
            raise RequestError(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}; it was not changed.")
        self._replace_password(account, new, Urgency.CHANGE, member.token_id)

    def _replace_password(
        self, account: Account, new: str, urgency: Urgency = Urgency.KNOWN, kept_token: str = ""
    ) -> Account:
        """Return the account with the new password, which is committed. Raises RequestError."""
        check_password(new)
        new_hash = self._passwords.hash(new, urgency, account=name_key(account.name))
        change = PasswordChange(account.id, account.password_hash, new_hash, kept_token)
        if not append_one(self._journal, change, "the password was not changed"):
            raise RequestError(
                ErrorCode.WRONG_PASSWORD, f"The password of {account.name} was changed meanwhile; log in again."
            )
        _log.info("password changed", user=account.name)
        return replace(account, password_hash=change.new_hash, must_change_password=False)

    def stop_waiting(self) -> None:
        """Wake all waiting tries at shutdown: they are refused. For any thread."""
        self._is_stopping = True
        self._catch_up.stop()
        self._throttle.wake_all()

    def _check(
        self,
        enter: Callable[..., Try],
        username: str,
        password_hash: str | None,
        password: str,
        urgency: Urgency,
        is_abandoned: Callable[[float], bool],
        note_wait: Callable[[Callable[[], None] | None], None] = lambda _: None,
    ) -> Verdict:
        """Check a password after the wait of the throttle. Raises RequestError if the wait would be too long."""
        reason = f"Too many wrong passwords for {username} or from your address"
        attempt = self._wait_for_turn(enter, reason, is_abandoned, note_wait)
        verdict = None
        try:
            verdict = self._passwords.check(password_hash, password, urgency, is_abandoned, name_key(username))
        finally:
            if verdict is None:
                self._throttle.leave(attempt, self._clock())
            else:
                self._throttle.finish(attempt, self._clock(), was_right=verdict is not Verdict.WRONG)
        return verdict

    def _wait_for_turn(
        self,
        enter: Callable[..., Try],
        reason: str,
        is_abandoned: Callable[[float], bool],
        note_wait: Callable[[Callable[[], None] | None], None],
    ) -> Try:
        """Enter the throttle and wait. On return the try may be made. ``reason`` is that of the refusal.

        RequestError: it takes too long. AbandonedError, PasswordsClosedError.
        """
        # Not an event: each login needs one, and an event takes 6 us.
        wakeups: SimpleQueue[None] = SimpleQueue()
        began_at = now = self._clock()
        wake = partial(wakeups.put, None)
        attempt = enter(now, wake=wake)
        if (wait_seconds := self._throttle.poll(attempt, now)) is None:
            return attempt
        note_wait(wake)
        try:
            while wait_seconds is not None:
                if now >= attempt.deadline or self._is_stopping or is_abandoned(now - began_at):
                    break
                with suppress(Empty):
                    wakeups.get(timeout=min(wait_seconds, _LOOK_SECONDS))
                now = self._clock()
                wait_seconds = self._throttle.poll(attempt, now)
        finally:
            note_wait(None)
        if wait_seconds is None:
            return attempt
        retry_seconds = max(1.0, self._throttle.leave(attempt, now))
        if self._is_stopping:
            raise PasswordsClosedError
        if now < attempt.deadline:
            raise AbandonedError
        self._counters.limits_hit["logins"] += 1
        raise RequestError(
            ErrorCode.TOO_MANY_ATTEMPTS,
            f"{reason}; try again in {format_wait(math.ceil(retry_seconds))}.",
            retry_seconds=retry_seconds,
        )


def _must_change_password(name: str) -> RequestError:
    return RequestError(
        ErrorCode.PASSWORD_CHANGE_REQUIRED,
        f"The password of {name} must be replaced by a new one; only clients of json can do this.",
    )
