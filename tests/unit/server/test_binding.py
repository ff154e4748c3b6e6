"""Binding: TCP and UDP have the same port number, or there is a reason why not."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from chatserver.net import sockets
from chatserver.net.sockets import bind

HERE = "127.0.0.1"
TRIES = 20


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bound(opened: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A port that was free."""
    listening, datagrams = bind(HERE, 0, 90.0)
    return opened.enter_context(listening), opened.enter_context(datagrams)


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def taken(opened: ExitStack, kind: socket.SocketKind) -> int:
    """A port that somebody has, of this kind alone."""
    for _ in range(100):
        sock = opened.enter_context(socket.socket(socket.AF_INET, kind))
        sock.bind((HERE, 0))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        other = socket.SOCK_DGRAM if kind is socket.SOCK_STREAM else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, other) as probe, suppress(OSError):
            probe.bind((HERE, port_of(sock)))
            return port_of(sock)
    pytest.fail("no port is free")


def test_any_port_is_the_same_for_both(bound: tuple[socket.socket, socket.socket]) -> None:
    listening, datagrams = bound

    assert port_of(listening) == port_of(datagrams) != 0
    assert (listening.type, datagrams.type) == (socket.SOCK_STREAM, socket.SOCK_DGRAM)


def test_a_port_that_was_chosen_is_taken_for_both(bound: tuple[socket.socket, socket.socket]) -> None:
    port = port_of(bound[0])
    for sock in bound:
        sock.close()
    listening, datagrams = bind(HERE, port, 90.0)
    with listening, datagrams:
        assert port_of(listening) == port_of(datagrams) == port


def test_both_take_what_comes_and_neither_makes_anybody_wait(
    opened: ExitStack, bound: tuple[socket.socket, socket.socket]
) -> None:
    listening, datagrams = bound
    with pytest.raises(BlockingIOError):
        listening.accept()
    with pytest.raises(BlockingIOError):
        datagrams.recv(1)
    visitor = opened.enter_context(socket.create_connection(listening.getsockname()))
    sender = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"hello", datagrams.getsockname())

    sock, peer = listening.accept()
    opened.enter_context(sock)
    assert peer == visitor.getsockname()
    assert datagrams.recv(100) == b"hello"


def test_each_connection_sends_at_once(opened: ExitStack, bound: tuple[socket.socket, socket.socket]) -> None:
    opened.enter_context(socket.create_connection(bound[0].getsockname()))
    sock, _ = bound[0].accept()
    opened.enter_context(sock)

    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_more_is_kept_of_datagrams_than_the_system_would(
    opened: ExitStack, bound: tuple[socket.socket, socket.socket]
) -> None:
    """While nobody has the time to read: a thousand sessions may speak at once."""
    usual = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert bound[1].getsockopt(socket.SOL_SOCKET, option) > usual.getsockopt(socket.SOL_SOCKET, option)


def test_a_port_that_is_taken_for_udp_is_an_error_that_says_so(opened: ExitStack) -> None:
    port = taken(opened, socket.SOCK_DGRAM)
    with pytest.raises(OSError, match="in use") as caught:
        bind(HERE, port, 90.0)

    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.__notes__ == ["(UDP)"]
    with socket.create_server((HERE, port)):
        """What was taken for TCP is free again."""


def test_a_port_that_is_taken_for_tcp_is_an_error(opened: ExitStack) -> None:
    port = taken(opened, socket.SOCK_STREAM)
    with pytest.raises(OSError, match="in use") as caught:
        bind(HERE, port, 90.0)

    assert caught.value.errno == errno.EADDRINUSE
    assert not hasattr(caught.value, "__notes__")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HERE, port))


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> list[int]:
    """Which ports were tried for UDP, where so many are refused."""
    tried: list[int] = []
    bind_udp = sockets._bind_udp

    def bind_or_refuse(host: str, port: int) -> socket.socket:
        tried.append(port)
        if len(tried) <= times:
            raise OSError(code, "refused")
        return bind_udp(host, port)

    monkeypatch.setattr(sockets, "_bind_udp", bind_or_refuse)
    return tried


def test_where_any_port_will_do_another_one_is_tried_when_it_is_taken_for_udp(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refuse(monkeypatch, errno.EADDRINUSE, TRIES - 1)
    listening, datagrams = bind(HERE, 0, 90.0)
    opened.enter_context(listening)
    opened.enter_context(datagrams)

    assert len(tried) == TRIES
    assert port_of(listening) == port_of(datagrams) == tried[-1]


@pytest.mark.parametrize(
    ("port_is_chosen", "code", "tries"),
    [(False, errno.EADDRINUSE, TRIES), (False, errno.EACCES, 1), (True, errno.EADDRINUSE, 1), (True, errno.EACCES, 1)],
)
def test_no_other_one_is_tried_without_end_or_without_need(
    monkeypatch: pytest.MonkeyPatch,
    bound: tuple[socket.socket, socket.socket],
    port_is_chosen: bool,
    code: int,
    tries: int,
) -> None:
    port = port_of(bound[0]) if port_is_chosen else 0
    for sock in bound:
        sock.close()
    tried = refuse(monkeypatch, code, 1_000)
    with pytest.raises(OSError, match="refused") as caught:
        bind(HERE, port, 90.0)

    assert len(tried) == tries
    assert caught.value.__notes__ == ["(UDP)"]


def test_a_machine_that_is_not_this_one_is_an_error() -> None:
    with pytest.raises(OSError, match="assign"):
        bind("192.0.2.1", 0, 90.0)


def test_over_ipv6_both_take_what_comes_over_ipv4_too(opened: ExitStack) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    listening, datagrams = bind("::", 0, 90.0)
    opened.enter_context(listening)
    opened.enter_context(datagrams)
    opened.enter_context(socket.create_connection((HERE, port_of(listening))))
    sender = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"hello", (HERE, port_of(datagrams)))
    sock, _ = listening.accept()
    opened.enter_context(sock)

    assert datagrams.recv(100) == b"hello"
