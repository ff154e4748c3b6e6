"""Words: the words of a text, and the terms of a query."""

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
    # long words are cut
    ("x" * 8_192, {"x" * WORD_MAX_CHARACTERS}),
]

# One row per rule. No syntax of any search engine has a meaning.
QUERIES: list[tuple[str, tuple[Term, ...]]] = [
    ("Hello hello HELLO", (Term("hello", is_prefix=False),)),
    ("a* bb a a*", (Term("a", is_prefix=True), Term("bb", is_prefix=False), Term("a", is_prefix=False))),
    ("*hello *", (Term("hello", is_prefix=False),)),
    ("hel**", (Term("hel", is_prefix=True),)),
    ("caf\u00e9*", (Term("cafe", is_prefix=True),)),
    ("x" * 100, (Term("x" * WORD_MAX_CHARACTERS, is_prefix=False),)),
    ("a AND b", (Term("a", is_prefix=False), Term("and", is_prefix=False), Term("b", is_prefix=False))),
    ('-^("text:hello%', (Term("text", is_prefix=False), Term("hello", is_prefix=False))),
    ("'; DROP", (Term("drop", is_prefix=False),)),
]


@pytest.mark.parametrize(("text", "words"), TEXTS, ids=[repr(text[:30]) for text, _ in TEXTS])
def test_words_are_folded_to_lower_case_without_accents(text: str, words: set[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(("query", "terms"), QUERIES, ids=[repr(query[:30]) for query, _ in QUERIES])
def test_query_is_words_and_a_star_after_a_prefix(query: str, terms: tuple[Term, ...]) -> None:
    assert terms_of(query) == terms


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("", ErrorCode.BAD_REQUEST, "no word"),
        ("... * _", ErrorCode.BAD_REQUEST, "no word"),
        ("\U0001f600 \u0301", ErrorCode.BAD_REQUEST, "no word"),
        ("x" * 257, ErrorCode.TOO_LONG, "256 bytes"),
        ("\u20ac" * 86, ErrorCode.TOO_LONG, "256 bytes"),
        (" ".join("abcdefghijklmnopq"), ErrorCode.TOO_LONG, "16 words"),
    ],
)
def test_query_without_words_or_over_a_limit_is_refused(query: str, code: ErrorCode, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        terms_of(query)
    assert refused.value.code is code


def test_query_at_its_limits_is_accepted() -> None:
    assert len(terms_of(" ".join("abcdefghijklmnop"))) == 16
    assert len(terms_of("x" * 256)) == 1


@given(st.text(max_size=60))
def test_any_text_with_words_matches_itself(text: str) -> None:
    try:
        terms = terms_of(text)
    except RequestError:
        return
    words = words_of(text)
    for word, is_prefix in terms:
        assert any(each.startswith(word) for each in words) if is_prefix else word in words
