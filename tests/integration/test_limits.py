"""Limits: what one peer may cost, and that the others don't pay for it."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import NOT_SENT, deadline, wait_for

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from integration.room import Peer, Room


def test_the_connection_over_the_limit_is_told_so_and_closed(open_room: Callable[..., Room]) -> None:
    room = open_room(max_connections=2)
    alice, bob = room.enter("alice"), room.enter("bob")
    extra = room.peer()
    assert json.loads(extra.line())["code"] == "server_full"
    assert extra.is_closed()
    alice.next("users")
    bob.ask(command="EX")
    assert bob.is_closed()
    bob.close()
    while alice.next("users")["left"] != ["bob"]:
        pass
    room.wait_for_connections(1)
    assert room.enter("carol"), "there is room again"


@pytest.mark.parametrize("protocol", ["json", "frames", "register"])
def test_a_peer_that_writes_byte_by_byte_does_not_wait_for_acknowledgements(
    open_room: Callable[..., Room], protocol: str
) -> None:
    """With Nagle's algorithm it sends a piece when the last one was acknowledged. Linux may put that off for 40 ms."""
    room = open_room()
    guest, json_peer, frames_peer = room.enter_guest("g"), room.enter("j"), room.enter_frames("f")
    guest.send("g", "to leave the quick mode in which a connection begins")
    guest.take()
    guest.sending.section()
    peer, request, answer = {
        "json": (json_peer, b'{"command":"ping"}\n', b'{"type":"pong"}\n'),
        "frames": (frames_peer, b"C\0\0\0\4PING", b"C\0\0\0\4PONG"),
        "register": (guest.sending, b"SEND nobody\nContent-length: 5\n\nhello", NOT_SENT),
    }[protocol]
    seconds = []
    for _ in range(10):
        began = time.monotonic()
        for byte in request:
            peer.send(bytes([byte]))
        received = b""
        while not received.endswith(answer):
            received += peer.socket.recv(1_024)
        seconds.append(time.monotonic() - began)

    assert min(seconds[3:]) < 0.03


def test_who_stops_reading_is_disconnected_at_the_limit_and_nobody_waits(
    open_room: Callable[..., Room], log: io.StringIO
) -> None:
    """Nobody waits for the slow: at its limit it is disconnected, and it can resume without loss."""
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob = room.enter("alice"), room.enter("bob")
    sleeper = room.enter("sleeper")
    count = 0
    text = "x" * 8_000
    left = False
    while not left:
        count += 1
        alice.ask(command="PM", message=f"{count} {text}")
        while (answer := bob.next("broadcast", "users"))["type"] == "users":
            left = left or "sleeper" in answer["left"]
        assert answer["id"] == count
        assert count < 5_000, "it was never disconnected"
    while alice.next("sent")["id"] < count:
        pass
    assert "disconnected reason=lagging" in log.getvalue()
    seen = [json.loads(line)["id"] for line in whole_lines(sleeper) if b'"broadcast"' in line]
    assert seen == list(range(1, len(seen) + 1))
    back = room.peer()
    back.login("sleeper", since=seen[-1] if seen else 0)
    assert [back.next("broadcast")["id"] for _ in range(count - len(seen))] == list(range(len(seen) + 1, count + 1))


def whole_lines(peer: Peer) -> list[bytes]:
    """What is left to be read, but for a line that was cut."""
    data = b""
    try:
        while piece := peer.socket.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    return data.split(b"\n")[:-1]


def test_who_never_reads_the_answers_is_read_no_further(room: Room) -> None:
    """Back-pressure: memory stays bounded by what one connection may leave unread."""
    greedy = room.enter("greedy")
    greedy.socket.settimeout(0.5)
    request = b'{"command":"users"}\n' * 1_000
    with pytest.raises(TimeoutError):
        greedy.socket.sendall(request * 10_000)
    assert room.enter("alice").say("nobody else waits")["id"] == 1


def test_many_senders_at_full_speed_lose_nothing(room: Room) -> None:
    """Back-pressure: who sends faster than the disk accepts is read more slowly."""
    senders = [room.enter(f"sender{number}") for number in range(4)]
    listener = room.enter("listener")
    each = 3_000

    def flood(peer: Peer) -> None:
        peer.send(b'{"command":"PM","message":"x"}\n' * each)

    threads = [threading.Thread(target=flood, args=(peer,)) for peer in senders]
    drains = [threading.Thread(target=drain, args=(peer, each)) for peer in senders]
    for thread in threads + drains:
        thread.start()
    ids: list[Any] = [listener.next("broadcast")["id"] for _ in range(each * len(senders))]
    for thread in threads + drains:
        thread.join()
    assert ids == list(range(1, each * len(senders) + 1))


def drain(peer: Peer, confirmations: int) -> None:
    for _ in range(confirmations):
        peer.next("sent")


def test_a_flood_of_connections_does_not_hold_up_the_end(room: Room) -> None:
    ended = threading.Event()

    def flood() -> None:
        while not ended.is_set():
            try:
                socket.create_connection(("127.0.0.1", room.server.port), 5).close()
            except OSError:
                continue

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with deadline(8.0, "the shutdown"):
            assert room.stop()
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_who_ends_while_the_server_does_is_not_cut_off_from_what_is_due(room: Room) -> None:
    """Its reader has ended, and is no connection any more; but the courier has not come to it yet."""
    alice = room.enter("alice")
    server, goes_round = room.server, threading.Event()
    go_round, wait_until = server._sender.run_round, server._connections._wait_until

    def held_go_round() -> None:
        assert goes_round.wait(5)
        go_round()

    def wait_until_it_has_ended(condition: Callable[[], bool], patience_seconds: float) -> None:
        if not goes_round.is_set():
            alice.socket.shutdown(socket.SHUT_WR)
            room.wait_for_connections(0)
            assert not condition(), "it has got nothing yet"
            goes_round.set()
        wait_until(condition, patience_seconds)

    alice.until_fence()
    server._sender.run_round = held_go_round  # type: ignore[method-assign]
    server._connections._wait_until = wait_until_it_has_ended  # type: ignore[method-assign]
    alice.ask(command="PM", message="hello")
    wait_for(lambda: server._journal._last_id == 1, "it is stored")
    assert room.stop()
    assert [alice.next("sent")["id"], alice.next("bye")["type"]] == [1, "bye"]
