"""What waits to be used has a limit: the collector waits, and of what nobody looks at the oldest is dropped."""

import queue
import threading

import pytest

from chatclient.inbox import Backlog, Inbox, size_bytes
from chatprotocol.events import History, PublicMessage

DEADLINE_SECONDS = 5.0


def message(number: int) -> PublicMessage:
    return PublicMessage(number, 0, "bob", "x" * 1_000)


def test_the_size_is_that_of_the_texts() -> None:
    assert 1_000 < size_bytes(message(1)) < 1_500
    assert size_bytes(History(tuple(map(message, range(100))))) > 100_000


def test_the_collector_waits_until_something_was_taken() -> None:
    inbox = Inbox(max_bytes=2_000)
    put = [message(number) for number in range(50)]
    receiver = threading.Thread(target=lambda: [inbox.put_heard(each) for each in put], daemon=True)
    receiver.start()

    taken = [inbox.get(DEADLINE_SECONDS)]
    receiver.join(0.05)
    assert receiver.is_alive()
    taken += [inbox.get(DEADLINE_SECONDS) for _ in put[1:]]

    receiver.join(DEADLINE_SECONDS)
    assert taken == put
    with pytest.raises(queue.Empty):
        inbox.get(0.0)


def test_what_the_program_gives_itself_never_waits() -> None:
    inbox = Inbox(max_bytes=0)
    for number in range(100):
        inbox.put(message(number))
    assert inbox.get(0.0) == message(0)


def test_the_end_lets_the_collector_go() -> None:
    inbox = Inbox(max_bytes=0)
    receiver = threading.Thread(target=lambda: [inbox.put_heard(message(n)) for n in range(9)], daemon=True)
    receiver.start()
    inbox.close()
    receiver.join(DEADLINE_SECONDS)
    assert not receiver.is_alive()


def test_the_oldest_are_dropped_and_counted() -> None:
    backlog = Backlog(max_bytes=10_000)
    for number in range(100):
        backlog.add(message(number))

    dropped = backlog.take_dropped()
    kept = []
    while backlog:
        kept.append(backlog.pop_all())

    assert kept == [message(number) for number in range(dropped, 100)]
    assert 0 < len(kept) < 10
    assert backlog.take_dropped() == 0
