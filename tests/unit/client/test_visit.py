"""A visit: what is wished goes out, what is not confirmed goes out again, and the model knows it first."""

from __future__ import annotations

import pytest

from chatclient.exchange import AtOnce, Gap
from chatclient.guest import AsGuest
from chatclient.model import Model, Standing
from chatclient.steps import StepByStep
from chatclient.visit import Visit
from chatprotocol.errors import ErrorCode, Refusal
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
def visit() -> Visit:
    return Visit(Model(("localhost", 9999), "alice", "secret"), AtOnce())


def come_in(visit: Visit) -> FakeLink:
    link = FakeLink()
    visit.log_in(link)
    visit.handle_event(WELCOME)
    return link


def test_a_new_connection_begins_with_the_login(visit: Visit) -> None:
    link = FakeLink()

    assert visit.log_in(link) == ()
    assert link.sent == [Login("alice", "secret")]
    assert visit.model.standing is Standing.KNOCKING
    assert not visit.is_ready
    assert visit.handle_event(WELCOME) == (WELCOME,)
    assert visit.is_ready


def test_a_guest_begins_with_one_of_two_connections() -> None:
    link = FakeLink()
    Visit(Model(("localhost", 9999), "alice", None), AsGuest()).log_in(link)

    assert link.sent == [Register(Side.SENDING, "alice")]


def test_what_is_not_confirmed_is_sent_again_with_the_same_nonce_and_in_the_same_order(visit: Visit) -> None:
    """Promise: once."""
    come_in(visit)
    said = [visit.prepare(each) for each in (Say("one"), Whisper("bob", "two"), Say("three"))]
    for each in said:
        visit.request(each)
    visit.handle_event(Sent(11, SentStatus.SENT, said[1].nonce))
    visit.connection_lost()
    assert not visit.is_ready

    assert come_in(visit).sent == [Login("alice", "secret", 11), said[0], said[2]]


def test_what_was_prepared_without_a_connection_goes_out_with_the_next_one(visit: Visit) -> None:
    said = visit.prepare(Say("one"))
    visit.request(said)

    assert come_in(visit).sent[1:] == [said]


def test_the_model_knows_what_is_told(visit: Visit) -> None:
    come_in(visit)
    assert visit.handle_event(PublicMessage(11, 0, "bob", "x")) == (PublicMessage(11, 0, "bob", "x"),)
    assert visit.model.last_seen_id == 11
    visit.handle_event(Users(2, ("alice", "bob"), ("bob",)))
    assert visit.model.online == ("alice", "bob")


def public(message_id: int, text: str, sender: str = "bob", time_ms: int = 0) -> PublicMessage:
    return PublicMessage(message_id, time_ms, sender, text)


def direct(message_id: int, text: str, sender: str, recipient: str) -> DirectMessage:
    return DirectMessage(message_id, 0, sender, recipient, text)


def test_an_own_message_of_which_the_confirmation_was_lost_is_told_once(visit: Visit) -> None:
    """It is among what was missed; what another device said is told, in its turn."""
    come_in(visit)
    said, whispered = visit.prepare(Say("one")), visit.prepare(Whisper("bob", "psst"))
    visit.connection_lost()
    come_in(visit)
    assert visit.handle_event(public(11, "one", "Alice")) == ()
    for phone in (public(12, "psst", "Alice"), direct(13, "psst", "alice", "carol")):
        assert visit.handle_event(phone) == (phone,)
    assert visit.handle_event(direct(14, "psst", "alice", "Bob")) == ()
    # Once more lost: what was held back need not come again.
    visit.connection_lost()
    assert come_in(visit).sent == [Login("alice", "secret", 13), said, whispered]
    for sent in (Sent(11, SentStatus.SENT, said.nonce), Sent(14, SentStatus.SENT, whispered.nonce)):
        assert visit.handle_event(sent) == (sent,)


@pytest.mark.parametrize("answer", [Sent(12, SentStatus.SENT, "n1"), Refused(ErrorCode.TOO_LONG, "No.", "n1")])
def test_an_own_message_that_only_looks_like_one_that_is_not_confirmed_is_told(visit: Visit, answer: Event) -> None:
    """Another device has said the same in the same moment."""
    come_in(visit)
    visit.prepare(Say("ok"))
    assert visit.handle_event(public(11, "ok", "alice")) == ()
    assert visit.handle_event(answer) == (answer, public(11, "ok", "alice"))


def test_who_writes_to_oneself_gets_the_message_and_its_confirmation(visit: Visit) -> None:
    come_in(visit)
    visit.prepare(Whisper("Alice", "note"))
    note, sent = direct(11, "note", "alice", "alice"), Sent(11, SentStatus.SENT, "n1")
    assert visit.handle_event(note) == (note,)
    assert visit.handle_event(sent) == (sent,)


def test_what_a_server_holds_back_for_ever_does_not_pile_up(visit: Visit) -> None:
    """A server may name any number of messages that look like one that it does not confirm."""
    come_in(visit)
    visit.prepare(Say("ok"))
    told = [each for number in range(11, 111) for each in visit.handle_event(public(number, "ok", "alice"))]
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
    visit: Visit, welcome: Welcome, has_gap: bool, since: int
) -> None:
    """Promise: nothing is lost silently."""
    visit.log_in(FakeLink())
    visit.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 10, "a1"))
    visit.connection_lost()
    link = FakeLink()
    visit.log_in(link)
    assert link.sent == [Login("alice", "secret", 10, "a1")]
    assert visit.handle_event(welcome) == ((welcome, Gap()) if has_gap else (welcome,))
    assert visit.model.login() == Login("alice", "secret", since, welcome.history_id)


def test_an_identity_that_is_too_long_to_be_given_back_is_not_kept(visit: Visit) -> None:
    visit.log_in(FakeLink())
    visit.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 10, "a" * 65))
    assert visit.model.login() == Login("alice", "secret", 10)


def test_what_was_seen_before_a_restore_is_not_told_again_and_what_has_its_id_is(visit: Visit) -> None:
    """Promise: once."""
    come_in(visit)
    visit.handle_event(History((public(9, "from the history"),)))
    visit.handle_event(public(11, "heard"))
    visit.prepare(Say("said"))
    visit.handle_event(Sent(12, SentStatus.SENT, "n1"))
    visit.handle_event(direct(13, "psst", "bob", "alice"))
    visit.connection_lost()
    visit.log_in(FakeLink())
    visit.handle_event(Welcome(AccountKind.EXISTING, "alice", (), 15, "b2", 8))

    seen = [public(9, "from the history"), public(11, "heard"), public(12, "said", "alice", 5)]
    assert [visit.handle_event(each) for each in seen] == [(), (), ()]
    others = [public(9, "another"), public(11, "heard", "carol"), public(13, "another"), public(11, "heard", "bob", 1)]
    assert [visit.handle_event(each) for each in others] == [(each,) for each in others]


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
def test_what_can_be_no_message_is_refused_and_not_kept(visit: Visit, said: Say | Whisper, code: ErrorCode) -> None:
    """What is kept is sent again and again."""
    come_in(visit)
    with pytest.raises(Refusal) as refusal:
        visit.prepare(said)

    assert refusal.value.code is code
    assert visit.model.unconfirmed == {}


def test_the_longest_message_is_none_too_long(visit: Visit) -> None:
    for text in ("x" * 8_192, "\u20ac" * 2_730):
        assert visit.prepare(Say(text)).text == text


def test_each_message_has_a_nonce_of_its_own(visit: Visit) -> None:
    nonces = [visit.prepare(Say("x")).nonce for _ in range(10)]

    assert len(set(nonces)) == 10
    assert list(visit.model.unconfirmed) == nonces


def test_a_65th_message_has_to_wait_until_one_of_64_is_settled(visit: Visit) -> None:
    """Promise: back-pressure."""
    come_in(visit)
    said = [visit.prepare(Say("x")) for _ in range(64)]
    assert not visit.is_ready
    visit.handle_event(Refused(ErrorCode.INTERNAL, "Disk.", said[0].nonce))

    assert visit.is_ready


def test_while_an_answer_is_waited_for_nothing_else_can_be_wished(visit: Visit) -> None:
    link = come_in(visit)
    visit.request(AskUsers())
    assert (link.sent[-1], visit.is_ready) == (AskUsers(), False)
    visit.handle_event(Users(1, ("alice",)))

    assert visit.is_ready


def test_what_was_not_answered_is_asked_again_after_a_loss(visit: Visit) -> None:
    come_in(visit)
    visit.request(AskUsers())
    visit.connection_lost()
    assert AskUsers() in come_in(visit).sent
    assert not visit.is_ready
    visit.handle_event(Users(1, ("alice",)))
    assert visit.is_ready

    visit.connection_lost()
    assert AskUsers() not in come_in(visit).sent


ASKED: list[tuple[Request, Event]] = [
    (AskUsers(), Users(1, ("alice",))),
    (AskHistory(20), History(())),
    (Search("x"), Found("x", (), 10)),
]


@pytest.mark.parametrize(("wish", "answer"), ASKED, ids=repr)
def test_whatever_was_not_answered_is_asked_until_it_is(visit: Visit, wish: Request, answer: Event) -> None:
    come_in(visit)
    visit.request(wish)
    for _ in range(3):
        visit.connection_lost()
        assert come_in(visit).sent.count(wish) == 1
    visit.handle_event(answer)
    visit.connection_lost()
    assert wish not in come_in(visit).sent


@pytest.mark.parametrize(("wish", "answer"), ASKED, ids=repr)
def test_what_the_server_does_not_answer_but_refuses_is_not_asked_again(
    visit: Visit, wish: Request, answer: Event
) -> None:
    del answer
    come_in(visit)
    visit.request(wish)
    assert visit.handle_event(REFUSED) == (REFUSED,)
    visit.connection_lost()
    assert wish not in come_in(visit).sent


@pytest.mark.parametrize(("wish", "answer"), ASKED, ids=repr)
def test_the_refusal_of_a_return_is_no_answer_to_what_was_asked(visit: Visit, wish: Request, answer: Event) -> None:
    del answer
    come_in(visit)
    visit.request(wish)
    visit.connection_lost()
    visit.log_in(FakeLink())
    visit.handle_event(REFUSED)
    visit.connection_lost()
    assert come_in(visit).sent.count(wish) == 1


def test_in_a_dialogue_dialect_what_was_not_answered_is_asked_again_once_behind_what_was_missed() -> None:
    visit = Visit(Model(("localhost", 9999), "alice", "secret"), StepByStep("pm-dm"))
    visit.log_in(FakeLink())
    visit.handle_event(WELCOME)
    visit.request(AskHistory(20))
    visit.connection_lost()
    link = FakeLink()
    visit.log_in(link)
    visit.handle_event(WELCOME)
    visit.handle_event(History(()))
    assert link.sent == [Command("alice history-id"), Command("CH"), Command("CH 20")]


@pytest.mark.parametrize("code", [ErrorCode.SHUTTING_DOWN, ErrorCode.NOT_LOGGED_IN])
def test_a_message_that_is_refused_for_a_moment_is_sent_again_and_nothing_is_told(
    visit: Visit, code: ErrorCode
) -> None:
    """Who was told would say it again."""
    come_in(visit)
    said = visit.prepare(Say("pay 100"))
    visit.request(said)
    assert visit.handle_event(Refused(code, "Later.", said.nonce)) == ()
    visit.connection_lost()
    assert come_in(visit).sent[1:] == [said]
    visit.handle_event(Sent(11, SentStatus.SENT, said.nonce))
    visit.connection_lost()
    assert come_in(visit).sent[1:] == []


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL, ErrorCode.UNKNOWN_USER, ErrorCode.RATE_LIMITED])
def test_a_message_that_is_refused_for_another_reason_is_told_and_not_sent_again(visit: Visit, code: ErrorCode) -> None:
    come_in(visit)
    said = visit.prepare(Say("pay 100"))
    visit.request(said)
    refused = Refused(code, "No.", said.nonce)
    assert visit.handle_event(refused) == (refused,)
    visit.connection_lost()
    assert come_in(visit).sent[1:] == []


def test_the_newest_connection_is_the_one_that_is_used_and_shut(visit: Visit) -> None:
    visit.shut()
    old, new = come_in(visit), come_in(visit)
    visit.request(AskUsers())
    visit.shut()

    assert AskUsers() not in old.sent
    assert (old.is_shut, new.is_shut) == (False, True)
