"""The UDP transport: frames in both directions, back-pressure, wakeups of the sender, the end, and lost peers."""

import sys
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.protocol.network import Faults, Network

from chatprotocol.udp.packet import ACK, Datagram, pack, unpack
from chatprotocol.wire.readers import frame
from chatserver.net.udp_transport import UdpTransport

from .helpers import DEADLINE_SECONDS, eventually, in_background, must_end
from .udp_line import ADDRESS, OPENING, SESSION, RecordingSocket, UdpLine

C, D = ord("C"), ord("D")
INPUT_MAX_BYTES = 64 * 1024
WRITE_MAX_BYTES = 16 * 1024
RESEND_SECONDS = 0.2
WINDOW = 64


@pytest.fixture
def line() -> UdpLine:
    return UdpLine()


def acknowledged(line: UdpLine) -> list[int]:
    return [datagram.sequence for datagram in line.new_packets() if datagram.kind == ACK]


def short_frames(count: int) -> list[bytes]:
    """Numbered, of nine bytes each."""
    return [frame(D, b"%04d" % number) for number in range(1, count + 1)]


def lose(line: UdpLine) -> None:
    line.clock.now += 60.0
    line.transport.check_timeouts(line.clock.now)


WAKE_READER: dict[str, tuple[Callable[[UdpLine], object], bytes]] = {
    "datagram": (lambda line: line.peer_sends(frame(C, b"EX")), b"C\0\0\0\2EX"),
    "hang up": (lambda line: line.transport.hang_up(), b""),
    "close": (lambda line: line.transport.close(), b""),
    "end": (lambda line: line.transport.end(), b""),
    "lost": (lose, b""),
    "last acknowledgement": (lambda line: line.acknowledge(1), b""),
}


@pytest.mark.parametrize("event", WAKE_READER)
def test_waiting_reader_is_woken(line: UdpLine, event: str) -> None:
    wake, expected = WAKE_READER[event]
    if event == "last acknowledgement":
        line.transport.write([frame(C, b"BYE")])
        line.transport.end()
    read: list[bytes] = []
    reader = in_background(lambda: read.append(line.transport.read(100, 10 * DEADLINE_SECONDS)))
    eventually(lambda: sys._current_frames()[reader.ident or 0].f_code.co_name == "wait")
    wake(line)
    must_end(reader)
    assert read == [expected]


def test_write_takes_16_kib_and_sends_the_window(line: UdpLine) -> None:
    """Promise: memory stays bounded. A write with a full window takes nothing."""
    data = b"".join(short_frames(4_000))
    assert line.transport.write_max_bytes == WRITE_MAX_BYTES
    assert line.transport.write([data[at : at + 5_000] for at in range(0, len(data), 5_000)]) == WRITE_MAX_BYTES
    assert [datagram.sequence for datagram in line.new_packets()] == list(range(1, WINDOW + 1))
    held_bytes = line.transport.unacknowledged_bytes()
    assert held_bytes < WRITE_MAX_BYTES + WINDOW * 13
    for pieces in ([], [b"x"], [b"x" * 100_000]):
        with pytest.raises(BlockingIOError):
            line.transport.write(pieces)
    assert line.new_packets() == []
    assert line.transport.unacknowledged_bytes() == held_bytes


def test_failed_send_counts_as_a_lost_packet(line: UdpLine) -> None:
    line.sock.fault = PermissionError()
    assert line.transport.write([frame(C, b"READY")]) == 10
    line.peer_sends(frame(C, b"PM"))
    line.sock.fault = None
    line.clock.now += RESEND_SECONDS
    line.transport.flush()
    line.arrive_packed(line.peer.datagrams_to_send(line.clock.now))
    assert line.new_packets() == [Datagram(C, SESSION, 1, b"READY"), *[Datagram(ACK, SESSION, 1)] * 2]
    assert line.read() == b"C\0\0\0\2PM"


def test_sender_is_woken_once_a_refused_write_has_room(line: UdpLine) -> None:
    line.transport.write(short_frames(WINDOW))
    with pytest.raises(BlockingIOError):
        line.transport.write(short_frames(1))
    line.acknowledge(2)
    assert line.wakeups == 0, "the window begins at the oldest datagram in flight"
    line.acknowledge(1)
    assert line.wakeups == 1
    line.transport.write([b"x" * WRITE_MAX_BYTES, b"x"])
    line.acknowledge(*range(3, WINDOW + 1))
    assert line.wakeups > 1


def test_sender_is_woken_while_frames_wait(line: UdpLine) -> None:
    """Also after the end: the rest must not go out one window for each timeout."""
    line.transport.write(short_frames(WINDOW + 1))
    line.acknowledge(1)
    assert line.wakeups == 1
    line.transport.flush()
    line.acknowledge(2)
    assert line.wakeups == 1
    line.transport.write(short_frames(1_000))
    line.transport.end()
    received = b""
    while line.transport.unacknowledged_bytes():
        calls = line.wakeups
        received += line.carry()
        assert line.wakeups > calls
        line.transport.flush()
    assert received.endswith(b"".join(short_frames(1_000)))


def test_sender_is_not_woken_without_need(line: UdpLine) -> None:
    line.transport.write(short_frames(3))
    line.acknowledge(1, 2, 3)
    line.peer_sends(frame(C, b"PM"), frame(D, b"hello"))
    line.transport.check_timeouts(line.clock.now)
    assert line.wakeups == 0
    without_sender = UdpTransport(RecordingSocket(), ADDRESS, SESSION, OPENING, clock=line.clock)  # type: ignore[arg-type]
    assert without_sender.check_timeouts(line.clock.now + 60.0) != ""


def test_callbacks_run_without_the_lock(line: UdpLine) -> None:
    """The sender's wakeup and the system may take their time; other threads go on."""
    checked = []

    def check(*_: object) -> int:
        must_end(in_background(line.transport.unacknowledged_bytes))
        checked.append(True)
        return 0

    line.transport.set_wake(check)
    line.sock.sendto = check
    line.peer_sends(frame(C, b"PM"))
    line.transport.write(short_frames(WINDOW + 1))
    line.acknowledge(1)
    line.transport.flush()
    lose(line)
    line.transport.hang_up()
    assert len(checked) == 1 + WINDOW + 1 + 1 + 1 + 1


def test_reader_sees_the_end_after_the_last_acknowledgement(line: UdpLine) -> None:
    """Until then the sender is woken for each resend of the last frame."""
    line.transport.write([frame(C, b"BYE")])
    line.transport.end()
    (bye,) = line.new_packets()
    with pytest.raises(TimeoutError):
        line.transport.read(100, 0.0)
    for later, calls in ((RESEND_SECONDS - 0.001, 0), (0.002, 1)):
        line.clock.now += later
        assert line.transport.check_timeouts(line.clock.now) == ""
        assert line.wakeups == calls
    line.transport.flush()
    assert line.transport.check_timeouts(line.clock.now) == ""
    assert line.new_packets() == [bye]
    line.peer_sends(frame(C, b"PM"))
    line.acknowledge(1)
    assert line.wakeups == 2, "the sender may close the transport"
    assert line.transport.read(100, 0.0) == b"C\0\0\0\2PM"
    assert line.transport.read(100, 0.0) == b""


def test_transport_that_hung_up_takes_and_holds_nothing(line: UdpLine) -> None:
    """It still acknowledges, so that the peer goes on to read what was sent. A closed one is marked as such."""
    line.peer_sends(frame(C, b"PM"))
    assert not line.transport.closed
    line.transport.hang_up()
    assert line.wakeups == 1
    line.new_packets()
    line.peer_sends(*[frame(D, b"x" * 1_200)] * 60)
    assert acknowledged(line) == list(range(2, 62)), "the input is not filled"
    assert line.transport.read(100, 0.0) == b"C\0\0\0\2PM"
    assert line.transport.read(100, 0.0) == b""
    for act in (line.transport.flush, lambda: line.transport.write([frame(C, b"more")])):
        with pytest.raises(ConnectionAbortedError):
            act()
    line.transport.close()
    assert line.transport.closed


TO_PEER, TO_TRANSPORT = 0, 1


@given(dice=st.randoms(use_true_random=True))
def test_frames_arrive_once_and_in_order_with_slow_threads(dice: Random) -> None:
    """Both ways, with small limits, while reader and sender take their time. The sender acts only when it is woken."""
    line = UdpLine(input_max_bytes=200, write_max_bytes=100)
    network = Network(dice.getrandbits(32), Faults(lost=0.2, repeated=0.2, late=0.5, late_seconds=0.3))
    asked, answers = (
        b"".join(frame(kind, b"%d " % number * dice.randint(0, 20)) for number in range(dice.randint(0, 150)))
        for kind in (D, C)
    )
    network.send(TO_TRANSPORT, line.peer.write(asked, line.clock.now), line.clock.now)
    rest, read, heard, calls = answers, b"", b"", -1
    for round_ in range(4_000):
        if round_ == 200:
            network.faults = Faults()
        now = line.clock.now
        network.send(TO_PEER, map(pack, line.new_packets()), now)
        network.send(TO_TRANSPORT, line.peer.datagrams_to_send(now), now)
        for to, packet in network.arrive(now):
            datagram = unpack(packet)
            assert datagram is not None
            if to == TO_TRANSPORT:
                line.arrive(datagram)
            else:
                network.send(TO_TRANSPORT, line.peer.receive(datagram, now), now)
        heard += line.peer.read()
        if dice.random() < 0.5 or round_ >= 200:
            read += line.read()
        line.clock.now += 0.02
        assert line.transport.check_timeouts(line.clock.now) == ""
        if line.wakeups != calls:
            calls = line.wakeups
            line.transport.flush()
            with suppress(BlockingIOError):
                while rest:
                    rest = rest[line.transport.write([rest[:30], rest[30:200]]) :]
        if not (rest or line.transport.unacknowledged_bytes()) and len(read) == len(asked):
            break
    assert (read, heard) == (asked, answers)
