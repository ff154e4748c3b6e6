"""Scripts: the meaning of each line, and how a wait uses up what was shown."""

import threading

import pytest

from chatclient.cli.script import Pause, ScriptError, ScriptStep, Transcript, Type, Wait, parse_script, play

DEADLINE_SECONDS = 10.0


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("\n \t\n# a comment\n#another", []),
        ("PM hello\r\nEX\r\n", [Type("PM hello"), Type("EX")]),
        ("  PM # no comment", [Type("  PM # no comment")]),
        ("PM a\u2028b\x0bc\x85d", [Type("PM a\u2028b\x0bc\x85d")]),
        ("\n\n%wait  hello alice ", [Wait(3, "hello alice", 10.0)]),
        ("%wait 0.5 hello", [Wait(1, "hello", 0.5)]),
        ("%wait 30", [Wait(1, "30", 10.0)]),
        ("%wait -5 below", [Wait(1, "-5 below", 10.0)]),
        ("%wait \u0663 three", [Wait(1, "\u0663 three", 10.0)]),
        ("% wait hello", [Wait(1, "hello", 10.0)]),
        ("%pause  .5 ", [Pause(0.5)]),
    ],
)
def test_line_is_typed_waits_or_pauses(text: str, actions: list[ScriptStep]) -> None:
    assert parse_script(text) == actions


@pytest.mark.parametrize(
    "line", ["%", "%wait ", "%pause", "%pause x", "%pause 1 2", "%pause -1", "%sleep 1", "%WAIT x"]
)
def test_invalid_line_is_an_error_with_its_number(line: str) -> None:
    with pytest.raises(ScriptError) as error:
        parse_script(f"PM hello\n\n# comment\n{line}\nEX")
    assert str(error.value) == f"line 4: {line!r} is neither %wait [SECONDS] TEXT nor %pause SECONDS"


def shown(*lines: str) -> Transcript:
    transcript = Transcript()
    transcript.add(lines)
    return transcript


def test_wait_uses_up_the_first_line_with_its_text_and_no_other() -> None:
    transcript = shown("hello 1", "hello 2", "other", "hello 3")
    assert not transcript.wait_for("never", 0)
    assert transcript.wait_for("other", 0)
    assert transcript.wait_for("hello", 0)
    assert not transcript.wait_for("hello 1", 0)
    assert transcript.wait_for("hello 3", 0)
    assert transcript.wait_for("hello", 0)
    assert not transcript.wait_for("hello", 0)


def test_end_wakes_waits_and_pauses_but_keeps_what_was_shown() -> None:
    """The client shows [bye] and ends at once. A script that waits for it succeeds."""
    transcript = shown("[bye] you left")
    waits = ((transcript.wait_for, ("never", 1_000_000)), (transcript.pause, (1_000_000,)))
    waiters = [threading.Thread(target=wait, args=args, daemon=True) for wait, args in waits]
    for waiter in waiters:
        waiter.start()
    transcript.end()
    for waiter in waiters:
        waiter.join(DEADLINE_SECONDS)
        assert not waiter.is_alive()
    assert transcript.wait_for("[bye]", 0)
    assert not transcript.wait_for("[bye]", 1_000_000)


@pytest.mark.parametrize("line", ["x" * 100_000, ""], ids=["characters", "lines"])
def test_transcript_forgets_the_oldest_lines_above_its_limits(line: str) -> None:
    """A client may run for months."""
    count = 100 if line else 10_011
    transcript = shown(*(f"<{number}> {line}" for number in range(count)))
    assert not transcript.wait_for("<10>", 0)
    assert transcript.wait_for(f"<{count - 1}>", 0)


def test_script_is_played_in_order_until_a_wait_fails() -> None:
    transcript = Transcript()
    typed: list[str] = []

    def type_line(line: str) -> bool:
        typed.append(line)
        transcript.add([f"shown after {line}"])
        return line != "EX"

    play(parse_script("PM hi\n%wait after PM hi\n%pause 0\nCH\nEX\nPM too late"), transcript, type_line)
    assert typed == ["PM hi", "CH", "EX"]
    with pytest.raises(ScriptError) as error:
        play(parse_script("one\n\n%wait 0 'bob'\ntwo"), transcript, type_line)
    assert str(error.value) == "line 3: \"'bob'\" did not appear within 0 s"
    transcript.end()
    with pytest.raises(ScriptError, match="line 1: 'bob' did not appear before the client ended"):
        play(parse_script("%wait bob"), transcript, type_line)
    assert typed[3:] == ["one"]
