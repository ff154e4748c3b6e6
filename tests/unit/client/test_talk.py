"""A session over UDP as the client has it: what it says and when, what it hears, and how it ends. Time is handed in."""

from collections.abc import Iterator

import pytest

from chatclient.links.udp_session import Received, UdpSession
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import AccountKind, Bye, PasswordPrompt, PublicMessage, Ready, Refused
from chatprotocol.requests import Command, Data
from chatprotocol.udp import packet
from chatprotocol.udp.arq import Arq
from chatprotocol.wire import Datagram

from .udp_server import SESSION, wire

# What asks whether there is a session is as long as the answer where there is none: ERROR no_session.
PROBE = "PING            "
NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(11, NOON_MS, "bob", "hello")
SAYS_HELLO = f"PUBLIC bob 11 {NOON_MS}\nhello"


def begin() -> UdpSession:
    """A session that began at second 0, when something was heard."""
    return UdpSession(Arq(SESSION, 0.0), Datagram(), 0.0)


def says(kind: str, sequence: int, text: str = "", session: int = SESSION) -> packet.Datagram:
    """A datagram from the server."""
    return packet.Datagram(ord(kind), session, sequence, text.encode())


def sent(kind: str, sequence: int, text: str = "") -> bytes:
    """A datagram of ours."""
    return wire(kind, SESSION, sequence, text)


def sequence_of(datagram: bytes) -> int:
    return int.from_bytes(datagram[9:13], "big")


def looks(udp_session: UdpSession, until: float) -> Iterator[tuple[float, list[bytes]]]:
    """What is sent and when, by somebody who looks when there may be something to be sent."""
    now = 0.0
    while now < until:
        if due := udp_session.due(now):
            yield now, due
        assert udp_session.look_at > now, (
            f"it is to be looked at {udp_session.look_at} what is to be sent; and it is {now}"
        )
        now = udp_session.look_at


# --- what is said and heard ---


def test_what_is_asked_goes_out_numbered_from_1() -> None:
    udp_session = begin()
    assert udp_session.request(Command("PM"), 1.0) is None
    assert udp_session.request(Data("hello"), 1.0) is None
    assert udp_session.due(1.0)[:2] == [sent("C", 1, "PM"), sent("D", 2, "hello")]


def test_a_long_text_goes_out_in_pieces() -> None:
    udp_session = begin()
    udp_session.request(Data("x" * 2_500), 0.0)
    assert udp_session.due(0.0) == [sent("d", 1, "x" * 1_200), sent("d", 2, "x" * 1_200), sent("D", 3, "x" * 100)]


def test_what_is_not_acknowledged_goes_out_again() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    udp_session.request(Data("hello"), 0.0)
    udp_session.due(0.0)
    assert udp_session.receive(says("A", 1), 0.1) == Received([], [])
    assert udp_session.look_at == pytest.approx(0.2)
    assert udp_session.due(0.19) == []
    assert udp_session.due(0.2) == [sent("D", 2, "hello")]


def test_what_comes_is_acknowledged_and_told() -> None:
    udp_session = begin()
    assert udp_session.receive(says("C", 1, "PASSWORD new"), 1.0) == Received(
        [sent("A", 1)], [PasswordPrompt(AccountKind.NEW)]
    )
    assert udp_session.receive(says("D", 2, SAYS_HELLO), 1.0) == Received([sent("A", 2)], [HELLO])


def test_what_comes_before_its_time_is_told_in_order() -> None:
    udp_session = begin()
    assert udp_session.receive(says("D", 2, SAYS_HELLO), 1.0) == Received([sent("A", 2)], [])
    assert udp_session.receive(says("C", 1, "READY"), 1.0) == Received([sent("A", 1)], [Ready(), HELLO])


def test_what_comes_twice_is_told_once() -> None:
    udp_session = begin()
    udp_session.receive(says("D", 1, SAYS_HELLO), 1.0)
    assert udp_session.receive(says("D", 1, SAYS_HELLO), 1.0) == Received([sent("A", 1)] * 2, [])


def test_pieces_are_told_when_they_are_whole() -> None:
    udp_session = begin()
    assert udp_session.receive(says("d", 1, SAYS_HELLO[:20]), 1.0) == Received([sent("A", 1)], [])
    assert udp_session.receive(says("D", 2, SAYS_HELLO[20:]), 1.0) == Received([sent("A", 2)], [HELLO])


@pytest.mark.parametrize("session", [0, 1, SESSION - 1, 2**64 - 1])
@pytest.mark.parametrize(
    ("kind", "sequence", "text"), [("D", 1, SAYS_HELLO), ("C", 1, "BYE"), ("C", 0, "ERROR no_session"), ("D", 1, "?")]
)
def test_a_session_of_somebody_else_is_passed_over(session: int, kind: str, sequence: int, text: str) -> None:
    """And it is no sign of life."""
    udp_session = begin()
    assert udp_session.receive(says(kind, sequence, text, session), 59.0) == Received([], [])
    assert udp_session.receive(says("A", 1, session=session), 59.0) == Received([], [])
    with pytest.raises(TimeoutError):
        udp_session.due(60.0)


@pytest.mark.parametrize(
    "datagram",
    [
        says("D", 1, "no header"),
        says("C", 1, "HISTORY many"),
        says("C", 1, "PASSWORD perhaps"),
        says("X", 1, "hello"),
        packet.Datagram(ord("C"), SESSION, 1, b"READY \xff"),
    ],
)
def test_a_server_that_makes_no_sense_is_told_as_what_it_is(datagram: packet.Datagram) -> None:
    with pytest.raises(ProtocolError):
        begin().receive(datagram, 1.0)


# --- signs of life ---


def pings(found: list[bytes]) -> list[bytes]:
    """Those that keep a session alive; others, which ask whether there is one, are longer."""
    return [each for each in found if each.endswith(b"PING")]


def test_who_says_nothing_for_15_seconds_sends_a_ping() -> None:
    udp_session = begin()
    assert udp_session.look_at == 15.0
    assert udp_session.due(14.9) == []
    assert pings(udp_session.due(15.0)) == [sent("C", 1, "PING")]


def test_who_has_said_something_since_waits_for_longer() -> None:
    udp_session = begin()
    udp_session.request(Command("CH"), 10.0)
    udp_session.due(10.0)
    for sequence in (1, 2):  # the history was asked for, and perhaps whether there is a session
        udp_session.receive(says("A", sequence), 10.1)
    assert udp_session.due(15.0) == []
    assert udp_session.look_at == 25.0
    assert udp_session.due(24.9) == []
    assert len(pings(udp_session.due(25.0))) == 1


def test_pings_that_are_answered_keep_a_session_for_as_long_as_nobody_ends_it() -> None:
    udp_session = begin()
    pinged_at = []
    heard_last = 0
    for now, due in looks(udp_session, 600.0):
        pinged_at += [now] * len(pings(due))
        for each in due:
            udp_session.receive(says("A", sequence_of(each)), now)
            heard_last += 1
            udp_session.receive(says("C", heard_last, "PONG"), now)
    assert pinged_at == [15.0 * count for count in range(1, 40)]


def test_the_answer_to_a_ping_is_acknowledged_and_not_told() -> None:
    udp_session = begin()
    assert udp_session.receive(says("C", 1, "PONG"), 1.0) == Received([sent("A", 1)], [])
    # Also where it comes together with something else.
    udp_session.receive(says("D", 3, SAYS_HELLO), 1.0)
    assert udp_session.receive(says("C", 2, "PONG"), 1.0) == Received([sent("A", 2)], [HELLO])


def test_who_hears_nothing_for_60_seconds_has_lost_the_server() -> None:
    udp_session = begin()
    udp_session.receive(says("C", 1, "READY"), 3.0)
    udp_session.due(62.9)
    with pytest.raises(TimeoutError, match="nothing was heard for 60 s"):
        udp_session.due(63.0)


def test_who_is_never_acknowledged_has_lost_the_server_though_it_says_something() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    said = sent("C", 1, "PM")
    said_at: list[float] = []

    def go_on() -> None:
        """The server acknowledges everything but that."""
        for count, (now, due) in enumerate(looks(udp_session, 200.0), 1):
            said_at.extend([now] * due.count(said))
            udp_session.receive(says("D", count, SAYS_HELLO), now)
            for each in set(due) - {said}:
                udp_session.receive(says("A", sequence_of(each)), now)

    with pytest.raises(TimeoutError, match="a datagram was not acknowledged, and was sent 9 times"):
        go_on()
    assert said_at == pytest.approx([0.0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0])


# --- is there still a session? ---


def probes(found: list[bytes]) -> list[bytes]:
    return [each for each in found if each.endswith(PROBE.encode())]


def test_the_question_is_as_long_as_its_answer() -> None:
    """A server answers nobody whom it does not know with more than it was sent."""
    assert len(PROBE) == len("ERROR no_session")


def test_who_hears_nothing_for_a_second_and_has_something_to_be_acknowledged_asks_once() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    for now in (0.0, 0.2, 0.6, 0.9):
        assert probes(udp_session.due(now)) == []
    assert probes(udp_session.due(1.0)) == [sent("C", 2, PROBE)]
    later = [probe for now in (2.0, 5.0, 14.0, 16.0, 31.0, 59.0) for probe in probes(udp_session.due(now))]
    assert later
    assert set(later) == {sent("C", 2, PROBE)}


def test_whoever_looks_only_when_told_so_asks_within_two_seconds() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    asked_at = [now for now, due in looks(udp_session, 10.0) if sent("C", 2, PROBE) in due]
    assert 1.0 <= asked_at[0] <= 2.0


def test_who_has_heard_something_may_ask_once_more() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    udp_session.due(1.0)
    udp_session.receive(says("D", 1, SAYS_HELLO), 1.5)
    udp_session.receive(says("A", 2), 1.5)
    assert probes(udp_session.due(2.4)) == []
    assert probes(udp_session.due(2.5)) == [sent("C", 3, PROBE)]


def test_who_has_said_something_long_after_the_last_word_gives_the_server_the_time_to_answer() -> None:
    """Whoever was idle when the server was started again learns of it soon after the first operation."""
    udp_session = begin()
    udp_session.request(Command("PM"), 10.0)
    assert udp_session.due(10.0) == [sent("C", 1, "PM")]
    assert probes(udp_session.due(10.9)) == []
    assert probes(udp_session.due(11.0)) == [sent("C", 2, PROBE)]


def test_who_waits_for_nothing_does_not_ask() -> None:
    udp_session = begin()
    udp_session.request(Command("PM"), 0.0)
    udp_session.due(0.0)
    udp_session.receive(says("A", 1), 0.1)
    for now in (1.0, 1.2, 5.0, 14.9):
        assert udp_session.due(now) == []


def test_the_answer_that_there_is_none_ends_the_session() -> None:
    heard = begin().receive(says("C", 0, "ERROR no_session"), 1.0)
    assert heard == Received([], [], "the server no longer knows this session")


def test_the_answer_may_have_words_behind_it() -> None:
    heard = begin().receive(says("C", 0, "ERROR no_session There is no such session; open a new one."), 1.0)
    assert heard.end == "the server no longer knows this session"


def test_the_same_words_inside_the_session_are_a_refusal_like_any_other() -> None:
    heard = begin().receive(says("C", 1, "ERROR no_session No."), 1.0)
    assert heard == Received([sent("A", 1)], [Refused(ErrorCode.NO_SESSION, "No.")])


# --- the end ---


def test_the_goodbye_is_acknowledged_three_times_and_ends_the_session() -> None:
    """If all three are lost, and it comes again, nobody is there any more to acknowledge it."""
    heard = begin().receive(says("C", 1, "BYE the server is shutting down"), 1.0)
    assert heard == Received([sent("A", 1)] * 3, [Bye("the server is shutting down")], "the server closed the session")


def test_what_was_said_before_the_goodbye_is_told_before_it() -> None:
    udp_session = begin()
    udp_session.receive(says("C", 2, "BYE"), 1.0)
    heard = udp_session.receive(says("D", 1, SAYS_HELLO), 1.0)
    assert heard.events == [HELLO, Bye("")]
    assert heard.end == "the server closed the session"


# --- what can't be said ---


@pytest.mark.parametrize("text", ["PING", " PING", "PING ", "\tPING\n"])
def test_a_sign_of_life_cannot_be_a_password(text: str) -> None:
    udp_session = begin()
    refused = udp_session.request(Command(text), 1.0)
    assert refused is not None
    assert refused.code is ErrorCode.BAD_REQUEST
    assert refused.reason == "In the wire format datagram, PING is the keepalive request; it can't be a password."
    assert udp_session.due(1.0) == []
    assert udp_session.look_at == 15.0


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (Command("ping"), "C", "ping"),
        (Command("PING PING"), "C", "PING PING"),
        (Command("PINGS"), "C", "PINGS"),
        (Data("PING"), "D", "PING"),
    ],
)
def test_what_only_looks_like_it_can_be_said(given: Command | Data, kind: str, text: str) -> None:
    udp_session = begin()
    assert udp_session.request(given, 0.0) is None
    assert udp_session.due(0.0) == [sent(kind, 1, text)]
