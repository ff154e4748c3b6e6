"""Text on a terminal: what others write moves no cursor, hides nothing, and is measured and wrapped right."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.ui.text import columns_of, escape_control_characters, limit_combining_marks, wrap

# What somebody wrote to do something to the terminals of others, and what they see of it.
ATTACKS: list[tuple[str, str, str]] = [
    ("clear the screen", "\x1b[2J", r"\x1b[2J"),
    ("move the cursor up", "\x1b[5A\rroot: rm", r"\x1b[5A\rroot: rm"),
    ("name the window", "\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    ("write to the clipboard", "\x1b]52;c;cm0gLXJm\x1b\\", r"\x1b]52;c;cm0gLXJm\x1b" + "\\"),
    ("a link to elsewhere", "\x1b]8;;http://evil.example\x1b\\x", r"\x1b]8;;http://evil.example\x1b" + "\\x"),
    ("make the terminal answer", "\x1b[6n\x1b[c", r"\x1b[6n\x1b[c"),
    ("another character set", "\x0e\x1b(0", r"\x0e\x1b(0"),
    ("end a paste", "\x1b[201~rm", r"\x1b[201~rm"),
    ("a device control string", "\x1bP$q\x1b\\", r"\x1bP$q\x1b" + "\\"),
    ("a sequence in one C1 byte", "\x9b2J", r"\x9b2J"),
    ("a string in one C1 byte", "\x9d0;owned\x9c", r"\x9d0;owned\x9c"),
    ("a line break in one C1 byte", "a\x85b", r"a\x85b"),
    ("nothing at all", "a\0b", r"a\x00b"),
    ("the bell", "\a\a\a", r"\x07\x07\x07"),
    ("write over what stands there", "good\b\b\b\bevil", r"good\x08\x08\x08\x08evil"),
    ("back to the left edge", "good\revil", r"good\revil"),
    ("another line", "a\nbob: yes", r"a\nbob: yes"),
    ("a vertical tab and a page", "a\vb\fc", r"a\x0bb\x0cc"),
    ("delete", "a\x7fb", r"a\x7fb"),
    ("a line separator", "a\u2028b\u2029c", r"a\u2028b\u2029c"),
    ("right to left from here", "\u202egnp.exe", r"\u202egnp.exe"),
    ("the other overrides", "\u202a\u202b\u202c\u202d", r"\u202a\u202b\u202c\u202d"),
    ("isolates", "\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
    ("marks of direction", "\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    ("nothing between letters", "bo\u200bb \ufeffbob bo\u2060b", r"bo\u200bb \ufeffbob bo\u2060b"),
    ("a hyphen that is not there", "bo\xadb", r"bo\xadb"),
    ("hidden words in tags", "hi\U000e0041\U000e007f", r"hi\U000e0041\U000e007f"),
    ("annotations", "\ufff9a\ufffab\ufffb", r"\ufff9a\ufffab\ufffb"),
    ("letters that are blank", "\u3164\u115f\u1160\uffa0", r"\u3164\u115f\u1160\uffa0"),
    ("half a letter", "\ud83d", r"\ud83d"),
    ("a letter of nobody's", "\ue000\U0010ffff", r"\ue000\U0010ffff"),
]

HARMLESS = [
    "",
    "hello everybody",
    r"a backslash \x1b[2J",
    "Gr\u00fc\u00dfe, \u65e5\u672c\u8a9e, \u0440\u0443\u0441\u0441\u043a\u0438\u0439, \u05e9\u05dc\u05d5\u05dd",
    "e\u0301 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f44d\U0001f3fd",
    "a\u00a0b\u3000c",
]


@pytest.mark.parametrize(("written", "seen"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_what_could_do_something_to_a_terminal_is_written_out(written: str, seen: str) -> None:
    """Promise: no byte from another user reaches the terminal unsanitised."""
    assert escape_control_characters(written) == seen


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert escape_control_characters(text) == text


@given(st.text())
def test_no_control_or_format_letter_is_left_but_the_joiners(text: str) -> None:
    made = escape_control_characters(text)

    kinds = {unicodedata.category(letter) for letter in made if letter not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert escape_control_characters(made) == made


# --- heaps of marks ---


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("e\u0301", "e\u0301"),
        ("a" + "\u0301" * 4, "a" + "\u0301" * 4),
        ("a" + "\u0301" * 5, "a" + "\u0301" * 4),
        ("a" + "\u0301" * 900 + "b" + "\u0489" * 900, "a" + "\u0301" * 4 + "b" + "\u0489" * 4),
        ("\u0301" * 900, "\u0301" * 4),
        ("z\u0351\u036b\u0343\u036a\u0302\u036b", "z\u0351\u036b\u0343\u036a"),
        ("plain", "plain"),
    ],
)
def test_a_letter_keeps_a_few_marks_and_no_heap(text: str, kept: str) -> None:
    assert limit_combining_marks(text) == kept


@pytest.mark.parametrize(
    "between", ["\u200d", "\u200c", "\u093e", "\ufe0f", "\u1161"], ids=["ZWJ", "ZWNJ", "Mc", "picture", "jamo"]
)
def test_nothing_without_a_width_begins_the_heap_anew(between: str) -> None:
    kept = limit_combining_marks("\u0915" + ("\u0301" * 4 + between) * 100)

    assert kept.count("\u0301") <= 4


@pytest.mark.parametrize("letter", ["\u0301", "\u0489", "\u093e", "\u1161", "\ufe0e"])
def test_letters_without_a_width_are_never_many(letter: str) -> None:
    """Terminals differ in what they make of them: thousands could be a row of any length."""
    assert len(limit_combining_marks("\u0915" + letter * 3_000)) <= 20


@given(st.text(st.sampled_from("ab\u0301\u0489\u200d ")))
def test_a_text_without_heaps_stays_so(text: str) -> None:
    kept = limit_combining_marks(text)

    assert limit_combining_marks(kept) == kept
    assert [each for each in kept if each in "ab "] == [each for each in text if each in "ab "]


# --- measured ---


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("hello", 5),
        ("\u65e5\u672c\u8a9e", 6),
        ("\uff21\uff22", 4),
        ("e\u0301", 1),
        ("\u0939\u093f", 1),
        ("\u0645\u06cc\u200c\u062e", 3),
        ("\U0001f600", 2),
        ("\u2764", 1),
        ("\u2764\ufe0f", 2),
        ("\U0001f600\ufe0f", 2),
        ("\U0001f468\u200d\U0001f469", 4),  # where it is not joined
        ("\u200d", 0),
        ("\uac00", 2),
    ],
)
def test_a_text_takes_as_many_columns_as_a_terminal_needs_at_most(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@given(st.text().map(escape_control_characters), st.text().map(escape_control_characters))
def test_two_texts_take_as_much_as_both(one: str, other: str) -> None:
    together = columns_of(one + other)

    assert 0 <= columns_of(one) + columns_of(other) <= together <= columns_of(one) + columns_of(other) + 1


# --- wrapped ---


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("", 10, [""]),
        ("hello", 10, ["hello"]),
        ("hello", 5, ["hello"]),
        ("hello you", 5, ["hello", "you"]),
        ("hello   you", 5, ["hello", "you"]),
        ("a b c d e", 3, ["a b", "c d", "e"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("x abcdefgh", 4, ["x", "abcd", "efgh"]),
        ("abcdef gh", 3, ["abc", "def", "gh"]),
        ("  x", 10, ["  x"]),
        ("trailing   ", 20, ["trailing"]),
        ("\u65e5\u672c\u8a9e", 4, ["\u65e5\u672c", "\u8a9e"]),
        ("\u65e5\u672c\u8a9e", 3, ["\u65e5", "\u672c", "\u8a9e"]),
        ("aae\u0301bb", 3, ["aae\u0301", "bb"]),
        ("x abc" + " " * 100, 20, ["x abc"]),
        ("x abc" + " " * 100 + "y", 20, ["x abc", "y"]),
        (" " * 100 + "x", 20, ["x"]),
    ],
)
def test_a_text_is_broken_between_words_and_only_then_inside_of_them(text: str, columns: int, lines: list[str]) -> None:
    found = wrap(text, columns)

    assert [line.rstrip(" ") for line in found if line.strip(" ") or len(found) == 1] == lines


# What is one picture where a terminal can draw it, and what it is made of.
CLUSTERS = {
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag": "\U0001f1e9\U0001f1ea",
    "skin tone": "\U0001f44d\U0001f3fd",
    "picture": "\u2764\ufe0f",
    "keycap": "1\ufe0f\u20e3",
    "marks": "e\u0301\u0323",
    "conjunct": "\u0915\u094d\u0937",
}


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_what_is_seen_as_one_character_is_wrapped_as_one(cluster: str) -> None:
    columns = columns_of(cluster)

    assert wrap(cluster * 3, columns) == [cluster] * 3
    assert wrap(cluster * 3, columns * 2 + 1 if columns > 1 else 2) == [cluster * 2, cluster]
    assert wrap(f"x{cluster}y", columns) == ["x", cluster, "y"]


def test_a_character_that_fits_in_no_line_is_taken_apart() -> None:
    """Otherwise somebody could write one character that is longer than any row."""
    assert wrap("\u200d".join(["\U0001f468"] * 5), 4) == ["\U0001f468\u200d" * 2, "\U0001f468\u200d" * 2, "\U0001f468"]


# Words, wide ones, marks, joiners, pictures, and many spaces.
_WORD = st.text(
    st.sampled_from("ab\u65e5\u0301\u200d\u2764\ufe0f\U0001f600\U0001f1e9\U0001f3fd") | st.characters(codec="utf-8"),
    max_size=50,
)
_SPACES = st.integers(0, 50).map(lambda count: " " * count)
WRITTEN = st.lists(_WORD | _SPACES, max_size=20).map("".join)


@given(text=WRITTEN.map(escape_control_characters), columns=st.integers(2, 40))
def test_no_line_is_wider_than_asked_and_nothing_is_lost_but_spaces(text: str, columns: int) -> None:
    lines = wrap(text, columns)

    assert lines
    assert max(map(columns_of, lines)) <= columns
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(text=WRITTEN.map(escape_control_characters), columns=st.integers(2, 40))
def test_a_line_that_is_wrapped_already_stays(text: str, columns: int) -> None:
    for line in wrap(text, columns):
        assert wrap(line, columns)[0].rstrip(" ") == line.rstrip(" ") or not line.strip(" ")


@pytest.mark.parametrize("columns", [0, 1])
def test_no_window_is_too_narrow_to_come_to_an_end(columns: int) -> None:
    assert "".join(wrap("ab \u65e5\u672c cd", columns)) == "ab\u65e5\u672ccd"


@given(text=st.text(st.sampled_from("ab  \u0301")), columns=st.integers(1, 10))
def test_spaces_alone_never_make_a_line_between_words(text: str, columns: int) -> None:
    lines = wrap(text, columns)

    assert all(line.strip(" ") for line in lines[1:-1])
