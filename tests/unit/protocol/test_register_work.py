"""The dialect register: how much work a message may cost, counted in bytes and not by the clock."""

import codecs

import pytest

from chatprotocol.requests import Send, Unreadable
from chatprotocol.wire.register import Register

from .samples import decode, pieces

GRIN = "\U0001f600"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of a decoder of letters was given."""
    sizes: list[int] = []

    class Watched(codecs.getincrementaldecoder("utf-8")):  # type: ignore[misc]
        def decode(self, data: bytes, final: bool = False) -> str:
            sizes.append(len(data))
            return str(super().decode(data, final))

    monkeypatch.setattr(codecs, "getincrementaldecoder", lambda _: Watched)
    return sizes


@pytest.mark.parametrize("piece_bytes", [1, 16, 70_000])
@pytest.mark.parametrize("letter", ["x", "\u0645", "\u20ac", GRIN])
def test_a_body_of_characters_in_small_pieces_is_not_decoded_again_with_each_of_them(
    letter: str, piece_bytes: int, decoded: list[int]
) -> None:
    """Else one connection that sends a long body byte by byte keeps everybody else waiting."""
    body = letter.encode() * 16_384
    data = b"SEND bob\nContent-length: 16384\n\n" + body

    assert decode(Register(length="characters").request_decoder(), pieces(data, piece_bytes)) == [
        Send("bob", letter * 16_384)
    ]
    assert sum(decoded) <= 100 * len(body)


def test_what_is_said_of_a_length_of_1000_digits_is_short() -> None:
    data = b"SEND bob\nContent-length: " + b"9" * 990 + b"\n\n"
    (refused,) = Register().request_decoder().decode(data)

    assert isinstance(refused, Unreadable)
    assert len(refused.reason) < 300
