"""Logins and registrations: waiting for a turn, limits, invitations, and passwords that must be changed."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import PasswordChanged, PasswordPrompt, Refused, SanctionKind, Welcome
from chatprotocol.requests import ChangePassword, GuestLogin, Login, Password, Side, StepLogin
from chatserver.chat.login_throttle import Pace, ThrottleLimits
from chatserver.chat.passwords import Urgency, Verdict
from chatserver.journal.base import Appended, JournalClosedError
from chatserver.journal.entries import Entry, KnownNetwork
from chatserver.store.accounts import Role
from chatserver.store.invitations import hash_code, new_code
from chatserver.store.moderation import ActiveSanction

from .chat_fixture import ChatFixture, Peer, codes
from .helpers import assert_waits, eventually, in_background, must_end

LOGIN, WRONG = Login("alice", "secret"), Login("alice", "wrong")
# One try at once, and then one in each 40 ms of the time that the test moves.
SLOW = Pace(1, 0.04)
SLOW_LIMITS = ThrottleLimits(first=SLOW, further=SLOW, network=SLOW, change=SLOW, wait_max_seconds=10)
HOME, ELSEWHERE = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def slow() -> Iterator[ChatFixture]:
    """Services in which alice, who is known at HOME, has tried a wrong password there."""
    services = ChatFixture(throttle=SLOW_LIMITS)
    services.connect(HOME).ask(LOGIN)
    services.connect(HOME).ask(WRONG)
    services.passwords.checked.clear()
    yield services
    services.services.authentication.stop_waiting()


# --- turns ---
def test_try_waits_for_its_turn_and_is_hashed_after_it(slow: ChatFixture) -> None:
    peer = slow.connect(HOME)
    waiting = in_background(lambda: peer.ask(LOGIN))
    assert_waits(waiting)
    assert slow.passwords.checked == []
    slow.now += 0.05
    must_end(waiting)
    assert codes(peer.send_queue.replies) == [Welcome]
    # The right password was taken back: another one does not wait.
    assert codes(slow.connect(HOME).ask(LOGIN)) == [Welcome]


def test_try_of_a_known_network_does_not_wait_for_strangers(slow: ChatFixture) -> None:
    """Promise: a device that logged in before is never delayed by strangers' guesses."""
    slow.now += 1
    slow.connect(ELSEWHERE).ask(WRONG)
    stranger = slow.connect(ELSEWHERE)
    waiting = in_background(lambda: stranger.ask(LOGIN))
    assert_waits(waiting)
    assert codes(slow.connect(HOME).ask(LOGIN)) == [Welcome]
    slow.now += 1
    must_end(waiting)
    assert codes(slow.connect(ELSEWHERE).ask(LOGIN)) == [Welcome]
    assert slow.passwords.urgencies[-3:] == [Urgency.KNOWN, Urgency.LOGIN, Urgency.KNOWN]


def test_change_of_a_password_waits_for_logins_and_registrations() -> None:
    """Promise: users who change their passwords without a pause keep no user out."""
    services = ChatFixture()
    alice = services.connect(HOME)
    alice.ask(LOGIN)
    services.passwords.urgencies.clear()
    assert codes(alice.ask(ChangePassword("secret", "new"))) == [PasswordChanged]
    assert set(services.passwords.urgencies) == {Urgency.CHANGE}
    assert set(services.passwords.accounts) == {"alice", ""}


def test_try_ends_when_its_peer_has_hung_up(slow: ChatFixture) -> None:
    peer = slow.connect(HOME)
    waiting = in_background(lambda: peer.ask(LOGIN))
    assert_waits(waiting)
    peer.send_queue.is_gone = True
    must_end(waiting)
    assert slow.passwords.checked == []
    assert codes(peer.new_replies() or peer.send_queue.replies) == [ErrorCode.RATE_LIMITED]


def test_try_is_refused_after_the_longest_wait() -> None:
    limits = SLOW_LIMITS._replace(network=Pace(1, 100.0))
    services = ChatFixture(throttle=limits)
    services.connect(HOME).ask(LOGIN)
    services.connect(HOME).ask(WRONG)
    peer = services.connect(HOME)
    waiting = in_background(lambda: peer.ask(LOGIN))
    eventually(lambda: peer.session.awaits_turn)
    services.now += limits.wait_max_seconds
    must_end(waiting)
    (refused,) = peer.send_queue.replies
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_seconds) == (ErrorCode.TOO_MANY_ATTEMPTS, 90)
    assert services.counters.limits_hit == {"logins": 1}


def test_try_that_waits_gives_way_with_an_error() -> None:
    """Promise: tries that wait keep no user out. The try is taken back, and the connection ends."""
    services = ChatFixture(throttle=SLOW_LIMITS._replace(network=Pace(1, 100.0)))
    services.connect(HOME).ask(LOGIN)
    services.connect(HOME).ask(WRONG)
    services.passwords.checked.clear()
    times: list[float] = []
    goes_on: list[bool] = []
    for peer in [services.connect(HOME) for _ in range(5)]:
        session = peer.session
        assert not session.awaits_turn
        waiting = in_background(lambda session=session: goes_on.append(session.handle([LOGIN])))  # type: ignore[misc]
        eventually(lambda session=session: session.awaits_turn)  # type: ignore[misc]
        began = time.monotonic()
        session.give_way()
        must_end(waiting)
        times.append(time.monotonic() - began)
        assert codes(peer.send_queue.replies) == [ErrorCode.SERVER_FULL]
        assert not session.awaits_turn
    assert goes_on == [False] * 5
    assert min(times) < 0.5, "it does not wait for the next look"
    assert services.passwords.checked == []
    services.now += 100.0
    assert codes(services.connect(HOME).ask(LOGIN)) == [Welcome]


def test_shutdown_ends_the_wait_for_a_turn(slow: ChatFixture) -> None:
    peer = slow.connect(HOME)
    waiting = in_background(lambda: peer.ask(LOGIN))
    assert_waits(waiting)
    slow.services.authentication.stop_waiting()
    must_end(waiting)
    assert codes(peer.send_queue.replies) == [ErrorCode.SHUTTING_DOWN]


def test_changes_of_a_password_wait_for_each_other_and_not_for_logins(slow: ChatFixture) -> None:
    slow.now += 1
    one, other = slow.connect(HOME), slow.connect(HOME)
    for peer in (one, other):
        peer.ask(LOGIN)
    assert codes(one.ask(ChangePassword("wrong", "new"))) == [ErrorCode.WRONG_PASSWORD]
    waiting = in_background(lambda: other.ask(ChangePassword("secret", "new")))
    assert_waits(waiting)
    assert codes(slow.connect(HOME).ask(LOGIN)) == [Welcome]
    slow.now += 1
    must_end(waiting)
    assert other.send_queue.replies[-1] == PasswordChanged()


def test_known_network_is_noted_once_a_day(services: ChatFixture) -> None:
    times = []
    for services.journal.now_ms in (1, 86_400_000, 86_400_001, 86_400_002):
        services.connect(HOME).ask(LOGIN)
        times.append(services.accounts.networks[1, HOME])
    assert times == [1, 1, 86_400_001, 86_400_001]
    services.connect("2001:db8::1").ask(LOGIN)
    services.connect("::ffff:10.0.0.9").ask(LOGIN)
    services.connect("10.0.0.8").ask(WRONG)
    assert {network for _, network in services.accounts.networks} == {HOME, "2001:db8::/64", "10.0.0.9"}


@pytest.mark.parametrize(("new_hash", "answer"), [("another", ErrorCode.WRONG_PASSWORD), ("terces", Welcome)])
def test_password_that_is_changed_during_the_wait_is_checked_again(
    services: ChatFixture, new_hash: str, answer: object
) -> None:
    """An operator's reset holds for logins that wait already. Another login may have replaced an outdated hash."""
    services.accounts.by_key["alice"] = replace(services.accounts.by_key["alice"], password_hash="!terces")
    check = services.passwords.check

    def slow_check(*asked: Any) -> Verdict:
        services.passwords.check = check  # type: ignore[method-assign]
        verdict = check(*asked)
        services.accounts.by_key["alice"] = replace(services.accounts.by_key["alice"], password_hash=new_hash)
        return verdict

    services.passwords.check = slow_check  # type: ignore[method-assign]
    assert codes(services.connect().ask(LOGIN)) == [answer]


def test_errors_for_unknown_rooms_are_limited(services: ChatFixture) -> None:
    """One login with 1,000 names would be answered by 1,000 errors. A user has 100 rooms at most."""
    services.connect().ask(LOGIN)
    for names, errors in ((99, 99), (1_000, 100)):
        since = {f"room{number}": 0 for number in range(names)}
        peer = services.connect()
        peer.ask(Login("alice", "secret", since=since))
        assert codes(peer.send_queue.replies) == [Welcome, *[ErrorCode.UNKNOWN_ROOM] * errors]


# --- registrations ---
def test_registrations_of_an_address_and_of_all_are_limited_before_the_hash() -> None:
    services = ChatFixture(registration_limits=(2, 4))
    names = iter(f"user{number}" for number in range(20))

    def register(address: str) -> object:
        (event,) = services.connect(address).ask(Login(next(names), "secret"))
        return event.retry_seconds if isinstance(event, Refused) else type(event)

    assert [register(HOME) for _ in range(3)] == [Welcome, Welcome, 3_600]
    assert len(services.passwords.hashed) == 2, "a refused registration costs no hash"
    services.now = 100
    assert [register(ELSEWHERE) for _ in range(3)] == [Welcome, Welcome, 3_600]
    assert register("10.0.0.3") == 500
    assert services.counters.limits_hit == {"address_registrations": 2, "registrations": 1}
    services.now = 600
    assert [register("10.0.0.3"), register(HOME)] == [Welcome, 3_000]
    services.now = 3_600
    assert register(HOME) is Welcome


def test_registration_that_fails_does_not_count() -> None:
    services = ChatFixture(registration_limits=(1, 1))
    services.journal.fault = OSError("disk full")
    assert codes(services.connect().ask(Login("carol", "secret"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    assert codes(services.connect().ask(Login("carol", "secret"))) == [Welcome]
    assert codes(services.connect().ask(Login("dora", "secret"))) == [ErrorCode.RATE_LIMITED]
    exempt = Peer(services.session(queue := services.connect().send_queue, is_exempt=True), queue)
    assert codes(exempt.ask(Login("dora", "secret"))) == [Welcome]


def test_new_names_of_guests_count_and_old_ones_do_not() -> None:
    services = ChatFixture(registration_limits=(2, 0))

    def log_in(name: str) -> list[object]:
        guest = services.guest(name)
        found = codes(guest.receiving.send_queue.replies)
        guest.receiving.session.end()
        return list(found)

    assert [log_in(name)[-1] for name in ("carol", "carol", "dora", "carol")] == [Welcome] * 4
    assert log_in("erin") == [ErrorCode.RATE_LIMITED]
    assert codes(services.connect().ask(LOGIN)) == [ErrorCode.RATE_LIMITED]


# --- invitations ---
@pytest.fixture
def invited() -> tuple[ChatFixture, str]:
    """A server that needs an invitation, and a code."""
    services = ChatFixture(registration="invite", operators=["Root"])
    services.accounts.add("alice", "terces")
    code = new_code()
    services.accounts.invitations.add(hash_code(code))
    return services, code


def test_new_name_needs_an_invitation_which_is_used_once(invited: tuple[ChatFixture, str]) -> None:
    services, code = invited
    required = [ErrorCode.INVITATION_REQUIRED]
    for name in ("carol", "root"):
        for bad in (None, "", "x" * 1_000, code[:-1]):
            assert codes(services.connect().ask(Login(name, invitation=bad))) == required
            assert codes(services.connect().ask(Login(name, "secret", invitation=bad))) == required
    assert codes(services.connect().ask(StepLogin("carol"))) == required
    assert services.passwords.hashed == [], "a code is checked before the hash"
    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    answers = services.connect().ask(Login("carol", invitation=typed), Password("secret"))
    assert codes(answers) == [PasswordPrompt, Welcome]
    assert codes(services.connect().ask(Login("dora", "secret", invitation=code))) == required
    assert codes(services.connect().ask(LOGIN)) == [Welcome]
    assert services.accounts.by_key["carol"].role is Role.USER


def test_operators_name_needs_an_invitation_on_an_open_server() -> None:
    """Otherwise the first stranger who registers it would be the operator."""
    services = ChatFixture(operators=["Root"])
    for password in (None, "secret"):
        assert codes(services.connect().ask(Login("rOOt", password))) == [ErrorCode.INVITATION_REQUIRED]
    assert codes(services.connect().ask(GuestLogin(Side.SENDING, "ROOT"))) == [ErrorCode.BAD_USERNAME]
    assert services.passwords.hashed == []
    code = new_code()
    services.accounts.invitations.add(hash_code(code))
    assert codes(services.connect().ask(LOGIN)) == [Welcome]
    assert codes(services.connect().ask(Login("rOOt", "secret", invitation=code))) == [Welcome]
    assert services.accounts.by_key["root"].role is Role.OPERATOR
    assert services.accounts.by_key["alice"].role is Role.USER


def test_two_logins_do_not_use_one_invitation(invited: tuple[ChatFixture, str]) -> None:
    """The journal decides: the other one may be registered between the check and the entry."""
    services, code = invited
    services.journal.when_appended = lambda _: services.accounts.invitations.clear()
    assert codes(services.connect().ask(Login("carol", "secret", invitation=code))) == [ErrorCode.INVITATION_REQUIRED]
    assert services.accounts.find("carol") is None


# --- passwords that must be changed ---
def test_password_that_must_be_changed_needs_a_new_one(services: ChatFixture) -> None:
    services.accounts.add("carol", "terces", must_change_password=True)
    required = [ErrorCode.PASSWORD_CHANGE_REQUIRED]
    assert codes(services.connect().ask(Login("carol", "secret"))) == required
    assert codes(services.connect().ask(StepLogin("carol"), Password("secret")))[1:] == required
    assert codes(services.connect().ask(Login("carol", "secret", new_password="secret"))) == required
    assert codes(services.connect().ask(Login("carol", "wrong", new_password="new"))) == [ErrorCode.WRONG_PASSWORD]
    assert codes(services.connect().ask(Login("carol", "secret", new_password=""))) == [ErrorCode.BAD_REQUEST]
    assert services.journal.changed_hashes == []
    assert codes(services.connect().ask(Login("carol", new_password="new"), Password("secret")))[1:] == [Welcome]
    assert services.journal.changed_hashes == [(3, "wen")]


def test_login_whose_network_is_not_noted_leaves_no_user_behind(services: ChatFixture) -> None:
    """The journal may close after the user has joined."""
    append = services.journal.append

    def refuse(entries: Sequence[Entry[Any]], origin: Any = None) -> Appended[Any]:
        if any(isinstance(entry, KnownNetwork) for entry in entries):
            raise JournalClosedError
        return append(entries, origin)

    services.journal.append = refuse  # type: ignore[method-assign]
    assert codes(services.connect(HOME).ask(LOGIN)) == [ErrorCode.SHUTTING_DOWN]
    assert services.presence.users()[0] == ()
    assert services.times_empty == 1


def test_login_ends_if_an_administrator_changes_the_password_before_it_is_complete(services: ChatFixture) -> None:
    """Else a thief of the old password would stay logged in. Another hash of the same password is no change."""
    services.connect().ask(LOGIN)
    services.records.changed_hashes[1] = "!terces"
    assert codes(services.connect().ask(LOGIN)) == [Welcome]
    services.records.changed_hashes[1] = "wen"
    assert codes(services.connect().ask(LOGIN)) == [ErrorCode.WRONG_PASSWORD]
    assert len(services.presence.users()[0]) == 1


def test_banned_user_does_not_replace_the_password(services: ChatFixture) -> None:
    """A refused request has no effect."""
    services.connect().ask(LOGIN)
    services.records.banned[1] = ActiveSanction(SanctionKind.BAN, None, "")
    assert codes(services.connect().ask(Login("alice", "secret", new_password="new"))) == [ErrorCode.BANNED]
    assert services.journal.changed_hashes == []


def test_new_password_at_a_login_is_stored_before_the_welcome(services: ChatFixture) -> None:
    """Promise: confirmed means stored."""
    services.connect().ask(LOGIN)
    services.journal.fault = OSError("disk full")
    login = Login("alice", "secret", new_password="new")
    assert codes(services.connect().ask(login)) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    assert codes(services.connect().ask(login)) == [Welcome]
    assert services.journal.changed_hashes == [(1, "wen")]


def test_guest_registers_with_both_connections_from_a_limited_address() -> None:
    """The refusal frees the name and both connections."""
    services = ChatFixture(registration_limits=(1, 0))
    services.connect().ask(LOGIN)
    sending, receiving = services.connect(), services.connect()
    sending.ask(GuestLogin(Side.SENDING, "carol"))
    assert codes(receiving.ask(GuestLogin(Side.RECEIVING, "carol"))) == [ErrorCode.RATE_LIMITED]
    assert not services.services.guests.is_claimed("carol")
