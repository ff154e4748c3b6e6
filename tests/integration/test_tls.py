"""TLS on the port of the server: what is served and refused, certificates, slow receivers, and the client."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from integration.client_process import run_client
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS, Peer, c, deadline
from reliability.bystanders import Stopwatch, attacked

from chatclient import ChatClient, LostError, UsageError
from chatclient.notices import Reconnected
from chatprotocol.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from certificates import Authority
    from integration.room import Room, ServerLog

# First bytes of each protocol over TCP, and what refuses them. An unknown one gets a line.
REFUSED = [
    (b'{"command":"login","username":"x","password":"y"}\n', b'{"type":"error","code":"tls_required","message":'),
    (b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n", b"In a browser, begin the address with https://."),
    (c("alice"), b"ERROR tls_required The server requires TLS"),
    (b"REGISTER TOSEND alice\n\n", b"ERROR 101 TLS required\n\n"),
    (b"CAP LS 302\r\nNICK alice\r\n", b"ERROR :Closing Link: The server requires TLS"),
    (b"\xffrubbish", b"The server requires TLS: connect with TLS (chatclient --tls).\n"),
]


def answer_of(port: int, first: bytes) -> bytes:
    """Everything that the server says after these bytes, up to its end of the connection."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS) as sock:
        sock.sendall(first)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


@pytest.mark.parametrize(
    ("first", "answer"), REFUSED, ids=["json", "websocket", "frames", "register", "irc", "unknown"]
)
def test_required_tls_refuses_others_in_their_protocol(
    open_tls_room: Callable[..., Room], log: ServerLog, first: bytes, answer: bytes
) -> None:
    """Promise: where TLS is required, nothing else is served."""
    room = open_tls_room(tls="required")
    assert answer in answer_of(room.server.port, first)
    log.wait_for("connection rejected reason=tls_required")
    assert room.enter("alice").say("hello")["id"] == 1


def test_required_tls_refuses_datagrams(open_tls_room: Callable[..., Room]) -> None:
    """They are not encrypted. Nothing is opened."""
    room = open_tls_room(tls="required")
    peer = room.datagram_peer()
    peer.command("bob")
    assert peer.frame().startswith("C ERROR tls_required The server requires TLS")
    assert room.server.connections == 0


def test_optional_tls_serves_both_in_one_room(open_tls_room: Callable[..., Room]) -> None:
    """Encrypted and plain users get the same, in one order, also of long messages that they read late."""
    room = open_tls_room()
    alice, dora = room.enter("alice"), room.enter("dora")
    with closing(Peer(room.server.port)) as bob:
        bob.login("bob")
        texts = [f"{number} " + "x" * (number * 37 % 8_000) for number in range(600)]
        for number, text in enumerate(texts):
            (alice, bob)[number % 2].ask(command="PM", message=text)
        heard = [dora.next("broadcast")["message"] for _ in texts]
        assert sorted(heard) == sorted(texts)
        for peer, first in ((alice, 1), (bob, 0)):
            others = set(texts[first::2])
            assert [peer.next("broadcast")["message"] for _ in others] == [text for text in heard if text in others]


def test_stopped_receiver_delays_no_other_and_is_disconnected(
    open_tls_room: Callable[..., Room], log: ServerLog
) -> None:
    """Promise: a slow or stuck client never delays the others."""
    room = open_tls_room(lag_max_bytes=2**20)
    _, bob, alice = room.enter("stopped"), room.enter("bob"), room.enter("alice")
    for _ in range(60):
        for _ in range(20):
            alice.ask(command="PM", message="x" * 8_000)
        for _ in range(20):
            assert bob.next("broadcast")["from"] == "alice"
        if "disconnected reason=lagging" in log.getvalue():
            break
    log.wait_for("disconnected reason=lagging")


@pytest.mark.parametrize("tls", ["off", "optional"])
def test_hello_without_tls_is_answered_by_an_alert(
    open_room: Callable[..., Room], authority: Authority, tmp_path: Path, log: ServerLog, tls: str
) -> None:
    """Optional TLS needs a certificate, and a server whose TLS is off ignores it."""
    files = authority.write(tmp_path) if tls == "off" else (None, None)
    room = open_room(tls=tls, tls_cert=files[0], tls_key=files[1])
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        Peer(room.server.port, tls=authority.client_context())
    log.wait_for("connection rejected reason=no_tls")
    assert room.enter("alice")


@pytest.mark.parametrize("first", [b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["one byte", "half a hello"])
def test_handshake_that_never_ends_is_closed_in_time(open_tls_room: Callable[..., Room], first: bytes) -> None:
    """Promise: a connection that does not log in is closed. The handshake counts."""
    room = open_tls_room(login_seconds=0.3)
    with deadline(DEADLINE_SECONDS / 2, "the time limit"):
        assert answer_of(room.server.port, first) == b""
    room.wait_for_connections(0)


def test_early_close_and_rubbish_end_one_connection(open_tls_room: Callable[..., Room], log: ServerLog) -> None:
    room = open_tls_room()
    alice = room.enter("alice")
    vanishing = room.enter("vanishing")
    # Close the socket under TLS: there is no close_notify.
    socket.socket.shutdown(vanishing.socket, socket.SHUT_RDWR)
    broken = room.enter("broken")
    with suppress(OSError):
        socket.socket.sendall(broken.socket, b"\x17\x03\x03\x00\x20" + bytes(32))
    assert answer_of(room.server.port, b"\x16\x03\x01\x00\x05hello")[:1] == b"\x15"  # an alert
    room.wait_for_connections(1)
    assert alice.say("still here")["status"] == "sent"
    log.wait_for("reason=tls_handshake")
    assert "reader failed" not in log.getvalue()


def test_plain_bytes_beside_a_handshake_are_no_requests(
    open_tls_room: Callable[..., Room], authority: Authority, log: ServerLog
) -> None:
    """Promise: a connection is encrypted from its first byte on. Else a third party could put requests into it."""
    room = open_tls_room()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    plain = b'{"command":"login","username":"mallory","password":"x"}\n{"command":"PM","message":"injected"}\n'
    assert b"login" not in answer_of(room.server.port, outgoing.read() + plain)
    inside, alice = room.enter("inside"), room.enter("alice")
    with suppress(OSError):
        for _ in range(2):
            socket.socket.sendall(inside.socket, plain)
            socket.socket.recv(inside.socket, 65_536)  # the alert
    room.wait_for_connections(1)
    alice.ask(command="CH")
    assert alice.next("history")["messages"] == []
    alice.ask(command="user", username="mallory")
    assert alice.next("user", "error")["type"] == "error"
    log.wait_for("reason=tls_handshake")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
@pytest.mark.parametrize(
    ("version", "command"), [("-tls1_2", "R"), ("-tls1_3", "K")], ids=["renegotiation", "new keys"]
)
def test_peer_that_renegotiates_disturbs_no_other(
    open_tls_room: Callable[..., Room], version: str, command: str
) -> None:
    """TLS 1.2 refuses it; TLS 1.3 has new keys instead."""
    room = open_tls_room()
    alice = room.enter("alice")
    address = f"127.0.0.1:{room.server.port}"
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", address, version],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        room.wait_for_connections(2)
        for _ in range(20):
            with suppress(BrokenPipeError):
                process.stdin.write(f"{command}\n".encode())
                process.stdin.flush()
            assert alice.say("hello")["status"] == "sent"
        process.kill()
    room.wait_for_connections(1)
    assert alice.say("hello")["status"] == "sent"


def test_reload_is_for_new_connections_and_keeps_the_old_one_after_rubbish(
    open_tls_room: Callable[..., Room], authority: Authority, tmp_path: Path
) -> None:
    room = open_tls_room()
    alice = room.enter("alice")
    (tmp_path / "server.pem").write_text("rubbish")
    with pytest.raises(ConfigError, match="not in the format PEM"):
        room.server.reload(room.config)
    assert certificate_of(room.enter("bob")) == certificate_of(alice)
    authority.write(tmp_path, days=20)
    room.server.reload(room.config)
    assert certificate_of(room.enter("carol")) < certificate_of(alice)
    assert alice.say("still here")["status"] == "sent"


def certificate_of(peer: Peer) -> float:
    """The expiry of the certificate that the peer got."""
    assert isinstance(peer.socket, ssl.SSLSocket)
    found = peer.socket.getpeercert()
    assert found is not None
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


# --- many handshakes ---

# Half of them stall inside the handshake, the others complete it at once and close.
# A busy machine delivers few messages in a second.
TIMES_MIN = 50
_MANY = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
stalled = []
for number in range(int(sys.argv[3])):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.send(b"\\x16\\x03\\x01\\x02\\x00\\x01")
    stalled.append(sock)
print("ready", flush=True)
sys.stdin.readline()
hello, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    context.wrap_bio(incoming, hello, server_hostname="localhost").do_handshake()
except ssl.SSLWantReadError:
    pass
hello = hello.read()
shaking = []
for number in range(int(sys.argv[3])):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.send(hello)  # the server signs its answer
    shaking.append(sock)
print("sent", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.long)])
def test_many_handshakes_delay_no_user(authority: Authority, tmp_path: Path, count: int) -> None:
    """Promise: thousands of active clients don't starve the others. Some handshakes stall, others come at once."""
    files, root = authority.write(tmp_path), authority.write_root(tmp_path / "root.pem")
    tls = {"CHAT_TLS_CERT": str(files.certificate), "CHAT_TLS_KEY": str(files.key)}
    with ExitStack() as stack:
        server = stack.enter_context(attacked(tmp_path, "--max-connections", str(2 * count + 10), **tls))
        context = authority.client_context()
        alice, bob = (stack.enter_context(closing(Peer(server.port, tls=context))) for _ in range(2))
        alice.login("alice")
        bob.login("bob")
        threads = server.threads()
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", _MANY, str(server.port), str(root), str(count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        times: list[float] = []
        until = time.monotonic() + 1.0
        while time.monotonic() < until or len(times) < TIMES_MIN:
            watch = Stopwatch(server)
            alice.say("hello")
            bob.next("broadcast")
            times.append(watch.seconds())
        assert process.stdout.readline() == b"sent\n"
        server.wait_until(lambda: server.threads() >= threads + 2 * count, "a thread for each")
    times.sort()
    print(f"{len(times)} deliveries, p50 {times[len(times) // 2] * 1e3:.1f} ms, longest {times[-1] * 1e3:.1f} ms")
    assert times[len(times) * 9 // 10] < 0.5


# --- the client ---


@pytest.mark.parametrize("dialect", ["json", "websocket", "frames", "register", "irc"])
def test_client_talks_over_tls_and_reconnects(
    open_tls_room: Callable[..., Room], authority: Authority, tmp_path: Path, dialect: str
) -> None:
    root = authority.write_root(tmp_path / "root.pem")
    room = open_tls_room(tls="required")
    bob = room.enter("bob")
    with TcpProxy(room.server.port) as proxy, ChatClient("localhost", proxy.port, dialect=dialect, ca=root) as client:
        client.login("alice", "" if dialect == "register" else "secret")
        client.say("hello " + "x" * 7_000)
        assert bob.next("broadcast")["message"].startswith("hello ")
        proxy.cut()
        proxy.mend()
        assert any(isinstance(event, Reconnected) for event in client.events(DEADLINE_SECONDS))
        client.say("again")
        assert bob.next("broadcast")["message"] == "again"
        bob.say("hi")
        heard = (event for event in client.events(DEADLINE_SECONDS) if getattr(event, "text", None) == "hi")
        assert next(heard)


def failure(port: int, host: str = "localhost", **settings: Any) -> str:
    """The reason for which a client can't connect."""
    with pytest.raises(LostError) as error, ChatClient(host, port, **settings):
        pass
    return str(error.value)


def test_client_says_why_it_does_not_trust_a_server(
    open_tls_room: Callable[..., Room], authority: Authority, tmp_path: Path
) -> None:
    """Names are always checked."""
    root = authority.write_root(tmp_path / "root.pem")
    room = open_tls_room()
    assert "its certificate is not trusted" in failure(room.server.port, tls=True)
    for days, name, reason in (
        (30, "other.example", "its certificate is for another name"),
        (-1, "localhost", "its certificate has expired"),
    ):
        authority.write(tmp_path, name, days=days)
        room.server.reload(room.config)
        assert reason in failure(room.server.port, ca=root)
    with pytest.raises(UsageError, match="has no encryption"):
        ChatClient(dialect="datagram", tls=True)
    with pytest.raises(UsageError, match="can't be read"):
        ChatClient(ca=tmp_path / "missing.pem")


def test_client_program_tells_what_to_do(
    open_tls_room: Callable[..., Room], open_room: Callable[..., Room], authority: Authority, tmp_path: Path
) -> None:
    """A server that requires TLS, one that has none, and one that is trusted: exit codes 3, 1 and 0."""
    root = authority.write_root(tmp_path / "root.pem")
    secret = {"CHAT_PASSWORD": "secret"}
    room = open_tls_room(tls="required")
    done = run_client(room.server.port, **secret)
    assert (done.returncode, "chatclient --tls" in done.stdout) == (3, True), done
    done = run_client(room.server.port, "--ca", str(root), **secret)
    assert (done.returncode, "[welcome new] alice" in done.stdout) == (0, True), done
    plain_room = open_room(data=tmp_path / "other")
    done = run_client(plain_room.server.port, "--ca", str(root), **secret)
    assert (done.returncode, "the server has no TLS" in done.stdout) == (1, True), done
