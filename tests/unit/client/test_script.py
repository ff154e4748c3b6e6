"""Scripts: the meaning of each line, and how they are played."""

import pytest

from chatclient.cli.script import Pause, ScriptError, ScriptPlayer, ScriptStep, Type, Wait, parse_script


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


def player(script: str, *shown: str) -> ScriptPlayer:
    player = ScriptPlayer(parse_script(script))
    player.note_shown(shown)
    return player


def test_wait_uses_up_the_first_line_with_its_text_and_no_other() -> None:
    texts = ("other", "hello", "hello 3", "hello")
    waits = player("".join(f"%wait {text}\n" for text in texts) + "EX", "hello 1", "hello 2", "other", "hello 3")
    assert waits.next_line(0.0) == "EX"
    waits = player("%wait hello 2\n%wait hello\n%wait hello", "hello 1", "hello 2")
    assert waits.next_line(0.0) is None
    assert (waits.deadline, waits.is_over) == (10.0, False)


def test_steps_are_played_in_order_until_a_wait_fails() -> None:
    """A wait has its time from the moment when it begins; a shown line ends it at once."""
    script = player("PM hi\n%wait after hi\n%pause 3\nCH\n%wait 2 'bob'\nEX")
    assert [script.next_line(100.0) for _ in range(2)] == ["PM hi", None]
    assert script.deadline == 110.0
    script.note_shown(["shown after hi"])
    assert (script.next_line(105.0), script.deadline) == (None, 108.0)
    assert script.next_line(107.9) is None
    assert script.next_line(108.0) == "CH"
    assert (script.next_line(109.0), script.deadline) == (None, 111.0)
    with pytest.raises(ScriptError) as error:
        script.next_line(111.0)
    assert str(error.value) == "line 5: \"'bob'\" did not appear within 2 s"


@pytest.mark.parametrize(
    ("script", "is_failure"), [("%wait never", True), ("%pause 9\n%wait [bye]", False), ("EX\n%wait never", False)]
)
def test_end_of_the_client_fails_a_wait_unless_its_text_was_shown(script: str, is_failure: bool) -> None:
    """The client shows [bye] and ends at once. A script that waits for it succeeds."""
    ended = player(script, "[bye] you left")
    if not is_failure:
        ended.end()
        return
    with pytest.raises(ScriptError, match="line 1: 'never' did not appear before the client ended"):
        ended.end()


@pytest.mark.parametrize("line", ["x" * 100_000, ""], ids=["characters", "lines"])
def test_player_forgets_the_oldest_lines_above_its_limits(line: str) -> None:
    """A client may run for months."""
    count = 100 if line else 10_011
    lines = [f"<{number}> {line}" for number in range(count)]
    assert player("%wait <10>\nEX", *lines).next_line(0.0) is None
    assert player(f"%wait <{count - 1}>\nEX", *lines).next_line(0.0) == "EX"
