"""The buffers of received events are limited: a full Inbox blocks the receiver thread, a full Backlog drops events."""

import itertools
import queue
import signal
import sys
import threading
from typing import Any

import pytest

from chatclient.inbox import Backlog, Inbox, size_bytes
from chatprotocol.events import History, PublicMessage
from chatprotocol.wire.base import IrcLine

DEADLINE_SECONDS = 20.0


def message(number: int) -> PublicMessage:
    return PublicMessage(number, 0, "bob", "x" * 1_000)


def test_size_is_about_the_size_of_the_texts() -> None:
    assert 1_000 < size_bytes(message(1)) < 1_500
    assert size_bytes(History(tuple(map(message, range(100))))) > 100_000
    assert size_bytes(IrcLine("PRIVMSG", (), "", {str(number): "" for number in range(1_000)})) > 100_000


def test_full_inbox_blocks_the_receiver_thread_until_an_item_is_taken() -> None:
    inbox = Inbox(max_bytes=2_000)
    sent = [message(number) for number in range(50)]
    put: list[PublicMessage] = []

    def receive() -> None:
        for each in sent:
            inbox.put_received(each)
            put.append(each)

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    taken = []
    for _ in sent:
        taken.append(inbox.get(DEADLINE_SECONDS))
        assert len(put) - len(taken) <= 2
    receiver.join(DEADLINE_SECONDS)
    assert taken == sent
    with pytest.raises(queue.Empty):
        inbox.get(0.0)


def test_items_of_the_program_never_block_and_closing_unblocks_all() -> None:
    inbox = Inbox(max_bytes=0)
    for number in range(100):
        inbox.put(message(number))
    receiver = threading.Thread(target=lambda: [inbox.put_received(message(n)) for n in range(100, 109)], daemon=True)
    receiver.start()
    inbox.close()
    receiver.join(DEADLINE_SECONDS)
    assert not receiver.is_alive()
    assert [inbox.get(0.0) for _ in range(109)] == [message(number) for number in range(109)]


def test_consumer_that_is_interrupted_at_any_moment_can_close_it() -> None:
    """Ctrl-C raises KeyboardInterrupt between any two instructions, also in functions that get() calls."""
    for moment in itertools.count():
        inbox = Inbox()
        inbox.put_received(message(1))
        was_interrupted = threading.Event()

        def consume(moment: int, inbox: Inbox, was_interrupted: threading.Event) -> None:
            moments = itertools.count()

            def trace(*_: object) -> Any:
                if next(moments) == moment:
                    raise KeyboardInterrupt
                return trace

            sys.settrace(trace)
            try:
                inbox.get(0.0)
            except KeyboardInterrupt:
                was_interrupted.set()
            finally:
                sys.settrace(None)
            inbox.put_received(message(2))
            inbox.close()

        consumer = threading.Thread(target=consume, args=(moment, inbox, was_interrupted), daemon=True)
        consumer.start()
        consumer.join(DEADLINE_SECONDS)
        assert not consumer.is_alive(), moment
        if not was_interrupted.is_set():
            break
    assert moment > 5, "there were moments"


def test_signal_that_does_not_interrupt_the_wait_is_handled_soon() -> None:
    """As one that arrives in the moment before a wait: this one comes to another thread."""

    class SignalledError(Exception):
        pass

    def raise_error(*_: object) -> None:
        raise SignalledError

    def signal_itself() -> None:
        while sys._current_frames()[main].f_code is not Inbox.get.__code__:
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, raise_error)
    try:
        threading.Thread(target=signal_itself, daemon=True).start()
        with pytest.raises(SignalledError):
            Inbox().get(DEADLINE_SECONDS)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_receiver_wakes_the_consumer_once_until_it_takes() -> None:
    inbox = Inbox()
    wakes: list[None] = []
    inbox.wake = lambda: wakes.append(None)
    for _ in range(2):
        for number in range(3):
            inbox.put_received(number)
        assert len(wakes) == 1
        assert list(inbox.take(DEADLINE_SECONDS)) == [0, 1, 2]
        wakes.clear()


def test_turn_that_is_too_short_wakes_the_consumer_again() -> None:
    inbox = Inbox()
    wakes: list[None] = []
    inbox.put_received(1)
    inbox.wake = lambda: wakes.append(None)
    assert list(inbox.take(0.0)) == []
    assert wakes == [None]


def test_items_that_arrive_in_a_turn_wake_the_consumer_once() -> None:
    """Otherwise wakeups double with each turn, and a flood keeps a terminal from handling keys."""
    inbox = Inbox(monotonic=iter((0.0, 0.0, 1.0)).__next__)
    wakes: list[None] = []
    inbox.put_received(1)
    inbox.put_received(2)
    inbox.wake = lambda: wakes.append(None)
    turn = inbox.take(1.0)
    assert next(turn) == 1
    inbox.put_received(3)
    assert list(turn) == []
    assert wakes == [None]


def test_full_backlog_drops_and_counts_the_oldest_events() -> None:
    backlog = Backlog(max_bytes=10_000)
    for number in range(100):
        backlog.add(message(number))
    dropped = backlog.take_dropped()
    kept = []
    while backlog:
        kept.append(backlog.pop_oldest())
    assert kept == [message(number) for number in range(dropped, 100)]
    assert 0 < len(kept) < 10
    assert backlog.take_dropped() == 0
