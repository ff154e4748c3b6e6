"""The entrance: who somebody is, by name and password, and what they missed while they were away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, Refused, Welcome
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.rules import check_password, check_username, name_key
from chatserver.chat.member import Member
from chatserver.chat.passwords import Verdict
from chatserver.memory import ShortOfMemoryError
from chatserver.store.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Login
    from chatserver.chat.hub import Joined
    from chatserver.chat.member import SendQueue
    from chatserver.chat.services import Services
    from chatserver.store.accounts import Account

    Query = Callable[[int, int, int, int], tuple[Message, ...]]

_log = structlog.get_logger()

# Stands for the address under which wrong passwords of users who are logged in are counted.
_LOGGED_IN = "logged in"
# What was missed goes out in pages of this many messages, so that no login holds all of it in memory.
_PAGE_MESSAGES = 500
_UNREADABLE = Refused(
    ErrorCode.INTERNAL, "The server's database is damaged: messages that you missed are left out here."
)


class _Range(NamedTuple):
    """What the query finds after one message and up to another one."""

    query: Query
    after_id: int
    upto_id: int


class CutShortError(Exception):
    """The user was welcomed, and can't be told all that was missed. The text says why; the cause is the error."""


def account_kind(services: Services, username: str) -> AccountKind:
    """Would this name be registered, or is it? Raises Refusal for one that can't be."""
    check_username(username)
    is_new = services.registration_open and services.accounts.find(username) is None
    if is_new and services.guests.is_claimed(username):
        raise _in_use(username)
    return AccountKind.NEW if is_new else AccountKind.EXISTING


def identify(services: Services, username: str, password: str, address: str) -> tuple[Account, AccountKind]:
    """The account that the password opens, registered now if the name is new. Raises Refusal."""
    check_username(username)
    check_password(password)
    _check_throttle(services, address, username)
    account = services.accounts.find(username)
    if account is None and services.registration_open:
        registered = _register(services, username, password)
        if registered is not None:
            return registered, AccountKind.NEW
        account = services.accounts.find(username)  # somebody else was faster by a moment
        if account is None:
            raise _in_use(username)
    verdict = services.passwords.check(account.password_hash if account else None, password)
    _check_throttle(services, address, username)  # others may have failed while this one waited for its turn
    if verdict is Verdict.WRONG or account is None:
        services.login_throttle.note_failure(address, name_key(username))
        raise RequestError(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}.")
    if verdict is Verdict.OUTDATED:
        services.journal.replace_password_hash(account, services.passwords.hash(password))
    return account, AccountKind.EXISTING


def change_password(services: Services, username: str, old: str, new: str) -> None:
    """Replace the password of somebody who is logged in; on return the new one is on the disk. Raises Refusal.

    Wrong tries count for all of the account's connections together, and not for its logins.
    """
    check_password(new)
    _check_throttle(services, _LOGGED_IN, username)
    account = services.accounts.find(username)
    if account is None or services.passwords.check(account.password_hash, old) is Verdict.WRONG:
        services.login_throttle.note_failure(_LOGGED_IN, name_key(username))
        raise RequestError(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}; it was not changed.")
    try:
        changed = services.journal.replace_password_hash(account, services.passwords.hash(new)).result()
    except OSError as error:
        reason = "The server can't write to its disk; the password was not changed."
        raise RequestError(ErrorCode.INTERNAL, reason) from error
    if changed is None:
        raise RequestError(ErrorCode.WRONG_PASSWORD, f"The password of {username} was changed meanwhile; log in again.")
    _log.info("password changed", user=username)


def _check_throttle(services: Services, address: str, username: str) -> None:
    if services.login_throttle.is_blocked(address, name_key(username)):
        raise RequestError(ErrorCode.TOO_MANY_ATTEMPTS, f"Too many wrong passwords for {username}; wait a minute.")


def _in_use(username: str) -> RequestError:
    return RequestError(ErrorCode.BAD_USERNAME, f"A guest uses the name {username} now; choose another one, or wait.")


def _register(services: Services, username: str, password: str) -> Account | None:
    """The new account, or None where the name is somebody else's."""
    if services.guests.is_claimed(username):  # before a hash is computed for nothing
        return None
    password_hash = services.passwords.hash(password)
    try:
        return services.journal.create_account(username, password_hash)
    except OSError as error:
        raise RequestError(ErrorCode.INTERNAL, "The server can't write to its disk; nothing was registered.") from error


def come_in(services: Services, send_queue: SendQueue, account: Account, kind: AccountKind, login: Login) -> Member:
    """Take a seat, be welcomed, and get what was missed before anything new.

    StoreError, ShortOfMemoryError: what was missed can't be read, and nothing was said. CutShortError: it can't be read
    any further.
    """
    member = Member(account.id, account.name, send_queue)
    services.hub.check_acknowledged(account.id)
    joined = services.hub.join(member)
    users = services.presence.enter(member)
    try:
        ranges, since = _missed(services, account, login, joined)
        history_id = services.identity.history_id if login.wants_history_id else None
        # While another device is there the mark stands still, though that one gets everything.
        is_known = joined.is_alone and kind is AccountKind.EXISTING
        seen_id = max(account.delivered_id, joined.delivered_id) if is_known else None
        welcome = Welcome(kind, account.name, users, joined.last_id, history_id, since, seen_id)
        last_page, is_whole = _send_pages(send_queue, welcome, account.id, ranges)
        if last_page is not None and not is_whole and not login.is_stepwise:
            last_page = (*last_page, _UNREADABLE)
        if last_page is not None:
            send_queue.release(last_page)
            if is_whole:  # else direct messages count as not delivered, and come again
                services.hub.catch_up(member, joined.last_id)
        # Otherwise the connection ends, and nothing that is new may follow the gap.
    except BaseException:
        go_out(services, member)
        raise
    return member


def _missed(services: Services, account: Account, login: Login, joined: Joined) -> tuple[list[_Range], int | None]:
    """What is to be read for a user who comes in, and the ``since`` of the welcome: None if theirs can be used.

    What a client saw last may be gone, after a backup was restored. It then gets what is new since the restored history
    and its own went apart. If that is not known, it gets the last messages, for the whole history may be millions, and
    before them the direct messages that still wait, which it would not get at any later login.
    """
    messages, last_id = services.messages, joined.last_id
    delivered_id = max(account.delivered_id, joined.delivered_id)
    since, history_id = login.since, login.history_id
    if since is None:
        return [_Range(messages.waiting, delivered_id, last_id)], None
    is_other = history_id is not None and history_id != services.identity.history_id
    if since == 0 or (since <= last_id and not is_other):
        return [_Range(messages.missed, since, last_id)], since if is_other else None
    shared_id = services.identity.shared_upto(history_id)
    if shared_id is not None:
        after_id = min(since, shared_id)
        return [_Range(messages.missed, after_id, last_id)], after_id
    recent = messages.history(account.id, last_id + 1, HISTORY_MAX_MESSAGES)
    after_id = recent[0].id - 1 if recent else last_id
    return [_Range(messages.waiting, delivered_id, after_id), _Range(messages.missed, after_id, last_id)], after_id


def go_out(services: Services, member: Member) -> None:
    """Give the seat up."""
    services.hub.leave(member)
    if services.presence.leave(member):
        services.on_empty()


def _send_pages(
    send_queue: SendQueue, welcome: Welcome, account_id: int, ranges: Sequence[_Range]
) -> tuple[Sequence[Event] | None, bool]:
    """Put the welcome and what the queries find, a page at a time, no faster than the peer reads.

    Returns what comes last, which was not put yet, or None when the connection ends; and whether that is all that was
    to be sent. From a damaged page on nothing is: to come again would not help, so the user is let in.
    """
    head: tuple[Event, ...] = (welcome,)
    page: tuple[Message, ...] = ()
    for query, from_id, upto_id in ranges:
        after_id = from_id
        while True:
            try:
                found = query(account_id, after_id, upto_id, _PAGE_MESSAGES)
            except DamagedError as error:
                _log.error("missed messages can't be read", user=welcome.username, error=str(error))
                return (*head, *page), False
            except (StoreError, ShortOfMemoryError) as error:
                if head:  # nothing was said yet: the login is refused
                    raise
                is_short = isinstance(error, ShortOfMemoryError)
                reason = "the server is short of memory" if is_short else "the server can't read its disk"
                raise CutShortError(reason) from error
            if head and found:
                send_queue.put(head)
                head = ()
            page += found
            if len(found) < _PAGE_MESSAGES:
                break
            send_queue.put(page)
            page = ()
            if not send_queue.wait_for_room():
                return None, True
            after_id = found[-1].id
    return (*head, *page), True
