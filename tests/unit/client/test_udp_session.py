"""The client's side of a session over UDP: requests, events, pings, probes and the end. Time is passed in."""

from collections.abc import Iterator

import pytest
from raw_steps import Command, Data, encode_request

from chatclient.links.udp_session import SessionResult, UdpSession
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import AccountKind, Bye, PasswordPrompt, Ready, Refused
from chatprotocol.udp import packet
from chatprotocol.udp.arq import Arq
from chatprotocol.wire import Datagram

from .samples import HELLO, NOON_MS
from .udp_server import SESSION, wire

# The question whether a session exists is as long as its answer, ERROR no_session.
PROBE = "PING            "
SAYS_HELLO = f"PUBLIC bob 11 {NOON_MS}\nhello"


@pytest.fixture
def session() -> UdpSession:
    """A session that began at second 0, when the server was heard."""
    return UdpSession(Arq(SESSION, 0.0), Datagram().client(), 0.0)


def heard(kind: str, sequence: int, text: str = "", session: int = SESSION) -> packet.Datagram:
    """A datagram of the server."""
    return packet.Datagram(ord(kind), session, sequence, text.encode())


def sent(kind: str, sequence: int, text: str = "") -> bytes:
    """A datagram of the client."""
    return wire(kind, SESSION, sequence, text)


def sequence_of(datagram: bytes) -> int:
    return int.from_bytes(datagram[9:13], "big")


def only(found: list[bytes], text: str) -> list[bytes]:
    return [each for each in found if each[13:] == text.encode()]


def run(session: UdpSession, until: float) -> Iterator[tuple[float, list[bytes]]]:
    """The datagrams to send and their times, for a caller that calls due() only at look_at."""
    now = 0.0
    while now < until:
        if due := session.datagrams_to_send(now):
            yield now, due
        assert session.next_check_at > now
        now = session.next_check_at


def test_requests_are_sent_in_order_until_acknowledged(session: UdpSession) -> None:
    session.write(encode_request(Datagram(), Command("PM")), 0.0)
    session.write(encode_request(Datagram(), Data("x" * 1_300)), 0.0)
    assert session.datagrams_to_send(0.0) == [sent("C", 1, "PM"), sent("d", 2, "x" * 1_200), sent("D", 3, "x" * 100)]
    assert session.receive(heard("A", 2), 0.1) == SessionResult([], [])
    assert session.next_check_at == pytest.approx(0.2)
    assert session.datagrams_to_send(0.2) == [sent("C", 1, "PM"), sent("D", 3, "x" * 100)]


def test_events_are_returned_once_and_in_order(session: UdpSession) -> None:
    """Pieces when the last one is there; the answer to a ping not at all."""
    assert session.receive(heard("D", 3, SAYS_HELLO), 1.0) == SessionResult([sent("A", 3)], [])
    assert session.receive(heard("C", 2, "PONG"), 1.0) == SessionResult([sent("A", 2)], [])
    prompt = PasswordPrompt(account=AccountKind.NEW)
    assert session.receive(heard("C", 1, "PASSWORD new"), 1.0) == SessionResult([sent("A", 1)], [prompt, HELLO])
    assert session.receive(heard("D", 3, SAYS_HELLO), 1.0) == SessionResult([sent("A", 3)] * 2, [])
    assert session.receive(heard("d", 4, SAYS_HELLO[:20]), 1.0).events == []
    assert session.receive(heard("D", 5, SAYS_HELLO[20:]), 1.0).events == [HELLO]


@pytest.mark.parametrize("number", [0, SESSION - 1, 2**64 - 1])
@pytest.mark.parametrize(
    ("kind", "sequence", "text"), [("D", 1, SAYS_HELLO), ("C", 0, "ERROR no_session"), ("A", 1, "")]
)
def test_foreign_session_is_ignored(session: UdpSession, number: int, kind: str, sequence: int, text: str) -> None:
    """It does not end the silence."""
    assert session.receive(heard(kind, sequence, text, number), 59.0) == SessionResult([], [])
    with pytest.raises(TimeoutError):
        session.datagrams_to_send(60.0)


@pytest.mark.parametrize(
    "datagram",
    [heard("D", 1, "no header"), heard("X", 1, "hello"), packet.Datagram(ord("C"), SESSION, 1, b"READY \xff")],
)
def test_invalid_datagram_is_a_protocol_error(session: UdpSession, datagram: packet.Datagram) -> None:
    with pytest.raises(ProtocolError):
        session.receive(datagram, 1.0)


def test_answered_pings_every_15_seconds_keep_the_session(session: UdpSession) -> None:
    pinged_at = []
    answers = 0
    for now, due in run(session, 600.0):
        pinged_at += [now] * len(only(due, "PING"))
        for each in due:
            answers += 1
            session.receive(heard("A", sequence_of(each)), now)
            session.receive(heard("C", answers, "PONG"), now)
    assert pinged_at == [15.0 * count for count in range(1, 40)]


def test_request_postpones_the_ping(session: UdpSession) -> None:
    session.write(encode_request(Datagram(), Command("CH")), 10.0)
    session.datagrams_to_send(10.0)
    session.receive(heard("A", 1), 10.1)
    assert session.datagrams_to_send(15.0) == []
    assert session.next_check_at == 25.0
    assert only(session.datagrams_to_send(25.0), "PING") == [sent("C", 2, "PING")]


def test_server_is_lost_after_60_seconds_of_silence(session: UdpSession) -> None:
    session.receive(heard("C", 1, "READY"), 3.0)
    session.datagrams_to_send(62.9)
    with pytest.raises(TimeoutError, match="nothing was heard for 60 s"):
        session.datagrams_to_send(63.0)


@pytest.mark.parametrize("start", [0.0, 10.0])
def test_unacknowledged_request_probes_after_a_second_of_silence(session: UdpSession, start: float) -> None:
    """Once, and after anything was heard once more. An idle client gives the server the time to answer."""
    session.write(encode_request(Datagram(), Command("PM")), start)
    for later in (0.0, 0.2, 0.9):
        assert only(session.datagrams_to_send(start + later), PROBE) == []
    assert only(session.datagrams_to_send(start + 1.0), PROBE) == [sent("C", 2, PROBE)]
    resent = [
        probe for later in (2.0, 5.0, 14.0, 31.0) for probe in only(session.datagrams_to_send(start + later), PROBE)
    ]
    assert set(resent) == {sent("C", 2, PROBE)}
    session.receive(heard("D", 1, SAYS_HELLO), start + 31.5)
    session.receive(heard("A", 2), start + 31.5)
    assert only(session.datagrams_to_send(start + 32.4), PROBE) == []
    assert len(only(session.datagrams_to_send(start + 32.5), PROBE)) == 1


def test_probe_is_sent_within_2_seconds_without_extra_calls(session: UdpSession) -> None:
    session.write(encode_request(Datagram(), Command("PM")), 0.0)
    probed_at = [now for now, due in run(session, 10.0) if sent("C", 2, PROBE) in due]
    assert 1.0 <= probed_at[0] <= 2.0


def test_idle_client_does_not_probe(session: UdpSession) -> None:
    session.write(encode_request(Datagram(), Command("PM")), 0.0)
    session.datagrams_to_send(0.0)
    session.receive(heard("A", 1), 0.1)
    assert [session.datagrams_to_send(now) for now in (1.0, 1.2, 5.0, 14.9)] == [[]] * 4


@pytest.mark.parametrize("words", ["", " There is no such session; open a new one."])
def test_unknown_session_ends_it(session: UdpSession, words: str) -> None:
    """Only outside of the session: inside it is an error like others."""
    error = heard("C", 1, "ERROR no_session No.")
    assert session.receive(error, 1.0) == SessionResult([sent("A", 1)], [Refused(ErrorCode.NO_SESSION, "No.")])
    ended = session.receive(heard("C", 0, "ERROR no_session" + words), 1.0)
    assert ended == SessionResult([], [], "the server no longer knows this session")


def test_goodbye_ends_the_session_with_three_acknowledgements(session: UdpSession) -> None:
    """The client is gone when a resend arrives. Earlier messages are returned first."""
    session.receive(heard("C", 2, "BYE the server is shutting down"), 1.0)
    ended = session.receive(heard("C", 1, "READY"), 1.0)
    assert ended.acks == [sent("A", 1)] * 3
    assert ended.events == [Ready(), Bye("the server is shutting down")]
    assert ended.end == "the server closed the session"
