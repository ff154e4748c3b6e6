"""Counting and timing what arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arrivals import Delays, MarkerCount
from bench.protocols import text

UPDATE = b'{"type":"users","users":["bob"],"joined":[],"left":["anna"]}\n'


def broadcast(message_id: int) -> bytes:
    return b'{"type":"broadcast","id":%d,"time":"T","from":"n00001","message":"%b"}\n' % (message_id, text(0))


def count(counter: MarkerCount, buffer: bytearray, piece: bytes) -> int:
    """What the counter says of a piece that has come; behind it in the buffer is what came before."""
    buffer[: len(piece)] = piece
    return counter.count(len(piece))


@pytest.fixture
def buffer() -> bytearray:
    return bytearray(b"|" * 65_536)


def test_every_message_counts_once_also_where_pieces_end_within_one(buffer: bytearray) -> None:
    counter = MarkerCount(buffer)
    stream = b"".join(map(broadcast, range(100, 999)))
    for size in (1, 7, 1_500, 4_096, 60_000):
        pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert sum(count(counter, buffer, piece) for piece in pieces) == 899


def test_a_message_that_is_longer_or_shorter_than_those_before_is_seen(buffer: bytearray) -> None:
    counter = MarkerCount(buffer)
    even = b"".join(map(broadcast, range(1_000, 1_100)))
    length = len(even) // 100
    for uneven in (
        b"".join(map(broadcast, range(9_950, 10_050))),
        b"".join(map(broadcast, range(50, 150))),
        even[:5_000] + UPDATE + even[5_000:],
        even[: 20 * length] + b" " * length + even[20 * length :],
        UPDATE * 50,
        even + b"|",
    ):
        assert count(counter, buffer, even) == 100
        assert count(counter, buffer, even) == 100
        assert count(counter, buffer, uneven) == uneven.count(b"|")


def test_a_step_over_every_second_message_is_never_taken(buffer: bytearray) -> None:
    message = broadcast(1_000)
    between = UPDATE.ljust(len(message) - 1, b" ")[: len(message) - 1] + b"\n"
    counter = MarkerCount(buffer)
    first = message + between + message * 50
    assert count(counter, buffer, first) == 51
    assert count(counter, buffer, message * 60) == 60


@given(st.lists(st.lists(st.sampled_from([broadcast(5), broadcast(50), UPDATE, b"x|y"]), max_size=80), max_size=6))
def test_it_counts_what_counting_every_byte_counts(pieces: list[list[bytes]]) -> None:
    buffer = bytearray(65_536)
    counter = MarkerCount(buffer)
    for messages in pieces:
        piece = b"".join(messages)
        # Two markers never stand as close as in the last of these messages; nothing is promised for such a stream.
        if b"x|yx|y" not in piece:
            assert count(counter, buffer, piece) == piece.count(b"|")


def test_each_delivery_is_timed_by_its_number() -> None:
    delays = Delays()
    delays.sent_at = [10.0, 11.0]
    delays.note(1, 10.5, bytearray(text(0)))
    delays.note(2, 11.25, bytearray(text(0) + b"\n" + text(1)))
    assert delays.milliseconds.tolist() == pytest.approx([500.0, 1_250.0, 250.0])


def test_a_message_that_comes_in_two_pieces_is_timed_by_the_second() -> None:
    whole = bytearray(b"before" + text(0) + b"behind")
    for cut in range(len(whole) + 1):
        delays = Delays()
        delays.sent_at = [0.0]
        delays.note(1, 1.0, whole[:cut])
        delays.note(2, 5.0, whole)
        delays.note(1, 2.0, whole[cut:])
        first = 1_000.0 if cut >= len(b"before") + 17 else 2_000.0
        assert sorted(delays.milliseconds) == pytest.approx([first, 5_000.0])
