"""What was typed: operations in one line and step by step, in both traditions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.exchange import OpenDirect, OpenPublic
from chatclient.typed import Addressing, Due, Typed, Typing
from chatprotocol.operations import OPS
from chatprotocol.requests import AskHistory, AskUsers, Leave, Request, Say, Whisper


def feed(*lines: str, ops: str = "pm-dm") -> Typed:
    """What follows from the last of these lines."""
    dialogue = Typing(OPS[ops])
    return [dialogue.feed(line) for line in lines][-1]


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("@bob hello bob", Whisper("bob", "hello bob")),
        ("@Bob  two  blanks ", Whisper("Bob", "two  blanks")),
        ("@ALL hello", Say("hello")),
        ("@all hello", Say("hello")),
        ("@All hello", Say("hello")),
        ("@ALLY hello", Whisper("ALLY", "hello")),
        ("CH", AskHistory(50)),
        ("ch", AskHistory(50)),
        ("CH 1", AskHistory(1)),
        ("Ch  500 ", AskHistory(500)),
        ("CH 007", AskHistory(7)),
        ("EX", Leave()),
        ("ex", Leave()),
        (" Ex ", Leave()),
        ("EX now", Leave()),
        ("/quit", Leave()),
        ("/QUIT", Leave()),
        ("/users", AskUsers()),
        ("/Users", AskUsers()),
    ],
)
def test_these_mean_the_same_in_both_traditions(ops: str, line: str, request_: Request) -> None:
    assert feed(line, ops=ops) == Typed(request_)


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("PM hello everyone", Say("hello everyone")),
        ("pm hello", Say("hello")),
        ("Pm   hello ", Say("hello")),
        ("PM @bob hello", Say("@bob hello")),
        ("PM PM", Say("PM")),
        ("DM bob hello bob", Whisper("bob", "hello bob")),
        ("dm @bob hello", Whisper("bob", "hello")),
        ("DM ALL hello", Say("hello")),
        ("DM @all hello", Say("hello")),
    ],
)
def test_pm_is_public_and_dm_is_direct_by_default(line: str, request_: Request) -> None:
    assert feed(line) == Typed(request_)


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("BM hello everyone", Say("hello everyone")),
        ("bm hello", Say("hello")),
        ("PM bob hello bob", Whisper("bob", "hello bob")),
        ("pm @bob hello", Whisper("bob", "hello")),
        ("PM ALL hello", Say("hello")),
    ],
)
def test_bm_broadcasts_and_pm_is_private_in_the_other_tradition(line: str, request_: Request) -> None:
    assert feed(line, ops="bm-pm") == Typed(request_)


@pytest.mark.parametrize(("ops", "word"), [("pm-dm", "PM"), ("bm-pm", "BM")])
def test_a_public_message_step_by_step(ops: str, word: str) -> None:
    dialogue = Typing(OPS[ops])

    assert dialogue.feed(word) == Typed(OpenPublic(), question="message for everybody")
    assert dialogue.due is Due.PUBLIC_TEXT
    assert dialogue.feed("DM bob is text now") == Typed(Say("DM bob is text now"))
    assert dialogue.due is Due.OPERATION


@pytest.mark.parametrize(("ops", "word"), [("pm-dm", "dm"), ("bm-pm", "pm")])
def test_a_direct_message_step_by_step_shows_who_is_online_first(ops: str, word: str) -> None:
    dialogue = Typing(OPS[ops])

    assert dialogue.feed(word) == Typed(OpenDirect(), question="recipient")
    assert dialogue.feed(" @bob ") == Typed(question="message for bob")
    assert dialogue.feed("  hello bob ") == Typed(Whisper("bob", "  hello bob "))
    assert dialogue.due is Due.OPERATION


@pytest.mark.parametrize(
    "lines", [["DM", "two names"], ["DM", "@"], ["DM b\u00f6b hello"], ["@" + "x" * 33 + " hello"]]
)
def test_what_cannot_be_a_name_is_told_at_once_and_sends_nothing(lines: list[str]) -> None:
    complaint = feed(*lines).complaint
    assert complaint is not None
    assert complaint.startswith("A username is 1 to 32 letters and digits")


@pytest.mark.parametrize("name", ["ALL", "all", "@All"])
def test_a_message_to_all_step_by_step_is_as_public_as_in_one_line(name: str) -> None:
    assert feed("DM", name, "hello") == Typed(Say("hello"))


@pytest.mark.parametrize("steps", [["PM"], ["DM"], ["DM", "bob"]])
@pytest.mark.parametrize("nothing", ["", "   ", "\t"])
def test_an_empty_line_cancels_and_the_next_line_is_an_operation_again(steps: list[str], nothing: str) -> None:
    assert feed(*steps, nothing) == Typed(complaint="Nothing was typed; the operation is cancelled.")
    assert feed(*steps, nothing, "EX") == Typed(Leave())


def test_a_recipient_without_a_name_is_asked_for_in_vain() -> None:
    typed = feed("DM", "@")

    assert typed.complaint
    assert typed.question is None


@pytest.mark.parametrize("line", ["", " ", "\t"])
def test_an_empty_line_at_the_prompt_is_nothing(line: str) -> None:
    assert feed(line) == Typed()


@pytest.mark.parametrize(
    "line", ["hello everybody", "PMhello", "/unknown", "P M hello", "BM hello", "%wait x", "\u0130"]
)
def test_a_line_that_is_no_operation_is_not_sent_and_says_which_there_are(line: str) -> None:
    typed = feed(line)

    assert typed.wish is None
    assert typed.complaint is not None
    assert typed.complaint.startswith(f"{line.split(maxsplit=1)[0]} is no operation, so nothing was sent.")
    assert all(word in typed.complaint for word in ("PM", "DM", "CH", "EX", "/help"))


def test_a_complaint_names_the_words_of_the_tradition_that_is_in_use() -> None:
    complaint = feed("DM bob hello", ops="bm-pm").complaint

    assert complaint is not None
    assert "BM (to everybody), PM (to one user)" in complaint


@pytest.mark.parametrize("line", ["@bob", "DM bob", "DM bob  ", "@bob  ", "DM @bob"])
def test_a_direct_message_without_its_text_asks_for_it(line: str) -> None:
    for lines, ops in (((line,), "pm-dm"), ((line.replace("DM", "PM"),), "bm-pm")):
        assert feed(*lines, ops=ops) == Typed(question="message for bob")
        assert feed(*lines, " hello ", ops=ops) == Typed(Whisper("bob", " hello "))


@pytest.mark.parametrize("line", ["@", "@ hello", "DM @", "DM @ hello"])
def test_a_direct_message_needs_a_user(line: str) -> None:
    complaint = feed(line).complaint
    assert complaint is not None
    assert complaint.startswith("A username is 1 to 32 letters")


@pytest.mark.parametrize("number", ["0", "501", "-1", "1.5", "x", "5 6", "\u0665", "9" * 30, "9" * 5_000])
def test_history_takes_a_number_within_the_limit(number: str) -> None:
    assert feed(f"CH {number}") == Typed(complaint="CH takes a number from 1 to 500.")


@pytest.mark.parametrize("ops", OPS)
def test_help_has_a_line_for_each_operation(ops: str) -> None:
    assert feed("/help", ops=ops) == Typed(wants_help=True)
    *lines, way_out = Typing(OPS[ops]).help()
    assert [line.split()[0] for line in lines] == [*OPS[ops], "/users", "/history", "/reply", "/help", "/quit"]
    assert "an empty line" in way_out


@given(
    lines=st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["PM", "DM", "CH", "@bob", "DM bob"])), max_size=6)
)
def test_no_line_breaks_the_dialogue(lines: list[str]) -> None:
    dialogue = Typing(OPS["pm-dm"])
    for line in lines:
        typed = dialogue.feed(line)
        assert sum(map(bool, (typed.complaint, typed.wants_help, typed.wish or typed.question))) <= 1


# --- of a guest: every line says whom it is for ---


def feed_guest(*lines: str, ops: str = "pm-dm") -> Typed:
    """What follows from the last of these lines."""
    addressing = Addressing(OPS[ops])
    return [addressing.feed(line) for line in lines][-1]


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("@bob hello bob", Whisper("bob", "hello bob")),
        (" @Bob  two  blanks ", Whisper("Bob", "two  blanks")),
        ("@bob\thello", Whisper("bob", "hello")),
        ("@bob @carol hello", Whisper("bob", "@carol hello")),
        ("@bob EX", Whisper("bob", "EX")),
        ("@EX hello", Whisper("EX", "hello")),
        ("@ALL hello", Say("hello")),
        ("@all hello", Say("hello")),
        ("@ALLY hello", Whisper("ALLY", "hello")),
        ("EX", Leave()),
        (" ex ", Leave()),
        ("/quit", Leave()),
        ("/QUIT", Leave()),
    ],
)
def test_a_guest_writes_to_one_user_or_to_all_or_leaves(ops: str, line: str, request_: Request) -> None:
    assert feed_guest(line, ops=ops) == Typed(request_)


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "hello @bob",
        "bob hello",
        "PM hello",
        "BM hello",
        "DM bob hello",
        "CH",
        "CH 5",
        "/users",
        "EX now",
        "/quit now",
        "/help me",
        "@",
        "@bob",
        "@ALL",
        "@bob   ",
        "\uff20bob hello",
    ],
)
def test_any_other_line_of_a_guest_sends_nothing_and_says_what_can_be_typed(line: str) -> None:
    assert feed_guest(line) == Typed(complaint="Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves.")
    assert feed_guest(line, "@bob hello") == Typed(Whisper("bob", "hello"))


@pytest.mark.parametrize(
    "line", ["@ hello", "@b\u00f6b hello", "@server hello", "@two,names hello", f"@{'x' * 33} hello"]
)
def test_a_guest_is_told_at_once_what_cannot_be_a_name(line: str) -> None:
    typed = feed_guest(line)

    assert typed.wish is None
    assert typed.complaint is not None
    assert typed.complaint.endswith(" Nothing was sent.")


@pytest.mark.parametrize("line", ["", " ", "\t"])
def test_an_empty_line_of_a_guest_is_nothing(line: str) -> None:
    assert feed_guest(line) == Typed()


@pytest.mark.parametrize("line", ["/help", " /HELP "])
def test_the_help_of_a_guest_has_a_line_for_each_form(line: str) -> None:
    assert feed_guest(line) == Typed(wants_help=True)
    assert [row.split()[0] for row in Addressing(OPS["bm-pm"]).help()] == ["@USER", "@ALL", "EX", "/help", "/quit"]


def test_what_a_guest_is_hinted_and_asked_names_every_form_of_a_line() -> None:
    addressing = Addressing(OPS["pm-dm"])

    assert addressing.hint() == "Type @USER MESSAGE, @ALL MESSAGE or EX."
    assert addressing.prompt() == "@USER MESSAGE or @ALL MESSAGE"


@given(lines=st.lists(st.one_of(st.text(max_size=30), st.from_regex("@[a-z ]*"), st.just("@ALL")), max_size=6))
def test_no_line_of_a_guest_leads_into_a_dialogue(lines: list[str]) -> None:
    addressing = Addressing(OPS["pm-dm"])
    for line in lines:
        typed = addressing.feed(line)
        assert addressing.due is Due.OPERATION
        assert typed.question is None
        assert sum(map(bool, (typed.complaint, typed.wants_help, typed.wish))) <= 1
