"""What the client knows, and keeps over a lost connection."""

import pytest

from chatclient.client_protocol import DeliveryUnknown, Outcome, PossibleGap
from chatclient.model import ConnectionState, Model
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    Delivered,
    DirectMessage,
    Event,
    Forwarded,
    History,
    NotDelivered,
    Online,
    Pong,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.requests import Login, Say, Whisper

WELCOME = Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 10)


@pytest.fixture
def model() -> Model:
    return Model(("localhost", 9999), "alice", "secret")


def after(model: Model, *events: Event) -> Model:
    for event in events:
        model.apply(event)
    return model


def test_the_first_login_names_nothing_that_was_seen(model: Model) -> None:
    assert model.login() == Login("alice", "secret", None)


def test_a_welcome_tells_how_the_name_is_spelled_and_what_the_newest_message_is(model: Model) -> None:
    after(model, WELCOME)

    assert model.connection_state is ConnectionState.IN
    assert model.login() == Login("Alice", "secret", 10)


def test_who_came_into_an_empty_room_goes_on_from_its_beginning(model: Model) -> None:
    """A welcome after a lost connection is not what was missed: that is still to come, and may be lost once more."""
    after(
        model, Welcome(AccountKind.NEW, "alice", ("alice",), 0), Welcome(AccountKind.EXISTING, "alice", ("alice",), 5)
    )

    assert model.login().since == 0


@pytest.mark.parametrize(
    ("event", "last_seen_id"),
    [
        (PublicMessage(11, 0, "bob", "x"), 11),
        (DirectMessage(11, 0, "bob", "Alice", "x"), 11),
        (Sent(11, SentStatus.SENT), 11),
        (Sent(11, SentStatus.STORED, "n1"), 11),
        (DirectMessage(3, 0, "bob", "Alice", "while you were away"), 10),
        (Sent(3, SentStatus.SENT, "sent twice"), 10),
        (History((PublicMessage(99, 0, "bob", "x"),)), 99),
        (Users(1, ("Alice",)), 10),
        (Refused(ErrorCode.TOO_LONG, "x"), 10),
        (Pong(), 10),
        (Bye("x"), 10),
    ],
)
def test_the_newest_message_that_was_seen_is_where_to_go_on(model: Model, event: Event, last_seen_id: int) -> None:
    """Promise: once. A client that reconnects names the last id that it saw."""
    assert after(model, WELCOME, event).login().since == last_seen_id


def test_what_is_remembered_of_messages_has_a_limit(model: Model) -> None:
    """It is for a server that sends the last 500 messages once more."""
    messages = [PublicMessage(number, 0, "bob", "x") for number in range(11, 2_011)]
    after(model, WELCOME, *messages)

    assert [each.id for each in messages if model.has_seen(each)] == list(range(1_011, 2_011))


def test_a_second_welcome_does_not_skip_what_is_missed_before_it_has_come(model: Model) -> None:
    """Promise: once. The connection may be lost again before what was missed has arrived."""
    after(model, WELCOME, Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 50))

    assert model.login().since == 10


@pytest.mark.parametrize(
    "event",
    [Sent(11, SentStatus.SENT, "n1"), Sent(11, SentStatus.STORED, "n1"), Refused(ErrorCode.TOO_LONG, "x", "n1")],
)
def test_what_is_confirmed_or_refused_is_not_sent_again(model: Model, event: Event) -> None:
    model.unconfirmed = {"n1": Say("one", "n1"), "n2": Say("two", "n2")}

    assert after(model, event).unconfirmed == {"n2": Say("two", "n2")}


@pytest.mark.parametrize(
    "event", [Sent(11, SentStatus.SENT), Sent(11, SentStatus.SENT, "other"), Refused(ErrorCode.TOO_LONG, "x")]
)
def test_an_answer_to_something_else_confirms_nothing(model: Model, event: Event) -> None:
    model.unconfirmed = {"n1": Say("one", "n1")}

    assert after(model, event).unconfirmed == {"n1": Say("one", "n1")}


@pytest.mark.parametrize(
    "news",
    [
        Outcome(Say("one", "n1"), has_come=True),
        Outcome(Say("one", "n1"), has_come=False),
        DeliveryUnknown(Say("one", "n1"), has_history=False),
    ],
)
def test_what_has_its_outcome_or_is_told_to_be_doubtful_is_settled(
    model: Model, news: Outcome | DeliveryUnknown
) -> None:
    model.unconfirmed = {"n1": Say("one", "n1"), "n2": Whisper("bob", "two", "n2")}
    model.apply(news)

    assert model.unconfirmed == {"n2": Whisper("bob", "two", "n2")}


@pytest.mark.parametrize(
    "news",
    [
        Forwarded("bob", "one"),
        Delivered("bob"),
        NotDelivered(),
        PossibleGap(has_history=False),
        Outcome(Say("x"), True),
    ],
)
def test_what_names_no_message_settles_none(model: Model, news: Event | PossibleGap | Outcome) -> None:
    model.unconfirmed = {"n1": Say("one", "n1")}
    model.apply(news)

    assert model.unconfirmed == {"n1": Say("one", "n1")}


def test_a_guest_has_nothing_to_go_on_from(model: Model) -> None:
    """What it was told has no number."""
    model.apply(Welcome(AccountKind.GUEST, "alice", (), None))
    model.apply(Forwarded("bob", "hello"))

    assert model.connection_state is ConnectionState.IN
    assert model.login() == Login("alice", "secret", None)


# --- who is online, and who wrote ---


@pytest.mark.parametrize(
    ("events", "online", "count"),
    [
        ((), ("Alice",), 1),
        ((Welcome(AccountKind.EXISTING, "Alice", ("Alice", "bob"), 10),), ("Alice", "bob"), 2),
        ((Welcome(AccountKind.EXISTING, "Alice", (), None),), (), None),
        ((Users(2, ("Alice", "bob")),), ("Alice", "bob"), 2),
        ((Users(2, ("Alice", "bob"), ("bob",)),), ("Alice", "bob"), 2),
        ((Online(("bob", "carol")),), ("bob", "carol"), 2),
        ((Users(501, None, ("bob",)),), ("Alice", "bob"), 501),
        ((Users(501, None, ("bob",)), Users(500, None, (), ("bob", "Alice"))), (), 500),
        ((Users(501, None, ("bob", "carol")), Users(501, None, ("bob",), ("carol",))), ("Alice", "bob"), 501),
        ((Users(501, None, ("bob",)), Users(501, None, ("bob",))), ("Alice", "bob"), 501),
        ((Users(501, None, (), ("nobody",)),), ("Alice",), 501),
        ((PublicMessage(11, 0, "bob", "x"), Forwarded("eve", "x")), ("Alice",), 1),
    ],
)
def test_who_is_online_is_learned_from_lists_and_from_who_comes_and_goes(
    model: Model, events: tuple[Event, ...], online: tuple[str, ...], count: int | None
) -> None:
    after(model, WELCOME, *events)

    assert model.online == online
    assert model.online_count == count


def test_before_the_login_nobody_is_known(model: Model) -> None:
    assert (model.online, model.online_count, model.correspondent) == ((), None, "")


@pytest.mark.parametrize(
    ("events", "correspondent"),
    [
        ((), ""),
        ((DirectMessage(11, 0, "bob", "Alice", "x"),), "bob"),
        ((DirectMessage(11, 0, "bob", "Alice", "x"), DirectMessage(12, 0, "carol", "Alice", "x")), "carol"),
        ((DirectMessage(11, 0, "bob", "Alice", "x"), PublicMessage(12, 0, "carol", "Alice!")), "bob"),
        ((DirectMessage(11, 0, "bob", "Alice", "x"), DirectMessage(12, 0, "Alice", "carol", "x")), "bob"),
        ((DirectMessage(11, 0, "ALICE", "Alice", "to myself"),), ""),
        ((DirectMessage(11, 0, "bob", "", "x"),), "bob"),
    ],
)
def test_who_wrote_last_is_the_one_to_reply_to(model: Model, events: tuple[Event, ...], correspondent: str) -> None:
    after(model, WELCOME, *events)

    assert model.correspondent == correspondent


def test_a_server_that_names_users_without_end_is_not_remembered_without_end() -> None:
    model = Model(None, "alice", None)
    for batch in range(30):
        model.apply(Users(1, None, tuple(f"u{batch * 500 + number}" for number in range(500)), ()))

    assert len(model.online) == 10_000
    assert model.online[-1] == "u14999"
