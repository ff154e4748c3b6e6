"""The encoding of texts that people write into files and pipes. Pure."""

from __future__ import annotations

import codecs
from typing import Final

_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HALF_MARKS: Final = (b"", *(mark[:1] for mark in _UTF16_MARKS))
# A file .env has a few lines. What is larger belongs to another program.
DOTENV_MAX_BYTES: Final = 65_536


def encoding_of(first: bytes) -> str:
    """The encoding of a text that begins so: UTF-8, or UTF-16 where a byte order mark says so. The mark is no text.

    Editors and shells of Windows write such marks. Neither byte of that of UTF-16 occurs in UTF-8.
    """
    return "utf-16" if first.startswith(_UTF16_MARKS) else "utf-8-sig"


class TextDecoder:
    """Decodes a text that arrives in pieces. What is no text is replaced by a sign."""

    def __init__(self) -> None:
        self._first = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, data: bytes, *, is_last: bool) -> str:
        """The text of this piece. The first byte waits for the second if it may be half of a mark."""
        if self._decoder is None:
            self._first += data
            data = self._first
            if data in _HALF_MARKS and not is_last:
                return ""
            self._decoder = codecs.getincrementaldecoder(encoding_of(data))("replace")
        return self._decoder.decode(data, is_last)


def decode_text(data: bytes) -> str:
    """The text of a whole file. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data))
