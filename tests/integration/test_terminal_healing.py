"""The program ``chatclient`` at a terminal: a connection that is lost, and comes back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from integration.desk import Desk, StandIn, Wire, at, is_in, refusal, rows_of, serves, status

from ops.window import ENTER, control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

    from ops.window import Window

LOST = "connection lost, trying again"
SAID = "The connection is lost ("


@pytest.fixture
def wire(room: Room) -> Iterator[Wire]:
    with Wire(room.server.port) as wire:
        yield wire


@pytest.fixture
def desk(wire: Wire, tmp_path: Path) -> Iterator[Desk]:
    with Desk(wire.port, tmp_path) as desk:
        yield desk


def until_lost(window: Window) -> None:
    window.until(lambda: status(window).endswith(LOST), "the status line says that it is lost")


def texts(window: Window, text: str) -> list[str]:
    """What stands behind the gutter in rows with this text."""
    return [row.split("│ ", 1)[1] for row in window.everything() if text in row and "│" in row]


def test_a_lost_connection_is_said_once_and_what_was_missed_is_shown_once(room: Room, wire: Wire, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    bob.say("seen before")
    alice.until_shows("bob │ seen before")
    alice.type("half a li")
    alice.until_line("alice> half a li")
    wire.cut()
    until_lost(alice)
    alice.until_shows(SAID)
    assert alice.look_of("The connection is lost").fg == "red"
    assert alice.look_of(LOST).fg == "red"
    alice.until_line("alice> half a li")
    for number in range(5):
        bob.say(f"missed {number}")
    bob.ask(command="DM", to="alice", message="missed 5, for you")
    bob.next("sent")
    alice.type("ne")
    wire.mend()
    alice.until(lambda: is_in(alice), "it is connected again")
    bob.say("new")
    alice.until_shows("Connected again, after ", "bob │ new")
    alice.until_line("alice> half a line")
    assert len(rows_of(alice, SAID)) == len(rows_of(alice, "Connected again")) == 1
    rows = alice.everything()
    begin = next(number for number, row in enumerate(rows) if row.startswith("─── what you missed ───"))
    end = next(number for number, row in enumerate(rows) if row.startswith("─── now ───") and number > begin)
    expected = [*(f"missed {number}" for number in range(5)), "missed 5, for you"]
    assert [row.split("│ ")[1] for row in rows[begin + 1 : end]] == expected
    assert texts(alice, "missed ") == expected
    assert texts(alice, "seen before") == ["seen before"]
    assert rows.index(alice.row_with("bob │ new")) > end
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "half a line"
    bob.until_fence()
    assert not re.search("alice> (half|ne)", "\n".join(alice.everything()[:-2]))


def test_however_much_was_missed_all_of_it_is_shown_once_and_who_was_named_is_called(
    room: Room, wire: Wire, desk: Desk
) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    expected = [f"missed {number}" + (", alice" if number == 5 else "") for number in range(801)]
    for text in expected:
        bob.ask(command="PM", message=text)
    bob.until_fence()
    wire.mend()
    alice.until_shows("missed 800")
    bob.say("new")
    alice.until_shows("bob │ new")
    assert texts(alice, "missed ") == expected
    assert "too fast to be shown" not in alice.text()
    assert alice.bells == 1


def test_what_is_typed_meanwhile_waits_is_marked_so_and_is_sent_once(room: Room, wire: Wire, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    for line in ("first", "DM bob second"):
        alice.type(line, ENTER)
        alice.until_shows(f"… {line} (waits for the connection)")
    alice.type("half")
    alice.until_line("alice> half")
    assert not texts(alice, "first")
    wire.mend()
    alice.until_shows("alice │ first", "alice » bob │ second")
    alice.until_line("alice> half")
    assert "(waits for the connection)" not in alice.text()
    alice.type(control("c"), "fence", ENTER)
    heard = []
    while "fence" not in heard:
        heard.append(bob.next("broadcast", "direct")["message"])
    assert heard == ["first", "second", "fence"]
    assert texts(alice, "first") == ["first"]


def test_what_is_not_confirmed_is_marked_so_and_is_stored_once(room: Room, wire: Wire, desk: Desk) -> None:
    """The server has it, and its answer is lost."""
    bob = room.enter("bob")
    alice = desk.sit()
    wire.deafen()
    alice.type("under way", ENTER)
    assert bob.next("broadcast")["message"] == "under way"
    alice.until_shows("… under way (not confirmed yet)")
    assert not texts(alice, "under way")
    wire.cut()
    until_lost(alice)
    alice.until_shows("… under way (not confirmed yet)")
    wire.mend()
    alice.until_shows("alice │ under way")
    alice.type("fence", ENTER)
    assert bob.next("broadcast")["message"] == "fence"
    alice.until_shows("alice │ fence")
    assert texts(alice, "under way") == ["under way"]
    assert "not confirmed yet" not in alice.text()
    alice.type("CH", ENTER)
    alice.until_shows("─── the last 2 messages ───", "─── now ───")


def test_it_comes_back_to_a_server_that_was_stopped_and_started_again(
    open_room: Callable[..., Room], tmp_path: Path
) -> None:
    room = open_room()
    port = room.server.port
    with Desk(port, tmp_path) as desk:
        alice, carol = desk.sit(), desk.sit("carol", "--dialect", "frames")
        alice.type("before", ENTER)
        carol.until_shows("alice │ before")
        alice.until_shows("alice │ before")
        assert room.stop()
        for window in (alice, carol):
            until_lost(window)
        alice.type("meanwhile", ENTER)
        alice.until_shows("… meanwhile (waits for the connection)")
        bob = open_room(port=port).enter("bob")
        for window in (alice, carol):
            window.until(lambda window=window: is_in(window), "it is back")  # type: ignore[misc]
        bob.say("after")
        for window in (alice, carol):
            window.until_shows("alice │ meanwhile", "bob │ after")
            assert texts(window, "meanwhile") == ["meanwhile"]
            assert texts(window, "after")[-1:] == ["after"]
            assert texts(window, "before") == ["before"]
            assert len(rows_of(window, SAID)) == 1


def test_a_dialogue_goes_on_where_it_was(room: Room, wire: Wire, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("bob", ENTER)
    alice.until_line("message for bob:")
    alice.type("half")
    alice.until_line("message for bob: half")
    wire.cut()
    until_lost(alice)
    alice.until_line("message for bob: half")
    wire.mend()
    alice.until(lambda: is_in(alice), "it is back")
    alice.until_line("message for bob: half")
    alice.type(" and half", ENTER)
    assert bob.next("direct")["message"] == "half and half"
    assert texts_of(bob.until_fence()) == []


def texts_of(answers: list[dict[str, str]]) -> list[str]:
    return [each["message"] for each in answers if "message" in each]


def test_commands_that_need_no_server_work_meanwhile(wire: Wire, desk: Desk) -> None:
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    answers = {
        "/help": "DM [USER [MESSAGE]]",
        "/quiet": "No bell and no highlight",
        "/nonsense": "There is no /nonsense",
    }
    for line, answer in answers.items():
        alice.type(line, ENTER)
        alice.until_shows(answer)


@pytest.mark.parametrize("keys", [f"EX{ENTER}", f"/quit{ENTER}", control("d")], ids=repr)
def test_meanwhile_one_can_leave_at_once(wire: Wire, desk: Desk, keys: str) -> None:
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    alice.type(keys)
    assert alice.until_end() == 0
    assert alice.echoes


def test_who_leaves_meanwhile_learns_what_was_not_sent(wire: Wire, desk: Desk) -> None:
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    for line in ("first", "second"):
        alice.type(line, ENTER)
        alice.until_shows(f"… {line} (waits for the connection)")
    alice.type("EX", ENTER)
    assert alice.until_end() == 1
    assert "2 typed lines were not confirmed" in alice.text()


def test_it_is_lost_and_found_several_times_and_nothing_is_there_twice(room: Room, wire: Wire, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    for number in range(5):
        wire.cut()
        until_lost(alice)
        bob.say(f"missed {number}")
        alice.type(f"said {number}", ENTER)
        wire.mend()
        alice.until_shows(f"alice │ said {number}", f"bob │ missed {number}")
        assert bob.next("broadcast")["message"] == f"said {number}"
    assert texts(alice, "missed") == [f"missed {number}" for number in range(5)]
    assert texts(alice, "said ") == [f"said {number}" for number in range(5)]
    assert len(rows_of(alice, SAID)) == 5


# --- servers that do what they seldom do ---


def test_a_server_that_lets_everybody_in_and_hangs_up_is_told_of_once(desk: Desk) -> None:
    with StandIn(at("users", None), *[at("login", None)] * 4, serves) as server:
        alice = desk.sit(port=server.port)
        alice.type("/users", ENTER)
        alice.until_shows("Connected again", "1 online: alice")
    assert len(server.asked) == 6
    assert len(rows_of(alice, SAID)) == len(rows_of(alice, "Connected again")) == 1


def test_a_message_that_a_server_puts_off_as_it_stops_is_sent_again_and_shown_once(desk: Desk) -> None:
    def stops(request: dict[str, Any]) -> list[dict[str, Any] | None]:
        return [refusal("shutting_down", request["nonce"]), None] if request["command"] == "PM" else serves(request)

    with StandIn(stops, serves) as server:
        alice = desk.sit(port=server.port)
        alice.type("pay 100", ENTER)
        alice.until_shows("alice │ pay 100")
        nonces = [request["nonce"] for request in server.asked_for("PM")]
    assert len(nonces) == 2
    assert len(set(nonces)) == 1
    assert texts(alice, "pay 100") == ["pay 100"]
    assert "No: shutting_down" not in alice.text()


PASSING = ["too_many_attempts", "shutting_down", "internal", "rate_limited", "server_full"]


@pytest.mark.parametrize("code", PASSING)
def test_a_return_that_is_refused_for_a_while_is_tried_again(desk: Desk, code: str) -> None:
    with StandIn(at("users", None), *[at("login", refusal(code))] * 3, serves) as server:
        alice = desk.sit(port=server.port)
        alice.type("/users", ENTER)
        alice.until_shows(SAID)
        alice.type("hello", ENTER)
        alice.until_shows("Connected again", "alice │ hello")
        alice.type("half a line")
        alice.until_line("alice> half a line")
    assert len(rows_of(alice, f"No: {code}.")) == 1
    assert len(server.asked_for("login")) == 5
    assert len(server.asked_for("PM")) == 1


def test_somebody_elses_guesses_at_the_password_do_not_end_who_is_in(room: Room, wire: Wire, desk: Desk) -> None:
    alice = desk.sit()
    wire.cut()
    until_lost(alice)
    codes = []
    while "too_many_attempts" not in codes:
        guesser = room.peer()
        guesser.ask(command="login", username="alice", password="wrong")
        codes.append(guesser.next("error")["code"])
        guesser.close()
    wire.mend()
    alice.until_shows("Too many wrong passwords for alice")
    alice.type("hello", ENTER)
    alice.until_shows("… hello (waits for the connection)")
    until_lost(alice)


def test_a_return_with_a_password_that_is_wrong_now_is_the_end(desk: Desk) -> None:
    with StandIn(at("users", None), at("login", refusal("wrong_password")), serves) as server:
        alice = desk.sit(port=server.port)
        alice.type("/users", ENTER)
        assert alice.until_end() == 3
    assert "No: wrong_password." in alice.text()


def test_the_last_messages_come_though_the_connection_is_lost_before_they_do(desk: Desk) -> None:
    with StandIn(at("CH", None), at("CH", None), serves) as server:
        alice = desk.open(port=server.port)
        alice.until_shows("Connected again", "─── the last message ───", "bob │ of before", "─── now ───")
        alice.type("/users", ENTER)
        alice.until_shows("1 online: alice")
    assert texts(alice, "of before") == ["of before"]
    assert [request["limit"] for request in server.asked_for("CH")] == [20] * 3


@pytest.mark.parametrize(
    ("typed", "command", "shown"),
    [("/history 3", "CH", "─── the last message ───"), ("/users", "users", "1 online: alice")],
)
def test_what_was_asked_for_when_the_connection_was_lost_comes_after_the_return(
    desk: Desk, typed: str, command: str, shown: str
) -> None:
    def forgets(request: dict[str, Any]) -> list[dict[str, Any] | None]:
        """But not the first time: that is how a login begins."""
        is_first = request["command"] == "CH" and request.get("limit") == 20
        return serves(request) if is_first or request["command"] != command else [None]

    with StandIn(forgets, serves) as server:
        alice = desk.sit(port=server.port)
        alice.until_shows("─── now ───")
        alice.type(typed, ENTER)
        alice.until_shows("Connected again")
        alice.until(lambda: shown in alice.text().split("Connected again")[1], "it is answered")
        alice.type("hello", ENTER)
        alice.until_shows("alice │ hello")
