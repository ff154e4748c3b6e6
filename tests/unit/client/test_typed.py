"""What was typed: operations in one line and step by step, in both traditions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.cli.input import Addressing, Due, InputParser, ParsedInput
from chatclient.client_protocol import OpenDirect, OpenPublic
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import AskHistory, AskUser, AskUsers, Leave, Request, Say, Search, Whisper


def feed(*lines: str, ops: str = "pm-dm") -> ParsedInput:
    """What follows from the last of these lines."""
    dialogue = InputParser(KEYWORD_SETS[ops])
    return [dialogue.parse_line(line) for line in lines][-1]


@pytest.mark.parametrize("ops", KEYWORD_SETS)
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
    assert feed(line, ops=ops) == ParsedInput(request_)


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
    assert feed(line) == ParsedInput(request_)


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
    assert feed(line, ops="bm-pm") == ParsedInput(request_)


@pytest.mark.parametrize(("ops", "word"), [("pm-dm", "PM"), ("bm-pm", "BM")])
def test_a_public_message_step_by_step(ops: str, word: str) -> None:
    dialogue = InputParser(KEYWORD_SETS[ops])

    assert dialogue.parse_line(word) == ParsedInput(OpenPublic(), question="message for everybody")
    assert dialogue.due is Due.PUBLIC_TEXT
    assert dialogue.parse_line("DM bob is text now") == ParsedInput(Say("DM bob is text now"))
    assert dialogue.due is Due.OPERATION


@pytest.mark.parametrize(("ops", "word"), [("pm-dm", "dm"), ("bm-pm", "pm")])
def test_a_direct_message_step_by_step_shows_who_is_online_first(ops: str, word: str) -> None:
    dialogue = InputParser(KEYWORD_SETS[ops])

    assert dialogue.parse_line(word) == ParsedInput(OpenDirect(), question="recipient")
    assert dialogue.parse_line(" @bob ") == ParsedInput(question="message for bob")
    assert dialogue.parse_line("  hello bob ") == ParsedInput(Whisper("bob", "  hello bob "))
    assert dialogue.due is Due.OPERATION


@pytest.mark.parametrize(
    "lines", [["DM", "two names"], ["DM", "@"], ["DM b\u00f6b hello"], ["@" + "x" * 33 + " hello"]]
)
def test_what_cannot_be_a_name_is_told_at_once_and_sends_nothing(lines: list[str]) -> None:
    error = feed(*lines).error
    assert error is not None
    assert error.startswith("A username is 1 to 32 letters and digits")


@pytest.mark.parametrize("name", ["ALL", "all", "@All"])
def test_a_message_to_all_step_by_step_is_as_public_as_in_one_line(name: str) -> None:
    assert feed("DM", name, "hello") == ParsedInput(Say("hello"))


@pytest.mark.parametrize("steps", [["PM"], ["DM"], ["DM", "bob"]])
@pytest.mark.parametrize("nothing", ["", "   ", "\t"])
def test_an_empty_line_cancels_and_the_next_line_is_an_operation_again(steps: list[str], nothing: str) -> None:
    assert feed(*steps, nothing) == ParsedInput(error="Nothing was typed; the operation is cancelled.")
    assert feed(*steps, nothing, "EX") == ParsedInput(Leave())


@pytest.mark.parametrize(
    ("recipient", "talks", "is_json", "action"),
    [
        ("eve", True, True, AskUser("eve")),
        ("@eve", True, True, AskUser("eve")),
        ("BOB", True, True, None),  # is online
        ("dave", True, True, None),  # wrote a direct message
        ("all", True, True, None),
        ("eve", False, True, None),
        ("eve", True, False, None),
    ],
)
def test_at_a_terminal_it_is_asked_whether_there_is_a_user_who_is_not_online(
    recipient: str, talks: bool, is_json: bool, action: AskUser | None
) -> None:
    for first in ("DM", f"DM {recipient}"):
        parser = InputParser(KEYWORD_SETS["pm-dm"], talks=talks, is_json=is_json)
        parser.names = ("bob",)
        parser.correspondent = "dave"
        parsed = parser.parse_line(first)
        if first == "DM":
            parsed = parser.parse_line(recipient)

        assert parsed == ParsedInput(action, question=f"message for {recipient.removeprefix('@')}")


def test_a_recipient_without_a_name_is_asked_for_in_vain() -> None:
    parsed = feed("DM", "@")

    assert parsed.error
    assert parsed.question is None


@pytest.mark.parametrize("line", ["", " ", "\t"])
def test_an_empty_line_at_the_prompt_is_nothing(line: str) -> None:
    assert feed(line) == ParsedInput()


@pytest.mark.parametrize(
    "line", ["hello everybody", "PMhello", "/unknown", "P M hello", "BM hello", "%wait x", "\u0130"]
)
def test_a_line_that_is_no_operation_is_not_sent_and_says_which_there_are(line: str) -> None:
    parsed = feed(line)

    assert parsed.action is None
    assert parsed.error is not None
    assert parsed.error.startswith(f"{line.split(maxsplit=1)[0]} is no operation, so nothing was sent.")
    assert all(word in parsed.error for word in ("PM", "DM", "CH", "EX", "/help"))


@pytest.mark.parametrize("line", ["/quiet", "/JOINS"])
def test_a_command_of_the_terminal_is_named_as_such_in_a_pipe(line: str) -> None:
    """It is in the documentation, so it is no slip for another one (/quiet is near /quit)."""
    assert feed(line) == ParsedInput(error=f"There is {line} only at a terminal, so nothing was done.")


@pytest.mark.parametrize(("ops", "public", "direct"), [("pm-dm", "PM", "DM"), ("bm-pm", "BM", "PM")])
def test_the_help_names_other_names_once_and_fits_beside_the_gutter(ops: str, public: str, direct: str) -> None:
    """Of a window of 100 columns the gutter takes 25."""
    lines = at_terminal(ops=ops).help()
    assert max(map(len, lines)) <= 75
    assert f"{public} [MESSAGE]        a message to everybody (also: @ALL)" in lines
    assert f"{direct} [USER [MESSAGE]] a message to one user (also: @USER, /msg, /w)" in lines


def test_a_complaint_names_the_words_of_the_tradition_that_is_in_use() -> None:
    error = feed("DM bob hello", ops="bm-pm").error

    assert error is not None
    assert "BM (to everybody), PM (to one user)" in error


@pytest.mark.parametrize("line", ["@bob", "DM bob", "DM bob  ", "@bob  ", "DM @bob"])
def test_a_direct_message_without_its_text_asks_for_it(line: str) -> None:
    for lines, ops in (((line,), "pm-dm"), ((line.replace("DM", "PM"),), "bm-pm")):
        assert feed(*lines, ops=ops) == ParsedInput(question="message for bob")
        assert feed(*lines, " hello ", ops=ops) == ParsedInput(Whisper("bob", " hello "))


@pytest.mark.parametrize("line", ["@", "@ hello", "DM @", "DM @ hello"])
def test_a_direct_message_needs_a_user(line: str) -> None:
    error = feed(line).error
    assert error is not None
    assert error.startswith("A username is 1 to 32 letters")


@pytest.mark.parametrize("number", ["0", "501", "-1", "1.5", "x", "5 6", "\u0665", "9" * 30, "9" * 5_000])
def test_history_takes_a_number_within_the_limit(number: str) -> None:
    assert feed(f"CH {number}") == ParsedInput(error=f"CH takes a number from 1 to 500, not {number[:32]!r}.")


@pytest.mark.parametrize("ops", KEYWORD_SETS)
def test_help_has_a_line_for_each_operation(ops: str) -> None:
    assert feed("/help", ops=ops) == ParsedInput(wants_help=True)
    *lines, way_out = InputParser(KEYWORD_SETS[ops]).help()
    assert [line.split()[0] for line in lines] == [
        *KEYWORD_SETS[ops],
        "/me",
        "/users",
        "/history",
        "/reply",
        "/help",
        "/quit",
    ]
    assert "an empty line" in way_out


@given(
    lines=st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["PM", "DM", "CH", "@bob", "DM bob"])), max_size=6)
)
def test_no_line_breaks_the_dialogue(lines: list[str]) -> None:
    dialogue = InputParser(KEYWORD_SETS["pm-dm"])
    for line in lines:
        parsed = dialogue.parse_line(line)
        assert sum(map(bool, (parsed.error, parsed.wants_help, parsed.action or parsed.question))) <= 1


# --- of a guest: every line says whom it is for ---


def feed_guest(*lines: str, ops: str = "pm-dm") -> ParsedInput:
    """What follows from the last of these lines."""
    addressing = Addressing(KEYWORD_SETS[ops])
    return [addressing.parse_line(line) for line in lines][-1]


@pytest.mark.parametrize("ops", KEYWORD_SETS)
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
    assert feed_guest(line, ops=ops) == ParsedInput(request_)


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
    assert feed_guest(line) == ParsedInput(error="Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves.")
    assert feed_guest(line, "@bob hello") == ParsedInput(Whisper("bob", "hello"))


@pytest.mark.parametrize(
    "line", ["@ hello", "@b\u00f6b hello", "@server hello", "@two,names hello", f"@{'x' * 33} hello"]
)
def test_a_guest_is_told_at_once_what_cannot_be_a_name(line: str) -> None:
    parsed = feed_guest(line)

    assert parsed.action is None
    assert parsed.error is not None
    assert parsed.error.endswith(" Nothing was sent.")


@pytest.mark.parametrize("line", ["", " ", "\t"])
def test_an_empty_line_of_a_guest_is_nothing(line: str) -> None:
    assert feed_guest(line) == ParsedInput()


@pytest.mark.parametrize("line", ["/help", " /HELP "])
def test_the_help_of_a_guest_has_a_line_for_each_form(line: str) -> None:
    assert feed_guest(line) == ParsedInput(wants_help=True)
    assert [row.split()[0] for row in Addressing(KEYWORD_SETS["bm-pm"]).help()] == [
        "@USER",
        "@ALL",
        "EX",
        "/help",
        "/quit",
    ]


def test_what_a_guest_is_hinted_and_asked_names_every_form_of_a_line() -> None:
    addressing = Addressing(KEYWORD_SETS["pm-dm"])

    assert addressing.hint() == "Type @USER MESSAGE, @ALL MESSAGE or EX."
    assert addressing.prompt() == "@USER MESSAGE or @ALL MESSAGE"


@given(lines=st.lists(st.one_of(st.text(max_size=30), st.from_regex("@[a-z ]*"), st.just("@ALL")), max_size=6))
def test_no_line_of_a_guest_leads_into_a_dialogue(lines: list[str]) -> None:
    addressing = Addressing(KEYWORD_SETS["pm-dm"])
    for line in lines:
        parsed = addressing.parse_line(line)
        assert addressing.due is Due.OPERATION
        assert parsed.question is None
        assert sum(map(bool, (parsed.error, parsed.wants_help, parsed.action))) <= 1


# --- where somebody talks, at a terminal ---


def at_terminal(ops: str = "pm-dm", *, is_json: bool = True) -> InputParser:
    """Somebody who sees alice, bob and Carol online, and to whom bob has written."""
    parser = InputParser(KEYWORD_SETS[ops], talks=True, is_json=is_json)
    parser.names = ("bob", "alice", "Carol")
    parser.correspondent = "bob"
    return parser


@pytest.mark.parametrize("ops", KEYWORD_SETS)
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("hello everybody", "hello everybody"),
        ("  hello  everybody ", "hello  everybody"),
        ("hello", "hello"),
        ("PMs are fine", "PMs are fine"),
        ("one\ntwo", "one\ntwo"),
        ("one\n/quit", "one\n/quit"),
        ("bob: hello", "bob: hello"),
        ("bob hello", "bob hello"),
        ("exit the room now", "exit the room now"),
        ("help me", "help me"),
        ("?!", "?!"),
        ("a/b", "a/b"),
        ("md nobody secret", "md nobody secret"),
        ("MD bob", "MD bob"),
        ("\u0130", "\u0130"),
    ],
)
def test_a_plain_line_at_a_terminal_is_a_public_message(ops: str, line: str, text: str) -> None:
    assert at_terminal(ops).parse_line(line) == ParsedInput(Say(text))


@pytest.mark.parametrize(
    ("ops", "line", "says"),
    [
        ("pm-dm", "/unknown", "/help"),
        ("pm-dm", "/user", "Do you mean /users?"),
        ("pm-dm", "/UESRS", "Do you mean /users?"),
        ("pm-dm", "/histroy 5", "Do you mean /history?"),
        ("pm-dm", "/me", "/me waves"),
        ("pm-dm", "//", "/help"),
        ("pm-dm", "/", "/help"),
        ("pm-dm", "/\nsecret", "/help"),
        ("pm-dm", "BM hello", "PM (to everybody)"),
        ("pm-dm", "bm hello", "PM (to everybody)"),
        ("bm-pm", "DM bob hello", "PM (to one user)"),
        ("pm-dm", "exit", "Type /quit"),
        ("pm-dm", "QUIT", "Type /quit"),
        ("pm-dm", " Logout ", "Type /quit"),
        ("pm-dm", "help", "Type /help"),
        ("pm-dm", "?", "Type /help"),
        ("bm-pm", "exit", "BM exit"),
        ("pm-dm", "MD bob secret", "DM bob ... writes to bob"),
        ("pm-dm", "md BOB secret", "writes to BOB"),
        ("pm-dm", "MD nobody secret", "DM nobody ... writes to nobody"),
        ("pm-dm", "DN bob secret", "DM bob"),
        ("pm-dm", "DMM bob secret", "DM bob"),
        ("pm-dm", "D bob secret", "DM bob"),
        ("pm-dm", "sm bob secret", "DM bob"),
        ("bm-pm", "MP bob secret", "PM bob ... writes to bob"),
        ("pm-dm", "EX now", "EX stands alone"),
        ("pm-dm", "ex and so on", "PM ex ..."),
        ("bm-pm", "EX now", "BM EX ..."),
        ("pm-dm", "/users now", "/users stands alone"),
        ("pm-dm", "/quit now", "/quit stands alone"),
        ("pm-dm", "/quiet please", "/quiet stands alone"),
        ("pm-dm", "/help me", "/help stands alone"),
        ("pm-dm", "/joins on", "/joins stands alone"),
        ("pm-dm", "ch is a country", "CH takes a number"),
    ],
)
def test_a_slip_at_a_terminal_is_not_sent_and_says_what_may_be_meant(ops: str, line: str, says: str) -> None:
    parsed = at_terminal(ops).parse_line(line)

    assert parsed.error is not None
    assert says in parsed.error
    assert parsed == ParsedInput(error=parsed.error)


@pytest.mark.parametrize("steps", [["PM"], ["DM", "bob"], ["@bob"]])
@pytest.mark.parametrize("line", ["/unknown", "exit", "help", "MD bob secret", "EX now", "/quit", "DM bob x"])
def test_the_answer_to_a_question_is_taken_as_it_is(steps: list[str], line: str) -> None:
    parser = at_terminal()
    for step in steps:
        parser.parse_line(step)

    parsed = parser.parse_line(line)
    assert isinstance(parsed.action, Say | Whisper)
    assert parsed.action.text == line


@given(line=st.text(max_size=30))
def test_every_line_at_a_terminal_is_sent_as_it_is_or_answered(line: str) -> None:
    parsed = at_terminal().parse_line(line)

    if isinstance(parsed.action, Say) and line.strip().split(maxsplit=1)[0].upper() not in ("PM", "@ALL"):
        assert parsed == ParsedInput(Say(line.strip()))
    elif line.strip():
        assert parsed != ParsedInput()


# --- commands ---


@pytest.mark.parametrize("talks", [True, False])
@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("/history", ParsedInput(AskHistory(50))),
        ("/history 5", ParsedInput(AskHistory(5))),
        ("/History 500", ParsedInput(AskHistory(500))),
        ("/history 0", ParsedInput(error="/history takes a number from 1 to 500, not '0'.")),
        ("/history x", ParsedInput(error="/history takes a number from 1 to 500, not 'x'.")),
        ("/search caf\u00e9 noon*", ParsedInput(Search("caf\u00e9 noon*"))),
        ("/SEARCH EX", ParsedInput(Search("EX"))),
        ("/search", ParsedInput(error="Nothing was searched for; type /search WORDS.")),
        ("/search  ", ParsedInput(error="Nothing was searched for; type /search WORDS.")),
        ("/reply", ParsedInput(question="message for bob")),
        ("/reply hello you", ParsedInput(Whisper("bob", "hello you"))),
        ("/Reply /quit", ParsedInput(Whisper("bob", "/quit"))),
    ],
)
def test_what_a_command_does(talks: bool, line: str, parsed: ParsedInput) -> None:
    parser = InputParser(KEYWORD_SETS["pm-dm"], talks=talks, is_json=True)
    parser.correspondent = "bob"

    assert parser.parse_line(line) == parsed


@pytest.mark.parametrize("line", ["/reply", "/reply hello"])
def test_nobody_can_be_replied_to_who_has_not_written(line: str) -> None:
    parser = at_terminal()
    parser.correspondent = ""

    assert parser.parse_line(line) == ParsedInput(
        error="Nobody has written you a direct message yet; nothing was sent."
    )
    assert parser.due is Due.OPERATION


def test_a_reply_in_two_steps_goes_to_whom_the_question_named() -> None:
    """Not to somebody who writes in between."""
    parser = at_terminal()
    assert parser.parse_line("/reply").question == "message for bob"
    parser.correspondent = "Carol"

    assert parser.parse_line("secret") == ParsedInput(Whisper("bob", "secret"))


@pytest.mark.parametrize(("line", "what"), [("/quiet", "quiet"), ("/joins", "joins"), ("/QUIET", "quiet")])
def test_what_is_shown_can_be_switched_at_a_terminal_alone(line: str, what: str) -> None:
    assert at_terminal().parse_line(line) == ParsedInput(toggle=what)
    assert feed(line).error


def test_where_the_dialect_has_no_word_for_a_search_there_is_no_such_command() -> None:
    parser = at_terminal(is_json=False)

    assert parser.parse_line("/search x").error
    assert not any("/search" in line for line in parser.help())
    assert parser.completions("/se") == (3, [])


@pytest.mark.parametrize(
    ("alias", "word"),
    [("/msg", "DM"), ("/w", "DM"), ("/who", "/users"), ("/names", "/users"), ("/r", "/reply"), ("/exit", "/quit")],
)
def test_other_names_of_commands_do_the_same_and_are_in_the_help(alias: str, word: str) -> None:
    for line in (alias, alias.upper()):
        assert at_terminal().parse_line(line) == at_terminal().parse_line(word)
    (told,) = (line for line in at_terminal().help() if line.split()[0] == word)
    assert alias in re.split("[ ,()]+", told)


@pytest.mark.parametrize(
    ("ops", "line", "meant"),
    [
        ("pm-dm", "Pm works for me", ParsedInput(Say("Pm works for me"))),
        ("bm-pm", "Bm works for me", ParsedInput(Say("Bm works for me"))),
        ("pm-dm", "pm works for me", ParsedInput(Say("works for me"))),
        ("pm-dm", "Dm bob psst", ParsedInput(Whisper("bob", "psst"))),
        ("bm-pm", "Pm bob psst", ParsedInput(Whisper("bob", "psst"))),
        ("pm-dm", "Pm", ParsedInput(OpenPublic(), question="message for everybody")),
    ],
)
def test_a_capital_letter_makes_a_sentence_of_the_word_for_everybody_and_of_no_other(
    ops: str, line: str, meant: ParsedInput
) -> None:
    """A direct message must not become a public one by the way in which its word is written."""
    assert at_terminal(ops).parse_line(line) == meant


def test_what_somebody_does_is_sent_as_it_is_typed() -> None:
    assert feed("/me waves") == at_terminal().parse_line("/ME waves") == ParsedInput(Say("/me waves"))
    assert at_terminal().parse_line("@bob /me waves") == ParsedInput(Whisper("bob", "/me waves"))


@pytest.mark.parametrize("talks", [True, False])
@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("ops", KEYWORD_SETS)
def test_the_help_names_every_command_that_there_is_and_no_other(ops: str, is_json: bool, talks: bool) -> None:
    """It is made from the table."""
    parser = InputParser(KEYWORD_SETS[ops], talks=talks, is_json=is_json)
    lines = parser.help()
    words = [line.split()[0] for line in lines[:-1]]

    switches = ["/joins", "/quiet"] if talks else []
    search, password = (["/search"], ["/password"]) if is_json else ([], [])
    message = ["MESSAGE"] if talks else []
    expected = [
        *KEYWORD_SETS[ops],
        "/me",
        "/users",
        "/history",
        *search,
        "/reply",
        *password,
        *switches,
        "/help",
        "/quit",
    ]
    assert words == [*message, *expected]
    for word in words[len(message) :]:
        error = InputParser(KEYWORD_SETS[ops], talks=talks, is_json=is_json).parse_line(word).error or ""
        assert "is no operation" not in error
    assert all(line[19] == " " and line[20] != " " for line in lines)


LOCAL = ["/help", "/HELP", " /quiet ", "/joins", "/quiet please", "/unknown", "/", "/help me", "/help\tme"]
NOT_LOCAL = [
    "hello",
    "/users",
    "/history",
    "/history 5",
    "/search x",
    "/reply",
    "/quit",
    "PM x",
    "EX",
    "",
    "@bob x",
    "DM",
]


@pytest.mark.parametrize(("line", "is_local"), [(each, True) for each in LOCAL] + [(each, False) for each in NOT_LOCAL])
def test_what_needs_no_server_can_be_done_without_one(line: str, is_local: bool) -> None:
    parser = at_terminal()
    assert parser.is_local(line) == is_local
    parser.parse_line("PM")
    assert not parser.is_local(line)


# --- what is completed ---

COMMANDS = [
    f"/{word} " for word in ("me", "users", "history", "search", "reply", "password", "joins", "quiet", "help", "quit")
]


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("", ["PM ", "DM ", "CH ", "EX ", *COMMANDS]),
        ("p", ["PM "]),
        ("D", ["DM "]),
        ("C", ["CH ", "Carol: "]),
        ("a", ["alice: "]),
        ("ALI", ["alice: "]),
        ("/", COMMANDS),
        ("/q", ["/quiet ", "/quit "]),
        ("/Q", ["/quiet ", "/quit "]),
        ("/x", []),
        ("DM ", ["alice ", "bob ", "Carol "]),
        ("dm c", ["Carol "]),
        ("DM bob ", ["alice", "bob", "Carol"]),
        ("DM bob al", ["alice"]),
        ("@", ["@ALL ", "@alice ", "@bob ", "@Carol "]),
        ("@c", ["@Carol "]),
        ("@a", ["@ALL ", "@alice "]),
        ("hello al", ["alice"]),
        ("hello @al", []),
        ("PM b", ["bob"]),
        ("x", []),
    ],
)
def test_operations_commands_and_names_are_completed(before: str, found: list[str]) -> None:
    length, words = at_terminal().completions(before)

    assert words == found
    assert length == len(before.rpartition(" ")[2])


@pytest.mark.parametrize(
    ("steps", "before", "found"),
    [
        (["DM"], "", ["alice", "bob", "Carol"]),
        (["DM"], "b", ["bob"]),
        (["DM"], "bob c", []),
        (["PM"], "hello c", ["Carol"]),
        (["PM"], "c", ["Carol"]),
        (["PM"], "/q", []),
        (["DM", "bob"], "a", ["alice"]),
    ],
)
def test_where_something_was_asked_only_names_are_completed(steps: list[str], before: str, found: list[str]) -> None:
    parser = at_terminal()
    for step in steps:
        parser.parse_line(step)

    assert parser.completions(before)[1] == found


def test_the_word_of_the_other_tradition_completes_its_recipients() -> None:
    assert at_terminal("bm-pm").completions("PM b") == (1, ["bob "])
    assert at_terminal("bm-pm").completions("BM b") == (1, ["bob"])
    assert at_terminal("bm-pm").completions("DM b") == (1, ["bob"])


@given(before=st.text(max_size=20))
def test_a_completion_begins_with_what_was_typed(before: str) -> None:
    length, found = at_terminal().completions(before)

    parsed = before[len(before) - length :].lower()
    assert all(word.lower().startswith(parsed) for word in found)


@pytest.mark.parametrize("before", ["", "@", "@U", "@A", "/"])
def test_a_guest_is_offered_no_name_that_is_none(before: str) -> None:
    guest = Addressing(KEYWORD_SETS["pm-dm"], talks=True)

    assert "@USER " not in guest.completions(before)[1]
    assert guest.parse_line("hello").error


# --- who is written to is to be seen ---


def test_reply_and_a_space_turn_into_whom_it_is_for() -> None:
    assert at_terminal().expansion("/reply") == "DM bob "
    assert at_terminal("bm-pm").expansion("/reply") == "PM bob "


@pytest.mark.parametrize("line", ["", "/repl", "/reply ", "/replyx", " /reply", "hello /reply", "/users"])
def test_nothing_else_turns_into_anything(line: str) -> None:
    assert at_terminal().expansion(line) is None


def test_nothing_turns_into_anything_in_an_answer_or_where_nobody_has_written() -> None:
    parser = at_terminal()
    parser.parse_line("PM")
    assert parser.expansion("/reply") is None
    parser = at_terminal()
    parser.correspondent = ""
    assert parser.expansion("/reply") is None


def test_the_hint_says_where_a_plain_line_goes() -> None:
    assert at_terminal().hint() == "What you type goes to everybody, DM USER MESSAGE to one; /help tells more."
    assert "PM USER MESSAGE" in at_terminal("bm-pm").hint()
    assert InputParser(KEYWORD_SETS["pm-dm"]).hint() == "Type PM, DM, CH or EX; /help tells more."
