"""Session tokens from outside: staying logged in, the list, and what ends a session."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from integration.client_process import environment
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS, Peer

from chatclient import ChatClient, LostError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.room import Room, ServerLog


def remember(room: Room, name: str, label: str = "phone", **members: Any) -> tuple[Peer, str]:
    """A connection that has logged in with the password, and the token that it got."""
    peer = room.peer()
    token = peer.login(name, remember=label, **members)["token"]
    return peer, token


def enter(room: Room, token: str, **members: Any) -> Peer:
    """A connection that has logged in with the token."""
    peer = room.peer()
    peer.ask(command="login", token=token, **members)
    peer.next("login")
    return peer


def refusal(room: Room, **members: Any) -> str:
    """The code of the error that a login gets."""
    peer = room.peer()
    peer.ask(command="login", **members)
    code: str = peer.next("error")["code"]
    return code


def sessions(peer: Peer) -> list[dict[str, Any]]:
    peer.ask(command="tokens")
    found: list[dict[str, Any]] = peer.next("tokens")["tokens"]
    return found


def bye(peer: Peer) -> dict[str, Any]:
    """The last event, after which the connection is closed."""
    event = peer.next("bye")
    assert peer.is_closed()
    return event


def test_device_stays_logged_in_over_a_restart(
    open_room: Callable[..., Room], fresh_name: Callable[[str], str]
) -> None:
    """With a token alone, and with everything that it missed."""
    name, other = fresh_name("alice"), fresh_name("bob")
    room = open_room()
    peer, token = remember(room, name, "Firefox on \u20ac")
    assert re.fullmatch("[A-Za-z0-9_-]{43}", token)
    last_id = peer.say("hello")["id"]
    room.enter(other).say("are you there?")
    room.close()
    room = open_room()
    again = room.peer()
    again.ask(command="login", token=token, since=last_id, rooms=True)
    welcome = again.next("login")
    assert (welcome["username"], welcome["account"], "token" in welcome) == (name, "existing", False)
    assert again.next("broadcast")["message"] == "are you there?"
    (session,) = sessions(again)
    assert (session["label"], session["current"]) == ("Firefox on \u20ac", True)
    assert session["created"] == session["used"] < session["expires"]
    assert token not in str(session)


def test_revoked_session_ends_at_once_and_admits_no_login(room: Room, fresh_name: Callable[[str], str]) -> None:
    """Promise: all of its connections end with a reason, and no other ones."""
    name = fresh_name("alice")
    phone, phone_token = remember(room, name)
    again = enter(room, phone_token)
    laptop, laptop_token = remember(room, name, "laptop")
    (lost,) = (each["id"] for each in sessions(laptop) if each["label"] == "phone")
    laptop.ask(command="revoke", id=lost)
    assert [each["label"] for each in laptop.next("tokens")["tokens"]] == ["laptop"]
    for peer in (phone, again):
        assert bye(peer) == {"type": "bye", "reason": "the session was revoked", "code": "revoked"}
    assert refusal(room, token=phone_token) == "bad_token"
    assert sessions(enter(room, laptop_token))[0]["current"]
    laptop.ask(command="revoke", id="all")
    assert len(laptop.next("tokens")["tokens"]) == 1
    laptop.ask(command="revoke", id=sessions(laptop)[0]["id"])
    assert bye(laptop)["code"] == "revoked"


def test_changed_password_ends_the_other_sessions(room: Room, fresh_name: Callable[[str], str]) -> None:
    name = fresh_name("alice")
    thief, stolen = remember(room, name)
    by_password = room.enter(name)
    owner, token = remember(room, name)
    owner.ask(command="change_password", old="secret", new="new")
    owner.next("password_changed")
    assert bye(thief)["code"] == "revoked"
    assert refusal(room, token=stolen) == "bad_token"
    assert [each["label"] for each in sessions(by_password)] == ["phone"]
    enter(room, token)


def test_ban_refuses_the_token_until_it_ends(moderated: Room, fresh_name: Callable[[str], str]) -> None:
    username = fresh_name("alice")
    peer, token = remember(moderated, username)
    op = moderated.enter("op", moderation=True)
    op.ask(command="ban", username=username)
    op.next("banned")
    assert bye(peer)["code"] == "banned"
    assert refusal(moderated, token=token) == "banned"
    op.ask(command="unban", username=username)
    op.next("unbanned")
    enter(moderated, token)


WRONG: list[dict[str, Any]] = [
    {"token": "x"},
    {"token": ""},
    {"token": "\u20ac\0\U0001f600" * 100},
    {"token": "x" * 60_000},
    {"token": "x", "username": "alice"},
    {"token": "x", "rooms": True, "since": {"lobby": 0}},
]


@pytest.mark.parametrize("members", WRONG, ids=lambda each: repr(each)[:40])
def test_wrong_token_gets_one_error_and_the_connection_goes_on(
    room: Room, fresh_name: Callable[[str], str], members: dict[str, Any]
) -> None:
    peer = room.peer()
    peer.ask(command="login", **members)
    assert peer.next("error")["code"] == "bad_token"
    peer.login(fresh_name("alice"))


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"token": "x" * 100_000}, "too_long"),
        ({"token": 17}, "bad_request"),
        ({"token": ["x"]}, "bad_request"),
        ({"token": None}, "bad_request"),
        ({"token": "x", "password": "secret"}, "bad_request"),
        ({"token": "x", "remember": "phone"}, "bad_request"),
        ({"username": "alice", "password": "secret", "remember": "x" * 65}, "too_long"),
        ({"username": "alice", "password": "secret", "remember": "a\nb"}, "bad_request"),
        ({"username": "alice", "password": "secret", "remember": 17}, "bad_request"),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_malformed_login_is_refused(
    room: Room, fresh_name: Callable[[str], str], members: dict[str, Any], code: str
) -> None:
    peer = room.peer()
    peer.ask(command="login", **members)
    assert peer.next("error")["code"] == code
    peer.login(fresh_name("bob"))


def test_log_has_no_tokens(room: Room, log: ServerLog, fresh_name: Callable[[str], str]) -> None:
    """Neither right ones nor wrong ones, in the right place and in the wrong one. It has their ids."""
    name = fresh_name("alice")
    peer, token = remember(room, name)
    (session,) = sessions(peer)
    for members in (
        {"command": "login", "token": token},
        {"command": "login", "token": token + "x"},
        {"command": "login", "token": token, "password": token},
        {"command": "login", "username": token, "password": "x"},
        {"command": "revoke", "id": token},
        {"command": token, "id": token},
    ):
        with closing(Peer(room.server.port)) as other:
            other.ask(**members)
            other.until_fence()
        peer.ask(**members)
        peer.until_fence()
    peer.ask(command="revoke", id=session["id"])
    assert bye(peer)["code"] == "revoked"
    log.wait_for("tokens revoked")
    assert session["id"] in log.getvalue()
    assert token[:40] not in log.getvalue()


# --- clients ---


def test_program_stays_logged_in_with_a_token(room: Room, fresh_name: Callable[[str], str]) -> None:
    """The password is needed once. The token also serves a reconnect."""
    name, port = fresh_name("bot"), room.server.port
    with ChatClient(port=port) as client:
        token = client.login(name, "secret", remember="bot").token
        assert token is not None
        assert [(each.label, each.current) for each in client.tokens()] == [("bot", True)]
    with TcpProxy(port) as proxy, ChatClient(port=proxy.port, token=token) as client:
        assert client.login().username == name
        client.say("one")
        proxy.cut()
        proxy.mend()
        client.say("two")
        assert [each.text for each in client.history()] == ["one", "two"]
        with ChatClient(port=port) as other:
            other.login(name, "secret")
            assert other.revoke("all") == ()
        with pytest.raises(LostError) as lost:
            list(client.events(DEADLINE_SECONDS))
        assert lost.value.code == "revoked"
    with ChatClient(port=port, token=token) as client:
        with pytest.raises(RefusedError) as refused:
            client.login()
        assert refused.value.code == "bad_token"


def test_wrong_calls_of_a_program_are_refused_before_anything_is_sent(room: Room) -> None:
    with pytest.raises(UsageError, match="json"):
        ChatClient(port=room.server.port, dialect="frames", token="x")
    with ChatClient(port=room.server.port, token="x") as client, pytest.raises(UsageError, match="without a password"):
        client.login("alice", "secret")
    for dialect, label, code in (("json", "a\nb", "bad_request"), ("frames", "bot", "unknown_command")):
        with ChatClient(port=room.server.port, dialect=dialect) as client:
            with pytest.raises(RefusedError) as refused:
                client.login("alice", "secret", remember=label)
            assert refused.value.code == code
            client.login("alice", "secret")


def test_client_of_a_script_logs_in_with_the_file_of_its_token(room: Room, tmp_path: Path) -> None:
    """Without a name. The token is in no list of processes, and not in the output."""
    _, token = remember(room, "alice")
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    command = [sys.executable, "-m", "chatclient", "127.0.0.1", str(room.server.port), "--token-file", str(file)]
    typed = "PM hello\n/sessions\n"
    ended = subprocess.run(command, env=environment(), input=typed, capture_output=True, text=True, check=True)
    assert "[sent #1]" in ended.stdout
    assert re.search(r"^\[session \w+ [\dTZ:-]+\] phone \(this one\)$", ended.stdout, re.MULTILINE)
    assert token not in ended.stdout + ended.stderr
    file.write_text("wrong")
    refused = subprocess.run(command, env=environment(), input="", capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert "[error bad_token]" in refused.stdout
