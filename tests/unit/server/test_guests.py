"""Guests with two connections: names that are claimed by both, from the first of them to the end of either."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import AccountKind, Event, PublicMessage, Welcome
from chatprotocol.requests import Side
from chatserver.chat.delivery import Ack, DeliveryWindow
from chatserver.chat.guests import GuestPair, Guests
from chatserver.chat.room import Member
from chatserver.journal.base import JournalClosedError
from chatserver.store.accounts import Account

from .chat_fixture import ChatFixture
from .helpers import FakeBroadcast, FakeSendQueue, direct, in_background, join_hub, must_end, public

SENDING, RECEIVING = Side.SENDING, Side.RECEIVING
HERE, ELSEWHERE = "10.0.0.1", "10.0.0.2"
ALICE = Account(1, "alice", "hash", 0)


class Connection:
    """One connection of a guest."""

    def __init__(self, services: ChatFixture, side: Side, name: str = "carol", address: str = HERE) -> None:
        self._services = services.services
        self.side = side
        self._name = name
        self._address = address
        self.send_queue = FakeSendQueue(FakeBroadcast("register"))
        self.guest: GuestPair | None = None
        self.refused: Exception | None = None

    def register(self) -> "Connection":
        guests = self._services.guests
        try:
            self.guest = guests.claim_side(self._name, self.side, self._address, self.send_queue)
        except (RequestError, JournalClosedError) as error:
            self.refused = error
        else:
            guests.confirm_registration(self.guest, self.side)
        return self

    def leave(self) -> None:
        if self.guest is not None:
            self._services.guests.leave(self.guest, self.send_queue)

    @property
    def code(self) -> ErrorCode | None:
        return self.refused.code if isinstance(self.refused, RequestError) else None

    @property
    def told(self) -> list[Event]:
        return self.send_queue.replies


def welcome(name: str) -> Welcome:
    return Welcome(account=AccountKind.GUEST, username=name, users=(), last_id=None)


def guests_of(services: ChatFixture) -> Guests:
    return services.services.guests


def is_empty(services: ChatFixture, name: str = "carol") -> bool:
    """True if no trace of a guest is left. A message that no guest has to acknowledge is acknowledged at once."""
    ack = Ack(DeliveryWindow(Account(0, "x", "", 0), FakeSendQueue(FakeBroadcast())))
    services.acked_delivery.publish([PublicMessage(1, 0, "x", "hello")], ack)
    return ack.is_complete and not (
        services.presence.names() or guests_of(services).is_claimed(name) or guests_of(services).find(name)
    )


# --- registration ---
@pytest.mark.parametrize("order", [(SENDING, RECEIVING), (RECEIVING, SENDING)])
def test_guest_joins_with_the_second_connection(services: ChatFixture, order: Sequence[Side]) -> None:
    """All users see the first spelling of the name."""
    guests = guests_of(services)
    with capture_logs() as log:
        first = Connection(services, order[0], "Carol").register()
        assert guests.is_claimed("carol")
        assert guests.find("carol") is None
        assert services.presence.names() == ()
        second = Connection(services, order[1], "CAROL").register()
    assert [*first.told, *second.told] == [welcome("Carol"), welcome("Carol")]
    assert services.presence.names() == ("Carol",)
    found = guests.find("cAROL")
    assert found is not None
    assert (found.name, found.is_guest) == ("Carol", True)
    assert [(entry["event"], entry["user"]) for entry in log] == [("login", "Carol")]


def test_name_is_claimed_while_the_journal_is_asked(services: ChatFixture) -> None:
    """No account can take it in that moment."""
    claimed: list[bool] = []
    services.journal.when_appended = lambda _: claimed.append(guests_of(services).is_claimed("CAROL"))
    services.guest("carol")
    assert claimed == [True]


def test_registration_is_confirmed_before_the_first_message(services: ChatFixture) -> None:
    """Simple clients take the first thing they read for the answer. Here a message arrives during the registration."""
    alice = Member(1, "Alice", FakeSendQueue(services.broadcast))
    join_hub(services.users, alice)
    Connection(services, SENDING).register()
    receiving = Connection(services, RECEIVING)
    enter = services.presence.add

    def enter_during_a_message(name: str) -> None:
        services.journal.append([public(alice, "hello")], alice)
        assert receiving.told == []
        enter(name)

    services.presence.add = enter_during_a_message  # type: ignore[method-assign]
    receiving.register()
    assert receiving.told == [welcome("carol"), PublicMessage(11, 0, "Alice", "hello")]


# --- refusals ---
@pytest.mark.parametrize("has_both", [False, True])
@pytest.mark.parametrize(("side", "address"), [(SENDING, HERE), (SENDING, ELSEWHERE), (RECEIVING, ELSEWHERE)])
def test_name_in_use_is_refused(services: ChatFixture, side: Side, address: str, *, has_both: bool) -> None:
    """The second connection must have the other side and the same address."""
    first = Connection(services, SENDING).register()
    if has_both:
        Connection(services, RECEIVING).register()
    other = Connection(services, side, "CAROL", address).register()
    assert other.code is ErrorCode.BAD_USERNAME
    assert other.told == []
    assert not first.send_queue.is_finished


def test_account_registered_meanwhile_keeps_the_name(services: ChatFixture) -> None:
    """The journal decides, at the second connection; the first one is closed."""
    first, second = Connection(services, SENDING).register(), Connection(services, RECEIVING)
    services.accounts.add("carol", "hash")
    second.register()
    assert second.code is ErrorCode.BAD_USERNAME
    assert not second.send_queue.is_finished
    assert first.send_queue.hangs_up
    assert is_empty(services)


@pytest.mark.parametrize("fault", [OSError("disk full"), JournalClosedError()])
def test_journal_fault_refuses_the_guest(services: ChatFixture, fault: Exception) -> None:
    """Promise: shutdown. The name is free afterwards."""
    services.journal.fault = fault
    with capture_logs() as log:
        first, second = (Connection(services, side).register() for side in Side)
    assert first.send_queue.hangs_up
    assert is_empty(services)
    if isinstance(fault, OSError):
        assert second.code is ErrorCode.NOT_LOGGED_IN
        assert [entry["log_level"] for entry in log] == ["error"]
    else:
        assert second.refused is fault
    services.journal.fault = None
    assert [Connection(services, side).register().refused for side in Side] == [None, None]


# --- a late second connection ---
@pytest.mark.parametrize(("side", "address"), [(SENDING, HERE), (SENDING, ELSEWHERE), (RECEIVING, ELSEWHERE)])
def test_late_guest_loses_its_name_to_another(services: ChatFixture, side: Side, address: str) -> None:
    late = Connection(services, SENDING).register()
    services.now += 6
    assert not guests_of(services).is_claimed("carol"), "an account may have it"
    first = Connection(services, side, address=address).register()
    assert late.send_queue.hangs_up
    late.leave()
    second = Connection(services, RECEIVING if side is SENDING else SENDING, address=address).register()
    assert first.guest is second.guest is not None
    assert first.guest.is_online


def test_late_connection_joins_if_the_name_is_not_wanted(services: ChatFixture) -> None:
    Connection(services, SENDING).register()
    services.now += 30
    second = Connection(services, RECEIVING).register()
    assert second.guest is not None
    assert second.guest.is_online
    assert Connection(services, SENDING, address=ELSEWHERE).register().code is ErrorCode.BAD_USERNAME


def test_failed_second_registration_releases_the_waiting_sender(services: ChatFixture) -> None:
    first = Connection(services, SENDING).register()
    assert first.guest is not None
    services.now -= 1_000  # the limit is far away
    waiting = in_background(first.guest.wait_until_registered)
    services.journal.fault = OSError("disk full")
    Connection(services, RECEIVING).register()
    must_end(waiting)
    assert not first.guest.is_online


# --- the end, and the next guest of that name ---
def test_name_is_taken_until_the_guest_has_left_the_hub(services: ChatFixture) -> None:
    """The hub may be busy."""
    first, second = (Connection(services, side).register() for side in Side)
    leave = services.presence.remove
    refused: list[ErrorCode | None] = []

    def leave_during_a_registration(name: str) -> bool:
        assert guests_of(services).find("carol") is None
        refused.extend(Connection(services, side).register().code for side in Side)
        return leave(name)

    services.presence.remove = leave_during_a_registration  # type: ignore[method-assign]
    with capture_logs() as log:
        first.leave()
    assert refused == [ErrorCode.BAD_USERNAME] * 2
    assert second.send_queue.hangs_up
    assert is_empty(services)
    assert [(entry["event"], entry["user"]) for entry in log] == [("logout", "carol")]


def test_ending_half_of_a_guest_is_not_joined(services: ChatFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Connection(services, SENDING).register(), Connection(services, RECEIVING)
    monkeypatch.setattr(GuestPair, "stop_waiting", lambda _: second.register())
    first.leave()
    assert second.code is ErrorCode.BAD_USERNAME
    assert is_empty(services)


def test_name_is_free_when_the_peer_sees_the_end(services: ChatFixture) -> None:
    first, second = (Connection(services, side).register() for side in Side)
    codes: list[ErrorCode | None] = []

    def finish(**_: bool) -> None:
        codes.append(Connection(services, SENDING).register().code)

    second.send_queue.finish = finish  # type: ignore[method-assign, assignment]
    first.leave()
    assert codes == [None]


def test_next_guest_of_the_name_gets_nothing_of_the_last_one(services: ChatFixture) -> None:
    """Promise: a direct message reaches its recipient only. Both messages waited for the journal meanwhile."""
    alice = Member(1, "alice", FakeSendQueue(services.broadcast))
    join_hub(services.users, alice)
    old = Connection(services, SENDING).register()
    Connection(services, RECEIVING).register()
    assert old.guest is not None
    assert old.guest.member is not None
    carol = guests_of(services).find("carol")
    assert carol is not None
    services.journal.holds_back = True
    services.journal.append([direct(alice, carol, "to the old one")], alice)
    services.journal.append([direct(old.guest.member, ALICE, "of the old one")])
    old.leave()
    new = services.guest("carol", ELSEWHERE)
    services.journal.wait_for_pending()
    assert new.receiving.new_replies() == []


# --- at the same time ---
def at_once(*works: Callable[[], object]) -> None:
    """Run in a thread each; the threads start together and are interrupted often."""
    start = threading.Barrier(len(works))

    def work(each: Callable[[], object]) -> None:
        start.wait()
        each()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in [in_background(partial(work, each)) for each in works]:
            must_end(thread)
    finally:
        sys.setswitchinterval(usual)


def test_one_registration_of_each_side_wins() -> None:
    for _ in range(100):
        services = ChatFixture()
        crowd = [Connection(services, side, name) for side in Side for name in ("carol", "Carol", "CAROL")]
        at_once(*(each.register for each in crowd))
        for half in (crowd[:3], crowd[3:]):
            (winner,) = [each for each in half if each.guest is not None]
            assert [type(event) for event in winner.told] == [Welcome]
            assert {each.code for each in half} == {None, ErrorCode.BAD_USERNAME}
        assert len(services.presence.names()) == 1


def test_connections_that_come_and_go_leave_no_trace() -> None:
    for _ in range(100):
        services = ChatFixture()
        carol = [Connection(services, side).register() for side in Side]
        at_once(*(each.leave for each in carol))
        assert is_empty(services)
        assert services.times_empty == 1

        def come_and_go(side: Side, services: ChatFixture = services) -> None:
            for _ in range(3):
                Connection(services, side).register().leave()

        at_once(*(partial(come_and_go, side) for side in (*Side, *Side)))
        assert is_empty(services)
