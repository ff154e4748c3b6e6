"""The class ChatClient as an operator and as a user who is moderated, against the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from integration.room import DEADLINE_SECONDS
from integration.test_chat_client import next_of

from chatclient import (
    Banned,
    Bye,
    ChatClient,
    Deleted,
    Kicked,
    LostError,
    Muted,
    PublicMessage,
    RefusedError,
    Reported,
    SanctionKind,
    Unmuted,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Enter = Callable[..., ChatClient]
    Name = Callable[[str], str]

pytest_plugins = ["integration.test_chat_client"]


def test_calls_of_operators_return_their_answers(moderated: Room, enter: Enter, fresh_name: Name) -> None:
    port, bob_name = moderated.server.port, fresh_name("bob")
    op, bob = enter(port, "op"), enter(port, bob_name)
    number = bob.say("buy now")
    assert number is not None
    bob.report(number, reason="my own")
    assert next_of(op, Reported) == Reported(id=number, by=bob_name, reason="my own")
    op.delete(number)
    assert next_of(bob, Deleted) == Deleted(number, "op")
    assert number not in [each.id for each in bob.history()]
    op.mute(bob_name, seconds=60, reason="advertising")
    muted = next_of(bob, Muted)
    assert (muted.username, muted.by, muted.reason) == (bob_name, "op", "advertising")
    assert muted.until is not None
    with pytest.raises(RefusedError) as refused:
        bob.say("buy now")
    assert refused.value.code == "muted"
    (sanction,) = op.bans()
    assert (sanction.kind, sanction.username) == (SanctionKind.MUTE, bob_name)
    op.unmute(bob_name)
    next_of(bob, Unmuted)
    op.ban("192.0.2.7/24", seconds=60)
    op.unban("192.0.2.0/24")
    newest = op.audit(3)
    assert [(each.action, each.target) for each in newest[1:]] == [("ban", "192.0.2.0/24"), ("unban", "192.0.2.0/24")]
    assert op.audit(1, before=newest[0].number)[0].number < newest[0].number
    assert op.ignore(bob_name) == op.ignored() == (bob_name,)
    assert op.unignore(bob_name) == ()
    with pytest.raises(RefusedError) as refused:
        bob.kick(None, "op")
    assert refused.value.code == "not_permitted"


@pytest.mark.parametrize(("code", "dialect"), [("kicked", "json"), ("kicked", "datagram"), ("banned", "json")])
def test_user_who_is_put_out_does_not_reconnect(
    moderated: Room, enter: Enter, fresh_name: Name, code: str, dialect: str
) -> None:
    """Its calls then raise LostError with the code."""
    port, name = moderated.server.port, fresh_name("bob")
    op, bob = enter(port, "op"), enter(port, name, dialect)
    if code == "kicked":
        op.kick(None, name, "spam")
        if dialect == "json":
            assert next_of(bob, Kicked) == Kicked(username=name, by="op", reason="spam")
    else:
        op.ban(name, reason="spam")
        assert next_of(bob, Banned).username == name
    bye = next_of(bob, Bye)
    assert (bye.code, "spam" in bye.reason) == (code, True)
    with pytest.raises(LostError) as lost:
        list(bob.events(DEADLINE_SECONDS))
    assert lost.value.code == code
    with pytest.raises(LostError):
        bob.say("hello")
    if code == "banned":
        with pytest.raises(RefusedError) as refused:
            enter(port, name)
        assert refused.value.code == "banned"
        op.unban(name)


def test_client_that_is_replaced_does_not_replace_the_newer_one(open_room: Callable[..., Room], enter: Enter) -> None:
    """Two clients would otherwise end each other's connections for ever."""
    port = open_room(exempt=(), user_connections=1).server.port
    older, newer = enter(port, "alice"), enter(port, "alice")
    with pytest.raises(LostError) as lost:
        list(older.events(DEADLINE_SECONDS))
    assert lost.value.code == "replaced"
    assert newer.users() == ("alice",)


def test_message_in_a_room_is_deleted_once(moderated: Room, enter: Enter, fresh_name: Name) -> None:
    port, room = moderated.server.port, fresh_name("room")
    owner, bob = enter(port, fresh_name("owner")), enter(port, fresh_name("bob"))
    owner.join(room)
    bob.join(room)
    number = bob.say("oops", room)
    assert number is not None
    assert next_of(owner, PublicMessage).id == number
    bob.delete(number, room)
    assert next_of(owner, Deleted).room == room
    bob.delete(number, room)
    assert not [each for each in owner.events(0.0) if isinstance(each, Deleted)]


def test_bad_arguments_of_moderation_are_refused(moderated: Room, enter: Enter, fresh_name: Name) -> None:
    op: Any = enter(moderated.server.port, "op")
    for call, code in (
        (lambda: op.ban("no name"), "bad_username"),
        (lambda: op.ban("192.0.2.7/99"), "bad_request"),
        (lambda: op.mute("op", seconds=0), "bad_request"),
        (lambda: op.mute("op", seconds=10**12), "bad_request"),
        (lambda: op.kick(None, "op", "a\nb"), "bad_request"),
        (lambda: op.ban("op"), "not_permitted"),
        (lambda: op.delete(10**9), "unknown_message"),
        (lambda: op.ignore(fresh_name("nosuch")), "unknown_user"),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.code == code
    for wrong in (
        lambda: op.ban(7),
        lambda: op.delete("7"),
        lambda: op.report(None),
        lambda: op.mute("op", seconds=1.5),
    ):
        with pytest.raises(UsageError):
            wrong()
    frames = enter(moderated.server.port, fresh_name("bob"), "frames")
    with pytest.raises(RefusedError, match="Only the wire format json has moderation"):
        frames.delete(1)
