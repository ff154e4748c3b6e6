"""Words: what of a text can be found, and what a query looks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode, RequestError
from chatserver.store.words import WORD_MAX_CHARACTERS, Term, terms_of, words_of

TEXTS: list[tuple[str, set[str]]] = [
    ("", set()),
    ("... !? --", set()),
    ("hello", {"hello"}),
    ("Hello, HELLO (hello)!", {"hello"}),
    ("it's half-past 7", {"it", "s", "half", "past", "7"}),
    ("snake_case a.b@c.de", {"snake", "case", "a", "b", "c", "de"}),
    ("one\ntwo\0three", {"one", "two", "three"}),
    # accents, composed and not; what folds to several letters
    ("Caf\u00e9 cafe\u0301 CAFE", {"cafe"}),
    ("\u00c5ngstr\u00f6m \u010ce\u0161tina", {"angstrom", "cestina"}),
    ("Stra\u00dfe STRASSE", {"strasse"}),
    ("\u0130stanbul istanbul", {"istanbul"}),
    ("\ufb01sh \uff26\uff35\uff2c\uff2c \U0001d400", {"fish", "full", "a"}),
    # other scripts
    (
        "\u041f\u0440\u0438\u0432\u0435\u0442 \u043f\u0440\u0438\u0432\u0435\u0442",
        {"\u043f\u0440\u0438\u0432\u0435\u0442"},
    ),
    ("\u039f\u0394\u039f\u03a3 \u03bf\u03b4\u03cc\u03c2", {"\u03bf\u03b4\u03bf\u03c3"}),
    ("\u4f60\u597dworld", {"\u4f60", "\u597d", "world"}),
    # no words
    ("\U0001f600 \u20ac", set()),
    # what is longer is compared by its beginning
    ("x" * 8_192, {"x" * WORD_MAX_CHARACTERS}),
]

QUERIES: list[tuple[str, tuple[Term, ...]]] = [
    ("Hello", (Term("hello", is_prefix=False),)),
    ("hello Hello HELLO", (Term("hello", is_prefix=False),)),
    ("hel*", (Term("hel", is_prefix=True),)),
    ("a* bb a a*", (Term("a", is_prefix=True), Term("bb", is_prefix=False), Term("a", is_prefix=False))),
    ("*hello", (Term("hello", is_prefix=False),)),
    ("hello *", (Term("hello", is_prefix=False),)),
    ("hel**", (Term("hel", is_prefix=True),)),
    ("caf\u00e9*", (Term("cafe", is_prefix=True),)),
    ("x" * 100, (Term("x" * WORD_MAX_CHARACTERS, is_prefix=False),)),
    # no syntax of any engine means anything
    ("NOT", (Term("not", is_prefix=False),)),
    ("a AND b", (Term("a", is_prefix=False), Term("and", is_prefix=False), Term("b", is_prefix=False))),
    ('"hello"', (Term("hello", is_prefix=False),)),
    ("-hello", (Term("hello", is_prefix=False),)),
    ("^hello", (Term("hello", is_prefix=False),)),
    ("text:hello", (Term("text", is_prefix=False), Term("hello", is_prefix=False))),
    ("(hello", (Term("hello", is_prefix=False),)),
    ("hello%", (Term("hello", is_prefix=False),)),
    ("'; DROP", (Term("drop", is_prefix=False),)),
]


@pytest.mark.parametrize(("text", "words"), TEXTS, ids=[repr(text[:30]) for text, _ in TEXTS])
def test_the_words_of_a_text_have_neither_case_nor_accents(text: str, words: set[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(("query", "terms"), QUERIES, ids=[repr(query[:30]) for query, _ in QUERIES])
def test_but_for_a_star_behind_a_word_a_query_is_nothing_but_words(query: str, terms: tuple[Term, ...]) -> None:
    assert terms_of(query) == terms


@pytest.mark.parametrize("query", ["", " ", "...", "*", "\U0001f600", '"" AND'[:2], "\u0301", "_"])
def test_a_query_without_a_word_is_refused(query: str) -> None:
    with pytest.raises(RequestError, match="no word") as refused:
        terms_of(query)
    assert refused.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("query", "reason"),
    [("x" * 257, "256 bytes"), ("\u20ac" * 86, "256 bytes"), (" ".join("abcdefghijklmnopq"), "16 words")],
)
def test_a_query_that_is_too_long_is_refused_with_the_limit(query: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        terms_of(query)
    assert refused.value.code is ErrorCode.TOO_LONG


def test_a_query_at_its_limits_is_taken() -> None:
    assert len(terms_of(" ".join("abcdefghijklmnop"))) == 16
    assert len(terms_of("x" * 256)) == 1


@given(st.text(max_size=60))
def test_every_text_is_found_by_itself(text: str) -> None:
    """Whatever is in it."""
    try:
        terms = terms_of(text)
    except RequestError:
        return
    words = words_of(text)
    for word, is_prefix in terms:
        assert any(each.startswith(word) for each in words) if is_prefix else word in words
