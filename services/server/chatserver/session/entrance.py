"""The entrance: who somebody is, by name and password, and what they missed while they were away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import AccountKind, Refused, Welcome
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.rules import check_password, check_username, name_key
from chatserver.memory import ShortOfMemoryError
from chatserver.room.seat import Seat
from chatserver.session.passwords import Verdict
from chatserver.store.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Message
    from chatprotocol.requests import Login
    from chatserver.room.feed import Joined
    from chatserver.room.seat import Outbox
    from chatserver.session.context import Context
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


def account_kind(context: Context, username: str) -> AccountKind:
    """Would this name be registered, or is it? Raises Refusal for one that can't be."""
    check_username(username)
    is_new = context.registration_open and context.accounts.find(username) is None
    if is_new and context.guests.is_claimed(username):
        raise _in_use(username)
    return AccountKind.NEW if is_new else AccountKind.EXISTING


def identify(context: Context, username: str, password: str, address: str) -> tuple[Account, AccountKind]:
    """The account that the password opens, registered now if the name is new. Raises Refusal."""
    check_username(username)
    check_password(password)
    _check_attempts(context, address, username)
    account = context.accounts.find(username)
    if account is None and context.registration_open:
        registered = _register(context, username, password)
        if registered is not None:
            return registered, AccountKind.NEW
        account = context.accounts.find(username)  # somebody else was faster by a moment
        if account is None:
            raise _in_use(username)
    verdict = context.passwords.check(account.password_hash if account else None, password)
    _check_attempts(context, address, username)  # others may have failed while this one waited for its turn
    if verdict is Verdict.WRONG or account is None:
        context.failed_logins.note_failure(address, name_key(username))
        raise Refusal(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}.")
    if verdict is Verdict.OUTDATED:
        context.journal.replace_password_hash(account, context.passwords.hash(password))
    return account, AccountKind.EXISTING


def change_password(context: Context, username: str, old: str, new: str) -> None:
    """Replace the password of somebody who is logged in; on return the new one is on the disk. Raises Refusal.

    Wrong tries count for all of the account's connections together, and not for its logins.
    """
    check_password(new)
    _check_attempts(context, _LOGGED_IN, username)
    account = context.accounts.find(username)
    if account is None or context.passwords.check(account.password_hash, old) is Verdict.WRONG:
        context.failed_logins.note_failure(_LOGGED_IN, name_key(username))
        raise Refusal(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}; it was not changed.")
    try:
        changed = context.journal.replace_password_hash(account, context.passwords.hash(new)).result()
    except OSError as error:
        reason = "The server can't write to its disk; the password was not changed."
        raise Refusal(ErrorCode.INTERNAL, reason) from error
    if changed is None:
        raise Refusal(ErrorCode.WRONG_PASSWORD, f"The password of {username} was changed meanwhile; log in again.")
    _log.info("password changed", user=username)


def _check_attempts(context: Context, address: str, username: str) -> None:
    if context.failed_logins.is_blocked(address, name_key(username)):
        raise Refusal(ErrorCode.TOO_MANY_ATTEMPTS, f"Too many wrong passwords for {username}; wait a minute.")


def _in_use(username: str) -> Refusal:
    return Refusal(ErrorCode.BAD_USERNAME, f"A guest uses the name {username} now; choose another one, or wait.")


def _register(context: Context, username: str, password: str) -> Account | None:
    """The new account, or None where the name is somebody else's."""
    if context.guests.is_claimed(username):  # before a hash is computed for nothing
        return None
    password_hash = context.passwords.hash(password)
    try:
        return context.journal.create_account(username, password_hash)
    except OSError as error:
        raise Refusal(ErrorCode.INTERNAL, "The server can't write to its disk; nothing was registered.") from error


def come_in(context: Context, outbox: Outbox, account: Account, kind: AccountKind, login: Login) -> Seat:
    """Take a seat, be welcomed, and get what was missed before anything new.

    StoreError, ShortOfMemoryError: what was missed can't be read, and nothing was said. CutShortError: it can't be read
    any further.
    """
    seat = Seat(account.id, account.name, outbox)
    context.feed.check_acknowledged(account.id)
    joined = context.feed.join(seat)
    users = context.presence.enter(seat)
    try:
        ranges, since = _missed(context, account, login, joined)
        history_id = context.identity.history_id if login.wants_history_id else None
        # While another device is there the mark stands still, though that one gets everything.
        is_known = joined.is_alone and kind is AccountKind.EXISTING
        seen_id = max(account.delivered_id, joined.delivered_id) if is_known else None
        welcome = Welcome(kind, account.name, users, joined.last_id, history_id, since, seen_id)
        last_page, is_whole = _send_pages(outbox, welcome, account.id, ranges)
        if last_page is not None and not is_whole and not login.is_stepwise:
            last_page = (*last_page, _UNREADABLE)
        if last_page is not None:
            outbox.release(last_page)
            if is_whole:  # else direct messages count as not delivered, and come again
                context.feed.catch_up(seat, joined.last_id)
        # Otherwise the connection ends, and nothing that is new may follow the gap.
    except BaseException:
        go_out(context, seat)
        raise
    return seat


def _missed(context: Context, account: Account, login: Login, joined: Joined) -> tuple[list[_Range], int | None]:
    """What is to be read for a user who comes in, and the ``since`` of the welcome: None if theirs can be used.

    What a client saw last may be gone, after a backup was restored. It then gets what is new since the restored history
    and its own went apart. If that is not known, it gets the last messages, for the whole history may be millions, and
    before them the direct messages that still wait, which it would not get at any later login.
    """
    messages, last_id = context.messages, joined.last_id
    delivered_id = max(account.delivered_id, joined.delivered_id)
    since, history_id = login.since, login.history_id
    if since is None:
        return [_Range(messages.waiting, delivered_id, last_id)], None
    is_other = history_id is not None and history_id != context.identity.history_id
    if since == 0 or (since <= last_id and not is_other):
        return [_Range(messages.missed, since, last_id)], since if is_other else None
    shared_id = context.identity.shared_upto(history_id)
    if shared_id is not None:
        after_id = min(since, shared_id)
        return [_Range(messages.missed, after_id, last_id)], after_id
    recent = messages.history(account.id, last_id + 1, HISTORY_MAX_MESSAGES)
    after_id = recent[0].id - 1 if recent else last_id
    return [_Range(messages.waiting, delivered_id, after_id), _Range(messages.missed, after_id, last_id)], after_id


def go_out(context: Context, seat: Seat) -> None:
    """Give the seat up."""
    context.feed.leave(seat)
    if context.presence.leave(seat):
        context.on_empty()


def _send_pages(
    outbox: Outbox, welcome: Welcome, account_id: int, ranges: Sequence[_Range]
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
                outbox.put(head)
                head = ()
            page += found
            if len(found) < _PAGE_MESSAGES:
                break
            outbox.put(page)
            page = ()
            if not outbox.wait_for_room():
                return None, True
            after_id = found[-1].id
    return (*head, *page), True
