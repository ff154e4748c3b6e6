"""The client at a terminal: a lost connection, and the return."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.proxies import TcpProxy
from integration.terminals import Terminals, is_connected, rows_with, status, texts_with

from ops.window import ENTER, control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.room import Room

    from ops.window import Window

LOST = "The connection is lost ("


@pytest.fixture
def proxy(room: Room) -> Iterator[TcpProxy]:
    with TcpProxy(room.server.port) as proxy:
        yield proxy


@pytest.fixture
def alice(proxy: TcpProxy, terminals: Terminals) -> Window:
    """A client that is connected by way of the proxy, and has the recent messages: else it asks for them again."""
    alice = terminals.log_in(port=proxy.port)
    alice.type("/users", ENTER)
    alice.until(lambda: len(rows_with(alice, "1 online: alice")) == 2, "it has the answer")
    alice.until_line("alice>")
    return alice


def until_lost(window: Window) -> None:
    window.until(lambda: status(window).endswith("connection lost, trying again"), "the status line says so")


def test_lost_connection_and_missed_messages_are_shown_once(room: Room, proxy: TcpProxy, alice: Window) -> None:
    """Promise: once. Between two rules, however many there are, and a mention among them rings."""
    bob = room.enter("bob")
    bob.say("seen before")
    alice.until_shows("bob │ seen before")
    alice.type("half a li")
    alice.until_line("alice> half a li")
    proxy.cut()
    until_lost(alice)
    alice.until_shows(LOST)
    assert alice.look_of(LOST).fg == alice.look_of("connection lost, trying").fg == "red"
    alice.type("ne")
    missed = [f"missed {number}" + (", alice" if number == 5 else "") for number in range(801)]
    for text in missed:
        bob.ask(command="PM", message=text)
    for _ in missed:  # stored before the login
        bob.next("sent")
    proxy.mend()
    alice.until(lambda: is_connected(alice), "it is connected again")
    bob.say("new")
    alice.until_shows("Connected again, after ", "bob │ new")
    alice.until_line("alice> half a line")
    assert len(rows_with(alice, LOST)) == len(rows_with(alice, "Connected again")) == 1
    rows = alice.everything()
    begin = next(number for number, row in enumerate(rows) if row.startswith("─── what you missed ───"))
    end = next(number for number, row in enumerate(rows) if row.startswith("─── now ───") and number > begin)
    assert [row.split("│ ")[1] for row in rows[begin + 1 : end]] == missed == texts_with(alice, "│ missed ")
    assert texts_with(alice, "seen before") == ["seen before"]
    assert rows.index(alice.row_with("bob │ new")) > end
    assert alice.bells == 1
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "half a line"


def test_lines_typed_without_a_connection_wait_and_are_sent_once(room: Room, proxy: TcpProxy, alice: Window) -> None:
    """Local commands do not wait."""
    bob = room.enter("bob")
    proxy.cut()
    until_lost(alice)
    for line, answer in (("/quiet", "No bell and no highlight"), ("/nonsense", "There is no /nonsense")):
        alice.type(line, ENTER)
        alice.until_shows(answer)
    for line in ("first", "DM bob second"):
        alice.type(line, ENTER)
        alice.until_shows(f"… {line} (waits for the connection)")
    alice.type("half")
    alice.until_line("alice> half")
    assert not texts_with(alice, "first")
    proxy.mend()
    alice.until_shows("alice │ first", "alice » bob │ second")
    alice.until_line("alice> half")
    assert "(waits for the connection)" not in alice.text()
    alice.type(control("c"), "fence", ENTER)
    assert [bob.next("broadcast", "direct")["message"] for _ in range(3)] == ["first", "second", "fence"]
    assert texts_with(alice, "first") == ["first"]


def test_unconfirmed_message_is_marked_and_stored_once(room: Room, proxy: TcpProxy, alice: Window) -> None:
    """The server has it, and the confirmation is lost. A question stays open over the return."""
    bob = room.enter("bob")
    proxy.loses_answers = True
    alice.type("under way", ENTER)
    assert bob.next("broadcast")["message"] == "under way"
    alice.until_shows("… under way (not confirmed yet)")
    assert not texts_with(alice, "under way")
    proxy.cut()
    until_lost(alice)
    alice.type("PM", ENTER)
    proxy.mend()
    alice.until_shows("alice │ under way")
    alice.until_line("message for all users:")
    alice.type("half")
    alice.until_line("message for all users: half")
    proxy.cut()
    until_lost(alice)
    proxy.mend()
    alice.until(lambda: is_connected(alice), "it is connected again")
    alice.type(" and half", ENTER)
    assert bob.next("broadcast")["message"] == "half and half"
    alice.until_shows("alice │ half and half")
    assert texts_with(alice, "under way") == ["under way"]
    assert "not confirmed yet" not in alice.text()
