"""Login, registration and the list of users, over sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from integration.room import leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]


def test_login_registers_a_new_name_and_needs_the_password_later(room: Room) -> None:
    first = room.peer().login("Alice", "secret")
    assert first == {
        "type": "login",
        "status": "ok",
        "account": "new",
        "username": "Alice",
        "users": ["Alice"],
        "last_id": 0,
        "history_id": first["history_id"],
    }
    second = room.peer()
    second.ask(command="login", username="alice", password="wrong")
    assert second.next("error")["code"] == "wrong_password"
    assert second.login("ALICE", "secret") | {"users": []} == first | {"account": "existing", "users": []}


def test_reconnecting_does_not_help_to_guess_a_password(shared_room: Room, fresh_name: Name) -> None:
    name = fresh_name("alice")
    leave(shared_room.enter(name))
    codes: list[str] = []
    for _ in range(5):
        guesser = shared_room.peer()
        while codes[-1:] != ["too_many_attempts"]:
            guesser.ask(command="login", username=name, password="wrong")
            codes.append(guesser.next("error")["code"])
        codes.append("next connection")
    assert codes.count("wrong_password") <= 10
    late = shared_room.peer()
    late.ask(command="login", username=name, password="secret")
    assert late.next("error")["code"] == "too_many_attempts", "even the right password has to wait"
    assert shared_room.peer().login(fresh_name("bob"))["account"] == "new", "other names are not slowed down"


def test_name_registered_by_many_at_once_has_one_owner(shared_room: Room, fresh_name: Name) -> None:
    name = fresh_name("alice")
    peers = [shared_room.peer() for _ in range(8)]
    answers: list[dict[str, Any]] = [{} for _ in peers]
    barrier = threading.Barrier(len(peers))

    def register(number: int) -> None:
        barrier.wait()
        peers[number].ask(command="login", username=name, password=f"password {number}")
        answers[number] = peers[number].next("login", "error")

    threads = [threading.Thread(target=register, args=(number,)) for number in range(len(peers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["type"] for answer in answers].count("login") == 1
    assert {answer.get("code") for answer in answers} == {None, "wrong_password"}


def test_closed_registration_answers_a_new_name_like_a_wrong_password(open_room: Callable[..., Room]) -> None:
    first = open_room()
    leave(first.enter("alice"))
    first.close()
    room = open_room(registration="closed", data=first.config.data)
    stranger = room.peer()
    stranger.ask(command="login", username="mallory")
    assert stranger.next("prompt")["account"] == "existing"
    stranger.ask(command="password", password="secret")
    assert stranger.next("error")["code"] == "wrong_password"
    assert room.peer().login("alice")["account"] == "existing"


def test_password_is_hashed_again_after_a_change_of_the_cost(open_room: Callable[..., Room]) -> None:
    first = open_room()
    first.enter("alice")
    first.close()
    for _ in range(2):
        again = open_room(data=first.config.data, hash_memory_kib=16)
        again.enter("alice")
        again.close()
    assert b"m=16,t=1" in (first.config.data / "chat.db").read_bytes()
    assert b"m=8,t=1" not in (first.config.data / "chat.db").read_bytes()


def test_users_update_tells_who_joined_and_left(room: Room) -> None:
    """With the last connection of a user; never to a peer of frames, which asks for the list."""
    alice, carol = room.enter("alice"), room.enter_frames("carol")
    assert alice.next("users") == {"type": "users", "users": ["alice", "carol"], "joined": ["carol"], "left": []}
    first, second = room.enter_frames("bob"), room.enter("bob")
    assert alice.next("users")["joined"] == ["bob"]
    leave(first)
    for operation in ("DM", "USERS"):
        carol.command(operation)
        assert carol.next_command() == "ONLINE alice carol bob"
        carol.data("")
        assert carol.next_command().startswith("ERROR ")
    leave(second)
    assert alice.next("users") == {"type": "users", "users": ["alice", "carol"], "joined": [], "left": ["bob"]}
    assert carol.until_fence() == []
