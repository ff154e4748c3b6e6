"""The session: what may be asked in which state, and what is answered."""

import json
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Found,
    History,
    Online,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    User,
    Welcome,
)
from chatprotocol.limits import ID_MAX
from chatprotocol.requests import (
    AskHistory,
    AskUser,
    AskUsers,
    ChangePassword,
    Command,
    Data,
    Leave,
    Login,
    Password,
    Ping,
    Register,
    Request,
    Say,
    Search,
    Send,
    Side,
    Unreadable,
    Whisper,
)
from chatprotocol.wire.json import Json
from chatserver.chat.batch import MessageBatch
from chatserver.chat.journal import JournalClosedError
from chatserver.chat.login_throttle import FAILURES_MAX
from chatserver.chat.session import Session
from chatserver.memory import ShortOfMemoryError
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.sendqueue import UNREAD_MAX_BYTES, SendQueue
from chatserver.net.transport import TcpTransport
from chatserver.store.errors import DamagedError, StoreError
from chatserver.store.indexer import SearchClosedError, SearchFailedError
from chatserver.store.words import Term

from .chat_fixture import HISTORY_ID, ChatFixture, FakePasswords, Visitor, codes, secrets_in
from .rooms import batch_of, eventually, in_background, must_end

LOGIN = Login("alice", "secret")
BAD_JSON = Unreadable(ErrorCode.BAD_JSON, "Not JSON.")


@pytest.fixture
def visitor(services: ChatFixture) -> Visitor:
    return services.visitor()


@pytest.fixture
def alice(visitor: Visitor) -> Visitor:
    visitor.ask(LOGIN)
    return visitor


# --- which request is answered in which state ---


def outside(_: Visitor) -> None:
    pass


def asked(visitor: Visitor) -> None:
    visitor.ask(Login("alice"))


def inside(visitor: Visitor) -> None:
    visitor.ask(LOGIN)


NOT_IN, BAD = ErrorCode.NOT_LOGGED_IN, ErrorCode.BAD_REQUEST

TABLE: list[tuple[Request, list[object], list[object], list[object]]] = [
    # request, answer outside, answer when a password was asked for, answer inside
    (Login("alice"), [PasswordPrompt], [PasswordPrompt], [BAD]),
    (Login("carol"), [PasswordPrompt], [PasswordPrompt], [BAD]),
    (LOGIN, [Welcome], [Welcome], [BAD]),
    (Login("bob", "secret"), [Welcome], [Welcome], [BAD]),
    (Password("secret"), [BAD], [Welcome], [BAD]),
    (Password("wrong"), [BAD], [ErrorCode.WRONG_PASSWORD], [BAD]),
    (Password(""), [BAD], [BAD], [BAD]),
    (Say("hello"), [NOT_IN], [NOT_IN], []),
    (Say(""), [NOT_IN], [NOT_IN], [ErrorCode.EMPTY_MESSAGE]),
    (Whisper("bob", "psst"), [NOT_IN], [NOT_IN], []),
    (Whisper("eve", "psst"), [NOT_IN], [NOT_IN], [ErrorCode.UNKNOWN_USER]),
    (AskUsers(), [NOT_IN], [NOT_IN], [Online]),
    (AskUser("bob"), [NOT_IN], [NOT_IN], [User]),
    (AskUser("eve"), [NOT_IN], [NOT_IN], [ErrorCode.UNKNOWN_USER]),
    (AskHistory(), [NOT_IN], [NOT_IN], [History]),
    (Search("hello"), [NOT_IN], [NOT_IN], [Found]),
    (Search("..."), [NOT_IN], [NOT_IN], [BAD]),
    (Search("x" * 257), [NOT_IN], [NOT_IN], [ErrorCode.TOO_LONG]),
    (Ping(), [Pong], [Pong], [Pong]),
    (BAD_JSON, [ErrorCode.BAD_JSON], [ErrorCode.BAD_JSON], [ErrorCode.BAD_JSON]),
    (Leave(), [Bye], [Bye], [Bye]),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
@pytest.mark.parametrize("state", [outside, asked, inside])
def test_each_request_has_its_answer_in_each_state(
    visitor: Visitor, state: Callable[[Visitor], None], row: tuple[Request, list[object], list[object], list[object]]
) -> None:
    state(visitor)
    answers = dict(zip((outside, asked, inside), row[1:], strict=True))

    assert codes(visitor.ask(row[0])) == answers[state]


@pytest.mark.parametrize("state", [outside, asked, inside])
def test_whatever_was_refused_the_connection_stays_in_its_state(
    visitor: Visitor, state: Callable[[Visitor], None]
) -> None:
    state(visitor)
    for request in (BAD_JSON, Password(""), Say(""), AskHistory() if state is not inside else LOGIN):
        assert visitor.session.handle([request])
    visitor.news()

    expected: dict[object, list[object]] = {outside: [Welcome], asked: [Welcome], inside: [Online]}
    assert codes(visitor.ask(AskUsers() if state is inside else LOGIN)) == expected[state]


@pytest.mark.parametrize("state", [outside, asked, inside])
def test_after_the_goodbye_the_session_is_over(visitor: Visitor, state: Callable[[Visitor], None]) -> None:
    state(visitor)

    assert not visitor.session.handle([Leave()])
    assert not visitor.session.handle([LOGIN])


def test_what_can_never_be_read_again_ends_the_session(alice: Visitor) -> None:
    assert not alice.session.handle([Unreadable(ErrorCode.TOO_LONG, "Too long.", closes=True)])
    assert codes(alice.news()) == [ErrorCode.TOO_LONG, Bye]


# --- coming in ---


def test_a_new_name_is_registered_and_welcomed(services: ChatFixture, visitor: Visitor) -> None:
    assert visitor.ask(Login("Carol", "secret")) == [Welcome(AccountKind.NEW, "Carol", ("Carol",), 10, HISTORY_ID)]
    found = services.accounts.find("carol")
    assert found is not None
    assert found.password_hash == "terces"
    assert visitor.session.is_logged_in


def test_a_known_name_is_welcomed_as_it_was_registered(visitor: Visitor) -> None:
    (welcome,) = visitor.ask(Login("aLICE", "secret"))
    assert welcome == Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 10, HISTORY_ID, seen_id=0)


@pytest.mark.parametrize("acknowledges", [True, False])
def test_a_login_tells_the_newest_message_of_the_last_visit(
    services: ChatFixture, alice: Visitor, acknowledges: bool
) -> None:
    """What the peer's system did not acknowledge may be lost with its network."""
    bob = services.visitor()
    bob.ask(Login("bob", "secret"))
    alice.send_queue.acknowledges = acknowledges
    bob.ask(Say("hello"))
    alice.session.end()
    bob.ask(Say("Alice has gone"))

    (welcome,) = services.visitor().ask(LOGIN)
    assert isinstance(welcome, Welcome)
    assert (welcome.seen_id, welcome.last_id) == (11 if acknowledges else 10, 12)


@pytest.mark.parametrize(("name", "kind"), [("ALICE", AccountKind.EXISTING), ("carol", AccountKind.NEW)])
def test_a_prompt_says_whether_the_name_is_new(visitor: Visitor, name: str, kind: AccountKind) -> None:
    assert visitor.ask(Login(name)) == [PasswordPrompt(kind)]
    assert not visitor.session.is_logged_in


def test_a_login_by_prompt_keeps_its_since(services: ChatFixture, visitor: Visitor) -> None:
    visitor.ask(Login("alice", None, 5))
    visitor.ask(Password("secret"))

    assert services.messages.asked == [("missed", 1, 5, 10, 500)]


@pytest.mark.parametrize("name", ["", "a b", "x" * 33, "ALL", "server", "\u00e4"])
@pytest.mark.parametrize("password", [None, "secret"])
def test_a_malformed_or_reserved_name_is_refused(visitor: Visitor, name: str, password: str | None) -> None:
    assert codes(visitor.ask(Login(name, password))) == [ErrorCode.BAD_USERNAME]


def test_a_refused_name_does_not_take_the_place_of_the_one_that_was_asked_about(visitor: Visitor) -> None:
    visitor.ask(Login("alice"))
    visitor.ask(Login("not a name"))

    assert codes(visitor.ask(Password("secret"))) == [Welcome]


def test_of_two_who_register_one_name_the_slower_needs_the_fasters_password(
    services: ChatFixture, visitor: Visitor
) -> None:
    services.journal.somebody_is_faster = True

    assert codes(visitor.ask(Login("carol", "secret"))) == [ErrorCode.WRONG_PASSWORD]
    (welcome,) = visitor.ask(Login("carol", "other"))
    assert welcome == Welcome(AccountKind.EXISTING, "CAROL", ("CAROL",), 10, HISTORY_ID, seen_id=0)


def test_a_registration_that_the_disk_refuses_is_told(services: ChatFixture, visitor: Visitor) -> None:
    services.journal.fault = OSError("disk full")

    assert codes(visitor.ask(Login("carol", "secret"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    assert codes(visitor.ask(Login("carol", "secret"))) == [Welcome]


def test_a_second_connection_of_a_user_is_welcome(services: ChatFixture, alice: Visitor) -> None:
    other = services.visitor()

    assert other.ask(LOGIN) == [Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 10, HISTORY_ID)]
    alice.session.end()
    assert services.presence.names() == ("Alice",)
    other.session.end()
    assert services.presence.names() == ()


def test_an_outdated_hash_is_replaced_after_a_right_password(services: ChatFixture, visitor: Visitor) -> None:
    services.accounts.add("old", "!terces")
    visitor.ask(Login("old", "wrong"))
    assert services.journal.changed_hashes == []
    visitor.ask(Login("old", "secret"))

    assert services.journal.changed_hashes == [(3, "terces")]


def test_a_password_is_changed_by_who_knows_the_one_before(services: ChatFixture, alice: Visitor) -> None:
    assert alice.ask(ChangePassword("secret", "new")) == [PasswordChanged()]
    assert services.journal.changed_hashes == [(1, "wen")]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("wrong", "new", ErrorCode.WRONG_PASSWORD),
        ("secret", "", ErrorCode.BAD_REQUEST),
        ("secret", "x" * 1_025, ErrorCode.TOO_LONG),
    ],
)
def test_a_password_is_not_changed_without_the_one_before_or_to_one_that_cannot_be(
    services: ChatFixture, alice: Visitor, old: str, new: str, code: ErrorCode
) -> None:
    assert codes(alice.ask(ChangePassword(old, new))) == [code]
    assert services.journal.changed_hashes == []


def test_a_change_of_the_password_is_confirmed_only_when_it_is_stored(services: ChatFixture, alice: Visitor) -> None:
    """Promise: confirmed means stored."""
    services.journal.fault = OSError("disk full")
    assert codes(alice.ask(ChangePassword("secret", "new"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    services.journal.hash_is_another = True
    assert codes(alice.ask(ChangePassword("secret", "new"))) == [ErrorCode.WRONG_PASSWORD]


def test_whoever_is_logged_in_can_not_guess_the_password_faster_than_others(
    services: ChatFixture, alice: Visitor
) -> None:
    """An unattended session, or a stolen one. Its user can still log in elsewhere."""
    for _ in range(FAILURES_MAX):
        assert codes(alice.ask(ChangePassword("wrong", "new"))) == [ErrorCode.WRONG_PASSWORD]
    assert codes(alice.ask(ChangePassword("secret", "new"))) == [ErrorCode.TOO_MANY_ATTEMPTS]
    assert codes(services.visitor().ask(LOGIN)) == [Welcome]


def message(number: int) -> PublicMessage:
    return PublicMessage(number, 0, "bob", f"text {number}")


def test_since_sends_what_was_missed_behind_the_welcome(services: ChatFixture, visitor: Visitor) -> None:
    """Promise: once."""
    services.messages.stored = (message(4), message(5), message(10))

    assert visitor.ask(Login("alice", "secret", 4)) == [
        Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 10, HISTORY_ID, seen_id=0),
        message(5),
        message(10),
    ]
    assert not visitor.send_queue.held


# What the client knows, after which message it goes on, and whether it is told that it may miss more. The newest
# message is 10, the oldest of the last ones 4; up to 6 the history is the same as in its former identity.
RESUMED = [
    (5, None, 5, False),
    (5, HISTORY_ID, 5, False),
    (10, HISTORY_ID, 10, False),
    (0, HISTORY_ID, 0, False),
    # the server began anew, or was restored, and nobody noticed
    (11, None, 3, True),
    (11, HISTORY_ID, 3, True),
    # a restored server that noticed
    (31, "former", 6, True),
    (8, "former", 6, True),
    (5, "former", 5, True),
    # another server
    (8, "never heard of", 3, True),
    (0, "never heard of", 0, True),
]


@pytest.mark.parametrize(("since", "history_id", "after_id", "is_told"), RESUMED)
def test_who_saw_what_is_not_here_any_more_is_told_so_and_gets_what_is_new(
    services: ChatFixture, visitor: Visitor, since: int, history_id: str | None, after_id: int, is_told: bool
) -> None:
    """Promise: nothing is lost silently."""
    services.messages.stored = tuple(map(message, (4, 5, 6, 7, 10)))
    services.identity.shared["former"] = 6

    welcome, *messages = visitor.ask(Login("alice", "secret", since, history_id))

    assert isinstance(welcome, Welcome)
    assert welcome.since == (after_id if is_told else None)
    assert messages == [each for each in services.messages.stored if each.id > after_id]


def test_direct_messages_that_wait_come_first_if_only_the_last_messages_are_sent(
    services: ChatFixture, visitor: Visitor
) -> None:
    """Promise: a direct message waits until a device of its recipient has it."""
    services.messages.history = lambda *_: (message(4), message(10))  # type: ignore[method-assign]
    services.messages.stored = tuple(map(message, (2, 4, 10)))

    assert visitor.ask(Login("alice", "secret", 31))[1:] == list(services.messages.stored)
    assert [asked[0::2] for asked in services.messages.asked] == [("waiting", 0, 500), ("missed", 3, 500)]


def test_an_empty_history_has_nothing_for_who_saw_more(visitor: Visitor) -> None:
    assert visitor.ask(Login("alice", "secret", 31)) == [
        Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 10, HISTORY_ID, 10, seen_id=0)
    ]


def test_what_is_said_while_missed_messages_are_read_comes_behind_them(services: ChatFixture, visitor: Visitor) -> None:
    """Promise: once. From the join on, everything is kept back, so that nothing falls between the two."""
    page = services.messages.missed

    def missed(*asked: int) -> object:
        assert visitor.send_queue.held
        services.journal.append([batch_of_bob(services, "in between")])
        return page(*asked)

    services.messages.missed = missed  # type: ignore[method-assign, assignment]
    services.messages.stored = (message(5),)

    assert visitor.ask(Login("alice", "secret", 4))[1:] == [message(5)]
    assert visitor.heard() == [PublicMessage(11, 0, "bob", "in between")]


def batch_of_bob(services: ChatFixture, text: str) -> MessageBatch:
    bob = services.visitor()
    bob.ask(Login("bob", "secret"))
    assert bob.session._member is not None
    return batch_of(bob.session._member, [text])


def test_much_that_was_missed_comes_in_pages_and_once(services: ChatFixture, visitor: Visitor) -> None:
    services.hub.publish([])
    services.messages.stored = tuple(message(number) for number in range(1, 1_201))
    services.hub._last_id = 1_200

    answer = visitor.ask(Login("alice", "secret", 0))

    assert answer[1:] == list(services.messages.stored)
    assert [asked[2:] for asked in services.messages.asked] == [(0, 1200, 500), (500, 1200, 500), (1000, 1200, 500)]


def test_without_since_the_direct_messages_that_wait_are_sent(services: ChatFixture, visitor: Visitor) -> None:
    services.accounts.add("dave", "terces", delivered_id=3)
    note = DirectMessage(4, 0, "bob", "dave", "while you were away")
    services.messages.stored = (note,)

    assert visitor.ask(Login("dave", "secret"))[1:] == [note]
    assert services.messages.asked == [("waiting", 3, 3, 10, 500)]


@pytest.mark.usefixtures("alice")
def test_what_another_connection_was_given_does_not_wait_any_more(services: ChatFixture) -> None:
    """Promise: once. The disk may not know of it yet."""
    services.messages.asked.clear()
    services.visitor().ask(LOGIN)

    assert services.messages.asked == [("waiting", 1, 10, 10, 500)]


def test_direct_messages_that_a_peer_hung_up_on_are_not_called_delivered(services: ChatFixture) -> None:
    """They wait for the next login; and nobody's history is read to the end for a peer that has gone."""
    broadcast = BroadcastBuffer(Json().encode_all, 1_000_000)
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
    services.messages.stored = tuple(DirectMessage(number, 0, "bob", "Alice", "") for number in range(1, 5_001))
    services.hub._last_id = 5_000
    page = services.messages.waiting

    def hang_up_after_the_first_page(*asked: int) -> object:
        if services.messages.asked:
            send_queue.finish()
        return page(*asked)

    services.messages.waiting = hang_up_after_the_first_page  # type: ignore[method-assign, assignment]
    Session(services.services, send_queue, "1@test", "here").handle([LOGIN])

    assert services.deliveries.unsaved().get(1, 0) <= 1_000
    assert len(services.messages.asked) <= 3


def test_a_new_account_gets_what_was_whispered_to_it_before_it_came_in(services: ChatFixture, visitor: Visitor) -> None:
    """Between the registration and the seat there is a moment in which the name exists and nobody is there."""
    visitor.ask(Login("carol", "secret"))

    assert services.messages.asked == [("waiting", 3, 0, 10, 500)]


def test_a_login_that_fails_halfway_leaves_nobody_behind(services: ChatFixture, visitor: Visitor) -> None:
    """A disk that fails while what was missed is read must not leave a ghost in the room."""

    def fail(*_: int) -> object:
        raise OSError("disk")

    services.messages.missed = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="disk"):
        visitor.ask(Login("alice", "secret", 4))
    visitor.session.end()

    assert services.presence.names() == ()
    assert not services.broadcast.followed


def fail_to_read(*_: int) -> tuple[()]:
    raise StoreError("disk I/O error")


def test_a_login_while_the_disk_cannot_be_read_is_refused_and_may_be_tried_again(services: ChatFixture) -> None:
    """Nothing was said yet: the login has one answer."""
    broadcast = BroadcastBuffer(Json().encode_all, 1_000_000)
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
    session = Session(services.services, send_queue, "1@test", "here")
    waiting, services.messages.waiting = services.messages.waiting, fail_to_read  # type: ignore[method-assign]
    assert session.handle([LOGIN])
    assert services.presence.names() == ()
    services.messages.waiting = waiting  # type: ignore[method-assign]
    assert session.handle([LOGIN])

    refused, welcome = (json.loads(answer) for answer in send_queue._replies)
    assert (refused["type"], refused["code"]) == ("error", "internal")
    assert welcome["type"] == "login"
    assert services.presence.names() == ("Alice",)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreError("the disk"), "the server can't read its disk"),
        (ShortOfMemoryError(), "the server is short of memory"),
    ],
)
def test_who_was_welcomed_and_cannot_be_told_the_rest_has_to_come_again(
    services: ChatFixture, visitor: Visitor, error: Exception, reason: str
) -> None:
    """Promise: once. What is new would hide the gap."""
    services.messages.stored = tuple(message(number) for number in range(1, 1_201))
    services.hub._last_id = 1_200
    page = services.messages.missed

    def fail_later(*asked: int) -> object:
        if services.messages.asked:
            raise error
        return page(*asked)

    services.messages.missed = fail_later  # type: ignore[method-assign, assignment]
    assert not visitor.session.handle([Login("alice", "secret", 0)])

    welcome, *told, bye = visitor.news()
    assert codes([welcome]) == [Welcome]
    assert tuple(told) == services.messages.stored[:500]
    assert bye == Bye(reason)
    assert services.presence.names() == ()
    assert not services.broadcast.followed


def fail_for_ever(*_: int) -> tuple[()]:
    raise DamagedError("the file is damaged")


@pytest.mark.parametrize("readable", [0, 500])
@pytest.mark.parametrize("since", [None, 0])
def test_who_missed_what_cannot_be_read_any_more_comes_in_and_is_told(
    services: ChatFixture, visitor: Visitor, readable: int, since: int | None
) -> None:
    """To come again would not help. What was not sent is not taken for delivered."""
    services.messages.stored = tuple(message(number) for number in range(1, 1_201))
    services.hub._last_id = 1_200
    name = "waiting" if since is None else "missed"
    page = getattr(services.messages, name)

    def fail_later(*asked: int) -> object:
        return page(*asked) if readable and not services.messages.asked else fail_for_ever()

    setattr(services.messages, name, fail_later)
    with capture_logs() as log:
        assert visitor.session.handle([Login("alice", "secret", since)])

    welcome, *told, refused = visitor.news()
    assert codes([welcome]) == [Welcome]
    assert tuple(told) == services.messages.stored[:readable]
    assert codes([refused]) == [ErrorCode.INTERNAL]
    assert services.presence.names() == ("Alice",)
    assert [entry["event"] for entry in log if entry["log_level"] == "error"] == ["missed messages damaged"]


def test_a_client_that_goes_step_by_step_is_sent_no_error_that_it_did_not_ask_for(
    services: ChatFixture, visitor: Visitor
) -> None:
    """It would take it for the answer to its next step."""
    services.messages.waiting = fail_for_ever  # type: ignore[method-assign]
    answers = [*visitor.ask(Command("alice")), *visitor.ask(Command("secret"))]
    assert Welcome in codes(answers)
    assert ErrorCode.INTERNAL not in codes(answers)
    assert services.presence.names() == ("Alice",)


# --- wrong passwords ---


@pytest.mark.parametrize(
    "tries",
    [
        [Login("alice", "a"), Login("alice", "b"), Login("alice", "c")],
        [Login("alice"), Password("a"), Password("b"), Password("c")],
        [Login("alice", "a"), Login("bob"), Password("b"), Login("alice", "c")],
    ],
)
def test_three_wrong_passwords_close_the_connection(visitor: Visitor, tries: list[Request]) -> None:
    *first, last = tries
    for request in first:
        assert visitor.session.handle([request])
    assert codes(visitor.news()).count(ErrorCode.WRONG_PASSWORD) == 2

    assert not visitor.session.handle([last])
    assert codes(visitor.news()) == [ErrorCode.TOO_MANY_ATTEMPTS, Bye]


def test_refusals_of_another_kind_are_no_wrong_passwords(visitor: Visitor) -> None:
    for _ in range(5):
        assert visitor.session.handle([Login("alice", "")])
        assert visitor.session.handle([Login("a b", "secret")])
    assert visitor.session.handle([Login("alice", "wrong")])
    assert codes(visitor.ask(LOGIN))[-1] is Welcome


def test_ten_wrong_passwords_from_one_address_close_the_door_for_that_name(services: ChatFixture) -> None:
    for _ in range(10):
        services.visitor().ask(Login("alice", "wrong"))
    checked = len(services.passwords.checked)

    assert codes(services.visitor().ask(LOGIN)) == [ErrorCode.TOO_MANY_ATTEMPTS]
    assert codes(services.visitor().ask(Login("ALICE", "secret"))) == [ErrorCode.TOO_MANY_ATTEMPTS]
    assert len(services.passwords.checked) == checked, "a refused try costs no hash"
    assert codes(services.visitor().ask(Login("bob", "secret"))) == [Welcome]
    assert codes(services.visitor("10.0.0.2").ask(LOGIN)) == [Welcome]
    services.now += 61
    assert codes(services.visitor().ask(LOGIN)) == [Welcome]


# --- closed registration ---


def test_where_registration_is_closed_nobody_learns_which_names_exist() -> None:
    services = ChatFixture(registration_open=False)
    services.accounts.add("alice", "terces")

    def answers(name: str) -> list[str]:
        asked = (Login(name), Login(name, "wrong"))
        return [repr(services.visitor().ask(each)).replace(name, "NAME") for each in asked]

    assert answers("alice") == answers("nobody")
    assert services.accounts.find("nobody") is None
    assert codes(services.visitor().ask(Login("alice", "secret"))) == [Welcome]


def test_an_unknown_users_password_is_checked_all_the_same() -> None:
    """A wrong password and an unknown user cost the same time."""
    services = ChatFixture(registration_open=False)
    services.visitor().ask(Login("nobody", "secret"))

    assert services.passwords.checked == [(None, "secret")]


# --- in the room ---


def test_a_public_message_goes_to_the_journal_as_it_is(services: ChatFixture, alice: Visitor) -> None:
    assert alice.ask(Say("  hello\n", "n1")) == []
    (batch,) = services.journal.appended

    assert (batch.texts, batch.nonces, batch.recipient, batch.member.name) == (["  hello\n"], ["n1"], None, "Alice")
    assert alice.heard() == [Sent(11, SentStatus.SENT, "n1")]


def test_a_direct_message_finds_its_recipient_in_any_case(services: ChatFixture, alice: Visitor) -> None:
    bob = services.visitor()
    bob.ask(Login("bob", "secret"))
    alice.ask(Whisper("BOB", "psst", "n1"))

    assert bob.heard() == [DirectMessage(11, 0, "Alice", "bob", "psst")]
    assert alice.heard() == [Sent(11, SentStatus.SENT, "n1")]


def test_a_user_is_told_as_registered_and_whether_it_is_online(services: ChatFixture, alice: Visitor) -> None:
    assert alice.ask(AskUser("BOB")) == [User("bob", online=False)]
    services.visitor().ask(Login("bob", "secret"))
    assert alice.ask(AskUser("bob")) == [User("bob", online=True)]
    assert alice.ask(AskUser("ALICE")) == [User("Alice", online=True)]


def test_a_direct_message_to_somebody_who_is_away_is_stored(alice: Visitor) -> None:
    alice.ask(Whisper("bob", "psst"))

    assert alice.heard() == [Sent(11, SentStatus.STORED)]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Say("", "n1"), ErrorCode.EMPTY_MESSAGE),
        (Say(" \n", "n1"), ErrorCode.EMPTY_MESSAGE),
        (Say("x" * 8193, "n1"), ErrorCode.TOO_LONG),
        (Say("\u20ac" * 2731, "n1"), ErrorCode.TOO_LONG),
        (Whisper("bob", "", "n1"), ErrorCode.EMPTY_MESSAGE),
        (Whisper("bob", "x" * 8193, "n1"), ErrorCode.TOO_LONG),
        (Whisper("eve", "psst", "n1"), ErrorCode.UNKNOWN_USER),
        (Whisper("", "psst", "n1"), ErrorCode.UNKNOWN_USER),
        (Whisper("ALL", "psst", "n1"), ErrorCode.UNKNOWN_USER),
        (Unreadable(ErrorCode.BAD_REQUEST, "x", "n1"), ErrorCode.BAD_REQUEST),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_nonce_and_reaches_nobody(
    services: ChatFixture, alice: Visitor, request_: Request, code: ErrorCode
) -> None:
    (refused,) = alice.ask(request_)

    assert isinstance(refused, Refused)
    assert (refused.code, refused.nonce) == (code, "n1")
    assert refused.about == (request_.to if isinstance(request_, Whisper) and code is ErrorCode.UNKNOWN_USER else None)
    assert len(refused.reason) < 200
    assert services.journal.appended == []


def test_of_a_long_name_that_nobody_has_the_beginning_is_told(alice: Visitor) -> None:
    (refused,) = alice.ask(Whisper("x" * 60_000, "psst"))

    assert isinstance(refused, Refused)
    assert refused.about == "x" * 64
    assert len(refused.reason) < 200


@pytest.mark.parametrize("nonce", ["", "x" * 65])
def test_a_nonce_that_cannot_be_stored_is_refused(services: ChatFixture, alice: Visitor, nonce: str) -> None:
    assert codes(alice.ask(Say("hello", nonce)))[0] in (ErrorCode.BAD_REQUEST, ErrorCode.TOO_LONG)
    assert services.journal.appended == []


def test_who_is_online_is_answered_in_full(services: ChatFixture, alice: Visitor) -> None:
    for number in range(600):
        services.visitor().ask(Login(f"user{number}", "secret"))

    assert alice.ask(AskUsers()) == [Online(("Alice", *(f"user{number}" for number in range(600))))]


def test_history_is_asked_for_with_its_limits(services: ChatFixture, alice: Visitor) -> None:
    services.messages.asked.clear()
    services.messages.stored = (message(5),)

    assert alice.ask(AskHistory(7, 9)) == [History((message(5),))]
    alice.ask(AskHistory())
    alice.ask(AskHistory(7, ID_MAX))
    # 10 is the newest message that was published.
    assert services.messages.asked == [("history", 1, 9, 7), ("history", 1, 11, 50), ("history", 1, 11, 7)]


def test_history_and_goodbye_wait_for_what_was_posted_before(services: ChatFixture, alice: Visitor) -> None:
    alice.ask(AskHistory())
    assert services.journal.settled == 0
    alice.ask(Say("hello"))
    alice.ask(AskHistory())
    assert services.journal.settled == 1
    alice.ask(Say("bye"))
    alice.ask(Leave())
    assert services.journal.settled == 2


def test_a_search_is_made_among_what_was_published_and_answered_with_its_own_words(
    services: ChatFixture, alice: Visitor
) -> None:
    services.indexer.found = ((message(5),), 8)

    assert alice.ask(Search("Hello  w*", 7, 9)) == [Found("Hello  w*", (message(5),), 8)]
    alice.ask(Search("hello"))
    alice.ask(Search("hello", 7, ID_MAX))
    hello, beginning = Term("hello", is_prefix=False), Term("w", is_prefix=True)
    # 10 is the newest message that was published.
    assert services.indexer.asked == [
        ((hello, beginning), 1, 9, 7, 10),
        ((hello,), 1, 11, 50, 10),
        ((hello,), 1, 11, 7, 10),
    ]


def test_a_search_waits_for_what_was_posted_before_and_looks_through_it(services: ChatFixture, alice: Visitor) -> None:
    alice.ask(Say("hello"))
    alice.ask(Search("hello"))

    assert services.journal.settled == 1
    assert services.indexer.asked[-1][-1] == 11


@pytest.mark.parametrize(
    ("fault", "code"),
    [(SearchFailedError(), ErrorCode.INTERNAL), (SearchClosedError(), ErrorCode.SHUTTING_DOWN)],
)
def test_a_search_that_can_not_be_made_is_refused_and_costs_nothing_else(
    services: ChatFixture, alice: Visitor, fault: Exception, code: ErrorCode
) -> None:
    services.indexer.fault = fault

    assert codes(alice.ask(Search("hello"))) == [code]
    assert codes(alice.ask(AskUsers())) == [Online]


# --- guests ---


@pytest.mark.parametrize(
    "request_", [Login("CAROL"), Login("carol", "secret"), Command("carol"), Command("Carol bm-pm")]
)
@pytest.mark.parametrize("connections", [1, 2])
def test_a_name_that_a_guest_uses_cannot_be_registered(
    services: ChatFixture, request_: Request, connections: int
) -> None:
    """Nor one that a guest waits with for its second connection."""
    halves = [services.half(), services.half()]
    for half, side in list(zip(halves, Side, strict=True))[:connections]:
        half.ask(Register(side, "Carol"))
    visitor = services.visitor()

    assert codes(visitor.ask(request_)) == [ErrorCode.BAD_USERNAME]
    assert services.accounts.find("carol") is None
    halves[0].session.end()
    assert codes(visitor.ask(request_))[0] in (PasswordPrompt, Welcome)


@pytest.mark.parametrize("asked", [Login("carol"), Command("carol")])
def test_a_name_that_a_guest_takes_while_its_password_is_asked_for_cannot_be_registered(
    services: ChatFixture, visitor: Visitor, asked: Request
) -> None:
    assert visitor.ask(asked) == [PasswordPrompt(AccountKind.NEW)]
    services.guest("carol")
    password = Password("secret") if isinstance(asked, Login) else Command("secret")

    assert codes(visitor.ask(password)) == [ErrorCode.BAD_USERNAME]
    assert not visitor.session.is_logged_in
    assert services.accounts.find("carol") is None


def test_a_name_that_a_guest_takes_while_the_hash_is_computed_cannot_be_registered(
    services: ChatFixture, visitor: Visitor
) -> None:
    """The journal has the last word."""
    services.journal.create_account = lambda *_: None  # type: ignore[method-assign]

    assert codes(visitor.ask(Login("carol", "secret"))) == [ErrorCode.BAD_USERNAME]
    assert services.passwords.checked == []


def test_who_has_an_account_comes_in_whatever_guests_there_are(services: ChatFixture, visitor: Visitor) -> None:
    services.guest("carol")

    assert codes(visitor.ask(LOGIN)) == [Welcome]
    assert visitor.ask(AskUsers()) == [Online(("carol", "Alice"))]


@pytest.mark.parametrize("whisper", [[Whisper("CAROL", "psst")], [Command("DM"), Command("CAROL"), Data("psst")]])
def test_a_direct_message_reaches_a_guest_who_is_here(services: ChatFixture, whisper: list[Request]) -> None:
    carol = services.guest("carol")
    alice = services.visitor()
    alice.ask(*([LOGIN] if len(whisper) == 1 else [Command("alice"), Command("secret")]))
    alice.ask(*whisper)

    assert carol.receiving.news()[-1] == DirectMessage(11, 0, "Alice", "carol", "psst")
    assert alice.heard() == [Sent(11, SentStatus.SENT, looks_public=True)]


def test_a_direct_message_to_a_guest_who_is_not_here_is_refused(services: ChatFixture, alice: Visitor) -> None:
    """It would wait for nobody: not before the second connection, and not after the end of either."""
    sending, receiving = services.half(), services.half()
    sending.ask(Register(Side.SENDING, "carol"))
    assert codes(alice.ask(Whisper("carol", "psst"))) == [ErrorCode.UNKNOWN_USER]
    receiving.ask(Register(Side.RECEIVING, "carol"))
    assert alice.ask(Whisper("carol", "psst")) == []
    sending.session.end()
    assert codes(alice.ask(Whisper("carol", "psst"))) == [ErrorCode.UNKNOWN_USER]

    assert [batch.texts for batch in services.journal.appended] == [["psst"]]


def test_what_guests_say_is_heard_and_where_they_come_and_go_is_seen(services: ChatFixture, alice: Visitor) -> None:
    carol = services.guest("carol")
    assert services.presence.names() == ("Alice", "carol")
    carol.sending.ask(Send("ALL", "hello"), Send("alice", "psst"))
    carol.receiving.session.end()

    assert services.presence.names() == ("Alice",)
    assert alice.heard() == [PublicMessage(11, 0, "carol", "hello"), DirectMessage(12, 0, "carol", "Alice", "psst")]


# --- what comes in one read ---


def texts(services: ChatFixture) -> list[list[str]]:
    """What the journal was given, and what of it together."""
    return [[text for batch in batch for text in batch.texts] for batch in services.journal.batches]


def test_messages_that_stand_together_are_posted_together(services: ChatFixture, alice: Visitor) -> None:
    assert alice.ask(Say("one", "n1"), Whisper("bob", "two", "n2"), Say("three")) == []
    (batch,) = services.journal.batches

    assert [(batch.texts, batch.nonces) for batch in batch] == [
        (["one"], ["n1"]),
        (["two"], ["n2"]),
        (["three"], [None]),
    ]
    assert [batch.recipient for batch in batch] == [None, services.accounts.find("bob"), None]


def test_what_is_said_in_a_row_is_one_post(services: ChatFixture, alice: Visitor) -> None:
    """With nonces or without. A recipient and another read begin a new one."""
    alice.ask(Say("one"), Say("two", "n2"), Say("three"), Whisper("bob", "four"), Say("five"), Say("six"))
    alice.ask(Say("seven"))

    assert [[(batch.texts, batch.nonces) for batch in batch] for batch in services.journal.batches] == [
        [(["one", "two", "three"], [None, "n2", None]), (["four"], [None]), (["five", "six"], [None, None])],
        [(["seven"], [None])],
    ]


@pytest.mark.parametrize("refused", [Say(" "), Whisper("nobody", "x"), Unreadable(ErrorCode.BAD_JSON, "x"), LOGIN])
def test_a_refusal_comes_behind_the_confirmations_of_what_was_asked_before(
    services: ChatFixture, alice: Visitor, refused: Request
) -> None:
    """Whoever gives no nonces tells the answers apart by their order."""
    told: list[int] = []
    services.journal.wait_for_pending = lambda: told.append(len(alice.send_queue.replies))  # type: ignore[method-assign]
    before = len(alice.send_queue.replies)
    alice.ask(Say("one"), Say("two"), refused, Say("three"))

    assert texts(services) == [["one", "two"], ["three"]]
    assert told == [before]
    assert len(alice.send_queue.replies) == before + 1


def test_when_the_journal_is_closed_each_message_is_refused(services: ChatFixture, alice: Visitor) -> None:
    services.shut_down()

    assert [
        answer.code for answer in alice.ask(Say("one"), Say("two"), Say("three", "n3")) if isinstance(answer, Refused)
    ] == [ErrorCode.SHUTTING_DOWN] * 3


def test_what_stands_behind_messages_is_answered_when_they_are_posted(services: ChatFixture, alice: Visitor) -> None:
    posted: list[list[list[str]]] = []
    services.messages.history = lambda *_: posted.append(texts(services)) or ()  # type: ignore[method-assign, func-returns-value]
    alice.ask(Say("one"), Say("two"), AskHistory(), Say("three"))

    assert posted == [[["one", "two"]]]
    assert services.journal.settled == 1
    assert texts(services) == [["one", "two"], ["three"]]


def test_behind_a_goodbye_nothing_is_answered_or_posted(services: ChatFixture, alice: Visitor) -> None:
    assert not alice.session.handle([Say("one"), Leave(), Say("two"), Ping()])

    assert alice.news() == [Bye("you left")]
    assert texts(services) == [["one"]]


def test_a_message_that_is_refused_does_not_keep_its_neighbours_from_being_posted(
    services: ChatFixture, alice: Visitor
) -> None:
    refused = alice.ask(Say("one"), Say("", "n2"), Whisper("eve", "psst", "n3"), Say("four"))

    assert codes(refused) == [ErrorCode.EMPTY_MESSAGE, ErrorCode.UNKNOWN_USER]
    assert [event.nonce for event in refused if isinstance(event, Refused)] == ["n2", "n3"]
    assert texts(services) == [["one"], ["four"]]


def test_who_logs_in_and_speaks_in_one_read_is_heard_from_the_login_on(services: ChatFixture, visitor: Visitor) -> None:
    assert codes(visitor.ask(Say("too early"), LOGIN, Say("hello"))) == [ErrorCode.NOT_LOGGED_IN, Welcome]
    assert texts(services) == [["hello"]]


def test_each_message_of_a_read_is_refused_with_its_own_nonce_while_the_server_shuts_down(
    services: ChatFixture, alice: Visitor
) -> None:
    """Promise: shutdown."""
    services.shut_down()
    *refused, last = alice.ask(Say("one", "n1"), Say("two", "n2"), Ping())

    assert codes(refused) == [ErrorCode.SHUTTING_DOWN] * 2
    assert [event.nonce for event in refused if isinstance(event, Refused)] == ["n1", "n2"]
    assert last == Pong()


def test_before_each_answer_the_peer_has_to_have_read_enough_of_those_before(alice: Visitor) -> None:
    alice.send_queue.waits.clear()
    before = len(alice.send_queue.replies)
    alice.ask(Ping(), Say("hello"), AskUsers())

    assert alice.send_queue.waits == [before, before + 1]


def test_a_connection_that_ends_while_its_peer_is_waited_for_is_answered_nothing_more(
    services: ChatFixture, alice: Visitor
) -> None:
    """What was said before that is posted all the same."""
    alice.send_queue.has_room = False

    assert not alice.session.handle([Say("one"), Ping(), Say("two")])
    assert alice.news() == []
    assert texts(services) == [["one"]]


def test_a_peer_that_asks_much_at_once_is_answered_no_faster_than_it_reads(services: ChatFixture) -> None:
    """Promise: back-pressure. However many requests come in one read, memory stays bounded."""
    pong = Json().encode(Pong())
    broadcast = BroadcastBuffer(Json().encode_all, 1_000_000)
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
    session = Session(services.services, send_queue, "1@test", "here")
    count = 2 * UNREAD_MAX_BYTES // len(pong)
    reader = in_background(lambda: session.handle([Ping()] * count))
    eventually(lambda: not reader.is_alive() or (send_queue._drained is not None and send_queue._drained._waiters))  # type: ignore[attr-defined]
    unread = send_queue._unread_bytes()
    sent = 0
    while reader.is_alive() or send_queue.has_unsent_replies:
        answers = sum(map(len, send_queue.next_span(0)))
        send_queue.note_sent(answers)
        sent += answers
    must_end(reader)

    assert UNREAD_MAX_BYTES < unread <= UNREAD_MAX_BYTES + len(pong)
    assert sent == count * len(pong)


# --- the end ---


def test_who_goes_leaves_the_room(services: ChatFixture, alice: Visitor) -> None:
    bob = services.visitor()
    bob.ask(Login("bob", "secret"))
    alice.ask(Leave())
    alice.session.end()
    bob.ask(Say("hello"))

    assert services.presence.names() == ("bob",)
    assert alice.heard() == []


def test_a_stranger_who_goes_has_nothing_to_leave(services: ChatFixture, visitor: Visitor) -> None:
    visitor.session.end()

    assert services.presence.names() == ()


def test_an_end_settles_what_was_posted_before_the_seat_is_free(services: ChatFixture, alice: Visitor) -> None:
    """Promise: confirmed means stored. What a client posted and hung up on is stored and confirmed all the same."""
    alice.ask(Say("last words"))
    alice.session.end()

    assert services.journal.settled == 1


@pytest.mark.parametrize("request_", [Say("hello", "n1"), Whisper("bob", "psst", "n1")])
def test_while_the_server_shuts_down_nothing_is_accepted(
    services: ChatFixture, alice: Visitor, request_: Request
) -> None:
    """Promise: shutdown."""
    services.shut_down()

    (refused,) = alice.ask(request_)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.nonce) == (ErrorCode.SHUTTING_DOWN, "n1")


def test_an_end_while_the_server_shuts_down_frees_the_seat(services: ChatFixture, alice: Visitor) -> None:
    alice.ask(Say("hello"))
    services.shut_down()
    assert isinstance(services.journal.fault, JournalClosedError)
    alice.session.end()

    assert services.presence.names() == ()


def test_a_login_while_the_server_shuts_down_is_told_so(services: ChatFixture, visitor: Visitor) -> None:
    assert isinstance(services.passwords, FakePasswords)
    services.passwords.is_closed = True

    assert codes(visitor.ask(LOGIN)) == [ErrorCode.SHUTTING_DOWN]


def test_a_server_that_shuts_down_says_goodbye(alice: Visitor) -> None:
    alice.session.send_bye()

    assert alice.news() == [Bye("the server is shutting down")]


def test_the_house_is_told_when_the_last_one_has_left(services: ChatFixture, alice: Visitor) -> None:
    """Once, however often the connection ends; the second connection of a user is one who is left."""
    others = [services.visitor(), services.visitor()]
    others[0].ask(Login("bob", "secret"))
    others[1].ask(LOGIN)
    alice.ask(Leave())
    others[0].session.end()
    assert services.times_empty == 0
    for _ in range(2):
        others[1].session.end()

    assert services.times_empty == 1


def test_strangers_leave_no_empty_room_behind(services: ChatFixture, alice: Visitor) -> None:
    for request in (Ping(), Login("bob"), Login("bob", "wrong"), Leave()):
        stranger = services.visitor()
        stranger.ask(request)
        stranger.session.end()
    assert services.times_empty == 0
    alice.session.end()
    stranger = services.visitor()
    stranger.ask(Login("bob"))
    stranger.session.end()

    assert services.times_empty == 1


@pytest.mark.parametrize("has_posted", [False, True])
def test_who_leaves_something_unfinished_is_told_the_limit(
    services: ChatFixture, alice: Visitor, has_posted: bool
) -> None:
    """Behind the confirmations of what was said before."""
    services.journal.holds_back = True
    if has_posted:
        alice.ask(Say("hello"))
    before = len(alice.send_queue.told)
    alice.session.time_out()

    *sent, refused, bye = alice.send_queue.told[before:]
    assert sent == ([Sent(11, SentStatus.SENT)] if has_posted else [])
    assert codes([refused, bye]) == [ErrorCode.BAD_REQUEST, Bye]
    assert "60 s" in str(refused)


def test_who_does_not_log_in_in_time_is_told_the_limit(visitor: Visitor) -> None:
    visitor.session.time_out()

    refused, bye = visitor.news()
    assert codes([refused, bye]) == [ErrorCode.NOT_LOGGED_IN, Bye]
    assert "60 s" in str(refused)


# --- the log ---


def test_neither_passwords_nor_messages_are_ever_logged(services: ChatFixture, visitor: Visitor) -> None:
    secrets = ("hunter2", "wr0ng", "pr1vate", "publ1c", "2retnuh")
    with capture_logs() as log:
        visitor.ask(Login("carol"))
        visitor.ask(Password("hunter2"))
        visitor.ask(Say("publ1c", "n1"))
        visitor.ask(Say("publ1c" * 2000))
        visitor.ask(Whisper("bob", "pr1vate"))
        visitor.ask(Whisper("eve", "pr1vate"))
        visitor.ask(Login("carol", "hunter2"))
        visitor.ask(Password("hunter2"))
        visitor.session.end()
        stranger = services.visitor()
        stranger.ask(Say("publ1c"))
        for _ in range(3):
            stranger.ask(Login("carol", "wr0ng"))

    assert len(log) >= 8
    assert list(secrets_in(log, *secrets)) == []


def test_logging_in_leaving_and_each_refusal_are_one_line_each(services: ChatFixture) -> None:
    with capture_logs() as log:
        visitor = services.visitor()
        visitor.ask(Say("too early"))
        visitor.ask(LOGIN)
        visitor.ask(BAD_JSON)
        visitor.session.end()

    assert [(entry["event"], entry.get("code"), entry.get("user")) for entry in log] == [
        ("request refused", "not_logged_in", None),
        ("login", None, "Alice"),
        ("request refused", "bad_json", "Alice"),
        ("logout", None, "Alice"),
    ]
    assert {entry["connection"] for entry in log} == {"1@10.0.0.1"}


def test_one_connection_cannot_fill_the_disk_with_the_log(alice: Visitor) -> None:
    with capture_logs() as log:
        for _ in range(1_000):
            alice.ask(BAD_JSON)

    assert len(log) == 101
    assert log[-1]["event"] == "further errors not logged"
