"""The memory file: what was written is read and sent by its positions, until it is forgotten."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.net import memory_file
from chatserver.net.memory_file import MemoryFile

from .rooms import DEADLINE_SECONDS

SEGMENT_BYTES = 8


@pytest.fixture(autouse=True, scope="module")
def _small_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_file, "SEGMENT_BYTES", SEGMENT_BYTES)
        yield


@pytest.fixture
def file() -> Iterator[MemoryFile]:
    with closing(MemoryFile()) as file:
        yield file


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a connection, and the peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(DEADLINE_SECONDS)
        yield ours, theirs


def held_bytes(file: MemoryFile) -> int:
    return sum(os.fstat(descriptor).st_size for descriptor in [*file._segments.values(), *file._spare])


def open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


# --- reading ---


@given(pieces=st.lists(st.binary(max_size=3 * SEGMENT_BYTES), max_size=8), data=st.data())
def test_what_was_appended_in_pieces_is_read_from_any_position_to_any(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    with closing(MemoryFile()) as file:
        for piece in pieces:
            file.append(piece)

        assert file.read(start, end) == whole[start:end]


def test_what_the_system_takes_a_part_of_is_appended_whole(file: MemoryFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system call may write less than it was given."""
    write = os.pwrite
    monkeypatch.setattr(memory_file.os, "pwrite", lambda number, data, offset: write(number, data[:3], offset))
    file.append(b"0123456789")
    file.append(b"abcdef")

    assert file.read(0, 16) == b"0123456789abcdef"


def test_an_empty_file_takes_no_memory(file: MemoryFile) -> None:
    before = open_descriptors()
    file.append(b"")

    assert file.read(0, 0) == b""
    assert open_descriptors() == before


# --- sending ---


def test_a_send_goes_to_the_end_of_its_segment_at_most(
    file: MemoryFile, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    file.append(b"0123456789abcdefXYZ")
    sent = []
    position = 3
    while position < 18:
        sent.append(file.send(ours.fileno(), position, 18))
        position += sent[-1]

    assert sent == [5, 8, 2]
    assert theirs.recv(99) == b"3456789abcdefXY"


def test_a_full_socket_takes_a_part_and_then_nothing(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: nobody waits for the slow."""
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 16 * 1024 * 1024)
    ours, theirs = pair
    size = 8 * 1024 * 1024
    with closing(MemoryFile()) as file:
        file.append(b"x" * size)
        sent = file.send(ours.fileno(), 0, size)
        assert 0 < sent < size
        with suppress(BlockingIOError):
            while sent < size:
                sent += file.send(ours.fileno(), sent, size)
        assert sent < size
    ours.close()
    received = 0
    while part := theirs.recv(1_000_000):
        received += len(part)

    assert received == sent


def test_what_a_socket_has_not_read_yet_survives_that_it_is_forgotten(
    file: MemoryFile, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The kernel shares the memory; it must not be used again for what comes later."""
    ours, theirs = pair
    file.append(b"01234567")
    file.send(ours.fileno(), 0, 8)
    file.forget(8)
    file.append(b"abcdefgh")

    assert theirs.recv(8) == b"01234567"


def test_a_peer_that_has_gone_is_the_sockets_error(file: MemoryFile, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    file.append(b"0123")

    with pytest.raises(BrokenPipeError):
        file.send(ours.fileno(), 0, 4)


# --- forgetting ---


USES: dict[str, Callable[[MemoryFile, int, int], object]] = {
    "read": MemoryFile.read,
    "send": lambda file, start, end: file.send(-1, start, end),
}


@pytest.mark.parametrize("use", USES)
def test_what_was_forgotten_is_a_lookup_error(file: MemoryFile, use: str) -> None:
    file.append(b"0123456789abcdefXYZ")
    file.forget(16)

    for start in (0, 7, 8, 15):
        with pytest.raises(LookupError):
            USES[use](file, start, 19)
    assert file.read(16, 19) == b"XYZ"


def test_a_segment_of_which_anything_is_kept_is_kept_whole(file: MemoryFile) -> None:
    file.append(b"0123456789abcdefXYZ")
    for before in (-100, 0, 7):
        file.forget(before)
        assert file.read(0, 19) == b"0123456789abcdefXYZ"
    file.forget(15)

    assert file.read(8, 19) == b"89abcdefXYZ"


@given(steps=st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 40)), max_size=20))
def test_no_more_memory_is_held_than_what_was_not_forgotten(steps: list[tuple[bytes, int]]) -> None:
    """Promise: memory stays bounded."""
    whole = b""
    kept_from = 0
    before = open_descriptors()
    with closing(MemoryFile()) as file:
        for data, kept_bytes in steps:
            file.append(data)
            whole += data
            kept_from = max(kept_from, len(whole) - kept_bytes)
            file.forget(len(whole) - kept_bytes)

            assert file.read(kept_from, len(whole)) == whole[kept_from:]
            segments = -(-len(whole) // SEGMENT_BYTES) - kept_from // SEGMENT_BYTES
            assert held_bytes(file) <= segments * SEGMENT_BYTES

    assert open_descriptors() == before


def test_what_it_will_need_is_open_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors the server goes on. Those in the room hear each other, however much they say."""
    with closing(MemoryFile(10 * SEGMENT_BYTES)) as file:
        monkeypatch.setattr(memory_file, "_open_in_memory", None)
        for number in range(20):
            file.append(b"%8d" % number * 4)
            file.forget((number - 1) * 4 * SEGMENT_BYTES)

            assert file.read(number * 32, number * 32 + 32) == b"%8d" % number * 4


def test_closing_gives_everything_back() -> None:
    before = open_descriptors()
    file = MemoryFile(3 * SEGMENT_BYTES)
    file.append(b"x" * 9 * SEGMENT_BYTES)
    file.forget(2 * SEGMENT_BYTES)
    file.close()

    assert open_descriptors() == before


# --- the memory itself ---


@pytest.fixture(params=["memfd", "file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memory files, one on the disk does that has no name."""
    if request.param == "file":
        monkeypatch.delattr(memory_file.os, "memfd_create")


@pytest.mark.usefixtures("kind")
def test_any_kind_of_memory_is_written_read_and_sent(
    file: MemoryFile, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    file.append(b"0123456789")

    assert file.read(0, 10) == b"0123456789"
    assert file.send(ours.fileno(), 0, 10) == SEGMENT_BYTES
    assert theirs.recv(99) == b"01234567"


@pytest.mark.usefixtures("kind")
def test_what_everybody_says_is_no_file_that_others_could_open(file: MemoryFile) -> None:
    file.append(b"secret")
    (descriptor,) = file._segments.values()

    assert os.fstat(descriptor).st_nlink == 0
    assert not os.get_inheritable(descriptor)
