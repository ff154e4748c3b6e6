"""The dialogue with peers that go one step at a time: what each step means, and what is said of one out of place."""

import re
from collections.abc import Sequence
from itertools import product
from textwrap import dedent

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, PublicMessage, Ready, Refused
from chatprotocol.requests import Command, CommandBatch, Data, Login, Request, Unreadable
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.readers import FrameBuffer
from chatserver.chat.session import Session
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.sendqueue import UNREAD_MAX_BYTES, SendQueue
from chatserver.net.transport import TcpTransport
from chatserver.store.errors import StoreError

from .chat_fixture import HISTORY_ID, ChatFixture, FakePasswords, Visitor, secrets_in
from .rooms import eventually, in_background, must_end

# What the decoder says of steps that it can't read.
UNREADABLE = {
    "(not UTF-8)": Unreadable(ErrorCode.BAD_REQUEST, "The payload is not UTF-8."),
    "(no frame)": Unreadable(ErrorCode.BAD_REQUEST, "A frame begins with C or D.", closes=True),
    "(half a frame, and the end)": Unreadable(ErrorCode.BAD_REQUEST, "The connection ended inside a frame."),
}
TOO_LONG = "x" * 8_193
# Shows that an operation is due, whatever went before.
AN_OPERATION_IS_DUE = """
    > C USERS
    < C ONLINE Alice
    """


@pytest.fixture
def stranger(services: ChatFixture) -> Visitor:
    return services.visitor()


@pytest.fixture
def alice(stranger: Visitor) -> Visitor:
    stranger.session.handle([Command("alice"), Command("secret")])
    return stranger


@pytest.fixture
def alice_bm_pm(stranger: Visitor) -> Visitor:
    stranger.session.handle([Command("alice bm-pm"), Command("secret")])
    return stranger


def read_step(step: str) -> Request:
    if step in UNREADABLE:
        return UNREADABLE[step]
    kind, _, text = step.partition(" ")
    return Command(text) if kind == "C" else Data(text)


def read_steps(steps: str) -> list[Request]:
    """Several, with bars between them."""
    return [read_step(step) for step in steps.split(" | ")]


def shown(event: Event) -> list[str]:
    """The frames of an event. Of sentences for people their beginning is enough."""
    frames = FrameBuffer(b"CD", 10_000_000).split(Frames().encode(event))
    texts = [f"{chr(kind)} {payload.decode()}" for kind, payload in frames]
    return [re.sub(r"^(C ERROR \S+|C DENIED) .*", r"\1", text) for text in texts]


def hear(visitor: Visitor, requests: Sequence[Request]) -> list[str]:
    """What one connection is told, and nobody else, when this comes in one read."""
    before = len(visitor.send_queue.told)
    goes_on = visitor.session.handle(requests)
    said = [f"< {text}" for event in visitor.send_queue.told[before:] for text in shown(event)]
    return said if goes_on else [*said, "(the end)"]


def play(visitor: Visitor, *scripts: str) -> None:
    """Say what stands behind ``>``, what ``|`` joins in one read; it must be answered what stands behind ``<``."""
    script = [line for each in scripts for line in dedent(each).splitlines() if line.strip()]
    transcript = []
    for line in script:
        if line.startswith("> "):
            transcript += [line, *hear(visitor, read_steps(line[2:]))]
    assert transcript == script


def posted(services: ChatFixture) -> list[tuple[str, str | None]]:
    """The texts that the journal was given, each with its recipient."""
    return [
        (text, batch.recipient.name if batch.recipient is not None else None)
        for batch in services.journal.appended
        for text in batch.texts
    ]


# --- coming in ---


def test_a_new_name_is_registered(services: ChatFixture, stranger: Visitor) -> None:
    play(
        stranger,
        """
        > C Carol
        < C PASSWORD new
        > C secret
        < C WELCOME new
        """,
    )
    assert services.presence.names() == ("Carol",)
    assert stranger.session.is_logged_in


@pytest.mark.parametrize("name", ["alice", "ALICE", " alice ", "alice pm-dm", "alice bm-pm"])
def test_a_known_name_needs_its_password(services: ChatFixture, stranger: Visitor, name: str) -> None:
    play(
        stranger,
        f"""
        > C {name}
        < C PASSWORD existing
        > C wrong
        < C DENIED
        > C secret
        < C WELCOME existing
        """,
    )
    assert services.presence.names() == ("Alice",)


@pytest.mark.parametrize(
    ("name", "public"),
    [("alice history-id", "PM"), ("alice bm-pm  history-id ", "BM"), ("alice history-id pm-dm", "PM")],
)
def test_the_welcome_tells_the_identity_of_the_history_to_who_asks(stranger: Visitor, name: str, public: str) -> None:
    play(
        stranger,
        f"""
        > C {name}
        < C PASSWORD existing
        > C secret
        < C WELCOME existing {HISTORY_ID}
        > C {public}
        < C READY
        """,
    )


@pytest.mark.parametrize("password", ["PM", "EX", "ch", " two words ", "PING", "alice bm-pm"])
def test_a_password_is_taken_as_it_is(services: ChatFixture, stranger: Visitor, password: str) -> None:
    play(
        stranger,
        f"""
        > C carol
        < C PASSWORD new
        > C {password}
        < C WELCOME new
        """,
    )
    assert services.accounts.by_key["carol"].password_hash == password[::-1]


def test_the_third_wrong_password_ends_it(stranger: Visitor) -> None:
    play(
        stranger,
        """
        > C alice
        < C PASSWORD existing
        > C a
        < C DENIED
        > C b
        < C DENIED
        > C c
        < C DENIED
        < C BYE too many wrong passwords
        (the end)
        """,
    )


def test_who_guesses_for_too_long_is_denied_and_may_try_again_later(services: ChatFixture, stranger: Visitor) -> None:
    for _ in range(10):
        services.visitor().ask(Login("alice", "wrong"))
    play(
        stranger,
        """
        > C alice
        < C PASSWORD existing
        > C secret
        < C DENIED
        """,
    )
    services.now += 61
    play(stranger, "> C secret\n< C WELCOME existing")


def test_what_was_missed_comes_right_behind_the_welcome(services: ChatFixture, stranger: Visitor) -> None:
    services.accounts.add("dave", "terces", delivered_id=3)
    services.messages.stored = (
        DirectMessage(4, 5, "bob", "dave", "while you\nwere away"),
        DirectMessage(5, 6, "Alice", "dave", "too"),
    )
    welcome = hear(stranger, [Command("dave"), Command("secret")])

    assert welcome == [
        "< C PASSWORD existing",
        "< C WELCOME existing",
        "< D DIRECT bob 4 5\nwhile you\nwere away",
        "< D DIRECT Alice 5 6\ntoo",
    ]


def test_who_comes_in_and_speaks_in_one_read_is_heard(services: ChatFixture, stranger: Visitor) -> None:
    play(
        stranger,
        """
        > C alice | C secret | C PM | D hello | C PING
        < C PASSWORD existing
        < C WELCOME existing
        < C READY
        < C SENT 11
        < C PONG
        """,
    )
    assert posted(services) == [("hello", None)]


# --- the operations, in both traditions ---


@pytest.mark.parametrize(("ops", "public", "direct"), [("pm-dm", "PM", "DM"), ("bm-pm", "BM", "PM")])
@pytest.mark.parametrize("spell", [str.upper, str.lower, str.title, " {} ".format])
def test_each_tradition_has_its_words_in_any_case(
    services: ChatFixture, stranger: Visitor, ops: str, public: str, direct: str, spell: type[str]
) -> None:
    public, direct, history, leave, users, ping = map(spell, [public, direct, "CH", "EX", "USERS", "PING"])
    hear(stranger, [Command(f"alice {ops}"), Command("secret")])
    services.messages.stored = (PublicMessage(3, 4, "bob", "hello"), DirectMessage(5, 6, "bob", "Alice", ""))
    play(
        stranger,
        f"""
        > C {public}
        < C READY
        > D hello everybody
        < C SENT 11
        > C {direct}
        < C ONLINE Alice
        > C BOB
        > D hello you
        < C STORED 12
        > C {users}
        < C ONLINE Alice
        > C {ping}
        < C PONG
        """,
    )
    assert hear(stranger, [Command(history)]) == ["< C HISTORY 2", "< D PUBLIC bob 3 4\nhello", "< D DIRECT bob 5 6\n"]
    play(stranger, f"> C {leave}\n< C BYE\n(the end)")
    assert posted(services) == [("hello everybody", None), ("hello you", "bob")]
    assert services.presence.names() == ()


@pytest.mark.parametrize(("ops", "foreign"), [("pm-dm", "BM"), ("bm-pm", "DM")])
def test_the_other_traditions_words_are_unknown(stranger: Visitor, ops: str, foreign: str) -> None:
    hear(stranger, [Command(f"alice {ops}"), Command("secret")])
    play(stranger, f"> C {foreign}\n< C ERROR unknown_command", AN_OPERATION_IS_DUE)


@pytest.mark.parametrize(("second", "public"), [("alice", "PM"), ("alice pm-dm", "PM"), ("alice bm-pm", "BM")])
@pytest.mark.parametrize(
    "first", ["no-name bm-pm", "no-name pm-dm", "ALL bm-pm", "x bm-pm pm-dm", "x history-id history-id"]
)
def test_a_name_that_was_refused_leaves_no_tradition_behind(
    stranger: Visitor, first: str, second: str, public: str
) -> None:
    (refused,) = hear(stranger, [Command(first)])
    assert refused.startswith("< C ERROR ")
    play(
        stranger,
        f"""
        > C {second}
        < C PASSWORD existing
        > C secret
        < C WELCOME existing
        > C {public}
        < C READY
        """,
    )


def test_the_tradition_holds_through_wrong_passwords(stranger: Visitor) -> None:
    play(
        stranger,
        """
        > C alice bm-pm
        < C PASSWORD existing
        > C wrong
        < C DENIED
        > C secret
        < C WELCOME existing
        > C BM
        < C READY
        > D hello
        < C SENT 11
        > C PM
        < C ONLINE Alice
        """,
    )


def test_a_message_to_somebody_who_is_online_is_delivered_and_sent(services: ChatFixture, alice: Visitor) -> None:
    bob = services.visitor()
    hear(bob, [Command("bob"), Command("secret")])
    play(
        alice,
        """
        > C DM
        < C ONLINE Alice bob
        > C  BOB
        > D psst
        < C SENT 11
        """,
    )
    assert bob.heard() == [DirectMessage(11, 0, "Alice", "bob", "psst")]


def test_a_message_to_oneself_is_delivered_and_confirmed(alice: Visitor) -> None:
    play(
        alice,
        """
        > C DM
        < C ONLINE Alice
        > C alice
        """,
    )
    assert hear(alice, [Data("note")]) == ["< D DIRECT Alice 11 0\nnote", "< C SENT 11"]


@pytest.mark.parametrize(("asked", "limit"), [("CH", 50), ("ch 7", 7), ("CH 200", 200), ("CH 500", 500), ("CH 1", 1)])
def test_the_history_has_as_many_messages_as_are_asked_for(
    services: ChatFixture, alice: Visitor, asked: str, limit: int
) -> None:
    services.messages.asked.clear()
    play(alice, f"> C {asked}\n< C HISTORY 0", AN_OPERATION_IS_DUE)

    assert [each[-1] for each in services.messages.asked] == [limit]


@pytest.mark.parametrize("text", ["  hello\n", "C PM", "\0", "a\r\nb", "x" * 8_192, "\u20ac" * 2_730, "EX"])
def test_a_text_is_taken_as_it_is(services: ChatFixture, alice: Visitor, text: str) -> None:
    hear(alice, [Command("PM"), Data(text)])
    hear(alice, [Command("DM"), Command("bob"), Data(text)])

    assert posted(services) == [(text, None), (text, "bob")]


# --- when something is wrong: before the login ---

# What is answered, and what was due before is due again.
WRONG_WHERE_A_NAME_IS_DUE = {
    "D hello": "not_logged_in",
    "D ": "not_logged_in",
    "C PM": "not_logged_in",
    "C DM": "not_logged_in",
    "C BM": "not_logged_in",
    "C CH": "not_logged_in",
    "C no-name": "bad_username",
    "C ": "bad_username",
    "C all": "bad_username",
    "C Server": "bad_username",
    f"C {'x' * 33}": "bad_username",
    "C \u0430\u043b\u0438\u0441\u0430": "bad_username",
    "C alice\nPM": "bad_username",
    "C alice dm-pm": "bad_request",
    "C alice bm-pm bm-pm": "bad_request",
    "(not UTF-8)": "bad_request",
    "(half a frame, and the end)": "bad_request",
}
WRONG_WHERE_A_PASSWORD_IS_DUE = {
    "D secret": "bad_request",
    "D ": "bad_request",
    "C ": "bad_request",
    f"C {'x' * 1_025}": "too_long",
    "(not UTF-8)": "bad_request",
    "(half a frame, and the end)": "bad_request",
}


@pytest.mark.parametrize(("step", "code"), WRONG_WHERE_A_NAME_IS_DUE.items())
def test_what_is_no_name_is_refused_and_a_name_is_due(stranger: Visitor, step: str, code: str) -> None:
    for _ in range(5):
        assert hear(stranger, [read_step(step)]) == [f"< C ERROR {code}"]
    play(stranger, "> C alice\n< C PASSWORD existing")


@pytest.mark.parametrize(("step", "code"), WRONG_WHERE_A_PASSWORD_IS_DUE.items())
def test_what_is_no_password_is_refused_and_one_is_due(stranger: Visitor, step: str, code: str) -> None:
    """It is no wrong password."""
    play(stranger, "> C alice bm-pm\n< C PASSWORD existing")
    for _ in range(5):
        assert hear(stranger, [read_step(step)]) == [f"< C ERROR {code}"]
    play(stranger, "> C secret\n< C WELCOME existing\n> C BM\n< C READY")


@pytest.mark.parametrize("name", ["pm", "dm", "bm", "ch", "ex", "PING", "USERS", "Pm"])
def test_a_user_may_be_called_like_an_operation(services: ChatFixture, stranger: Visitor, name: str) -> None:
    play(
        stranger,
        f"""
        > C {name}
        < C PASSWORD new
        > C secret
        < C WELCOME new
        """,
    )
    assert services.presence.names() == (name,)


def test_one_may_leave_before_the_login(services: ChatFixture, stranger: Visitor) -> None:
    play(stranger, "> C EX | C alice\n< C BYE\n(the end)")
    assert services.accounts.find("EX") is None


@pytest.mark.parametrize("steps", [[], ["C alice"], ["C alice", "C secret"], ["C alice", "C secret", "C PM"]])
def test_where_no_next_frame_can_be_found_the_end_comes(stranger: Visitor, steps: list[str]) -> None:
    hear(stranger, [read_step(step) for step in steps])
    play(
        stranger,
        """
        > (no frame)
        < C ERROR bad_request
        < C BYE the connection can't be read any further
        (the end)
        """,
    )


# --- when something is wrong: in the room ---

# The way to each place of a dialogue, and the kind of step that is due there.
PLACES = {
    "an operation": ([], "C"),
    "a public text": (["C PM"], "D"),
    "a recipient": (["C DM"], "C"),
    "a direct text": (["C DM", "C bob"], "D"),
}
OUT_OF_PLACE = {"C": ["D hello", "D ", f"D {TOO_LONG}"], "D": ["C hello", "C PM", "C EX", "C ", "C PING"]}
ANYWHERE = ["(not UTF-8)", "(half a frame, and the end)"]


@pytest.mark.parametrize(
    ("way", "step"),
    [(way, step) for way, due in PLACES.values() for step in OUT_OF_PLACE[due] + ANYWHERE],
)
def test_a_step_out_of_place_is_refused_and_an_operation_is_due(
    services: ChatFixture, alice: Visitor, way: list[str], step: str
) -> None:
    for _ in range(3):
        hear(alice, [read_step(each) for each in way])
        assert hear(alice, [read_step(step)]) == ["< C ERROR bad_request"]
        play(alice, AN_OPERATION_IS_DUE)
    assert posted(services) == []


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("C NOPE", "unknown_command"),
        ("C ", "unknown_command"),
        ("C alice", "unknown_command"),
        ("C PM hello", "unknown_command"),
        ("C DM bob", "unknown_command"),
        ("C USERS all", "unknown_command"),
        ("C EX now", "unknown_command"),
        ("C P\u041c", "unknown_command"),
        ("C CH 0", "bad_request"),
        ("C CH 501", "bad_request"),
        ("C CH -1", "bad_request"),
        ("C CH x", "bad_request"),
        ("C CH 1 2", "bad_request"),
        ("C CH \u0663", "bad_request"),
        ("C CH " + "9" * 60_000, "bad_request"),
    ],
)
def test_what_is_no_operation_is_refused_and_one_is_due(alice: Visitor, step: str, code: str) -> None:
    assert hear(alice, [read_step(step)]) == [f"< C ERROR {code}"]
    play(alice, AN_OPERATION_IS_DUE)


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_message"), (" \n\t", "empty_message"), (TOO_LONG, "too_long"), ("é" * 4_097, "too_long")],
)
@pytest.mark.parametrize("way", [["C PM"], ["C DM", "C bob"], ["C DM", "C nobody"]])
def test_a_text_that_cannot_be_a_message_is_refused(
    services: ChatFixture, alice: Visitor, way: list[str], text: str, code: str
) -> None:
    hear(alice, [read_step(each) for each in way])
    assert hear(alice, [Data(text)]) == [f"< C ERROR {code}"]
    play(alice, AN_OPERATION_IS_DUE)
    assert posted(services) == []


@pytest.mark.parametrize("name", ["nobody", "", "ALL", "not a name", "bob bob"])
def test_a_message_to_nobody_is_not_sent(services: ChatFixture, alice: Visitor, name: str) -> None:
    play(
        alice,
        f"""
        > C DM
        < C ONLINE Alice
        > C {name}
        > D psst
        < C NOUSER {name}
        """,
        AN_OPERATION_IS_DUE,
    )
    assert posted(services) == []


@pytest.mark.parametrize(
    ("ops", "steps"),
    [
        ("pm-dm", ["C PM", "D a text"]),
        ("pm-dm", ["C DM", "C bob", "D a text"]),
        ("bm-pm", ["C BM", "D a text"]),
        ("bm-pm", ["C PM", "C bob", "D a text"]),
    ],
)
@pytest.mark.parametrize("in_one_read", [False, True])
def test_of_a_dialogue_that_is_not_finished_nothing_is_ever_sent(ops: str, steps: list[str], in_one_read: bool) -> None:
    """Whatever ends it: the peer, its time, a step that can't be read, or one that is out of place."""
    ends = [[], ["(half a frame, and the end)"], ["(not UTF-8)"], ["(no frame)"], ["C EX"], ["D ", "C EX"]]
    for length, end in product(range(len(steps)), ends):
        services = ChatFixture()
        services.accounts.add("bob", "terces")
        visitor = services.visitor()
        hear(visitor, [Command(f"alice {ops}"), Command("secret")])
        requests = [read_step(step) for step in [*steps[:length], *end]]
        for read in [requests] if in_one_read else [[request] for request in requests]:
            visitor.session.handle(read)
        visitor.session.time_out()
        visitor.session.end()

        assert posted(services) == [], (length, end)


# --- steps that are sent ahead ---


def test_steps_may_be_sent_ahead_and_what_is_stored_is_answered_in_order(services: ChatFixture, alice: Visitor) -> None:
    """Promise of the wire: what follows a message on the disk comes in the order of what was sent."""
    services.journal.holds_back = True
    services.messages.stored = (PublicMessage(3, 4, "bob", "hello"),)
    steps = (
        "C PM | D one | C DM | C bob | D two | C DM | C nobody | D three | C PM | D  | C PM | D four"
        " | C CH | C NOPE | C PM | D five | C EX"
    )
    heard = [line.partition("\n")[0] for line in hear(alice, read_steps(steps))]
    in_order = [line for line in heard if line not in ("< C READY", "< C ONLINE Alice")]

    assert in_order == [
        "< C SENT 11",
        "< C STORED 12",
        "< C NOUSER nobody",
        "< C ERROR empty_message",
        "< C SENT 13",
        "< C HISTORY 1",
        "< D PUBLIC bob 3 4",
        "< C ERROR unknown_command",
        "< C SENT 14",
        "< C BYE",
        "(the end)",
    ]
    assert heard.count("< C READY") == 4
    assert heard.count("< C ONLINE Alice") == 2


@pytest.mark.parametrize("in_one_read", [False, True])
def test_what_needs_no_disk_does_not_wait_for_it(services: ChatFixture, alice: Visitor, in_one_read: bool) -> None:
    services.journal.holds_back = True
    steps = read_steps("C PM | D one | C PM | D two | C PING | C USERS | C PM")
    reads = [steps] if in_one_read else [[step] for step in steps]

    assert [line for read in reads for line in hear(alice, read)] == [
        "< C READY",
        "< C READY",
        "< C PONG",
        "< C ONLINE Alice",
        "< C READY",
    ]
    assert alice.send_queue.waiting == []
    sent = ["< C SENT 11", "< C SENT 12", "< C SENT 13"]
    assert hear(alice, [Data("three"), Command("CH")]) == [*sent, "< C HISTORY 0"]


def test_who_waits_for_ready_is_told_at_once(alice: Visitor) -> None:
    """Nothing else is on its way that it could go out with."""
    assert hear(alice, [Command("PM")]) == ["< C READY"]
    assert alice.send_queue.waiting == []


def test_who_does_not_wait_for_ready_gets_it_with_the_confirmation(services: ChatFixture, alice: Visitor) -> None:
    """One system call for both: that is half the cost of a message."""
    services.journal.holds_back = True
    assert hear(alice, [Command("PM"), Data("one"), Command("PM"), Data("two")]) == ["< C READY"] * 2
    assert alice.send_queue.waiting == [Ready(), Ready()]
    services.journal.wait_for_pending()
    assert alice.send_queue.waiting == []


@pytest.mark.parametrize("cut", range(1, 9))
def test_wherever_one_read_ends_and_the_next_begins_the_dialogue_is_the_same(
    services: ChatFixture, alice: Visitor, cut: int
) -> None:
    steps = read_steps("C PM | D one | C DM | C bob | D two | C PM | D  | C DM | D out of place")
    heard = hear(alice, steps[:cut]) + hear(alice, steps[cut:])

    assert sorted(heard) == sorted(
        [
            "< C READY",
            "< C SENT 11",
            "< C ONLINE Alice",
            "< C STORED 12",
            "< C READY",
            "< C ERROR empty_message",
            "< C ONLINE Alice",
            "< C ERROR bad_request",
        ]
    )
    assert posted(services) == [("one", None), ("two", "bob")]


# --- many public messages at once ---


def test_a_run_is_one_post(services: ChatFixture, alice: Visitor) -> None:
    services.journal.holds_back = True
    assert hear(alice, [CommandBatch("PM", ["one", "two", "three"])]) == ["< C READY"] * 3
    assert alice.send_queue.waiting == [Ready()] * 3
    services.journal.wait_for_pending()

    assert [[batch.texts for batch in batch] for batch in services.journal.batches] == [[["one", "two", "three"]]]
    assert [event for event in alice.heard() if isinstance(event, PublicMessage)] == []
    play(alice, AN_OPERATION_IS_DUE)


def test_what_stands_around_a_run_is_posted_with_it(services: ChatFixture, alice: Visitor) -> None:
    steps = read_steps("C PM | D one | C DM | C bob | D two | C PM")
    hear(alice, [*steps[:2], CommandBatch("PM", ["a", "b"]), *steps[:2], CommandBatch("PM", ["c", "d"]), *steps[2:]])
    hear(alice, [Data("last"), CommandBatch("PM", ["e"])])

    assert [[batch.texts for batch in batch] for batch in services.journal.batches] == [
        [["one", "a", "b", "one", "c", "d"]],
        [["two"]],
        [["last", "e"]],
    ]


WAYS: dict[str, list[str]] = {
    "before the login": [],
    "where a password is due": ["C alice"],
    "pm-dm": ["C alice", "C secret"],
    "bm-pm": ["C alice bm-pm", "C secret"],
    "where a text is due": ["C alice", "C secret", "C PM"],
    "where a recipient is due": ["C alice", "C secret", "C DM"],
    "where a direct text is due": ["C alice", "C secret", "C DM", "C bob"],
    "where a direct text is due in bm-pm": ["C alice bm-pm", "C secret", "C PM", "C bob"],
}
TEXTS = [["a", "b", "c", "d"], ["", "b", "c"], ["a", TOO_LONG, "c", "d"], ["a", "b", " "], [" ", "", TOO_LONG], ["a"]]


@pytest.mark.parametrize("texts", TEXTS, ids=lambda texts: " ".join(f"<{text[:1]}>" for text in texts))
@pytest.mark.parametrize("command", ["PM", "BM", "pm", "CH", "EX", "secret"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("before", [[], [Command("PM"), Data("before")]])
def test_a_run_is_answered_as_its_steps_are(
    way: list[str], command: str, texts: list[str], before: list[Request]
) -> None:
    """In its place or out of it, with texts that can't be sent or without."""

    def tell(middle: Sequence[Request]) -> tuple[list[str], int, list[tuple[str, str | None]]]:
        services = ChatFixture()
        services.journal.holds_back = True
        services.accounts.add("Alice", "terces")
        services.accounts.add("bob", "terces")
        visitor = services.visitor()
        heard = hear(visitor, [read_step(step) for step in way])
        heard += hear(visitor, [*before, *middle, Command("PM"), Data("after")])
        if heard[-1] != "(the end)":
            heard += hear(visitor, [Command("CH")])
        for at, line in enumerate(heard):
            if line.startswith("< C SENT"):
                assert heard[:at].count("< C READY") > len([each for each in heard[:at] if "SENT" in each])
        # How many are told together is not promised, but that each is told, and in time.
        in_order = [line for line in heard if line != "< C READY"]
        return in_order, len(heard) - len(in_order), posted(services)

    run = CommandBatch(command, texts)
    assert tell([run]) == tell(list(run))


def test_of_a_run_the_good_ones_are_posted_and_each_bad_one_is_told_at_its_place(
    services: ChatFixture, alice: Visitor
) -> None:
    services.journal.holds_back = True
    heard = hear(alice, [CommandBatch("PM", ["one", "two", "", "three", TOO_LONG, "four"])])
    services.journal.wait_for_pending()
    heard += [f"< {text}" for event in alice.send_queue.told[-1:] for text in shown(event)]

    assert [line for line in heard if line != "< C READY"] == [
        "< C SENT 11",
        "< C SENT 12",
        "< C ERROR empty_message",
        "< C SENT 13",
        "< C ERROR too_long",
        "< C SENT 14",
    ]
    assert heard.count("< C READY") == 6
    assert [text for text, _ in posted(services)] == ["one", "two", "three", "four"]


def test_behind_a_goodbye_no_run_is_posted(services: ChatFixture, alice: Visitor) -> None:
    assert hear(alice, [Command("EX"), CommandBatch("PM", ["a"])]) == ["< C BYE", "(the end)"]
    assert posted(services) == []


# --- what the house can't do ---


def test_while_the_server_shuts_down_each_message_is_refused(services: ChatFixture, alice: Visitor) -> None:
    """Promise: shutdown."""
    services.shut_down()
    play(
        alice,
        """
        > C PM | D one | C PM | D two | C DM | C bob | D three | C PING
        < C READY
        < C READY
        < C ERROR shutting_down
        < C ERROR shutting_down
        < C ONLINE Alice
        < C ERROR shutting_down
        < C PONG
        """,
        AN_OPERATION_IS_DUE,
    )
    assert hear(alice, [CommandBatch("PM", ["a", "b"])]) == ["< C READY"] * 2 + ["< C ERROR shutting_down"] * 2
    assert alice.send_queue.waiting == []


def test_a_login_while_the_server_shuts_down_is_told_so(services: ChatFixture, stranger: Visitor) -> None:
    assert isinstance(services.passwords, FakePasswords)
    services.passwords.is_closed = True
    play(stranger, "> C alice | C secret\n< C PASSWORD existing\n< C ERROR shutting_down")


@pytest.mark.parametrize("holds_back", [False, True])
def test_what_the_disk_does_not_take_is_told_for_each_message(
    services: ChatFixture, alice: Visitor, holds_back: bool
) -> None:
    """Promise: confirmed means stored."""
    services.journal.disk_refuses = Refused(ErrorCode.INTERNAL, "The disk is full.")
    services.journal.holds_back = holds_back
    heard = hear(alice, read_steps("C PM | D one | C PM | D two | C DM | C bob | D three"))
    heard += hear(alice, [CommandBatch("PM", ["a", "b"]), Command("CH")])
    answers = [line for line in heard if line not in ("< C READY", "< C ONLINE Alice")]

    assert answers == ["< C ERROR internal"] * 5 + ["< C HISTORY 0"]
    assert alice.send_queue.waiting == []
    services.journal.disk_refuses = None
    hear(alice, [Command("PM"), Data("again")])
    services.journal.wait_for_pending()
    assert shown(alice.send_queue.told[-1]) == ["C SENT 16"]


def test_a_registration_that_the_disk_refuses_may_be_tried_again(services: ChatFixture, stranger: Visitor) -> None:
    services.journal.fault = OSError("disk full")
    play(stranger, "> C carol | C secret\n< C PASSWORD new\n< C ERROR internal")
    services.journal.fault = None
    play(stranger, "> C secret\n< C WELCOME new")


def test_a_history_that_cannot_be_read_is_refused_and_an_operation_is_due(
    services: ChatFixture, alice: Visitor
) -> None:
    def fail(*_: int) -> tuple[()]:
        raise StoreError("disk I/O error")

    services.messages.history = fail  # type: ignore[method-assign]
    with capture_logs():
        play(alice, "> C CH\n< C ERROR internal", AN_OPERATION_IS_DUE)


# --- back-pressure ---


@pytest.mark.parametrize("steps", [["C PM", "C PM"], ["C DM", "D "], ["C PING"], ["D "]])
def test_a_peer_that_does_not_read_is_answered_no_further(services: ChatFixture, steps: list[str]) -> None:
    """Promise: back-pressure. However many steps come in one read, memory stays bounded."""
    broadcast = BroadcastBuffer(Frames().encode_all, 1_000_000)
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
    session = Session(services.services, send_queue, "1@test", "here")
    session.handle([Command("alice"), Command("secret")])
    send_queue.note_sent(send_queue._unread_bytes())
    asked = [read_step(step) for step in steps] * (2 * UNREAD_MAX_BYTES // 10)
    reader = in_background(lambda: session.handle(asked))
    eventually(lambda: not reader.is_alive() or (send_queue._drained is not None and send_queue._drained._waiters))  # type: ignore[attr-defined]
    unread = send_queue._unread_bytes()
    send_queue.finish()
    must_end(reader)
    broadcast.close()

    assert UNREAD_MAX_BYTES < unread <= UNREAD_MAX_BYTES + 300


def test_before_each_answer_the_peer_has_to_have_read_enough_of_those_before(alice: Visitor) -> None:
    """What says that a text may come counts, too."""
    alice.send_queue.waits.clear()
    before = len(alice.send_queue.replies)
    hear(alice, [*CommandBatch("PM", ["a"] * 3), Command("PING"), *CommandBatch("PM", ["b"] * 2), Command("USERS")])

    assert alice.send_queue.waits == [before + 3, before + 3 + 1 + 2]


def test_a_connection_that_ends_while_its_peer_is_waited_for_is_answered_nothing_more(
    services: ChatFixture, alice: Visitor
) -> None:
    alice.send_queue.has_room = False
    heard = hear(alice, [*CommandBatch("PM", ["one"]), Command("PING"), *CommandBatch("PM", ["two"])])

    assert heard == ["< C READY", "< C SENT 11", "(the end)"]
    assert posted(services) == [("one", None)]


# --- the log ---


def test_neither_passwords_nor_messages_are_ever_logged(services: ChatFixture, stranger: Visitor) -> None:
    """Not in the wrong place, either."""
    secrets = ("hunter2", "wr0ng", "pr1vate", "publ1c", "2retnuh")
    with capture_logs() as log:
        for step in (
            *("D hunter2", "C hunter2 hunter2", "C hunter2!", "C carol", "D hunter2", "C hunter2"),
            *("C PM", "D publ1c", "D publ1c", "C publ1c", "C PM", "C publ1c", "C PM", f"D {'publ1c' * 2_000}"),
            *("C DM", "C bob", "D pr1vate", "C DM", "C pr1vate", "D pr1vate", "C DM", "D pr1vate"),
            *("C DM", "C bob", "C pr1vate", "C CH pr1vate", "C hunter2", "C PM pr1vate"),
        ):
            hear(stranger, [read_step(step)])
        hear(stranger, [CommandBatch("publ1c", ["publ1c"] * 4), CommandBatch("PM", ["publ1c", ""])])
        stranger.session.end()
        guesser = services.visitor()
        hear(guesser, [Command("carol"), *[Command("wr0ng")] * 3])

    assert len([entry for entry in log if entry["event"] == "request refused"]) >= 15
    assert list(secrets_in(log, *secrets)) == []
