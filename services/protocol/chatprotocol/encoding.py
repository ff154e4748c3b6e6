"""Detect the encoding of text files and pipes. Pure."""

from __future__ import annotations

import codecs
from typing import Final

_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HALF_MARKS: Final = (b"", *(mark[:1] for mark in _UTF16_MARKS))


def encoding_of(first: bytes) -> str:
    """The codec for a text that begins with these bytes: UTF-16 if they are its byte order mark, otherwise UTF-8.

    Both codecs drop the mark. Editors and shells of Windows write such marks. The bytes of the UTF-16 marks never occur
    in UTF-8.
    """
    return "utf-16" if first.startswith(_UTF16_MARKS) else "utf-8-sig"


class TextDecoder:
    """Decodes a text that arrives in pieces. Invalid bytes become replacement characters."""

    def __init__(self) -> None:
        self._first = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, data: bytes, *, is_last: bool) -> str:
        """The text of this piece. A first byte that may be half of a mark is kept until the second arrives."""
        if self._decoder is None:
            self._first += data
            data = self._first
            if data in _HALF_MARKS and not is_last:
                return ""
            self._decoder = codecs.getincrementaldecoder(encoding_of(data))("replace")
        return self._decoder.decode(data, is_last)


def decode_text(data: bytes) -> str:
    """Decode a whole file. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data))
