"""Text on a terminal: received text moves no cursor and hides nothing, and is measured and wrapped correctly."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.errors import LostError, RefusedError
from chatclient.ui.text import columns_of, escape_control_characters, limit_combining_marks, wrap

# Texts that act on other users' terminals, one for each kind, and how they are shown. Half a letter can't be sent.
ATTACKS: dict[str, tuple[str, str]] = {
    "control sequence": ("\x1b[2J\x1b[5A", r"\x1b[2J\x1b[5A"),
    "operating system command": ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"),
    "link": ("\x1b]8;;http://evil.example\x1b\\x", r"\x1b]8;;http://evil.example\x1b" + "\\x"),
    "C1 control": ("\x9b2J a\x85b", r"\x9b2J a\x85b"),
    "line break": ("one\r\n[public #9] eve: two", r"one\r\n[public #9] eve: two"),
    "other controls": ("\0\t\a\b\v\f\x0e\x7f", r"\x00\t\x07\x08\x0b\x0c\x0e\x7f"),
    "line separator": ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    "text direction": ("\u202egnp.exe\u2066\u200e\u061c", r"\u202egnp.exe\u2066\u200e\u061c"),
    "no width": ("bo\u200bb \ufeffbob bo\u2060b\xad", r"bo\u200bb \ufeffbob bo\u2060b\xad"),
    "tags and annotations": ("hi\U000e0041\U000e007f\ufff9a", r"hi\U000e0041\U000e007f\ufff9a"),
    "blank letters": ("\u3164\u115f\u1160\uffa0", r"\u3164\u115f\u1160\uffa0"),
    "private use": ("\ue000\U0010ffff", r"\ue000\U0010ffff"),
    "half a letter": ("\ud83d", r"\ud83d"),
}
SENDABLE_ATTACKS = [text for what, (text, _) in ATTACKS.items() if what != "half a letter"]


@pytest.mark.parametrize(("written", "shown"), ATTACKS.values(), ids=ATTACKS)
def test_text_that_acts_on_a_terminal_is_escaped(written: str, shown: str) -> None:
    """Promise: no byte from another user reaches the terminal unsanitised."""
    assert escape_control_characters(written) == shown


def test_error_of_a_program_is_safe_to_print() -> None:
    """A bot prints it to the terminal of its operator; a server wrote the sentence."""
    written, shown = ATTACKS["operating system command"]
    assert (str(RefusedError("internal", written)), str(LostError(written))) == (shown, shown)
    assert RefusedError("internal", written).reason == written


@pytest.mark.parametrize(
    "text",
    [
        r"a backslash \x1b[2J ~",
        "Gr\u00fc\u00dfe, \u65e5\u672c\u8a9e, \u05e9\u05dc\u05d5\u05dd, e\u0301 \u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a joiner
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f44d\U0001f3fd",
        "a\u00a0b\u3000c\u202f\u20ac",
    ],
)
def test_ordinary_text_is_not_changed(text: str) -> None:
    assert escape_control_characters(text) == text


@given(st.text())
def test_escaped_text_has_no_control_or_format_character_but_joiners(text: str) -> None:
    escaped = escape_control_characters(text)
    kinds = {unicodedata.category(letter) for letter in escaped if letter not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert escape_control_characters(escaped) == escaped


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a" + "\u0301" * 4, "a" + "\u0301" * 4),
        ("a" + "\u0301" * 900 + "b" + "\u0489" * 5, "a" + "\u0301" * 4 + "b" + "\u0489" * 4),
        ("\u0301" * 900, "\u0301" * 4),
    ],
)
def test_letter_keeps_four_combining_marks(text: str, kept: str) -> None:
    assert limit_combining_marks(text) == kept


@pytest.mark.parametrize("other", ["\u200d", "\u200c", "\u093e", "\ufe0f", "\u1161", "\u0489"])
def test_other_characters_without_width_count_as_marks(other: str) -> None:
    """Terminals draw them differently: thousands of them could make a row of any length."""
    assert len(limit_combining_marks("\u0915" + ("\u0301" * 4 + other) * 1_000)) <= 20


@given(st.text(st.sampled_from("ab\u0301\u0489\u200d ")))
def test_limited_text_keeps_its_letters_and_stays_the_same(text: str) -> None:
    kept = limit_combining_marks(text)
    assert limit_combining_marks(kept) == kept
    assert [each for each in kept if each in "ab "] == [each for each in text if each in "ab "]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("hello", 5),
        ("\u65e5\u672c\uac00\uff21", 8),
        ("e\u0301\u0939\u093f\u200d", 2),
        ("\u0645\u06cc\u200c\u062e", 3),
        ("\u2764\U0001f600", 3),
        ("\u2764\ufe0f", 2),
        ("\U0001f600\ufe0f", 2),
        ("\U0001f468\u200d\U0001f469", 4),  # in a terminal that does not join them
    ],
)
def test_width_is_the_maximum_of_all_terminals(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@given(st.text().map(escape_control_characters), st.text().map(escape_control_characters))
def test_width_of_two_texts_is_their_sum(one: str, other: str) -> None:
    """Or one more: a variation selector widens the character before it."""
    together = columns_of(one + other)
    assert 0 <= columns_of(one) + columns_of(other) <= together <= columns_of(one) + columns_of(other) + 1


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("", 10, [""]),
        ("hello   you", 5, ["hello", "you"]),
        ("x abcdefgh", 4, ["x", "abcd", "efgh"]),
        ("abcdef gh", 3, ["abc", "def", "gh"]),
        ("  x", 10, ["  x"]),
        ("\u65e5\u672c\u8a9e", 3, ["\u65e5", "\u672c", "\u8a9e"]),
        ("aae\u0301bb", 3, ["aae\u0301", "bb"]),
        ("x abc" + " " * 100 + "y", 20, ["x abc", "y"]),
    ],
)
def test_text_is_wrapped_between_words_if_possible(text: str, columns: int, lines: list[str]) -> None:
    assert [line.rstrip(" ") for line in wrap(text, columns)] == lines


# Characters of several code points.
CLUSTERS = {
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag": "\U0001f1e9\U0001f1ea",
    "skin tone": "\U0001f44d\U0001f3fd",
    "keycap": "1\ufe0f\u20e3",
    "marks": "e\u0301\u0323",
    "conjunct": "\u0915\u094d\u0937",
}


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_character_of_several_code_points_is_not_split(cluster: str) -> None:
    columns = columns_of(cluster)
    assert wrap(cluster * 3, columns) == [cluster] * 3
    assert wrap(f"x{cluster}y", columns) == ["x", cluster, "y"]


def test_character_wider_than_a_line_is_split() -> None:
    """Otherwise one character could be longer than any row."""
    assert wrap("\u200d".join(["\U0001f468"] * 5), 4) == ["\U0001f468\u200d" * 2, "\U0001f468\u200d" * 2, "\U0001f468"]


# Words, wide characters, marks, joiners, pictures, and many spaces.
_WORD = st.text(
    st.sampled_from("ab\u65e5\u0301\u200d\u2764\ufe0f\U0001f600\U0001f1e9\U0001f3fd") | st.characters(codec="utf-8"),
    max_size=50,
)
_SPACES = st.integers(0, 50).map(lambda count: " " * count)
WRITTEN = st.lists(_WORD | _SPACES, max_size=20).map("".join).map(escape_control_characters)


@given(text=WRITTEN, columns=st.integers(0, 40))
def test_wrapped_lines_fit_and_lose_only_spaces(text: str, columns: int) -> None:
    lines = wrap(text, columns)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line.strip(" ") for line in lines[1:-1])
    if columns > 1:  # a wide character needs two
        assert max(map(columns_of, lines)) <= columns
        assert all(wrap(line, columns)[0].rstrip(" ") == line.rstrip(" ") for line in lines if line.strip(" "))
