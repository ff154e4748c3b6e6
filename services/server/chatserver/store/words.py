"""Words: what of a text is looked for, and how it is compared."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import SEARCH_MAX_BYTES, SEARCH_MAX_WORDS

# What is longer is compared by its beginning: no word of any language, but a link or a key may have thousands.
WORD_MAX_CHARACTERS = 64

# Where words are written without spaces between them (Chinese, Japanese), each character is one.
_ALONE = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_TERM = re.compile(rf"({_WORD.pattern})(\*?)")


class Term(NamedTuple):
    """A word that is looked for, or what one begins with."""

    word: str
    is_prefix: bool


def words_of(text: str) -> set[str]:
    """The words of a message, in the form in which they are compared: without case and accents."""
    words = set(_ASCII_WORD.findall(text.lower()) if text.isascii() else _WORD.findall(_fold(text)))
    if len(text) > WORD_MAX_CHARACTERS:
        return {word[:WORD_MAX_CHARACTERS] for word in words}
    return words


def terms_of(query: str) -> tuple[Term, ...]:
    """What a query looks for, each once. Raises Refusal.

    But for a star behind a word no character means anything.
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
    deliveries = (
        delivery for delivery in unicodedata.normalize("NFKD", text) if unicodedata.category(delivery)[0] != "M"
    )
    return "".join(deliveries).casefold()
