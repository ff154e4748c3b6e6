"""The TLS transport: two ends in memory, with a socket between them that takes and delivers what the test says."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st

from chatserver.net.certificates import load
from chatserver.net.tls import ALERT_NO_TLS, ANSWERS_MAX_BYTES, BATCH_RECORDS, FIRST_BYTE, TlsAcceptor, TlsTransport

from .tls_peer import Line, TlsPeer
from .udp_line import Clock

# The ciphertext that may be in a transport: records of 8 KiB, with their overhead.
WAITING_MAX_BYTES = BATCH_RECORDS * (8 * 1024 + 64)
SECONDS = 10.0


def call(step: Callable[[], None]) -> None:
    step()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of a server and of its client."""
    authority = Authority()
    folder = tmp_path_factory.mktemp("tls")
    return load(*authority.write(folder)).context, authority.client_context()


class Pair:
    """A transport and its peer."""

    def __init__(self, contexts: tuple[ssl.SSLContext, Any]) -> None:
        self.clock = Clock()
        self.peer = TlsPeer(contexts[1])
        self.received = b""
        self.wakes = 0
        self.line = Line(self.clock, self._receive)
        self.transport = TlsTransport(self.line, contexts[0], clock=self.clock)
        self.transport.set_wake(self._wake)

    def _receive(self, ciphertext: bytes) -> None:
        self.received += self.peer.feed(ciphertext)
        if (answer := self.peer.says()) and not self.received:
            self.line.arrivals.append(answer)

    def _wake(self) -> None:
        self.wakes += 1

    def shake(self) -> "Pair":
        self.peer.feed(b"")
        self.line.arrivals.append(self.peer.says())
        self.transport.handshake(SECONDS, call)
        return self

    def take(self, size_bytes: int = 1_000) -> bytes:
        return self.transport.read(size_bytes, SECONDS)


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Pair:
    return Pair(contexts).shake()


def test_hello_begins_with_the_first_byte(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    peer = TlsPeer(contexts[1])
    peer.feed(b"")
    assert peer.says().startswith(FIRST_BYTE)
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        peer.feed(ALERT_NO_TLS)


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
def test_bytes_arrive_in_both_directions_however_records_are_cut(pair: Pair, piece_bytes: int) -> None:
    said = pair.peer.says(b"a question") + pair.peer.says(b"x" * 30_000)
    pair.line.arrivals += [said[at : at + piece_bytes] for at in range(0, len(said), piece_bytes)]
    heard = b""
    while len(heard) < 30_010:
        part = pair.take(448)
        assert 0 < len(part) <= 448
        heard += part
    assert heard == b"a question" + b"x" * 30_000
    with pytest.raises(TimeoutError):
        pair.take()
    assert pair.transport.write([b"one ", b"two ", b"y" * 40_000]) == 40_008
    assert pair.received == b"one two " + b"y" * 40_000


def test_incomplete_record_counts_for_the_time_limit(pair: Pair) -> None:
    pair.line.arrivals += [bytes([each]) for each in pair.peer.says(b"x" * 100)]
    pair.line.seconds_each = 1.0
    began = pair.clock.now
    with pytest.raises(TimeoutError):
        pair.take()
    assert pair.clock.now - began <= SECONDS


def test_full_socket_leaves_a_bounded_rest(pair: Pair) -> None:
    """It is sent by flush, for which the sender is woken; until then nothing more is taken."""
    pair.line.room = 10_000
    taken_bytes = pair.transport.write([bytes(1_000_000)])
    assert 10_000 <= taken_bytes <= 10_000 + WAITING_MAX_BYTES
    assert pair.wakes == 1
    for call in (pair.transport.flush, lambda: pair.transport.write([b"x"])):
        with pytest.raises(BlockingIOError):
            call()
    assert not pair.transport.can_be_closed
    assert taken_bytes - 10_000 <= pair.transport.unsent_bytes <= WAITING_MAX_BYTES  # counted with what is unread
    pair.line.room = 1_000_000
    pair.transport.flush()
    assert pair.transport.unsent_bytes == 0
    assert pair.received == bytes(taken_bytes)
    assert pair.transport.can_be_closed


@given(dice=st.randoms(use_true_random=False))
def test_acknowledged_bytes_have_all_arrived(contexts: tuple[ssl.SSLContext, ssl.SSLContext], dice: Random) -> None:
    """Promise: a direct message waits until a device has received it. TLS must not count a byte too early.

    Whenever nothing is unacknowledged, or a position is, all bytes that were taken before it have arrived.
    """
    pair = Pair(contexts).shake()
    marks: list[tuple[int, int]] = []
    taken_bytes = 0
    for _ in range(dice.randint(1, 20)):
        pair.line.room = dice.choice([0, 1, 30, 5_000, 20_000, 100_000])
        with suppress(BlockingIOError):
            if dice.random() < 0.3:
                pair.transport.flush()
            else:
                taken_bytes += pair.transport.write([bytes(dice.choice([1, 100, 9_000, 70_000]))])
        marks.append((pair.transport.written(), taken_bytes))
        if dice.random() < 0.5:  # the peer's system has what was sent
            pair.line.acknowledged_bytes = pair.line.taken
            for position, size_bytes in marks:
                if pair.transport.acknowledged() >= position:
                    assert len(pair.received) >= size_bytes
            if not pair.transport.unacknowledged_bytes():
                assert len(pair.received) == taken_bytes
    pair.line.room = 1_000_000
    pair.transport.flush()
    pair.line.acknowledged_bytes = pair.line.taken
    assert len(pair.received) == taken_bytes
    assert pair.transport.unacknowledged_bytes() == 0
    assert pair.transport.acknowledged() >= marks[-1][0]


@pytest.mark.parametrize("is_full", [False, True])
def test_end_says_so_after_all_data(pair: Pair, *, is_full: bool) -> None:
    """If the socket is full, with the next flush. Data that the peer still sends is read and discarded."""
    if is_full:
        pair.line.room = 100
    taken_bytes = pair.transport.write([bytes(5_000)])
    if is_full:
        pair.line.room = 0
    pair.transport.end()
    assert pair.peer.has_seen_close != is_full
    assert ("end" in pair.line.calls) != is_full
    assert pair.transport.can_be_closed != is_full
    pair.line.room = 100_000
    pair.transport.flush()
    assert (pair.received, pair.peer.has_seen_close) == (bytes(taken_bytes), True)
    assert "end" in pair.line.calls
    pair.line.arrivals += [b"anything", b""]
    assert pair.take() != b""
    assert pair.take() == b""


def test_end_of_a_lost_peer_waits_for_nothing(pair: Pair) -> None:
    """The connection can be closed at once. Data that the peer did not get never counts as acknowledged."""
    pair.line.room = 100
    pair.transport.write([bytes(5_000)])
    pair.line.acknowledged_bytes = pair.line.taken
    pair.line.is_lost = True
    pair.transport.end()
    assert pair.transport.can_be_closed
    assert "end" in pair.line.calls
    assert pair.transport.unacknowledged_bytes() > 0
    assert pair.transport.acknowledged() < pair.transport.written()


def test_peer_ends_with_close_notify_or_without(pair: Pair) -> None:
    pair.line.arrivals += [pair.peer.says(b"last") + pair.peer.closes()]
    assert (pair.take(), pair.take()) == (b"last", b"")
    assert pair.transport.write([b"answer"]) == 6
    pair.line.arrivals.append(b"")
    assert pair.take() == b""


def test_rubbish_ends_the_connection_with_an_alert(pair: Pair) -> None:
    pair.line.arrivals.append(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(OSError, match=r"(?i)decryption"):
        pair.take()
    assert pair.wakes == 1
    with pytest.raises(ssl.SSLError, match="ALERT"):
        pair.transport.flush()  # the peer gets the alert, and complains to the test


@pytest.mark.parametrize(
    ("hello", "seconds_each", "error"),
    [
        ([b"\x16\x03\x01\x00\x05hello"], 0.0, ssl.SSLError),
        ([b"\x16"] + [b"\x03"] * 100, 1.0, TimeoutError),
        ([], 0.0, TimeoutError),
        ([b"\x16\x03", b""], 0.0, ConnectionAbortedError),
    ],
    ids=["rubbish", "dripping", "silent", "closed"],
)
def test_handshake_that_fails_or_never_ends(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], hello: list[bytes], seconds_each: float, error: type[OSError]
) -> None:
    pair = Pair((contexts[0], contexts[1]))
    sent: list[bytes] = []
    pair.line = Line(pair.clock, sent.append)
    pair.transport = TlsTransport(pair.line, contexts[0], clock=pair.clock)
    pair.line.arrivals += hello
    pair.line.seconds_each = seconds_each
    began = pair.clock.now
    with pytest.raises(error):
        pair.transport.handshake(SECONDS, call)
    assert pair.clock.now - began <= SECONDS
    assert b"".join(sent)[:1] == (b"\x15" if error is ssl.SSLError else b"")


def test_shutdown_does_not_wait_for_handshakes(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Thousands of steps may wait. They fail, and the thread ends."""
    acceptor = TlsAcceptor(lambda: contexts[0])
    acceptor.start()
    acceptor.close()
    peer = TlsPeer(contexts[1])
    peer.feed(b"")
    sent: list[bytes] = []
    with pytest.raises(ConnectionAbortedError):
        acceptor.accept(Line(Clock(), sent.append), peer.says(), SECONDS)
    acceptor.stop()
    assert sent == []


def test_old_protocols_and_renegotiation_are_off(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    context = contexts[0]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    names = [each["name"] for each in context.get_ciphers()]
    assert all(name.startswith(("ECDHE-", "TLS_")) and ("GCM" in name or "CHACHA20" in name) for name in names)


def test_answers_of_tls_itself_are_bounded() -> None:
    """A peer that asks for new keys again and again, and never reads the answers, is disconnected."""

    class Answering:
        def wrap_bio(self, _: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_options: bool) -> "Answering":
            self._outgoing = outgoing
            return self

        def read(self, _: int) -> bytes:
            self._outgoing.write(bytes(1_000))
            raise ssl.SSLWantReadError

    clock = Clock()
    line = Line(clock, lambda _: None)
    line.arrivals += [b"x"] * 100
    transport = TlsTransport(line, Answering(), clock=clock)  # type: ignore[arg-type]
    with pytest.raises(ConnectionAbortedError):
        transport.read(100, SECONDS)
    assert 100 - len(line.arrivals) <= ANSWERS_MAX_BYTES // 1_000 + 1
