"""Permissions from outside: each role tries each act of another role, in each wire format.

The effects of permitted acts are in test_moderation and test_rooms; all pairs of roles in unit/server/test_moderation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from integration.room import MALFORMED, NOT_REGISTERED, NOT_SENT, Peer, Room

from chatserver.admin.requests import Operator
from chatserver.admin.target import open_target

if TYPE_CHECKING:
    from collections.abc import Callable

    Name = Callable[[str], str]

# Requests, and the answer to a user who has no role for them. {bob} is another user, and {plans} his private room.
# {said}, {whispered} and {planned} are his messages: to all, to himself, and in the room.
ACTS: list[tuple[dict[str, Any], str]] = [
    ({"command": "kick", "username": "{bob}"}, "not_permitted"),
    ({"command": "ban", "username": "{bob}"}, "not_permitted"),
    ({"command": "ban", "username": "{bob}", "room": "lobby"}, "not_permitted"),
    ({"command": "ban", "address": "192.0.2.1"}, "not_permitted"),
    ({"command": "unban", "username": "{banned}"}, "not_permitted"),
    ({"command": "mute", "username": "{bob}"}, "not_permitted"),
    ({"command": "unmute", "username": "{muted}"}, "not_permitted"),
    ({"command": "bans"}, "not_permitted"),
    ({"command": "audit"}, "not_permitted"),
    ({"command": "delete", "id": "{said}"}, "not_permitted"),
    ({"command": "delete", "id": "{whispered}"}, "unknown_message"),
    ({"command": "delete", "id": "{planned}"}, "unknown_message"),
    ({"command": "report", "id": "{whispered}"}, "unknown_message"),
    ({"command": "report", "id": "{planned}"}, "unknown_message"),
    *(
        ({"command": command, "room": "{plans}", **members}, "unknown_room")
        for command, members in (
            *((each, {"username": "{bob}"}) for each in ("kick", "ban", "unban", "mute", "unmute", "op", "deop")),
            *((each, {"id": "{planned}"}) for each in ("delete", "report")),
            *((each, {}) for each in ("bans", "CH", "users", "part")),
            *(("PM", {"message": "x"}), ("search", {"words": "secret"}), ("topic", {"topic": "x"})),
            ("invite", {"username": "{me}"}),
        )
    ),
    ({"command": "change_password", "old": "wrong", "new": "x"}, "wrong_password"),
]


class Scene:
    """Users in all roles, and what they have said."""

    def __init__(self, room: Room, fresh_name: Name) -> None:
        self.room = room
        self.op = room.peer()
        self.op.login("op", moderation=True, rooms=True)
        self.names: dict[str, Any] = {name: fresh_name(name) for name in ("bob", "muted", "banned", "plans", "me")}
        bob = self.enter("bob")
        bob.ask(command="join", room=self.names["plans"], private=True)
        bob.next("joined")
        for key, members in (
            ("said", {"command": "PM"}),
            ("whispered", {"command": "DM", "to": self.names["bob"]}),
            ("planned", {"command": "PM", "room": self.names["plans"]}),
        ):
            bob.ask(message="a secret", **members)
            self.names[key] = bob.next("sent")["id"]
        for name, command in (("muted", "mute"), ("banned", "ban")):
            self.enter(name)
            self.op.ask(command=command, username=self.names[name])
            self.op.next("muted", "banned")
        self.acts = self.audit()

    def enter(self, name: str) -> Peer:
        peer = self.room.peer()
        peer.login(self.names[name])
        return peer

    def audit(self) -> Any:
        self.op.ask(command="audit", limit=20)
        return self.op.next("audit")["acts"]

    def request(self, members: dict[str, Any]) -> dict[str, Any]:
        """The request with the names and ids of this scene."""
        return {key: self.names.get(str(value).strip("{}"), value) for key, value in members.items()}


@pytest.fixture
def scene(moderated: Room, fresh_name: Name) -> Scene:
    return Scene(moderated, fresh_name)


def stranger(scene: Scene) -> Peer:
    return scene.room.peer()


def user(scene: Scene) -> Peer:
    return scene.enter("me")


def muted(scene: Scene) -> Peer:
    return scene.enter("muted")


def owner_of_another_room(scene: Scene) -> Peer:
    peer = scene.enter("me")
    peer.ask(command="join", room=scene.names["me"])
    peer.next("joined")
    return peer


def removed_member(scene: Scene) -> Peer:
    """Has seen the room, and is no longer in it."""
    scene.op.ask(command="invite", room=scene.names["plans"], username=scene.names["muted"])
    scene.op.next("invited")
    peer = scene.enter("muted")
    peer.ask(command="join", room=scene.names["plans"])
    peer.next("joined")
    scene.op.ask(command="kick", room=scene.names["plans"], username=scene.names["muted"])
    peer.next("parted")
    scene.acts = scene.audit()
    return peer


def former_operator(scene: Scene) -> Peer:
    """Was an operator of the server during this connection."""
    peer = scene.enter("me")
    with open_target(scene.room.config.data) as ask:
        for is_operator in (True, False):
            assert not ask(Operator(scene.names["me"], is_operator)).error
    scene.acts = scene.audit()
    return peer


@pytest.mark.parametrize(
    "role",
    [stranger, user, muted, owner_of_another_room, removed_member, former_operator],
    ids=lambda each: each.__name__,
)
def test_role_is_refused_what_it_has_no_right_to(scene: Scene, role: Callable[[Scene], Peer]) -> None:
    """In json, which has all requests. Nothing changes, and no answer tells of a private room."""
    peer = role(scene)
    for members, code in ACTS:
        peer.ask(**scene.request(members))
        answer = peer.next(
            "error", "history", "found", "deleted", "reported", "banned", "kicked", "bans", "audit", "sent"
        )
        expected = {"not_logged_in"} if role is stranger else {code} | ({"muted"} if role is muted else set())
        assert answer.get("code") in expected, (members, answer)
        assert "secret" not in str(answer)
    assert scene.audit() == scene.acts
    scene.op.ask(command="CH", room=None, limit=20)
    assert scene.names["said"] in [each["id"] for each in scene.op.next("history")["messages"]]


@pytest.mark.parametrize("protocol", ["frames", "datagram", "register"])
def test_other_wire_formats_have_no_words_for_it(scene: Scene, protocol: str) -> None:
    room, me = scene.room, scene.names["me"]
    words = [f"{members['command']} {members.get('username', 'x')}" for members, _ in ACTS if "message" not in members]
    texts = [scene.request({"text": f"{{{word}}}"})["text"].strip("{}") for word in words if not word.startswith("CH")]
    if protocol == "register":
        stranger, inside = room.register_peer(), room.enter_guest(me).sending
        assert stranger.register("TOSEND", "no name") == MALFORMED
        for text in texts:
            for peer, answer in ((stranger, NOT_REGISTERED), (inside, NOT_SENT)):
                peer.send(f"{text.upper()}\n\n".encode())
                assert peer.section() == answer
    else:
        outside = room.frames_peer() if protocol == "frames" else room.datagram_peer()
        outside.command(texts[0])
        assert outside.next_command().startswith("ERROR ")
        member = room.enter_frames(me) if protocol == "frames" else room.enter_datagram(me)
        for text in texts:
            member.command(text.upper())
            assert member.next_command().startswith("ERROR "), text
    assert scene.audit() == scene.acts


def test_banned_user_gets_in_by_no_spelling_and_no_wire_format(scene: Scene) -> None:
    room, name = scene.room, scene.names["banned"]
    for spelling in (name, name.upper()):
        peer = room.peer()
        peer.ask(command="login", username=spelling, password="secret", since=0, rooms=True, new_password="other")
        assert peer.next("login", "error").get("code") == "banned"
        for steps in (room.frames_peer(), room.datagram_peer()):
            steps.command(spelling)
            steps.next_command()
            steps.command("secret")
            assert steps.next_command().startswith("ERROR banned ")
        guest = room.register_peer()
        assert guest.register("TOSEND", spelling).startswith(b"ERROR 100 ")
