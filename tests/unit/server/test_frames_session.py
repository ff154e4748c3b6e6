"""The server's half of frames in a session: what each step means, and the error for an unexpected one."""

import re
from itertools import product

import pytest

from chatprotocol.events import DirectMessage, PublicMessage
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.readers import FrameBuffer, frame
from chatserver.net.connection import with_own_answers

from .chat_fixture import HISTORY_ID, ChatFixture, Peer

# Invalid frames.
NOT_UTF8, NO_FRAME, HALF = "(not UTF-8)", "(no frame)", "(half a frame, and the end)"
UNREADABLE = {NOT_UTF8: b"C\0\0\0\1\xff", NO_FRAME: b"X", HALF: b"D\0\0"}
TOO_LONG = "x" * 8_193
# Shows that an operation is expected.
EXPECTS_OPERATION = "> C USERS   < C ONLINE Alice"


class FramesPeer:
    """A connection of a session and the server's half of frames."""

    def __init__(self, peer: Peer) -> None:
        self.session = peer.session
        self.send_queue = peer.send_queue
        self._frames = Frames().server()
        self.send_queue.encode = self._frames.encode
        self.received = peer.received

    def send(self, data: bytes) -> bool:
        """Send the data in one read. False if the session has ended."""
        found = self._frames.receive(data)
        return self.session.handle(with_own_answers(self._frames, self.session, self.send_queue, found))  # type: ignore[arg-type]

    def end(self) -> bool:
        """End the input."""
        return self.session.handle(self._frames.receive_end())


def connect(services: ChatFixture) -> FramesPeer:
    return FramesPeer(services.connect())


@pytest.fixture
def stranger(services: ChatFixture) -> FramesPeer:
    """A connection before the login."""
    return connect(services)


@pytest.fixture
def alice(stranger: FramesPeer) -> FramesPeer:
    """The same connection, logged in."""
    stranger.send(step("C alice") + step("C secret"))
    return stranger


def step(text: str) -> bytes:
    return UNREADABLE.get(text) or frame(ord(text[0]), text[2:].encode())


def public(*texts: str, keyword: str = "PM") -> bytes:
    """Public messages, in two steps each."""
    return b"".join(step(f"C {keyword}") + step(f"D {text}") for text in texts)


def shown(data: bytes) -> list[str]:
    """The frames of an answer; of errors without the reason."""
    frames = FrameBuffer(b"CD", 10_000_000).split(data)
    texts = [f"{chr(kind)} {payload.decode()}" for kind, payload in frames]
    return [re.sub(r"^(C ERROR \S+|C DENIED) .*", r"\1", text) for text in texts]


def hear(peer: FramesPeer, data: bytes, *, ends: bool = False) -> list[str]:
    """The answers to data that arrives in one read."""
    before = len(peer.send_queue.sent)
    goes_on = peer.send(data) and not (ends and not peer.end())
    said = [f"< {text}" for each in peer.send_queue.sent[before:] for text in shown(each)]
    return said if goes_on else [*said, "(the end)"]


def say(peer: FramesPeer, steps: str) -> list[str]:
    """The answers to steps, separated by bars, that arrive in one read."""
    texts = steps.split(" | ")
    return hear(peer, b"".join(map(step, texts)), ends=texts[-1] == HALF)


def split(*scripts: str) -> list[str]:
    """The lines of scripts, in which three spaces separate a step and its answers."""
    return [line for script in scripts for line in re.split(r"   (?=[<>(])", script)]


def play(peer: FramesPeer, *scripts: str) -> None:
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
    return [(text, getattr(batch, "recipient", None)) for batch in batches for text in batch.texts]


# --- login ---
@pytest.mark.parametrize("name", ["Carol", "ex", "PING"])
@pytest.mark.parametrize("password", ["secret", "PM", "ch", " two words ", "alice bm-pm"])
def test_keyword_may_be_a_name_or_password(
    services: ChatFixture, stranger: FramesPeer, name: str, password: str
) -> None:
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
    services: ChatFixture, stranger: FramesPeer, name: str, welcome: str, public: str, refused: str
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


def test_leave_before_the_login(services: ChatFixture, stranger: FramesPeer) -> None:
    play(stranger, "> C EX | C alice   < C BYE   (the end)")
    assert services.accounts.find("EX") is None


# --- operations ---
@pytest.mark.parametrize(
    ("keywords", "public", "direct", "foreign"), [("pm-dm", "PM", "DM", "BM"), ("bm-pm", "BM", "PM", "DM")]
)
@pytest.mark.parametrize("spell", [str.upper, str.title, " {} ".format])
def test_each_keyword_set_has_its_operations_in_any_case(
    services: ChatFixture, stranger: FramesPeer, keywords: str, public: str, direct: str, foreign: str, spell: type[str]
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
def test_history_has_its_default_or_a_limit(services: ChatFixture, alice: FramesPeer, asked: str, limit: int) -> None:
    services.messages.asked.clear()
    play(alice, f"> C {asked}   < C HISTORY 0", EXPECTS_OPERATION)
    assert [each[-1] for each in services.messages.asked] == [limit]


# --- unexpected and invalid steps ---

LOGIN = "C alice | C secret"
NOT_SENT = {"empty_message": ["D ", "D  \t"], "too_long": [f"D {'é' * 4_097}"]}
# By the steps before them: the codes of errors, each with the invalid steps.
INVALID: dict[str, dict[str, list[str]]] = {
    "": {
        "not_logged_in": ["D hello", "D ", "C PM", "C DM", "C BM", "C CH"],
        "bad_username": ["C no-name", "C ", "C all", f"C {'x' * 33}", "C алиса", "C alice\nPM"],
        "bad_request": ["C alice dm-pm", "C alice bm-pm bm-pm", NOT_UTF8],
    },
    "C alice bm-pm": {"bad_request": ["D secret", "D ", "C ", NOT_UTF8], "too_long": [f"C {'x' * 1_025}"]},
    LOGIN: {
        "unknown_command": ["C NOPE", "C ", "C PM hello", "C USERS all", "C EX now", "C P\u041c"],
        "bad_request": [
            *("D hello", "D ", f"D {TOO_LONG}", NOT_UTF8),
            *(f"C CH {limit}" for limit in ("0", "501", "-1", "x", "1 2", "\u0663", "9" * 60_000)),
        ],
    },
    f"{LOGIN} | C PM": {"bad_request": ["C hello", "C PM", "C EX", "C ", NOT_UTF8], **NOT_SENT},
    f"{LOGIN} | C DM": {"bad_request": ["D hello", "D ", NOT_UTF8]},
    f"{LOGIN} | C DM | C bob": {"bad_request": ["C hello", "C EX", "C PING", NOT_UTF8], **NOT_SENT},
    f"{LOGIN} | C DM | C nobody": NOT_SENT,
}
# The expected step after an invalid one, by state; in all others it is an operation.
EXPECTED = {
    "": "> C alice   < C PASSWORD existing",
    "C alice bm-pm": "> C secret   < C WELCOME existing   > C BM   < C READY",
}


@pytest.mark.parametrize("way", INVALID)
def test_invalid_step_is_refused_and_the_session_goes_on(services: ChatFixture, way: str) -> None:
    """An invalid password does not count as a wrong one."""
    for code, steps in INVALID[way].items():
        for step in steps:
            peer = connect(services)
            if way:
                say(peer, way)
            for _ in range(3 if way in EXPECTED else 1):
                assert say(peer, step) == [f"< C ERROR {code}"], step
            play(peer, EXPECTED.get(way, EXPECTS_OPERATION))
    assert appended(services) == []


@pytest.mark.parametrize("name", ["nobody", "", "ALL", "not a name"])
def test_message_to_an_unknown_user_is_refused(services: ChatFixture, alice: FramesPeer, name: str) -> None:
    play(alice, f"> C DM   < C ONLINE Alice   > C {name}   > D psst   < C NOUSER {name}", EXPECTS_OPERATION)
    assert appended(services) == []


@pytest.mark.parametrize("way", [None, "C alice", "C alice | C secret", "C alice | C secret | C PM"])
def test_invalid_frame_ends_the_session(stranger: FramesPeer, way: str | None) -> None:
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
        peer = connect(services)
        say(peer, f"C alice {keywords} | C secret")
        sent = [*steps[:length], *end]
        for read in [" | ".join(sent)] if in_one_read and sent else sent:
            say(peer, read)
        peer.session.time_out(60.0)
        peer.session.end()
        assert appended(services) == [], (length, end)


# --- pipelined steps ---
def test_pipelined_steps_are_answered_in_order(services: ChatFixture, alice: FramesPeer) -> None:
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
def test_answers_that_need_no_disk_do_not_wait(services: ChatFixture, alice: FramesPeer, in_one_read: bool) -> None:
    services.journal.holds_back = True
    steps = "C PM | D one | C PING | C USERS | C PM"
    heard = [line for read in ([steps] if in_one_read else steps.split(" | ")) for line in say(alice, read)]
    assert heard == ["< C READY", "< C PONG", "< C ONLINE Alice", "< C READY"]
    assert alice.send_queue.waiting == []
    assert say(alice, "D two | C CH") == ["< C SENT 11", "< C SENT 12", "< C HISTORY 0"]


def test_ready_is_sent_with_the_confirmation_of_a_pipelined_message(services: ChatFixture, alice: FramesPeer) -> None:
    """One system call for both is half the cost of a message. A READY that the client waits for is sent at once."""
    services.journal.holds_back = True
    say(alice, "C PM | D one | C PM | D two | C PM")
    assert list(map(shown, alice.send_queue.waiting)) == [["C READY"]] * 3
    services.journal.wait_for_pending()
    assert alice.send_queue.waiting == []
    say(alice, "D three")
    services.journal.wait_for_pending()
    assert say(alice, "C PM") == ["< C READY"]
    assert alice.send_queue.waiting == []


# --- batches of public messages ---
def test_batch_and_neighbouring_messages_are_appended_together(services: ChatFixture, alice: FramesPeer) -> None:
    hear(alice, public("one", "a", "b", "c", "d") + b"".join(map(step, ["C DM", "C bob", "D two", "C PM"])))
    hear(alice, step("D last") + public("e", "f", "g", "h", "i"))
    texts = [[batch.texts for batch in batches] for batches in services.journal.batches]
    assert texts == [[["one", "a", "b", "c", "d"]], [["two"]], [["last", "e", "f", "g", "h", "i"]]]
    assert [event for event in alice.received() if isinstance(event, PublicMessage)] == []
    assert hear(alice, step("C EX") + public(*"abcdef")) == ["< C BYE", "(the end)"]


WAYS = [
    *(None, "C alice", "C alice | C secret", "C alice bm-pm | C secret", "C alice | C secret | C PM"),
    *("C alice | C secret | C DM", "C alice | C secret | C DM | C bob", "C alice bm-pm | C secret | C PM | C bob"),
]


@pytest.mark.parametrize("way", WAYS)
def test_batch_is_answered_like_its_steps(way: str | None) -> None:
    """In any state, with valid texts or invalid ones. Only the place of READY may differ: it precedes its SENT."""

    def answers(reads: list[bytes]) -> tuple[list[str], int, list[tuple[str, str | None]]]:
        services = ChatFixture()
        services.journal.holds_back = True
        services.accounts.add("Alice", "terces")
        services.accounts.add("bob", "terces")
        peer = connect(services)
        heard = say(peer, way) if way else []
        for data in [*reads, public("after")]:
            if "(the end)" not in heard:
                heard += hear(peer, data)
        if heard[-1] != "(the end)":
            heard += say(peer, "C CH")
        in_order = [line for line in heard if line != "< C READY"]
        return in_order, len(heard) - len(in_order), appended(services)

    some_texts = [["a", "b", "c", "d", "e"], ["a", TOO_LONG, "c", " ", "e"], ["", "b", "c", "d", "e"]]
    for keyword, texts, before in product(
        ["PM", "BM", "pm", "CH", "EX", "secret"], some_texts, [b"", public("before")]
    ):
        single = [step(each) for text in texts for each in (f"C {keyword}", f"D {text}")]
        whole = [before + b"".join(single)]
        assert answers(whole) == answers([before, *single]), (before, keyword, texts)
