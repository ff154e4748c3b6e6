"""The client at a terminal: a lost connection, and the return."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.fake_server import FakeServer, error, serve_but
from integration.proxies import TcpProxy
from integration.terminals import Terminals, is_connected, rows_with, status, texts_with

from ops.window import ENTER, control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

    from ops.window import Window

LOST = "The connection is lost ("


@pytest.fixture
def proxy(room: Room) -> Iterator[TcpProxy]:
    with TcpProxy(room.server.port) as proxy:
        yield proxy


@pytest.fixture
def alice(proxy: TcpProxy, terminals: Terminals) -> Window:
    """A client that is connected by way of the proxy."""
    return terminals.log_in(port=proxy.port)


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
    bob.until_fence()
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


def test_client_returns_to_a_restarted_server(open_room: Callable[..., Room], tmp_path: Path) -> None:
    room = open_room()
    port = room.server.port
    with Terminals(port, tmp_path) as terminals:
        alice, carol = terminals.log_in(), terminals.log_in("carol", "--dialect", "frames")
        alice.type("before", ENTER)
        for window in (alice, carol):
            window.until_shows("alice │ before")
        assert room.stop()
        for window in (alice, carol):
            until_lost(window)
        alice.type("meanwhile", ENTER)
        alice.until_shows("… meanwhile (waits for the connection)")
        bob = open_room(port=port).enter("bob")
        for window in (alice, carol):
            window.until(lambda window=window: is_connected(window), "it is back")  # type: ignore[misc]
        bob.say("after")
        for window in (alice, carol):
            window.until_shows("alice │ meanwhile", "bob │ after")
            for text in ("meanwhile", "after", "before"):
                assert texts_with(window, f"│ {text}") == [text]
            assert len(rows_with(window, LOST)) == 1


@pytest.mark.parametrize(("keys", "code"), [(control("d"), 0), (f"unsent{ENTER}EX{ENTER}", 1)], ids=["empty", "unsent"])
def test_client_without_a_connection_leaves_at_once(proxy: TcpProxy, alice: Window, keys: str, code: int) -> None:
    """And says what was not sent."""
    proxy.cut()
    until_lost(alice)
    for line in keys.splitlines():
        alice.type(line, *([ENTER] if ENTER in keys else []))
        if line == "unsent":
            alice.until_shows("… unsent (waits for the connection)")
    assert alice.until_end() == code
    assert ("1 typed line was not confirmed" in alice.text()) == bool(code)
    assert alice.echoes


# --- servers that do what they seldom do ---


def test_return_with_a_changed_password_ends_with_3(terminals: Terminals) -> None:
    with FakeServer(serve_but("users", None), serve_but("login", error("wrong_password"))) as server:
        alice = terminals.log_in(port=server.port)
        alice.type("/users", ENTER)
        assert alice.until_end() == 3
    assert "No: wrong_password." in alice.text()
