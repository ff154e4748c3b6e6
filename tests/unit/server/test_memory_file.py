"""The memory file: written data is read and sent by its positions, until it is discarded."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.net.memory_file import MemoryFile, open_memory, open_unnamed_file

from .helpers import DEADLINE_SECONDS, memory_descriptors

SEGMENT_BYTES = 8


@pytest.fixture
def file() -> Iterator[MemoryFile]:
    with closing(MemoryFile(0, SEGMENT_BYTES)) as file:
        yield file


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a connection, and the peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(DEADLINE_SECONDS)
        yield ours, theirs


def size_of(descriptor: int) -> int:
    """0 if it is closed."""
    try:
        return os.fstat(descriptor).st_size
    except OSError:
        return 0


@given(
    steps=st.lists(st.tuples(st.binary(max_size=3 * SEGMENT_BYTES), st.integers(0, 40)), max_size=20), data=st.data()
)
def test_kept_data_is_read_from_any_position_and_memory_stays_bounded(
    steps: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """Promise: memory stays bounded. A segment is kept as a whole while any of it is. A short write is continued."""
    whole = b""
    kept_from = 0
    before = memory_descriptors()
    descriptors: list[int] = []

    def open_segment() -> int:
        descriptors.append(open_memory())
        return descriptors[-1]

    def write_a_part(descriptor: int, view: memoryview, offset: int) -> int:
        return os.pwrite(descriptor, view[:3], offset)

    with closing(MemoryFile(0, SEGMENT_BYTES, open_segment, write_a_part)) as file:
        for text, kept_bytes in steps:
            file.append(text)
            whole += text
            file.discard_before(len(whole) - kept_bytes)
            kept_from = max(kept_from, (len(whole) - kept_bytes) // SEGMENT_BYTES * SEGMENT_BYTES)
            start = data.draw(st.integers(min(kept_from, len(whole)), len(whole)))
            end = data.draw(st.integers(start, len(whole)))
            assert file.read(start, end) == whole[start:end]
            segments = -(-len(whole) // SEGMENT_BYTES) - kept_from // SEGMENT_BYTES
            assert sum(map(size_of, {*descriptors})) <= segments * SEGMENT_BYTES
    assert memory_descriptors() == before


def test_segment_without_a_descriptor_is_in_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    """Rooms open no descriptors in advance: there may be none. Their members get all messages."""

    def open_segment() -> int:
        raise OSError(errno.EMFILE, "too many open files")

    ours, theirs = pair
    with closing(MemoryFile(0, SEGMENT_BYTES, open_segment)) as file:
        file.append(b"0123456789abcdef0123")
        assert file.read(3, 18) == b"3456789abcdef01"
        assert file.send(ours.fileno(), 3, 20) == SEGMENT_BYTES - 3
        assert theirs.recv(100) == b"34567"
        file.discard_before(SEGMENT_BYTES)
        with pytest.raises(LookupError):
            file.read(0, 1)
        assert file.read(8, 20) == b"89abcdef0123"


def test_file_has_no_more_descriptors_than_its_maximum() -> None:
    """Promise: descriptors stay bounded. There may be a thousand rooms with slow members."""
    before, whole, kept_from = memory_descriptors(), b"", 0
    with closing(MemoryFile(0, SEGMENT_BYTES, descriptors_max=2)) as file:
        for number in range(40):
            file.append(b"%12d" % number)
            whole += b"%12d" % number
            kept_from = max(kept_from, len(whole) - (30 if number % 20 == 19 else 200))
            file.discard_before(kept_from)
            assert memory_descriptors() <= before + 2
            assert file.read(kept_from, len(whole)) == whole[kept_from:]


def test_expected_size_is_opened_from_the_start() -> None:
    """Without free descriptors the server goes on. Connections still get all messages."""
    descriptors = [open_memory() for _ in range(12)]
    with closing(MemoryFile(10 * SEGMENT_BYTES, SEGMENT_BYTES, descriptors.pop)) as file:
        descriptors.clear()
        for number in range(20):
            file.append(b"%8d" % number * 4)
            file.discard_before((number - 1) * 4 * SEGMENT_BYTES)
            assert file.read(number * 32, number * 32 + 32) == b"%8d" % number * 4


def test_send_ends_with_the_segment(file: MemoryFile, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    file.append(b"0123456789abcdefXYZ")
    assert [file.send(ours.fileno(), *span) for span in ((3, 18), (8, 18), (16, 18))] == [5, 8, 2]
    assert theirs.recv(99) == b"3456789abcdefXY"
    theirs.close()
    with pytest.raises(BrokenPipeError):
        file.send(ours.fileno(), 16, 18)


def test_sent_data_survives_that_it_is_discarded(file: MemoryFile, pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel shares the memory; it must not be used again for later data."""
    ours, theirs = pair
    file.append(b"01234567")
    file.send(ours.fileno(), 0, 8)
    file.discard_before(8)
    file.append(b"abcdefgh")
    assert theirs.recv(8) == b"01234567"


@pytest.mark.parametrize("open_segment", [open_memory, open_unnamed_file])
def test_no_other_process_can_open_the_memory(pair: tuple[socket.socket, socket.socket], open_segment: type) -> None:
    """A system without files in memory uses a file on disk without a name."""
    ours, theirs = pair
    opened: list[int] = []
    with closing(MemoryFile(0, SEGMENT_BYTES, lambda: opened.append(open_segment()) or opened[-1])) as file:  # type: ignore[func-returns-value]
        file.append(b"0123456789")
        assert file.read(0, 10) == b"0123456789"
        assert file.send(ours.fileno(), 0, 10) == SEGMENT_BYTES
        assert theirs.recv(99) == b"01234567"
        for descriptor in opened:
            assert os.fstat(descriptor).st_nlink == 0
            assert not os.get_inheritable(descriptor)
