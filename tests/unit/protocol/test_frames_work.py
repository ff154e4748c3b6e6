"""The dialect frames: how much work a message may cost, counted in calls and bytes and not by the clock."""

import pytest

from chatprotocol.requests import Command, CommandBatch, Data
from chatprotocol.wire.frames import Frames
from chatprotocol.wire.readers import FrameBuffer

PM = b"C\0\0\0\x02PM"
BM = b"C\0\0\0\x02BM"


@pytest.fixture
def cut_by_length(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call of the frame buffer was given."""
    sizes: list[int] = []
    feed = FrameBuffer.split

    def watched(self: FrameBuffer, data: bytes) -> list[tuple[int, bytes]]:
        sizes.append(len(data))
        return feed(self, data)

    monkeypatch.setattr(FrameBuffer, "split", watched)
    return sizes


def test_messages_that_pour_in_are_one_request_and_not_cut_by_their_lengths(cut_by_length: list[int]) -> None:
    found = Frames().request_decoder().decode((PM + b"D\0\0\0\x05hello") * 1_000)

    assert found == [CommandBatch("PM", ["hello"] * 999), Command("PM"), Data("hello")]
    assert sum(cut_by_length) == 17


@pytest.mark.parametrize(
    "stream",
    [
        (PM + b"D\0\0\0\x05hello") * 500 + b"C\0\0\0\x04PING" + (PM + b"D\0\0\0\x05hello") * 500,
        (PM + b"D\0\0\0\x01\xff") * 1_000,
        PM * 1_000,
        b"D\0\0\x1b\x58" + PM * 1_000,
        (BM + PM) * 1_000,
    ],
    ids=lambda stream: f"{stream!r:.40}",
)
def test_what_only_looks_like_messages_that_pour_in_is_cut_by_its_lengths_once(
    stream: bytes, cut_by_length: list[int]
) -> None:
    Frames().request_decoder().decode(stream)

    assert sum(cut_by_length) == len(stream)
