"""Counting and timing deliveries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.deliveries import ConfirmationTimes, DeliveryTimes, MarkerCounter, RecordCounter, SampledCounter
from bench.protocols import text

USERS_EVENT = b'{"type":"users","users":["bob"],"joined":[],"left":["anna"]}\n'


def broadcast(message_id: int) -> bytes:
    return b'{"type":"broadcast","id":%d,"time":"T","from":"n00001","message":"%b"}\n' % (message_id, text(0))


def count(counter: MarkerCounter, buffer: bytearray, piece: bytes) -> int:
    """Counts a piece that overwrites the beginning of the buffer; markers after it are from earlier pieces."""
    buffer[: len(piece)] = piece
    return counter.count(len(piece))


MESSAGES = st.sampled_from([broadcast(5), broadcast(50), USERS_EVENT, b"x|y"])


@given(st.lists(st.lists(MESSAGES, max_size=80), max_size=6), st.sampled_from([1_500, 4_096, 65_536]))
def test_each_message_of_a_stream_counts_once(groups: list[list[bytes]], size: int) -> None:
    """Messages may have different lengths, and pieces may end inside a message."""
    buffer = bytearray(b"|" * 65_536)
    counter = MarkerCounter(buffer)
    for messages in groups:
        stream = b"".join(messages)
        # No server sends markers this close to each other, and the counter may miss one.
        if b"x|yx|y" not in stream:
            pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
            assert sum(count(counter, buffer, piece) for piece in pieces) == stream.count(b"|")


def test_step_of_every_second_message_is_not_used() -> None:
    buffer = bytearray(65_536)
    message = broadcast(1_000)
    counter = MarkerCounter(buffer)
    assert count(counter, buffer, message + b" " * len(message) + message * 50) == 51
    assert count(counter, buffer, message * 60) == 60


def test_delivery_is_timed_by_its_number_when_that_is_complete() -> None:
    piece = bytearray(b"before" + text(1) + b"after" + text(0))
    for cut in range(len(piece) + 1):
        times = DeliveryTimes()
        times.sent_at = [0.0, 0.5]
        times.add(1, 1.0, piece[:cut])
        times.add(2, 5.0, piece)
        times.add(1, 2.0, piece[cut:])
        first = 500.0 if cut >= len(b"before") + 17 else 1_500.0
        second = 1_000.0 if cut >= len(piece) - 64 + 17 else 2_000.0
        assert sorted(times.milliseconds) == pytest.approx(sorted([first, second, 4_500.0, 5_000.0]))


def test_confirmations_are_timed_wherever_their_bytes_are_divided() -> None:
    """Each is of the oldest message of its sender; two senders take turns."""
    piece = bytearray(b'{"type":"sent","id":1,"status":"sent"}\n{"type":"users"}\n{"type":"sent","id":3}\n')
    marker = b'"type":"sent"'
    for cut in range(len(piece)):
        times = ConfirmationTimes(marker, [7, 8], sent_at=[0.0, 1.0, 2.0])
        times.add(7, 3.0, piece[:cut])
        times.add(8, 4.0, piece[:40])
        times.add(7, 5.0, piece[cut:])
        first = 3_000.0 if cut >= 1 + len(marker) else 5_000.0
        second = 1_000.0 if cut >= piece.rfind(marker) + len(marker) else 3_000.0
        assert sorted(times.milliseconds) == pytest.approx(sorted([first, second, 3_000.0]))


def record(plain_bytes: int) -> bytes:
    """A record of TLS 1.3, which has 17 bytes more than its data (RFC 8446, section 5.2)."""
    return b"\x17\3\3" + (plain_bytes + 17).to_bytes(2, "big") + b"c" * (plain_bytes + 17)


@given(st.lists(st.integers(0, 300), max_size=20), st.integers(1, 400))
def test_plain_bytes_of_records_are_counted_when_the_records_are_complete(sizes: list[int], piece_bytes: int) -> None:
    stream = b"".join(map(record, sizes)) + record(50)[:-1]
    buffer = bytearray(400)
    counter = RecordCounter(buffer)
    found = 0
    for begin in range(0, len(stream), piece_bytes):
        piece = stream[begin : begin + piece_bytes]
        buffer[: len(piece)] = piece
        found += counter.count(7, len(piece))
    assert found == sum(sizes)


def test_encrypted_receivers_count_by_the_messages_of_the_one_that_is_decrypted() -> None:
    buffer = bytearray(65_536)
    counter = SampledCounter(buffer, sample=1)

    def receive(fd: int, piece: bytes) -> int:
        buffer[: len(piece)] = piece
        return counter.count(fd, len(piece))

    messages = broadcast(9) * 2 + broadcast(10) * 8
    assert receive(2, record(len(messages) // 2)) == 0  # nothing is known about the length of a message yet
    assert receive(1, messages) == 10 + 5
    assert receive(2, record(len(messages) - len(messages) // 2)) == 5
    assert receive(3, record(len(messages) - 1)) == 9  # a lost byte: the count is never complete
    assert receive(1, broadcast(10)) == 1
