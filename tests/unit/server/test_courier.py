"""The courier: writes to all sockets, waits for none. The sockets are pairs inside this process."""

import socket
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from chatserver.transport import courier as courier_module
from chatserver.transport.courier import Courier
from chatserver.transport.outbox import Outbox
from chatserver.transport.stream import Stream

from .rooms import DEADLINE_SECONDS, eventually, in_background, must_end

LAG_MAX_BYTES = 1_000_000


class Post:
    """A courier, one stream, and peers at the other ends of socket pairs."""

    def __init__(self) -> None:
        self.stream = Stream(lambda event: event, 4 * LAG_MAX_BYTES)  # type: ignore[arg-type, return-value]
        self.crashes: list[str] = []
        self.courier = Courier([self.stream], LAG_MAX_BYTES, self.crashes.append)
        self._peers: list[socket.socket] = []

    def peer(self, *, follows: bool = True) -> tuple[socket.socket, Outbox]:
        """A new connection; its peer's end, and its outbox."""
        ours, theirs = socket.socketpair()
        theirs.settimeout(DEADLINE_SECONDS)
        outbox = Outbox(ours, self.stream, f"{len(self._peers) + 1}@test", self.courier.wake)
        self.courier.adopt()
        self._peers.append(theirs)
        if follows:
            outbox.follow()
            outbox.release()
        return theirs, outbox

    def publish(self, event: bytes) -> None:
        self.stream.append(event)  # type: ignore[arg-type]
        self.stream.show()
        self.courier.ring()

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    post.courier.start()
    yield post
    for outbox in post.stream.followers():
        outbox.unfollow()
        outbox.finish()
        post.courier.retire(outbox)
    post.courier.stop(0)
    post.close()


def read(peer: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes and (part := peer.recv(size_bytes - len(data))):
        data += part
    return data


def read_all(peer: socket.socket) -> bytes:
    """Until the other side is shut."""
    data = b""
    while part := peer.recv(1_000_000):
        data += part
    return data


def put(outbox: Outbox, event: bytes) -> None:
    outbox.put([event])  # type: ignore[list-item]


def test_everybody_is_sent_what_is_published(post: Post) -> None:
    peers = [post.peer()[0] for _ in range(20)]
    post.publish(b"hello")

    assert [read(peer, 5) for peer in peers] == [b"hello"] * 20


def test_an_answer_is_sent_to_the_one_who_asked(post: Post) -> None:
    one, outbox = post.peer()
    other, _ = post.peer()
    put(outbox, b"answer ")
    post.publish(b"hello")

    assert read(one, 12) == b"answer hello"
    assert read(other, 5) == b"hello"


def test_nobody_waits_for_one_who_reads_nothing(post: Post) -> None:
    """Promise: nobody waits for the slow."""
    post.peer()
    quick, _ = post.peer()
    for _ in range(40):
        post.publish(b"x" * 20_000)
        assert len(read(quick, 20_000)) == 20_000


def test_one_who_reads_late_gets_everything_in_order(post: Post) -> None:
    """Promise: one order."""
    late, outbox = post.peer()
    sent = b""
    for number in range(90):
        chunk = b"%d " % number * 2000
        sent += chunk
        post.publish(chunk)
    assert len(sent) < LAG_MAX_BYTES
    eventually(lambda: outbox in post.courier._full)

    assert read(late, len(sent)) == sent


def test_one_who_is_too_far_behind_is_disconnected_with_a_reason_in_the_log(post: Post) -> None:
    """Promise: nobody waits for the slow. Who is more than the limit behind is disconnected."""
    slow, outbox = post.peer()
    quick, _ = post.peer()
    with capture_logs() as log:
        for _ in range(20):
            post.publish(b"x" * 200_000)
            read(quick, 200_000)
        eventually(lambda: outbox.broken)
    read_all(slow)

    (entry,) = log
    assert entry["event"] == "Disconnected: it reads too slowly"
    assert entry["connection"] == outbox.label
    assert entry["limit_bytes"] == LAG_MAX_BYTES
    post.publish(b"hello")
    assert read(quick, 5) == b"hello"


def test_what_is_due_is_sent_before_our_side_is_shut(post: Post) -> None:
    peer, outbox = post.peer()
    post.publish(b"x" * 600_000)
    put(outbox, b"bye")
    outbox.unfollow()
    outbox.finish()
    post.courier.retire(outbox)

    assert read_all(peer) == b"x" * 600_000 + b"bye"
    eventually(lambda: outbox.sock.fileno() == -1)
    assert outbox.sock.fileno() == -1


def test_a_socket_stays_open_until_its_reader_has_ended(post: Post) -> None:
    """A descriptor is never closed under a thread that reads it."""
    peer, outbox = post.peer(follows=False)
    outbox.finish()
    assert read_all(peer) == b""

    assert outbox.sock.fileno() != -1
    post.courier.retire(outbox)
    eventually(lambda: outbox.sock.fileno() == -1)


def test_one_whose_peer_has_gone_is_given_up_and_the_others_go_on(post: Post) -> None:
    gone, outbox = post.peer()
    stays, _ = post.peer()
    gone.close()
    post.publish(b"hello")
    assert read(stays, 5) == b"hello"
    eventually(lambda: outbox.broken)
    outbox.unfollow()
    post.courier.retire(outbox)
    eventually(lambda: outbox.sock.fileno() == -1)


def test_one_who_takes_nothing_is_closed_when_patience_ends(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "LINGER_SECONDS", 0.0)
    _, outbox = post.peer(follows=False)
    put(outbox, b"x" * LAG_MAX_BYTES)
    outbox.finish()
    post.courier.retire(outbox)

    eventually(lambda: outbox.sock.fileno() == -1)


def test_the_end_sends_what_is_due_closes_every_socket_and_ends_the_thread() -> None:
    """Promise: shutdown."""
    post = Post()
    post.courier.start()
    peers = [post.peer() for _ in range(10)]
    for _, outbox in peers:
        put(outbox, b"bye")
        outbox.unfollow()
        outbox.finish()
        post.courier.retire(outbox)
    must_end(in_background(lambda: post.courier.stop(DEADLINE_SECONDS)))

    assert [read_all(peer) for peer, _ in peers] == [b"bye"] * 10
    assert {outbox.sock.fileno() for _, outbox in peers} == {-1}
    post.close()


def test_the_end_does_not_wait_for_one_who_takes_nothing() -> None:
    """Promise: shutdown."""
    post = Post()
    post.courier.start()
    _, outbox = post.peer(follows=False)
    put(outbox, b"x" * LAG_MAX_BYTES)
    outbox.finish()
    post.courier.retire(outbox)
    must_end(in_background(lambda: post.courier.stop(0)))

    assert outbox.sock.fileno() == -1
    post.close()


def test_no_writer_waits_for_ever_for_a_courier_that_died() -> None:
    """The journal waits for the courier; were it to wait for a dead one, the server could not even end."""
    post = Post()
    post.stream.followers = None  # type: ignore[method-assign, assignment]
    with capture_logs():
        post.courier.start()
        post.publish(b"x" * LAG_MAX_BYTES)
        eventually(lambda: post.crashes == ["courier"])
    must_end_here = in_background(post.stream.wait_for_courier)
    must_end_here.join(1.0)
    has_ended = not must_end_here.is_alive()
    post.stream.offered(post.stream.end)  # lets it go in any case
    post.courier.stop(0)

    assert has_ended


def test_one_who_takes_no_answers_is_disconnected_in_the_end(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be megabytes: who asks and never reads would hold them for ever."""
    monkeypatch.setattr(courier_module, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(courier_module, "_TICK_SECONDS", 0.01)
    _, greedy = post.peer(follows=False)
    _, listener = post.peer()
    post.publish(b"x" * (LAG_MAX_BYTES - 1))
    greedy.put([b"x" * 4_000_000])  # type: ignore[list-item]
    eventually(lambda: greedy.broken)

    assert not listener.broken, "what everybody hears has a limit of its own"
    greedy.finish()
    post.courier.retire(greedy)
