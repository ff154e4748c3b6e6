"""The client's handshake over UDP: requests, resends, cookies, and what each reply means."""

from itertools import accumulate

import pytest

from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, Datagram, unpack

C, D = ord("C"), ord("D")
SESSION = 0x0123456789ABCDEF
COOKIE = b"COOKIE 0123456789abcdef"
FIRST = Datagram(C, SESSION, 1, b"PASSWORD new")
RESENT_AT = list(accumulate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]))
MOMENT = 0.001


def reply(payload: bytes) -> Datagram:
    """A datagram outside of a session."""
    return Datagram(C, 0, 0, payload)


def request(handshake: UdpHandshake, now: float) -> bytes:
    """The payload of the only request to send now, without padding."""
    (packet,) = handshake.datagrams_to_send(now)
    datagram = unpack(packet)
    assert datagram is not None
    assert (datagram.kind, datagram.session, datagram.sequence) == (C, 0, 0)
    assert len(packet) >= len(COOKIE) + 13, "the server ignores a shorter request"
    return datagram.payload.rstrip(b" ")


@pytest.fixture
def handshake() -> UdpHandshake:
    return UdpHandshake(b"alice", 0.0)


@pytest.fixture
def with_cookie(handshake: UdpHandshake) -> UdpHandshake:
    """A handshake that has sent its cookie."""
    assert request(handshake, 0.0) == b"alice"
    assert handshake.handle_reply(reply(COOKIE), 0.0) is None
    assert request(handshake, 0.0) == b"alice 0123456789abcdef"
    return handshake


@pytest.mark.parametrize("text", [b"a", b"alice bm-pm", b"x" * 22, b"x" * 23, b"x" * 32 + b" pm-dm"])
def test_request_is_padded_to_the_length_of_a_cookie(text: bytes) -> None:
    assert UdpHandshake(text, 0.0).datagrams_to_send(0.0) == [b"C" + bytes(12) + text.ljust(23)]


@pytest.mark.parametrize("cookie", [b"0123456789abcdef", b"Of-another-server/7="])
def test_cookie_is_appended_to_the_name_at_once(handshake: UdpHandshake, cookie: bytes) -> None:
    handshake.datagrams_to_send(0.0)
    assert handshake.handle_reply(reply(b"COOKIE " + cookie), 0.1) is None
    assert handshake.next_check_at == 0.1
    assert request(handshake, 0.1) == b"alice " + cookie
    assert handshake.datagrams_to_send(0.1) == []


@pytest.mark.parametrize("start", [0.0, 1_000.0])
def test_request_is_resent_8_times_with_doubled_waits(start: float) -> None:
    """A cookie restarts the resends."""
    handshake = UdpHandshake(b"alice", start)
    for expected in (b"alice", b"alice 0123456789abcdef"):
        assert handshake.next_check_at == start
        assert request(handshake, start) == expected
        for time in (start + each for each in RESENT_AT):
            assert handshake.next_check_at == pytest.approx(time)
            assert handshake.datagrams_to_send(time - MOMENT) == []
            assert request(handshake, handshake.next_check_at) == expected, f"after {time} s"
        assert handshake.datagrams_to_send(start + 100_000) == []
        start += 100_000
        assert handshake.handle_reply(reply(COOKIE), start) is None


def test_repeated_cookie_does_not_hasten_the_resend(with_cookie: UdpHandshake) -> None:
    """The server answers each copy of a request."""
    for _ in range(20):
        assert with_cookie.handle_reply(reply(COOKIE), 0.1) is None
    assert with_cookie.datagrams_to_send(0.2 - MOMENT) == []
    assert request(with_cookie, 0.2) == b"alice 0123456789abcdef"


def test_handshake_follows_4_cookies() -> None:
    """A newer cookie replaces an expired one. A server can't make its client send without end."""
    handshake = UdpHandshake(b"alice", 0.0)
    sent = []
    for number in range(100):
        handshake.handle_reply(reply(b"COOKIE %016x" % number), 0.0)
        sent += handshake.datagrams_to_send(0.0)
    assert [packet[13:].rstrip() for packet in sent] == [b"alice %016x" % number for number in range(4)]


@pytest.mark.parametrize(
    "other",
    [
        Datagram(C, SESSION, 2, b"BYE"),
        Datagram(D, SESSION, 1, b"x"),
        Datagram(ACK, 7, 1),
        Datagram(C, 7, 0, b"ERROR no_session"),
    ],
)
def test_only_the_first_datagram_of_a_session_opens_it(with_cookie: UdpHandshake, other: Datagram) -> None:
    """Any other one may be of an earlier client with the same port, and the server repeats the first one."""
    assert with_cookie.handle_reply(other, 5.0) is None
    assert with_cookie.handle_reply(FIRST, 5.0) == SESSION


@pytest.mark.parametrize("first", [FIRST, Datagram(ACK, SESSION, 1), Datagram(C, 2**64 - 1, 0, b"ERROR no_session")])
def test_session_without_a_cookie_is_ignored(handshake: UdpHandshake, first: Datagram) -> None:
    """It belonged to an earlier client with the same port."""
    handshake.datagrams_to_send(0.0)
    assert handshake.handle_reply(first, 0.1) is None
    assert request(handshake, 0.2) == b"alice"


@pytest.mark.parametrize(
    "payload",
    [b"ERROR server_full Full.", b"COOKIE", b"COOKIE ", b"cookie 0123", b"COOKIES 0123", b" COOKIE 0123", b""],
)
def test_other_reply_is_a_rejection(handshake: UdpHandshake, payload: bytes) -> None:
    assert handshake.handle_reply(reply(payload), 0.0) == payload
    handshake.handle_reply(reply(COOKIE), 0.0)
    assert handshake.handle_reply(reply(payload), 0.0) == payload


@pytest.mark.parametrize("kind", [D, ACK, ord("c"), 0])
def test_reply_that_is_not_a_command_is_ignored(handshake: UdpHandshake, kind: int) -> None:
    assert handshake.handle_reply(Datagram(kind, 0, 0, COOKIE), 0.0) is None
    assert request(handshake, 0.0) == b"alice"
