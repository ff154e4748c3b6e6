"""The dialect datagram, over a socket: sessions and their openings, one room with the others, and bad input."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from integration.room import PAYLOAD_MAX, DatagramPeer, deadline, sent, wait_for
from integration.steps import REFUSED, REFUSED_ASKED, REFUSED_OUTSIDE, c, d, leave, without_sentences
from reliability.program import Program

from chatprotocol.udp import arq
from chatprotocol.udp.packet import ACK, Datagram, pack
from chatserver.app import StartError

if TYPE_CHECKING:
    import io
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

# The longest payload of data in pieces.
WHOLE_MAX = 65_531
# An opening without a cookie that is shorter is not answered.
OPENING = len("COOKIE 0123456789abcdef")
RECEIVE_WINDOW = 128
C, D, PIECE = ord("C"), ord("D"), ord("d")
BYE = "C BYE the server is shutting down"
# Letters of four bytes, which the pieces cut: 8,192 bytes.
LONGEST = "x" + "\N{GRINNING FACE}" * 2_047 + "xyz"


def opened(peer: DatagramPeer, text: bytes = b"alice") -> int:
    """Open a session by hand; returns its number. Its first datagram is not acknowledged."""
    peer.throw(b"C", 0, 0, text + b" " + peer.cookie_for(text))
    kind, session, sequence, payload = peer.catch()
    assert (kind, sequence, payload[:9]) == (C, 1, b"PASSWORD ")
    return session


def sessions(room: Room) -> int:
    """How many the server has."""
    return len(room.server._udp_listener._transports)


@contextmanager
def unharmed(room: Room) -> Iterator[DatagramPeer]:
    """A user of json and one of datagram who talk before and after, and hear nothing else; gives the latter."""
    one, other = room.enter("one"), room.enter_datagram("other")
    one.until_fence()
    yield other
    assert [each for each in one.until_fence() if each["type"] != "users"] == []
    assert other.until_fence() == []
    number = one.say("still here?")["id"]
    assert other.next_message()[2] == str(number)
    assert other.say("still here.") == number + 1
    assert one.next("broadcast")["id"] == number + 1


# --- how a session is opened ---


def test_a_session_is_opened_with_a_cookie(room: Room) -> None:
    alice = room.datagram_peer()
    alice.throw_bytes(b"C" + bytes(12) + b"alice                  ")
    cookie = re.fullmatch(rb"C\0{12}COOKIE ([0-9a-f]{16})", pack(alice.catch()))
    assert cookie is not None
    assert sessions(room) == 0
    alice.throw_bytes(b"C" + bytes(12) + b"alice " + cookie[1])
    first = pack(alice.catch())
    assert first[:1] == b"C"
    assert first[1:9] != bytes(8)
    assert first[9:] == b"\0\0\0\1PASSWORD new"
    alice.throw_bytes(b"A" + first[1:13])
    alice.throw_bytes(b"C" + first[1:9] + b"\0\0\0\1secret")
    assert sorted(pack(alice.catch()) for _ in range(2)) == [
        b"A" + first[1:9] + b"\0\0\0\1",
        b"C" + first[1:9] + b"\0\0\0\2WELCOME new",
    ]


def test_each_session_has_another_number(room: Room) -> None:
    numbers = {opened(room.datagram_peer(), b"user%d" % number) for number in range(20)}
    assert len(numbers) == 20
    assert sum(number > 2**60 for number in numbers) > 5, "nobody can guess them"


@pytest.mark.parametrize("size_bytes", [0, 1, 5, OPENING - 1])
def test_an_opening_that_is_shorter_than_its_answer_gets_none(room: Room, log: io.StringIO, size_bytes: int) -> None:
    peer = room.datagram_peer()
    for _ in range(3):
        peer.throw(b"C", 0, 0, b"alice".ljust(size_bytes)[:size_bytes])
    assert peer.catch_until_fence() == []
    assert log.getvalue().count("[WARNING] handshake ignored reason=too_short") == 1
    assert peer.cookie_for(b"alice"), "a longer one is"


def test_a_cookie_is_good_for_one_address_and_one_name(room: Room) -> None:
    alice, neighbour, stranger = room.datagram_peer(), room.datagram_peer(), room.datagram_peer("127.0.0.2")
    cookie = alice.cookie_for(b"alice")
    forged = [b"alice " + cookie[::-1], b"alice " + b"0" * 16, b"bob " + cookie, b"bob bm-pm " + cookie]
    for peer, payloads in ((alice, forged), (neighbour, [b"alice " + cookie]), (stranger, [b"alice " + cookie])):
        for payload in payloads:
            peer.throw(b"C", 0, 0, payload.ljust(OPENING))
            kind, session, sequence, answer = peer.catch()
            assert (kind, session, sequence, answer[:7]) == (C, 0, 0, b"COOKIE ")
            assert (answer[7:] == cookie) == (peer is alice and payload.startswith(b"alice "))
    assert sessions(room) == 0
    alice.throw(b"C", 0, 0, b"alice " + cookie)
    assert alice.catch().payload == b"PASSWORD new"


def test_the_same_opening_again_is_the_same_session(room: Room) -> None:
    """Its answer was lost, perhaps: then that is sent again. When the session is over, it means another one."""
    alice = room.datagram_peer()
    opening = b"alice " + alice.cookie_for(b"alice")
    alice.throw(b"C", 0, 0, opening)
    first = alice.catch()
    for _ in range(5):
        alice.throw(b"C", 0, 0, opening)
    assert {each.session for each in alice.catch_until_fence()} <= {first.session}
    assert sessions(room) == 1
    alice.throw_bytes(pack(Datagram(ACK, first.session, 1)))
    alice.throw(b"C", first.session, 1, b"secret")
    alice.throw(b"C", first.session, 2, b"EX")
    while (said := alice.catch()).payload[:3] != b"BYE":
        alice.throw_bytes(pack(Datagram(ACK, first.session, said.sequence)))
    alice.throw_bytes(pack(Datagram(ACK, first.session, said.sequence)))
    room.wait_for_connections(0)
    wait_for(lambda: sessions(room) == 0, "the session is forgotten")
    alice.catch_until_fence()
    alice.throw(b"C", 0, 0, opening)
    again = alice.catch()
    assert (again.sequence, again.payload) == (1, b"PASSWORD existing")
    assert again.session != first.session


def test_what_a_server_answers_is_not_answered(room: Room) -> None:
    """Somebody may forge the address of another server: two of them would go on for ever."""
    with unharmed(room):
        peer = room.datagram_peer()
        cookie = peer.cookie_for(b"alice")
        for kind, session, sequence, payload in (
            (b"C", 0, 0, b"COOKIE " + cookie),
            (b"C", 0, 0, b"COOKIE 0123456789abcdef"),
            (b"C", 17, 0, b"ERROR no_session There is no such session; open a new one."),
            (b"C", 17, 0, b"ERROR server_full".ljust(1_200)),
            (b"A", 17, 1, b""),
            (b"A", 17, 1, b"x" * 1_200),
            (b"A", 0, 0, b"x" * 1_200),
            (b"A", 0, 1, b"x" * 1_200),
        ):
            peer.throw(kind, session, sequence, payload)
            assert peer.catch_until_fence() == [], payload


def test_until_the_cookie_has_come_back_no_answer_is_longer_than_what_it_answers(
    open_room: Callable[..., Room], chance: random.Random
) -> None:
    """Promise: a forged address costs nobody else more than it costs the forger."""
    room = open_room(max_connections=1)
    peer = room.datagram_peer()
    inside = opened(room.datagram_peer())
    cookie = room.datagram_peer().cookie_for(b"alice")  # that of another address
    words = [b"", b"alice", b"alice bm-pm", b"COOKIE", b"PING", b"EX", b"ERROR", b"\xff\xfe", b" ", b"0123456789abcdef"]
    words += [cookie, b"alice " + cookie, b"x " * 600, chance.randbytes(40)]
    answered = 0
    for size_bytes in [*range(101), *chance.choices(range(101, 1_500), k=3_000)]:
        header = pack(
            Datagram(
                chance.choice((C, C, C, D, PIECE, ACK, chance.randrange(256))),
                chance.choice((0, 0, 1, inside, chance.getrandbits(64))),
                chance.choice((0, 0, 1, chance.getrandbits(32))),
            )
        )
        data = header + b" ".join(chance.choices(words, k=chance.randint(1, 4)))
        data = chance.choice((data, data.ljust(size_bytes), chance.randbytes(size_bytes)))[:size_bytes]
        peer.throw_bytes(data)
        came = peer.catch_until_fence()
        answered += len(came)
        assert sum(len(pack(each)) for each in came) <= len(data), (data, came)
    assert answered > 500
    assert sessions(room) == 1


def test_a_flood_of_openings_from_forged_addresses_costs_no_memory(tmp_path: Path, chance: random.Random) -> None:
    def flood(addresses: int) -> None:
        """In blocks, so that the system drops none: who has a session is heard all the while, behind all before it."""
        for number in range(addresses):
            address = f"127.{chance.randint(1, 250)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
            forged = DatagramPeer(server.port, address)
            for text in (b"alice", b"user%d bm-pm" % number, b"mallory " + chance.randbytes(8).hex().encode()):
                forged.throw(b"C", 0, 0, text.ljust(OPENING))
            forged.close()
            if number % 50 == 0:
                assert witness.until_fence() == []

    with Program(tmp_path) as server, closing(DatagramPeer(server.port)) as witness:
        assert witness.login("alice") == "WELCOME new"
        flood(1_000)
        before, threads = server.memory_bytes(), server.threads()
        flood(20_000)
        growth_bytes = server.memory_bytes() - before
        print(f"{growth_bytes / 1024:.0f} KiB more")
        assert growth_bytes < 1024 * 1024
        assert server.threads() == threads


# --- the login ---


def test_a_name_is_registered_and_comes_back_with_its_password(room: Room) -> None:
    alice = room.datagram_peer()
    assert alice.login("alice", "a password") == "WELCOME new"
    leave(alice)
    assert room.datagram_peer().login("alice", "a password") == "WELCOME existing"
    assert room.enter("alice", password="a password"), "and in another dialect"
    room.enter("bob")
    assert room.datagram_peer().login("bob") == "WELCOME existing"


def test_the_third_wrong_password_ends_the_session_and_nobody_else_hears_of_it(room: Room) -> None:
    with unharmed(room):
        leave(room.enter_datagram("alice"))
        guesser = room.datagram_peer()
        guesser.command("alice")
        assert guesser.frame() == "C PASSWORD existing"
        for guess in ("a", "b"):
            guesser.command(guess)
            assert guesser.frame().startswith("C DENIED ")
            assert guesser.until_fence() == []
        guesser.command("c")
        assert guesser.next_command().startswith("DENIED ")
        assert guesser.rest() == ["C BYE too many wrong passwords"]
        room.wait_for_connections(2)


def test_who_does_not_log_in_is_told_and_its_session_is_over(open_room: Callable[..., Room]) -> None:
    room = open_room(login_seconds=0.5)
    alice, silent, slow = room.enter_datagram("alice"), room.datagram_peer(), room.datagram_peer()
    session = opened(silent, b"carol")
    slow.command("bob")
    assert slow.rest() == [
        "C PASSWORD new",
        "C ERROR not_logged_in Nobody logged in within 0.5 s of connecting.",
        "C BYE not logged in",
    ]
    told = set()
    while b"BYE not logged in" not in told:
        told.add(silent.catch().payload)
    assert alice.say("who is in may be silent") == 1
    silent.throw(b"C", session, 1, b"secret".ljust(16))
    assert alice.until_fence() == []


# --- one room ---


def test_public_messages_reach_everybody_in_every_dialect(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_datagram("bob"), room.enter_datagram("carol bm-pm")
    dora, guest = room.enter_frames("dora"), room.enter_guest("guest")
    alice.until_fence()
    assert bob.say("hello\nfrom datagram") == 1
    assert alice.next("broadcast")["message"] == "hello\nfrom datagram"
    assert guest.take() == ("bob", "hello\nfrom datagram")
    heard = [peer.next_message() for peer in (carol, dora)]
    assert [each[:3] + each[4:] for each in heard] == [["PUBLIC", "bob", "1", "hello\nfrom datagram"]] * 2
    assert abs(int(heard[0][3]) / 1000 - time.time()) < 60

    alice.say("from json")
    assert guest.take() == ("alice", "from json")
    dora.say("from frames")
    assert guest.take() == ("dora", "from frames")
    assert guest.say("ALL", "from register") == sent("ALL")
    carol.command("BM")
    assert carol.next_message()[1:3] == ["alice", "2"]
    assert [carol.next_message()[1] for _ in range(2)] == ["dora", "guest"]
    assert carol.frame() == "C READY"
    carol.data("from datagram, in the other tradition")
    assert guest.take()[0] == "carol"
    assert carol.frame() == "C SENT 5"
    assert [bob.next_message()[1:3] for _ in range(4)] == [
        ["alice", "2"],
        ["dora", "3"],
        ["guest", "4"],
        ["carol", "5"],
    ]
    assert [peer.until_fence() for peer in (bob, carol)] == [[], []], "who speaks hears the confirmation alone"


def test_direct_messages_reach_one_user_and_nobody_else(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_datagram("bob"), room.enter_datagram("carol bm-pm")
    dora, guest = room.enter_frames("dora"), room.enter_guest("guest")
    assert bob.whisper("ALICE", "psst") == 1
    heard = alice.next("direct")
    assert (heard["from"], heard["to"], heard["id"], heard["message"]) == ("bob", "alice", 1, "psst")
    assert bob.whisper("dora", "psst") == 2
    assert dora.next_message()[:3] == ["DIRECT", "bob", "2"]
    assert bob.whisper("guest", "psst") == 3
    assert guest.take() == ("bob", "psst")
    assert bob.whisper("carol", "psst") == 4
    assert carol.next_message()[:3] == ["DIRECT", "bob", "4"]

    alice.ask(command="DM", to="Bob", message="psst yourself")
    assert alice.next("sent")["status"] == "sent"
    dora.whisper("bob", "psst yourself")
    assert guest.say("bob", "psst yourself") == sent("bob")
    carol.command("PM")
    assert carol.frame() == "C ONLINE alice bob carol dora guest"
    carol.command("bob")
    carol.data("psst yourself")
    assert carol.frame() == "C SENT 8"
    assert [bob.next_message()[:3] for _ in range(4)] == [
        ["DIRECT", "alice", "5"],
        ["DIRECT", "dora", "6"],
        ["DIRECT", "guest", "7"],
        ["DIRECT", "carol", "8"],
    ]
    assert [peer.until_fence() for peer in (bob, carol, dora)] == [[], [], []]


def test_a_users_other_connections_hear_what_one_of_them_says(room: Room) -> None:
    room.enter("carol")
    one, other, third = room.enter_datagram("bob"), room.enter("bob"), room.enter_datagram("bob")
    one.say("hello")
    one.whisper("carol", "psst")
    assert [other.next("broadcast", "direct")["message"] for _ in range(2)] == ["hello", "psst"]
    assert [third.next_message()[-1] for _ in range(2)] == ["hello", "psst"]
    assert one.until_fence() == []


def test_what_waits_for_somebody_comes_at_the_next_login_in_any_dialect(room: Room) -> None:
    bob = room.enter_datagram("bob")
    leave(room.enter_datagram("alice"))
    assert bob.whisper("alice", "while you were away", "STORED") == 1
    leave(bob)
    alice = room.enter_datagram("alice")
    kind, sender, number, _, text = alice.next_message()
    assert [kind, sender, number, text] == ["DIRECT", "bob", "1", "while you were away"]
    alice.whisper("bob", LONGEST, "STORED")
    assert room.enter("bob").next("direct")["message"] == LONGEST
    leave(alice)
    assert room.enter_datagram("alice").until_fence() == [], "once"


def test_who_comes_back_at_once_is_not_given_again_what_it_acknowledged(room: Room) -> None:
    """Its session is still there: over UDP nobody notices that a program was killed."""
    bob, alice = room.enter_datagram("bob"), room.enter("alice")
    alice.ask(command="DM", to="bob", message="psst")
    assert bob.next_message()[-1] == "psst"
    bob.close()
    assert room.enter_datagram("bob").until_fence() == []


def test_users_of_json_see_who_comes_and_goes_and_those_of_datagram_are_told_when_they_ask(room: Room) -> None:
    alice = room.enter("alice")
    bob = room.enter_datagram("bob")
    assert "bob" in alice.next("users")["joined"]
    assert bob.until_fence() == [], "nobody asked"
    for operation in ("DM", "USERS"):
        bob.command(operation)
        assert bob.next_command() == "ONLINE alice bob"
        bob.data("")
        assert bob.next_command().startswith("ERROR ")
    leave(bob)
    while "bob" not in (update := alice.next("users"))["left"]:
        pass
    assert update["users"] == ["alice"]


def test_of_many_users_as_many_are_named_as_one_datagram_holds(room: Room) -> None:
    names = [f"{number:02}".ljust(32, "x") for number in range(40)]
    for name in names:
        room.enter(name)
    bob = room.enter_datagram("bob")
    bob.command("USERS")
    told = bob.next_command()
    assert told.split(" ") == ["ONLINE", *names[: len(told.split(" ")) - 1]]
    assert len(told) == len("ONLINE") + 36 * 33
    assert bob.whisper(names[-1], "to one who was not named") == 1


@pytest.mark.parametrize(
    "text",
    [
        "x" * PAYLOAD_MAX,
        "x" * (PAYLOAD_MAX + 1),
        "x" * 2 * PAYLOAD_MAX,
        "x" * 8_192,
        LONGEST,
        "\N{GRINNING FACE}" * 2_048,
    ],
    ids=["one", "one and a byte", "two", "longest", "cut letters", "letters of four bytes"],
)
def test_long_messages_go_in_pieces(room: Room, text: str) -> None:
    alice, bob, carol = room.enter_datagram("alice"), room.enter_datagram("bob"), room.enter("carol")
    assert alice.say(text) == 1
    assert bob.next_message()[-1] == text
    assert carol.next("broadcast")["message"] == text
    assert carol.say(text[::-1])["id"] == 2
    assert [peer.next_message()[-1] for peer in (alice, bob)] == [text[::-1]] * 2
    assert bob.whisper("alice", text) == 3
    assert alice.next_message()[-1] == text
    assert [each[-1] for each in alice.history()] == [text, text[::-1], text]


def test_a_history_of_five_hundred_of_the_longest_messages_comes_whole(room: Room) -> None:
    bob = room.enter("bob")
    texts = [f"{number:03}{LONGEST[3:]}" for number in range(500)]
    texts = [text[: -(len(text.encode()) - 8_192) or None] for text in texts]
    bob.send(b"".join(json.dumps({"command": "PM", "message": text}).encode() + b"\n" for text in texts))
    for _ in texts:
        bob.next("sent")
    alice = room.enter_datagram("alice")
    with deadline(10.0, "the history"):
        told = alice.history("CH 500")
    assert [(int(number), text) for _, _, number, _, text in told] == list(enumerate(texts, 1))
    assert alice.until_fence() == []


def test_many_steps_at_once_lose_nothing(room: Room) -> None:
    alice, bob, carol = room.enter_datagram("alice"), room.enter("bob"), room.enter_datagram("carol")
    count = 1_000
    alice.send(b"".join(c("PM") + d(f"text {number}") for number in range(count)) + c("EX"))
    told = [text for text in alice.rest() if text != "C READY"]
    assert told == [f"C SENT {number + 1}" for number in range(count)] + ["C BYE"]
    expected = [(number + 1, f"text {number}") for number in range(count)]
    assert [(heard["id"], heard["message"]) for heard in (bob.next("broadcast") for _ in range(count))] == expected
    heard = [carol.next_message() for _ in range(count)]
    assert [(int(number), text) for _, _, number, _, text in heard] == expected


def test_steps_that_come_in_any_order_and_again_are_one_dialogue(room: Room, chance: random.Random) -> None:
    alice, bob = room.enter_datagram("alice"), room.enter("bob")
    alice.settle()
    assert alice.arq is not None
    alice.arq.put([(kind, text) for number in range(30) for kind, text in ((C, b"PM"), (D, b"text %d" % number))])
    datagrams = alice.arq.due(time.monotonic())
    assert len(datagrams) == 60
    shuffled = datagrams * 3
    chance.shuffle(shuffled)
    for data in shuffled:
        alice.throw_bytes(data)
    assert [bob.next("broadcast")["message"] for _ in range(30)] == [f"text {number}" for number in range(30)]
    told = [text for text in alice.until_fence() if text != "C READY"]
    assert told == [f"C SENT {number}" for number in range(1, 31)]


def test_a_confirmed_message_is_in_the_history_of_everybody(room: Room) -> None:
    """Promise of the wire: SENT comes after the message is on the disk."""
    alice, carol = room.enter_datagram("alice"), room.enter_datagram("carol")
    for number in range(1, 20):
        assert alice.say(f"text {number}") == number
        assert [carol.next_message()[-1], *(each[-1] for each in carol.history("CH 1"))] == [f"text {number}"] * 2


@pytest.mark.parametrize("ops", ["", " bm-pm"])
def test_after_the_goodbye_the_session_is_over(room: Room, ops: str) -> None:
    alice, bob = room.enter("alice"), room.enter_datagram("bob" + ops)
    leave(bob)
    while "bob" not in alice.next("users")["left"]:
        pass
    bob.turn()
    room.wait_for_connections(1)
    wait_for(lambda: sessions(room) == 0, "the session is forgotten")
    bob.throw(b"C", bob.session, 9, b"PING".ljust(16))
    assert bob.catch() == (C, bob.session, 0, b"ERROR no_session")


# --- alive? ---


@pytest.mark.parametrize("ping", [b"PING", b" PING\t", b"PING".ljust(16), b"PING".rjust(PAYLOAD_MAX)])
def test_a_ping_is_answered_at_any_moment_and_leaves_the_dialogue_as_it_is(room: Room, ping: bytes) -> None:
    room.enter("bob")
    alice = room.datagram_peer()
    frames: list[tuple[int, bytes, str]] = [
        (C, b"no name of anybody", "C ERROR bad_request"),
        (C, b"alice", "C PASSWORD new"),
        (C, b"", "C ERROR bad_request"),
        (C, b"secret", "C WELCOME new"),
        (C, b"PM", "C READY"),
        (D, b"hello", "C SENT 1"),
        (C, b"DM", "C ONLINE bob alice"),
        (C, b"bob", ""),
        (PIECE, b"ps", ""),
        (PIECE, b"s", ""),
        (D, b"t", "C SENT 2"),
        (C, b"USERS", "C ONLINE bob alice"),
    ]
    for kind, payload, told in frames:
        alice.put((kind, payload))
        alice.put((C, ping), (C, ping))
        came = [alice.frame() for _ in range(3 if told else 2)]
        assert sorted(without_sentences(came)) == sorted(["C PONG", "C PONG", *filter(None, [told])])
    assert alice.history()[-1][-1] == "psst"
    alice.command("EX")
    assert alice.rest() == ["C BYE"]


def test_who_is_silent_for_too_long_is_not_there_any_more(
    room: Room, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr(arq, "SILENCE_SECONDS", 1.0)
    alice, silent, lively = room.enter("alice"), room.enter_datagram("silent"), room.enter_datagram("lively")
    silent.settle()
    left = threading.Event()

    def wait_for_silent() -> None:
        while "silent" not in alice.next("users")["left"]:
            pass
        left.set()

    waiting = threading.Thread(target=wait_for_silent)
    waiting.start()
    while not left.is_set():
        assert lively.until_fence() == []
    waiting.join()
    assert "detail='nothing was heard for 1 s'" in log.getvalue()
    assert lively.say("still here") == 1
    silent.throw(b"C", silent.session, 9, b"PING".ljust(16))
    assert silent.catch().payload == b"ERROR no_session"


def test_who_acknowledges_nothing_is_not_there_any_more(
    room: Room, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    """It sends, so something is heard of it; but nobody can tell it anything."""
    monkeypatch.setattr(arq, "RESEND_SECONDS", 0.004)
    alice, deaf = room.enter("alice"), room.enter_datagram("deaf")
    deaf.settle()
    alice.say("hello")
    heard = []

    def is_lost() -> bool:
        deaf.throw(b"A", deaf.session, 1_000)
        heard.extend(deaf.take_all())
        return "detail='a datagram was not acknowledged, and was sent 9 times'" in log.getvalue()

    wait_for(is_lost, "it is lost")
    while "deaf" not in alice.next("users")["left"]:
        pass
    (data,) = {pack(each) for each in heard if each.kind == D}
    assert data.endswith(b"\nhello")
    assert len([each for each in heard if each.kind == D]) == 9


# --- bad input ---


@pytest.mark.parametrize(("told_bytes", "told"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_the_session_lives_on(room: Room, told_bytes: bytes, told: list[str]) -> None:
    alice, bob, carol = room.enter_datagram("alice"), room.enter("bob"), room.enter_datagram("carol")
    bob.next("users")
    alice.send(told_bytes)
    assert without_sentences([alice.frame() for _ in told]) == told
    assert alice.until_fence() == [], "one error is enough, and an operation is due"
    assert [each for each in bob.until_fence() if each["type"] != "users"] == []
    assert carol.until_fence() == []
    assert alice.say("still here") == 1, "nothing of it was stored"


@pytest.mark.parametrize(("told_bytes", "told"), REFUSED_OUTSIDE.values(), ids=REFUSED_OUTSIDE)
def test_it_is_refused_before_the_login(room: Room, told_bytes: bytes, told: list[str]) -> None:
    """The opening is the first name that is given."""
    with unharmed(room):
        stranger = room.datagram_peer()
        stranger.command("n/a")
        assert stranger.next_command().startswith("ERROR bad_username ")
        stranger.send(told_bytes)
        assert without_sentences([stranger.frame() for _ in told]) == told
        assert stranger.until_fence() == []
        stranger.command("bob")
        assert stranger.frame() == "C PASSWORD new"


@pytest.mark.parametrize(("told_bytes", "told"), REFUSED_ASKED.values(), ids=REFUSED_ASKED)
def test_it_is_refused_where_a_password_is_due(room: Room, told_bytes: bytes, told: list[str]) -> None:
    with unharmed(room):
        stranger = room.datagram_peer()
        stranger.command("bob")
        assert stranger.next_command() == "PASSWORD new"
        stranger.send(told_bytes)
        assert without_sentences([stranger.frame() for _ in told]) == told
        assert stranger.until_fence() == []


# What is put into a session, and what comes of it. An operation is due behind it.
OUT_OF_ORDER: dict[str, tuple[list[tuple[int, bytes]], list[str]]] = {
    "another kind": ([(ord("X"), b"PM")], ["C ERROR bad_request"]),
    "a kind in lower case": ([(ord("c"), b"PM")], ["C ERROR bad_request"]),
    "a zero byte": ([(0, b"PM")], ["C ERROR bad_request"]),
    "the last byte": ([(255, b"")], ["C ERROR bad_request"]),
    "another kind in a dialogue": ([(C, b"PM"), (ord("e"), b""), (D, b"x")], ["C READY"] + ["C ERROR bad_request"] * 2),
    "a command over the limit": ([(C, b"P" * (PAYLOAD_MAX + 1))], ["C ERROR too_long"]),
    "data over the limit": ([(C, b"PM"), (D, b"x" * (PAYLOAD_MAX + 1))], ["C READY", "C ERROR too_long"]),
    "data far over the limit": ([(C, b"PM"), (D, b"x" * 60_000)], ["C READY", "C ERROR too_long"]),
    "a piece over the limit": (
        [(C, b"PM"), (PIECE, b"x"), (PIECE, b"x" * (PAYLOAD_MAX + 1)), (PIECE, b"x"), (D, b"x")],
        ["C READY", "C ERROR too_long"],
    ),
    "a last piece over the limit": (
        [(C, b"PM"), (PIECE, b"x"), (D, b"x" * (PAYLOAD_MAX + 1))],
        ["C READY", "C ERROR too_long"],
    ),
    "pieces over the limit of all": (
        [(C, b"PM"), *[(PIECE, b"x" * PAYLOAD_MAX)] * (WHOLE_MAX // PAYLOAD_MAX), (D, b"x" * (PAYLOAD_MAX - 1))],
        ["C READY", "C ERROR too_long"],
    ),
    "many pieces": ([(C, b"PM"), *[(PIECE, b"x" * PAYLOAD_MAX)] * 500, (D, b"")], ["C READY", "C ERROR too_long"]),
    "pieces over the limit of a message": (
        [(C, b"PM"), *[(PIECE, b"x" * 1_000)] * 8, (D, b"x" * 193)],
        ["C READY", "C ERROR too_long"],
    ),
    "pieces that are not ended": (
        [(C, b"PM"), (PIECE, b"x"), (C, b"CH 1")],
        ["C READY", "C ERROR bad_request", "C HISTORY 0"],
    ),
    "pieces that another kind ends": (
        [(C, b"PM"), (PIECE, b"x"), (ord("X"), b"x")],
        ["C READY", "C ERROR bad_request", "C ERROR bad_request"],
    ),
    "pieces where an operation is due": ([(PIECE, b"P"), (D, b"M")], ["C ERROR bad_request"]),
    "pieces that are not UTF-8": ([(C, b"PM"), (PIECE, b"\xf0\x9f"), (D, b"x")], ["C READY", "C ERROR bad_request"]),
    "empty pieces": ([(C, b"PM"), (PIECE, b""), (PIECE, b""), (D, b"")], ["C READY", "C ERROR empty_message"]),
}


@pytest.mark.parametrize(("frames", "told"), OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_datagrams_that_make_no_sense_are_refused_and_the_session_lives_on(
    room: Room, frames: list[tuple[int, bytes]], told: list[str]
) -> None:
    with unharmed(room):
        alice = room.enter_datagram("alice")
        alice.put(*frames)
        assert without_sentences([alice.frame() for _ in told]) == told
        assert alice.until_fence() == [], "one error is enough"
        assert alice.history() == [], "nothing of it was stored"
        alice.settle()


def test_the_error_names_the_limit(room: Room) -> None:
    alice = room.enter_datagram("alice")
    for frames, limit in (
        ([(C, b"x" * 1_201)], "1,200"),
        ([*[(PIECE, b"x" * PAYLOAD_MAX)] * 55, (D, b"")], "65,531"),
        ([(C, b"PM"), *[(PIECE, b"x" * PAYLOAD_MAX)] * 7, (D, b"")], "8,192"),
    ):
        alice.put(*frames)
        while (told := alice.next_command()) == "READY":
            pass
        assert limit in told


@pytest.mark.parametrize("size_bytes", range(13))
def test_a_datagram_without_a_whole_header_is_dropped(room: Room, size_bytes: int) -> None:
    with unharmed(room) as other:
        header = pack(Datagram(C, other.session, 9))
        for data in (header, b"C" + bytes(12), b"A" + bytes(12), b"\xff" * 13):
            stranger = room.datagram_peer()
            for peer in (stranger, other):
                peer.throw_bytes(data[:size_bytes])
            assert stranger.catch_until_fence() == []


def test_a_datagram_of_an_unknown_session_is_told_so_in_as_many_words_as_it_had_room_for(room: Room) -> None:
    long = b"ERROR no_session There is no such session; open a new one."
    with unharmed(room):
        stranger = room.datagram_peer()
        for kind in (b"C", b"D", b"d", b"X", b"\0"):
            for size_bytes, told in ((1_200, long), (len(long), long), (len(long) - 1, long[:16]), (16, long[:16])):
                stranger.throw(kind, 2**64 - 1, 2**32 - 1, b"x" * size_bytes)
                assert stranger.catch() == (C, 2**64 - 1, 0, told)
            stranger.throw(kind, 2**64 - 1, 2**32 - 1, b"x" * 15)
            stranger.throw(kind, 0, 1, b"")
            assert stranger.catch_until_fence() == []


def test_what_is_far_ahead_of_its_time_is_not_acknowledged_and_does_no_harm(room: Room) -> None:
    alice, bob = room.enter_datagram("alice"), room.enter("bob")
    assert alice.until_fence() == []
    alice.settle()
    said = 3  # the password, and the fence, so far
    with unharmed(room):
        alice.settle()
        for sequence in (0, said + RECEIVE_WINDOW, said + RECEIVE_WINDOW + 1, 2**31, 2**31 + said, 2**32 - 1):
            for kind in (b"C", b"D", b"d", b"X"):
                alice.throw(kind, alice.session, sequence, b"EX")
        assert alice.catch_until_fence() == []
        alice.throw(b"C", alice.session, said + RECEIVE_WINDOW - 1, b"EX")
        assert alice.catch_until_fence() == [(ACK, alice.session, said + RECEIVE_WINDOW - 1, b"")], "the last in time"
        for sequence in (0, said, 17, 2**31, 2**32 - 1):
            alice.throw(b"A", alice.session, sequence)
        assert alice.catch_until_fence() == []
    for number in range(RECEIVE_WINDOW // 2 - 1):
        alice.say(f"text {number}")
    alice.command("USERS")
    assert alice.rest()[-1] == "C BYE", "what came early counts when its time has come"
    while "alice" not in bob.next("users")["left"]:
        pass


def test_a_session_is_not_to_be_taken_over_from_another_address(room: Room) -> None:
    with unharmed(room) as other:
        other.settle()
        for mallory in (room.datagram_peer(), room.datagram_peer("127.0.0.2")):
            for sequence in range(1, 20):
                mallory.throw(b"C", other.session, sequence, b"EX".ljust(16))
                assert mallory.catch() == (C, other.session, 0, b"ERROR no_session")
                mallory.throw(b"A", other.session, sequence)
            mallory.throw(b"C", other.session, 0, b"mallory".ljust(OPENING))
            assert mallory.catch_until_fence() == []
        assert other.take_all() == [], "nothing goes to the one whose session it is"


def test_nobody_else_can_acknowledge_what_a_session_is_owed(room: Room) -> None:
    bob, mallory = room.datagram_peer(), room.datagram_peer()
    session = opened(bob, b"bob")
    mallory.throw(b"A", session, 1)
    assert mallory.catch_until_fence() == []
    assert bob.catch() == (C, session, 1, b"PASSWORD new"), "it is sent again"


def test_random_bytes_do_no_harm(room: Room, chance: random.Random) -> None:
    with unharmed(room) as other:
        strangers = [room.datagram_peer() for _ in range(10)]
        for number in range(3_000):
            chance.choice(strangers).throw_bytes(chance.randbytes(chance.choice((5, 13, 20, 40, 1_213, 4_000))))
            header = bytes([chance.randrange(256)]) + pack(Datagram(C, other.session, 0))[1:9] + chance.randbytes(4)
            chance.choice(strangers).throw_bytes(header + chance.randbytes(50))
            strangers[number % len(strangers)].catch_until_fence()
        for stranger in strangers:
            stranger.catch_until_fence()
            assert stranger.cookie_for(b"alice")


# --- limits ---


def test_over_the_limit_of_connections_it_is_told_so(open_room: Callable[..., Room]) -> None:
    """Sessions and connections count together."""
    room = open_room(max_connections=2)
    alice, bob = room.enter("alice"), room.enter_datagram("bob")
    carol, extra = room.datagram_peer(), room.peer()
    assert json.loads(extra.line())["code"] == "server_full"
    carol.command("carol")
    assert carol.rest() == ["C ERROR server_full The server is full; try again later."]
    assert [alice.until_fence()[1:], bob.until_fence()] == [[], []]
    alice.close()
    room.wait_for_connections(1)
    assert room.enter_datagram("dora"), "there is room again"
    leave(bob)
    bob.turn()
    room.wait_for_connections(1)
    assert room.enter("erin"), "and again"


def test_who_acknowledges_nothing_is_disconnected_at_the_limit_and_nobody_waits(
    open_room: Callable[..., Room], log: io.StringIO
) -> None:
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob, sleeper = room.enter_datagram("alice"), room.enter("bob"), room.enter_datagram("sleeper")
    sleeper.settle()
    count, left = 0, False
    while not left:
        count += 1
        assert alice.say(f"{count} " + "x" * 8_000) == count
        while (answer := bob.next("broadcast", "users"))["type"] == "users":
            left = left or "sleeper" in answer["left"]
        assert answer["id"] == count
        assert count < 1_000, "it was never disconnected"
    assert "disconnected reason=lagging" in log.getvalue()
    back = room.enter_datagram("sleeper")
    assert [int(number) for _, _, number, _, _ in back.history("CH 10")] == list(range(count - 9, count + 1))


def test_who_never_takes_the_answers_is_read_no_further(room: Room) -> None:
    """Back-pressure: memory stays bounded by what one session may leave unread. Nothing is lost by it."""
    greedy = room.enter_datagram("greedy")
    greedy.settle()
    assert greedy.arq is not None
    channel = room.server._udp_listener._transports[greedy.session]
    asked = 30_000
    greedy.arq.put([(C, b"CH 500")] * asked)

    def is_full() -> bool:
        """Go on with what the server acknowledges, and acknowledge nothing."""
        assert greedy.arq is not None
        for _ in range(100):
            for datagram in greedy.take_all():
                if datagram.kind == ACK:
                    greedy.arq.receive(datagram, time.monotonic())
            for data in greedy.arq.due(time.monotonic()):
                greedy.throw_bytes(data)
        return channel._inbox_bytes >= 64 * 1024

    wait_for(is_full, "no more is taken")
    assert greedy.arq.is_waiting
    assert room.enter("alice").say("nobody else waits")["id"] == 1
    told = [greedy.frame() for _ in range(100)]
    assert set(told) <= {"C HISTORY 0", told[0]}, "it goes on"


# --- the end ---


def test_the_port_that_is_taken_for_udp_is_named(open_room: Callable[..., Room]) -> None:
    with ExitStack() as tried:
        while True:  # a port that is free for TCP
            taken = tried.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind(("127.0.0.1", 0))
            with suppress(OSError), socket.create_server(taken.getsockname()):
                break
        with pytest.raises(StartError, match=r"Address already in use \(UDP\)"):
            open_room(port=taken.getsockname()[1])


def test_when_the_server_stops_each_session_is_told_and_acknowledges(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        peers = [DatagramPeer(server.port) for _ in range(4)]
        peers[0].login("alice")
        peers[1].login("bob bm-pm")
        peers[1].command("PM")
        assert peers[1].next_command() == "ONLINE alice bob"
        peers[2].command("carol")
        assert peers[2].next_command() == "PASSWORD new"
        peers[3].login("dave")
        peers[3].command("PM")
        assert peers[3].next_command() == "READY"
        for peer in peers:
            peer.settle()
        with deadline(2.0, "the shutdown"):
            server.process.terminate()
            assert [peer.rest() for peer in peers] == [[BYE]] * 4
            assert server.process.wait() == 0
        for peer in peers:
            peer.close()
        assert "stopped connections=4" in server.log()


def test_who_does_not_acknowledge_the_goodbye_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        silent, alice = [DatagramPeer(server.port) for _ in range(5)], DatagramPeer(server.port)
        for number, peer in enumerate(silent):
            peer.login(f"user{number}")
        alice.login("alice")
        with deadline(8.0, "the shutdown"):
            server.process.terminate()
            assert alice.rest() == [BYE]
            assert server.process.wait() == 0
        for peer in silent:
            payloads = [each.payload for each in peer.take_all()]
            assert payloads.count(b"BYE the server is shutting down") > 1, "it was sent again"
        for peer in (*silent, alice):
            peer.close()


def test_who_comes_while_the_server_stops_is_told_so(room: Room) -> None:
    alice = room.enter_datagram("alice")
    room.server._udp_listener.close()
    late = room.datagram_peer()
    late.command("bob")
    assert late.rest() == ["C ERROR shutting_down The server is shutting down."]
    assert alice.say("who is in stays") == 1


# --- the log ---


def test_each_refusal_is_one_line_in_the_log_without_passwords_or_messages(room: Room, log: io.StringIO) -> None:
    alice = room.enter_datagram("alice", "verysecret")
    alice.say("a private thought")
    alice.put((ord("X"), b"a private thought"), (C, b"PM"), (D, b"a private thought" * 100))
    alice.until_fence()
    refusals = [line for line in log.getvalue().splitlines() if line.startswith("[WARNING]")]
    assert [re.findall(r"(?:code|user)=\S+", line) for line in refusals] == [
        ["code=bad_request", "user=alice"],
        ["code=too_long", "user=alice"],
    ]
    assert "verysecret" not in log.getvalue()
    assert "private thought" not in log.getvalue()
