"""Binding: TCP and UDP get the same port number, or there is an error; and the options of the sockets."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from chatserver.net.sockets import bind, bind_udp

from .helpers import DEADLINE_SECONDS

HERE = "127.0.0.1"
TRIES = 20
Bound = tuple[socket.socket, socket.socket]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bound(stack: ExitStack) -> Bound:
    """TCP and UDP sockets on a free port."""
    listening, datagrams = bind(HERE, 0, 90.0)
    return stack.enter_context(listening), stack.enter_context(datagrams)


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def take_port(stack: ExitStack, kind: socket.SocketKind) -> int:
    """Take a port of this kind; it is free for the other kind."""
    other = socket.SOCK_DGRAM if kind is socket.SOCK_STREAM else socket.SOCK_STREAM
    for _ in range(100):
        sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
        sock.bind((HERE, 0))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        with socket.socket(socket.AF_INET, other) as probe, suppress(OSError):
            probe.bind((HERE, port_of(sock)))
            return port_of(sock)
    pytest.fail("no port is free")


def receive_on(stack: ExitStack, bound: Bound) -> None:
    """Both sockets receive over IPv4 what arrives on the port."""
    listening, datagrams = bound
    for sock in bound:
        sock.settimeout(DEADLINE_SECONDS)
    peer = stack.enter_context(socket.create_connection((HERE, port_of(listening))))
    sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"hello", (HERE, port_of(datagrams)))
    sock, address = listening.accept()
    stack.enter_context(sock)
    assert address[1] == peer.getsockname()[1]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert datagrams.recv(100) == b"hello"


def test_free_port_is_bound_for_both_and_never_blocks(stack: ExitStack, bound: Bound) -> None:
    listening, datagrams = bound
    assert port_of(listening) == port_of(datagrams) != 0
    with pytest.raises(BlockingIOError):
        listening.accept()
    with pytest.raises(BlockingIOError):
        datagrams.recv(1)
    receive_on(stack, bound)


def test_ipv6_sockets_receive_over_ipv4(stack: ExitStack) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    listening, datagrams = bind("::", 0, 90.0)
    receive_on(stack, (stack.enter_context(listening), stack.enter_context(datagrams)))


def test_udp_buffers_are_larger_than_the_default(stack: ExitStack, bound: Bound) -> None:
    """A thousand sessions may speak at once."""
    usual = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert bound[1].getsockopt(socket.SOL_SOCKET, option) > usual.getsockopt(socket.SOL_SOCKET, option)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_error_says_whether_udp_was_taken(stack: ExitStack, kind: socket.SocketKind) -> None:
    port = take_port(stack, kind)
    with pytest.raises(OSError, match="in use") as caught:
        bind(HERE, port, 90.0)
    assert caught.value.errno == errno.EADDRINUSE
    assert getattr(caught.value, "__notes__", []) == (["(UDP)"] if kind is socket.SOCK_DGRAM else [])
    other = socket.SOCK_STREAM if kind is socket.SOCK_DGRAM else socket.SOCK_DGRAM
    stack.enter_context(socket.socket(socket.AF_INET, other)).bind((HERE, port))


class FailingBind:
    """Binds UDP ports after some failures, and records the ports."""

    def __init__(self, code: int, failures: int) -> None:
        self.ports: list[int] = []
        self._error = OSError(code, "failed on purpose")
        self._failures = failures

    def __call__(self, host: str, port: int) -> socket.socket:
        self.ports.append(port)
        if len(self.ports) <= self._failures:
            raise self._error
        return bind_udp(host, port)


def test_another_free_port_is_tried_if_udp_is_taken(stack: ExitStack) -> None:
    failing = FailingBind(errno.EADDRINUSE, TRIES - 1)
    bound = bind(HERE, 0, 90.0, failing)
    assert len(failing.ports) == TRIES
    assert [port_of(stack.enter_context(sock)) for sock in bound] == [failing.ports[-1]] * 2


@pytest.mark.parametrize(
    ("is_given", "code", "tries"),
    [(False, errno.EADDRINUSE, TRIES), (False, errno.EACCES, 1), (True, errno.EADDRINUSE, 1)],
)
def test_no_more_ports_are_tried_than_needed(bound: Bound, is_given: bool, code: int, tries: int) -> None:
    port = port_of(bound[0]) if is_given else 0
    for sock in bound:
        sock.close()
    failing = FailingBind(code, 1_000)
    with pytest.raises(OSError, match="on purpose") as caught:
        bind(HERE, port, 90.0, failing)
    assert len(failing.ports) == tries
    assert "(UDP)" in caught.value.__notes__


def test_foreign_address_is_an_error() -> None:
    with pytest.raises(OSError, match="assign"):
        bind("192.0.2.1", 0, 90.0)
