"""The protocol datagram at a running server: sessions over UDP, in one room with the other protocols."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from chatprotocol.udp.packet import ACK, Datagram, pack
from chatserver.app import StartError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from integration.room import Room

    FreshName = Callable[[str], str]

C, D, PIECE = ord("C"), ord("D"), ord("d")


def test_session_is_opened_with_the_bytes_of_the_wire_page(shared_room: Room, fresh_name: FreshName) -> None:
    name = fresh_name("alice").encode()
    alice = shared_room.datagram_peer()
    alice.throw_bytes(b"C" + bytes(12) + name.ljust(23))
    cookie = re.fullmatch(rb"C\0{12}COOKIE ([0-9a-f]{16})", pack(alice.catch()))
    assert cookie is not None
    alice.throw_bytes(b"C" + bytes(12) + name + b" " + cookie[1])
    first = pack(alice.catch())
    assert first[:1] == b"C"
    assert first[1:9] != bytes(8)
    assert first[9:] == b"\0\0\0\1PASSWORD new"
    alice.throw_bytes(b"A" + first[1:13])
    alice.throw_bytes(b"C" + first[1:9] + b"\0\0\0\1secret")
    expected = {b"A" + first[1:9] + b"\0\0\0\1", b"C" + first[1:9] + b"\0\0\0\2WELCOME new"}
    caught: set[bytes] = set()
    while not caught >= expected:
        caught.add(pack(alice.catch()))
    assert caught - expected <= {first}, "what is not acknowledged soon is sent again"


def test_strangers_get_no_longer_answers_and_no_session(
    shared_room: Room, fresh_name: FreshName, chance: random.Random
) -> None:
    """Promises: no amplification; no stranger can speak in a session, though it knows the number."""
    inside = shared_room.enter_datagram(fresh_name("alice"))
    inside.until_fence()
    answered = 0
    for peer in (shared_room.datagram_peer(), shared_room.datagram_peer("127.0.0.2")):
        cookie = shared_room.datagram_peer().cookie_for(b"alice")  # of another address
        words = [b"", b"alice", b"COOKIE", b"EX", b"ERROR", b"\xff\xfe", b"alice " + cookie, b"x " * 600]
        for size_bytes in [*range(0, 100, 3), *chance.choices(range(1_500), k=200)]:
            kind = chance.choice((C, C, C, D, PIECE, ACK, chance.randrange(256)))
            session = chance.choice((0, 0, 1, inside.session, chance.getrandbits(64)))
            header = pack(Datagram(kind, session, chance.choice((0, 1, 3, chance.getrandbits(32)))))
            data = (header + b" ".join(chance.choices(words, k=2))).ljust(size_bytes)[:size_bytes]
            peer.throw_bytes(data)
            came = peer.catch_until_fence()
            answered += len(came)
            assert sum(len(pack(each)) for each in came) <= len(data), (data, came)
            assert {each.session for each in came if each.session} <= {session}

    assert answered > 100
    # On a busy machine the fence was sent again, and is acknowledged again.
    assert [each for each in inside.take_all() if (each.kind, each.sequence) != (ACK, 2)] == []
    assert inside.say("still here") > 0


def test_udp_port_that_is_taken_is_an_error(open_room: Callable[..., Room]) -> None:
    with ExitStack() as tried:
        while True:  # until a port is free for TCP
            taken = tried.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind(("127.0.0.1", 0))
            with suppress(OSError), socket.create_server(taken.getsockname()):
                break
        with pytest.raises(StartError, match=r"Address already in use \(UDP\)\. Stop the program"):
            open_room(port=taken.getsockname()[1])
        open_room()  # the data folder is free again
