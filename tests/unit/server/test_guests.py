"""Guests: a name and two connections, from the first of them to the end of either."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.events import Event, PublicMessage, Registered
from chatprotocol.requests import Side
from chatserver.room.journal import JournalClosedError
from chatserver.room.post import Post
from chatserver.room.seat import Seat
from chatserver.session.guests import Guest, Guests
from chatserver.store.accounts import Account

from .house import House
from .rooms import FakeOutbox, FakeStream, in_background, must_end

SENDING, RECEIVING = Side.SENDING, Side.RECEIVING
BOTH_ORDERS = [(SENDING, RECEIVING), (RECEIVING, SENDING)]
HERE, ELSEWHERE = "10.0.0.1", "10.0.0.2"


class Connection:
    """One that is to become a guest's; it comes and goes in one go, as its reader thread lets it."""

    def __init__(self, house: House, side: Side, name: str = "carol", address: str = HERE) -> None:
        self._context = house.context
        self.side = side
        self._name = name
        self._address = address
        self.outbox = FakeOutbox(FakeStream("register"))
        self.guest: Guest | None = None
        self.refused: Exception | None = None

    def claim(self) -> None:
        guests = self._context.guests
        try:
            self.guest = guests.claim(self._context, self._name, self.side, self._address, self.outbox)
        except (Refusal, JournalClosedError) as error:
            self.refused = error

    def welcome(self) -> None:
        assert self.guest is not None
        self._context.guests.add(self._context, self.guest, self.side, self._name)

    def come(self) -> "Connection":
        self.claim()
        if self.guest is not None:
            self.welcome()
        return self

    def leave(self) -> None:
        if self.guest is not None:
            self._context.guests.leave(self._context, self.guest, self.side)

    @property
    def code(self) -> ErrorCode | None:
        """What it was refused with."""
        return self.refused.code if isinstance(self.refused, Refusal) else None

    @property
    def told(self) -> list[Event]:
        return self.outbox.replies


def guests_of(house: House) -> Guests:
    return house.context.guests


def nobody_is_left(house: House, name: str = "carol") -> bool:
    """Neither in the room nor in anybody's books."""
    return not (
        house.presence.names()
        or house.mailroom.followed
        or house.feed._seats
        or guests_of(house).is_claimed(name)
        or guests_of(house).find(name)
    )


# --- half of a registration ---


@pytest.mark.parametrize("claimer", [(SENDING, HERE), (SENDING, ELSEWHERE), (RECEIVING, ELSEWHERE)])
def test_half_a_registration_keeps_a_name_for_some_seconds_only(house: House, claimer: tuple[Side, str]) -> None:
    side, address = claimer
    half = Connection(house, SENDING).come()
    assert Connection(house, side, address=address).come().code is ErrorCode.BAD_USERNAME
    assert guests_of(house).is_claimed("carol")
    house.now += 6
    assert not guests_of(house).is_claimed("carol"), "an account may have it"
    first = Connection(house, side, address=address).come()
    assert half.outbox.is_finished
    assert half.outbox.hangs_up
    half.leave()
    other = RECEIVING if side is SENDING else SENDING
    second = Connection(house, other, address=address).come()
    assert first.guest is second.guest is not None
    assert first.guest.is_here


def test_a_guest_whose_second_connection_is_late_comes_in_where_nobody_wants_its_name(house: House) -> None:
    Connection(house, SENDING).come()
    house.now += 30
    second = Connection(house, RECEIVING).come()
    assert second.guest is not None
    assert second.guest.is_here
    assert Connection(house, SENDING, address=ELSEWHERE).come().code is ErrorCode.BAD_USERNAME


# --- coming in ---


@pytest.mark.parametrize("order", BOTH_ORDERS)
def test_a_guest_is_here_with_the_second_connection_in_whichever_order(house: House, order: Sequence[Side]) -> None:
    first = Connection(house, order[0]).come()
    assert first.told == [Registered(order[0], "carol")]
    assert house.presence.names() == ()
    assert guests_of(house).find("carol") is None
    assert first.guest is not None
    assert not first.guest.is_here
    second = Connection(house, order[1]).come()

    assert second.told == [Registered(order[1], "carol")]
    assert house.presence.names() == ("carol",)
    assert second.guest is first.guest
    assert first.guest.is_here


def test_who_is_here_is_found_in_any_case(house: House) -> None:
    house.guest("Carol")
    found = guests_of(house).find("cAROL")

    assert found is not None
    assert (found.name, found.is_guest) == ("Carol", True)
    assert guests_of(house).find("dave") is None


def test_a_name_is_claimed_from_the_first_connection_on(house: House) -> None:
    assert not guests_of(house).is_claimed("carol")
    connection = Connection(house, SENDING)
    house.journal.admit_guest = lambda name: _look(house, name)  # type: ignore[method-assign]
    connection.come()

    assert connection.code is None
    assert guests_of(house).is_claimed("CAROL")


def _look(house: House, name: str) -> Account | None:
    """While the disk is asked whether it is an account's, no account may take it."""
    assert guests_of(house).is_claimed(name)
    return house.accounts.admit(name)


def test_each_connection_is_told_the_name_as_it_spelled_it_and_others_the_first_spelling(house: House) -> None:
    one, other = Connection(house, SENDING, "Carol").come(), Connection(house, RECEIVING, "CAROL").come()

    assert [*one.told, *other.told] == [Registered(SENDING, "Carol"), Registered(RECEIVING, "CAROL")]
    assert house.presence.names() == ("Carol",)


def test_guests_of_different_names_do_not_mind_each_other(house: House) -> None:
    for name in ("carol", "dave"):
        for side in Side:
            assert Connection(house, side, name).come().refused is None
    house.guest("eve", ELSEWHERE)

    assert house.presence.names() == ("carol", "dave", "eve")


def test_registered_comes_before_the_first_message(house: House) -> None:
    """Simple clients take what they read next for the answer. Here somebody speaks while the guest takes its seat."""
    alice = Seat(1, "Alice", FakeOutbox(house.stream))
    house.feed.join(alice)
    Connection(house, SENDING).come()
    receiving = Connection(house, RECEIVING)
    enter = house.presence.enter

    def enter_while_somebody_speaks(seat: Seat) -> tuple[str, ...]:
        house.journal.append([Post(alice, ["hello"], [None])])
        assert receiving.told == []
        return enter(seat)

    house.presence.enter = enter_while_somebody_speaks  # type: ignore[method-assign]
    receiving.come()

    assert receiving.told == [Registered(RECEIVING, "carol"), PublicMessage(11, 0, "Alice", "hello")]


def test_coming_and_going_is_one_line_each_in_the_log(house: House) -> None:
    with capture_logs() as log:
        carol = [Connection(house, side).come() for side in Side]
        for connection in carol:
            connection.leave()

    assert [entry["event"] for entry in log] == ["carol came in", "carol left"]


# --- who is refused ---


@pytest.mark.parametrize("side", Side)
def test_one_side_is_registered_once(house: House, side: Side) -> None:
    first, again = Connection(house, side).come(), Connection(house, side, "CAROL").come()

    assert again.code is ErrorCode.BAD_USERNAME
    assert again.told == []
    assert first.guest is not None
    assert first.guest.outboxes == {side: first.outbox}


@pytest.mark.parametrize("is_here", [False, True])
@pytest.mark.parametrize("side", Side)
def test_nobody_from_another_address_takes_a_guests_name(house: House, side: Side, is_here: bool) -> None:
    Connection(house, SENDING).come()
    if is_here:
        Connection(house, RECEIVING).come()

    assert Connection(house, side, "carol", ELSEWHERE).come().code is ErrorCode.BAD_USERNAME


@pytest.mark.parametrize("name", ["alice", "Alice", "BOB"])
@pytest.mark.parametrize("side", Side)
def test_a_guest_cannot_take_an_accounts_name(house: House, side: Side, name: str) -> None:
    for _ in range(2):
        assert Connection(house, side, name).come().code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(house, name)


def test_both_connections_of_a_guest_are_told_that_the_name_is_an_accounts(house: House) -> None:
    house.accounts.add("alice", "hash")
    for side in Side:
        assert Connection(house, side, "Alice").come().code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(house, "alice")


def test_a_name_that_was_registered_in_the_same_moment_is_the_accounts(house: House) -> None:
    """The journal's thread decides, when the second connection has come; the first one ends."""
    first, second = Connection(house, SENDING).come(), Connection(house, RECEIVING)
    house.accounts.add("carol", "hash")
    second.come()

    assert second.code is ErrorCode.BAD_USERNAME
    assert not second.outbox.is_finished
    assert first.outbox.hangs_up
    assert nobody_is_left(house)


def test_a_disk_that_refuses_lets_nobody_in_and_the_name_is_free(house: House) -> None:
    first = Connection(house, SENDING).come()
    house.journal.admit_guest = _fail(OSError("disk full"))  # type: ignore[method-assign, assignment]
    with capture_logs() as log:
        second = Connection(house, RECEIVING).come()

    assert second.code is ErrorCode.NOT_LOGGED_IN
    assert first.outbox.hangs_up
    assert [entry["log_level"] for entry in log] == ["error"]
    assert nobody_is_left(house)
    del house.journal.admit_guest
    for side in Side:
        assert Connection(house, side).come().refused is None


def test_a_journal_that_ends_lets_nobody_in(house: House) -> None:
    """Promise: shutdown."""
    house.journal.admit_guest = _fail(JournalClosedError())  # type: ignore[method-assign, assignment]
    first, second = (Connection(house, side).come() for side in Side)

    assert first.refused is None
    assert isinstance(second.refused, JournalClosedError)
    assert nobody_is_left(house)


def test_who_waits_for_the_other_connection_is_let_go_when_it_never_comes(house: House) -> None:
    first, second = Connection(house, SENDING), Connection(house, RECEIVING)
    first.come()
    guest = first.guest
    assert guest is not None
    guest._wait_until += 1_000
    waiting = in_background(guest.wait_for_arrival)
    second.claim()
    second.leave()

    must_end(waiting)
    assert not guest.is_here


def test_while_a_guest_leaves_nobody_joins_it(house: House) -> None:
    """It may take a moment: the feed may be at work."""
    first = Connection(house, SENDING).come()
    Connection(house, RECEIVING).come()
    leave = house.presence.leave
    refused: list[ErrorCode | None] = []

    def leave_while_somebody_comes(seat: Seat) -> bool:
        assert guests_of(house).find("carol") is None
        refused.extend(Connection(house, side).come().code for side in Side)
        return leave(seat)

    house.presence.leave = leave_while_somebody_comes  # type: ignore[method-assign]
    first.leave()

    assert refused == [ErrorCode.BAD_USERNAME] * 2
    assert nobody_is_left(house)


def test_nobody_joins_one_who_leaves_before_its_second_connection_has_come(house: House) -> None:
    first, second = Connection(house, SENDING).come(), Connection(house, RECEIVING)
    assert first.guest is not None
    first.guest._arrived = SimpleNamespace(set=second.come)  # type: ignore[assignment]
    first.leave()

    assert second.code is ErrorCode.BAD_USERNAME
    assert nobody_is_left(house)


def _fail(error: Exception) -> Callable[[str], Account | None]:
    def admit_guest(_: str) -> Account | None:
        raise error

    return admit_guest


# --- the next one of that name ---


def test_who_sees_the_end_may_come_again_at_once(house: House) -> None:
    first, second = (Connection(house, side).come() for side in Side)
    came: list[ErrorCode | None] = []

    class Watched(FakeOutbox):
        def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
            super().finish(last, hang_up=hang_up)
            came.append(Connection(house, SENDING).come().code)

    second.outbox.__class__ = Watched
    first.leave()

    assert came == [None]


def test_what_was_for_a_guest_who_has_gone_is_not_given_to_the_next_of_that_name(house: House) -> None:
    """Its sender waited for room in the journal meanwhile. Promise: nobody sees what is for somebody else."""
    alice = Seat(1, "alice", FakeOutbox(house.stream))
    house.feed.join(alice)
    old = house.guest("carol")
    post = Post(alice, ["secret"], [None], guests_of(house).find("carol"))
    old.sending.session.end()
    new = house.guest("carol", "10.0.0.9")
    house.journal.append([post])

    assert new.receiving.news() == []


def test_what_a_guest_wrote_who_has_gone_is_not_shown_to_the_next_of_that_name(house: House) -> None:
    """Somebody's other connections are shown it; a guest has none."""
    house.accounts.add("alice", "hash")
    old = house.guest("carol")
    guest = old.sending.session._guest
    assert guest is not None
    assert guest.seat is not None
    post = Post(guest.seat, ["secret"], [None], house.accounts.find("alice"))
    old.receiving.session.end()
    new = house.guest("carol", "10.0.0.9")
    house.journal.append([post])

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
        house = House()
        carol = [Connection(house, side) for side in Side]
        at_once(*(each.come for each in carol))

        assert [each.told for each in carol] == [[Registered(side, "carol")] for side in Side]
        assert house.presence.names() == ("carol",)
        assert sum(map(len, house.feed._seats.values())) == 1


def test_of_many_who_register_one_name_at_once_one_has_each_side() -> None:
    for _ in range(100):
        house = House()
        crowd = [Connection(house, side, name) for side in Side for name in ("carol", "Carol", "CAROL")]
        at_once(*(each.come for each in crowd))

        for side, half in ((SENDING, crowd[:3]), (RECEIVING, crowd[3:])):
            (winner,) = [each for each in half if each.guest is not None]
            assert [type(event) for event in winner.told] == [Registered], side
            assert {each.code for each in half} == {None, ErrorCode.BAD_USERNAME}
        assert len(house.presence.names()) == 1


@pytest.mark.parametrize("order", BOTH_ORDERS)
def test_one_connection_that_ends_while_the_other_registers_leaves_nobody_behind(order: Sequence[Side]) -> None:
    """Whichever is first, the other is closed, or not let in and may try again."""
    for _ in range(200):
        house = House()
        first, second = (Connection(house, side) for side in order)
        first.come()
        at_once(first.leave, second.come)
        if not second.outbox.is_finished:  # it came behind the end, or into it
            assert second.code is ErrorCode.BAD_USERNAME or second.told == [Registered(order[1], "carol")]
            assert house.presence.names() == ()
            second.leave()

        assert nobody_is_left(house)


def test_both_connections_that_end_at_once_end_one_guest() -> None:
    for _ in range(200):
        house = House()
        carol = [Connection(house, side).come() for side in Side]
        at_once(*(each.leave for each in carol))

        assert nobody_is_left(house)
        assert house.times_empty == 1


def test_whoever_comes_and_goes_at_once_the_books_are_empty_in_the_end() -> None:
    for _ in range(100):
        house = House()

        def come_and_go(side: Side, house: House = house) -> None:
            for _ in range(3):
                Connection(house, side).come().leave()

        at_once(*(partial(come_and_go, side) for side in (*Side, *Side)))

        assert nobody_is_left(house)
