"""Byte order marks: they select the encoding and are no part of the text."""

import pytest

from chatprotocol.encoding import TextDecoder, decode_text

TEXT = "häl 9999\n😀\n"
FILES = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16 little-endian": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 big-endian": b"\xfe\xff" + TEXT.encode("utf-16-be"),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_mark_selects_encoding_of_file_and_pipe(data: bytes) -> None:
    assert decode_text(data) == TEXT
    decoder = TextDecoder()
    pieces = [decoder.decode(data[index : index + 1], is_last=False) for index in range(len(data))]
    assert "".join([*pieces, decoder.decode(b"", is_last=True)]) == TEXT


def test_mark_inside_text_is_a_character() -> None:
    assert decode_text("a\ufeffb".encode()) == "a\ufeffb"


@pytest.mark.parametrize("data", [b"\xff", b"h\xfc", b"\xff\xfeh"])
def test_invalid_bytes_are_replaced_in_pipe_and_refused_in_file(data: bytes) -> None:
    assert "\ufffd" in TextDecoder().decode(data, is_last=True)
    with pytest.raises(UnicodeDecodeError):
        decode_text(data)
