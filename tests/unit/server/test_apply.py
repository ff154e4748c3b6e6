"""Applying entries: the same entries make the same store everywhere."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import reduce
from operator import or_
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.events import RoomRole, SanctionKind
from chatserver.journal.apply import StoreLimits, Transaction, apply
from chatserver.journal.entries import (
    AddAccount,
    AddInvitation,
    AddToken,
    DeleteAccount,
    DeleteMessage,
    DeliveryMark,
    DirectMessage,
    Entry,
    EraseMessages,
    GuestClaim,
    GuestRelease,
    InviteUser,
    JoinRoom,
    KickFromServer,
    KickMember,
    KnownNetwork,
    LiftSanction,
    NewAccount,
    NoteAct,
    PartRoom,
    PasswordChange,
    Problem,
    Prune,
    PublicMessages,
    ReadMark,
    RenameGuest,
    Report,
    RevokeTokens,
    Sanction,
    ServerGone,
    ServerStart,
    SetIgnored,
    SetPassword,
    SetRole,
    SetRoomModes,
    SetServerRole,
    SetTopic,
    UseToken,
)
from chatserver.store.accounts import Role
from chatserver.store.identity import read_highest_id
from chatserver.store.sqlite import transaction

from .helpers import new_store

# Few values, so that names, nonces, ids and claims meet.
ids = st.integers(1, 4)
names = st.sampled_from(["alice", "Alice", "bob", "carol", "CAROL"])
hashes = st.sampled_from(["hash", "other"])
nonces = st.none() | st.sampled_from(["n1", "n2", "n3"])
texts = st.sampled_from(["hello", "", "\0", "é\U0001f600"])


rooms = st.sampled_from([2, 2, 3, 0, 1, 99])
room_names = st.sampled_from(["dev", "DEV", "ops"])
room_keys = st.sampled_from(["", "key", "other"])
servers = st.sampled_from(["", "a", "b"])
codes = st.sampled_from(["code", "another"])
tokens = st.sampled_from(["t1", "t2", "t3"])
networks = st.sampled_from(["192.0.2.1", "2001:db8::/64"])


def public(
    sender_id: int, sender: str, pairs: Sequence[tuple[str, str | None]], room_id: int, **flags: bool
) -> PublicMessages:
    texts, nonces = [text for text, _ in pairs], [nonce for _, nonce in pairs]
    return PublicMessages(sender_id, sender, texts, nonces, room_id, **flags)


def direct(sender_id: int, recipient_id: int, text: str, nonce: str | None, **flags: bool) -> DirectMessage:
    to: dict[str, Any] = {"recipient_id": recipient_id, "recipient": "bob"}
    return DirectMessage(sender_id, "alice", [text], [nonce], **to, is_waiting=True, **flags)


flags: dict[str, st.SearchStrategy[bool]] = {"is_guest": st.booleans(), "is_notice": st.booleans()}
acting: dict[str, st.SearchStrategy[Any]] = {"by_id": st.integers(0, 4), "by": names}
targets: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(SanctionKind),
    "room_id": st.none() | rooms,
    "account_id": st.integers(0, 4),
    "username": names,
    "network": st.sampled_from(["", "", "192.0.2.0/24"]),
}
STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    PublicMessages: st.builds(
        public, ids, names, st.lists(st.tuples(texts, nonces), min_size=1, max_size=4), rooms, **flags
    ),
    DirectMessage: st.builds(direct, ids, ids, texts, nonces, **flags),
    DeliveryMark: st.builds(DeliveryMark, ids, ids),
    NewAccount: st.builds(
        NewAccount,
        names,
        hashes,
        networks | st.just(""),
        codes | st.just(""),
        st.sampled_from(Role),
    ),
    AddInvitation: st.builds(AddInvitation, codes, names, st.none() | st.integers(0, 4)),
    KnownNetwork: st.builds(KnownNetwork, ids, networks),
    PasswordChange: st.builds(PasswordChange, ids, hashes, hashes, tokens | st.just(""), st.booleans()),
    AddToken: st.builds(AddToken, ids, tokens, tokens, texts),
    UseToken: st.builds(UseToken, ids, tokens),
    RevokeTokens: st.builds(RevokeTokens, ids, tokens | st.just(""), tokens | st.just("")),
    GuestClaim: st.builds(GuestClaim, names, servers),
    GuestRelease: st.builds(GuestRelease, names, ids),
    RenameGuest: st.builds(RenameGuest, names, ids, names, servers),
    ServerStart: st.builds(ServerStart, servers),
    ServerGone: st.builds(ServerGone, servers, st.just("run")),
    JoinRoom: st.builds(JoinRoom, ids, names, room_names, st.booleans(), st.booleans(), room_keys),
    PartRoom: st.builds(PartRoom, ids, names, rooms, texts),
    KickMember: st.builds(KickMember, rooms, ids, names, ids, names, st.just("spam")),
    SetTopic: st.builds(SetTopic, rooms, texts, ids, names),
    InviteUser: st.builds(InviteUser, rooms, ids, names, ids, names),
    SetRole: st.builds(
        SetRole, rooms, ids, names, ids, names, st.sampled_from(RoomRole), st.none() | st.sampled_from(RoomRole)
    ),
    SetRoomModes: st.builds(
        SetRoomModes,
        rooms,
        ids,
        names,
        *(st.none() | st.booleans() for _ in range(3)),
        st.none() | room_keys,
        st.none() | st.integers(0, 3),
    ),
    Sanction: st.builds(Sanction, seconds=st.none() | st.just(1), reason=texts, **targets, **acting),
    LiftSanction: st.builds(LiftSanction, **targets, **acting),
    KickFromServer: st.builds(KickFromServer, account_id=ids, username=names, reason=texts, **acting),
    DeleteMessage: st.builds(DeleteMessage, message_id=st.integers(0, 9), room_id=rooms, **acting),
    Report: st.builds(Report, message_id=st.integers(0, 9), room_id=rooms, account_id=ids, username=names, **acting),
    SetServerRole: st.builds(SetServerRole, account_id=ids, username=names, role=st.sampled_from(Role), **acting),
    AddAccount: st.builds(AddAccount, name=names, password_hash=hashes, **acting),
    SetPassword: st.builds(
        SetPassword, account_id=ids, username=names, password_hash=hashes, must_change=st.booleans(), **acting
    ),
    DeleteAccount: st.builds(DeleteAccount, account_id=ids, username=names, **acting),
    NoteAct: st.builds(NoteAct, action=texts, target=texts, system_user=names, **acting),
    Prune: st.builds(Prune, st.integers(0, 4), st.integers(0, 4), st.integers(1, 4)),
    EraseMessages: st.builds(EraseMessages, ids, names, st.integers(0, 4), st.integers(1, 4)),
    SetIgnored: st.builds(SetIgnored, ids, ids, st.booleans()),
    ReadMark: st.builds(ReadMark, ids, st.integers(0, 4) | st.just(2**62), rooms, other_id=st.integers(0, 4)),
}
DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(reduce(or_, STRATEGIES))
# An entry; its time; whether a transaction ends after it, and whether that one failed at first.
steps = st.tuples(st.one_of(*STRATEGIES.values()), st.integers(0, 3), st.booleans(), st.booleans())


class FailedError(Exception):
    """The commit fails."""


def store_of_two() -> sqlite3.Connection:
    connection = new_store()
    connection.execute("UPDATE history_identity SET history_id = 'the same'")
    # Only accounts that exist join rooms.
    for name in ("erin", "frank"):
        apply(Transaction(connection, 0, 0), NewAccount(name, "hash"))
    return connection


def apply_together(
    store: sqlite3.Connection, timed: Iterable[tuple[Entry[Any], int]], last_id: int, *, fails: bool = False
) -> tuple[list[Any], int]:
    """Apply the entries in one transaction; return the outcomes and the new last id."""
    with transaction(store) as connection:
        applying = Transaction(connection, 0, last_id, StoreLimits(waiting_from_sender=1, waiting_messages=2))
        outcomes = []
        for entry, applying.time_ms in timed:
            outcomes.append(apply(applying, entry))
        if fails:
            raise FailedError
    return outcomes, applying.last_id


@given(st.lists(steps, max_size=30))
@example(
    [
        (direct(1, 3, "hello", None), 0, False, False),  # to an account that does not exist yet
        (GuestClaim("alice"), 0, True, False),
        (direct(1, 3, "hello", None), 0, False, False),
    ]
)
def test_same_entries_make_the_same_store(entries: list[tuple[Entry[Any], int, bool, bool]]) -> None:
    """Promise: what is decided at apply is the same on every server, and after a restart.

    One store gets all entries in one transaction. The other one gets them as bytes, in several transactions, some of
    which fail first, and forgets everything in memory after each.
    """
    with closing(store_of_two()) as one, closing(store_of_two()) as other:
        expected, last_id = apply_together(one, [(entry, time_ms) for entry, time_ms, _, _ in entries], 0)
        outcomes: list[Any] = []
        pending: list[tuple[Entry[Any], int]] = []
        for number, (entry, time_ms, ends, fails) in enumerate(entries, 1):
            pending.append((DECODER.decode(msgspec.json.encode(entry)), time_ms))
            if ends or number == len(entries):
                if fails:
                    with suppress(FailedError):
                        apply_together(other, pending, read_highest_id(other), fails=True)
                outcomes += apply_together(other, pending, read_highest_id(other))[0]
                pending.clear()

        assert outcomes == expected
        assert list(other.iterdump()) == list(one.iterdump())
        assert read_highest_id(one) == read_highest_id(other) == last_id


def kinds_of(base: type) -> set[type]:
    return set().union(*map(kinds_of, base.__subclasses__())) or {base}


def test_every_entry_is_in_the_property() -> None:
    assert set(STRATEGIES) == kinds_of(Entry)


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.booleans(), st.sampled_from([None, None, "n1", "n2"]))
        | st.integers(1, 2),
        max_size=30,
    ),
    from_sender=st.integers(0, 3),
    in_all=st.integers(0, 4),
)
@example(steps=[(1, 2, True, None)] * 2, from_sender=1, in_all=0)
@example(steps=[(1, 2, True, None), (3, 2, True, None)], from_sender=0, in_all=1)
def test_mailbox_of_an_offline_user_is_limited(
    steps: list[tuple[int, int, bool, str | None] | int], from_sender: int, in_all: int
) -> None:
    """The model counts the messages after the delivery mark. A repeated message is confirmed, also if it is full."""
    limits = StoreLimits(waiting_from_sender=from_sender, waiting_messages=in_all)
    waiting: dict[int, list[int]] = {1: [], 2: []}
    used: set[tuple[int, str]] = set()
    with closing(new_store()) as connection:
        for name in ("a", "b", "c"):
            apply(Transaction(connection, 0, 0), NewAccount(name, "hash"))
        last_id = 0
        for step in steps:
            applying = Transaction(connection, 0, last_id, limits)
            if isinstance(step, int):
                apply(applying, DeliveryMark(step, last_id))
                waiting[step].clear()
                continue
            sender, recipient, is_waiting, nonce = step
            entry = DirectMessage(
                sender, "", ["x"], [nonce], recipient_id=recipient, recipient="", is_waiting=is_waiting
            )
            outcome = apply(applying, entry)
            its = waiting[recipient]
            if nonce is not None and (sender, nonce) in used:
                assert isinstance(outcome, tuple)
                assert outcome[0].is_repeated
            elif is_waiting and 0 < in_all <= len(its):
                assert outcome is Problem.MAILBOX_FULL
            elif is_waiting and 0 < from_sender <= its.count(sender):
                assert outcome is Problem.MAILBOX_FULL_OF_SENDER
            else:
                assert isinstance(outcome, tuple)
                its.append(sender)
                used |= {(sender, nonce)} if nonce is not None else set()
            last_id = applying.last_id
            (rows,) = connection.execute("SELECT count(*) FROM message").fetchone()
            assert rows == last_id
