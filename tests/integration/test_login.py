"""Logging in and registering, over a socket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room


def test_a_new_name_is_registered_and_an_existing_one_needs_its_password(room: Room) -> None:
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


def test_the_password_is_asked_for_where_it_is_not_given(room: Room) -> None:
    peer = room.peer()
    peer.ask(command="login", username="alice")
    assert peer.next("prompt") == {"type": "prompt", "field": "password", "account": "new"}
    peer.ask(command="password", password="secret")
    assert peer.next("login")["account"] == "new"
    again = room.peer()
    again.ask(command="login", username="alice")
    assert again.next("prompt")["account"] == "existing"
    again.ask(command="password", password="wrong")
    assert again.next("error")["code"] == "wrong_password"
    again.ask(command="password", password="secret")
    assert again.next("login")["account"] == "existing"


def test_the_third_wrong_password_closes_the_connection_and_nobody_else_hears_of_it(room: Room) -> None:
    alice = room.enter("alice")
    guesser = room.peer()
    codes = []
    for guess in ("a", "b", "c"):
        guesser.ask(command="login", username="alice", password=guess)
        codes.append(guesser.next("error")["code"])
    assert codes == ["wrong_password", "wrong_password", "too_many_attempts"]
    assert guesser.next("bye")
    assert guesser.is_closed()
    assert alice.until_fence() == []


def test_one_address_guesses_no_faster_by_connecting_again(room: Room) -> None:
    room.enter("alice").close()
    codes = []
    for _ in range(5):
        guesser = room.peer()
        for _ in range(3):
            guesser.ask(command="login", username="alice", password="wrong")
            codes.append(guesser.next("error")["code"])
            if codes[-1] == "too_many_attempts":
                break
    assert codes.count("wrong_password") <= 10
    late = room.peer()
    late.ask(command="login", username="alice", password="secret")
    assert late.next("error")["code"] == "too_many_attempts", "even the right password has to wait"
    assert room.peer().login("bob")["account"] == "new", "other names are not slowed down"


def test_one_name_registered_by_many_at_the_same_moment_has_one_owner(room: Room) -> None:
    peers = [room.peer() for _ in range(8)]
    answers: list[dict[str, Any]] = [{} for _ in peers]
    barrier = threading.Barrier(len(peers))

    def register(number: int) -> None:
        barrier.wait()
        peers[number].ask(command="login", username="alice", password=f"password {number}")
        answers[number] = peers[number].next("login", "error")

    threads = [threading.Thread(target=register, args=(number,)) for number in range(len(peers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["type"] for answer in answers].count("login") == 1
    assert {answer.get("code") for answer in answers} == {None, "wrong_password"}


def test_with_registration_closed_a_new_name_is_told_what_a_wrong_password_is(open_room: Callable[..., Room]) -> None:
    first = open_room()
    first.enter("alice")
    first.close()
    room = open_room(registration="closed", data=first.config.data)
    stranger = room.peer()
    stranger.ask(command="login", username="mallory")
    assert stranger.next("prompt")["account"] == "existing"
    stranger.ask(command="password", password="secret")
    assert stranger.next("error")["code"] == "wrong_password"
    assert room.peer().login("alice")["account"] == "existing"


def test_a_password_is_hashed_again_when_the_parameters_have_changed(open_room: Callable[..., Room]) -> None:
    first = open_room()
    first.enter("alice")
    first.close()
    second = open_room(data=first.config.data, hash_memory_kib=16)
    second.enter("alice")
    second.close()
    third = open_room(data=first.config.data, hash_memory_kib=16)
    third.enter("alice")
    third.close()
    assert b"m=16,t=1" in (first.config.data / "chat.db").read_bytes()
    assert b"m=8,t=1" not in (first.config.data / "chat.db").read_bytes()


def test_a_login_is_answered_by_one_object_and_no_update_follows_it(open_room: Callable[..., Room]) -> None:
    room = open_room(users_seconds=60)
    peer = room.peer()
    peer.login("alice")
    bob = room.enter("bob")
    assert peer.next("users") == {"type": "users", "users": ["alice", "bob"], "joined": ["bob"], "left": []}
    assert bob.until_fence() == []


def test_the_users_update_comes_again_and_again(open_room: Callable[..., Room]) -> None:
    peer = open_room(users_seconds=0.05).enter("alice")
    for _ in range(3):
        assert peer.next("users") == {"type": "users", "users": ["alice"], "joined": [], "left": []}


def test_a_user_with_two_connections_leaves_with_the_last_one(room: Room) -> None:
    bob = room.enter("bob")
    first, second = room.enter("alice"), room.enter("alice")
    assert bob.next("users")["joined"] == ["alice"]
    first.close()
    second.ask(command="users")
    assert second.next("users")["users"] == ["bob", "alice"]
    second.ask(command="EX")
    assert bob.next("users") == {"type": "users", "users": ["bob"], "joined": [], "left": ["alice"]}
