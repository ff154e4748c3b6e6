"""Guests: a name and two connections, from the first of them to the end of either."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import Event, PublicMessage, Registered
from chatprotocol.requests import Side
from chatserver.chat.batch import MessageBatch
from chatserver.chat.guests import Guest, Guests
from chatserver.chat.journal import JournalClosedError
from chatserver.chat.member import Member
from chatserver.store.accounts import Account

from .chat_fixture import ChatFixture
from .rooms import FakeOutbox, FakeStream, in_background, must_end

SENDING, RECEIVING = Side.SENDING, Side.RECEIVING
BOTH_ORDERS = [(SENDING, RECEIVING), (RECEIVING, SENDING)]
HERE, ELSEWHERE = "10.0.0.1", "10.0.0.2"


class Connection:
    """One that is to become a guest's; it comes and goes in one go, as its reader thread lets it."""

    def __init__(self, services: ChatFixture, side: Side, name: str = "carol", address: str = HERE) -> None:
        self._services = services.services
        self.side = side
        self._name = name
        self._address = address
        self.send_queue = FakeOutbox(FakeStream("register"))
        self.guest: Guest | None = None
        self.refused: Exception | None = None

    def claim(self) -> None:
        guests = self._services.guests
        try:
            self.guest = guests.claim(self._services, self._name, self.side, self._address, self.send_queue)
        except (RequestError, JournalClosedError) as error:
            self.refused = error

    def welcome(self) -> None:
        assert self.guest is not None
        self._services.guests.add(self._services, self.guest, self.side, self._name)

    def come(self) -> "Connection":
        self.claim()
        if self.guest is not None:
            self.welcome()
        return self

    def leave(self) -> None:
        if self.guest is not None:
            self._services.guests.leave(self._services, self.guest, self.side)

    @property
    def code(self) -> ErrorCode | None:
        """What it was refused with."""
        return self.refused.code if isinstance(self.refused, RequestError) else None

    @property
    def told(self) -> list[Event]:
        return self.send_queue.replies


def guests_of(services: ChatFixture) -> Guests:
    return services.services.guests


def nobody_is_left(services: ChatFixture, name: str = "carol") -> bool:
    """Neither in the room nor in anybody's books."""
    return not (
        services.presence.names()
        or services.acked_delivery.followed
        or services.hub._members
        or guests_of(services).is_claimed(name)
        or guests_of(services).find(name)
    )


# --- half of a registration ---


@pytest.mark.parametrize("claimer", [(SENDING, HERE), (SENDING, ELSEWHERE), (RECEIVING, ELSEWHERE)])
def test_half_a_registration_keeps_a_name_for_some_seconds_only(
    services: ChatFixture, claimer: tuple[Side, str]
) -> None:
    side, address = claimer
    half = Connection(services, SENDING).come()
    assert Connection(services, side, address=address).come().code is ErrorCode.BAD_USERNAME
    assert guests_of(services).is_claimed("carol")
    services.now += 6
    assert not guests_of(services).is_claimed("carol"), "an account may have it"
    first = Connection(services, side, address=address).come()
    assert half.send_queue.is_finished
    assert half.send_queue.hangs_up
    half.leave()
    other = RECEIVING if side is SENDING else SENDING
    second = Connection(services, other, address=address).come()
    assert first.guest is second.guest is not None
    assert first.guest.is_here


def test_a_guest_whose_second_connection_is_late_comes_in_where_nobody_wants_its_name(
    services: ChatFixture,
) -> None:
    Connection(services, SENDING).come()
    services.now += 30
    second = Connection(services, RECEIVING).come()
    assert second.guest is not None
    assert second.guest.is_here
    assert Connection(services, SENDING, address=ELSEWHERE).come().code is ErrorCode.BAD_USERNAME


# --- coming in ---


@pytest.mark.parametrize("order", BOTH_ORDERS)
def test_a_guest_is_here_with_the_second_connection_in_whichever_order(
    services: ChatFixture, order: Sequence[Side]
) -> None:
    first = Connection(services, order[0]).come()
    assert first.told == [Registered(order[0], "carol")]
    assert services.presence.names() == ()
    assert guests_of(services).find("carol") is None
    assert first.guest is not None
    assert not first.guest.is_here
    second = Connection(services, order[1]).come()

    assert second.told == [Registered(order[1], "carol")]
    assert services.presence.names() == ("carol",)
    assert second.guest is first.guest
    assert first.guest.is_here


def test_who_is_here_is_found_in_any_case(services: ChatFixture) -> None:
    services.guest("Carol")
    found = guests_of(services).find("cAROL")

    assert found is not None
    assert (found.name, found.is_guest) == ("Carol", True)
    assert guests_of(services).find("dave") is None


def test_a_name_is_claimed_from_the_first_connection_on(services: ChatFixture) -> None:
    assert not guests_of(services).is_claimed("carol")
    connection = Connection(services, SENDING)
    services.journal.admit_guest = lambda name: _look(services, name)  # type: ignore[method-assign]
    connection.come()

    assert connection.code is None
    assert guests_of(services).is_claimed("CAROL")


def _look(services: ChatFixture, name: str) -> Account | None:
    """While the disk is asked whether it is an account's, no account may take it."""
    assert guests_of(services).is_claimed(name)
    return services.accounts.admit(name)


def test_each_connection_is_told_the_name_as_it_spelled_it_and_others_the_first_spelling(
    services: ChatFixture,
) -> None:
    one, other = Connection(services, SENDING, "Carol").come(), Connection(services, RECEIVING, "CAROL").come()

    assert [*one.told, *other.told] == [Registered(SENDING, "Carol"), Registered(RECEIVING, "CAROL")]
    assert services.presence.names() == ("Carol",)


def test_guests_of_different_names_do_not_mind_each_other(services: ChatFixture) -> None:
    for name in ("carol", "dave"):
        for side in Side:
            assert Connection(services, side, name).come().refused is None
    services.guest("eve", ELSEWHERE)

    assert services.presence.names() == ("carol", "dave", "eve")


def test_registered_comes_before_the_first_message(services: ChatFixture) -> None:
    """Simple clients take what they read next for the answer. Here somebody speaks while the guest takes its seat."""
    alice = Member(1, "Alice", FakeOutbox(services.broadcast))
    services.hub.join(alice)
    Connection(services, SENDING).come()
    receiving = Connection(services, RECEIVING)
    enter = services.presence.enter

    def enter_while_somebody_speaks(member: Member) -> tuple[str, ...]:
        services.journal.append([MessageBatch(alice, ["hello"], [None])])
        assert receiving.told == []
        return enter(member)

    services.presence.enter = enter_while_somebody_speaks  # type: ignore[method-assign]
    receiving.come()

    assert receiving.told == [Registered(RECEIVING, "carol"), PublicMessage(11, 0, "Alice", "hello")]


def test_coming_and_going_is_one_line_each_in_the_log(services: ChatFixture) -> None:
    with capture_logs() as log:
        carol = [Connection(services, side).come() for side in Side]
        for connection in carol:
            connection.leave()

    assert [(entry["event"], entry["user"]) for entry in log] == [("login", "carol"), ("logout", "carol")]


# --- who is refused ---


@pytest.mark.parametrize("side", Side)
def test_one_side_is_registered_once(services: ChatFixture, side: Side) -> None:
    first, again = Connection(services, side).come(), Connection(services, side, "CAROL").come()

    assert again.code is ErrorCode.BAD_USERNAME
    assert again.told == []
    assert first.guest is not None
    assert first.guest.send_queues == {side: first.send_queue}


@pytest.mark.parametrize("is_here", [False, True])
@pytest.mark.parametrize("side", Side)
def test_nobody_from_another_address_takes_a_guests_name(services: ChatFixture, side: Side, is_here: bool) -> None:
    Connection(services, SENDING).come()
    if is_here:
        Connection(services, RECEIVING).come()

    assert Connection(services, side, "carol", ELSEWHERE).come().code is ErrorCode.BAD_USERNAME


@pytest.mark.parametrize("name", ["alice", "Alice", "BOB"])
@pytest.mark.parametrize("side", Side)
def test_a_guest_cannot_take_an_accounts_name(services: ChatFixture, side: Side, name: str) -> None:
    for _ in range(2):
        assert Connection(services, side, name).come().code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(services, name)


def test_both_connections_of_a_guest_are_told_that_the_name_is_an_accounts(services: ChatFixture) -> None:
    services.accounts.add("alice", "hash")
    for side in Side:
        assert Connection(services, side, "Alice").come().code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(services, "alice")


def test_a_name_that_was_registered_in_the_same_moment_is_the_accounts(services: ChatFixture) -> None:
    """The journal's thread decides, when the second connection has come; the first one ends."""
    first, second = Connection(services, SENDING).come(), Connection(services, RECEIVING)
    services.accounts.add("carol", "hash")
    second.come()

    assert second.code is ErrorCode.BAD_USERNAME
    assert not second.send_queue.is_finished
    assert first.send_queue.hangs_up
    assert nobody_is_left(services)


def test_a_disk_that_refuses_lets_nobody_in_and_the_name_is_free(services: ChatFixture) -> None:
    first = Connection(services, SENDING).come()
    services.journal.admit_guest = _fail(OSError("disk full"))  # type: ignore[method-assign, assignment]
    with capture_logs() as log:
        second = Connection(services, RECEIVING).come()

    assert second.code is ErrorCode.NOT_LOGGED_IN
    assert first.send_queue.hangs_up
    assert [entry["log_level"] for entry in log] == ["error"]
    assert nobody_is_left(services)
    del services.journal.admit_guest
    for side in Side:
        assert Connection(services, side).come().refused is None


def test_a_journal_that_ends_lets_nobody_in(services: ChatFixture) -> None:
    """Promise: shutdown."""
    services.journal.admit_guest = _fail(JournalClosedError())  # type: ignore[method-assign, assignment]
    first, second = (Connection(services, side).come() for side in Side)

    assert first.refused is None
    assert isinstance(second.refused, JournalClosedError)
    assert nobody_is_left(services)


def test_who_waits_for_the_other_connection_is_let_go_when_it_never_comes(services: ChatFixture) -> None:
    first, second = Connection(services, SENDING), Connection(services, RECEIVING)
    first.come()
    guest = first.guest
    assert guest is not None
    guest._wait_until += 1_000
    waiting = in_background(guest.wait_for_arrival)
    second.claim()
    second.leave()

    must_end(waiting)
    assert not guest.is_here


def test_while_a_guest_leaves_nobody_joins_it(services: ChatFixture) -> None:
    """It may take a moment: the feed may be at work."""
    first = Connection(services, SENDING).come()
    Connection(services, RECEIVING).come()
    leave = services.presence.leave
    refused: list[ErrorCode | None] = []

    def leave_while_somebody_comes(member: Member) -> bool:
        assert guests_of(services).find("carol") is None
        refused.extend(Connection(services, side).come().code for side in Side)
        return leave(member)

    services.presence.leave = leave_while_somebody_comes  # type: ignore[method-assign]
    first.leave()

    assert refused == [ErrorCode.BAD_USERNAME] * 2
    assert nobody_is_left(services)


def test_nobody_joins_one_who_leaves_before_its_second_connection_has_come(services: ChatFixture) -> None:
    first, second = Connection(services, SENDING).come(), Connection(services, RECEIVING)
    assert first.guest is not None
    first.guest._arrived = SimpleNamespace(set=second.come)  # type: ignore[assignment]
    first.leave()

    assert second.code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(services)


def _fail(error: Exception) -> Callable[[str], Account | None]:
    def admit_guest(_: str) -> Account | None:
        raise error

    return admit_guest


# --- the next one of that name ---


def test_who_sees_the_end_may_come_again_at_once(services: ChatFixture) -> None:
    first, second = (Connection(services, side).come() for side in Side)
    came: list[ErrorCode | None] = []

    class Watched(FakeOutbox):
        def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
            super().finish(last, hang_up=hang_up)
            came.append(Connection(services, SENDING).come().code)

    second.send_queue.__class__ = Watched
    first.leave()

    assert came == [None]


def test_what_was_for_a_guest_who_has_gone_is_not_given_to_the_next_of_that_name(services: ChatFixture) -> None:
    """Its sender waited for room in the journal meanwhile. Promise: nobody sees what is for somebody else."""
    alice = Member(1, "alice", FakeOutbox(services.broadcast))
    services.hub.join(alice)
    old = services.guest("carol")
    batch = MessageBatch(alice, ["secret"], [None], guests_of(services).find("carol"))
    old.sending.session.end()
    new = services.guest("carol", "10.0.0.9")
    services.journal.append([batch])

    assert new.receiving.news() == []


def test_what_a_guest_wrote_who_has_gone_is_not_shown_to_the_next_of_that_name(services: ChatFixture) -> None:
    """Somebody's other connections are shown it; a guest has none."""
    services.accounts.add("alice", "hash")
    old = services.guest("carol")
    guest = old.sending.session._guest
    assert guest is not None
    assert guest.member is not None
    batch = MessageBatch(guest.member, ["secret"], [None], services.accounts.find("alice"))
    old.receiving.session.end()
    new = services.guest("carol", "10.0.0.9")
    services.journal.append([batch])

    assert new.receiving.news() == []


# --- at once ---


def at_once(*works: Callable[[], object]) -> None:
    """In a thread each, which all begin in the same moment, and none of which is left alone for long."""
    start = threading.Barrier(len(works))
    faults: list[Exception] = []

    def work(each: Callable[[], object]) -> None:
        start.wait()
        try:
            each()
        except Exception as fault:
            faults.append(fault)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in [in_background(partial(work, each)) for each in works]:
            must_end(thread)
    finally:
        sys.setswitchinterval(usual)
    assert faults == []


def test_two_connections_of_a_guest_that_register_at_once_are_one_guest() -> None:
    for _ in range(200):
        services = ChatFixture()
        carol = [Connection(services, side) for side in Side]
        at_once(*(each.come for each in carol))

        assert [each.told for each in carol] == [[Registered(side, "carol")] for side in Side]
        assert services.presence.names() == ("carol",)
        assert sum(map(len, services.hub._members.values())) == 1


def test_of_many_who_register_one_name_at_once_one_has_each_side() -> None:
    for _ in range(100):
        services = ChatFixture()
        crowd = [Connection(services, side, name) for side in Side for name in ("carol", "Carol", "CAROL")]
        at_once(*(each.come for each in crowd))

        for side, half in ((SENDING, crowd[:3]), (RECEIVING, crowd[3:])):
            (winner,) = [each for each in half if each.guest is not None]
            assert [type(event) for event in winner.told] == [Registered], side
            assert {each.code for each in half} == {None, ErrorCode.BAD_USERNAME}
        assert len(services.presence.names()) == 1


@pytest.mark.parametrize("order", BOTH_ORDERS)
def test_one_connection_that_ends_while_the_other_registers_leaves_nobody_behind(order: Sequence[Side]) -> None:
    """Whichever is first, the other is closed, or not let in and may try again."""
    for _ in range(200):
        services = ChatFixture()
        first, second = (Connection(services, side) for side in order)
        first.come()
        at_once(first.leave, second.come)
        if not second.send_queue.is_finished:  # it came behind the end, or into it
            assert second.code is ErrorCode.BAD_USERNAME or second.told == [Registered(order[1], "carol")]
            assert services.presence.names() == ()
            second.leave()

        assert nobody_is_left(services)


def test_both_connections_that_end_at_once_end_one_guest() -> None:
    for _ in range(200):
        services = ChatFixture()
        carol = [Connection(services, side).come() for side in Side]
        at_once(*(each.leave for each in carol))

        assert nobody_is_left(services)
        assert services.times_empty == 1


def test_whoever_comes_and_goes_at_once_the_books_are_empty_in_the_end() -> None:
    for _ in range(100):
        services = ChatFixture()

        def come_and_go(side: Side, services: ChatFixture = services) -> None:
            for _ in range(3):
                Connection(services, side).come().leave()

        at_once(*(partial(come_and_go, side) for side in (*Side, *Side)))

        assert nobody_is_left(services)
