"""The session of one connection: the answer to each request in each state."""

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    Conversation,
    Conversations,
    DirectMessage,
    Event,
    Found,
    History,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Refused,
    RoomRole,
    RoomState,
    Sent,
    SentStatus,
    User,
    Users,
    UserUnknown,
    Welcome,
)
from chatprotocol.limits import ID_MAX
from chatprotocol.requests import (
    AskConversations,
    AskHistory,
    AskUser,
    AskUsers,
    Barrier,
    ChangeEncoding,
    ChangePassword,
    GuestLogin,
    Handled,
    Leave,
    Login,
    Password,
    Ping,
    Request,
    Say,
    Search,
    Side,
    StepLogin,
    TaggedRequest,
    Unreadable,
    Whisper,
)
from chatserver.memory import ShortOfMemoryError
from chatserver.store.errors import DamagedError, RemovedError, StoreError
from chatserver.store.indexer import SearchClosedError, SearchFailedError
from chatserver.store.rooms import LOBBY_ID, RoomView
from chatserver.store.words import Term

from .chat_fixture import HISTORY_ID, ChatFixture, Peer, any_request, codes

LOGIN = Login("alice", "secret")
BAD_JSON = Unreadable(ErrorCode.BAD_JSON, "Not JSON.")
NOT_IN, BAD = ErrorCode.NOT_LOGGED_IN, ErrorCode.BAD_REQUEST
UNKNOWN, EMPTY, LONG = ErrorCode.UNKNOWN_USER, ErrorCode.EMPTY_MESSAGE, ErrorCode.TOO_LONG


@pytest.fixture
def peer(services: ChatFixture) -> Peer:
    """A connection before the login."""
    return services.connect()


@pytest.fixture
def alice(peer: Peer) -> Peer:
    """The same connection, logged in."""
    peer.ask(LOGIN)
    return peer


def enter(services: ChatFixture, name: str) -> Peer:
    peer = services.connect()
    peer.ask(Login(name, "secret"))
    return peer


def message(number: int) -> PublicMessage:
    return PublicMessage(number, 0, "bob", f"text {number}")


def appended(services: ChatFixture) -> list[list[tuple[list[str], list[str | None], str | None]]]:
    """The texts, nonces and recipient of each batch that the journal was given, in the lists in which it was given."""
    return [
        [(each.texts, each.nonces, getattr(each, "recipient", None)) for each in batches]
        for batches in services.journal.batches
    ]


# --- states ---


# Requests before the test, by state: none, a login without a password, a login.
STEPS: list[list[Request]] = [[], [Login("alice")], [LOGIN]]
every_state = pytest.mark.parametrize("state", range(3), ids=["outside", "prompted", "inside"])

# A request, and the answers before the login, after a password prompt, and after the login.
TABLE: list[tuple[Any, ...]] = [
    (Login("alice"), [PasswordPrompt], [PasswordPrompt], [BAD]),
    (Login("carol"), [PasswordPrompt], [PasswordPrompt], [BAD]),
    (Login("bob", "secret"), [Welcome], [Welcome], [BAD]),
    (Login("not a name"), [ErrorCode.BAD_USERNAME], [ErrorCode.BAD_USERNAME], [BAD]),
    (Password("secret"), [BAD], [Welcome], [BAD]),
    (Password("wrong"), [BAD], [ErrorCode.WRONG_PASSWORD], [BAD]),
    (Password(""), [BAD], [BAD], [BAD]),
    (Say("hello"), [NOT_IN], [NOT_IN], []),
    (Whisper("bob", "psst"), [NOT_IN], [NOT_IN], []),
    (AskUsers(), [NOT_IN], [NOT_IN], [Users]),
    (AskUser("bob"), [NOT_IN], [NOT_IN], [User]),
    (AskUser("eve"), [NOT_IN], [NOT_IN], [UNKNOWN]),
    (AskHistory(), [NOT_IN], [NOT_IN], [History]),
    (Search("hello"), [NOT_IN], [NOT_IN], [Found]),
    (AskConversations(), [NOT_IN], [NOT_IN], [Conversations]),
    (Search("..."), [NOT_IN], [NOT_IN], [BAD]),
    (Search("x" * 257), [NOT_IN], [NOT_IN], [LONG]),
    (ChangePassword("secret", "new"), [NOT_IN], [NOT_IN], [PasswordChanged]),
    (Ping(), [Pong], [Pong], [Pong]),
    (Barrier(), [NOT_IN], [NOT_IN], [Pong]),
    (Handled(), [], [], []),
    (ChangeEncoding("json", echoes=True), [NOT_IN], [NOT_IN], []),
    (BAD_JSON, [ErrorCode.BAD_JSON], [ErrorCode.BAD_JSON], [ErrorCode.BAD_JSON]),
    (Leave(), [Bye], [Bye], [Bye]),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]!r:.40}")
@every_state
def test_request_is_answered_by_state(peer: Peer, state: int, row: tuple[Any, ...]) -> None:
    request, *answers = row
    peer.ask(*STEPS[state])
    assert codes(peer.ask(request)) == answers[state]


def test_barrier_is_answered_after_all_earlier_messages(services: ChatFixture, alice: Peer) -> None:
    """Promise: PING of irc tells that the messages before it are stored. The ping of json does not wait."""
    services.journal.holds_back = True
    assert alice.ask(Say("hello"), Ping()) == [Pong()]
    assert alice.received() == []
    assert alice.ask(Barrier()) == [Pong()]
    assert alice.received() == [Sent(11, SentStatus.SENT)]


STRANGERS = {Login, Password, Ping, Leave}
# More looks at the clock than a login without a wait has.
TICKS = 4
GUESTS = {Say, Whisper}


@pytest.mark.parametrize("kind", sorted(get_args(TaggedRequest), key=str))
def test_stranger_and_guest_are_refused_all_requests_but_a_few(services: ChatFixture, kind: type) -> None:
    """The types come from the union of all requests, so that later ones are included."""
    guest = services.guest("carol")
    for state in range(2):
        asked = services.connect()
        asked.ask(*STEPS[state])
        assert (codes(asked.ask(any_request(kind))) == [NOT_IN]) is (kind not in STRANGERS)
    answers = codes(guest.sending.ask(any_request(kind)))
    assert (answers[-1:] in ([NOT_IN], [BAD])) is (kind not in GUESTS)


@every_state
def test_refused_request_leaves_the_state(peer: Peer, state: int) -> None:
    peer.ask(*STEPS[state])
    for refused in (BAD_JSON, Password(""), Say(""), Login("not a name")):
        assert peer.session.handle([refused])
    peer.new_replies()
    expected: list[tuple[Request, object]] = [(LOGIN, Welcome), (Password("secret"), Welcome), (AskUsers(), Users)]
    request, answer = expected[state]
    assert codes(peer.ask(request)) == [answer]


@every_state
def test_nothing_is_answered_after_leave(services: ChatFixture, peer: Peer, state: int) -> None:
    peer.ask(*STEPS[state])
    assert not peer.session.handle([Leave(), LOGIN, Say("two"), Ping()])
    assert peer.new_replies() == [Bye("you left")]
    assert not peer.session.handle([LOGIN])
    assert services.presence.names() == ()
    assert appended(services) == []


# --- login ---
def test_name_is_registered_and_keeps_its_spelling(services: ChatFixture, peer: Peer) -> None:
    assert peer.ask(Login("Carol", "secret")) == [
        Welcome(account=AccountKind.NEW, username="Carol", users=("Carol",), last_id=10, history_id=HISTORY_ID)
    ]
    assert services.accounts.by_key["carol"].password_hash == "terces"
    # A direct message may have been stored between the registration and the welcome.
    assert services.messages.asked == [("undelivered", 3, 0, 10, 500)]
    assert peer.session.is_logged_in
    peer.session.end()
    welcome = Welcome(
        account=AccountKind.EXISTING, username="Alice", users=("Alice",), last_id=10, history_id=HISTORY_ID, seen_id=0
    )
    assert services.connect().ask(Login("aLICE", "secret")) == [welcome]


def test_registration_that_fails_or_comes_second_is_refused(services: ChatFixture, peer: Peer) -> None:
    services.journal.fault = OSError("disk full")
    assert codes(peer.ask(Login("carol", "secret"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    services.journal.name_was_taken = True
    assert codes(peer.ask(Login("carol", "secret"))) == [ErrorCode.WRONG_PASSWORD]
    (welcome,) = peer.ask(Login("carol", "other"))
    assert welcome == Welcome(
        account=AccountKind.EXISTING, username="CAROL", users=("CAROL",), last_id=10, history_id=HISTORY_ID, seen_id=0
    )


def test_welcome_has_what_changed_in_a_room_before_its_events_reach_the_member(services: ChatFixture) -> None:
    """A topic that is set between the reading of the rooms and the join is told to the members, of which it is none."""
    dev = RoomView(7, "dev", "old", is_private=False, role=RoomRole.MEMBER, is_invited=False, last_id=0)
    services.rooms.read = [[dev], [dev._replace(topic="new", role=RoomRole.OPERATOR)]]
    (welcome, *_) = services.connect().ask(Login("carol", "secret", rooms=True))
    assert isinstance(welcome, Welcome)
    assert welcome.rooms == (RoomState("dev", "new", 0, role=RoomRole.OPERATOR),)
    # A change that the hub has not published yet follows as an event.
    services.rooms.read = [[dev], []]
    (welcome, *_) = services.connect().ask(Login("dora", "secret", rooms=True))
    assert isinstance(welcome, Welcome)
    assert welcome.rooms == (RoomState("dev", "old", 0),)


def test_outdated_hash_is_replaced_after_a_right_password(services: ChatFixture, peer: Peer) -> None:
    services.accounts.add("old", "!terces")
    peer.ask(Login("old", "wrong"))
    assert services.journal.changed_hashes == []
    peer.ask(Login("old", "secret"))
    assert services.journal.changed_hashes == [(3, "terces")]


def test_closed_registration_does_not_reveal_which_names_exist() -> None:
    """Answer and time are the same: the password of an unknown user is checked as well."""
    services = ChatFixture(registration="closed")
    services.accounts.add("alice", "terces")

    def answers(name: str) -> list[str]:
        logins = [Login(name), Login(name, "wrong")]
        return [repr(services.connect().ask(login)).replace(name, "NAME") for login in logins]

    assert answers("alice") == answers("nobody")
    assert services.accounts.find("nobody") is None
    assert services.passwords.checked == [("terces", "wrong"), (None, "wrong")]
    assert codes(services.connect().ask(LOGIN)) == [Welcome]


# --- passwords ---
@pytest.mark.parametrize(
    "tries",
    [
        [Login("alice", "a"), Login("alice", "b"), Login("alice", "c")],
        [Login("alice"), Password("a"), Password("b"), Password("c")],
        [Login("alice", "a"), Login("bob"), Password("b"), Login("alice", "c")],
    ],
)
def test_third_wrong_password_ends_the_session(peer: Peer, tries: list[Request]) -> None:
    *first, last = tries
    for request in first:
        assert peer.session.handle([request])
    assert codes(peer.new_replies()).count(ErrorCode.WRONG_PASSWORD) == 2
    assert not peer.session.handle([last])
    assert codes(peer.new_replies()) == [ErrorCode.TOO_MANY_ATTEMPTS, Bye]


def test_changed_password_is_stored_before_the_answer(services: ChatFixture, alice: Peer) -> None:
    """Promise: confirmed means stored."""
    assert alice.ask(ChangePassword("secret", "new")) == [PasswordChanged()]
    assert services.journal.changed_hashes == [(1, "wen")]
    services.journal.fault = OSError("disk full")
    assert codes(alice.ask(ChangePassword("secret", "newer"))) == [ErrorCode.INTERNAL]
    services.journal.fault = None
    services.journal.hash_is_another = True
    assert codes(alice.ask(ChangePassword("secret", "newer"))) == [ErrorCode.WRONG_PASSWORD]


def test_invalid_password_change_is_refused(services: ChatFixture, alice: Peer) -> None:
    invalid = [ChangePassword("wrong", "new"), ChangePassword("secret", ""), ChangePassword("secret", "x" * 1_025)]
    assert codes(alice.ask(*invalid)) == [ErrorCode.WRONG_PASSWORD, BAD, LONG]
    assert services.journal.changed_hashes == []


# --- missed messages ---
def test_since_sends_missed_messages_after_the_welcome(services: ChatFixture, peer: Peer) -> None:
    """Promise: once. New messages are held back meanwhile, and follow."""
    services.messages.stored = (message(4), message(5), message(10))
    peer.ask(Login("alice", None, 4))
    bob = enter(services, "bob")
    services.messages.asked.clear()
    page = services.messages.missed

    def missed(*asked: Any) -> object:
        assert peer.send_queue.held
        bob.ask(Say("meanwhile"))
        return page(*asked)

    services.messages.missed = missed
    assert peer.ask(Password("secret")) == [
        Welcome(
            account=AccountKind.EXISTING,
            username="Alice",
            users=("bob", "Alice"),
            last_id=10,
            history_id=HISTORY_ID,
            seen_id=0,
        ),
        message(5),
        message(10),
    ]
    assert not peer.send_queue.held
    assert peer.received() == [PublicMessage(11, 0, "bob", "meanwhile")]


@pytest.mark.parametrize(
    ("since", "history_id", "after_id", "is_told"),
    [
        (5, None, 5, False),
        (10, HISTORY_ID, 10, False),
        (11, None, 3, True),  # the server was restored without noticing
        (11, HISTORY_ID, 3, True),
        (8, "former", 6, True),  # the server was restored and has a new history id
        (5, "former", 5, True),
        (8, "unknown", 3, True),  # another server
        (0, "unknown", 0, True),
    ],
)
def test_client_ahead_of_a_restored_server_is_told(
    services: ChatFixture, peer: Peer, since: int, history_id: str | None, after_id: int, is_told: bool
) -> None:
    """Promise: nothing is lost silently. Message 10 is the newest; "former" is the same up to 6."""
    services.messages.stored = tuple(map(message, (4, 5, 6, 7, 10)))
    services.identity.shared["former"] = 6
    welcome, *messages = peer.ask(Login("alice", "secret", since, history_id))
    assert isinstance(welcome, Welcome)
    assert welcome.since == (after_id if is_told else None)
    assert messages == [each for each in services.messages.stored if each.id > after_id]


@pytest.mark.parametrize("since", [11, {"lobby": 11, "direct": 11}])
def test_client_ahead_of_a_server_that_is_behind_waits_for_it(since: int | dict[str, int]) -> None:
    """Promise: with several servers a client that goes to one that is behind gets no message again."""
    services = ChatFixture(behind_max_seconds=1e9)
    bob, alice = services.connect(), services.connect()
    bob.ask(Login("bob", "terces"))
    looked_at = services.now
    services.tick_seconds = 1.0
    answers: list[Event] = []
    login = threading.Thread(
        target=lambda: answers.extend(alice.ask(Login("alice", "secret", since, HISTORY_ID, rooms=True)))
    )
    login.start()
    while services.now < looked_at + TICKS:  # it waits
        threading.Event().wait(0.001)
    assert answers == []
    bob.ask(Say("meanwhile"))
    login.join()
    (welcome,) = answers
    assert isinstance(welcome, Welcome)
    assert (welcome.last_id, welcome.since) == (11, None)


def test_server_that_stays_behind_refuses_the_login() -> None:
    """Promise: only if it is the same history; otherwise the client is told as by a single server."""
    services = ChatFixture(behind_max_seconds=1e-9)
    services.tick_seconds = 1.0
    services.messages.history = lambda *_: (message(10),)
    assert codes(services.connect().ask(Login("alice", "secret", 11, HISTORY_ID))) == [ErrorCode.UNAVAILABLE]
    for history_id in (None, "unknown"):
        welcome, *_ = services.connect().ask(Login("alice", "secret", 11, history_id))
        assert isinstance(welcome, Welcome)
        assert welcome.since == 9


def test_waiting_direct_messages_precede_recent_ones(services: ChatFixture, peer: Peer) -> None:
    """Promise: a direct message waits until a device of its recipient has it."""
    services.messages.history = lambda *_: (message(4), message(10))
    services.messages.stored = tuple(map(message, (2, 4, 10)))
    assert peer.ask(Login("alice", "secret", 31))[1:] == list(services.messages.stored)
    assert [asked[0::2] for asked in services.messages.asked] == [("undelivered", 0, 500), ("missed", 3, 500)]


def test_login_without_since_sends_waiting_direct_messages(services: ChatFixture, peer: Peer) -> None:
    """Promise: once. Another login does not read again what this connection was given; here nothing is left."""
    services.accounts.add("dave", "terces", delivered_id=3)
    note = DirectMessage(4, 0, "bob", "dave", "while you were away")
    services.messages.stored = (note,)
    assert peer.ask(Login("dave", "secret"))[1:] == [note]
    services.connect().ask(Login("dave", "secret"))
    assert services.messages.asked == [("undelivered", 3, 3, 10, 500)]


@pytest.mark.parametrize(("acks", "seen_id"), [("at once", 11), ("at the end", 11), ("never", 10)])
def test_welcome_tells_the_newest_seen_message(services: ChatFixture, alice: Peer, acks: str, seen_id: int) -> None:
    """A message that the peer's system did not acknowledge may be lost with its network."""
    bob = enter(services, "bob")
    alice.send_queue.acknowledges = acks == "at once"
    bob.ask(Say("hello"))
    alice.send_queue.acknowledges = acks != "never"
    alice.session.end()
    bob.ask(Say("Alice has gone"))
    (welcome,) = services.connect().ask(LOGIN)
    assert isinstance(welcome, Welcome)
    assert (welcome.seen_id, welcome.last_id) == (seen_id, 12)


# --- missed messages: pages and faults ---
@pytest.fixture
def long_services() -> ChatFixture:
    """A history of 1,200 messages: three pages."""
    services = ChatFixture(last_id=1_200)
    services.accounts.add("Alice", "terces")
    services.messages.stored = tuple(message(number) for number in range(1, 1_201))
    return services


def fail_after(pages: int, services: ChatFixture, name: str, error: Exception) -> None:
    """The query of this name fails after some pages."""
    page = getattr(services.messages, name)

    def query(*asked: int) -> object:
        if len(services.messages.asked) >= pages:
            raise error
        return page(*asked)

    setattr(services.messages, name, query)


def test_missed_messages_are_read_in_pages(long_services: ChatFixture) -> None:
    _, *missed = long_services.connect().ask(Login("alice", "secret", 0))
    assert tuple(missed) == long_services.messages.stored
    assert [asked[2:] for asked in long_services.messages.asked] == [(after, 1200, 500) for after in (0, 500, 1000)]


def test_no_page_is_read_for_a_closed_connection(long_services: ChatFixture) -> None:
    """Its direct messages are not marked as delivered."""
    peer = long_services.connect()
    peer.send_queue.wait_for_room = lambda _=None: len(long_services.messages.asked) < 2  # type: ignore[method-assign]
    peer.ask(LOGIN)
    assert len(long_services.messages.asked) == 2
    assert long_services.journal.marks == {}
    peer.session.end()
    assert long_services.journal.marks == {}


@pytest.mark.parametrize("error", [StoreError("disk I/O error"), ShortOfMemoryError()])
def test_login_is_refused_if_nothing_can_be_read(long_services: ChatFixture, error: Exception) -> None:
    peer = long_services.connect()
    waiting = long_services.messages.undelivered
    fail_after(0, long_services, "undelivered", error)
    with capture_logs():
        assert codes(peer.ask(LOGIN)) == [ErrorCode.INTERNAL]
    assert long_services.presence.names() == ()
    long_services.messages.undelivered = waiting
    assert codes(peer.ask(LOGIN))[0] is Welcome


def test_server_that_is_cut_off_refuses_new_users_and_keeps_the_others(services: ChatFixture) -> None:
    """A client with several servers goes to the next one then."""
    alice = services.connect()
    alice.ask(Login("Alice", "terces"))
    services.refusal = "NATS has no quorum"
    for request in (
        Login("bob", "terces"),
        Login("bob", None),
        GuestLogin(Side.SENDING, "carol"),
    ):
        (refused,) = services.connect().ask(request)
        assert isinstance(refused, Refused)
        assert refused.code is ErrorCode.UNAVAILABLE
        assert "can't serve new users now: NATS has no quorum; try another one" in refused.reason
    assert [type(event) for event in alice.ask(Ping())] == [Pong]


def test_account_that_is_deleted_during_a_login_is_refused(services: ChatFixture) -> None:
    services.records.deleted = {account.id for account in services.accounts.by_key.values()}
    peer = services.connect()
    assert services.records.deleted
    assert codes(peer.ask(LOGIN)) == [ErrorCode.WRONG_PASSWORD]
    assert services.presence.names() == ()


def test_login_that_fails_unexpectedly_leaves_no_member(long_services: ChatFixture) -> None:
    peer = long_services.connect()
    fail_after(0, long_services, "missed", OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        peer.ask(Login("alice", "secret", 4))
    peer.session.end()
    assert long_services.presence.names() == ()
    assert not long_services.broadcast.send_queues


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StoreError("x"), "the server can't read its disk"), (ShortOfMemoryError(), "the server is short of memory")],
)
def test_fault_after_the_welcome_ends_the_session(long_services: ChatFixture, error: Exception, reason: str) -> None:
    """Promise: once. New messages would hide the gap."""
    peer = long_services.connect()
    fail_after(1, long_services, "missed", error)
    with capture_logs():
        assert not peer.session.handle([Login("alice", "secret", 0)])
    welcome, *told, bye = peer.new_replies()
    assert codes([welcome]) == [Welcome]
    assert tuple(told) == long_services.messages.stored[:500]
    assert bye == Bye(reason)
    assert long_services.presence.names() == ()
    assert not long_services.broadcast.send_queues


@pytest.mark.parametrize("pages", [0, 1])
@pytest.mark.parametrize("since", [None, 0])
def test_damaged_messages_are_left_out_and_told(long_services: ChatFixture, pages: int, since: int | None) -> None:
    """Another login would not help. The messages that were left out are not marked as delivered."""
    peer = long_services.connect()
    fail_after(pages, long_services, "undelivered" if since is None else "missed", DamagedError("damaged"))
    with capture_logs() as log:
        assert peer.session.handle([Login("alice", "secret", since)])
    welcome, *told, refused = peer.new_replies()
    assert codes([welcome, refused]) == [Welcome, ErrorCode.INTERNAL]
    assert tuple(told) == long_services.messages.stored[: 500 * pages]
    assert long_services.presence.names() == ("Alice",)
    assert long_services.journal.marks == {}
    assert [entry["event"] for entry in log if entry["log_level"] == "error"] == ["missed messages damaged"]


def test_stepwise_client_gets_no_unsolicited_error(long_services: ChatFixture) -> None:
    """It would take the error for the answer to its next step."""
    peer = long_services.connect()
    fail_after(0, long_services, "undelivered", DamagedError("damaged"))
    with capture_logs():
        answers = codes([*peer.ask(StepLogin("alice")), *peer.ask(Password("secret"))])
    assert answers == [PasswordPrompt, Welcome]


# --- messages ---
def test_direct_message_finds_its_recipient_in_any_case(services: ChatFixture, alice: Peer) -> None:
    assert alice.ask(AskUser("BOB")) == [User("bob", online=False)]
    alice.ask(Whisper("BOB", "stored"))
    bob = enter(services, "bob")
    assert alice.ask(AskUser("BOB")) == [User("bob", online=True)]
    alice.ask(Whisper("BOB", "psst", "n1"))
    assert bob.received() == [DirectMessage(12, 0, "Alice", "bob", "psst")]
    assert alice.received() == [Sent(11, SentStatus.STORED), Sent(12, SentStatus.SENT, "n1")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Say(" \n", "n1"), EMPTY),
        (Say("\u20ac" * 2731, "n1"), LONG),
        (Whisper("bob", "", "n1"), EMPTY),
        (Whisper("bob", "x" * 8193, "n1"), LONG),
        (Whisper("", "psst", "n1"), UNKNOWN),
        (Whisper("ALL", "psst", "n1"), UNKNOWN),
        (Whisper("x" * 60_000, "psst", "n1"), UNKNOWN),
        (Say("hello", "x" * 65), LONG),
        (Whisper("bob", "psst", "x" * 65), LONG),
        (Say("hello", ""), BAD),
        (Unreadable(BAD, "x", "n1"), BAD),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_invalid_message_is_refused_with_its_nonce(
    services: ChatFixture, alice: Peer, request_: Say | Whisper | Unreadable, code: ErrorCode
) -> None:
    (refused,) = alice.ask(request_)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.nonce) == (code, request_.nonce)
    if isinstance(request_, Whisper) and code is UNKNOWN:
        assert isinstance(refused, UserUnknown)
        assert refused.about == request_.to[:64]
    assert len(refused.reason) < 200
    assert appended(services) == []


def test_history_ends_with_the_newest_published_message(services: ChatFixture, alice: Peer) -> None:
    services.messages.asked.clear()
    services.messages.stored = (message(5),)
    assert alice.ask(AskHistory(7, 9)) == [History((message(5),))]
    alice.ask(AskHistory(), AskHistory(7, ID_MAX))
    alice.ask(AskHistory(7, after=3))
    assert services.messages.asked == [
        ("history", 1, 9, 7),
        ("history", 1, 11, 50),
        ("history", 1, 11, 7),
        ("history", 1, 11, 7, {"after_id": 3}),
    ]


def test_history_and_search_with_a_user_are_answered_with_the_registered_name(
    services: ChatFixture, alice: Peer
) -> None:
    """A name that has never been here is an error."""
    enter(services, "Carol")
    services.messages.asked.clear()
    assert alice.ask(AskHistory(7, with_user="cAROL"), AskConversations()) == [
        History((), with_user="Carol"),
        Conversations((Conversation("Bob", 9),)),
    ]
    assert services.messages.asked == [("history", 1, 11, 7, {"other_id": 3}), ("conversations", 1, 10, 200)]
    assert [each.with_user for each in alice.ask(Search("hello", with_user="CAROL"))] == ["Carol"]
    assert services.indexer.asked[-1][-1] == 3
    assert codes(alice.ask(AskHistory(with_user="eve"), Search("x", with_user="eve"))) == [UNKNOWN] * 2


def test_messages_that_are_removed_while_they_are_read_are_no_fault_of_the_disk(
    services: ChatFixture, alice: Peer
) -> None:
    """The user may have left the room, so there is no error in the log."""

    class Removed(tuple[PublicMessage, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[PublicMessage]:
            raise RemovedError

    services.messages.stored = Removed()
    with capture_logs() as log:
        assert codes(alice.ask(AskHistory())) == [ErrorCode.INTERNAL]
    assert [entry["event"] for entry in log] == ["request refused"]


def test_search_covers_the_same_messages_as_history(services: ChatFixture, alice: Peer) -> None:
    services.indexer.found = ((message(5),), 8)
    word, prefix = Term("hello", is_prefix=False), Term("w", is_prefix=True)
    assert alice.ask(Search("Hello  w*", 7, 9)) == [Found("Hello  w*", (message(5),), 8)]
    alice.ask(Search("hello"), Search("hello", 7, ID_MAX))
    assert services.indexer.asked == [
        ((word, prefix), 1, 9, 7, 10, LOBBY_ID, None),
        ((word,), 1, 11, 50, 10, LOBBY_ID, None),
        ((word,), 1, 11, 7, 10, LOBBY_ID, None),
    ]


@pytest.mark.parametrize(
    ("fault", "code"), [(SearchFailedError(), ErrorCode.INTERNAL), (SearchClosedError(), ErrorCode.SHUTTING_DOWN)]
)
def test_failed_search_is_refused(services: ChatFixture, alice: Peer, fault: Exception, code: ErrorCode) -> None:
    services.indexer.fault = fault
    assert codes(alice.ask(Search("hello"), AskUsers())) == [code, Users]


@pytest.mark.parametrize("request_", [AskHistory(), Search("hello"), Leave(), Say(" ")])
def test_answer_waits_for_earlier_messages(services: ChatFixture, alice: Peer, request_: Request) -> None:
    """Promise: confirmed means stored. An error follows the confirmations, too: its place tells what it is about."""
    services.journal.holds_back = True
    alice.ask(Say("one"), Say("two"), request_)
    *sent, _answer = alice.send_queue.told[-3:]
    assert sent == [Sent(11, SentStatus.SENT), Sent(12, SentStatus.SENT)]
    if isinstance(request_, Search):
        assert services.indexer.asked[-1][-3:-1] == (12, LOBBY_ID)


def test_user_whose_messages_stay_unconfirmed_goes_offline(services: ChatFixture, alice: Peer) -> None:
    """Without a quorum that may last; the connection is over."""
    services.journal.holds_back = services.journal.is_stuck = True
    alice.ask(Say("one"))
    alice.session.end()
    assert services.presence.names() == ()


# --- several requests in one read ---
def test_consecutive_messages_are_appended_together(services: ChatFixture, alice: Peer) -> None:
    """Public messages share a batch; a recipient, and another read, begin a new one."""
    alice.ask(Say("one"), Say("two", "n2"), Say("three"), Whisper("bob", "four", "n4"), Say("five"))
    alice.ask(Say("six"))
    assert appended(services) == [
        [(["one", "two", "three"], [None, "n2", None], None), (["four"], ["n4"], "bob"), (["five"], [None], None)],
        [(["six"], [None], None)],
    ]


def test_notices_and_messages_of_guests_are_marked(services: ChatFixture, alice: Peer) -> None:
    """A notice has a batch of its own among other messages."""
    bob = enter(services, "bob")
    alice.ask(Say("one"), Say("two", notice=True), Say("three", notice=True), Say("four"))
    alice.ask(Whisper("bob", "five", notice=True), Whisper("bob", "six"))
    assert [(each.texts, each.is_notice) for each in services.journal.appended] == [
        (["one"], False),
        (["two", "three"], True),
        (["four"], False),
        (["five"], True),
        (["six"], False),
    ]
    assert [(each.text, each.notice, each.guest) for each in bob.received()] == [
        ("one", False, False),
        ("two", True, False),
        ("three", True, False),
        ("four", False, False),
        ("five", True, False),
        ("six", False, False),
    ]


def test_reader_pauses_while_messages_of_an_earlier_read_are_not_committed(services: ChatFixture, alice: Peer) -> None:
    """A client that waits for confirmations is not delayed. One that does not is read in larger pieces."""
    services.journal.holds_back = True
    alice.ask(Say("one"))
    assert services.journal.pauses == []
    alice.ask(Say("two"))
    alice.ask(Ping())
    assert services.journal.pauses == [0.002] * 2
    services.journal.wait_for_pending()
    alice.ask(Say("three"))
    assert len(services.journal.pauses) == 2


@pytest.mark.parametrize("invalid", [Say("", "n2"), Whisper("eve", "x", "n2"), Unreadable(BAD, "x", "n2")])
def test_invalid_message_stops_no_neighbours(services: ChatFixture, alice: Peer, invalid: Request) -> None:
    (error,) = alice.ask(Say("one"), Say("two"), invalid, Say("three"))
    assert isinstance(error, Refused)
    assert error.nonce == "n2"
    assert [[texts for texts, _, _ in each] for each in appended(services)] == [[["one", "two"]], [["three"]]]


def test_each_answer_waits_until_the_peer_reads(services: ChatFixture, alice: Peer) -> None:
    """Promise: back-pressure. The number of requests in one read does not matter."""
    alice.send_queue.waits.clear()
    before = len(alice.send_queue.replies)
    alice.ask(Ping(), Say("hello"), AskUsers(), Say(""))
    assert alice.send_queue.waits == [before, before + 1, before + 2]
    alice.new_replies()
    alice.send_queue.has_room = False
    assert not alice.session.handle([Say("one"), Ping(), Say("two")])
    assert alice.new_replies() == []
    assert [texts for each in appended(services) for texts, _, _ in each] == [["hello"], ["one"]]


def test_name_of_a_guest_cannot_be_registered(services: ChatFixture, peer: Peer) -> None:
    """Nor if the guest took it during the prompt."""
    assert peer.ask(Login("carol")) == [PasswordPrompt(account=AccountKind.NEW)]
    services.guest("carol")
    assert codes(peer.ask(Password("secret"))) == [ErrorCode.BAD_USERNAME]
    assert codes(services.connect().ask(Login("carol"))) == [ErrorCode.BAD_USERNAME]
    assert not peer.session.is_logged_in
    assert services.accounts.find("carol") is None


def test_name_taken_by_a_guest_during_hashing_cannot_be_registered(services: ChatFixture, peer: Peer) -> None:
    """The journal decides."""
    services.accounts.claim("Carol")
    assert codes(peer.ask(Login("carol", "secret"))) == [ErrorCode.BAD_USERNAME]
    assert services.passwords.checked == []


def test_direct_message_reaches_an_online_guest_only(services: ChatFixture, alice: Peer) -> None:
    """It can't wait: the next guest of this name may be another person."""
    whisper = Whisper("CAROL", "psst")
    sending, receiving = services.connect(), services.connect()
    sending.ask(GuestLogin(Side.SENDING, "carol"))
    assert codes(alice.ask(whisper))[-1] is UNKNOWN
    receiving.ask(GuestLogin(Side.RECEIVING, "carol"))
    alice.ask(whisper)
    assert receiving.new_replies()[-1] == DirectMessage(11, 0, "Alice", "carol", "psst")
    assert alice.received() == [Sent(11, SentStatus.SENT, looks_public=True)]
    sending.session.end()
    assert codes(alice.ask(whisper))[-1] is UNKNOWN


# --- the end ---
def test_end_waits_for_messages_and_leaves(services: ChatFixture, alice: Peer) -> None:
    """Promise: confirmed means stored. The messages of a closed connection are stored and confirmed."""
    bob = enter(services, "bob")
    services.journal.holds_back = True
    alice.ask(Say("last words"))
    alice.session.end()
    bob.ask(Say("hello"))
    assert services.presence.names() == ("bob",)
    assert alice.received() == [Sent(11, SentStatus.SENT)]


def test_messages_are_refused_during_shutdown(services: ChatFixture, alice: Peer) -> None:
    """Promise: shutdown. Each has its nonce, and the session can still end."""
    alice.ask(Say("hello"))
    services.shut_down()
    *refused, last = alice.ask(Say("one", "n1"), Say("two"), Whisper("bob", "three", "n3"), Ping())
    assert codes(refused) == [ErrorCode.SHUTTING_DOWN] * 3
    assert [event.nonce for event in refused if isinstance(event, Refused)] == ["n1", None, "n3"]
    assert last == Pong()
    alice.session.end()
    assert services.presence.names() == ()
    services.passwords.is_closed = True
    assert codes(services.connect().ask(LOGIN)) == [ErrorCode.SHUTTING_DOWN]


@pytest.mark.parametrize("has_appended", [False, True])
def test_timeout_is_told_after_confirmations(services: ChatFixture, alice: Peer, has_appended: bool) -> None:
    services.journal.holds_back = True
    if has_appended:
        alice.ask(Say("hello"))
    before = len(alice.send_queue.told)
    alice.session.time_out(60.0)
    *sent, refused, bye = alice.send_queue.told[before:]
    assert sent == ([Sent(11, SentStatus.SENT)] if has_appended else [])
    assert codes([refused, bye]) == [BAD, Bye]
    stranger = services.connect()
    stranger.session.time_out(60.0)
    late, bye = stranger.new_replies()
    assert codes([late, bye]) == [NOT_IN, Bye]
    assert "60 s" in str(refused)
    assert "60 s" in str(late)


def test_session_that_has_ended_is_freed_without_the_garbage_collector(services: ChatFixture) -> None:
    """Promise: memory stays bounded. The collector runs seldom, because it stops all threads."""
    peer = services.connect()
    peer.ask(LOGIN, Say("hello"), AskUsers())
    peer.session.end()
    session = weakref.ref(peer.session)
    gc.disable()
    try:
        del peer
        assert session() is None
    finally:
        gc.enable()


# --- the log; tests/integration/test_server_log.py tests its privacy ---
def test_requests_of_one_read_are_handled_in_order_and_logged(services: ChatFixture) -> None:
    with capture_logs() as log:
        peer = services.connect()
        answers = peer.ask(Say("too early"), LOGIN, Say("hello"), BAD_JSON)
        peer.session.end()
    assert [(entry["event"], entry.get("code"), entry.get("user")) for entry in log] == [
        ("request refused", "not_logged_in", None),
        ("login", None, "Alice"),
        ("request refused", "bad_json", "Alice"),
        ("logout", None, "Alice"),
    ]
    assert {entry["connection"] for entry in log} == {"1@10.0.0.1"}
    assert codes(answers) == [NOT_IN, Welcome, ErrorCode.BAD_JSON]
    assert appended(services) == [[(["hello"], [None], None)]]
