"""Limits: the cost of one peer is bounded, and the other users do not pay for it."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer
from integration.room import DEADLINE_SECONDS, NOT_REGISTERED, c, deadline, leave, wait_for
from integration.web import WebPeer
from web_bytes import handshake, request

from chatprotocol.address import read_networks
from chatprotocol.wire.proxy import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certificates import Authority
    from integration.room import Peer, Room, ServerLog


def test_connection_over_the_limit_is_refused_in_its_protocol(open_room: Callable[..., Room]) -> None:
    room = open_room(max_connections=1)
    alice = room.enter("alice")
    silent, frames = room.peer(), room.frames_peer()
    frames.send(c("bob"))
    (refused,) = frames.rest()
    assert refused.startswith("C ERROR server_full ")
    assert json.loads(silent.line())["code"] == "server_full"
    assert silent.is_closed()
    leave(alice)
    room.wait_for_connections(0)
    assert room.enter("carol"), "there is room again"


def test_address_has_a_number_of_connections_over_tcp_and_udp(open_room: Callable[..., Room]) -> None:
    """Each refused one is told in its protocol, and other addresses are not concerned."""
    room = open_room(exempt=(), address_connections=2)
    one, other = "127.0.0.2", "127.0.0.3"
    peers = [room.peer(one), room.datagram_peer(one)]
    for number, peer in enumerate(peers):
        peer.login(f"user{number}")
    json_peer, frames, datagram = room.peer(one), room.frames_peer(one), room.datagram_peer(one)
    json_peer.ask(command="ping")
    frames.command("bob")
    datagram.command("bob")
    answer = json.loads(json_peer.line())
    assert (answer["type"], answer["code"]) == ("error", "rate_limited")
    assert json_peer.is_closed()
    assert frames.rest() == [f"C ERROR rate_limited {answer['message']}"]
    assert datagram.rest() == [f"C ERROR rate_limited {answer['message']}"]
    room.peer(other).login("carol")
    peers[0].close()
    room.wait_for_connections(2)
    room.frames_peer(one).login("dave")


def test_address_opens_a_number_of_connections_in_ten_minutes(open_room: Callable[..., Room], log: ServerLog) -> None:
    room = open_room(exempt=(), address_new_connections=3)
    for _ in range(3):
        room.peer().close()
    peer = room.peer()
    peer.ask(command="ping")
    refused = json.loads(peer.line())
    assert refused["code"] == "rate_limited"
    assert 0 < refused["retry_seconds"] <= 200
    log.wait_for("connection rejected reason=address_new_connections address=127.0.0.1")
    room.peer("127.0.0.2").login("alice")


def test_silent_connections_keep_no_user_out(open_room: Callable[..., Room]) -> None:
    """They come from many addresses. A logged-in user keeps the connection."""
    room = open_room(exempt=(), max_connections=8, waiting_percent=50, reserved_percent=0)
    alice = room.peer()
    alice.login("alice")
    silent = [room.peer(f"127.0.0.{number}") for number in range(10, 30)]
    bob = room.peer()
    bob.login("bob")
    assert all(peer.is_closed() for peer in silent[:-4])
    alice.say("hello")
    assert bob.next("broadcast")


def test_peers_that_are_made_to_wait_keep_no_user_out(open_room: Callable[..., Room]) -> None:
    """They send more requests than their rate allows."""
    room = open_room(
        exempt=(), max_connections=4, waiting_percent=50, reserved_percent=0, request_burst=1, request_rate=0.01
    )
    flooding = [room.peer(f"127.0.0.{number}") for number in (10, 11)]
    for peer in flooding:
        peer.send(b'{"command":"ping"}\n' * 20)
        for _ in range(11):  # the first ones are answered at once
            peer.next("pong")
    wait_for(lambda: logs_in(room), "a login")  # at the first time the server may not have made them wait yet
    assert flooding[0].is_closed()
    room.wait_for_connections(2)


def logs_in(room: Room) -> bool:
    peer = room.peer()
    peer.ask(command="login", username="alice", password="secret")
    return bool(json.loads(peer.line())["type"] == "login")


def test_handshake_that_never_ends_keeps_no_user_out(
    open_room: Callable[..., Room], authority: Authority, tmp_path: Path
) -> None:
    files = authority.write(tmp_path)
    settings = {"tls_cert": files.certificate, "tls_key": files.key}
    room = open_room(exempt=(), max_connections=4, waiting_percent=25, reserved_percent=0, **settings)
    stuck = room.peer("127.0.0.2")
    stuck.send(b"\x16\x03\x01")
    wait_for(lambda: logs_in(room), "a login")  # the server may not have begun the handshake at the first time
    assert stuck.is_closed()


def test_last_slots_are_for_known_users(open_room: Callable[..., Room]) -> None:
    room = open_room(exempt=(), max_connections=6, waiting_percent=100, reserved_percent=67)
    known = room.enter("known")
    leave(known)
    known.close()
    room.wait_for_connections(0)
    for name in ("alice", "bob"):
        room.enter(name)
    stranger, guest, irc = room.peer(), room.guest("guest"), room.connect(IrcPeer)
    irc.put("NICK gina", "USER g 0 * :g")
    assert "known users only" in irc.line()
    assert irc.is_closed()
    stranger.ask(command="login", username="stranger", password="secret")
    assert stranger.next("error")["code"] == "server_full"
    guest.sending.register("TOSEND", "guest")
    assert guest.receiving.register("TORECV", "guest") == NOT_REGISTERED
    stranger.close()
    guest.close()
    room.wait_for_connections(2)
    room.enter("known")


# --- behind a proxy ---

REAL, SOURCE_AND_PORTS = "198.51.100.7", bytes([198, 51, 100, 7, 192, 0, 2, 1, 0, 1, 0, 2])
HEADER = SIGNATURE + b"\x21\x11\0\x0c" + SOURCE_AND_PORTS
LOCAL_HEADER = SIGNATURE + b"\x20\0\0\0"


@pytest.fixture
def proxied(open_room: Callable[..., Room]) -> Room:
    """A server with a trusted proxy at 127.0.0.2."""
    return open_room(exempt=(), trusted_proxies=read_networks("127.0.0.2"), address_connections=1)


def test_client_behind_a_trusted_proxy_has_its_own_address(proxied: Room, log: ServerLog) -> None:
    """In the log and for the limits. The proxy's own address has no limit."""
    alice = proxied.peer("127.0.0.2")
    alice.send(HEADER + b'{"command":"login","username":"alice","password":"secret"}\n')
    assert alice.next("login")
    log.wait_for(f"login user=alice account=new connection=1@{REAL}")
    second = proxied.frames_peer("127.0.0.2")
    second.send(HEADER + c("bob"))
    (refused,) = second.rest()
    assert refused.startswith("C ERROR rate_limited ")
    other = proxied.peer("127.0.0.2")
    other.send(HEADER.replace(b"\xc6\x33\x64\x07", b"\xc6\x33\x64\x08"))
    other.login("carol")
    for peer in (alice, second):
        peer.close()
    proxied.wait_for_connections(1)
    again = proxied.peer("127.0.0.2")
    for byte in HEADER:
        again.send(bytes([byte]))
    again.login("alice")


def test_tls_follows_the_header(
    open_room: Callable[..., Room], authority: Authority, tmp_path: Path, log: ServerLog
) -> None:
    files = authority.write(tmp_path)
    settings = {"tls": "required", "tls_cert": files.certificate, "tls_key": files.key}
    room = open_room(exempt=(), trusted_proxies=read_networks("127.0.0.2"), **settings)
    peer = room.peer("127.0.0.2")
    peer.send(HEADER)
    peer.socket = authority.client_context().wrap_socket(peer.socket, server_hostname="localhost")
    peer.login("alice")
    log.wait_for(f"login user=alice account=new connection=1@{REAL}")


def test_health_checks_of_a_proxy_are_not_logged(proxied: Room, log: ServerLog) -> None:
    proxied.peer("127.0.0.2").close()
    checks = [proxied.peer("127.0.0.2") for _ in range(3)]
    for peer in checks:
        peer.send(LOCAL_HEADER)
        peer.close()
    proxied.wait_for_connections(0)
    assert "[WARNING]" not in log.getvalue()


@pytest.mark.parametrize("sent", [b'{"command":"ping"}\n' * 2, HEADER[:20]])
def test_trusted_proxy_without_a_header_is_disconnected(
    open_room: Callable[..., Room], log: ServerLog, sent: bytes
) -> None:
    """At once if something else comes, otherwise after the time of a login."""
    room = open_room(exempt=(), trusted_proxies=read_networks("127.0.0.2"), login_seconds=0.3)
    peer = room.peer("127.0.0.2")
    peer.send(sent)
    assert peer.is_closed()
    log.wait_for("connection rejected reason=proxy_header connection=1@127.0.0.2")


def test_header_of_any_other_peer_is_an_unknown_protocol(proxied: Room, log: ServerLog) -> None:
    peer = proxied.peer("127.0.0.3")
    peer.send(HEADER + b'{"command":"ping"}\n')
    assert b"pong" not in peer.line()
    log.wait_for("connection rejected reason=unknown_protocol connection=1@127.0.0.3")


def forwarded(addresses: str) -> bytes:
    """The handshake of a browser, as a proxy of HTTP passes it on."""
    return handshake(X_Forwarded_For=addresses, Origin="https://chat.test")


def test_client_behind_a_proxy_of_http_has_its_own_address(proxied: Room, log: ServerLog) -> None:
    """The last one that is no trusted proxy's: what is before it may be invented."""
    alice = proxied.connect(WebPeer, "127.0.0.2")
    alice.send(forwarded(f"203.0.113.9, {REAL}"))
    assert alice.answer().status == 101
    alice.login("alice")
    log.wait_for(f"login user=alice account=new connection=1@{REAL}")
    second = proxied.connect(WebPeer, "127.0.0.2")
    second.send(forwarded(REAL))
    refused = second.answer()
    assert (refused.status, json.loads(refused.body)["code"]) == (429, "rate_limited")
    assert second.is_closed()
    other = proxied.connect(WebPeer, "127.0.0.2")
    other.send(forwarded(f"{REAL}, 198.51.100.8, 127.0.0.2"))
    assert other.answer().status == 101
    other.login("bob")
    log.wait_for("login user=bob account=new connection=3@198.51.100.8")


def test_header_of_a_peer_that_is_no_proxy_means_nothing(proxied: Room, log: ServerLog) -> None:
    """A client can't take another address, nor one without limits."""
    alice = proxied.connect(WebPeer, "127.0.0.3")
    alice.send(forwarded(REAL))
    assert alice.answer().status == 101
    alice.login("alice")
    log.wait_for("login user=alice account=new connection=1@127.0.0.3")
    second = proxied.connect(WebPeer, "127.0.0.3")
    second.send(forwarded("198.51.100.8"))
    assert second.answer().status == 429


def test_proxy_may_use_a_connection_for_one_request(proxied: Room) -> None:
    """The next one on it could be that of another client, whose address the server would not read."""
    proxy = proxied.connect(WebPeer, "127.0.0.2")
    proxy.send(request("/", X_Forwarded_For=REAL))
    assert proxy.answer().headers["connection"] == "close"
    assert proxy.is_closed()


def test_proxy_of_http_may_use_tls(
    open_room: Callable[..., Room], authority: Authority, tmp_path: Path, log: ServerLog
) -> None:
    """Where the server requires it, a proxy must."""
    files = authority.write(tmp_path)
    settings = {"tls": "required", "tls_cert": files.certificate, "tls_key": files.key}
    room = open_room(authority.client_context(), exempt=(), trusted_proxies=read_networks("127.0.0.2"), **settings)
    peer = room.connect(WebPeer, "127.0.0.2")
    peer.send(forwarded(REAL))
    assert peer.answer().status == 101
    peer.login("alice")
    log.wait_for(f"login user=alice account=new connection=1@{REAL}")
    with closing(WebPeer(room.server.port, "127.0.0.2")) as plain:
        plain.send(forwarded(REAL))
        assert plain.answer().status == 403


def test_connections_for_files_do_not_use_up_those_for_logins(open_room: Callable[..., Room], log: ServerLog) -> None:
    """They have a number of their own. Beyond it they count as others."""
    room = open_room(exempt=(), address_new_connections=3, address_pages=5)
    for _ in range(5 + 2):
        peer = room.connect(WebPeer)
        assert peer.get("/", Connection="close").status == 200
        peer.close()
        room.wait_for_connections(0)
    room.enter("alice")
    peer = room.connect(WebPeer)
    refused = peer.get("/")
    assert refused.status == 429
    assert 0 < int(refused.headers["retry-after"]) <= 200
    log.wait_for("connection rejected reason=address_new_connections address=127.0.0.1")


def test_refused_browser_is_told_when_to_come_back(open_room: Callable[..., Room]) -> None:
    room = open_room(max_connections=1)
    room.enter("alice")
    answer = room.connect(WebPeer).get("/")
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "server_full")


# --- cost ---


def test_small_pieces_do_not_wait_for_acknowledgements(room: Room) -> None:
    """Nagle's algorithm sends a piece when the last one was acknowledged, which Linux may delay by 40 ms."""
    alice = room.enter("alice")
    alice.say("to leave the quick mode in which a connection begins")
    seconds: list[float] = []
    while min(seconds[3:], default=1.0) >= 0.03:
        assert len(seconds) < 100  # a busy machine delays some of them
        began = time.monotonic()
        for byte in b'{"command":"ping"}\n':
            alice.send(bytes([byte]))
        assert alice.next("pong")
        seconds.append(time.monotonic() - began)


def test_lagging_receiver_is_disconnected_and_resumes(open_room: Callable[..., Room], log: ServerLog) -> None:
    """Promise: no client waits for a slow one."""
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob, sleeper = room.enter("alice"), room.enter("bob"), room.enter("sleeper")
    count, left = 0, False
    while not left:
        count += 1
        alice.ask(command="PM", message=f"{count} " + "x" * 8_000)
        while (answer := bob.next("broadcast", "users"))["type"] == "users":
            left = left or "sleeper" in answer["left"]
        assert answer["id"] == count
        assert count < 5_000, "it was never disconnected"
    while alice.next("sent")["id"] < count:
        pass
    log.wait_for("reason=lagging")
    seen = [json.loads(line)["id"] for line in whole_lines(sleeper) if b'"broadcast"' in line]
    assert seen == list(range(1, len(seen) + 1))
    back = room.peer()
    back.login("sleeper", since=seen[-1] if seen else 0)
    assert [back.next("broadcast")["id"] for _ in range(count - len(seen))] == list(range(len(seen) + 1, count + 1))


def whole_lines(peer: Peer) -> list[bytes]:
    """The remaining complete lines."""
    data = b""
    try:
        while piece := peer.socket.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    return data.split(b"\n")[:-1]


# --- shutdown ---


def test_flood_of_connections_does_not_delay_shutdown(room: Room) -> None:
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
        with deadline(DEADLINE_SECONDS, "the shutdown"):
            assert room.stop()
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_rates_hold_over_all_connections_of_a_user(open_room: Callable[..., Room]) -> None:
    """Messages over the rate wait in the network; if too many wait, they are refused. Others have their own rate."""
    room = open_room(exempt=(), message_burst=3, message_rate=5.0, message_delay_seconds=60.0)
    alice = room.enter("alice")
    began = time.monotonic()
    for _ in range(6):
        alice.ask(command="PM", message="hello")
    ids = [alice.next("sent")["id"] for _ in range(6)]
    assert time.monotonic() - began >= 0.6
    assert ids == sorted(ids)
    room.close()
    room = open_room(exempt=(), message_burst=3, message_rate=0.001, message_delay_seconds=0.3)
    alice, frames, bob = room.enter("alice"), room.frames_peer(), room.enter("bob")
    frames.login("alice")
    frames.say("over frames")
    for _ in range(2):
        alice.say("the last ones")
    for each in (alice, room.enter("alice")):
        each.ask(command="PM", message="one more")
        refused = each.next("sent", "error")
        assert refused["code"] == "rate_limited"
        assert 0 < refused["retry_seconds"] <= 1_000
    bob.say("bob has his own rate")


def test_ninth_connection_ends_the_first(open_room: Callable[..., Room]) -> None:
    """Promise: a user whose network is gone gets in at once. The replaced client is told not to come back."""
    room = open_room(exempt=(), user_connections=8)
    peers = [room.enter("alice") for _ in range(9)]
    bye = peers[0].next("bye")
    assert bye["code"] == "replaced"
    assert peers[0].is_closed()
    peers[1].say("I am still here")
    assert peers[8].next("broadcast")["message"] == "I am still here"


def test_user_makes_few_rooms_a_day(open_room: Callable[..., Room]) -> None:
    """Joining existing rooms does not count."""
    room = open_room(exempt=(), rooms_per_day=2)
    alice, bob = room.enter("alice", rooms=True), room.enter("bob", rooms=True)
    for peer, name, answer in (
        *((alice, name, "joined") for name in ("one", "two")),
        (alice, "three", "error"),
        (bob, "three", "joined"),
        (alice, "three", "joined"),
        (alice, "four", "error"),
    ):
        peer.ask(command="join", room=name)
        answered = peer.next("joined", "error")
        assert answered["type"] == answer
        assert answer != "error" or (answered["code"] == "rate_limited" and answered["retry_seconds"] > 3_600)


def test_user_who_makes_no_rooms_is_told_that_a_room_is_unknown(open_room: Callable[..., Room]) -> None:
    """However often it asks."""
    alice = open_room(exempt=(), rooms_per_day=1, rooms="off").enter("alice", rooms=True)
    for _ in range(3):
        alice.ask(command="join", room="one")
        assert alice.next("error")["code"] == "unknown_room"


def test_direct_messages_to_an_offline_user_are_limited(open_room: Callable[..., Room]) -> None:
    """Promise: a login does not bring endless messages. The mailbox is empty after it."""
    room = open_room(waiting_from_sender=2, waiting_messages=3)
    leave(room.enter("bob"))
    peers = [room.enter(name) for name in ("alice", "carol", "dave")]

    def whisper(peer: Peer) -> str:
        peer.ask(command="DM", to="bob", message="hello")
        answer = peer.next("sent", "error")
        return str(answer.get("status") or answer["code"])

    alice, carol, dave = peers
    assert [whisper(alice) for _ in range(3)] == ["stored", "stored", "mailbox_full"]
    assert [whisper(peer) for peer in (carol, dave)] == ["stored", "mailbox_full"]
    bob = room.enter("bob")
    assert [bob.next("direct")["from"] for _ in range(3)] == ["alice", "alice", "carol"]
    assert [whisper(alice) for _ in range(5)] == ["sent"] * 5
    leave(bob)
    assert whisper(dave) == "stored"


def test_messages_are_refused_while_the_reserve_of_the_disk_is_used(open_room: Callable[..., Room]) -> None:
    """Promise: history stays readable, and users who are registered log in."""
    room = open_room()
    alice = room.enter("alice")
    alice.say("before")
    room.close()
    room = open_room(disk_reserve=2**50)
    alice, frames = room.enter("alice"), room.enter_frames("alice")
    alice.ask(command="PM", message="hello", nonce="n1")
    refused = alice.next("error")
    assert (refused["code"], refused["nonce"]) == ("disk_full", "n1")
    alice.ask(command="report", username="alice")
    assert alice.next("error", "reported").get("code") == "disk_full"
    alice.ask(command="CH")
    assert [each["message"] for each in alice.next("history")["messages"]] == ["before"]
    bob = room.peer()
    bob.ask(command="login", username="bob", password="secret")
    assert bob.next("error")["code"] == "disk_full"
    frames.command("PM")
    assert frames.next_command() == "READY"
    frames.data("hello")
    assert frames.next_command().startswith("ERROR disk_full ")
