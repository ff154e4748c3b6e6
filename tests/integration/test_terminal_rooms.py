"""The client at a terminal in several rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.fake_server import FakeServer, serve
from integration.proxies import TcpProxy
from integration.terminals import is_connected, rows_with, status, texts_with

from ops.window import ENTER, ESCAPE, TAB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from integration.room import Peer, Room
    from integration.terminals import Terminals

    from ops.window import Window

FIRST, SECOND, THIRD = (f"{ESCAPE}{number}" for number in (1, 2, 3))


@pytest.fixture
def proxy(room: Room) -> Iterator[TcpProxy]:
    with TcpProxy(room.server.port) as proxy:
        yield proxy


@pytest.fixture
def bob(room: Room) -> Peer:
    """A user who is in dev and ops."""
    bob = room.enter("bob")
    for name in ("dev", "ops"):
        bob.ask(command="join", room=name)
        bob.next("joined")
    return bob


def say(peer: Peer, text: str, room: str | None = None) -> None:
    peer.ask(command="PM", message=text, room=room or "lobby")
    peer.next("sent")


def heard(peer: Peer) -> tuple[str | None, str]:
    """Room and text of the next message."""
    found = peer.next("broadcast")
    return found.get("room"), found["message"]


def test_user_talks_in_two_rooms_and_the_lobby_over_a_lost_connection(
    bob: Peer, proxy: TcpProxy, terminals: Terminals
) -> None:
    """The prompt and the status line name the current room. Promise: each message of each room once."""
    alice = terminals.log_in(port=proxy.port)
    for name in ("dev", "ops"):
        alice.type(f"/join #{name}", ENTER)
        alice.until_line(f"alice #{name}>")
    alice.type("hello ops", ENTER, SECOND, "hello dev", ENTER, FIRST, "hello all", ENTER)
    # Between two rooms the order is not defined.
    assert {heard(bob) for _ in range(3)} == {("ops", "hello ops"), ("dev", "hello dev"), (None, "hello all")}
    alice.until_shows("alice #ops │ hello ops", "alice #dev │ hello dev", "alice │ hello all")
    say(bob, "one", "dev")
    say(bob, "two", "ops")
    say(bob, "three", "dev")
    alice.until_shows("bob #dev │ three", "bob #ops │ two")
    alice.until(
        lambda: " · [2] #dev (2 new), [3] #ops (1 new) · connected" in status(alice), "unread messages are counted"
    )
    alice.type("half", THIRD)
    alice.until_line("alice #ops> half")
    alice.until(lambda: " · [3] #ops · [2] #dev (2 new) · connected" in status(alice), "ops is read")
    proxy.cut()
    alice.until(lambda: status(alice).endswith("trying again"), "the connection is lost")
    alice.type(" a line", ENTER, SECOND, "and another", ENTER)
    for number in range(300):
        bob.ask(command="PM", message=f"missed {number}", room=("lobby", "dev", "ops")[number % 3])
    for _ in range(300):  # stored before the login
        bob.next("sent")
    proxy.mend()
    alice.until(lambda: is_connected(alice), "it is connected again")
    assert {heard(bob) for _ in range(2)} == {("ops", "half a line"), ("dev", "and another")}
    alice.until_shows("alice #ops │ half a line", "alice #dev │ and another")
    alice.until_line("alice #dev>")
    assert texts_with(alice, "│ missed ") == [f"missed {number}" for number in range(300)]
    assert len(rows_with(alice, "bob #ops │ missed ")) == 100
    for text in ("half a line", "and another", "hello dev", "three"):
        assert texts_with(alice, f"│ {text}") == [text]


def test_room_with_a_key_is_entered_with_it(bob: Peer, terminals: Terminals) -> None:
    """The error says what to type; the modes of the room are shown and changed."""
    bob.ask(command="modes", room="dev", key="sesame")
    bob.next("modes")
    alice = terminals.log_in()
    alice.type("/join dev open", ENTER)
    alice.until_shows("#dev needs a key, or an invitation: type /join #dev KEY.")
    alice.type("/join #dev sesame", ENTER)
    alice.until_line("alice #dev>")
    alice.type("/modes", ENTER)
    alice.until_shows("#dev is: key sesame.")
    alice.type("/modes moderated", ENTER)
    alice.until_shows("Only the owner and the operators of the room dev may do this")
    bob.ask(command="op", room="dev", username="alice")
    bob.next("role")
    alice.until_shows("bob made alice an operator of #dev.")
    alice.type("/modes moderated -k", TAB)
    alice.until_line("alice #dev> /modes moderated -key")
    alice.type("limit 5", ENTER)
    alice.until_shows("#dev is now: moderated, 5 members at most (alice).")


def test_removed_user_does_not_write_to_another_room(bob: Peer, proxy: TcpProxy, terminals: Terminals) -> None:
    """Also if it happened while the connection was lost: then the room is forgotten."""
    alice = terminals.log_in(port=proxy.port, columns=60)
    alice.type("/join dev", ENTER)
    alice.until_line("alice #dev>")
    alice.type("secret")
    bob.ask(command="kick", room="dev", username="alice")
    bob.next("kicked")
    alice.until_shows("bob removed you from #dev")
    alice.type(ENTER)
    alice.until_shows("It was: secret")
    alice.until_line("alice #dev>")
    alice.type("/join dev", ENTER)
    alice.until(lambda: len(rows_with(alice, "You are in #dev (public).")) == 2, "it is in the room again")
    proxy.cut()
    alice.until(lambda: status(alice).endswith("trying again"), "the connection is lost")
    bob.ask(command="kick", room="dev", username="alice")
    bob.next("kicked")
    alice.type("secret too", ENTER)
    proxy.mend()
    alice.until_shows("You are no longer in #dev.", "It was: secret too")
    assert len(rows_with(alice, "You are no longer in")) == 1
    alice.type("/room lobby", ENTER)
    alice.until_line("alice>")
    alice.type("to all", ENTER)
    assert heard(bob) == (None, "to all")
    assert [each for each in bob.until_fence() if each["type"] == "broadcast"] == []


def test_server_without_rooms_gets_no_message_to_one(terminals: Terminals) -> None:
    """An earlier version would ignore the room, and show the message to all users."""
    with FakeServer(serve) as server:
        window: Window = terminals.log_in(port=server.port, columns=60)
        for count, line in enumerate(("/join dev", "/rooms"), 1):
            window.type(line, ENTER)
            window.until(lambda: len(rows_with(window, "This server has no rooms")) == count, "one line for each")  # noqa: B023
        window.until_line("alice>")
        window.type("hello", ENTER)
        window.until_shows("alice │ hello")
        commands: list[Any] = [each["command"] for each in server.requests[0]]
        assert commands == ["login", "CH", "PM"]
