"""Moderation in the store: who may do what to whom, when a sanction ends, and what logins read of it."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from chatprotocol.address import ban_network
from chatprotocol.events import Deleted, RoomRole, SanctionKind
from chatprotocol.limits import DELETIONS_REPORTED_MAX, IGNORED_MAX, SANCTIONS_MAX, SANCTIONS_OF_ROOM_MAX
from chatserver.chat.problems import problem_error, sanction_error
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import (
    DeleteMessage,
    DirectMessage,
    Entry,
    InviteUser,
    JoinRoom,
    KickFromServer,
    KickMember,
    LiftSanction,
    Moderated,
    NewAccount,
    Problem,
    PublicMessages,
    Report,
    Sanction,
    SetIgnored,
    SetRole,
    SetServerRole,
    SetTopic,
    Stored,
)
from chatserver.store.accounts import Accounts, Role
from chatserver.store.moderation import ActiveSanction, ModerationRecords
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

from .helpers import MemoryDatabase, new_store

BAN, MUTE = SanctionKind
# The accounts, by id, and the room that all but the stranger are in.
NAMES = ("admin", "op", "op2", "owner", "runner", "member", "other", "stranger")
ADMIN, OP, OP2, OWNER, RUNNER, MEMBER, OTHER, STRANGER = range(len(NAMES))
ROOM = 2
BEGIN_MS = 1_000_000


class Store:
    """A store in memory with all accounts, their room, and a message of each in the lobby and in the room."""

    def __init__(self) -> None:
        self.connection = new_store()
        self.last_id = 0
        self.now_ms = BEGIN_MS
        # Ids of the messages, by sender.
        self.said: dict[int, int] = {}
        self.said_in_room: dict[int, int] = {}
        for name in NAMES[1:]:
            self.do(NewAccount(name, "hash"))
        for account_id in (OP, OP2):
            self.do(SetServerRole(account_id=account_id, username=NAMES[account_id], role=Role.OPERATOR, **by(ADMIN)))
        for account_id in (OWNER, OP2, RUNNER, MEMBER, OTHER):
            self.do(JoinRoom(account_id, NAMES[account_id], "dev", is_private=False, may_create=True))
        self.do(SetRole(ROOM, RUNNER, "runner", OWNER, "owner", RoomRole.OPERATOR))
        for account_id in range(1, len(NAMES)):
            (self.said[account_id],) = self.say(account_id)
            if account_id not in (OP, STRANGER):
                (self.said_in_room[account_id],) = self.say(account_id, ROOM)

    def do(self, entry: Entry[Any]) -> Any:
        applying = Transaction(self.connection, self.now_ms, self.last_id)
        outcome = apply(applying, entry)
        self.last_id = applying.last_id
        return outcome

    def say(self, account_id: int, room_id: int = LOBBY_ID, nonce: str | None = None) -> Any:
        """The ids of a message, or why it was refused."""
        outcome = self.do(PublicMessages(account_id, NAMES[account_id], ["text"], [nonce], room_id))
        return tuple(part.id for part in outcome) if isinstance(outcome, tuple) else outcome

    def whisper(self, sender_id: int, recipient_id: int) -> Any:
        names = NAMES[sender_id], NAMES[recipient_id]
        message = DirectMessage(sender_id, names[0], ["text"], [None], recipient_id=recipient_id, recipient=names[1])
        return self.do(message)

    def dump(self) -> list[str]:
        return list(self.connection.iterdump())

    def records(self) -> ModerationRecords:
        database: Any = MemoryDatabase(self.connection)
        return ModerationRecords(database, lambda: self.now_ms)


@pytest.fixture
def store() -> Any:
    store = Store()
    with closing(store.connection):
        yield store


def by(account_id: int) -> dict[str, Any]:
    return {"by_id": account_id, "by": NAMES[account_id]}


def about(account_id: int) -> dict[str, Any]:
    return {"account_id": account_id, "username": NAMES[account_id]}


def ban(actor: int, target: int, room_id: int | None = None, seconds: int | None = None) -> Sanction:
    return Sanction(kind=BAN, room_id=room_id, seconds=seconds, reason="spam", **about(target), **by(actor))


def mute(actor: int, target: int, room_id: int | None = None, seconds: int | None = None) -> Sanction:
    return Sanction(kind=MUTE, room_id=room_id, seconds=seconds, reason="", **about(target), **by(actor))


# Each act, as an entry of an actor about a target.
ACTS: dict[str, Callable[[Store, int, int], Entry[Any]]] = {
    "ban": lambda _, actor, target: ban(actor, target),
    "mute": lambda _, actor, target: mute(actor, target),
    "unmute": lambda _, actor, target: LiftSanction(kind=MUTE, **about(target), **by(actor)),
    "kick": lambda _, actor, target: KickFromServer(**about(target), **by(actor)),
    "role": lambda _, actor, target: SetServerRole(role=Role.USER, **about(target), **by(actor)),
    "delete": lambda store, actor, target: DeleteMessage(message_id=store.said[target], **by(actor)),
    "room ban": lambda _, actor, target: ban(actor, target, ROOM),
    "room mute": lambda _, actor, target: mute(actor, target, ROOM),
    "room unmute": lambda _, actor, target: LiftSanction(kind=MUTE, room_id=ROOM, **about(target), **by(actor)),
    "room kick": lambda _, actor, target: KickMember(ROOM, target, NAMES[target], actor, NAMES[actor], "spam"),
    "room delete": lambda store, actor, target: DeleteMessage(
        message_id=store.said_in_room.get(target, 0), room_id=ROOM, **by(actor)
    ),
}
EVERYBODY = {OP, OP2, OWNER, RUNNER, MEMBER, OTHER, STRANGER}
IN_ROOM = EVERYBODY - {OP, STRANGER}
PLAIN = {MEMBER, OTHER, STRANGER}
# The targets of acts on the server, and in the room, by actor. OP2 has no role in the room, and OP is not in it.
ON_SERVER = {ADMIN: EVERYBODY, OP: EVERYBODY - {OP}, OP2: EVERYBODY - {OP2}}
IN_THE_ROOM = {**ON_SERVER, OWNER: {RUNNER, *PLAIN}, RUNNER: PLAIN}
PERMITTED: dict[str, dict[int, set[int]]] = {
    **dict.fromkeys(("ban", "mute", "unmute", "kick", "role"), ON_SERVER),
    "delete": {actor: ON_SERVER.get(actor, set()) | {actor} for actor in range(len(NAMES))},
    **dict.fromkeys(("room ban", "room mute", "room unmute"), IN_THE_ROOM),
    "room kick": {actor: targets & IN_ROOM for actor, targets in IN_THE_ROOM.items()},
    "room delete": {
        actor: (IN_THE_ROOM.get(actor, set()) | {actor}) & IN_ROOM for actor in range(len(NAMES)) if actor != STRANGER
    },
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("actor", range(len(NAMES)), ids=NAMES)
def test_who_may_do_what_to_whom(act: str, actor: int) -> None:
    """A permitted act has a row in the audit table; a refused one changes nothing at all."""
    store = Store()
    said_before = store.last_id
    for target in sorted(EVERYBODY):
        store.connection.execute("BEGIN")
        if "unmute" in act:
            store.do(mute(ADMIN, target, ROOM if "room" in act else None))
        before = store.dump()
        (acts,) = store.connection.execute("SELECT count(*) FROM audit").fetchone()
        outcome = store.do(ACTS[act](store, actor, target))
        is_permitted = target in PERMITTED[act].get(actor, set())
        assert is_permitted is not isinstance(outcome, Problem), (NAMES[target], outcome)
        if is_permitted:
            query = "SELECT by_name FROM audit WHERE id > ?"
            assert store.connection.execute(query, (acts,)).fetchall() == [(NAMES[actor],)]
        else:
            assert store.dump() == before
            problem_error(outcome, "dev", NAMES[target])
        store.connection.execute("ROLLBACK")
        store.last_id = said_before
    store.connection.close()


@pytest.mark.parametrize(
    "entry",
    [
        SetTopic(ROOM, "tea", OP, "op"),
        SetRole(ROOM, MEMBER, "member", OP, "op", RoomRole.OPERATOR),
        InviteUser(ROOM, STRANGER, "stranger", OP, "op"),
    ],
)
def test_operator_of_the_server_runs_every_room(store: Store, entry: Entry[Any]) -> None:
    """Without being in it, private or not."""
    store.connection.execute("UPDATE conversation SET is_private = 1 WHERE id = ?", (ROOM,))
    assert not isinstance(store.do(entry), Problem)


@pytest.mark.parametrize("room_id", [None, ROOM])
def test_muted_operator_of_a_room_sets_no_topic(store: Store, room_id: int | None) -> None:
    store.do(mute(ADMIN, RUNNER, room_id))
    before = store.dump()
    assert isinstance(store.do(SetTopic(ROOM, "tea", RUNNER, "runner")), ActiveSanction)
    assert store.dump() == before
    assert not isinstance(store.do(SetTopic(ROOM, "tea", OWNER, "owner")), ActiveSanction)


def test_standing_tells_a_mute_on_the_whole_server(store: Store) -> None:
    store.do(mute(ADMIN, RUNNER, ROOM))
    assert not store.records().standing(RUNNER, "").is_muted
    store.do(mute(ADMIN, RUNNER))
    assert store.records().standing(RUNNER, "").is_muted


@pytest.mark.parametrize("act", ["ban", "role"])
def test_last_operator_stays(store: Store, act: str) -> None:
    """Nor can the administrator take it away. An operator who is banned does not count, and can do nothing."""
    assert isinstance(store.do(ban(OP, OP2, seconds=60)), Moderated)
    assert store.do(ACTS[act](store, ADMIN, OP)) is Problem.LAST_OPERATOR
    assert store.do(ban(OP2, STRANGER)) is Problem.NOT_PERMITTED
    store.now_ms += 60_000
    assert isinstance(store.do(ACTS[act](store, OP2, OP)), Moderated)


@pytest.mark.parametrize("act", [act for act in ACTS if "unmute" not in act])
@pytest.mark.parametrize("is_banned", [False, True])
def test_act_that_follows_the_loss_of_the_role_is_refused(store: Store, act: str, *, is_banned: bool) -> None:
    """Also in the same transaction: the request may have been read before."""
    actor = RUNNER if "room" in act else OP
    if not is_banned and actor == RUNNER:
        store.do(SetRole(ROOM, RUNNER, "runner", OWNER, "owner", RoomRole.MEMBER))
    elif not is_banned:
        store.do(SetServerRole(role=Role.USER, **about(OP), **by(ADMIN)))
    else:
        store.do(ban(ADMIN, actor, ROOM if actor == RUNNER else None))
    before = store.dump()
    assert isinstance(store.do(ACTS[act](store, actor, MEMBER)), Problem)
    assert store.dump() == before


@pytest.mark.parametrize(("room_id", "elsewhere"), [(None, False), (ROOM, True)])
@pytest.mark.parametrize("kind", SanctionKind)
def test_sanction_ends_at_its_time(store: Store, room_id: int | None, kind: SanctionKind, *, elsewhere: bool) -> None:
    """Until then a message is refused, in the room of the sanction. The sender gets the reason and the time."""
    store.do(Sanction(kind=kind, room_id=room_id, seconds=60, reason="spam.", **about(MEMBER), **by(OP)))
    until_ms = BEGIN_MS + 60_000
    store.now_ms = until_ms - 1
    expected = ActiveSanction(kind, until_ms, "spam.", "dev" if room_id else None)
    for place in (LOBBY_ID, DIRECT_ID, ROOM):
        outcome = store.whisper(MEMBER, OTHER) if place == DIRECT_ID else store.say(MEMBER, place)
        assert (outcome == expected) is (not elsewhere or place == ROOM)
    where = " in the room dev" if room_id else ""
    text = f"You are {'banned' if kind is BAN else 'muted'}{where} until 1970-01-01 00:18 UTC: spam."
    assert sanction_error(expected).reason == text
    if room_id and kind is BAN:
        again = JoinRoom(MEMBER, "member", "DEV", is_private=False, may_create=True)
        assert store.do(again) == expected
        store.now_ms = until_ms
        assert not isinstance(store.do(again), ActiveSanction)
    store.now_ms = until_ms
    assert isinstance(store.say(MEMBER, ROOM), tuple)
    assert store.records().sanctions(room_id) == ()
    assert store.do(LiftSanction(kind=kind, room_id=room_id, **about(MEMBER), **by(OP))) is Problem.NOT_SANCTIONED


def test_later_sanction_replaces_the_earlier_one_of_its_kind(store: Store) -> None:
    """A ban and a mute, and those of a room and of the server, are independent."""
    for seconds in (10, None, 30):
        store.do(mute(OP, MEMBER, seconds=seconds))
    store.do(mute(OP, MEMBER, ROOM))
    assert [each.until for each in store.records().sanctions(None)] == [BEGIN_MS + 30_000]
    assert store.do(LiftSanction(kind=BAN, **about(MEMBER), **by(OP))) is Problem.NOT_SANCTIONED
    assert store.do(LiftSanction(kind=MUTE, **about(MEMBER), **by(OP))) == Moderated()
    assert isinstance(store.say(MEMBER), tuple)
    assert isinstance(store.say(MEMBER, ROOM), ActiveSanction)


def test_banned_member_is_out_until_it_ends(store: Store) -> None:
    """Also an invitation ends, and there is none meanwhile. A banned owner has an heir."""
    outcome = store.do(ban(OP, OWNER, ROOM))
    assert (outcome.change.role, outcome.change.heir) == (None, "runner")
    store.do(InviteUser(ROOM, STRANGER, "stranger", RUNNER, "runner"))
    assert store.do(ban(RUNNER, STRANGER, ROOM)).change.old_role is None
    assert store.do(InviteUser(ROOM, STRANGER, "stranger", RUNNER, "runner")) is Problem.USER_BANNED
    query = "SELECT invited_count, member_count FROM conversation WHERE id = ?"
    assert store.connection.execute(query, (ROOM,)).fetchone() == (0, 4)


@pytest.mark.parametrize(
    ("banned", "address", "is_banned"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.9/24", "192.0.2.200", True),
        ("192.0.2.0/24", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("0.0.0.0/0", "203.0.113.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::1", "2001:db8::ffff", True),  # one customer
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1%eth0", True),
    ],
)
def test_network_keeps_its_addresses_out(store: Store, banned: str, address: str, *, is_banned: bool) -> None:
    records, database = store.records(), MemoryDatabase(store.connection)
    assert records.ban_of_address(address) is None
    assert not Accounts(database).find_for_login("nobody", address).has_network_bans
    network = ban_network(banned)
    store.do(Sanction(kind=BAN, network=network, reason="flood", **by(OP)))
    assert Accounts(database).find_for_login("nobody", address).has_network_bans
    store.do(Sanction(kind=BAN, network="198.51.100.0/24", seconds=1, **by(OP)))
    expected = ActiveSanction(BAN, None, "flood") if is_banned else None
    assert records.ban_of_address(address) == records.standing(MEMBER, address).ban == expected
    assert records.sanctions(None)[0].address == network
    assert store.do(LiftSanction(kind=BAN, network=network, **by(OP))) == Moderated()
    assert records.ban_of_address(address) is None


def test_login_costs_no_look_at_the_bans_of_rooms(store: Store) -> None:
    """Rooms may have a million of them."""
    connection = store.connection
    connection.executemany(
        "INSERT INTO sanction (kind, conversation_id, account_id, reason, by_name, created_ms)"
        " VALUES ('ban', ?, ?, '', '', 1)",
        [(room_id, account_id) for room_id in range(10, 1000) for account_id in range(1, len(NAMES))],
    )
    steps: list[None] = []
    connection.set_progress_handler(lambda: steps.append(None), 1)
    try:
        assert not Accounts(MemoryDatabase(connection)).find_for_login("nobody", "192.0.2.1").has_network_bans
        assert store.records().ban_of_address("192.0.2.1") is None
    finally:
        connection.set_progress_handler(None, 0)
    assert len(steps) < 500


def test_network_is_banned_from_the_whole_server_only(store: Store) -> None:
    for entry in (
        Sanction(kind=MUTE, network="192.0.2.0/24", **by(ADMIN)),
        Sanction(kind=BAN, network="192.0.2.0/24", room_id=ROOM, **by(ADMIN)),
        Sanction(kind=BAN, network="192.0.2.0/24", account_id=MEMBER, **by(ADMIN)),
        Sanction(kind=BAN, network="192.0.2.0/24", **by(OWNER)),
    ):
        assert store.do(entry) is Problem.NOT_PERMITTED
    assert store.do(Sanction(kind=BAN, account_id=99, username="x", **by(ADMIN))) is Problem.UNKNOWN_USER


def test_lists_have_limits(store: Store) -> None:
    """Each is one answer. The error names the limit that is reached."""
    errors = [problem_error(Problem.TOO_MANY_SANCTIONS), problem_error(Problem.TOO_MANY_SANCTIONS, "dev")]
    assert [str(error) for error in [*errors, problem_error(Problem.TOO_MANY_IGNORED)]] == [
        f"The server has {SANCTIONS_MAX:,} bans and mutes, which is the maximum; end some first.",
        f"The room dev has {SANCTIONS_OF_ROOM_MAX:,} bans and mutes, which is the maximum; end some first.",
        f"You ignore {IGNORED_MAX:,} users, which is the maximum; end some first.",
    ]
    for room_id, count in ((None, SANCTIONS_MAX), (ROOM, SANCTIONS_OF_ROOM_MAX)):
        assert isinstance(store.do(ban(OP, MEMBER, room_id)), Moderated)
        store.connection.executemany(
            "INSERT INTO sanction VALUES ((SELECT max(id) + 1 FROM sanction), 'ban', ?, NULL, ?, NULL, '', 'op', 0)",
            [(room_id, f"network {number}") for number in range(count - 1)],
        )
        assert store.do(ban(OP, OTHER, room_id)) is Problem.TOO_MANY_SANCTIONS
    for number in range(IGNORED_MAX + 1):
        outcome = store.do(NewAccount(f"user{number}", "hash"))
        assert store.do(SetIgnored(MEMBER, outcome.id, is_ignored=True)) is (
            None if number < IGNORED_MAX else Problem.TOO_MANY_IGNORED
        )
    assert store.do(SetIgnored(MEMBER, MEMBER, is_ignored=True)) is Problem.ONESELF


def test_ignored_sender_gets_the_usual_outcome(store: Store) -> None:
    """The message and the invitation are stored; only the hub learns that they are ignored."""
    store.do(SetIgnored(MEMBER, OTHER, is_ignored=True))
    (part,) = store.whisper(OTHER, MEMBER)
    assert part == Stored(0, 1, store.last_id, is_ignored=True)
    assert store.whisper(MEMBER, OTHER)[0].is_ignored is False
    store.do(SetIgnored(MEMBER, OTHER, is_ignored=False))
    assert store.whisper(OTHER, MEMBER)[0].is_ignored is False
    store.do(SetIgnored(STRANGER, OWNER, is_ignored=True))
    invited = store.do(InviteUser(ROOM, STRANGER, "stranger", OWNER, "owner"))
    assert (invited.is_changed, invited.is_ignored) == (True, True)
    assert store.do(KickMember(ROOM, STRANGER, "stranger", OWNER, "owner")).old_role is None
    assert store.do(InviteUser(ROOM, STRANGER, "stranger", RUNNER, "runner")).is_ignored is False


def test_deleted_message_keeps_its_id_and_nonce(store: Store) -> None:
    (first,) = store.say(MEMBER, nonce="n1")
    outcome = store.do(DeleteMessage(message_id=first, **by(MEMBER)))
    assert (outcome.text, outcome.sender_id) == ("text", MEMBER)
    assert store.say(MEMBER, nonce="n1") == (first,)
    assert store.say(MEMBER) == (first + 1,)
    before = store.dump()
    assert store.do(DeleteMessage(message_id=first, **by(OP))).text == ""
    assert store.dump() == before, "a second time nothing changes"
    assert store.do(Report(message_id=first, **by(OTHER))) is Problem.UNKNOWN_MESSAGE


@pytest.mark.parametrize("act", [DeleteMessage, Report])
def test_message_that_one_may_not_see_does_not_exist(store: Store, act: type[DeleteMessage | Report]) -> None:
    """A direct message for others; in a room for those who are not in it."""
    (direct,) = store.whisper(MEMBER, OTHER)
    for actor in (OP, STRANGER):
        assert store.do(act(message_id=direct.id, **by(actor))) is Problem.UNKNOWN_MESSAGE
    assert store.do(act(message_id=store.said_in_room[MEMBER], **by(MEMBER))) is Problem.UNKNOWN_MESSAGE
    assert store.do(act(message_id=2**62, **by(OP))) is Problem.UNKNOWN_MESSAGE
    in_room = act(message_id=store.said_in_room[MEMBER], room_id=ROOM, **by(STRANGER))
    assert store.do(in_room) is Problem.NOT_A_MEMBER
    store.connection.execute("UPDATE conversation SET is_private = 1 WHERE id = ?", (ROOM,))
    assert store.do(in_room) is Problem.UNKNOWN_ROOM
    assert not isinstance(store.do(Report(message_id=direct.id, **by(OTHER))), Problem)
    assert store.do(DeleteMessage(message_id=direct.id, **by(OTHER))) is Problem.NOT_PERMITTED
    deleted = store.do(DeleteMessage(message_id=direct.id, **by(MEMBER)))
    assert (deleted.sender, deleted.recipient) == (NAMES[MEMBER], NAMES[OTHER])


def test_login_reads_the_newest_deletions_that_its_user_could_see(store: Store) -> None:
    (direct,), (foreign,) = store.whisper(MEMBER, OTHER), store.whisper(OP, OTHER)
    for message_id, sender in ((direct.id, MEMBER), (store.said[OWNER], OWNER), (foreign.id, OP)):
        store.do(DeleteMessage(message_id=message_id, **by(sender)))
    store.do(DeleteMessage(message_id=store.said_in_room[OWNER], room_id=ROOM, **by(OWNER)))
    records = store.records()
    everything = {LOBBY_ID: store.last_id, DIRECT_ID: store.last_id, ROOM: store.last_id}
    of_member = [
        Deleted(direct.id, "member"), Deleted(store.said[OWNER], "owner"),
        Deleted(store.said_in_room[OWNER], "owner", "dev"),
    ]  # fmt: skip
    assert list(records.deletions(MEMBER, everything)) == of_member
    assert list(records.deletions(MEMBER, {**everything, DIRECT_ID: direct.id - 1})) == of_member[1:]
    assert [each.id for each in records.deletions(STRANGER, {LOBBY_ID: store.last_id})] == [store.said[OWNER]]
    many = [store.say(OP)[0] for _ in range(DELETIONS_REPORTED_MAX + 1)]
    for message_id in many:
        store.do(DeleteMessage(message_id=message_id, **by(OP)))
    assert [each.id for each in records.deletions(MEMBER, {LOBBY_ID: store.last_id})] == many[1:]


def test_audit_is_read_backwards(store: Store) -> None:
    store.do(ban(OP, MEMBER, ROOM, 60))
    store.do(Report(message_id=store.said[OTHER], reason="rude", **by(OWNER)))
    records = store.records()
    acts = records.audit(2)
    assert [(each.action, each.by, each.target, each.room, each.reason, each.detail) for each in acts] == [
        ("ban", "op", "member", "dev", "spam", "for 60 s"),
        ("report", "owner", str(store.said[OTHER]), None, "rude", "of other"),
    ]
    assert records.audit(1, acts[1].number) == acts[:1]
