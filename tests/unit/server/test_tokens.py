"""Session tokens: when one is valid, the login with it, and the connections that end with it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Bye, PasswordChanged, PasswordPrompt, Pong, Refused, SanctionKind, Tokens, Welcome
from chatprotocol.limits import TOKENS_MAX
from chatprotocol.requests import AskTokens, ChangePassword, Login, Password, Ping, Revoke
from chatserver.chat.login_throttle import Pace, ThrottleLimits
from chatserver.journal import entries
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import AddToken, DeleteAccount, NewAccount, PasswordChange, Problem, SetPassword
from chatserver.store.moderation import ActiveSanction
from chatserver.store.tokens import LIFETIME_MS, StoredToken, hash_token, new_token
from chatserver.store.tokens import Tokens as StoredTokens

from .chat_fixture import ChatFixture, Peer, codes
from .helpers import MemoryDatabase, assert_waits, eventually, in_background, must_end, new_store

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LOGIN = Login("alice", "secret", remember="phone")
HOME, ELSEWHERE = "10.0.0.1", "10.0.0.2"


# --- the store ---

ALICE, BOB = 1, 2
accounts = st.sampled_from([ALICE, BOB])
ids = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("add"), accounts, ids),
    st.tuples(st.just("use"), accounts, ids),
    st.tuples(st.just("revoke"), accounts, ids | st.just(""), ids | st.just("")),
    st.tuples(st.just("change"), accounts, ids | st.just(""), st.sampled_from(["right", "wrong", "rehash"])),
    st.tuples(st.just("set"), accounts),
    st.tuples(st.just("pass"), st.sampled_from([HOUR_MS, 29 * DAY_MS, LIFETIME_MS])),
)


class Store:
    """The tokens of two users in a store, and the model: the time of the last use of each, by account and id."""

    def __init__(self) -> None:
        self.connection = new_store()
        self.now_ms = DAY_MS
        self.tokens = StoredTokens(MemoryDatabase(self.connection))
        self.used_ms: dict[tuple[int, str], int] = {}
        for name in ("alice", "bob"):
            self.do(NewAccount(name, "hash"))

    def do(self, entry: entries.Entry[Any]) -> Any:
        return apply(Transaction(self.connection, self.now_ms, 0), entry)

    def remove(self, account_id: int, is_removed: Callable[[str], bool]) -> tuple[str, ...]:
        gone = sorted(each for owner, each in self.used_ms if owner == account_id and is_removed(each))
        for each in gone:
            del self.used_ms[account_id, each]
        return tuple(gone)

    def step(self, kind: str, *given: Any) -> None:
        match kind, given:
            case "add", (account_id, token_id):
                outcome = self.do(AddToken(account_id, hash_token(f"{account_id}{token_id}"), token_id, "phone"))
                assert outcome == entries.Revoked(())
                self.used_ms[account_id, token_id] = self.now_ms
            case "use", (account_id, token_id):
                self.do(entries.UseToken(account_id, token_id))
                if self.is_valid(account_id, token_id):
                    self.used_ms[account_id, token_id] = self.now_ms
            case "revoke", (account_id, token_id, kept):
                outcome = self.do(entries.RevokeTokens(account_id, token_id, kept))
                gone = self.remove(account_id, lambda each: each == token_id if token_id else each != kept)
                assert set(outcome.token_ids) <= set(gone), "one that is over may be removed already"
            case "change", (account_id, kept, how):
                query = "SELECT password_hash FROM account WHERE id = ?"
                (old,) = self.connection.execute(query, (account_id,)).fetchone()
                change = PasswordChange(account_id, old if how != "wrong" else "?", f"{old}+", kept, how == "rehash")
                assert self.do(change) is (how != "wrong")
                if how == "right":
                    self.remove(account_id, lambda each: each != kept)
            case "set", (account_id,):
                acting: dict[str, Any] = {"by_id": 0, "by": "admin", "must_change": False}
                self.do(SetPassword(account_id=account_id, username="", password_hash="hash", **acting))
                self.remove(account_id, lambda _: True)
            case "pass", (passed_ms,):
                self.now_ms += passed_ms

    def is_valid(self, account_id: int, token_id: str) -> bool:
        used_ms = self.used_ms.get((account_id, token_id))
        return used_ms is not None and used_ms > self.now_ms - LIFETIME_MS


@given(st.lists(STEPS, max_size=30))
@example([("add", ALICE, "a"), ("pass", 29 * DAY_MS), ("use", ALICE, "a"), ("pass", 29 * DAY_MS)])
@example([("add", ALICE, "a"), ("pass", LIFETIME_MS), ("use", ALICE, "a")])
@example([("add", ALICE, "a"), ("add", ALICE, "b"), ("add", BOB, "a"), ("change", ALICE, "b", "right")])
@example([("add", ALICE, "a"), ("change", ALICE, "", "rehash"), ("change", ALICE, "", "wrong")])
@example([("add", ALICE, "a"), ("add", BOB, "a"), ("set", ALICE)])
def test_tokens_agree_with_the_model(steps: list[tuple[Any, ...]]) -> None:
    """Promise: a token is valid until it is revoked, the password is changed, or it was not used for 30 days."""
    store = Store()
    with closing(store.connection):
        for step in steps:
            store.step(*step)
        for account_id in (ALICE, BOB):
            valid = {each for each in "abc" if store.is_valid(account_id, each)}
            assert {each.id for each in store.tokens.list_of(account_id, store.now_ms)} == valid
            for token_id in "abc":
                found = store.tokens.find(f"{account_id}{token_id}", "home", store.now_ms)
                assert (found is not None) is (token_id in valid)
                if found is not None:
                    used_ms = store.used_ms[account_id, token_id]
                    assert (found.account.id, found.id, found.used_ms) == (account_id, token_id, used_ms)
                    assert store.tokens.has(account_id, token_id)


def test_token_over_the_limit_ends_the_one_that_was_used_least_recently() -> None:
    store = Store()
    with closing(store.connection):
        for number in range(TOKENS_MAX):
            store.now_ms += 1
            assert store.do(AddToken(ALICE, f"hash {number}", f"id {number}", "")) == entries.Revoked(())
        store.do(AddToken(BOB, "hash of bob", "id 1", ""))
        store.do(entries.UseToken(ALICE, "id 0"))
        store.now_ms -= 10 * HOUR_MS  # the clock was set: the new one is not the one that goes
        assert store.do(AddToken(ALICE, "hash", "new", "")) == entries.Revoked(("id 1",))
        found = [each.id for each in store.tokens.list_of(ALICE, store.now_ms)]
        assert len(found) == TOKENS_MAX
        assert {"new", "id 0"} <= set(found)
        assert store.tokens.has(BOB, "id 1")


def test_tokens_that_are_over_are_removed_with_the_next_one() -> None:
    store = Store()
    with closing(store.connection):
        store.do(AddToken(ALICE, "old", "old", ""))
        store.now_ms += LIFETIME_MS
        store.do(AddToken(BOB, "new", "new", ""))
        assert store.connection.execute("SELECT id FROM token").fetchall() == [("new",)]


def test_deleted_account_has_no_tokens_and_gets_none() -> None:
    store = Store()
    with closing(store.connection):
        for account_id in (ALICE, BOB):
            store.do(AddToken(account_id, hash_token(str(account_id)), "id", ""))
        store.do(DeleteAccount(account_id=ALICE, username="alice", by_id=0, by="admin"))
        assert store.tokens.find("1", "home", store.now_ms) is None
        assert store.tokens.find("2", "home", store.now_ms) is not None
        for account_id in (ALICE, 99):
            assert store.do(AddToken(account_id, "hash", "id", "")) is Problem.UNKNOWN_USER


def test_tokens_are_random_and_only_their_hashes_are_stored() -> None:
    """Promise: a thief of the database gets no token."""
    made = [new_token() for _ in range(100)]
    assert len({each.secret for each in made}) == len({each.hash for each in made}) == 100
    assert all(len(each.secret) == 43 for each in made)  # 256 bits
    store = Store()
    with closing(store.connection):
        store.do(AddToken(ALICE, made[0].hash, made[0].id, "phone"))
        stored = "\n".join(store.connection.iterdump())
        assert made[0].hash in stored
        assert made[0].secret not in stored
        assert store.tokens.find(made[0].secret, "home", store.now_ms) is not None
        assert store.tokens.find(made[0].hash, "home", store.now_ms) is None


# --- the login ---


def remembered(services: ChatFixture, login: Login = LOGIN, address: str = HOME) -> tuple[Peer, str]:
    """A connection, and the token that its login got."""
    peer = services.connect(address)
    (welcome,) = peer.ask(login)
    assert isinstance(welcome, Welcome)
    assert welcome.token is not None
    return peer, welcome.token


def test_token_logs_in_at_once_and_without_a_hash(services: ChatFixture) -> None:
    """Promise: a valid token never waits for guesses."""
    _, token = remembered(services)
    services.passwords.checked.clear()
    peer = services.connect(ELSEWHERE)
    (welcome,) = peer.ask(Login(token=token))
    assert isinstance(welcome, Welcome)
    assert (welcome.username, welcome.account, welcome.token) == ("Alice", "existing", None)
    assert services.passwords.checked == []
    assert codes(services.connect().ask(Login("ALICE", token=token))) == [Welcome]
    assert (1, ELSEWHERE) in services.accounts.networks, "the network has logged in before"


def test_token_comes_with_a_prompted_password_and_with_a_new_name(services: ChatFixture) -> None:
    prompt, welcome = services.connect().ask(Login("carol", remember="bot"), Password("secret"))
    assert isinstance(prompt, PasswordPrompt)
    assert isinstance(welcome, Welcome)
    assert welcome.account == "new"
    assert codes(services.connect().ask(Login(token=welcome.token))) == [Welcome]
    assert [each.label for each in services.tokens.list_of(3, 0)] == ["bot"]


@pytest.mark.parametrize("label", ["", " ", "x" * 65, "\u20ac" * 22, "a\nb", "a\x1b[2J", "a\u2028b"])
def test_label_is_one_short_line(services: ChatFixture, label: str) -> None:
    answers = codes(services.connect().ask(Login("carol", "secret", remember=label)))
    assert answers in ([ErrorCode.BAD_REQUEST], [ErrorCode.TOO_LONG])
    assert services.passwords.hashed == []
    assert services.accounts.find("carol") is None


@pytest.mark.parametrize("token", ["", "x", "\0", "\u20ac", "e\u0301" * 30, "x" * 100_000, "' OR 1=1 --", "all"])
def test_wrong_token_is_refused_and_the_third_one_closes(services: ChatFixture, token: str) -> None:
    _, right = remembered(services)
    peer = services.connect()
    assert codes(peer.ask(Login(token=token))) == [ErrorCode.BAD_TOKEN]
    assert codes(peer.ask(Login("bob", token=right))) == [ErrorCode.BAD_TOKEN], "the token of another user"
    assert not peer.session.handle([Login(token=right + "x"), Ping()])
    assert codes(peer.new_replies()) == [ErrorCode.TOO_MANY_ATTEMPTS, Bye]


def test_wrong_tokens_delay_the_network_as_wrong_passwords_do() -> None:
    slow = Pace(1, 0.04)
    services = ChatFixture(throttle=ThrottleLimits(network=slow, wait_max_seconds=10))
    _, right = remembered(services)
    for login, answer in ((Login(token="y"), ErrorCode.BAD_TOKEN), (Login("bob", "secret"), Welcome)):
        services.connect(ELSEWHERE).ask(Login("bob", "secret"))
        services.now += 1
        services.connect(HOME).ask(Login(token="x"))
        waiting_peer = services.connect(HOME)
        waiting = in_background(partial(waiting_peer.ask, login))
        assert_waits(waiting)
        assert codes(services.connect(HOME).ask(Login(token=right))) == [Welcome]
        services.now += 1
        must_end(waiting)
        assert codes(waiting_peer.send_queue.replies) == [answer]


def test_refused_tokens_are_not_charged() -> None:
    """Else a flood of them would keep the other users of the network out for hours."""
    services = ChatFixture(throttle=ThrottleLimits(network=Pace(1, 100.0)))
    services.connect(HOME).ask(Login(token="x"))
    for left_seconds in (75, 50):
        peer = services.connect(HOME)
        waiting = in_background(partial(peer.ask, Login(token="x")))
        eventually(lambda peer=peer: peer.session.awaits_turn)  # type: ignore[misc]
        services.now += 25
        must_end(waiting)
        (refused,) = peer.send_queue.replies
        assert isinstance(refused, Refused)
        assert (refused.code, refused.retry_seconds) == (ErrorCode.TOO_MANY_ATTEMPTS, left_seconds)
        assert "wrong tokens from your address" in refused.reason


def test_token_admits_no_banned_user_and_none_who_must_change_the_password(services: ChatFixture) -> None:
    _, token = remembered(services)
    services.records.banned[1] = ActiveSanction(SanctionKind.BAN, None, "")
    assert codes(services.connect().ask(Login(token=token))) == [ErrorCode.BANNED]
    assert codes(services.connect().ask(LOGIN)) == [ErrorCode.BANNED]
    assert len(services.tokens.added) == 1, "a refused login makes no token"
    services.records.banned.clear()
    services.accounts.by_key["alice"] = replace(services.accounts.by_key["alice"], must_change_password=True)
    assert codes(services.connect().ask(Login(token=token))) == [ErrorCode.PASSWORD_CHANGE_REQUIRED]
    services.records.deleted.add(1)
    assert codes(services.connect().ask(LOGIN)) != [Welcome]


def test_token_that_is_revoked_during_the_login_lets_it_fail(services: ChatFixture) -> None:
    """Else the revocation would find no connection to end."""
    for login in (Login(token=remembered(services)[1]), LOGIN):
        services.records.when_read = services.tokens.added.clear
        assert codes(services.connect().ask(login)) == [ErrorCode.BAD_TOKEN]
        services.records.when_read = lambda: None


def test_use_is_noted_once_a_day(services: ChatFixture) -> None:
    _, token = remembered(services)
    (token_id,) = (each.token_id for each in services.tokens.added.values())
    times = []
    for services.journal.now_ms in (DAY_MS - 1, DAY_MS, DAY_MS + 1, 2 * DAY_MS):
        services.connect().ask(Login(token=token))
        times.append(services.tokens.used_ms.get(token_id, 0))
    assert times == [0, DAY_MS, DAY_MS, 2 * DAY_MS]


def test_token_is_stored_before_the_welcome(services: ChatFixture) -> None:
    """Promise: confirmed means stored."""
    services.connect().ask(Login("alice", "secret"))
    services.journal.fault = OSError("disk full")
    assert codes(services.connect().ask(LOGIN)) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    assert services.tokens.added == {}
    assert len(services.presence.users()[0]) == 1


def test_token_that_another_server_has_just_made_is_found() -> None:
    """This server applies the entry a moment later."""
    services = ChatFixture(behind_max_seconds=5.0)
    _, token = remembered(services)
    added = dict(services.tokens.added)
    services.tokens.added.clear()
    peer = services.connect()
    waiting = in_background(lambda: peer.ask(Login(token=token)))
    assert_waits(waiting)
    services.tokens.added.update(added)
    must_end(waiting)
    assert codes(peer.send_queue.replies) == [Welcome]
    services.tick_seconds = 0.5
    assert codes(services.connect().ask(Login(token="x"))) == [ErrorCode.BAD_TOKEN]


# --- the list, and revoking ---


def listed(peer: Peer) -> list[tuple[str, bool]]:
    (answer,) = peer.ask(AskTokens())
    assert isinstance(answer, Tokens)
    return sorted((each.label, each.current) for each in answer.tokens)


def ended(peer: Peer) -> bool:
    """True if the server has ended the connection because its token is revoked; False if it still answers."""
    if peer.send_queue.is_finished:
        assert peer.new_replies() == [Bye("the session was revoked", ErrorCode.REVOKED)]
        assert peer.send_queue.hangs_up
        return True
    assert peer.ask(Ping()) == [Pong()]
    return False


class Sessions:
    """Connections of alice: by a password, by two tokens and as they were made; and one of bob with a token."""

    def __init__(self, services: ChatFixture) -> None:
        self.password = services.connect()
        self.password.ask(Login("alice", "secret"))
        self.phone, phone = remembered(services)
        self.again = services.connect()
        self.again.ask(Login(token=phone))
        self.laptop, self.laptop_token = remembered(services, Login("alice", "secret", remember="laptop"))
        self.bob, _ = remembered(services, Login("bob", "secret", remember="phone"))
        self.services = services
        self.all = (self.password, self.phone, self.again, self.laptop, self.bob)
        for each in self.all:
            each.new_replies()

    def id_of(self, label: str, account_id: int = 1) -> str:
        (found,) = (each.id for each in self.services.tokens.list_of(account_id, 0) if each.label == label)
        return found

    def ended(self) -> list[bool]:
        return [ended(each) for each in self.all]


@pytest.fixture
def sessions(services: ChatFixture) -> Sessions:
    return Sessions(services)


def test_list_has_the_own_tokens_and_marks_the_current_one(sessions: Sessions) -> None:
    assert listed(sessions.phone) == listed(sessions.again) == [("laptop", False), ("phone", True)]
    assert listed(sessions.laptop) == [("laptop", True), ("phone", False)]
    assert listed(sessions.password) == [("laptop", False), ("phone", False)]
    assert listed(sessions.bob) == [("phone", True)]


def test_revoked_token_ends_its_connections_and_lets_no_peer_in(services: ChatFixture, sessions: Sessions) -> None:
    """Promise: the one that it was made on, too, and no other ones."""
    answer = sessions.password.ask(Revoke(sessions.id_of("laptop")))
    assert codes(answer) == [Tokens]
    assert sessions.ended() == [False, False, False, True, False]
    assert codes(services.connect().ask(Login(token=sessions.laptop_token))) == [ErrorCode.BAD_TOKEN]
    sessions.password.ask(Revoke(sessions.id_of("phone")))
    assert [each.send_queue.is_finished for each in sessions.all] == [False, True, True, True, False]


def test_all_others_are_revoked_with_one_request(sessions: Sessions) -> None:
    assert codes(sessions.again.ask(Revoke("all"))) == [Tokens]
    assert listed(sessions.again) == [("phone", True)]
    assert sessions.ended() == [False, False, False, True, False]


def test_connection_without_a_token_revokes_all(sessions: Sessions) -> None:
    sessions.password.ask(Revoke("all"))
    assert listed(sessions.password) == []
    assert sessions.ended() == [False, True, True, True, False]


def test_own_token_is_revoked_with_a_goodbye(sessions: Sessions) -> None:
    sessions.laptop.session.handle([Revoke(sessions.id_of("laptop"))])
    assert sessions.ended() == [False, False, False, True, False]


@pytest.mark.parametrize("token_id", ["", "x", "ALL", "\u20ac", "x" * 60_000])
def test_unknown_id_is_refused(sessions: Sessions, token_id: str) -> None:
    """That of another user is unknown, too."""
    for asked in (token_id, sessions.id_of("phone", account_id=2)):
        assert codes(sessions.phone.ask(Revoke(asked))) == [ErrorCode.BAD_REQUEST]
    assert sessions.ended() == [False] * 5


def test_changed_password_revokes_all_other_tokens(sessions: Sessions) -> None:
    """Promise: who has learned the password has no session after its change. Connections by the password stay."""
    assert codes(sessions.again.ask(ChangePassword("secret", "new"))) == [PasswordChanged]
    assert sessions.ended() == [False, False, False, True, False]


def test_password_that_is_changed_at_a_login_revokes_all_tokens(services: ChatFixture, sessions: Sessions) -> None:
    login = Login("alice", "secret", new_password="new", remember="tablet")
    assert codes(services.connect().ask(login)) == [Welcome]
    assert listed(sessions.password) == [("tablet", False)]
    assert sessions.ended() == [False, True, True, True, False]


def test_another_hash_of_the_same_password_revokes_nothing(services: ChatFixture, sessions: Sessions) -> None:
    services.accounts.by_key["alice"] = replace(services.accounts.by_key["alice"], password_hash="!terces")
    assert codes(services.connect().ask(Login("alice", "secret"))) == [Welcome]
    assert sessions.ended() == [False] * 5


def test_revocation_that_is_not_stored_changes_nothing(services: ChatFixture, sessions: Sessions) -> None:
    services.journal.fault = OSError("disk full")
    assert codes(sessions.phone.ask(Revoke("all"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    assert sessions.ended() == [False] * 5
    assert isinstance(services.tokens.list_of(1, 0)[0], StoredToken)
