"""The entrance: who somebody is, by name and password, and what they missed while they were away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import AccountKind, Welcome
from chatprotocol.rules import check_password, check_username, name_key
from chatserver.room.seat import Seat

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.events import Message
    from chatserver.room.seat import Outbox
    from chatserver.session.context import Context
    from chatserver.store.accounts import Account

    Query = Callable[[int, int, int, int], tuple[Message, ...]]

# What was missed goes out in pages of this many messages, so that no login holds all of it in memory.
_PAGE_MESSAGES = 500


def account_kind(context: Context, username: str) -> AccountKind:
    """Would this name be registered, or is it? Raises Refusal for one that can't be."""
    check_username(username)
    is_new = context.registration_open and context.accounts.find(username) is None
    return AccountKind.NEW if is_new else AccountKind.EXISTING


def identify(context: Context, username: str, password: str, address: str) -> tuple[Account, AccountKind]:
    """The account that the password opens, registered now if the name is new. Raises Refusal."""
    check_username(username)
    check_password(password)
    key = name_key(username)
    if context.failed_logins.are_too_many(address, key):
        raise Refusal(ErrorCode.TOO_MANY_ATTEMPTS, f"Too many wrong passwords for {username}; wait a minute.")
    account = context.accounts.find(username)
    if account is None and context.registration_open:
        registered = _register(context, username, password)
        if registered is not None:
            return registered, AccountKind.NEW
        account = context.accounts.find(username)  # somebody else was faster by a moment
    if not context.passwords.matches(account.password_hash if account else None, password) or account is None:
        context.failed_logins.note(address, key)
        raise Refusal(ErrorCode.WRONG_PASSWORD, f"That is not the password of {username}.")
    if context.passwords.is_outdated(account.password_hash):
        context.journal.change_password_hash(account.id, context.passwords.hash(password))
    return account, AccountKind.EXISTING


def _register(context: Context, username: str, password: str) -> Account | None:
    password_hash = context.passwords.hash(password)
    try:
        return context.journal.enrol(username, password_hash)
    except OSError as error:
        raise Refusal(ErrorCode.INTERNAL, "The server can't write to its disk; nothing was registered.") from error


def come_in(context: Context, outbox: Outbox, account: Account, kind: AccountKind, since: int | None) -> Seat:
    """Take a seat, be welcomed, and get what was missed before anything new."""
    seat = Seat(account.id, account.name, outbox)
    joined = context.feed.join(seat)
    users = context.presence.enter(seat)
    try:
        outbox.put([Welcome(kind, account.name, users, joined.last_id)])
        if since is not None:
            sent_id = _send_pages(outbox, context.messages.missed, account.id, since, joined.last_id)
        elif kind is AccountKind.EXISTING:
            delivered_id = max(account.delivered_id, joined.delivered_id)
            sent_id = _send_pages(outbox, context.messages.waiting, account.id, delivered_id, joined.last_id)
        else:
            sent_id = joined.last_id
    except BaseException:
        go_out(context, seat)
        raise
    context.feed.note_delivered(account.id, sent_id)
    outbox.release()
    return seat


def go_out(context: Context, seat: Seat) -> None:
    """Give the seat up."""
    context.feed.leave(seat)
    context.presence.leave(seat)


def _send_pages(outbox: Outbox, query: Query, account_id: int, after_id: int, upto_id: int) -> int:
    """Put what the query finds, a page at a time, no faster than the peer reads; returns up to where all was put."""
    while True:
        page = query(account_id, after_id, upto_id, _PAGE_MESSAGES)
        outbox.put(page)
        if len(page) < _PAGE_MESSAGES:
            return upto_id
        after_id = page[-1].id
        if not outbox.wait_for_room():
            return after_id
