"""Lines of IRC: parsing, formatting, and texts that are cut."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.limits import IRC_LINE_MAX_BYTES, IRC_MESSAGE_LINES_MAX, IRC_TAGS_MAX_BYTES
from chatprotocol.wire.irc_lines import (
    Command,
    LineError,
    clip,
    cut_text,
    escape_tag,
    format_line,
    parse_line,
    parse_tags,
    read_motd,
    remove_formatting,
    wrap_words,
)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"", None),
        (b"   ", None),
        (b":source", None),
        (b"ping", Command("PING")),
        (b"PING a", Command("PING", ("a",))),
        (b"  PING   a  b ", Command("PING", ("a", "b"))),
        (b":alice!a@b PRIVMSG #dev :two words", Command("PRIVMSG", ("#dev", "two words"))),
        (b"PRIVMSG #dev :", Command("PRIVMSG", ("#dev", ""))),
        (b"PRIVMSG #dev ::)", Command("PRIVMSG", ("#dev", ":)"))),
        (b"PRIVMSG #dev a:b :c :d", Command("PRIVMSG", ("#dev", "a:b", "c :d"))),
        (b"PRIVMSG #dev :one\rtwo", Command("PRIVMSG", ("#dev", "one"))),
        (b"PRIVMSG #dev :one\0two", Command("PRIVMSG", ("#dev", "one"))),
        (
            rb"@label=a\:b\s\\c\x;+typing=active;empty;=x TAGMSG #dev",
            Command(
                "TAGMSG",
                ("#dev",),
                {"label": r"a;b \cx", "+typing": "active", "empty": ""},
                r"label=a\:b\s\\c\x;+typing=active;empty;=x",
            ),
        ),
        (b"PRIVMSG #dev :" + b"x" * (510 - 14), Command("PRIVMSG", ("#dev", "x" * (510 - 14)))),
    ],
)
def test_line_is_a_command(line: bytes, command: Command | None) -> None:
    assert parse_line(line) == command


@pytest.mark.parametrize(
    ("line", "name", "is_long"),
    [
        (b"PRIVMSG #dev :" + b"x" * (511 - 14), "*", True),
        (b"@a=" + b"x" * (IRC_TAGS_MAX_BYTES - 3) + b" PING a", "*", True),
        (b"PRIVMSG #dev :\xff", "PRIVMSG", False),
        (b":alice \xffprivmsg #dev", "*", False),
        (b"@a=\xff PING a", "PING", False),
    ],
)
def test_line_that_cannot_be_read_is_an_error(line: bytes, name: str, is_long: bool) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(line)
    assert (caught.value.command.name, caught.value.is_long) == (name, is_long)


@given(st.text())
def test_tag_value_survives(value: str) -> None:
    assert parse_tags(f"label={escape_tag(value)}") == {"label": value.replace("\0", "")}


nasty = st.text(st.sampled_from("a: \r\n\0\x01\u20ac\U0001f600;@"), max_size=20) | st.text(max_size=600)


@given(params=st.lists(nasty, max_size=5), tags=nasty.map(escape_tag))
@example(["\U0001f600" * 200], "")
@example(["#dev\r\nQUIT", "x"], "")
def test_formatted_line_is_one_line_within_the_limit(params: list[str], tags: str) -> None:
    """Promise: no name, topic or text of any protocol becomes a line of its own."""
    line = format_line("chat.local", "NOTICE", *params, tags=f"a={tags}" if tags else "")
    assert not re.search("[\r\n\0]", line)
    rest = line.partition(" ")[2] if tags else line
    assert len(rest.encode(errors="replace")) <= IRC_LINE_MAX_BYTES - 2
    found = parse_line(rest.encode(errors="replace"))
    assert found is not None
    assert found.name == "NOTICE"
    assert len(found.params) <= len(params)


@given(text=st.text(st.sampled_from("ab \n\r\0\x01\u20ac\U0001f600"), max_size=300), limit=st.integers(4, 60))
@example("word " * 100, 30)
@example("\n" * 8_192, 400)
def test_pieces_are_the_text(text: str, limit: int) -> None:
    pieces = list(cut_text(text, limit))
    assert all(len(piece.text.encode()) <= limit for piece in pieces)
    assert not any(re.search("[\r\n\0\x01]", piece.text) for piece in pieces)
    together = "".join(piece.text if piece.continues else f"\n{piece.text}" for piece in pieces)[1:]
    lines = re.split("\r\n|\r|\n", re.sub("[\0\x01]", "", text))
    assert together.replace("\n", " ") == " ".join(lines)
    assert sum(not piece.continues for piece in pieces) == min(len(lines), IRC_MESSAGE_LINES_MAX)


def test_text_is_cut_after_a_word() -> None:
    pieces = [piece.text for piece in cut_text("one two three four", 10)]
    assert pieces == ["one two ", "three four"]
    assert [piece.text for piece in cut_text("\u20ac" * 5, 7)] == ["\u20ac\u20ac", "\u20ac\u20ac", "\u20ac"]


@pytest.mark.parametrize("shown", ["e\u0301", "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "\U0001f469\u200d\U0001f692"])
def test_text_is_not_cut_inside_what_is_shown_as_one(shown: str) -> None:
    """A letter with an accent, and emoji with a variation, a skin tone, and a profession."""
    for letters in range(20, 30):
        pieces = [piece.text for piece in cut_text("x" * letters + shown + "y" * 20, 30)]
        assert "".join(pieces).count(shown) == sum(piece.count(shown) for piece in pieces) == 1


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x02bold\x02 \x1ditalic\x0f", "bold italic"),
        ("\x034red \x0312,15both\x03", "red both"),
        ("\x03,4", ",4"),
        ("\x04ff0000red\x04", "red"),
        ("\ttab \x07bell", "\ttab \x07bell"),
    ],
)
def test_formatting_codes_are_removed(text: str, plain: str) -> None:
    assert remove_formatting(text) == plain


def test_words_are_wrapped_and_texts_clipped() -> None:
    assert wrap_words(["a", "bb", "ccc"], 4) == ["a bb", "ccc"]
    assert clip("\u20ac\u20ac", 5) == "\u20ac"
    assert clip("ab", 8) == "ab"


def test_message_of_the_day_is_text_within_its_limit() -> None:
    assert read_motd("one\r\n\ttwo \u20ac\n".encode()) == ("one", "        two \u20ac")
    for data in (b"\xff", b"x" * 16_385):
        with pytest.raises(ValueError, match="it "):
            read_motd(data)
