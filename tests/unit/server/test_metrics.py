"""The counters and the port of the metrics."""

from __future__ import annotations

import bisect
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.admin.metrics_server import REQUEST_SECONDS, REQUESTS_MAX, MetricsServer, Page
from chatserver.counters import SECONDS, Histogram

from .helpers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@given(st.lists(st.sampled_from([0.0, *SECONDS, 0.3, 20.0])))
def test_histogram_counts_the_times_up_to_each_bound(observed: list[float]) -> None:
    histogram = Histogram()
    for seconds in observed:
        histogram.observe(seconds)
    buckets, total = histogram.read()
    assert [float(bound) for bound, _ in buckets] == [*SECONDS, float("inf")]
    assert [count for _, count in buckets] == [bisect.bisect(sorted(observed), float(bound)) for bound, _ in buckets]
    assert total == pytest.approx(sum(observed))


class Fixture:
    """A server with three pages: one answers, one waits for the test, one is broken."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_closed = False
        self.is_reached, self.may_answer = threading.Semaphore(0), threading.Event()
        self.crashed: list[str] = []
        pages = {"/fast": lambda _: Page(HTTPStatus.OK, b"yes\n"), "/slow": self.slow, "/broken": self.broken}
        self.server = MetricsServer(("127.0.0.1", 0), pages, self.crashed.append, clock=lambda: self.now)

    def slow(self, _: str) -> Page:
        self.is_reached.release()
        assert self.may_answer.wait(10.0)
        return Page(HTTPStatus.OK, b"at last\n")

    def broken(self, _: str) -> Page:
        raise RuntimeError("it is broken")

    def send(self, request: bytes) -> socket.socket:
        sock = socket.create_connection(self.server.address, 10.0)
        sock.sendall(request)
        return sock

    def ask(self, request: bytes) -> bytes:
        return rest(self.send(request))

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.server.close()


def rest(sock: socket.socket) -> bytes:
    """All that comes until the end, also if the end is a reset."""
    received = b""
    with sock, suppress(ConnectionResetError):
        while part := sock.recv(65_536):
            received += part
    return received


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    before = set(threading.enumerate())
    fixture = Fixture()
    fixture.server.start()
    yield fixture
    fixture.may_answer.set()
    fixture.close()
    eventually(lambda: set(threading.enumerate()) <= before)  # a thread ends after its answer
    assert fixture.crashed == []


def test_get_is_answered_with_the_page(fixture: Fixture) -> None:
    """Everything else is an error, after which the server goes on."""
    answer = fixture.ask(b"GET /fast?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert answer.endswith(b"\r\n\r\nyes\n")
    assert fixture.ask(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 404 ")
    assert fixture.ask(b"POST /fast HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 501 ")
    assert b"400" in fixture.ask(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
    assert b"yes" not in fixture.ask(b"GET /fast?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert fixture.ask(b"GET /broken HTTP/1.1\r\n\r\n") == b""
    assert b"yes" in fixture.ask(b"GET /fast HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"127.0.0.1:9464", b"200"),
        (b"[::1]:9464", b"200"),
        (b"localhost:9464", b"200"),
        (b"chat-server", b"200"),
        (b"evil.example:9464", b"403"),
        (b"127.0.0.1.evil.example", b"403"),
        (b"localhost\r\nHost: evil.example", b"403"),
        (b"evil.example 9464", b"403"),
    ],
)
def test_page_of_another_site_reads_nothing_through_a_loopback_address(
    fixture: Fixture, host: bytes, status: bytes
) -> None:
    """The name of the site leads to 127.0.0.1, and the browser sends it (DNS rebinding)."""
    answer = fixture.ask(b"GET /fast HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
    assert answer.startswith(b"HTTP/1.0 %s " % status)
    assert (b"yes" in answer) == (status == b"200")


def test_late_requests_are_ended_and_free_their_slots(fixture: Fixture) -> None:
    """A request without an end, one that takes too long, and one over the limit, which is closed at once."""
    slow = fixture.send(b"GET /slow HTTP/1.1\r\n\r\n")
    assert fixture.is_reached.acquire(timeout=10.0)
    begun = [fixture.send(b"GET /slow HT") for _ in range(REQUESTS_MAX - 1)]
    assert rest(fixture.send(b"GET /fast HTTP/1.1\r\n\r\n")) == b""
    fixture.now = REQUEST_SECONDS
    assert [rest(sock) for sock in (slow, *begun)] == [b""] * REQUESTS_MAX
    fixture.may_answer.set()
    while b"yes" not in fixture.ask(b"GET /fast HTTP/1.1\r\n\r\n"):
        pass  # the threads of the others have not ended yet


def test_close_cuts_requests(fixture: Fixture) -> None:
    begun = fixture.send(b"GET /fast")
    slow = fixture.send(b"GET /slow HTTP/1.1\r\n\r\n")
    assert fixture.is_reached.acquire(timeout=10.0)
    closing = threading.Thread(target=fixture.close)
    closing.start()
    assert rest(begun) == rest(slow) == b""
    fixture.may_answer.set()
    closing.join(10.0)
    assert not closing.is_alive()
