"""The first bytes of a text may be a byte order mark: it tells the encoding, and is no text."""

import pytest

from chatprotocol.encoding import TextDecoder, decode_text

TEXT = "häl 9999\n😀\n"
WRITTEN = {
    "plain": TEXT.encode(),
    "marked": TEXT.encode("utf-8-sig"),
    "UTF-16 of Windows": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "UTF-16 of networks": b"\xfe\xff" + TEXT.encode("utf-16-be"),
}


@pytest.mark.parametrize("data", WRITTEN.values(), ids=WRITTEN)
def test_a_file_is_read_without_its_mark(data: bytes) -> None:
    assert decode_text(data) == TEXT


@pytest.mark.parametrize("data", WRITTEN.values(), ids=WRITTEN)
def test_pieces_of_any_size_are_the_same_text(data: bytes) -> None:
    decoder = TextDecoder()

    pieces = [decoder.decode(data[index : index + 1], is_last=False) for index in range(len(data))]

    assert "".join([*pieces, decoder.decode(b"", is_last=True)]) == TEXT


def test_a_mark_inside_is_a_character() -> None:
    assert decode_text("a\ufeffb".encode()) == "a\ufeffb"


@pytest.mark.parametrize("data", [b"\xff", b"h\xfc", b"\xff\xfeh"])
def test_what_is_cut_or_no_text_is_replaced_in_a_pipe_and_refused_in_a_file(data: bytes) -> None:
    assert "\ufffd" in TextDecoder().decode(data, is_last=True)
    with pytest.raises(UnicodeDecodeError):
        decode_text(data)
