"""How a client gets a session over UDP: what it says until there is one, and what it makes of the answers."""

from itertools import accumulate

import pytest

from chatprotocol.udp.arq import Arq, Received
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, Datagram, unpack

C, D = ord("C"), ord("D")
OUTSIDE = b"C" + b"\0" * 12
SESSION = 0x0123456789ABCDEF
COOKIE = b"COOKIE 0123456789abcdef"
FIRST = Datagram(C, SESSION, 1, b"PASSWORD new")
# When an opening that is not answered is said again: after so many seconds each time.
RESENT_AT = list(accumulate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]))
# Less than anything is late.
MOMENT = 0.001


def answer(payload: bytes) -> Datagram:
    """What a server says to somebody without a session."""
    return Datagram(C, 0, 0, payload)


def said(handshake: UdpHandshake, now: float) -> bytes:
    """The payload of the one opening that is due, without the spaces that make it as long as a cookie's datagram."""
    (packet,) = handshake.due(now)
    assert len(packet) >= 36
    datagram = unpack(packet)
    assert datagram is not None
    assert (datagram.kind, datagram.session, datagram.sequence) == (C, 0, 0)
    return datagram.payload.rstrip(b" ")


def with_cookie(now: float = 0.0) -> UdpHandshake:
    """One that has its cookie, and has said so."""
    handshake = UdpHandshake(b"alice", now)
    handshake.due(now)
    assert handshake.receive_reply(answer(COOKIE), now) is None
    assert said(handshake, now) == b"alice 0123456789abcdef"
    return handshake


# --- what is said ---


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        (b"alice", OUTSIDE + b"alice                  "),
        (b"a", OUTSIDE + b"a                      "),
        (b"alice bm-pm", OUTSIDE + b"alice bm-pm            "),
        (b"x" * 22, OUTSIDE + b"x" * 22 + b" "),
        (b"x" * 23, OUTSIDE + b"x" * 23),
        (b"x" * 32 + b" pm-dm", OUTSIDE + b"x" * 32 + b" pm-dm"),
    ],
    ids=lambda value: repr(value[-23:]),
)
def test_the_first_opening_is_as_long_as_its_answer_of_36_bytes(text: bytes, packet: bytes) -> None:
    assert UdpHandshake(text, 0.0).due(0.0) == [packet]
    assert len(packet) >= 36


@pytest.mark.parametrize("text", [b"alice", b"a", b"alice bm-pm"])
def test_a_cookie_is_sent_back_at_once_behind_what_was_said(text: bytes) -> None:
    handshake = UdpHandshake(text, 0.0)
    handshake.due(0.0)

    assert handshake.receive_reply(answer(COOKIE), 0.1) is None

    assert handshake.look_at == 0.1
    assert said(handshake, 0.1) == text + b" 0123456789abcdef"
    assert handshake.due(0.1) == []


def test_a_cookie_of_any_form_is_sent_back_as_it_is() -> None:
    handshake = UdpHandshake(b"alice", 0.0)
    handshake.receive_reply(answer(b"COOKIE Of-another-server/7="), 0.0)

    assert said(handshake, 0.0) == b"alice Of-another-server/7="


# --- until there is an answer ---


@pytest.mark.parametrize("start", [0.0, 1_000.0])
def test_an_opening_is_said_8_times_more_each_time_after_twice_the_time(start: int) -> None:
    handshake = UdpHandshake(b"alice", start)
    assert handshake.look_at == start
    (packet,) = handshake.due(start)

    for time in (start + each for each in RESENT_AT):
        assert handshake.look_at == pytest.approx(time)
        assert handshake.due(time - MOMENT) == []
        assert handshake.due(handshake.look_at) == [packet], f"after {time} s"
    assert handshake.look_at > start + 100
    for seconds in (60, 110, 1_000, 100_000):
        assert handshake.due(start + seconds) == []


def test_with_the_cookie_it_begins_anew() -> None:
    handshake = UdpHandshake(b"alice", 0.0)
    for time in (0.0, *RESENT_AT):
        handshake.due(time)
    handshake.receive_reply(answer(COOKIE), 60.0)

    assert handshake.look_at == 60.0
    packets = [packet for _ in range(9) for packet in handshake.due(handshake.look_at)]

    assert [packet[13:].rstrip() for packet in packets] == [b"alice 0123456789abcdef"] * 9
    assert handshake.due(1_000.0) == []


def test_the_same_cookie_once_more_is_no_reason_to_hurry() -> None:
    """The opening without it was perhaps sent twice, and each is answered."""
    handshake = with_cookie()

    for _ in range(20):
        assert handshake.receive_reply(answer(COOKIE), 0.1) is None

    assert handshake.due(0.2 - MOMENT) == []
    assert said(handshake, 0.2) == b"alice 0123456789abcdef"


def test_another_cookie_takes_the_place_of_one_that_was_too_old() -> None:
    handshake = with_cookie()

    assert handshake.receive_reply(answer(b"COOKIE 1111111111111111"), 0.1) is None

    assert said(handshake, 0.1) == b"alice 1111111111111111"
    assert said(handshake, 0.3 + MOMENT) == b"alice 1111111111111111"


def test_a_server_that_gives_one_cookie_after_the_other_is_not_followed_for_ever() -> None:
    """Else it made its client send as fast as it does itself."""
    handshake = UdpHandshake(b"alice", 0.0)
    sent = []
    for number in range(100):
        handshake.receive_reply(answer(b"COOKIE %016x" % number), 0.0)
        sent += handshake.due(0.0)

    assert len(sent) == 4


# --- what the answers mean ---


def test_the_first_datagram_of_a_session_begins_it() -> None:
    handshake = with_cookie()

    arq = handshake.receive_reply(FIRST, 5.0)

    assert isinstance(arq, Arq)
    assert arq.session == SESSION
    assert arq.silent_seconds(7.0) == 2.0
    arrival = arq.receive(FIRST, 5.0)
    assert arrival == Received([b"A\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\1"], [(C, b"PASSWORD new")])
    arq.put([(C, b"secret")])
    assert arq.due(5.0) == [b"C\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\1secret"]


def test_a_session_that_the_second_datagram_has_begun_is_given_the_first_when_it_comes() -> None:
    handshake = with_cookie()

    arq = handshake.receive_reply(Datagram(D, SESSION, 2, b"PUBLIC"), 0.0)

    assert isinstance(arq, Arq)
    assert arq.receive(Datagram(D, SESSION, 2, b"PUBLIC"), 0.0).frames == []
    assert arq.receive(FIRST, 0.0).frames == [(C, b"PASSWORD new"), (D, b"PUBLIC")]


@pytest.mark.parametrize("first", [FIRST, Datagram(ACK, SESSION, 1), Datagram(C, 2**64 - 1, 0, b"ERROR no_session")])
def test_without_a_cookie_nobody_has_opened_a_session(first: Datagram) -> None:
    """It is of a session that a client with the same port had before."""
    handshake = UdpHandshake(b"alice", 0.0)
    handshake.due(0.0)

    assert handshake.receive_reply(first, 0.1) is None

    assert said(handshake, 0.2) == b"alice"


@pytest.mark.parametrize(
    "payload",
    [
        b"ERROR server_full The server is full; try again later.",
        b"ERROR shutting_down",
        b"COOKIE",
        b"PASSWORD new",
        b"",
    ],
)
@pytest.mark.parametrize("handshake", [UdpHandshake(b"alice", 0.0), with_cookie()], ids=["at first", "with a cookie"])
def test_what_is_no_cookie_says_why_there_is_no_session(payload: bytes, handshake: UdpHandshake) -> None:
    assert handshake.receive_reply(answer(payload), 0.0) == payload


@pytest.mark.parametrize("kind", [D, ACK, ord("d"), ord("c"), 0])
def test_outside_of_a_session_only_commands_are_answers(kind: int) -> None:
    handshake = UdpHandshake(b"alice", 0.0)

    assert handshake.receive_reply(Datagram(kind, 0, 0, COOKIE), 0.0) is None

    assert said(handshake, 0.0) == b"alice"
