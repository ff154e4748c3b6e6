"""Words: how texts and queries are split into words, and how words are compared."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import SEARCH_MAX_BYTES, SEARCH_MAX_WORDS

# Characters of a word that are compared. Words of all languages are shorter; a link or a key may have thousands.
WORD_MAX_CHARACTERS = 64

# Characters of Chinese and Japanese, which are written without spaces: each one counts as a word.
_SINGLE = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_TERM = re.compile(rf"({_WORD.pattern})(\*?)")


class Term(NamedTuple):
    """A word of a query, or the prefix of one."""

    word: str
    is_prefix: bool


def words_of(text: str) -> set[str]:
    """The words of a message, folded for comparison: without case and accents."""
    words = set(_ASCII_WORD.findall(text.lower()) if text.isascii() else _WORD.findall(_fold(text)))
    if len(text) > WORD_MAX_CHARACTERS:
        return {word[:WORD_MAX_CHARACTERS] for word in words}
    return words


def terms_of(query: str) -> tuple[Term, ...]:
    """The terms of a query, without duplicates. Raises RequestError if it is too long or has no word.

    ``*`` after a word makes it a prefix; all other characters only separate words.
    """
    if len(query.encode()) > SEARCH_MAX_BYTES:
        raise RequestError(ErrorCode.TOO_LONG, f"What to look for has {SEARCH_MAX_BYTES} bytes at most in UTF-8.")
    found = _TERM.findall(_fold(query))
    terms = tuple(dict.fromkeys(Term(word[:WORD_MAX_CHARACTERS], bool(star)) for word, star in found))
    if not terms:
        raise RequestError(ErrorCode.BAD_REQUEST, "There is no word to look for; send a letter or digit at least.")
    if len(terms) > SEARCH_MAX_WORDS:
        raise RequestError(ErrorCode.TOO_LONG, f"A search is for {SEARCH_MAX_WORDS} words at most.")
    return terms


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    characters = (
        character for character in unicodedata.normalize("NFKD", text) if unicodedata.category(character)[0] != "M"
    )
    return "".join(characters).casefold()
