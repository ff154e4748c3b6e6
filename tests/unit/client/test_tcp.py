"""The link over TCP: what it collects, and when it gives up."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from chatclient import tcp
from chatclient.tcp import TcpLink
from chatprotocol.dialects.json import Json
from chatprotocol.events import Bye, Pong
from chatprotocol.requests import Ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatprotocol.events import Event

MOMENT_SECONDS = 0.05


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TcpLink, socket.socket]]:
    """A link that is patient for a moment, and the server's end of it."""
    monkeypatch.setattr(tcp, "_FIRST_ANSWER_SECONDS", MOMENT_SECONDS)
    ours, theirs = socket.socketpair()
    link = TcpLink([ours], Json())
    with theirs:
        yield link, theirs
    link.close()


def test_a_server_that_answers_nothing_is_given_up(pair: tuple[TcpLink, socket.socket]) -> None:
    link, _ = pair
    link.send(Ping())
    with pytest.raises(TimeoutError, match="accepts connections and answers nothing"):
        link.collect(lambda _: None)


def test_nobody_need_answer_who_was_not_asked(pair: tuple[TcpLink, socket.socket]) -> None:
    """A program may connect, and log in when it likes."""
    link, theirs = pair
    heard: list[Event] = []
    collector = threading.Thread(target=link.collect, args=[heard.append], name="collector")
    collector.start()
    collector.join(4 * MOMENT_SECONDS)
    assert collector.is_alive()
    theirs.sendall(b'{"type":"bye","reason":"enough"}\n')
    theirs.shutdown(socket.SHUT_WR)
    collector.join()
    assert heard == [Bye("enough")]


def test_who_has_answered_once_may_be_silent(pair: tuple[TcpLink, socket.socket]) -> None:
    link, theirs = pair
    heard: list[Event] = []
    answered = threading.Event()

    def report(event: Event) -> None:
        heard.append(event)
        answered.set()

    collector = threading.Thread(target=link.collect, args=[report], name="collector")
    link.send(Ping())
    theirs.sendall(b'{"type":"pong"}\n')
    collector.start()
    assert answered.wait(5)
    collector.join(4 * MOMENT_SECONDS)
    assert collector.is_alive()
    theirs.shutdown(socket.SHUT_WR)
    collector.join()
    assert heard == [Pong()]
