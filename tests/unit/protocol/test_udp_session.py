"""One end of a session over UDP: frames in both directions, pings, probes and the end. Time is passed in.

The simulated network of test_udp_network.py tests two ends. An arriving or sent datagram is a text: kind, number,
payload.
"""

import math
from collections.abc import Iterable, Iterator

import pytest

from chatprotocol.udp.packet import NO_SESSION, Datagram, pack, unpack
from chatprotocol.udp.session import INPUT_MAX_BYTES, SessionState, UdpClientSession, UdpSession
from chatprotocol.wire.readers import frame

SESSION = 0x0123456789ABCDEF
# The question whether a session exists is as long as its answer, ERROR no_session.
PROBE = "PING            "
OPENING = frame(ord("C"), b"alice")


def heard(text: str, session: int = SESSION) -> Datagram:
    """A datagram of the peer."""
    kind, number, payload = text.split(" ", 2)
    return Datagram(ord(kind), session, int(number), payload.encode())


def texts(packets: Iterable[bytes]) -> list[str]:
    """The datagrams that were sent in the session."""
    found = [unpack(packet) for packet in packets]
    assert all(each is not None and each.session == SESSION for each in found)
    return [f"{chr(each.kind)} {each.sequence} {each.payload.decode()}" for each in found if each is not None]


def c(text: str) -> bytes:
    return frame(ord("C"), text.encode())


def d(text: str) -> bytes:
    return frame(ord("D"), text.encode())


@pytest.fixture
def session() -> UdpSession:
    return UdpSession(SESSION, 0.0, first_input=OPENING)


@pytest.fixture
def client() -> UdpClientSession:
    """A session that began at second 0 with datagram 1 of the server. The next numbers: 2 of it, and 1 of ours."""
    client = UdpClientSession(0.0)
    client.write(OPENING, 0.0)
    client.receive(Datagram(ord("C"), NO_SESSION, 0, b"COOKIE 0123456789abcdef"), 0.0)
    client.receive(heard("C 1 PASSWORD new"), 0.0)
    assert (client.state, client.read()) == (SessionState.OPEN, c("PASSWORD new"))
    return client


# --- both sides ---


def test_input_is_the_frames_once_and_in_order(session: UdpSession) -> None:
    """After the opening. A kind that is unknown is for the wire format to refuse."""
    first, second, third = heard("C 1 PM"), heard("d 2 x"), heard("X 3 y")
    assert texts(session.receive(third, 0.0)) == ["A 3 "]
    assert session.read() == OPENING
    assert not session.has_input
    acks = [ack for each in (first, first, second, third) for ack in session.receive(each, 0.0)]
    assert texts(acks) == ["A 1 "] * 3 + ["A 2 "] * 2 + ["A 3 "] * 2
    assert [session.read(9), session.read()] == [b"C\0\0\0\2PMd\0", b"\0\0\1xX\0\0\0\1y"]


def test_frames_cut_anywhere_are_sent_one_by_one(session: UdpSession) -> None:
    assert texts(session.write(c("READY") + frame(ord("d"), b"abc") + d(""), 0.0)) == ["C 1 READY", "d 2 abc", "D 3 "]
    sent = [packet for byte in d("hello") + d("x") for packet in session.write(bytes([byte]), 0.0)]
    assert texts(sent) == ["D 4 hello", "D 5 x"]


def test_full_input_takes_acknowledgements_and_repeats_its_own(session: UdpSession) -> None:
    """Promise: memory stays bounded. It takes no early datagrams."""
    session.write(c("READY"), 0.0)
    data = "x" * 1_200
    taken = [each for each in range(1, 101) if session.receive(heard(f"D {each} {data}"), 0.0)]
    number = len(taken)
    assert taken == list(range(1, number + 1))
    assert INPUT_MAX_BYTES <= len(OPENING) + number * 1_205 < INPUT_MAX_BYTES + 1_205
    assert session.receive(heard(f"D {number + 128} x"), 0.0) == []
    assert texts(session.receive(heard("D 1 x"), 0.0)) == ["A 1 "] * 2
    session.receive(heard("A 1 "), 0.0)
    assert session.arq.unacknowledged_bytes == 0
    assert len(session.read()) == len(OPENING) + number * 1_205
    assert texts(session.receive(heard(f"D {number + 1} x"), 0.0)) == [f"A {number + 1} "] * 2


def test_closed_session_acknowledges_and_discards(session: UdpSession) -> None:
    session.close()
    assert session.is_over
    assert texts(session.receive(heard("D 1 x"), 0.0)) == ["A 1 "]
    assert session.read() == OPENING
    assert not session.check_peer(60.0)


def test_silent_peer_is_lost_once(session: UdpSession) -> None:
    session.receive(heard("X 1 "), 3.0)
    assert session.next_check_at == 63.0
    assert [session.check_peer(now) for now in (62.9, 63.0, 64.0)] == [False, True, False]
    assert (session.state, session.lost_reason) == (SessionState.LOST, "nothing was heard for 60 s")
    session.close()
    assert session.state is SessionState.LOST


# --- a client ---


def only(found: list[str], text: str) -> list[str]:
    return [each for each in found if each.endswith(" " + text)]


def run(client: UdpClientSession, until: float) -> Iterator[tuple[float, list[str]]]:
    """The datagrams to send and their times, for a caller that looks only at next_check_at."""
    now = 0.0
    while now < until:
        if due := client.datagrams_to_send(now):
            yield now, texts(due)
        assert client.next_check_at > now
        now = client.next_check_at


def test_first_frame_opens_the_session_and_the_next_ones_wait() -> None:
    client = UdpClientSession(0.0)
    assert (client.next_check_at, client.datagrams_to_send(0.0)) == (math.inf, [])
    assert client.write(OPENING[:7], 0.0) == []
    opening = pack(Datagram(ord("C"), NO_SESSION, 0, b"alice".ljust(23)))
    assert client.write(OPENING[7:] + c("secret"), 0.0) == [opening]
    assert client.next_check_at == 0.2
    assert client.receive(Datagram(ord("C"), NO_SESSION, 0, b"COOKIE 0123456789abcdef"), 0.1) == [
        pack(Datagram(ord("C"), NO_SESSION, 0, b"alice 0123456789abcdef".ljust(23)))
    ]
    assert client.state is SessionState.OPENING
    assert texts(client.receive(heard("C 1 PASSWORD new"), 0.2)) == ["A 1 "]
    assert client.state is SessionState.OPEN
    assert client.read() == c("PASSWORD new")
    assert texts(client.datagrams_to_send(0.2)) == ["C 1 secret"]


def test_rejection_is_the_last_input() -> None:
    client = UdpClientSession(0.0)
    client.write(OPENING, 0.0)
    assert client.receive(Datagram(ord("C"), NO_SESSION, 0, b"ERROR server_full"), 0.1) == []
    assert (client.state, client.read()) == (SessionState.REJECTED, c("ERROR server_full"))
    assert client.datagrams_to_send(100.0) == []


@pytest.mark.parametrize("number", [0, SESSION - 1, 2**64 - 1])
@pytest.mark.parametrize("text", ["D 1 x", "C 0 ERROR no_session", "A 1 "])
def test_foreign_session_is_ignored(client: UdpClientSession, number: int, text: str) -> None:
    """It does not end the silence."""
    assert client.receive(heard(text, number), 59.0) == []
    client.datagrams_to_send(60.0)
    assert (client.state, client.read()) == (SessionState.LOST, b"")


def test_answered_pings_every_15_seconds_keep_the_session(client: UdpClientSession) -> None:
    pinged_at = []
    answers = 0
    for now, due in run(client, 600.0):
        pinged_at += [now] * len(only(due, "PING"))
        for each in due:
            answers += 1
            client.receive(heard(f"A {each.split()[1]} "), now)
            client.receive(heard(f"C {answers + 1} PONG"), now)
    assert pinged_at == [15.0 * count for count in range(1, 40)]


def test_write_postpones_the_ping(client: UdpClientSession) -> None:
    client.write(c("CH"), 10.0)
    client.receive(heard("A 1 "), 10.1)
    assert client.datagrams_to_send(15.0) == []
    assert client.next_check_at == 25.0
    assert texts(client.datagrams_to_send(25.0)) == ["C 2 PING"]


@pytest.mark.parametrize("start", [0.0, 10.0])
def test_unacknowledged_frame_probes_after_a_second_of_silence(client: UdpClientSession, start: float) -> None:
    """Once, and after anything was heard once more. An idle client gives the server the time to answer."""
    client.write(c("PM"), start)
    for later in (0.2, 0.9):
        assert only(texts(client.datagrams_to_send(start + later)), PROBE) == []
    assert only(texts(client.datagrams_to_send(start + 1.0)), PROBE) == [f"C 2 {PROBE}"]
    resent = [
        probe
        for later in (2.0, 5.0, 14.0, 31.0)
        for probe in only(texts(client.datagrams_to_send(start + later)), PROBE)
    ]
    assert set(resent) == {f"C 2 {PROBE}"}
    client.receive(heard("D 2 x"), start + 31.5)
    client.receive(heard("A 2 "), start + 31.5)
    assert only(texts(client.datagrams_to_send(start + 32.4)), PROBE) == []
    assert len(only(texts(client.datagrams_to_send(start + 32.5)), PROBE)) == 1


def test_probe_is_sent_within_2_seconds_without_extra_calls(client: UdpClientSession) -> None:
    client.write(c("PM"), 0.0)
    probed_at = [now for now, due in run(client, 10.0) if f"C 2 {PROBE}" in due]
    assert 1.0 <= probed_at[0] <= 2.0


def test_idle_client_does_not_probe(client: UdpClientSession) -> None:
    client.write(c("PM"), 0.0)
    client.receive(heard("A 1 "), 0.1)
    assert [client.datagrams_to_send(now) for now in (1.0, 1.2, 5.0, 14.9)] == [[]] * 4


@pytest.mark.parametrize("words", ["", " There is no such session; open a new one."])
def test_unknown_session_ends_it(client: UdpClientSession, words: str) -> None:
    """Only outside of the session: inside it is an error like others."""
    client.receive(heard("C 2 ERROR no_session No."), 1.0)
    assert (client.state, client.read()) == (SessionState.OPEN, c("ERROR no_session No."))
    assert client.receive(heard("C 0 ERROR no_session" + words), 1.0) == []
    assert (client.state, client.read()) == (SessionState.UNKNOWN, b"")


@pytest.mark.parametrize("goodbye", ["BYE", "BYE the server is shutting down"])
def test_goodbye_ends_the_session_with_three_acknowledgements(client: UdpClientSession, goodbye: str) -> None:
    """The client is gone when a resend arrives. Earlier frames are read first."""
    assert texts(client.receive(heard("C 3 " + goodbye), 1.0)) == ["A 3 "]
    assert client.state is SessionState.OPEN
    assert texts(client.receive(heard("C 2 READY"), 1.0)) == ["A 2 "] * 3
    assert (client.state, client.read()) == (SessionState.CLOSED, c("READY") + c(goodbye))


@pytest.mark.parametrize("text", ["D 2 BYE", "C 2 BYES", "C 2 bye"])
def test_frame_that_resembles_a_goodbye_ends_nothing(client: UdpClientSession, session: UdpSession, text: str) -> None:
    """And no frame of a client ends a server's session."""
    client.receive(heard(text), 1.0)
    session.receive(heard("C 1 BYE"), 1.0)
    assert client.state is session.state is SessionState.OPEN
