"""Model: the client's state that survives a lost connection."""

import msgspec
import pytest

from chatclient.model import ConnectionState, Model
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Deleted,
    Event,
    History,
    Ignored,
    Joined,
    Refused,
    RoomState,
    TopicChanged,
    Users,
    Welcome,
)
from chatprotocol.limits import TOPIC_MAX_BYTES
from chatprotocol.requests import Say, Whisper
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

from .dialogue import login
from .samples import confirmation, direct, public

WELCOME = Welcome(account=AccountKind.EXISTING, username="Alice", users=("Alice",), last_id=10)


@pytest.fixture
def model() -> Model:
    return Model((("localhost", 9999),), "alice", "secret")


def after(model: Model, *events: ClientEvent) -> Model:
    for event in events:
        model.apply(event)
    return model


EMPTY = Welcome(account=AccountKind.NEW, username="alice", users=(), last_id=0)


@pytest.mark.parametrize(
    ("events", "last_seen_id"),
    [
        ([], None),
        ([WELCOME], 10),
        ([WELCOME, public(11)], 11),
        ([WELCOME, direct(11)], 11),
        ([WELCOME, confirmation(11, "n1")], 11),
        ([WELCOME, direct(3)], 10),  # stored while the user was away
        ([WELCOME, History((public(99),))], 99),
        # The next connection may be lost again before the missed messages arrive.
        ([WELCOME, Welcome(account=AccountKind.EXISTING, username="Alice", users=(), last_id=50)], 10),
        ([EMPTY, Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=5)], 0),
        # Messages of guests have no id.
        (
            [Welcome(account=AccountKind.GUEST, username="alice", users=(), last_id=None), Forwarded("bob", "hello")],
            None,
        ),
    ],
)
def test_login_names_the_newest_message_seen(model: Model, events: list[Event], last_seen_id: int | None) -> None:
    """Promise: once. The server sends what follows it. The name has the spelling of the account."""
    name = "Alice" if WELCOME in events else "alice"
    assert after(model, *events).login() == login(name, "secret", last_seen_id)
    assert model.connection_state is (ConnectionState.LOGGED_IN if events else ConnectionState.DISCONNECTED)


def test_1000_seen_messages_are_remembered(model: Model) -> None:
    """A server that can't tell which ones are new sends up to 500 again."""
    messages = [public(number) for number in range(11, 2_011)]
    after(model, WELCOME, *messages)
    assert [each.id for each in messages if model.has_seen(each)] == list(range(1_011, 2_011))


ONE, TWO = Say("one", "n1"), Whisper("bob", "two", "n2")


@pytest.mark.parametrize(
    ("event", "is_answer"),
    [
        (confirmation(11, "n1"), True),
        (Refused(ErrorCode.TOO_LONG, "x", "n1"), True),
        (Outcome(ONE, has_come=False), True),
        (DeliveryUnknown(ONE, has_history=False), True),
        (confirmation(11), False),
        (confirmation(11, "other"), False),
        (Refused(ErrorCode.TOO_LONG, "x"), False),
        (PossibleGap(has_history=False), False),
        (Outcome(Say("x"), has_come=True), False),
    ],
)
def test_message_is_unconfirmed_until_its_own_answer(model: Model, event: ClientEvent, is_answer: bool) -> None:
    model.unconfirmed = {"n1": ONE, "n2": TWO}
    after(model, event)
    assert model.unconfirmed == ({"n2": TWO} if is_answer else {"n1": ONE, "n2": TWO})


@pytest.mark.parametrize(
    ("events", "online", "count"),
    [
        ([Welcome(account=AccountKind.EXISTING, username="Alice", users=(), last_id=None)], (), None),
        ([Users(None, ("Alice", "bob"), ("bob",))], ("Alice", "bob"), 2),
        ([Online(("bob", "carol"))], ("bob", "carol"), 2),
        # A large room sends joins and leaves without the list.
        ([Users(501, None, ("bob",)), Users(501, None, ("bob",))], ("Alice", "bob"), 501),
        ([Users(501, None, ("bob",)), Users(500, None, (), ("bob", "Alice"))], (), 500),
        ([Users(501, None, ("bob", "carol")), Users(501, None, ("bob",), ("carol",))], ("Alice", "bob"), 501),
        ([Users(501, None, (), ("unknown",))], ("Alice",), 501),
        ([public(11), Forwarded("eve", "x")], ("Alice",), 1),
    ],
)
def test_users_online_are_known(model: Model, events: list[Event], online: tuple[str, ...], count: int | None) -> None:
    after(model, WELCOME, *events)
    assert (model.online, model.online_count) == (online, count)


def test_10000_users_online_are_remembered(model: Model) -> None:
    for batch in range(30):
        model.apply(Users(1, None, tuple(f"u{batch * 500 + number}" for number in range(500)), ()))
    assert len(model.online) == 10_000
    assert model.online[-1] == "u14999"


@pytest.mark.parametrize(
    ("events", "last_sender"),
    [
        ([direct(11), direct(12, sender="carol")], "carol"),
        ([direct(11), public(12, "Alice!", "carol")], "bob"),
        ([direct(11), direct(12, "x", "Alice", "carol")], "bob"),
        ([direct(11, sender="ALICE")], ""),
        ([direct(11, recipient="")], "bob"),
    ],
)
def test_correspondent_is_the_last_sender(model: Model, events: list[Event], last_sender: str) -> None:
    assert after(model, WELCOME, *events).last_sender == last_sender


def test_invalid_names_are_not_offered(model: Model) -> None:
    """A server may send any name. They are neither completed nor replied to."""
    evil = ("x\u202eevil", "x\x1b[2J", "x y", "")
    after(model, WELCOME, Users(None, ("alice", "bob", *evil)), direct(11), *(direct(12, sender=name) for name in evil))
    assert model.online == ("alice", "bob")
    assert model.last_sender == "bob"


def test_deletions_and_own_messages_are_remembered_up_to_a_limit(model: Model) -> None:
    """A server may send any number of them. Own ids are in order, whatever the order in which they were seen."""
    model.apply(WELCOME)
    for number in (*range(30, 90), *range(11, 30)):
        model.apply(public(number, "x", "ALICE"))
    for number in range(89, 39, -1):
        assert model.last_own_id("") == model.last_own_id("Lobby") == number
        model.apply(Deleted(number, "eve"))
    assert model.last_own_id("") is None
    for number in range(1_000, 2_000):
        model.apply(Deleted(number, "eve"))
    assert [model.was_deleted(number) for number in (40, 1_000, 1_999)] == [False, True, True]
    model.apply(Ignored(("Bob",)))
    assert [model.is_hidden(each) for each in (public(1), public(1, sender="eve"), direct(1))] == [True, False, False]


def test_long_topics_are_not_kept(model: Model) -> None:
    """A server may send topics of any length, for as many rooms as the client keeps."""
    state = RoomState("dev", "t" * 100_000, 1)
    joined, changed = Joined("ops", state.topic, (), 1), TopicChanged("ops", state.topic, "bob")
    after(model, msgspec.structs.replace(WELCOME, rooms=(state,)), joined, changed)
    assert [len(room.topic) for room in model.rooms.values()] == [TOPIC_MAX_BYTES] * 2
