"""A visit: what is wished goes out, what is not confirmed goes out again, and the model knows it first."""

from __future__ import annotations

import pytest

from chatclient.client_protocol import JsonClient, PossibleGap
from chatclient.frames_client import FramesClient
from chatclient.model import ConnectionState, Model
from chatclient.register_client import RegisterClient
from chatclient.session import ClientSession
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    AccountKind,
    DirectMessage,
    Event,
    Found,
    History,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.requests import AskHistory, AskUsers, Command, Login, Register, Request, Say, Search, Side, Whisper

WELCOME = Welcome(AccountKind.EXISTING, "alice", ("alice",), 10)
REFUSED = Refused(ErrorCode.INTERNAL, "No.")


class FakeLink:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Request] = []
        self.is_shut = False

    def send(self, request: Request) -> None:
        self.sent.append(request)

    def shut_down(self) -> None:
        self.is_shut = True


@pytest.fixture
def session() -> ClientSession:
    return ClientSession(Model(("localhost", 9999), "alice", "secret"), JsonClient())


def come_in(session: ClientSession) -> FakeLink:
    link = FakeLink()
    session.log_in(link)
    session.handle_event(WELCOME)
    return link


def test_a_new_connection_begins_with_the_login(session: ClientSession) -> None:
    link = FakeLink()

    assert session.log_in(link) == ()
    assert link.sent == [Login("alice", "secret")]
    assert session.model.connection_state is ConnectionState.KNOCKING
    assert not session.is_ready
    assert session.handle_event(WELCOME) == (WELCOME,)
    assert session.is_ready


def test_a_guest_begins_with_one_of_two_connections() -> None:
    link = FakeLink()
    ClientSession(Model(("localhost", 9999), "alice", None), RegisterClient()).log_in(link)

    assert link.sent == [Register(Side.SENDING, "alice")]


def test_what_is_not_confirmed_is_sent_again_with_the_same_nonce_and_in_the_same_order(session: ClientSession) -> None:
    """Promise: once."""
    come_in(session)
    said = [session.prepare(each) for each in (Say("one"), Whisper("bob", "two"), Say("three"))]
    for each in said:
        session.request(each)
    session.handle_event(Sent(11, SentStatus.SENT, said[1].nonce))
    session.connection_lost()
    assert not session.is_ready

    assert come_in(session).sent == [Login("alice", "secret", 11), said[0], said[2]]


def test_what_was_prepared_without_a_connection_goes_out_with_the_next_one(session: ClientSession) -> None:
    said = session.prepare(Say("one"))
    session.request(said)

    assert come_in(session).sent[1:] == [said]


def test_the_model_knows_what_is_told(session: ClientSession) -> None:
    come_in(session)
    assert session.handle_event(PublicMessage(11, 0, "bob", "x")) == (PublicMessage(11, 0, "bob", "x"),)
    assert session.model.last_seen_id == 11
    session.handle_event(Users(2, ("alice", "bob"), ("bob",)))
    assert session.model.online == ("alice", "bob")


def public(message_id: int, text: str, sender: str = "bob", time_ms: int = 0) -> PublicMessage:
    return PublicMessage(message_id, time_ms, sender, text)


def direct(message_id: int, text: str, sender: str, recipient: str) -> DirectMessage:
    return DirectMessage(message_id, 0, sender, recipient, text)


def test_an_own_message_of_which_the_confirmation_was_lost_is_told_once(session: ClientSession) -> None:
    """It is among what was missed; what another device said is told, in its turn."""
    come_in(session)
    said, whispered = session.prepare(Say("one")), session.prepare(Whisper("bob", "psst"))
    session.connection_lost()
    come_in(session)
    assert session.handle_event(public(11, "one", "Alice")) == ()
    for phone in (public(12, "psst", "Alice"), direct(13, "psst", "alice", "carol")):
        assert session.handle_event(phone) == (phone,)
    assert session.handle_event(direct(14, "psst", "alice", "Bob")) == ()
    # Once more lost: what was held back need not come again.
    session.connection_lost()
    assert come_in(session).sent == [Login("alice", "secret", 13), said, whispered]
    for sent in (Sent(11, SentStatus.SENT, said.nonce), Sent(14, SentStatus.SENT, whispered.nonce)):
        assert session.handle_event(sent) == (sent,)


@pytest.mark.parametrize("answer", [Sent(12, SentStatus.SENT, "n1"), Refused(ErrorCode.TOO_LONG, "No.", "n1")])
def test_an_own_message_that_only_looks_like_one_that_is_not_confirmed_is_told(
    session: ClientSession, answer: Event
) -> None:
    """Another device has said the same in the same moment."""
    come_in(session)
    session.prepare(Say("ok"))
    assert session.handle_event(public(11, "ok", "alice")) == ()
    assert session.handle_event(answer) == (answer, public(11, "ok", "alice"))


def test_who_writes_to_oneself_gets_the_message_and_its_confirmation(session: ClientSession) -> None:
    come_in(session)
    session.prepare(Whisper("Alice", "note"))
    note, sent = direct(11, "note", "alice", "alice"), Sent(11, SentStatus.SENT, "n1")
    assert session.handle_event(note) == (note,)
    assert session.handle_event(sent) == (sent,)


def test_what_a_server_holds_back_for_ever_does_not_pile_up(session: ClientSession) -> None:
    """A server may name any number of messages that look like one that it does not confirm."""
    come_in(session)
    session.prepare(Say("ok"))
    told = [each for number in range(11, 111) for each in session.handle_event(public(number, "ok", "alice"))]
    assert len(told) == 100 - 64


# What the server answers to the return of a client that saw message 10 of the history a1; what it goes on from then.
RETURNS = [
    (Welcome(AccountKind.EXISTING, "alice", (), 15, "a1"), False, 10),
    (Welcome(AccountKind.EXISTING, "alice", (), 15, "b2", 7), True, 7),
    (Welcome(AccountKind.EXISTING, "alice", (), 5, "a1", 0), True, 0),
    # servers that know no identity, or don't compare it
    (Welcome(AccountKind.EXISTING, "alice", (), 15), False, 10),
    (Welcome(AccountKind.EXISTING, "alice", (), 5), True, 5),
    (Welcome(AccountKind.EXISTING, "alice", (), 15, "b2"), True, 15),
]


@pytest.mark.parametrize(("welcome", "has_gap", "since"), RETURNS)
def test_a_return_to_another_history_is_told_and_goes_on_where_the_server_says(
    session: ClientSession, welcome: Welcome, has_gap: bool, since: int
) -> None:
    """Promise: nothing is lost silently."""
    session.log_in(FakeLink())
    session.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 10, "a1"))
    session.connection_lost()
    link = FakeLink()
    session.log_in(link)
    assert link.sent == [Login("alice", "secret", 10, "a1")]
    assert session.handle_event(welcome) == ((welcome, PossibleGap()) if has_gap else (welcome,))
    assert session.model.login() == Login("alice", "secret", since, welcome.history_id)


def test_an_identity_that_is_too_long_to_be_given_back_is_not_kept(session: ClientSession) -> None:
    session.log_in(FakeLink())
    session.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 10, "a" * 65))
    assert session.model.login() == Login("alice", "secret", 10)


def test_what_was_seen_before_a_restore_is_not_told_again_and_what_has_its_id_is(session: ClientSession) -> None:
    """Promise: once."""
    come_in(session)
    session.handle_event(History((public(9, "from the history"),)))
    session.handle_event(public(11, "heard"))
    session.prepare(Say("said"))
    session.handle_event(Sent(12, SentStatus.SENT, "n1"))
    session.handle_event(direct(13, "psst", "bob", "alice"))
    session.connection_lost()
    session.log_in(FakeLink())
    session.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 15, "b2", 8))

    seen = [public(9, "from the history"), public(11, "heard"), public(12, "said", "alice", 5)]
    assert [session.handle_event(each) for each in seen] == [(), (), ()]
    others = [public(9, "another"), public(11, "heard", "carol"), public(13, "another"), public(11, "heard", "bob", 1)]
    assert [session.handle_event(each) for each in others] == [(each,) for each in others]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Say(""), ErrorCode.EMPTY_MESSAGE),
        (Say(" \n"), ErrorCode.EMPTY_MESSAGE),
        (Whisper("bob", ""), ErrorCode.EMPTY_MESSAGE),
        (Say("x" * 8_193), ErrorCode.TOO_LONG),
        (Say("\u20ac" * 2_731), ErrorCode.TOO_LONG),
        (Say("\udce9"), ErrorCode.BAD_REQUEST),
        (Whisper("bob", "caf\udce9"), ErrorCode.BAD_REQUEST),
    ],
)
def test_what_can_be_no_message_is_refused_and_not_kept(
    session: ClientSession, said: Say | Whisper, code: ErrorCode
) -> None:
    """What is kept is sent again and again."""
    come_in(session)
    with pytest.raises(RequestError) as error:
        session.prepare(said)

    assert error.value.code is code
    assert session.model.unconfirmed == {}


def test_the_longest_message_is_none_too_long(session: ClientSession) -> None:
    for text in ("x" * 8_192, "\u20ac" * 2_730):
        assert session.prepare(Say(text)).text == text


def test_each_message_has_a_nonce_of_its_own(session: ClientSession) -> None:
    nonces = [session.prepare(Say("x")).nonce for _ in range(10)]

    assert len(set(nonces)) == 10
    assert list(session.model.unconfirmed) == nonces


def test_a_65th_message_has_to_wait_until_one_of_64_is_settled(session: ClientSession) -> None:
    """Promise: back-pressure."""
    come_in(session)
    said = [session.prepare(Say("x")) for _ in range(64)]
    assert not session.is_ready
    session.handle_event(Refused(ErrorCode.INTERNAL, "Disk.", said[0].nonce))

    assert session.is_ready


def test_while_an_answer_is_waited_for_nothing_else_can_be_wished(session: ClientSession) -> None:
    link = come_in(session)
    session.request(AskUsers())
    assert (link.sent[-1], session.is_ready) == (AskUsers(), False)
    session.handle_event(Users(1, ("alice",)))

    assert session.is_ready


def test_what_was_not_answered_is_asked_again_after_a_loss(session: ClientSession) -> None:
    come_in(session)
    session.request(AskUsers())
    session.connection_lost()
    assert AskUsers() in come_in(session).sent
    assert not session.is_ready
    session.handle_event(Users(1, ("alice",)))
    assert session.is_ready

    session.connection_lost()
    assert AskUsers() not in come_in(session).sent


ASKED: list[tuple[Request, Event]] = [
    (AskUsers(), Users(1, ("alice",))),
    (AskHistory(20), History(())),
    (Search("x"), Found("x", (), 10)),
]


@pytest.mark.parametrize(("action", "answer"), ASKED, ids=repr)
def test_whatever_was_not_answered_is_asked_until_it_is(session: ClientSession, action: Request, answer: Event) -> None:
    come_in(session)
    session.request(action)
    for _ in range(3):
        session.connection_lost()
        assert come_in(session).sent.count(action) == 1
    session.handle_event(answer)
    session.connection_lost()
    assert action not in come_in(session).sent


@pytest.mark.parametrize(("action", "answer"), ASKED, ids=repr)
def test_what_the_server_does_not_answer_but_refuses_is_not_asked_again(
    session: ClientSession, action: Request, answer: Event
) -> None:
    del answer
    come_in(session)
    session.request(action)
    assert session.handle_event(REFUSED) == (REFUSED,)
    session.connection_lost()
    assert action not in come_in(session).sent


@pytest.mark.parametrize(("action", "answer"), ASKED, ids=repr)
def test_the_refusal_of_a_return_is_no_answer_to_what_was_asked(
    session: ClientSession, action: Request, answer: Event
) -> None:
    del answer
    come_in(session)
    session.request(action)
    session.connection_lost()
    session.log_in(FakeLink())
    session.handle_event(REFUSED)
    session.connection_lost()
    assert come_in(session).sent.count(action) == 1


def test_in_a_dialogue_dialect_what_was_not_answered_is_asked_again_once_behind_what_was_missed() -> None:
    session = ClientSession(Model(("localhost", 9999), "alice", "secret"), FramesClient("pm-dm"))
    session.log_in(FakeLink())
    session.handle_event(WELCOME)
    session.request(AskHistory(20))
    session.connection_lost()
    link = FakeLink()
    session.log_in(link)
    session.handle_event(WELCOME)
    session.handle_event(History(()))
    assert link.sent == [Command("alice history-id"), Command("CH"), Command("CH 20")]


@pytest.mark.parametrize("code", [ErrorCode.SHUTTING_DOWN, ErrorCode.NOT_LOGGED_IN])
def test_a_message_that_is_refused_for_a_moment_is_sent_again_and_nothing_is_told(
    session: ClientSession, code: ErrorCode
) -> None:
    """Who was told would say it again."""
    come_in(session)
    said = session.prepare(Say("pay 100"))
    session.request(said)
    assert session.handle_event(Refused(code, "Later.", said.nonce)) == ()
    session.connection_lost()
    assert come_in(session).sent[1:] == [said]
    session.handle_event(Sent(11, SentStatus.SENT, said.nonce))
    session.connection_lost()
    assert come_in(session).sent[1:] == []


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.UNKNOWN_USER, ErrorCode.RATE_LIMITED])
def test_a_message_that_is_refused_for_another_reason_is_told_and_not_sent_again(
    session: ClientSession, code: ErrorCode
) -> None:
    come_in(session)
    said = session.prepare(Say("pay 100"))
    session.request(said)
    refused = Refused(code, "No.", said.nonce)
    assert session.handle_event(refused) == (refused,)
    session.connection_lost()
    assert come_in(session).sent[1:] == []


def test_the_newest_connection_is_the_one_that_is_used_and_shut(session: ClientSession) -> None:
    session.shut()
    old, new = come_in(session), come_in(session)
    session.request(AskUsers())
    session.shut()

    assert AskUsers() not in old.sent
    assert (old.is_shut, new.is_shut) == (False, True)


def test_held_messages_that_arrive_again_stay_held(session: ClientSession) -> None:
    """Promise: once. Each reconnect brings the stored, unconfirmed messages again, also if as many as possible wait."""
    come_in(session)
    said = []
    while session.is_ready:
        said.append(session.prepare(Say(f"word {len(said)}")))
    stored = [public(11 + number, each.text, "alice") for number, each in enumerate(said)]
    for _ in range(2):
        session.connection_lost()
        come_in(session)
        assert [session.handle_event(each) for each in stored] == [()] * len(stored)

    for message, each in zip(stored, said, strict=True):
        confirmation = Sent(message.id, SentStatus.SENT, each.nonce)
        assert session.handle_event(confirmation) == (confirmation,)
