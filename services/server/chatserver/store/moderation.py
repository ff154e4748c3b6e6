"""Sanctions (bans and mutes), the audit table, deletions, and the users whom a user ignores.

A sanction is about an account or a network, in one room or on the whole server. It ends by itself: a row whose time is
over counts as missing, and is removed when the next sanction is stored.
"""

# ruff: noqa: S608 -- the queries are built of constants

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import Struct

from chatprotocol.address import format_network
from chatprotocol.events import AuditRow, Deleted, SanctionKind, SanctionState, TimeMs
from chatprotocol.limits import DELETIONS_REPORTED_MAX
from chatserver.clock import wall_ms
from chatserver.store.accounts import HAS_NETWORK_BANS, is_operator
from chatserver.store.rooms import DIRECT_ID

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from chatserver.store.sqlite import Readable


class ActiveSanction(Struct, frozen=True, gc=False):
    """A ban or mute, as its target sees it. ``until_ms`` is None if it is for ever."""

    kind: SanctionKind
    until_ms: int | None
    reason: str
    # The room's name; None: the whole server.
    room: str | None = None


# A row whose time is not over at :now. The expressions are those of the index.
_ACTIVE: Final = "(until_ms ISNULL OR until_ms > :now)"
_OF_TARGET: Final = "kind = :kind AND ifnull(account_id, 0) = :account AND ifnull(network, '') = :network"
_IN_ROOM: Final = "ifnull(conversation_id, -1) = ifnull(:room, -1)"
_AS_ACTIVE: Final = (
    "SELECT kind, until_ms, reason, (SELECT name FROM conversation WHERE id = conversation_id) FROM sanction WHERE"
)
_STANDING: Final = (
    "SELECT password_hash, must_change_password, role = 'operator' AND kind = 'person',"
    " EXISTS (SELECT 1 FROM sanction) FROM account WHERE id = ? AND deleted_ms ISNULL"
)
# Maximum deletions that a login reads, newest first, to find those that its user could see.
_DELETIONS_READ: Final = 10 * DELETIONS_REPORTED_MAX
_DELETIONS: Final = f"""
SELECT deletion.id, by_name, iif(conversation_id > 1, (SELECT name FROM conversation WHERE id = conversation_id), NULL)
FROM (SELECT * FROM deletion ORDER BY number DESC LIMIT {_DELETIONS_READ}) AS deletion
JOIN json_each(:seen) AS seen ON CAST(seen.key AS INTEGER) = conversation_id AND deletion.id <= seen.value
WHERE conversation_id <> {DIRECT_ID} OR EXISTS (
    SELECT 1 FROM message WHERE message.key = deletion.id - (1 << 40) AND :reader IN (sender_id, recipient_id)
)
ORDER BY number DESC LIMIT {DELETIONS_REPORTED_MAX}
"""


class Standing(NamedTuple):
    """The rights of an account at a login. A ban is that of the account from the server, or that of its address."""

    ban: ActiveSanction | None
    is_operator: bool
    # None: the account is deleted.
    password_hash: str | None
    # On the whole server.
    is_muted: bool = False
    # True if the next login must bring a new password.
    must_change_password: bool = False


class ModerationRecords:
    """Reads what moderation has stored, for any thread. The functions below write; only the journal calls them.

    Every method raises StoreError if the database can't be read. ``now_ms`` returns milliseconds since 1970 UTC.
    """

    def __init__(self, database: Readable, now_ms: Callable[[], int] = wall_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    def standing(self, account_id: int, address: str) -> Standing:
        """The state of moderation that a login of the account from the address needs."""
        with self._database.reading() as connection:
            row = connection.execute(_STANDING, (account_id,)).fetchone()
            password_hash, must_change, has_role, has_sanctions = row or (None, False, False, True)
            if not has_sanctions:  # the usual case: one query, because each login makes it
                return Standing(None, bool(has_role), password_hash, must_change_password=bool(must_change))
            now_ms = self._now_ms()
            ban = find_ban(connection, account_id, now_ms) or _find_network_ban(connection, address, now_ms)
            is_muted = find_silence(connection, account_id, now_ms, None) is not None
            has_role = is_operator(connection, account_id, now_ms)
            return Standing(ban, has_role, password_hash, is_muted, bool(must_change))

    def ban_of_address(self, address: str) -> ActiveSanction | None:
        """The ban of a network that the address is in; None if there is none."""
        with self._database.reading() as connection:
            return _find_network_ban(connection, address, self._now_ms())

    def sanctions(self, room_id: int | None) -> tuple[SanctionState, ...]:
        """The bans and mutes in the room, or on the whole server, oldest first."""
        query = (
            "SELECT kind, (SELECT name FROM account WHERE account.id = account_id), network, by_name, created_ms,"
            f" until_ms, reason FROM sanction WHERE {_IN_ROOM} AND {_ACTIVE} ORDER BY id"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, {"room": room_id, "now": self._now_ms()}).fetchall()
        return tuple(
            SanctionState(
                kind=SanctionKind(kind),
                username=name,
                address=network,
                by=by,
                time_ms=TimeMs(created_ms),
                until=None if until_ms is None else TimeMs(until_ms),
                reason=reason,
            )
            for kind, name, network, by, created_ms, until_ms, reason in rows
        )

    def audit(self, limit: int, before: int | None = None) -> tuple[AuditRow, ...]:
        """The newest rows of the audit table with a number below ``before``, oldest first."""
        query = (
            "SELECT id, time_ms, action, by_name, target, room, reason, detail FROM audit"
            " WHERE id < ? ORDER BY id DESC LIMIT ?"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, (sys.maxsize if before is None else before, limit)).fetchall()
        return tuple(
            AuditRow(
                number=number,
                time_ms=TimeMs(time_ms),
                action=action,
                by=by,
                target=target,
                room=room,
                reason=reason,
                detail=detail,
            )
            for number, time_ms, action, by, target, room, reason, detail in reversed(rows)
        )

    def silence(self, account_id: int, room_id: int | None) -> ActiveSanction | None:
        """The ban or mute that keeps the account from sending to the room; None is the lobby."""
        with self._database.reading() as connection:
            return find_silence(connection, account_id, self._now_ms(), room_id)

    def is_ignored(self, account_id: int, other_id: int) -> bool:
        """True if the account ignores the other one."""
        with self._database.reading() as connection:
            return is_ignored(connection, account_id, other_id)

    def ignored_by(self, account_id: int) -> tuple[str, ...]:
        """Names of the users whom the account ignores, sorted."""
        query = "SELECT name FROM ignored JOIN account ON account.id = ignored_id WHERE account_id = ?"
        with self._database.reading() as connection:
            rows = connection.execute(query, (account_id,)).fetchall()
        return tuple(sorted((name for (name,) in rows), key=str.lower))

    def deletions(self, reader_id: int, seen_ids: Mapping[int, int]) -> tuple[Deleted, ...]:
        """The newest deletions of messages that the account may have seen, oldest first.

        ``seen_ids`` has the newest id that it saw of each conversation; the account is a member of these rooms.
        """
        seen = msgspec.json.encode({str(each): seen_id for each, seen_id in seen_ids.items()}).decode()
        with self._database.reading() as connection:
            rows = connection.execute(_DELETIONS, {"seen": seen, "reader": reader_id}).fetchall()
        return tuple(Deleted(message_id, by, room) for message_id, by, room in reversed(rows))


def _networks_with(address: str) -> list[str]:
    """All networks that the address is in, in the spelling of the table; an IPv4 address in IPv6 form is IPv4."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:  # the address of a test
        return [address]
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return [format_network(ip_network((ip, bits), strict=False)) for bits in range(ip.max_prefixlen + 1)]


def _find_network_ban(connection: sqlite3.Connection, address: str, now_ms: int) -> ActiveSanction | None:
    if not connection.execute(f"SELECT {HAS_NETWORK_BANS}").fetchone()[0]:  # the usual case needs no list of networks
        return None
    networks = msgspec.json.encode(_networks_with(address)).decode()
    # The one that lasts longest.
    query = (
        f"{_AS_ACTIVE} kind = 'ban' AND ifnull(account_id, 0) = 0"
        f" AND ifnull(network, '') IN (SELECT value FROM json_each(:networks)) AND {_ACTIVE}"
        " ORDER BY until_ms ISNULL DESC, until_ms DESC LIMIT 1"
    )
    return _active(connection.execute(query, {"networks": networks, "now": now_ms}).fetchone())


def _active(row: tuple[str, int | None, str, str | None] | None) -> ActiveSanction | None:
    if row is None:
        return None
    kind, until_ms, reason, room = row
    return ActiveSanction(SanctionKind(kind), until_ms, reason, room)


def has_sanctions(connection: sqlite3.Connection) -> bool:
    """True if the table has a row, also of a sanction whose time is over."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM sanction)").fetchone()[0])


def has_ignored(connection: sqlite3.Connection) -> bool:
    """True if a user ignores another one."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM ignored)").fetchone()[0])


def find_ban(
    connection: sqlite3.Connection, account_id: int, now_ms: int, room_id: int | None = None
) -> ActiveSanction | None:
    """The ban of the account, from the room or the whole server."""
    return _find(connection, account_id, now_ms, room_id, f"{_IN_ROOM} AND kind = 'ban'")


def find_silence(
    connection: sqlite3.Connection, account_id: int, now_ms: int, room_id: int | None
) -> ActiveSanction | None:
    """The ban or mute that keeps the account from sending to the room; None is the lobby, or a direct message."""
    return _find(connection, account_id, now_ms, room_id, f"(conversation_id ISNULL OR {_IN_ROOM})")


def _find(
    connection: sqlite3.Connection, account_id: int, now_ms: int, room_id: int | None, condition: str
) -> ActiveSanction | None:
    # Most accounts have none: this query takes a fifth of the other one, and no memory. Each login makes it, and malloc
    # would keep the memory of a sort for its thread.
    query = "SELECT EXISTS (SELECT 1 FROM sanction WHERE ifnull(account_id, 0) = ?)"
    if not connection.execute(query, (account_id,)).fetchone()[0]:
        return None
    # Bans come before mutes, and the whole server before a room.
    query = (
        f"{_AS_ACTIVE} kind IN ('ban', 'mute') AND ifnull(account_id, 0) = :account AND {condition} AND {_ACTIVE}"
        " ORDER BY kind, conversation_id NOTNULL LIMIT 1"
    )
    return _active(connection.execute(query, {"account": account_id, "now": now_ms, "room": room_id}).fetchone())


def count_sanctions(connection: sqlite3.Connection, room_id: int | None) -> int:
    """Number of sanctions in the room, or on the whole server."""
    query = f"SELECT count(*) FROM sanction WHERE {_IN_ROOM}"
    return int(connection.execute(query, {"room": room_id}).fetchone()[0])


def delete_expired(connection: sqlite3.Connection, now_ms: int) -> None:
    """Remove the sanctions whose time is over."""
    connection.execute("DELETE FROM sanction WHERE until_ms <= ?", (now_ms,))


def replace_sanction(
    connection: sqlite3.Connection,
    sanction: ActiveSanction,
    room_id: int | None,
    account_id: int,
    network: str,
    by: str,
    now_ms: int,
) -> None:
    """Store the sanction in place of an earlier one of the kind. ``account_id`` is 0 if it is about a network."""
    delete_sanction(connection, sanction.kind, room_id, account_id, network, now_ms)
    connection.execute(
        "INSERT INTO sanction (id, kind, conversation_id, account_id, network, until_ms, reason, by_name, created_ms)"
        " VALUES ((SELECT coalesce(max(id), 0) + 1 FROM sanction), ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            sanction.kind,
            room_id,
            account_id or None,
            network or None,
            sanction.until_ms,
            sanction.reason,
            by,
            now_ms,
        ),
    )


def delete_sanction(
    connection: sqlite3.Connection,
    kind: SanctionKind,
    room_id: int | None,
    account_id: int,
    network: str,
    now_ms: int,
) -> bool:
    """Remove the sanction. False if there was none whose time is not over."""
    values = {"kind": kind, "account": account_id, "network": network, "room": room_id, "now": now_ms}
    rows = connection.execute(
        f"DELETE FROM sanction WHERE {_OF_TARGET} AND {_IN_ROOM} RETURNING {_ACTIVE}", values
    ).fetchall()
    return any(is_active for (is_active,) in rows)


def insert_audit(
    connection: sqlite3.Connection,
    time_ms: int,
    action: str,
    by: str,
    target: str,
    *,
    room: str | None = None,
    reason: str = "",
    detail: str = "",
) -> None:
    connection.execute(
        "INSERT INTO audit (id, time_ms, action, by_name, target, room, reason, detail)"
        " VALUES ((SELECT coalesce(max(id), 0) + 1 FROM audit), ?, ?, ?, ?, ?, ?, ?)",
        (time_ms, action, by, target, room, reason, detail),
    )


def insert_deletion(
    connection: sqlite3.Connection, message_id: int, conversation_id: int, by: str, time_ms: int
) -> None:
    """Empty the text of the message, and note its deletion."""
    connection.execute("UPDATE message SET text = '' WHERE key = ?", (message_id - (conversation_id << 40),))
    connection.execute(
        "INSERT INTO deletion (number, id, conversation_id, by_name, time_ms)"
        " VALUES ((SELECT coalesce(max(number), 0) + 1 FROM deletion), ?, ?, ?, ?)",
        (message_id, conversation_id, by, time_ms),
    )


def read_last_deletion(connection: sqlite3.Connection) -> int:
    """The number of the newest deletion; 0 if there are none."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM deletion").fetchone()[0])


def forget_account(connection: sqlite3.Connection, account_id: int) -> None:
    """Remove the rows about an account that ends, except for those of the audit table."""
    connection.execute("DELETE FROM sanction WHERE account_id = ?", (account_id,))
    connection.execute("DELETE FROM ignored WHERE ?1 IN (account_id, ignored_id)", (account_id,))
    connection.execute("DELETE FROM known_network WHERE account_id = ?", (account_id,))
    connection.execute("DELETE FROM read_mark WHERE account_id = ?", (account_id,))


def is_ignored(connection: sqlite3.Connection, account_id: int, ignored_id: int) -> bool:
    """True if the account ignores the other one."""
    query = "SELECT 1 FROM ignored WHERE account_id = ? AND ignored_id = ?"
    return connection.execute(query, (account_id, ignored_id)).fetchone() is not None


def count_ignored(connection: sqlite3.Connection, account_id: int) -> int:
    """The number of users whom the account ignores."""
    return int(connection.execute("SELECT count(*) FROM ignored WHERE account_id = ?", (account_id,)).fetchone()[0])


def set_ignored(connection: sqlite3.Connection, account_id: int, ignored_id: int, *, is_ignored: bool) -> None:
    key = (account_id, ignored_id)
    if is_ignored:
        connection.execute("INSERT OR IGNORE INTO ignored VALUES (?, ?)", key)
    else:
        connection.execute("DELETE FROM ignored WHERE account_id = ? AND ignored_id = ?", key)
