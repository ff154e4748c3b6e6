"""The rate of a user's messages and queries, with a clock that the tests move."""

from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import Bye, Pong, Refused, Sent, Users, Welcome
from chatprotocol.requests import (
    AskHistory,
    AskInfo,
    AskMark,
    AskTopic,
    AskUsers,
    EnterLobby,
    Join,
    Login,
    ModerationRequest,
    Password,
    Ping,
    RoomRequest,
    Say,
    SayBatch,
    SetModes,
    TokenRequest,
    Watch,
    Whisper,
)
from chatserver.chat.rate_limit import RateLimit, UserLimits
from chatserver.chat.room import Member
from chatserver.chat.room_commands import RoomCommands
from chatserver.counters import Counters
from chatserver.journal.base import Appended, Applied
from chatserver.journal.entries import JoinRoom, Moderated, RoomChange, SetServerRole
from chatserver.store.accounts import Role

from .chat_fixture import ChatFixture, Peer, any_request
from .helpers import FakeBroadcast, FakeSendQueue
from .udp_line import Clock

# A binary fraction, so that sums of times are exact.
STEP_SECONDS = 1 / 64
USERS = ("alice", "bob")


@given(
    burst=st.integers(1, 5),
    interval=st.integers(1, 32),
    delay_max=st.integers(0, 64),
    takes=st.lists(st.tuples(st.integers(0, 64), st.sampled_from(USERS)), max_size=60),
)
def test_limit_is_a_bucket_of_tokens_for_each_user(
    burst: int, interval: int, delay_max: int, takes: list[tuple[int, str]]
) -> None:
    """The model has the credit of a bucket in time steps. A token costs an interval and waits for the rest."""
    clock = Clock()
    limit = RateLimit("x", burst, 1 / (interval * STEP_SECONDS), clock=clock)
    credit = dict.fromkeys(USERS, burst * interval)
    for pause, user in takes:
        clock.now += pause * STEP_SECONDS
        credit = {each: min(burst * interval, left + pause) for each, left in credit.items()}
        delay = max(0, interval - credit[user])
        if delay <= delay_max:
            assert limit.take(user, delay_max * STEP_SECONDS) == delay * STEP_SECONDS
            credit[user] -= interval
        else:
            with pytest.raises(RequestError) as caught:
                limit.take(user, delay_max * STEP_SECONDS)
            assert caught.value.retry_seconds is not None
            assert 0 <= caught.value.retry_seconds - (delay - delay_max) * STEP_SECONDS <= 0.1


def test_full_buckets_are_forgotten() -> None:
    """Promise: memory stays bounded: only users who did it lately are remembered."""
    clock = Clock()
    limit = RateLimit("x", 10, 2, clock=clock)
    for number in range(100_000):
        clock.now += 0.001
        limit.take(number)
        assert len(limit) < 2_000


class Fixture:
    """Two users; 3 messages at once, then 2 a second; 2 queries at once, then one a second.

    With ``requests``: so many requests at once, then one a second.
    """

    def __init__(self, requests: int = 0, **settings: int) -> None:
        self.clock = Clock()
        self.counters = Counters()
        limits = UserLimits(
            RateLimit("message_rate", 3, 2, self.counters, self.clock),
            1.0,
            RateLimit("query_rate", 2, 1, self.counters, self.clock),
            RateLimit("request_rate", requests, 1 if requests else 0, self.counters, self.clock),
        )
        self.services = ChatFixture(limits=limits, **settings)
        for name in USERS:
            self.services.accounts.add(name, "terces")

    def enter(self, name: str = "alice", *, is_exempt: bool = False) -> Peer:
        peer = self.services.connect(is_exempt=is_exempt)
        peer.ask(Login(name, "secret"))
        return peer


@pytest.mark.parametrize("requests", [[Say(f"{number}") for number in range(5)], [SayBatch([*"01234"])]])
def test_messages_of_one_connection_are_delayed(requests: list[Say | SayBatch]) -> None:
    """Promise: back-pressure. The reader thread waits, and no message is lost or reordered."""
    fixture = Fixture()
    alice = fixture.enter()
    alice.ask(*requests)
    assert [text for batch in fixture.services.journal.appended for text in batch.texts] == [*"01234"]
    assert alice.send_queue.pauses == [0.5, 1.0], "the fake does not wait, so the second pause includes the first"
    assert fixture.counters.limits_hit == {"message_rate": 2}


@pytest.mark.parametrize(
    "requests",
    [[Say(f"{number}") for number in range(3)], [SayBatch([*"012"])], [Say("0"), SayBatch("1"), Say("2")]],
)
@pytest.mark.parametrize("kind", [list, iter])
def test_messages_within_the_rate_stay_one_batch_and_are_charged_once(
    requests: list[Say | SayBatch], kind: Callable[[list[Any]], Iterable[Any]]
) -> None:
    """Promise: a limit that is not reached costs no throughput. The requests of a read are a list or an iterator."""
    fixture = Fixture()
    alice = fixture.enter()
    alice.session.handle(kind(requests))
    assert [batch.texts for batch in fixture.services.journal.appended] == [[*"012"]]
    alice.ask(Say("3"))
    assert alice.send_queue.pauses == [0.5]


def test_user_has_one_rate_on_all_connections_and_others_have_theirs() -> None:
    """Promise: more connections send no more messages. Refused messages are not stored."""
    fixture = Fixture()
    first, second, bob = fixture.enter(), fixture.enter(), fixture.enter("bob")
    first.ask(*(Say(f"{number}", "n") for number in range(4)))
    second.ask(Whisper("bob", "5"))
    (refused,) = second.ask(Say("6", "n6"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.nonce, refused.retry_seconds) == (ErrorCode.RATE_LIMITED, "n6", 0.5)
    assert second.ask(Ping())
    fixture.clock.now += 0.5
    second.ask(Say("7"))
    texts = [text for batch in fixture.services.journal.appended for text in batch.texts]
    assert texts == ["0", "1", "2", "3", "5", "7"]
    bob.ask(Say("bob"))
    assert bob.send_queue.pauses == []


@pytest.mark.parametrize("is_exempt", [False, True])
def test_operators_and_exempt_addresses_have_no_rates(*, is_exempt: bool) -> None:
    fixture = Fixture()
    if not is_exempt:
        fixture.services.accounts.by_key["alice"] = replace(
            fixture.services.accounts.by_key["alice"], role=Role.OPERATOR
        )
    alice = fixture.enter(is_exempt=is_exempt)
    answers = alice.ask(*[Say("hello")] * 100, *[AskHistory()] * 100)
    assert Refused not in map(type, answers)
    assert alice.send_queue.pauses == []


def test_rates_that_are_switched_on_hold_for_open_connections() -> None:
    """By SIGHUP, perhaps because of what these connections do."""
    fixture = Fixture()
    limits = fixture.services.services.limits
    for limit in (limits.messages, limits.queries):
        limit.change(2, 0)
    alice = fixture.enter()
    assert Refused not in map(type, alice.ask(*[AskHistory()] * 3))
    limits.queries.change(2, 1)
    assert Refused in map(type, alice.ask(*[AskHistory()] * 3))


def test_operator_who_is_one_no_longer_has_rates() -> None:
    """Also on connections that were open before."""
    fixture = Fixture()
    fixture.services.accounts.by_key["alice"] = replace(fixture.services.accounts.by_key["alice"], role=Role.OPERATOR)
    alice = fixture.enter()
    revoked = SetServerRole(account_id=1, username="alice", role=Role.USER, by_id=0, by="admin")
    fixture.services.hub.handle_applied([Applied(revoked, Moderated(), None, 0)])
    assert Refused in map(type, alice.ask(*[AskHistory()] * 3))


@pytest.mark.parametrize(
    "kind", [*get_args(RoomRequest), *get_args(ModerationRequest), *get_args(TokenRequest), EnterLobby, Watch]
)
def test_every_request_about_rooms_and_conduct_has_a_rate(kind: type[Any]) -> None:
    """Each may wait for the disk, be told to others, or have a long answer."""
    fixture = Fixture()
    alice = fixture.enter()
    *_, last = alice.ask(*[AskHistory()] * 2, any_request(kind))
    assert isinstance(last, Refused)
    assert last.code is ErrorCode.RATE_LIMITED


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (AskHistory(), 2),
        (AskInfo(("bob",), has_rooms=False), 2),
        (AskInfo(("bob",) * 40, has_rooms=False), 1),
        (AskInfo(("bob",) * 100, has_rooms=False), 1),
        (Watch(("bob",) * 40), 1),
        (AskTopic("dev"), 8),
        (SetModes(room="dev"), 8),
        (SetModes(room="dev", moderated=True), 2),
    ],
)
def test_query_counts_for_what_it_looks_up(query: Any, count: int) -> None:
    """Promise: one with many names counts as several; the modes and the topic of a room as a part of one."""
    alice = Fixture().enter()
    answers = alice.ask(*[query] * (count + 1))
    limited = [isinstance(each, Refused) and each.code is ErrorCode.RATE_LIMITED for each in answers]
    assert limited.count(True) == 1
    assert limited[-1]


def test_full_bucket_has_all_tokens_at_any_time() -> None:
    """Times of a day and thirds of a second are no binary fractions."""
    clock = Clock()
    for burst, rate in ((1, 1 / 86_400), (20, 20 / 86_400), (30, 3.0)):
        limit = RateLimit("x", burst, rate, clock=clock)
        for user in range(1_000):
            clock.now += 1.1
            assert not limit.is_empty(user)
            assert [limit.take(user) for _ in range(burst)] == [0.0] * burst
            assert limit.is_empty(user)


def test_rooms_that_two_connections_make_at_once_both_count() -> None:
    """Both find a token in the bucket, before either has made its room."""
    made = RateLimit("rooms_per_day", 1, 1.0, clock=Clock())
    others = ["b"]

    class Journal:
        def append(self, entries: list[JoinRoom], _: Member) -> Appended[RoomChange]:
            while others:
                commands.change(alice, Join(others.pop()), made)
            appended = Appended(entries, None)
            appended.complete([RoomChange(2, entries[0].room, "", is_private=False, last_id=0, is_new=True)])
            return appended

    unused: Any = None
    journal: Any = Journal()
    commands = RoomCommands(unused, unused, journal, unused, "open")
    alice = Member(1, "alice", FakeSendQueue(FakeBroadcast()))
    commands.change(alice, Join("a"), made)
    assert made.take(1, 10.0) == 2.0, "two tokens are missing"


def test_wait_of_a_lost_peer_ends_its_session() -> None:
    """Promise: shutdown takes at most 8 s. The messages after the wait are not accepted."""
    fixture = Fixture()
    alice = fixture.enter()
    alice.send_queue.is_finished = True
    assert not alice.session.handle([Say(f"{number}") for number in range(5)])
    assert [text for batch in fixture.services.journal.appended for text in batch.texts] == ["0", "1", "2"]


def test_queries_over_the_rate_are_refused() -> None:
    """A list of users is delayed instead, because it comes before a direct message."""
    fixture = Fixture()
    alice = fixture.enter()
    answers = alice.ask(AskHistory(), AskHistory(), AskHistory(), Ping())
    assert [getattr(each, "retry_seconds", None) for each in answers] == [None, None, 1.0, None]
    assert type(alice.ask(AskUsers())[0]) is Users
    assert alice.send_queue.pauses == [1.0]


def test_requests_of_a_user_over_the_rate_are_delayed() -> None:
    """Promise: a flood of cheap requests or of errors costs little. Messages have a rate of their own."""
    fixture = Fixture(requests=3)
    alice, other, bob = fixture.enter(), fixture.enter(), fixture.enter("bob")
    assert alice.ask(Say("hello"), *[Ping()] * 4) == [Pong()] * 4
    other.ask(Password("not asked for"))
    assert (alice.send_queue.pauses, other.send_queue.pauses) == ([1.0], [2.0])
    bob.ask(*[Ping()] * 3)
    assert bob.send_queue.pauses == []
    assert not alice.session.is_paused
    alice.send_queue.is_finished = True
    assert not alice.session.handle([Ping()]), "a lost peer does not wait"


def test_marks_of_entered_rooms_have_no_rate() -> None:
    """Promise: a login of irc to 100 rooms takes no longer than one to the lobby."""
    alice = Fixture(requests=3).enter()
    alice.ask(*[AskMark(room="no room")] * 100)
    assert alice.send_queue.pauses == []


def test_requests_before_the_login_are_delayed_except_the_first() -> None:
    """Promise: a user logs in at once, whatever others at the same address do."""
    fixture = Fixture(requests=3)
    stranger = fixture.services.connect()
    stranger.ask(*[Say("not logged in")] * 13, Ping())
    assert stranger.send_queue.pauses == [1.0]
    alice = fixture.enter()
    assert Welcome in map(type, alice.send_queue.replies)
    assert alice.send_queue.pauses == []


def test_input_without_a_request_counts_for_a_quarter() -> None:
    fixture = Fixture(requests=3)
    alice = fixture.enter()
    for _ in range(13):
        alice.ask()
    assert alice.send_queue.pauses == [0.25]


def test_guest_has_a_rate() -> None:
    fixture = Fixture()
    guest = fixture.services.guest("carol")
    answers = [answer for _ in range(6) for answer in guest.sending.ask(Say("hello"))]
    assert [type(each) for each in answers][-6:] == [Sent] * 5 + [Refused]


def test_new_connection_replaces_the_oldest_of_its_user() -> None:
    """Promise: a user whose network is gone gets in at once, although dead connections fill the limit."""
    fixture = Fixture(user_connections=2)
    exempt, *peers = fixture.enter(is_exempt=True), *(fixture.enter() for _ in range(2)), fixture.enter("bob")
    newest = [fixture.enter() for _ in range(2)]
    replaced = Bye("replaced by a newer connection", ErrorCode.REPLACED)
    assert [peer.new_replies() for peer in peers] == [[replaced], [replaced], []]
    assert all(peer.send_queue.hangs_up for peer in peers[:2])
    peers[0].session.end()
    assert not any(peer.send_queue.is_finished for peer in (exempt, *newest))
