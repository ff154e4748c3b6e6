"""ClientSession: messages and queries over any number of connections, and the model that follows them."""

import pytest
from msgspec.structs import replace
from raw_steps import Command

from chatclient.links.connection import LinkDown, LinkLost, LinkUp
from chatclient.links.watch import ExpectedAnswer
from chatclient.model import Model
from chatclient.notices import ConnectionLost, Reconnected
from chatclient.session import ClientSession, Connected, ConnectionEnded, Left, LoginRefused, RateLimited
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    AccountKind,
    Banned,
    Deleted,
    Event,
    Found,
    History,
    Ignored,
    Pong,
    Refused,
    Users,
    Welcome,
)
from chatprotocol.requests import (
    AskHistory,
    AskIgnored,
    AskUsers,
    Ban,
    ChangePassword,
    Leave,
    Login,
    Ping,
    Request,
    Say,
    Search,
    Whisper,
)
from chatprotocol.wire import PROTOCOLS, Frames, WireProtocol
from chatprotocol.wire.base import Outgoing, PossibleGap
from chatprotocol.wire.json import Json

from .dialogue import SERVER, FakeConnection, FakeLink, login, nonces
from .samples import confirmation, direct, public

WELCOME = Welcome(account=AccountKind.EXISTING, username="alice", users=("alice",), last_id=10)


@pytest.fixture
def session() -> ClientSession:
    return ClientSession(Model((("localhost", 9999),), "alice", "secret"), Json().client(), FakeConnection(), nonces())


def log_in(session: ClientSession, welcome: Welcome = WELCOME, protocol: WireProtocol = PROTOCOLS[0]) -> FakeLink:
    link = connect(session, protocol)
    session.handle(welcome)
    return link


def connect(session: ClientSession, protocol: WireProtocol = PROTOCOLS[0]) -> FakeLink:
    """A connection on which the login is sent."""
    link = FakeLink(protocol=protocol)
    if Connected() in session.handle(LinkUp(link, SERVER)):
        session.log_in()
    return link


def test_due_and_ping_follow_the_session(session: ClientSession) -> None:
    """Watch reads them to find a hanging server."""
    assert (session.expected_answer, session.ping) == (ExpectedAnswer.NOTHING, None)
    for _ in range(2):
        connect(session)
        assert (session.expected_answer, session.ping) == (ExpectedAnswer.LOGIN, None)
        session.handle(WELCOME)
        assert (session.expected_answer, session.ping) == (ExpectedAnswer.NOTHING, Outgoing(b'{"command":"ping"}\n'))
        said = session.prepare(Say("hello"))
        assert session.expected_answer is ExpectedAnswer.ANSWER
        session.handle(confirmation(11, said.nonce))
        session.request(AskHistory(5))
        assert session.expected_answer is ExpectedAnswer.ANSWER
        session.handle(History(()))
        assert session.expected_answer is ExpectedAnswer.NOTHING
        session.handle(LinkDown("reset"))
        assert (session.expected_answer, session.ping) == (ExpectedAnswer.NOTHING, None)
    log_in(session)
    session.leave()
    assert session.expected_answer is ExpectedAnswer.ANSWER


def test_connection_that_ends_before_the_first_login_is_told_once(session: ClientSession) -> None:
    """No reconnect follows."""
    assert session.handle(LinkUp(FakeLink(), SERVER)) == (Connected(),)
    session.log_in()
    assert session.handle(LinkDown("reset")) == ()
    assert session.handle(LinkLost("reset")) == (ConnectionEnded("reset"),)


def test_loss_and_refusals_of_an_outage_are_told_once(session: ClientSession) -> None:
    """A reconnect that fails at its login is the same outage."""
    full = Refused(ErrorCode.SERVER_FULL, "Full.")
    log_in(session)
    for _ in range(2):
        for is_repeated in (False, True):
            assert session.handle(LinkDown("reset")) == (() if is_repeated else (ConnectionLost("reset"),))
            link = connect(session)
            assert session.handle(full) == (LoginRefused(full, is_final=False, is_repeated=is_repeated),)
            assert link.is_shut
        assert session.handle(LinkDown("closed")) == ()
        connect(session)
        assert session.handle(WELCOME) == (Reconnected("alice", 10),)


def test_connection_that_ends_after_the_goodbye_is_no_loss(session: ClientSession) -> None:
    """Unless a message is unconfirmed: then the session reconnects, and says goodbye again."""
    log_in(session)
    said = session.prepare(Say("hello"))
    session.leave()
    assert session.handle(LinkDown("closed")) == (ConnectionLost("closed"),)
    assert log_in(session).sent[1:] == [said, Leave()]
    session.handle(confirmation(11, said.nonce))
    assert session.handle(LinkDown("closed")) == (Left(),)


def test_default_nonces_are_unique() -> None:
    session = ClientSession(Model((("localhost", 9999),), "alice", "secret"), Json().client(), FakeConnection())
    sent = [session.prepare(Say("x")).nonce for _ in range(10)]
    assert len(set(sent)) == 10
    assert list(session.model.unconfirmed) == sent


def test_unconfirmed_messages_are_sent_again_with_the_same_nonce_in_order(session: ClientSession) -> None:
    """Promise: once."""
    log_in(session)
    said = [session.prepare(each) for each in (Say("one"), Whisper("bob", "two"), Say("three"))]
    for each in said:
        session.request(each)
    session.handle(confirmation(11, said[1].nonce))
    session.handle(LinkDown("reset"))
    assert not session.is_ready
    said.append(session.prepare(Say("typed while away")))
    session.request(said[3])
    assert log_in(session).sent == [login("alice", "secret", 11), said[0], said[2], said[3]]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Say(" \n"), ErrorCode.EMPTY_MESSAGE),
        (Say("\u20ac" * 2_731), ErrorCode.TOO_LONG),  # 8,193 bytes
        (Whisper("bob", "caf\udce9"), ErrorCode.BAD_REQUEST),
        (Whisper("not a name", "x"), ErrorCode.BAD_USERNAME),
    ],
)
def test_invalid_message_is_rejected_and_not_kept(session: ClientSession, said: Say | Whisper, code: ErrorCode) -> None:
    """A kept message would be sent again and again."""
    log_in(session)
    with pytest.raises(RequestError) as error:
        session.prepare(said)
    assert error.value.code is code
    assert session.model.unconfirmed == {}
    assert session.prepare(Say("x" * 8_192))


def test_65th_message_waits_until_one_of_64_has_an_answer(session: ClientSession) -> None:
    """Promise: back-pressure."""
    log_in(session)
    said = [session.prepare(Say("x")) for _ in range(64)]
    assert not session.is_ready
    session.handle(Refused(ErrorCode.INTERNAL, "Disk.", said[0].nonce))
    assert session.is_ready


@pytest.mark.parametrize(
    ("code", "is_temporary"),
    [(ErrorCode.SHUTTING_DOWN, True), (ErrorCode.NOT_LOGGED_IN, True), (ErrorCode.INTERNAL, False)],
)
def test_temporary_error_sends_a_message_again(session: ClientSession, code: ErrorCode, is_temporary: bool) -> None:
    """The error is not returned: a user who saw it would type the message again."""
    log_in(session)
    said = session.prepare(Say("pay 100"))
    session.request(said)
    refused = Refused(code, "No.", said.nonce)
    assert session.handle(refused) == (() if is_temporary else (refused,))
    session.handle(LinkDown("reset"))
    assert log_in(session).sent[1:] == ([said] if is_temporary else [])


def test_own_message_with_a_lost_confirmation_is_returned_once(session: ClientSession) -> None:
    """It is among the missed messages. Messages of this user's other devices are returned in their order."""
    log_in(session)
    said, whispered = session.prepare(Say("one")), session.prepare(Whisper("bob", "psst"))
    session.handle(LinkDown("reset"))
    log_in(session)
    assert session.handle(public(11, "one", "Alice")) == ()
    for phone in (public(12, "psst", "Alice"), direct(13, "psst", "alice", "carol")):
        assert session.handle(phone) == (phone,)
    assert session.handle(direct(14, "psst", "alice", "Bob")) == ()
    # The connection is lost again: the held messages need not arrive again.
    session.handle(LinkDown("reset"))
    assert log_in(session).sent == [login("alice", "secret", 13), said, whispered]
    for sent in (confirmation(11, said.nonce), confirmation(14, whispered.nonce)):
        assert session.handle(sent) == (sent,)


@pytest.mark.parametrize("answer", [confirmation(12, "n1"), Refused(ErrorCode.TOO_LONG, "No.", "n1")])
def test_own_message_of_another_device_with_the_same_text_is_returned(session: ClientSession, answer: Event) -> None:
    log_in(session)
    session.prepare(Say("ok"))
    assert session.handle(public(11, "ok", "alice")) == ()
    assert session.handle(answer) == (answer, public(11, "ok", "alice"))
    assert session.model.last_seen_id in (11, 12)


def test_message_to_oneself_is_returned_and_confirmed(session: ClientSession) -> None:
    log_in(session)
    session.prepare(Whisper("Alice", "note"))
    note, sent = direct(11, "note", "alice", "alice"), confirmation(11, "n1")
    assert session.handle(note) == (note,)
    assert session.handle(sent) == (sent,)


def test_held_messages_are_limited(session: ClientSession) -> None:
    """A server may send any number of messages that look like one that it never confirms."""
    log_in(session)
    session.prepare(Say("ok"))
    told = [each for number in range(11, 111) for each in session.handle(public(number, "ok", "alice"))]
    assert len(told) == 100 - 64


def test_held_messages_stay_held_when_they_arrive_again(session: ClientSession) -> None:
    """Promise: once. Each reconnect brings the stored, unconfirmed messages again, also if 64 of them wait."""
    log_in(session)
    said = [session.prepare(Say(f"word {number}")) for number in range(64)]
    stored = [public(11 + number, each.text, "alice") for number, each in enumerate(said)]
    for _ in range(2):
        session.handle(LinkDown("reset"))
        log_in(session)
        assert [session.handle(each) for each in stored] == [()] * 64
    for message, each in zip(stored, said, strict=True):
        sent = confirmation(message.id, each.nonce)
        assert session.handle(sent) == (sent,)


# The server's answer to a client that saw message 10 of the history a1, and the id that the client resumes after.
RETURNS = [
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15, history_id="a1"), False, 10),
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15, history_id="b2", since=7), True, 7),
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=5, history_id="a1", since=0), True, 0),
    # Servers that have no id, or do not compare it.
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15), False, 10),
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=5), True, 5),
    (Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15, history_id="b2"), True, 15),
]


@pytest.mark.parametrize(("welcome", "has_gap", "since"), RETURNS)
def test_other_history_is_reported_and_used(
    session: ClientSession, welcome: Welcome, has_gap: bool, since: int
) -> None:
    """Promise: nothing is lost silently."""
    log_in(session, Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=10, history_id="a1"))
    session.handle(LinkDown("reset"))
    link = connect(session)
    assert link.sent == [login("alice", "secret", 10, "a1")]
    back = Reconnected("alice", welcome.last_id)
    assert session.handle(welcome) == ((back, PossibleGap()) if has_gap else (back,))
    assert session.model.login() == login("alice", "secret", since, welcome.history_id)


def test_seen_messages_are_not_returned_again_after_a_restore(session: ClientSession) -> None:
    """Promise: once. Different messages with the same ids are returned."""
    log_in(session)
    session.handle(History((public(9, "from the history"),)))
    session.handle(public(11, "heard"))
    session.prepare(Say("said"))
    session.handle(confirmation(12, "n1"))
    session.handle(direct(13, "psst", "bob", "alice"))
    session.handle(LinkDown("reset"))
    log_in(
        session, Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15, history_id="b2", since=8)
    )
    seen = [public(9, "from the history"), public(11, "heard"), public(12, "said", "alice", 5)]
    assert [session.handle(each) for each in seen] == [(), (), ()]
    others = [public(9, "another"), public(11, "heard", "bob", 1), public(11, "heard", "carol"), public(13, "another")]
    assert [session.handle(each) for each in others] == [(each,) for each in others]


QUERIES: list[tuple[Request, Event]] = [
    (AskUsers(), Users(None, ("alice",))),
    (AskHistory(20), History(())),
    (Search("x"), Found("x", (), 10)),
    (Ban(username="bob"), Banned(username="Bob", by="alice")),
    (AskIgnored(), Ignored(())),
]


@pytest.mark.parametrize(("query", "answer"), QUERIES, ids=repr)
def test_query_is_repeated_after_a_loss_until_its_answer(session: ClientSession, query: Request, answer: Event) -> None:
    log_in(session)
    session.request(query)
    # The list repeated by the server would answer two requests for it.
    assert session.is_ready == (query != AskUsers())
    session.handle(LinkDown("reset"))
    connect(session)
    session.handle(Refused(ErrorCode.INTERNAL, "No login."))  # this is no answer
    for _ in range(2):
        session.handle(LinkDown("reset"))
        assert log_in(session).sent.count(query) == 1
    session.handle(answer)
    session.handle(LinkDown("reset"))
    assert query not in log_in(session).sent


def test_deletion_is_returned_once(session: ClientSession) -> None:
    """A login repeats it."""
    log_in(session)
    said = session.prepare(Say("ok"))
    assert session.handle(public(11, "ok", "alice")) == ()  # held: it may be the unconfirmed one
    deleted = [Deleted(number, "eve") for number in (9, 11)]
    for _ in range(2):
        assert [session.handle(each) for each in deleted] == [(each,) for each in deleted]
        assert [session.handle(each) for each in deleted] == [(), ()]
        # The ids of another history are those of other messages.
        session.handle(LinkDown("reset"))
        log_in(session, Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=15, since=8))
    assert session.handle(Refused(ErrorCode.TOO_LONG, "No.", said.nonce)) == (
        Refused(ErrorCode.TOO_LONG, "No.", said.nonce),
    )


def limited(nonce: str | None, seconds: float = 2.5) -> Refused:
    return Refused(ErrorCode.RATE_LIMITED, "Too fast.", nonce, retry_seconds=seconds)


def test_messages_refused_for_their_rate_are_sent_again_one_by_one_in_order() -> None:
    """Promise: nothing is lost silently. A client that waits for each confirmation is not refused."""
    model, connection = Model((("localhost", 9999),), "alice", "secret"), FakeConnection()
    session = ClientSession(model, Json().client(), connection, nonces(), resends_limited=True)
    link = log_in(session)
    said = [session.prepare(Say(str(number))) for number in range(4)]
    for each in said:
        session.request(each)
    assert session.handle(limited("n2", 1e9)) == (RateLimited(60.0),)
    assert session.resend_limited() == ()  # n1 may still be refused
    assert session.handle(limited("n3", -1.0)) == (RateLimited(0.1),)
    assert session.handle(limited("n4")) == (RateLimited(2.5),)
    assert session.handle(confirmation(11, "n1"))
    assert session.expected_answer is ExpectedAnswer.NOTHING  # a silent server is not suspected meanwhile
    for message_id, nonce in ((12, "n2"), (13, "n3"), (14, "n4")):
        assert session.is_limited == (not session.is_ready) == True  # noqa: E712
        session.resend_limited()
        assert session.resend_limited() == ()
        session.handle(confirmation(message_id, nonce))
    assert link.sent[1:] == [*said, *said[1:]]
    assert session.is_ready
    session.prepare(Say("x"))
    assert not session.is_ready


def test_rate_is_an_error_for_a_person_and_a_program(session: ClientSession) -> None:
    log_in(session)
    session.request(session.prepare(Say("hello")))
    assert session.handle(limited("n1")) == (limited("n1"),)
    assert session.model.unconfirmed == {}


def test_query_of_a_stepwise_protocol_is_repeated_once_after_the_missed_messages() -> None:
    session = ClientSession(Model((("localhost", 9999),), "alice", "secret"), Frames().client(), FakeConnection())
    log_in(session, protocol=Frames())
    session.request(AskHistory(20))
    session.handle(LinkDown("reset"))
    link = log_in(session, protocol=Frames())
    session.handle(History(()))
    assert link.sent == [Command("alice history-id"), Command("CH"), Command("CH 20")]


# --- several servers ---

A, B = ("a", 1), ("b", 1)
MOVED = Reconnected("alice", 10, "b:1", "a:1")


def refused(code: ErrorCode, nonce: str | None = None) -> Refused:
    return Refused(code, "No quorum.", nonce)


def reach(session: ClientSession, server: Address, *, tries_next: bool = True) -> FakeLink:
    """A connection to this server of a list."""
    link = FakeLink()
    session.handle(LinkUp(link, server, tries_next))
    return link


@pytest.fixture
def served(session: ClientSession) -> ClientSession:
    """A user of server a."""
    reach(session, A)
    session.log_in()
    session.handle(WELCOME)
    return session


def test_change_of_the_server_is_told_once(served: ClientSession) -> None:
    """Promise: one event if another server is there. Refusals of the servers on the way are not told."""
    assert served.handle(LinkDown("reset", tries_next=True)) == ()
    link = reach(served, ("c", 1))
    assert served.handle(refused(ErrorCode.SHUTTING_DOWN)) == ()
    assert link.is_shut
    assert served.handle(LinkDown("closed", tries_next=True)) == ()
    assert reach(served, B).sent == [Ping(), login("alice", "secret", 10)]
    assert served.model.server == B
    assert served.handle(WELCOME) == (MOVED,)
    served.handle(LinkDown("reset", tries_next=True))
    reach(served, B)
    assert served.handle(WELCOME) == (Reconnected("alice", 10),), "the same server"


def test_login_begins_with_a_ping_if_there_is_another_server(session: ClientSession) -> None:
    """Its answer, which no user sees, comes before the check of the password. Further tries need none."""
    link = reach(session, A)
    session.log_in()
    assert session.has_other_server
    assert [type(each) for each in link.sent] == [Ping, Login]
    assert session.handle(Pong()) == ()
    session.log_in()
    assert [type(each) for each in link.sent] == [Ping, Login, Login]
    session.handle(LinkDown("reset", tries_next=True))
    assert [type(each) for each in reach(session, B, tries_next=False).sent] == [Login]
    assert not session.has_other_server


def test_loss_is_told_once_if_all_servers_fail(served: ClientSession) -> None:
    """With the refusal of the last one."""
    for is_first in (True, False):
        assert served.handle(LinkDown("reset", tries_next=True)) == ()
        reach(served, B, tries_next=False)
        error = refused(ErrorCode.UNAVAILABLE)
        assert served.handle(error) == (LoginRefused(error, is_final=False, is_repeated=not is_first),)
        assert served.handle(LinkDown("a: reset; b: closed")) == (
            (ConnectionLost("a: reset; b: closed"),) if is_first else ()
        )
    reach(served, B)
    assert served.handle(WELCOME) == (MOVED,)


@pytest.mark.parametrize("code", [ErrorCode.RATE_LIMITED, ErrorCode.BANNED, ErrorCode.WRONG_PASSWORD])
def test_refusal_about_the_user_is_told_at_each_server(served: ClientSession, code: ErrorCode) -> None:
    served.handle(LinkDown("reset", tries_next=True))
    reach(served, B)
    is_final = code is not ErrorCode.RATE_LIMITED
    assert served.handle(refused(code)) == (LoginRefused(refused(code), is_final=is_final),)


def test_first_login_is_repeated_at_the_next_server(session: ClientSession) -> None:
    """With the new password and the label of the token. The program that called log_in() is not asked again."""
    session.model.invitation = "CODE"
    assert session.handle(LinkUp(FakeLink(), A, tries_next=True)) == (Connected(),)
    session.log_in("new", "bot")
    assert session.handle(refused(ErrorCode.UNAVAILABLE)) == ()
    assert session.handle(LinkDown("closed", tries_next=True)) == ()
    sent = replace(login("alice", "secret"), invitation="CODE", new_password="new", remember="bot")
    assert reach(session, B, tries_next=False).sent == [sent]
    error = refused(ErrorCode.UNAVAILABLE)
    assert session.handle(error) == (LoginRefused(error, is_final=True),)
    session.connect([A, B])
    assert session.handle(LinkUp(FakeLink(), A, tries_next=True)) == (Connected(),)


def test_server_that_becomes_unavailable_is_left(served: ClientSession) -> None:
    """Its messages and queries are repeated at the next one, and their errors not told. The reason is."""
    said = served.prepare(Say("hello"))
    served.request(said)
    served.request(AskHistory(5))
    link = reach(served, A)
    served.handle(WELCOME)
    for nonce in (said.nonce, None):
        assert served.handle(refused(ErrorCode.UNAVAILABLE, nonce)) == ()
        assert link.is_shut
    assert served.handle(LinkDown("closed", tries_next=True)) == ()
    assert served.handle(LinkDown("all failed")) == (ConnectionLost("all failed"),)
    link = reach(served, B)
    assert served.handle(WELCOME) == (MOVED,)
    assert link.sent == [Ping(), login("alice", "secret", 10), said, AskHistory(5)]
    served.handle(confirmation(11, said.nonce))
    served.handle(refused(ErrorCode.UNAVAILABLE))
    assert served.handle(LinkDown("closed")) == (ConnectionLost("No quorum"),)


@pytest.mark.parametrize("servers", [(A,), (A, B)])
def test_person_stays_if_all_servers_are_unavailable(servers: tuple[Address, ...]) -> None:
    """Promise: the history is readable. The message is rejected; the next outage begins a round."""
    model = Model(servers, "alice", "secret")
    session = ClientSession(model, Json().client(), FakeConnection(), nonces(), tells_unavailable=True)
    link = reach(session, A, tries_next=False)
    session.log_in()
    session.handle(WELCOME)
    said = session.prepare(Say("hello"))
    session.request(said)
    session.request(Search("hello"))
    for error in (refused(ErrorCode.UNAVAILABLE, said.nonce), refused(ErrorCode.UNAVAILABLE)):
        assert session.handle(error) == (error,)
    assert (link.is_shut, session.is_ready, dict(model.unconfirmed)) == (False, True, {})
    session.request(said := session.prepare(Say("again")))
    session.handle(confirmation(11, said.nonce))
    session.request(said := session.prepare(Say("later")))
    error = refused(ErrorCode.UNAVAILABLE, said.nonce)
    assert session.handle(error) == (() if len(servers) > 1 else (error,))
    assert link.is_shut is (len(servers) > 1)


def test_person_goes_on_if_the_last_server_stays_unavailable() -> None:
    """Promise: the first message that is refused after a pause begins a round. The pause grows up to a confirmation."""
    model, now = Model((A, B), "alice", "secret"), [1_000.0]
    session = ClientSession(
        model, Json().client(), FakeConnection(), nonces(), tells_unavailable=True, monotonic=lambda: now[0]
    )
    link = reach(session, B, tries_next=False)
    session.log_in()
    session.handle(WELCOME)

    def is_left_after(seconds: float) -> bool:
        """True if two messages refused now make the client go on; false if they are rejected."""
        now[0] += seconds
        for message in [session.prepare(Say(text)) for text in ("hello", "there")]:
            session.request(message)
            error = refused(ErrorCode.UNAVAILABLE, message.nonce)
            assert session.handle(error) == (() if link.is_shut else (error,))
        assert bool(model.unconfirmed) is link.is_shut
        return link.is_shut

    for pause in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        assert [is_left_after(seconds) for seconds in (0.0, pause - 0.1, 0.2)] == [False, False, True]
        session.handle(LinkDown("closed", tries_next=True))
        for server in (A, B):  # all are unavailable: the messages are told at the last one
            link = reach(session, server, tries_next=server == A)
            session.handle(WELCOME)
            said = [each for each in link.sent if isinstance(each, Say)]
            assert list(model.unconfirmed.values()) == said
            for message in said:
                session.handle(refused(ErrorCode.UNAVAILABLE, message.nonce))
    session.request(said := session.prepare(Say("stored")))
    session.handle(confirmation(11, said.nonce))
    link = reach(session, B, tries_next=False)
    session.handle(WELCOME)
    assert [is_left_after(seconds) for seconds in (0.0, 5.1)] == [False, True]


def test_message_that_may_be_stored_is_not_rejected(session: ClientSession) -> None:
    """Promise: a person is told that a message was not stored only if no server may store it."""
    session = ClientSession(session.model, Json().client(), FakeConnection(), nonces(), tells_unavailable=True)
    reach(session, A)
    session.log_in()
    session.handle(WELCOME)
    lost, rejected = session.prepare(Say("lost")), session.prepare(Say("rejected"))
    session.request(lost)
    session.request(rejected)
    assert session.handle(refused(ErrorCode.UNAVAILABLE, rejected.nonce)) == ()
    for _ in range(2):  # also if the next connection ends before its login
        session.handle(LinkDown("reset", tries_next=True))
        link = reach(session, B, tries_next=False)
    session.handle(WELCOME)
    error = refused(ErrorCode.UNAVAILABLE, rejected.nonce)
    assert session.handle(error) == (error,)
    assert not link.is_shut
    assert session.handle(refused(ErrorCode.UNAVAILABLE, lost.nonce)) == ()
    assert link.is_shut
    assert [*session.model.unconfirmed] == [lost.nonce]


def test_refused_change_of_the_password_is_told(served: ClientSession) -> None:
    """It is not repeated."""
    served.request(AskHistory(5))
    served.request(ChangePassword("secret", "new"))
    error = refused(ErrorCode.UNAVAILABLE)
    assert served.handle(error) == (error,)
