"""Scripts: what their lines mean, and how waits use up what was shown."""

import threading
from collections.abc import Iterable

import pytest

from chatclient.cli.script import Action, Pause, ScriptError, Transcript, Type, Wait, parse_script, play

DEADLINE_SECONDS = 10.0


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("", []),
        ("\n  \n\t\n", []),
        ("# a comment\n#another", []),
        ("PM hello everybody", [Type("PM hello everybody")]),
        ("PM hello\nEX\n", [Type("PM hello"), Type("EX")]),
        ("PM hello\r\nEX\r\n", [Type("PM hello"), Type("EX")]),
        ("  PM # no comment", [Type("  PM # no comment")]),
        ("PM 5 %wait", [Type("PM 5 %wait")]),
        ("%wait hello alice", [Wait(1, "hello alice", 10.0)]),
        ("\n\n%wait  hello ", [Wait(3, "hello", 10.0)]),
        ("%wait 30 hello alice", [Wait(1, "hello alice", 30.0)]),
        ("%wait 0.5 hello", [Wait(1, "hello", 0.5)]),
        ("%wait 30", [Wait(1, "30", 10.0)]),
        ("%wait -5 below", [Wait(1, "-5 below", 10.0)]),
        ("%wait \u0663 three", [Wait(1, "\u0663 three", 10.0)]),
        ("% wait hello", [Wait(1, "hello", 10.0)]),
        ("%pause 0.5", [Pause(0.5)]),
        ("%pause  2 ", [Pause(2.0)]),
        ("# a\nPM hi\n\n%wait 1 hi\n%pause 1\nEX", [Type("PM hi"), Wait(4, "hi", 1.0), Pause(1.0), Type("EX")]),
        ("PM a\u2028b\x0bc\x85d", [Type("PM a\u2028b\x0bc\x85d")]),
    ],
)
def test_each_line_of_a_script_means_one_thing(text: str, actions: list[Action]) -> None:
    assert parse_script(text) == actions


@pytest.mark.parametrize(
    "line",
    ["%", "%wait", "%wait ", "%pause", "%pause x", "%pause 1 2", "%pause -1", "%pause .", "%sleep 1", "%%", "%WAIT x"],
)
def test_a_line_that_means_nothing_is_an_error_that_names_it(line: str) -> None:
    with pytest.raises(ScriptError) as error:
        parse_script(f"PM hello\n\n# comment\n{line}\nEX")

    assert str(error.value) == f"line 4: {line!r} is neither %wait [SECONDS] TEXT nor %pause SECONDS"


def shown(*lines: str) -> Transcript:
    transcript = Transcript()
    transcript.add(lines)
    return transcript


def test_a_wait_finds_what_was_shown_before_it() -> None:
    assert shown("one", "[public #1] bob: hello alice").wait_for("hello alice", 0)


def test_each_wait_uses_up_the_line_that_ended_it_and_no_other() -> None:
    transcript = shown("hello 1", "hello 2", "other", "hello 3")

    assert transcript.wait_for("other", 0)
    assert transcript.wait_for("hello", 0)
    assert not transcript.wait_for("hello 1", 0)
    assert transcript.wait_for("hello 3", 0)
    assert transcript.wait_for("hello", 0)
    assert not transcript.wait_for("hello", 0)


def test_a_vain_wait_uses_nothing_up() -> None:
    transcript = shown("one", "two")

    assert not transcript.wait_for("three", 0)
    assert transcript.wait_for("one", 0)


def test_a_wait_ends_when_the_text_is_shown() -> None:
    transcript = Transcript()
    answers: list[bool] = []
    waiter = threading.Thread(
        target=lambda: answers.append(transcript.wait_for("hello", DEADLINE_SECONDS)), daemon=True
    )
    waiter.start()
    transcript.add(["other"])
    transcript.add(["hello"])
    waiter.join(DEADLINE_SECONDS)

    assert answers == [True]


@pytest.mark.parametrize("method", ["wait_for", "pause"])
def test_the_end_wakes_whoever_waits(method: str) -> None:
    transcript = Transcript()
    waits = {
        "wait_for": lambda: transcript.wait_for("never", 1_000_000),
        "pause": lambda: transcript.pause(1_000_000),
    }
    waiter = threading.Thread(target=waits[method], daemon=True)
    waiter.start()
    transcript.end()
    waiter.join(DEADLINE_SECONDS)

    assert not waiter.is_alive()


def test_the_last_line_before_the_end_was_shown_all_the_same() -> None:
    """The reactor shows [bye] and ends at once: a script that waits for it has not waited in vain."""
    transcript = shown("[bye] you left")
    transcript.end()

    assert transcript.wait_for("[bye]", 0)


def test_after_the_end_nobody_waits_for_what_was_not_shown() -> None:
    transcript = shown("one")
    transcript.end()

    assert not transcript.wait_for("two", 1_000_000)
    transcript.pause(1_000_000)


class Stage:
    """Types nothing anywhere, and shows what it is told to at a typed line."""

    def __init__(self, replies: dict[str, Iterable[str]]) -> None:
        self.transcript = Transcript()
        self.parsed: list[str] = []
        self._replies = replies

    def type_line(self, line: str) -> bool:
        self.parsed.append(line)
        self.transcript.add(self._replies.get(line, ()))
        return line != "EX"


def test_a_script_is_played_in_its_order() -> None:
    stage = Stage({"PM hi": ["[sent #1]"], "CH": ["[history 1]", "bob: hi"]})

    play(parse_script("PM hi\n%wait [sent\nCH\n%wait hi\n%pause 0\nEX\nPM too late"), stage.transcript, stage.type_line)

    assert stage.parsed == ["PM hi", "CH", "EX"]


def test_a_vain_wait_ends_the_script_and_names_its_line_and_text() -> None:
    stage = Stage({"PM hi": ["[sent #1]"]})

    with pytest.raises(ScriptError) as error:
        play(parse_script("PM hi\n\n%wait 0 hello 'bob'\nEX"), stage.transcript, stage.type_line)

    assert str(error.value) == "line 3: waited 0 s in vain for \"hello 'bob'\""
    assert stage.parsed == ["PM hi"]


def test_a_transcript_of_long_lines_is_limited_too() -> None:
    transcript = Transcript()
    transcript.add(f"{number} {'x' * 100_000}" for number in range(100))

    assert not transcript.wait_for("10 x", 0.0)
    assert transcript.wait_for("99 x", 0.0)
