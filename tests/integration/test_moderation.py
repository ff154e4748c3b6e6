"""Moderation from outside: what the target, the others and the operators get, in each protocol."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import NOT_REGISTERED, NOT_SENT, Guest, Peer, Room, appoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.config import Config

    Name = Callable[[str], str]
    OpenRoom = Callable[..., Room]

# Addresses that look like other hosts.
_HOSTS = (f"127.0.0.{number}" for number in itertools.count(20))


@pytest.fixture
def op(moderated: Room) -> Peer:
    peer = moderated.peer()
    assert peer.login("op", moderation=True, rooms=True)["operator"] is True
    return peer


def answer(peer: Peer, *types: str, **request: Any) -> dict[str, Any]:
    """The next object of these types, or error."""
    peer.ask(**request)
    found = peer.next(*types, "error")
    found.pop("time", None)
    return found


def code(peer: Peer, **request: Any) -> str:
    """The code of the error that answers the request."""
    found = answer(peer, **request)
    assert found["message"]
    return str(found["code"])


def aware(room: Room, name: str, **members: Any) -> Peer:
    return room.enter(name, moderation=True, **members)


def events(peer: Peer) -> list[dict[str, Any]]:
    """The objects that arrived before a fence, without presence."""
    return [each for each in peer.until_fence() if each["type"] != "users"]


def test_ban_ends_the_connections_and_refuses_logins_in_every_protocol(
    moderated: Room, op: Peer, fresh_name: Name
) -> None:
    """Each connection gets the reason in its own way. A wrong password gets the answer that it always gets."""
    bob, carol = fresh_name("bob"), aware(moderated, fresh_name("carol"))
    new, old, frames, datagram = (
        aware(moderated, bob), moderated.enter(bob), moderated.enter_frames(bob), moderated.enter_datagram(bob),
    )  # fmt: skip
    banned = answer(op, "banned", command="ban", username=bob.upper(), seconds=3600, reason="spam")
    until = banned.pop("until")
    assert banned == {"type": "banned", "username": bob, "by": "op", "reason": "spam"}
    assert new.next("banned") == {**banned, "until": until}
    for peer in (new, old):
        assert peer.next("bye")["reason"].startswith("you are banned until 20")
        assert peer.is_closed()
    for steps in (frames, datagram):
        *_, last = steps.rest()
        assert last.startswith("C BYE banned: you are banned until 20"), last
        assert last.endswith(": spam")
    again = moderated.peer()
    assert code(again, command="login", username=bob, password="wrong") == "wrong_password"
    refused = answer(again, "login", command="login", username=bob, password="secret")
    assert (refused["code"], refused["message"].endswith("UTC: spam.")) == ("banned", True)
    steps = moderated.frames_peer()
    steps.command(bob)
    steps.next_command()
    steps.command("secret")
    assert steps.next_command().startswith("ERROR banned You are banned until 20")
    assert events(carol) == [], "the ban is not about her"
    assert answer(op, "unbanned", command="unban", username=bob) == {"type": "unbanned", "username": bob, "by": "op"}
    assert code(op, command="unban", username=bob) == "bad_request"
    moderated.enter(bob)


def test_ban_of_a_guest_or_a_network_ends_what_comes_from_there(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """A guest is banned by its address. No password is checked for a banned network."""
    host, other = next(_HOSTS), next(_HOSTS)
    erin, frank = fresh_name("erin"), fresh_name("frank")
    guest, stays = moderated.enter_guest(erin, host), moderated.enter_guest(frank, other)
    user, datagram = Peer(moderated.server.port, host), moderated.datagram_peer(host)
    user.login(fresh_name("bob"))
    datagram.login(fresh_name("carol"))
    assert answer(op, "banned", command="ban", username=erin) == {"type": "banned", "address": host, "by": "op"}
    assert guest.is_over()
    assert user.next("bye")["reason"] == "you are banned"
    assert datagram.rest()[-1] == "C BYE banned: you are banned"
    refused = Guest(moderated.server.port, erin, host)
    assert refused.sending.register("TOSEND", erin) == NOT_REGISTERED
    refused.close()
    late = Peer(moderated.server.port, host)
    for name in ("op", fresh_name("new")):
        assert code(late, command="login", username=name, password="wrong") == "banned"
    for peer in (user, late):
        peer.close()
    op.ask(command="DM", to=frank, message="still there?")
    assert stays.take() == ("op", "still there?")
    for text in ("127.0.0.0/8", "127.0.0.1"):
        assert code(op, command="ban", address=text) == "not_permitted", "the operator's own"
    near = fresh_name("gina")
    moderated.enter_guest(near)
    assert code(op, command="ban", username=near) == "not_permitted", "the guest has the operator's address"
    for text in ("192.0.2.0/99", "0.0.0.0/1", "::/15"):  # the last two are too large
        assert code(op, command="ban", address=text) == "bad_request"
    assert answer(op, "unbanned", command="unban", address=host)["address"] == host
    moderated.enter_guest(erin, host)


def test_kick_ends_connections_once(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """The user may come again."""
    bob, erin = fresh_name("bob"), fresh_name("erin")
    peer, guest = moderated.enter(bob), moderated.enter_guest(erin, next(_HOSTS))
    kicked = answer(op, "kicked", command="kick", username=bob, reason="calm down")
    assert kicked == {"type": "kicked", "username": bob, "by": "op", "reason": "calm down"}
    assert peer.next("bye")["reason"] == "op ended your connections: calm down"
    assert answer(op, "kicked", command="kick", username=erin)["username"] == erin
    assert guest.is_over()
    moderated.enter(bob)


def test_muted_user_gets_the_sentence_in_its_protocol(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """Public and direct messages are refused; no other user sees them."""
    bob, erin, carol = fresh_name("bob"), fresh_name("erin"), moderated.enter(fresh_name("carol"))
    json, frames, guest = (
        aware(moderated, bob),
        moderated.enter_frames(bob),
        moderated.enter_guest(erin, next(_HOSTS)),
    )
    for name in (bob, erin):
        answer(op, "muted", command="mute", username=name, reason="shouting")
    assert json.next("muted")["reason"] == "shouting"
    json.ask(command="PM", message="a", nonce="n1")
    assert {**json.next("error"), "type": ""} == {
        "type": "", "code": "muted", "message": "You are muted: shouting.", "nonce": "n1",
    }  # fmt: skip
    assert code(json, command="DM", to="op", message="b") == "muted"
    frames.command("PM")
    assert frames.next_command() == "READY"
    frames.data("c")
    assert frames.next_command() == "ERROR muted You are muted: shouting."
    assert guest.say("ALL", "d") == NOT_SENT
    assert events(carol) == []
    answer(op, "unmuted", command="unmute", username=bob)
    json.say("e", nonce="n1")
    assert carol.next("broadcast")["message"] == "e"
    answer(op, "unmuted", command="unmute", username=erin)


def test_owner_moderates_a_room_and_an_operator_of_the_server_every_room(
    moderated: Room, op: Peer, fresh_name: Name
) -> None:
    """A banned member is removed and can't come back. Others can't tell a private room from none."""
    alice, bob, mallory = (aware(moderated, fresh_name(name), rooms=True) for name in ("alice", "bob", "mallory"))
    dev = fresh_name("dev")
    answer(alice, "joined", command="join", room=dev)
    answer(bob, "joined", command="join", room=dev)
    bob.ask(command="PM", room=dev, message="rude")
    rude = bob.next("sent")["id"]
    bobs = alice.next("broadcast")["from"]
    assert code(mallory, command="delete", id=rude, room=dev) == "not_a_member"
    assert code(bob, command="mute", room=dev, username=bobs) == "not_permitted"
    deleted = answer(alice, "deleted", command="delete", id=rude, room=dev)
    assert deleted["room"] == dev, "the owner deletes a message of another one"
    assert bob.next("deleted") == deleted
    muted = answer(alice, "muted", command="mute", room=dev, username=bobs, seconds=60)
    assert bob.next("muted") == muted
    assert code(bob, command="PM", room=dev, message="x") == "muted"
    bob.say("elsewhere")
    banned = answer(alice, "banned", command="ban", room=dev, username=bobs, reason="rude")
    assert bob.next("parted") == {"type": "parted", "room": dev, "by": banned["by"], "reason": "rude"}
    assert bob.next("banned") == banned
    assert op.next("banned") == banned
    assert code(bob, command="join", room=dev) == "banned"
    assert [each["kind"] for each in answer(alice, "bans", command="bans", room=dev)["bans"]] == ["mute", "ban"]
    assert code(bob, command="bans", room=dev) == "not_a_member"
    private = fresh_name("plans")
    answer(alice, "joined", command="join", room=private, private=True)
    for request in ({"command": "ban", "username": bobs}, {"command": "bans"}, {"command": "delete", "id": 1}):
        assert code(mallory, room=private, **request) == "unknown_room"
        assert code(mallory, room=fresh_name("none"), **request) == "unknown_room"
    name = mallory.say("elsewhere, too") and alice.next("broadcast")["from"]
    events(mallory)
    for act in ("ban", "unban", "mute"):
        answer(alice, "banned", "unbanned", "muted", command=act, room=private, username=name)
    assert events(mallory) == [], "the target may not know of the room"
    topic = answer(op, "topic", command="topic", room=private, topic="hello")
    assert alice.next("topic") == topic, "an operator of the server runs every room"
    assert answer(op, "kicked", command="kick", room=private, username=banned["by"])["room"] == private
    assert alice.next("parted")["by"] == "op"


def test_acts_that_make_no_sense_are_refused(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """Also those against oneself. A reason has no control characters."""
    carol = fresh_name("carol")
    moderated.enter(carol)
    for request in ({"command": "ban", "username": "op"}, {"command": "kick", "username": "op"}):
        assert code(op, **request) == "not_permitted", "nobody against himself"
    for seconds in (0, 10_000 * 365 * 86_400, 1.5):
        assert code(op, command="ban", username=carol, seconds=seconds) == "bad_request"
    assert code(op, command="ban", username=fresh_name("nobody")) == "unknown_user"
    assert code(op, command="ban", username=carol, reason="a\nb") == "bad_request"
    assert code(op, command="ban", username=carol, address="192.0.2.1") == "bad_request"


def test_report_reaches_the_operators_and_the_audit_has_every_act(moderated: Room, op: Peer, fresh_name: Name) -> None:
    bob, name = aware(moderated, fresh_name("bob")), fresh_name("carol")
    carol = moderated.enter(name)
    number = carol.say("rude")["id"]
    reported = answer(bob, "reported", command="report", id=number, reason="rude")
    assert op.next("reported") == reported
    assert answer(bob, "reported", command="report", username=name)["username"] == name
    carol.ask(command="DM", to=name, message="to myself")
    secret = carol.next("sent")["id"]
    assert code(bob, command="report", id=secret) == code(bob, command="report", id=10**12) == "unknown_message"
    answer(op, "deleted", command="delete", id=number)
    acts = answer(op, "audit", command="audit", limit=3)["acts"]
    assert [(each["action"], each["target"], each["by"], each.get("reason")) for each in acts] == [
        ("report", str(number), reported["by"], "rude"), ("report", name, reported["by"], None),
        ("delete", str(number), "op", None),
    ]  # fmt: skip
    before = answer(op, "audit", command="audit", limit=1, before=acts[1]["number"])["acts"]
    assert before == acts[:1]


def test_ignored_user_does_not_learn_it(moderated: Room, fresh_name: Name) -> None:
    """The direct messages of an ignored user are confirmed as ever, and come neither live nor later.

    An invitation is answered as ever, and the user finds it only among the rooms.
    """
    name, bob = fresh_name("alice"), aware(moderated, fresh_name("bob"))
    alice = aware(moderated, name, rooms=True)
    bob.ask(command="DM", to=name, message="before")
    bobs = alice.next("direct")["from"]
    bob.next("sent")
    assert answer(alice, "ignored", command="ignore", username=bobs) == {"type": "ignored", "users": [bobs]}
    bob.ask(command="DM", to=name, message="one")
    assert bob.next("sent")["status"] == "sent"
    room = fresh_name("room")
    bob.ask(command="join", room=room)
    assert answer(bob, "invited", command="invite", room=room, username=name)["username"] == name
    bob.say("public")
    assert [each["message"] for each in events(alice)] == ["public"]
    alice.close()
    alice = aware(moderated, name, since=0)
    assert "one" not in [each.get("message") for each in events(alice)]
    found = [each["message"] for each in answer(alice, "history", command="CH", limit=500)["messages"]]
    assert "public" in found
    assert not {"before", "one"} & set(found)
    assert code(alice, command="ignore", username=name) == "not_permitted"
    assert answer(alice, "ignored", command="unignore", username=bobs)["users"] == []
    bob.ask(command="DM", to=name, message="two")
    assert alice.next("direct")["message"] == "two"
    assert "one" in [each["message"] for each in answer(alice, "history", command="CH", limit=500)["messages"]]


def test_reason_of_a_deletion_is_told_like_a_message(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """Not to a user who ignores its author, and not that of a muted user. The audit table has it."""
    name, other = fresh_name("bob"), fresh_name("alice")
    alice, bob = aware(moderated, other), aware(moderated, name)
    first, second = (bob.say(text)["id"] for text in ("one", "two"))
    bob.ask(command="DM", to=other, message="three")
    third = bob.next("sent")["id"]
    alice.ask(command="ignore", username=name)
    alice.next("ignored")
    told = {"type": "deleted", "id": first, "by": name, "reason": "a typo"}
    assert answer(bob, "deleted", command="delete", id=first, reason="a typo") == told
    assert alice.next("deleted") == told
    assert answer(bob, "deleted", command="delete", id=third, reason="a typo")["reason"] == "a typo"
    assert alice.next("deleted") == {"type": "deleted", "id": third, "by": name}
    assert answer(op, "audit", command="audit", limit=1)["acts"][0]["reason"] == "a typo"
    answer(op, "muted", command="mute", username=name)
    assert "reason" not in answer(bob, "deleted", command="delete", id=second, reason="a typo")
    assert code(bob, command="delete", id=first, reason="x" * 1_000) == "too_long"


def test_muted_owner_gives_no_reason(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """The members of the room read those of its acts, like messages."""
    name, other, room = fresh_name("alice"), fresh_name("bob"), fresh_name("dev")
    alice, bob = aware(moderated, name), aware(moderated, other)
    for peer in (alice, bob):
        answer(peer, "joined", command="join", room=room)
    answer(op, "muted", command="mute", username=name)
    target: dict[str, Any] = {"username": other, "room": room, "reason": "insults"}
    for command, event in (("kick", "kicked"), ("ban", "banned")):
        assert "reason" not in answer(alice, event, command=command, **target)
    assert code(alice, command="ban", **target | {"reason": "x" * 1_000}) == "too_long"
    answer(op, "unmuted", command="unmute", username=name)
    assert answer(alice, "banned", command="ban", **target)["reason"] == "insults"


def test_deleted_message_is_gone_and_its_nonce_and_id_stay(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """It is in no history, search, or since; those who know moderation are told, then or after their login."""
    name, word = fresh_name("bob"), fresh_name("xyzzy")
    bob, new, old = (
        aware(moderated, name),
        aware(moderated, fresh_name("carol")),
        moderated.enter(fresh_name("dave")),
    )
    first = bob.say(f"{word} one", nonce="n1")["id"]
    second = bob.say(f"{word} two")["id"]
    frames = moderated.enter_frames(fresh_name("erin"))
    assert answer(new, "found", command="search", words=word)["messages"] != []
    assert code(new, command="delete", id=first) == "not_permitted"
    assert answer(bob, "deleted", command="delete", id=first) == {"type": "deleted", "id": first, "by": name}
    assert new.next("deleted") == {"type": "deleted", "id": first, "by": name}
    assert "deleted" not in [each["type"] for each in events(old)]
    assert answer(bob, "deleted", command="delete", id=first)["id"] == first
    assert first in [each.get("id") for each in events(op)]
    assert answer(op, "deleted", command="delete", id=second)["by"] == "op"
    assert not {first, second} & {each["id"] for each in answer(new, "history", command="CH", limit=500)["messages"]}
    assert answer(new, "found", command="search", words=word)["messages"] == []
    assert not [each for each in frames.history("CH 500") if word in each[-1] or not each[-1]]
    assert bob.say("again", nonce="n1")["id"] == first
    late = moderated.peer()
    login = late.login(fresh_name("frank"), since=first, moderation=True)
    assert login["last_id"] >= second
    found = events(late)
    assert second not in [each["id"] for each in found if each["type"] == "broadcast"]
    assert [each["id"] for each in found if each["type"] == "deleted"][-1:] == [first]
    assert [
        each for each in events(moderated.enter(fresh_name("gina"), since=first)) if each["type"] == "deleted"
    ] == []


def test_direct_message_is_deleted_by_its_sender_only(moderated: Room, op: Peer, fresh_name: Name) -> None:
    """Both of its users are told. It no longer waits for a recipient who was offline."""
    bob, name = aware(moderated, fresh_name("bob")), fresh_name("carol")
    carol = aware(moderated, name)
    bob.ask(command="DM", to=name, message="one")
    first = bob.next("sent")["id"]
    assert code(carol, command="delete", id=first) == "not_permitted"
    assert code(op, command="delete", id=first) == "unknown_message"
    answer(bob, "deleted", command="delete", id=first)
    assert carol.next("deleted")["id"] == first
    carol.ask(command="EX")
    assert carol.is_closed()
    bob.ask(command="DM", to=name, message="two")
    answer(bob, "deleted", command="delete", id=bob.next("sent")["id"])
    assert [each for each in events(moderated.enter(name)) if each["type"] == "direct"] == []


def test_restart_keeps_sanctions_deletions_roles_and_ignored_users(config: Config, open_room: OpenRoom) -> None:
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")
    room.enter("carol")
    number = bob.say("xyzzy")["id"]
    room.close()
    appoint(config, "alice")
    room = open_room()
    alice, bob = aware(room, "alice"), room.enter("bob")
    answer(alice, "ignored", command="ignore", username="carol")
    answer(alice, "muted", command="mute", username="bob")
    answer(alice, "banned", command="ban", username="carol", reason="spam")
    answer(alice, "banned", command="ban", address="192.0.2.0/24", seconds=60)
    answer(alice, "deleted", command="delete", id=number)
    room.close()
    room = open_room()
    alice, bob = aware(room, "alice"), room.enter("bob")
    assert code(bob, command="PM", message="x") == "muted"
    assert code(room.peer(), command="login", username="carol", password="secret") == "banned"
    bans = answer(alice, "bans", command="bans")["bans"]
    assert [(each["kind"], each.get("username"), each.get("address")) for each in bans] == [
        ("mute", "bob", None), ("ban", "carol", None), ("ban", None, "192.0.2.0/24"),
    ]  # fmt: skip
    assert answer(alice, "ignored", command="ignored")["users"] == ["carol"]
    assert answer(alice, "found", command="search", words="xyzzy")["messages"] == []
    assert [each["action"] for each in answer(alice, "audit", command="audit")["acts"]] == [
        "mute", "ban", "ban", "delete",
    ]  # fmt: skip
