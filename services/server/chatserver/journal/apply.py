"""Applying entries to the store.

Theory of operation
-------------------

Applying is deterministic: the entries, their order and their times decide the content of every table and all outcomes.
Servers that apply the same log therefore have the same store, and one server has the same store after a restart.

* A decision depends on the entry, its time and the store, and on nothing else: no clock, random number, locale,
  setting or object in memory. Whether a name is free, a nonce was used or a password has changed is looked up in the
  tables, inside the transaction.
* Ids count up from the highest one in the store. A transaction that is rolled back leaves no trace, so its ids are
  used again. ``Transaction.last_id`` saves a query for each entry; between transactions its value is that of
  ``read_highest_id``.
* The division into transactions has no effect: an entry sees those before it, whether they are committed or not.

To add an entry: its class in ``entries.py``, a function here, and its line in ``_APPLY``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from chatserver.journal import entries
from chatserver.journal.entries import Stored
from chatserver.store.accounts import insert_account, replace_password_hash, update_delivered
from chatserver.store.guests import claim_name, is_claimed, release_all_names, release_name
from chatserver.store.messages import find_nonce, insert_direct, insert_in_room
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from chatserver.journal.entries import Entry
    from chatserver.store.accounts import Account

_T = TypeVar("_T")


class Transaction:
    """An open transaction in which entries are applied."""

    __slots__ = ("account_id", "connection", "last_id", "time_ms")

    def __init__(self, connection: sqlite3.Connection, time_ms: int, last_id: int) -> None:
        self.connection = connection
        # The time of the entries, in milliseconds since 1970 UTC.
        self.time_ms = time_ms
        # The highest message id in the store.
        self.last_id = last_id
        # The highest id of the accounts of this transaction's outcomes; 0 if there are none.
        self.account_id = 0


def apply(transaction: Transaction, entry: Entry[_T]) -> _T:
    """Apply the entry and return its outcome. Errors of SQLite mean that the transaction must be rolled back."""
    outcome: _T = _APPLY[type(entry)](transaction, entry)
    return outcome


def _add_public(transaction: Transaction, entry: entries.PublicMessages) -> tuple[Stored, ...]:
    """Insert the messages as a whole if none of their nonces was used before, else one by one."""
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    first_id = transaction.last_id + 1
    if insert_in_room(connection, LOBBY_ID, first_id, time_ms, sender_id, entry.texts, entry.nonces):
        transaction.last_id += len(entry.texts)
        return (Stored(0, len(entry.texts), first_id),)
    parts = []
    for start, (text, nonce) in enumerate(zip(entry.texts, entry.nonces, strict=True)):
        if insert_in_room(connection, LOBBY_ID, transaction.last_id + 1, time_ms, sender_id, [text], [nonce]):
            transaction.last_id += 1
            parts.append(Stored(start, start + 1, transaction.last_id))
        else:
            assert nonce is not None
            earlier_id = find_nonce(connection, LOBBY_ID, sender_id, nonce)
            parts.append(Stored(start, start + 1, earlier_id, is_repeated=True))
    return tuple(parts)


def _add_direct(transaction: Transaction, entry: entries.DirectMessage) -> tuple[Stored, ...]:
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    message_id = transaction.last_id + 1
    (text,), (nonce,) = entry.texts, entry.nonces
    if insert_direct(connection, message_id, time_ms, sender_id, entry.recipient_id, text, nonce):
        transaction.last_id = message_id
        return (Stored(0, 1, message_id),)
    assert nonce is not None
    return (Stored(0, 1, find_nonce(connection, DIRECT_ID, sender_id, nonce), is_repeated=True),)


def _move_mark(transaction: Transaction, entry: entries.DeliveryMark) -> None:
    update_delivered(transaction.connection, entry.account_id, entry.message_id)


def _register(transaction: Transaction, entry: entries.NewAccount) -> Account | None:
    if is_claimed(transaction.connection, entry.name):
        return None
    account = insert_account(transaction.connection, entry.name, entry.password_hash, transaction.time_ms)
    return _note_account(transaction, account)


def _change_password(transaction: Transaction, entry: entries.PasswordChange) -> bool:
    return replace_password_hash(transaction.connection, entry.account_id, entry.old_hash, entry.new_hash)


def _claim(transaction: Transaction, entry: entries.GuestClaim) -> Account | None:
    return _note_account(transaction, claim_name(transaction.connection, entry.name, transaction.time_ms))


def _release(transaction: Transaction, entry: entries.GuestRelease) -> None:
    release_name(transaction.connection, entry.name, entry.claim)


def _start(transaction: Transaction, _: entries.ServerStart) -> None:
    release_all_names(transaction.connection)


def _note_account(transaction: Transaction, account: Account | None) -> Account | None:
    if account is not None:
        transaction.account_id = max(transaction.account_id, account.id)
    return account


_APPLY: Final[dict[type, Callable[[Transaction, Any], Any]]] = {
    entries.PublicMessages: _add_public,
    entries.DirectMessage: _add_direct,
    entries.DeliveryMark: _move_mark,
    entries.NewAccount: _register,
    entries.PasswordChange: _change_password,
    entries.GuestClaim: _claim,
    entries.GuestRelease: _release,
    entries.ServerStart: _start,
}
