"""The frames machine in a session: what each step means, and the error for an unexpected one."""

import re
from collections.abc import Sequence
from itertools import product

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, PublicMessage, Ready, Refused
from chatprotocol.requests import Command, CommandBatch, Data, Request, Unreadable
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.readers import FrameBuffer

from .chat_fixture import HISTORY_ID, ChatFixture, UserPeer

# Results of the decoder for invalid frames.
UNREADABLE = {
    "(not UTF-8)": Unreadable(ErrorCode.BAD_REQUEST, "The payload is not UTF-8."),
    "(no frame)": Unreadable(ErrorCode.BAD_REQUEST, "A frame begins with C or D.", closes=True),
    "(half a frame, and the end)": Unreadable(ErrorCode.BAD_REQUEST, "The connection ended inside a frame."),
}
TOO_LONG = "x" * 8_193
# Shows that the machine expects an operation.
EXPECTS_OPERATION = "> C USERS   < C ONLINE Alice"


@pytest.fixture
def stranger(services: ChatFixture) -> UserPeer:
    """A connection before the login."""
    return services.connect()


@pytest.fixture
def alice(stranger: UserPeer) -> UserPeer:
    """The same connection, logged in."""
    stranger.session.handle([Command("alice"), Command("secret")])
    return stranger


def read_steps(steps: str) -> list[Request]:
    """Several steps, separated by bars."""
    return [UNREADABLE.get(step) or {"C": Command, "D": Data}[step[0]](step[2:]) for step in steps.split(" | ")]


def shown(event: Event) -> list[str]:
    """The frames of an event; of errors without the reason."""
    frames = FrameBuffer(b"CD", 10_000_000).split(Frames().encode(event))
    texts = [f"{chr(kind)} {payload.decode()}" for kind, payload in frames]
    return [re.sub(r"^(C ERROR \S+|C DENIED) .*", r"\1", text) for text in texts]


def hear(peer: UserPeer, requests: Sequence[Request]) -> list[str]:
    """The answers to requests that arrive in one read."""
    before = len(peer.send_queue.told)
    goes_on = peer.session.handle(requests)
    said = [f"< {text}" for event in peer.send_queue.told[before:] for text in shown(event)]
    return said if goes_on else [*said, "(the end)"]


def say(peer: UserPeer, steps: str) -> list[str]:
    return hear(peer, read_steps(steps))


def split(*scripts: str) -> list[str]:
    """The lines of scripts, in which three spaces separate a step and its answers."""
    return [line for script in scripts for line in re.split(r"   (?=[<>(])", script)]


def play(peer: UserPeer, *scripts: str) -> None:
    """Send the steps after ``>``; steps joined by ``|`` arrive in one read. The answers must be those after ``<``."""
    script = split(*scripts)
    transcript = []
    for line in script:
        if line.startswith("> "):
            transcript += [line, *say(peer, line[2:])]
    assert transcript == script


def appended(services: ChatFixture) -> list[tuple[str, str | None]]:
    """The texts that the journal was given, each with its recipient."""
    batches = services.journal.appended
    return [(text, batch.recipient.name if batch.recipient else None) for batch in batches for text in batch.texts]


# --- login ---
@pytest.mark.parametrize("name", ["Carol", "ex", "PING"])
@pytest.mark.parametrize("password", ["secret", "PM", "ch", " two words ", "alice bm-pm"])
def test_keyword_may_be_a_name_or_password(services: ChatFixture, stranger: UserPeer, name: str, password: str) -> None:
    play(stranger, f"> C {name}   < C PASSWORD new", f"> C {password}   < C WELCOME new")
    assert services.presence.names() == (name,)
    assert services.accounts.by_key[name.lower()].password_hash == password[::-1]


@pytest.mark.parametrize(
    ("name", "welcome", "public"),
    [
        (" ALICE ", "existing", "PM"),
        ("alice pm-dm", "existing", "PM"),
        ("alice bm-pm", "existing", "BM"),
        ("alice history-id", f"existing {HISTORY_ID}", "PM"),
        ("alice bm-pm  history-id ", f"existing {HISTORY_ID}", "BM"),
        ("alice history-id pm-dm", f"existing {HISTORY_ID}", "PM"),
    ],
)
@pytest.mark.parametrize("refused", ["", "no-name bm-pm", "ALL pm-dm", "x bm-pm pm-dm", "x history-id history-id"])
def test_options_of_the_name_last_through_wrong_passwords(
    services: ChatFixture, stranger: UserPeer, name: str, welcome: str, public: str, refused: str
) -> None:
    """Options of an earlier, refused name have no effect."""
    (error,) = say(stranger, f"C {refused}")
    assert error.startswith("< C ERROR ")
    play(
        stranger,
        f"> C {name}   < C PASSWORD existing",
        "> C wrong   < C DENIED",
        f"> C secret   < C WELCOME {welcome}",
        f"> C {public}   < C READY",
    )
    assert services.presence.names() == ("Alice",)


def test_leave_before_the_login(services: ChatFixture, stranger: UserPeer) -> None:
    play(stranger, "> C EX | C alice   < C BYE   (the end)")
    assert services.accounts.find("EX") is None


# --- operations ---
@pytest.mark.parametrize(
    ("keywords", "public", "direct", "foreign"), [("pm-dm", "PM", "DM", "BM"), ("bm-pm", "BM", "PM", "DM")]
)
@pytest.mark.parametrize("spell", [str.upper, str.title, " {} ".format])
def test_each_keyword_set_has_its_operations_in_any_case(
    services: ChatFixture, stranger: UserPeer, keywords: str, public: str, direct: str, foreign: str, spell: type[str]
) -> None:
    public, direct, history, leave, users, ping = map(spell, [public, direct, "CH", "EX", "USERS", "PING"])
    say(stranger, f"C alice {keywords} | C secret")
    services.messages.stored = (PublicMessage(3, 4, "bob", "hello"), DirectMessage(5, 6, "bob", "Alice", ""))
    play(
        stranger,
        f"> C {foreign}   < C ERROR unknown_command",
        f"> C {public}   < C READY",
        "> D hello everybody   < C SENT 11",
        f"> C {direct}   < C ONLINE Alice",
        "> C  BOB",
        "> D hello you   < C STORED 12",
        f"> C {users}   < C ONLINE Alice",
        f"> C {ping}   < C PONG",
    )
    assert say(stranger, f"C {history}") == ["< C HISTORY 2", "< D PUBLIC bob 3 4\nhello", "< D DIRECT bob 5 6\n"]
    play(stranger, f"> C {leave}   < C BYE   (the end)")
    assert appended(services) == [("hello everybody", None), ("hello you", "bob")]


@pytest.mark.parametrize(("asked", "limit"), [("CH", 50), ("ch 7", 7), ("CH 500", 500)])
def test_history_has_its_default_or_a_limit(services: ChatFixture, alice: UserPeer, asked: str, limit: int) -> None:
    services.messages.asked.clear()
    play(alice, f"> C {asked}   < C HISTORY 0", EXPECTS_OPERATION)
    assert [each[-1] for each in services.messages.asked] == [limit]


@pytest.mark.parametrize("text", ["  hello\n", "C PM", "\0", "a\r\nb", "\u20ac" * 2_730, "EX"])
def test_text_is_taken_unchanged(services: ChatFixture, alice: UserPeer, text: str) -> None:
    hear(alice, [Command("PM"), Data(text), Command("DM"), Command("bob"), Data(text)])
    assert appended(services) == [(text, None), (text, "bob")]


# --- unexpected and invalid steps ---

# Steps, and the code of the error, before the login and after the prompt. The same step is expected afterwards.
BEFORE_LOGIN = {
    **dict.fromkeys(["D hello", "D ", "C PM", "C DM", "C BM", "C CH"], "not_logged_in"),
    **dict.fromkeys(["C no-name", "C ", "C all", f"C {'x' * 33}", "C алиса", "C alice\nPM"], "bad_username"),
    **dict.fromkeys(["C alice dm-pm", "C alice bm-pm bm-pm", *list(UNREADABLE)[::2]], "bad_request"),
}
AFTER_PROMPT = {
    **dict.fromkeys(["D secret", "D ", "C ", *list(UNREADABLE)[::2]], "bad_request"),
    f"C {'x' * 1_025}": "too_long",
}


@pytest.mark.parametrize(("step", "code"), BEFORE_LOGIN.items(), ids=lambda value: value[:20])
def test_invalid_name_is_refused_and_a_name_expected(stranger: UserPeer, step: str, code: str) -> None:
    for _ in range(5):
        assert say(stranger, step) == [f"< C ERROR {code}"]
    play(stranger, "> C alice   < C PASSWORD existing")


@pytest.mark.parametrize(("step", "code"), AFTER_PROMPT.items(), ids=lambda value: value[:20])
def test_invalid_password_is_refused_and_a_password_expected(stranger: UserPeer, step: str, code: str) -> None:
    """It does not count as a wrong password."""
    play(stranger, "> C alice bm-pm   < C PASSWORD existing")
    for _ in range(5):
        assert say(stranger, step) == [f"< C ERROR {code}"]
    play(stranger, "> C secret   < C WELCOME existing   > C BM   < C READY")


@pytest.mark.parametrize(
    ("way", "unexpected"),
    [
        (None, ["D hello", "D ", f"D {TOO_LONG}"]),
        ("C PM", ["C hello", "C PM", "C EX", "C "]),
        ("C DM", ["D hello", "D "]),
        ("C DM | C bob", ["C hello", "C EX", "C PING"]),
    ],
)
def test_unexpected_step_is_refused_and_an_operation_expected(
    services: ChatFixture, alice: UserPeer, way: str | None, unexpected: list[str]
) -> None:
    for step in [*unexpected, "(not UTF-8)", "(half a frame, and the end)"]:
        if way is not None:
            say(alice, way)
        assert say(alice, step) == ["< C ERROR bad_request"]
        play(alice, EXPECTS_OPERATION)
    assert appended(services) == []


@pytest.mark.parametrize(
    ("step", "code"),
    [
        *((f"C {text}", "unknown_command") for text in ("NOPE", "", "PM hello", "USERS all", "EX now", "P\u041c")),
        *((f"C CH {limit}", "bad_request") for limit in ("0", "501", "-1", "x", "1 2", "\u0663", "9" * 60_000)),
    ],
    ids=lambda value: value[:20],
)
def test_unknown_operation_is_refused(alice: UserPeer, step: str, code: str) -> None:
    play(alice, f"> {step}   < C ERROR {code}", EXPECTS_OPERATION)


@pytest.mark.parametrize("name", ["nobody", "", "ALL", "not a name"])
def test_message_to_an_unknown_user_is_refused(services: ChatFixture, alice: UserPeer, name: str) -> None:
    play(alice, f"> C DM   < C ONLINE Alice   > C {name}   > D psst   < C NOUSER {name}", EXPECTS_OPERATION)
    assert appended(services) == []


@pytest.mark.parametrize(("text", "code"), [("", "empty_message"), (" \t", "empty_message"), ("é" * 4_097, "too_long")])
@pytest.mark.parametrize("way", ["C PM", "C DM | C bob", "C DM | C nobody"])
def test_invalid_message_is_refused(services: ChatFixture, alice: UserPeer, way: str, text: str, code: str) -> None:
    say(alice, way)
    assert hear(alice, [Data(text)]) == [f"< C ERROR {code}"]
    play(alice, EXPECTS_OPERATION)
    assert appended(services) == []


@pytest.mark.parametrize("way", [None, "C alice", "C alice | C secret", "C alice | C secret | C PM"])
def test_invalid_frame_ends_the_session(stranger: UserPeer, way: str | None) -> None:
    if way:
        say(stranger, way)
    answers = say(stranger, "(no frame)")
    assert answers == ["< C ERROR bad_request", "< C BYE the connection can't be read any further", "(the end)"]


@pytest.mark.parametrize(
    ("keywords", "steps"),
    [
        ("pm-dm", ["C PM", "D a text"]),
        ("pm-dm", ["C DM", "C bob", "D a text"]),
        ("bm-pm", ["C BM", "D a text"]),
        ("bm-pm", ["C PM", "C bob", "D a text"]),
    ],
)
def test_incomplete_message_is_never_sent(keywords: str, steps: list[str]) -> None:
    """It may end with the connection, a timeout, an invalid step or an unexpected one."""
    ends: list[list[str]] = [[], *([each] for each in UNREADABLE), ["C EX"], ["D ", "C EX"]]
    for length, end, in_one_read in product(range(len(steps)), ends, [True, False]):
        services = ChatFixture()
        services.accounts.add("bob", "terces")
        peer = services.connect()
        say(peer, f"C alice {keywords} | C secret")
        requests = [request for step in [*steps[:length], *end] for request in read_steps(step)]
        for read in [requests] if in_one_read else [[request] for request in requests]:
            peer.session.handle(read)
        peer.session.time_out()
        peer.session.end()
        assert appended(services) == [], (length, end)


# --- pipelined steps ---
def test_pipelined_steps_are_answered_in_order(services: ChatFixture, alice: UserPeer) -> None:
    """Answers that need the disk, and the answers after them, come in the order of the steps."""
    services.journal.holds_back = True
    services.messages.stored = (PublicMessage(3, 4, "bob", "hello"),)
    heard = say(
        alice,
        "C PM | D one | C DM | C bob | D two | C DM | C nobody | D three | C PM | D  | C PM | D four"
        " | C CH | C NOPE | C PM | D five | C EX",
    )
    assert [line for line in heard if line not in ("< C READY", "< C ONLINE Alice")] == split(
        "< C SENT 11   < C STORED 12   < C NOUSER nobody   < C ERROR empty_message   < C SENT 13   < C HISTORY 1",
        "< D PUBLIC bob 3 4\nhello   < C ERROR unknown_command   < C SENT 14   < C BYE   (the end)",
    )
    assert heard.count("< C READY") == 4
    assert heard.count("< C ONLINE Alice") == 2


@pytest.mark.parametrize("in_one_read", [False, True])
def test_answers_that_need_no_disk_do_not_wait(services: ChatFixture, alice: UserPeer, in_one_read: bool) -> None:
    services.journal.holds_back = True
    steps = read_steps("C PM | D one | C PING | C USERS | C PM")
    reads = [steps] if in_one_read else [[step] for step in steps]
    heard = [line for read in reads for line in hear(alice, read)]
    assert heard == ["< C READY", "< C PONG", "< C ONLINE Alice", "< C READY"]
    assert alice.send_queue.waiting == []
    assert say(alice, "D two | C CH") == ["< C SENT 11", "< C SENT 12", "< C HISTORY 0"]


def test_ready_is_sent_with_the_confirmation_of_a_pipelined_message(services: ChatFixture, alice: UserPeer) -> None:
    """One system call for both is half the cost of a message. A READY that the client waits for is sent at once."""
    services.journal.holds_back = True
    say(alice, "C PM | D one | C PM | D two")
    assert alice.send_queue.waiting == [Ready(), Ready()]
    services.journal.wait_for_pending()
    assert alice.send_queue.waiting == []
    assert say(alice, "C PM") == ["< C READY"]
    assert alice.send_queue.waiting == []


# --- batches of public messages ---
def test_batch_and_neighbouring_messages_are_appended_together(services: ChatFixture, alice: UserPeer) -> None:
    one, two = read_steps("C PM | D one"), read_steps("C DM | C bob | D two | C PM")
    hear(alice, [*one, CommandBatch("PM", ["a", "b"]), *one, CommandBatch("PM", ["c", "d"]), *two])
    hear(alice, [Data("last"), CommandBatch("PM", ["e"])])
    texts = [[batch.texts for batch in batches] for batches in services.journal.batches]
    assert texts == [[["one", "a", "b", "one", "c", "d"]], [["two"]], [["last", "e"]]]
    assert [event for event in alice.received() if isinstance(event, PublicMessage)] == []
    assert hear(alice, [Command("EX"), CommandBatch("PM", ["f"])]) == ["< C BYE", "(the end)"]


WAYS = [
    *(None, "C alice", "C alice | C secret", "C alice bm-pm | C secret", "C alice | C secret | C PM"),
    *("C alice | C secret | C DM", "C alice | C secret | C DM | C bob", "C alice bm-pm | C secret | C PM | C bob"),
]


@pytest.mark.parametrize("way", WAYS)
def test_batch_is_answered_like_its_steps(way: str | None) -> None:
    """In any state, with valid texts or invalid ones. Only the place of READY may differ: it precedes its SENT."""

    def answers(requests: Sequence[Request]) -> tuple[list[str], int, list[tuple[str, str | None]]]:
        services = ChatFixture()
        services.journal.holds_back = True
        services.accounts.add("Alice", "terces")
        services.accounts.add("bob", "terces")
        peer = services.connect()
        heard = say(peer, way) if way else []
        heard += hear(peer, [*requests, Command("PM"), Data("after")])
        if heard[-1] != "(the end)":
            heard += hear(peer, [Command("CH")])
        in_order = [line for line in heard if line != "< C READY"]
        return in_order, len(heard) - len(in_order), appended(services)

    some_texts = [["a", "b", "c", "d"], ["a", TOO_LONG, "c", " "], ["", "b"], ["a"]]
    befores: list[list[Request]] = [[], [Command("PM"), Data("before")]]
    for command, texts, before in product(["PM", "BM", "pm", "CH", "EX", "secret"], some_texts, befores):
        batch = CommandBatch(command, texts)
        assert answers([*before, batch]) == answers([*before, *batch]), (before, batch)


def test_invalid_message_of_a_batch_is_refused_in_its_place(services: ChatFixture, alice: UserPeer) -> None:
    services.journal.holds_back = True
    heard = hear(alice, [CommandBatch("PM", ["one", "two", "", "three", TOO_LONG, "four"]), Command("CH")])
    assert [line for line in heard if line != "< C READY"] == split(
        "< C SENT 11   < C SENT 12   < C ERROR empty_message   < C SENT 13",
        "< C ERROR too_long   < C SENT 14   < C HISTORY 0",
    )
    assert heard.count("< C READY") == 6
    for at, line in enumerate(heard):
        if "SENT" in line:
            assert heard[:at].count("< C READY") > sum("SENT" in each for each in heard[:at])


def test_each_answer_waits_until_the_peer_reads(alice: UserPeer) -> None:
    """Promise: back-pressure. READY counts as an answer."""
    alice.send_queue.waits.clear()
    before = len(alice.send_queue.replies)
    hear(alice, [*CommandBatch("PM", ["a"] * 3), Command("PING"), *CommandBatch("PM", ["b"] * 2), Command("USERS")])
    assert alice.send_queue.waits == [before + 3, before + 3 + 1 + 2]


# --- faults of the server ---
def test_each_message_is_refused_during_shutdown(services: ChatFixture, alice: UserPeer) -> None:
    """Promise: shutdown."""
    services.shut_down()
    play(
        alice,
        "> C PM | D one | C PM | D two   < C READY   < C READY   < C ERROR shutting_down   < C ERROR shutting_down",
        "> C DM | C bob | D three | C PING   < C ONLINE Alice   < C ERROR shutting_down   < C PONG",
        EXPECTS_OPERATION,
    )
    assert hear(alice, [CommandBatch("PM", ["a", "b"])]) == ["< C READY"] * 2 + ["< C ERROR shutting_down"] * 2


@pytest.mark.parametrize("holds_back", [False, True])
def test_each_message_is_refused_if_the_disk_fails(services: ChatFixture, alice: UserPeer, holds_back: bool) -> None:
    """Promise: confirmed means stored."""
    services.journal.disk_refuses = Refused(ErrorCode.INTERNAL, "The disk is full.")
    services.journal.holds_back = holds_back
    heard = say(alice, "C PM | D one | C PM | D two | C DM | C bob | D three")
    heard += hear(alice, [CommandBatch("PM", ["a", "b"]), Command("CH")])
    answers = [line for line in heard if line not in ("< C READY", "< C ONLINE Alice")]
    assert answers == ["< C ERROR internal"] * 5 + ["< C HISTORY 0"]
    services.journal.disk_refuses = None
    assert say(alice, "C PM | D again | C CH")[-2:] == ["< C SENT 16", "< C HISTORY 0"]
