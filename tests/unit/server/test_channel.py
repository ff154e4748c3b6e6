"""Channels: frames both ways over datagrams, each once and in order, and the courier is called whenever it must be."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatprotocol.udp.packet import ACK, PIECE, Datagram, unpack
from chatprotocol.wire.readers import frame
from chatserver.net import udp_transport as transport_module
from chatserver.net.udp_transport import UdpTransport

from .lines import ADDRESS, OPENING, SESSION, Line, NotingSocket
from .rooms import DEADLINE_SECONDS, in_background, must_end

C, D = ord("C"), ord("D")
# The limits, as the module has them.
INBOX_MAX_BYTES = 64 * 1024
SEND_QUEUE_MAX_BYTES = 16 * 1024
LONG = b"x" * 1_200
# What a client acknowledges in time, and what it does not.
RESEND_SECONDS = 0.2
WINDOW = 64


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def acks(*sequences: int) -> list[Datagram]:
    return [Datagram(ACK, SESSION, sequence) for sequence in sequences]


def acknowledged(line: Line) -> list[int]:
    return [datagram.sequence for datagram in line.news() if datagram.kind == ACK]


def short_frames(count: int, first: int = 1) -> list[bytes]:
    """Numbered, of nine bytes each."""
    return [frame(D, b"%04d" % number) for number in range(first, first + count)]


def shuffled(count: int) -> bytes:
    """Text in which what is lost, doubled or misplaced is seen."""
    return bytes(at * 7 % 251 for at in range(count))


# --- what has come ---


def test_what_the_peer_says_is_read_as_frames_and_acknowledged(line: Line) -> None:
    line.give(Datagram(C, SESSION, 1, b"PM"), Datagram(D, SESSION, 2, b"hello"), Datagram(PIECE, SESSION, 3, b""))

    assert line.read() + line.read() + line.read() == b"C\0\0\0\2PMD\0\0\0\5hellod\0\0\0\0"
    assert line.news() == acks(1, 2, 3)


def test_what_comes_too_early_or_twice_is_read_once_and_in_order(line: Line) -> None:
    said = [Datagram(D, SESSION, number, b"%d" % number) for number in (1, 2, 3)]
    line.give(said[2])
    assert line.read() == b""
    line.give(said[0], said[0], said[2], said[1])

    assert line.read() + line.read() == b"D\0\0\0\x011D\0\0\0\x012D\0\0\0\x013"
    assert line.read() == b""
    assert [number for number, _ in groupby(acknowledged(line))] == [3, 1, 3, 2]


def test_a_kind_that_nobody_knows_is_for_the_dialect_to_refuse(line: Line) -> None:
    line.give(Datagram(0, SESSION, 1, b"x"), Datagram(255, SESSION, 2, b""))

    assert line.read() + line.read() == b"\0\0\0\0\1x\xff\0\0\0\0"
    assert line.news() == acks(1, 2)


def test_what_the_peer_said_to_get_the_session_is_read_first(line: Line) -> None:
    line.transport.deliver([(C, b"alice")])
    line.say((C, b"secret"))

    assert line.read() + line.read() == b"C\0\0\0\5aliceC\0\0\0\6secret"


def test_what_has_come_is_read_in_pieces_that_are_not_longer_than_was_asked(line: Line) -> None:
    text = shuffled(1_000)
    line.say((D, text), (C, b"EX"))
    data = b""
    while part := line.transport.read(7, 0.0) if len(data) < 1_012 else b"":
        assert len(part) <= 7
        data += part

    assert data == frame(D, text) + frame(C, b"EX")


@pytest.mark.parametrize("patience", [0.0, 0.001])
def test_who_says_nothing_for_so_long_is_reported(line: Line, patience: float) -> None:
    with pytest.raises(TimeoutError):
        line.transport.read(100, patience)
    line.acknowledge(1)
    with pytest.raises(TimeoutError):
        line.transport.read(100, patience)


def waiting_reader(line: Line, read: list[bytes]) -> Iterator[None]:
    """A reader that waits; then, after what the test does, it must have read something."""
    line.is_alone = False
    reader = in_background(lambda: read.append(line.transport.read(100, 10 * DEADLINE_SECONDS)))
    while not line.transport._arrived._waiters:  # type: ignore[attr-defined]
        assert reader.is_alive()
    yield
    must_end(reader)


@pytest.mark.parametrize("what", ["datagram", "opening", "hang_up", "close", "end", "lost", "last acknowledgement"])
def test_a_reader_that_waits_is_let_go(line: Line, what: str) -> None:
    read: list[bytes] = []
    if what == "last acknowledgement":
        line.transport.write([frame(C, b"BYE")])
        line.transport.end()
    for _ in waiting_reader(line, read):
        match what:
            case "datagram":
                line.say((C, b"EX"))
            case "opening":
                line.transport.deliver([(C, b"EX")])
            case "hang_up":
                line.transport.hang_up()
            case "close":
                line.transport.close()
            case "end":
                line.transport.end()
            case "lost":
                line.clock.now += 60.0
                line.transport.check_timeouts(line.clock.now)
            case _:
                line.acknowledge(1)

    assert read == [b"C\0\0\0\2EX" if what in {"datagram", "opening"} else b""]


# --- back-pressure: the inbox ---


def test_what_a_full_inbox_has_no_room_for_is_not_acknowledged_and_comes_again_later(line: Line) -> None:
    """Promise: back-pressure. However much a peer sends, memory stays bounded, and nothing is lost."""
    texts = [b"%04d" % number * 300 for number in range(WINDOW)]
    line.say(*((D, text) for text in texts))
    taken = acknowledged(line)
    assert taken == list(range(1, len(taken) + 1))
    held_bytes = sum(len(frame(D, text)) for text in texts[: len(taken)])
    assert INBOX_MAX_BYTES <= held_bytes < INBOX_MAX_BYTES + 1_205

    data = b"".join(line.read() for _ in taken)
    assert data == b"".join(frame(D, text) for text in texts[: len(taken)])
    for number in taken:
        line.peer.receive(Datagram(ACK, SESSION, number), line.clock.now)
    line.clock.now += RESEND_SECONDS
    line.give_all(line.peer.due(line.clock.now))
    assert acknowledged(line) == list(range(len(taken) + 1, WINDOW + 1))

    assert b"".join(line.read() for _ in texts[len(taken) :]) == b"".join(
        frame(D, text) for text in texts[len(taken) :]
    )


def test_a_full_inbox_takes_nothing_that_comes_too_early_either(line: Line) -> None:
    line.transport.deliver([(D, b"x" * INBOX_MAX_BYTES)])
    line.give(*(Datagram(D, SESSION, number, LONG) for number in (1, 2, 50, 128)))

    assert line.news() == []


def test_a_full_inbox_keeps_nobody_from_hearing_what_the_peer_has_got(line: Line) -> None:
    """Else who is not read could not be answered."""
    line.transport.write([frame(C, b"READY")])
    line.transport.deliver([(D, b"x" * INBOX_MAX_BYTES)])
    assert line.transport.unacknowledged_bytes() > 0
    line.acknowledge(1)

    assert line.transport.unacknowledged_bytes() == 0


def test_of_what_came_before_a_full_inbox_the_acknowledgement_is_repeated(line: Line) -> None:
    """It was lost, perhaps."""
    line.say((C, b"PM"))
    line.transport.deliver([(D, b"x" * INBOX_MAX_BYTES)])
    line.news()
    line.give(Datagram(C, SESSION, 1, b"PM"))

    assert acknowledged(line) == [1, 1]


# --- what is sent ---


def test_each_frame_that_is_written_is_a_datagram_to_the_peers_address(line: Line) -> None:
    assert line.transport.write([b"C\0\0\0\5READYd\0\0\0\3abc", b"D\0\0\0\0"]) == 23

    assert line.news() == [
        Datagram(C, SESSION, 1, b"READY"),
        Datagram(PIECE, SESSION, 2, b"abc"),
        Datagram(D, SESSION, 3, b""),
    ]


def test_a_frame_is_sent_when_it_is_whole(line: Line) -> None:
    data = frame(D, b"hello")
    for at in range(len(data)):
        assert line.news() == []
        assert line.transport.write([data[at : at + 1]]) == 1

    assert line.news() == [Datagram(D, SESSION, 1, b"hello")]


def test_a_write_takes_no_more_than_there_is_room_for(line: Line) -> None:
    """Promise: memory stays bounded."""
    data = b"".join(short_frames(4_000))
    pieces = [data[at : at + 5_000] for at in range(0, len(data), 5_000)]
    assert line.transport.write(pieces) == SEND_QUEUE_MAX_BYTES

    assert [datagram.sequence for datagram in line.news()] == list(range(1, WINDOW + 1))
    assert line.transport.unacknowledged_bytes() < SEND_QUEUE_MAX_BYTES + WINDOW * 13


@pytest.mark.parametrize("pieces", [[], [b"x"], [b"x" * 100_000]])
def test_where_there_is_no_room_nothing_is_taken(line: Line, pieces: list[bytes]) -> None:
    line.transport.write(short_frames(WINDOW))
    line.news()
    with pytest.raises(BlockingIOError):
        line.transport.write(pieces)

    assert line.news() == []
    line.carry()
    assert line.transport.unacknowledged_bytes() == WINDOW * (13 + 4)


def test_what_is_written_bit_by_bit_as_there_is_room_comes_once_and_in_order(line: Line) -> None:
    frames = short_frames(3_000)
    rest = b"".join(frames)
    while rest:
        with suppress(BlockingIOError):
            rest = rest[line.transport.write([rest[:100], rest[100:]]) :]
        line.carry()
        line.transport.flush()
    while line.transport.unacknowledged_bytes():
        line.carry()
        line.transport.flush()

    assert [frame(*each) for each in line.heard] == frames


def test_what_was_taken_and_had_to_wait_is_sent_with_the_next_flush(line: Line) -> None:
    line.transport.write(short_frames(WINDOW + 3))
    line.news()
    line.transport.flush()
    assert line.news() == []
    line.acknowledge(1, 2)
    assert line.news() == [], "that is the courier's to do"
    line.transport.flush()

    assert [datagram.sequence for datagram in line.news()] == [WINDOW + 1, WINDOW + 2]


def test_what_is_not_acknowledged_is_sent_again_with_the_flush_that_comes_at_its_time(line: Line) -> None:
    line.transport.write(short_frames(3))
    first = line.news()
    line.acknowledge(2)
    line.clock.now += RESEND_SECONDS - 0.001
    line.transport.flush()
    assert line.news() == []
    line.clock.now += 0.002
    line.transport.flush()

    assert line.news() == [first[0], first[2]]


def test_what_the_system_does_not_take_is_sent_again(line: Line) -> None:
    """As if it were lost on the way."""
    line.sock.fault = BlockingIOError()
    assert line.transport.write([frame(C, b"READY")]) == 10
    line.say((C, b"PM"))
    line.clock.now += RESEND_SECONDS
    line.sock.fault = PermissionError()
    line.transport.flush()
    line.sock.fault = None
    line.clock.now += 2 * RESEND_SECONDS
    line.transport.flush()
    line.give_all(line.peer.due(line.clock.now))

    assert line.news() == [Datagram(C, SESSION, 1, b"READY"), *acks(1, 1)]
    assert line.read() == b"C\0\0\0\2PM"


def test_what_the_peer_has_not_got_is_counted(line: Line) -> None:
    assert line.transport.unacknowledged_bytes() == 0
    assert line.transport.can_be_closed
    line.transport.write([frame(C, b"READY"), frame(D, b"hello")])
    assert line.transport.unacknowledged_bytes() == 2 * (13 + 5)
    assert not line.transport.can_be_closed
    line.acknowledge(2)
    assert line.transport.unacknowledged_bytes() == 13 + 5
    line.acknowledge(1)

    assert line.transport.unacknowledged_bytes() == 0
    assert line.transport.can_be_closed


# --- the courier is called ---


def test_the_courier_is_called_when_there_is_room_for_what_was_refused(line: Line) -> None:
    line.transport.write(short_frames(WINDOW))
    with pytest.raises(BlockingIOError):
        line.transport.write(short_frames(1))
    line.acknowledge(2)
    assert line.calls == 0, "the oldest is not there yet: the window has not moved"
    line.acknowledge(1)

    assert line.calls == 1


def test_the_courier_is_called_when_a_part_was_refused(line: Line) -> None:
    assert line.transport.write([LONG] * 20) == SEND_QUEUE_MAX_BYTES
    line.acknowledge(1)

    assert line.calls == 1


def test_the_courier_is_called_when_what_had_to_wait_may_be_sent(line: Line) -> None:
    line.transport.write(short_frames(WINDOW + 1))
    line.acknowledge(1)
    assert line.calls == 1
    line.transport.flush()
    line.acknowledge(2)

    assert line.calls == 1, "nothing is left to be sent"


def test_nobody_is_called_where_there_is_nothing_to_do(line: Line) -> None:
    """It would go round for everybody who says something."""
    line.transport.write(short_frames(3))
    line.acknowledge(1, 2, 3)
    line.say((C, b"PM"), (D, b"hello"))
    line.clock.now += RESEND_SECONDS - 0.001
    line.transport.check_timeouts(line.clock.now)

    assert line.calls == 0


def test_the_courier_is_called_when_something_is_to_be_sent_again(line: Line) -> None:
    line.transport.write(short_frames(1))
    line.clock.now += RESEND_SECONDS - 0.001
    assert line.transport.check_timeouts(line.clock.now) == ""
    assert line.calls == 0
    line.clock.now += 0.002
    assert line.transport.check_timeouts(line.clock.now) == ""
    assert line.calls == 1
    line.transport.flush()
    assert line.transport.check_timeouts(line.clock.now) == ""

    assert line.calls == 1


def test_the_courier_is_called_when_the_last_one_is_acknowledged_after_the_end(line: Line) -> None:
    """Only then may it close."""
    line.transport.write(short_frames(2))
    line.transport.end()
    line.acknowledge(2)
    assert line.calls == 0
    line.acknowledge(1)

    assert line.calls == 1


def test_after_the_end_the_courier_is_called_for_what_had_to_wait_as_before(line: Line) -> None:
    """Else the rest would go out one window at a time, whenever it is looked what to send again."""
    line.transport.write(short_frames(1_000))
    line.transport.end()
    while line.transport.unacknowledged_bytes():
        calls = line.calls
        line.carry()
        assert line.calls > calls
        line.transport.flush()

    assert len(line.heard) == 1_000


def test_before_there_is_a_courier_nobody_is_called(line: Line) -> None:
    """What the peer said to get the session is read, and then there is one."""
    transport = UdpTransport(NotingSocket(), ADDRESS, SESSION, OPENING, 0.0)  # type: ignore[arg-type]
    transport.receive(Datagram(D, SESSION, 1, b"x"), line.clock.now)
    line.clock.now += 60.0

    assert transport.check_timeouts(line.clock.now) != ""


# --- the end ---


def test_the_reader_sees_the_end_when_the_peer_has_got_the_last(line: Line) -> None:
    line.transport.write([frame(C, b"BYE")])
    line.transport.end()
    with pytest.raises(TimeoutError):
        line.transport.read(100, 0.0)
    line.say((C, b"PM"))
    line.acknowledge(1)

    assert line.transport.read(100, 0.0) == b"C\0\0\0\2PM"
    assert line.transport.read(100, 0.0) == b""


def test_the_reader_sees_the_end_at_once_where_nothing_is_on_its_way(line: Line) -> None:
    line.transport.end()

    assert line.transport.read(100, 0.0) == b""


def test_what_comes_in_the_end_is_acknowledged_still(line: Line) -> None:
    """Else the peer would take the session for lost before it has read the last."""
    line.transport.write([frame(C, b"BYE")])
    line.transport.end()
    line.transport.hang_up()
    line.news()
    line.say((C, b"PM"))

    assert line.news() == acks(1)


def test_after_hanging_up_nothing_more_comes(line: Line) -> None:
    line.say((C, b"PM"))
    line.transport.hang_up()
    line.say(*[(D, LONG)] * 50)

    assert line.transport.read(100, 0.0) == b"C\0\0\0\2PM"
    assert line.transport.read(100, 0.0) == b""
    assert line.transport._inbox_bytes == 0


def test_what_is_not_acknowledged_is_sent_again_after_the_end(line: Line) -> None:
    line.transport.write([frame(C, b"BYE")])
    line.transport.end()
    (bye,) = line.news()
    line.clock.now += RESEND_SECONDS
    line.transport.check_timeouts(line.clock.now)
    line.transport.flush()

    assert line.calls == 1
    assert line.news() == [bye]


def test_to_one_who_was_cut_off_nothing_can_be_written_and_the_courier_learns_of_it(line: Line) -> None:
    line.transport.write([frame(C, b"BYE")])
    line.transport.hang_up()

    assert line.calls == 1
    with pytest.raises(ConnectionAbortedError):
        line.transport.flush()
    with pytest.raises(ConnectionAbortedError):
        line.transport.write([frame(C, b"more")])


def test_a_channel_is_closed_for_the_door_and_for_the_reader(line: Line) -> None:
    assert not line.transport.closed
    line.transport.close()

    assert line.transport.closed
    assert line.transport.read(100, 0.0) == b""


# --- the peer is lost ---


def test_a_peer_that_was_not_heard_for_a_minute_is_lost(line: Line) -> None:
    """Promise: who vanishes without a word is gone from the list within 60 s."""
    line.say((C, b"PM"))
    line.clock.now += 59.9
    assert line.transport.check_timeouts(line.clock.now) == ""
    line.clock.now += 0.1
    assert line.transport.check_timeouts(line.clock.now) == "nothing was heard for 60 s"

    assert line.calls == 1
    assert line.transport.check_timeouts(line.clock.now) == "", "it is said once"
    assert line.transport.read(100, 0.0) == b"C\0\0\0\2PM"
    assert line.transport.read(100, 0.0) == b""


@pytest.mark.parametrize("heard", [Datagram(ACK, SESSION, 1), Datagram(C, SESSION, 1, b"PING")])
def test_whatever_a_peer_says_shows_that_it_is_there(line: Line, heard: Datagram) -> None:
    for _ in range(10):
        line.clock.now += 59.9
        assert line.transport.check_timeouts(line.clock.now) == ""
        line.give(heard)


def test_a_peer_that_says_much_and_acknowledges_nothing_is_lost(line: Line) -> None:
    line.transport.write([frame(C, b"READY")])
    reasons: list[str] = []
    sent: list[Datagram] = line.news()
    for number in range(1, 2_000):
        line.clock.now += 0.1
        line.give(Datagram(C, SESSION, number, b"PING"))
        reasons += filter(None, [line.transport.check_timeouts(line.clock.now)])
        if reasons:
            break
        line.transport.flush()
        sent += [datagram for datagram in line.news() if datagram.kind != ACK]

    assert reasons == ["a datagram was not acknowledged, and was sent 9 times"]
    assert sent == [Datagram(C, SESSION, 1, b"READY")] * 9


def test_to_one_who_is_lost_nothing_can_be_written(line: Line) -> None:
    """An error of the system's kind: the courier gives it up."""
    line.transport.write([frame(C, b"READY")])
    line.news()
    line.clock.now += 60.0
    line.transport.check_timeouts(line.clock.now)
    with pytest.raises(OSError, match="nothing was heard for 60 s"):
        line.transport.flush()
    with pytest.raises(OSError, match="nothing was heard for 60 s") as caught:
        line.transport.write([frame(C, b"READY")])

    assert not isinstance(caught.value, BlockingIOError)
    assert line.news() == []


# --- what it is for others ---


def test_the_courier_never_writes_to_a_socket_by_itself(line: Line) -> None:
    assert not line.transport.is_socket
    assert line.transport.descriptor == -1
    assert line.transport.write_max_bytes == SEND_QUEUE_MAX_BYTES
    assert (line.transport.session, line.transport.address, line.transport.opening) == (SESSION, ADDRESS, OPENING)


# --- under hypothesis ---


class Weather:
    """Between a channel and its peer: datagrams are lost, doubled and overtake each other, both ways."""

    def __init__(self, line: Line, dice: Random) -> None:
        self._line = line
        self._dice = dice
        self.is_fair = False
        self._to_peer: list[Datagram] = []
        self._to_transport: list[Datagram] = []

    def blow(self) -> None:
        """Some of what is on its way arrives."""
        line = self._line
        self._to_peer += line.news()
        self._to_transport += filter(None, map(unpack, line.peer.due(line.clock.now)))
        for datagram in self._some(self._to_peer):
            arrival = line.peer.receive(datagram, line.clock.now)
            line.heard += arrival.frames
            self._to_transport += filter(None, map(unpack, arrival.acks))
        line.give(*self._some(self._to_transport))

    def _some(self, on_their_way: list[Datagram]) -> list[Datagram]:
        if self.is_fair:
            everything = on_their_way[:]
            on_their_way.clear()
            return everything
        self._dice.shuffle(on_their_way)
        arrive: list[Datagram] = []
        for _ in range(self._dice.randint(0, len(on_their_way))):
            datagram = on_their_way.pop()
            arrive += [datagram] * self._dice.choice([0, 1, 1, 1, 2])
        return arrive


@settings(max_examples=100)
@given(dice=st.randoms(use_true_random=True))
def test_everything_comes_once_and_in_order_whatever_is_lost_and_whoever_is_slow(dice: Random) -> None:
    """Both ways, while the reader and the courier take their time. The courier goes by what it is called for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport_module, "_INBOX_MAX_BYTES", 200)
        patch.setattr(transport_module, "_SEND_QUEUE_MAX_BYTES", 100)
        line = Line(patch)
        weather = Weather(line, dice)
        asked: list[tuple[int, bytes]] = [
            (D, b"%d " % number * dice.randint(0, 20)) for number in range(dice.randint(0, 150))
        ]
        answers: list[tuple[int, bytes]] = [
            (C, b"%d " % number * dice.randint(0, 20)) for number in range(dice.randint(0, 150))
        ]
        line.peer.put(asked)
        rest, read, calls = b"".join(frame(*each) for each in answers), b"", -1
        for round_ in range(4_000):
            weather.is_fair = round_ >= 200
            weather.blow()
            if dice.random() < 0.5 or weather.is_fair:
                read += line.read()
            line.clock.now += 0.02
            assert line.transport.check_timeouts(line.clock.now) == ""
            if line.calls != calls:  # it sends until nothing more is taken, and rests until it is called
                calls = line.calls
                line.transport.flush()
                with suppress(BlockingIOError):
                    while rest:
                        rest = rest[line.transport.write([rest[:30], rest[30:200]]) :]
            if not rest and len(line.heard) == len(answers) and not line.transport.unacknowledged_bytes():
                read += line.read()
                if len(read) == sum(len(frame(*each)) for each in asked):
                    break

        assert line.heard == answers
        assert read == b"".join(frame(*each) for each in asked)
