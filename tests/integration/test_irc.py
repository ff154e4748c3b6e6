"""IRC beside the other protocols: what its users see of messages and rooms of json, and the reverse.

That all of them see all messages in one order is in test_messages.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.irc import IrcPeer, dialogues, enter_irc, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Peer, Room

    Name = Callable[[str], str]


def enter_rooms(room: Room, name: str) -> Peer:
    """A user of json who gets the events of rooms."""
    peer = room.peer()
    peer.login(name, rooms=True, moderation=True)
    return peer


def test_long_text_and_several_lines_arrive_in_lines_of_irc(shared_room: Room, fresh_name: Name) -> None:
    """Cut at words, each at most 512 bytes without its tags; or as one message for a client with draft/multiline."""
    alice = shared_room.enter(fresh_name("alice"))
    plain = enter_irc(shared_room, fresh_name("plain"))
    multiline = enter_irc(shared_room, fresh_name("multi"), caps="batch message-tags draft/multiline")
    plain.sync()
    words = " ".join(f"word{number}" for number in range(300))
    text = f"{words}\n\nsecond line\n{'ä' * 400}"
    alice.say(text)

    lines = [parse(line).params[1] for line in plain.sync()]  # IrcPeer checks their lengths
    first, (second, *letters) = lines[:-3], lines[-3:]
    assert len(first) > 4
    assert "".join(first) == words
    assert all(line.endswith(" ") for line in first[:-1])
    assert second == "second line"
    assert "".join(letters) == "ä" * 400

    opening, *inner, closing = map(parse, multiline.sync())
    batch = opening.params[0][1:]
    assert (opening.command, opening.params[1:]) == ("BATCH", ["draft/multiline", "#lobby"])
    assert (closing.command, closing.params) == ("BATCH", [f"-{batch}"])
    assert {line.tags["batch"] for line in inner} == {batch}
    whole = "".join(("" if "draft/multiline-concat" in line.tags else "\n") + line.params[1] for line in inner)
    assert whole.removeprefix("\n") == text


def test_missed_lines_come_before_live_ones(shared_room: Room, fresh_name: Name) -> None:
    """A member of a room who comes back gets JOIN, the names, then what it missed, then new messages; also directs."""
    name, dev = fresh_name("alice"), fresh_name("dev")
    bob = enter_rooms(shared_room, fresh_name("bob"))
    bob.ask(command="join", room=dev)
    bob.next("joined")
    shared_room.enter(name).close()
    alice = shared_room.connect(IrcPeer)
    alice.register(name, account=name)
    alice.put(f"JOIN #{dev}")
    alice.sync()
    bob.say("seen", room=dev)
    alice.until("PRIVMSG")
    alice.put("QUIT")
    alice.rest()
    for number in range(3):
        bob.say(f"missed {number}", room=dev)
    bob.ask(command="DM", to=name, message="for you")
    assert bob.next("sent")["status"] == "stored"

    back = shared_room.connect(IrcPeer)
    lines = [parse(line) for line in back.register(name, account=name)]
    bob.say("live", room=dev)
    lines += [parse(line) for line in back.sync()]
    told = [line.params[-1] if line.command == "PRIVMSG" else line.command for line in lines]
    begin = told.index("JOIN")
    assert told[begin:] == ["JOIN", "353", "366", "missed 0", "missed 1", "missed 2", "for you", "live"]


# Commands about a private room, and their answers; those about a room that does not exist are the same.
_REFUSED = [
    ("NAMES ROOM", "366 $bob ROOM :*"),
    ("WHO ROOM", "315 $bob ROOM :*"),
    ("MODE ROOM", "403 $bob ROOM :*"),
    ("MODE ROOM b", "403 $bob ROOM :*"),
    ("TOPIC ROOM", "403 $bob ROOM :*"),
    ("TOPIC ROOM :mine", "403 $bob ROOM :*"),
    ("PART ROOM", "403 $bob ROOM :*"),
    ("KICK ROOM $alice", "403 $bob ROOM :*"),
    ("INVITE $bob ROOM", "403 $bob ROOM :*"),
    ("PRIVMSG ROOM :hello", "403 $bob ROOM :*"),
    ("CHATHISTORY LATEST ROOM * 5", "FAIL CHATHISTORY INVALID_TARGET LATEST ROOM *"),
]
_ASKED = "\n".join(
    f"bob > {command}\nbob < :$S {answer}\nbob .".replace("ROOM", room)
    for command, answer in _REFUSED
    for room in ("$room", "#nowhere")
)
HIDDEN = {
    "a private room is not seen": f"""
        alice : account
        alice > JOIN $room
        alice ..
        alice > MODE $room +i
        alice ..
        alice > PRIVMSG $room :secret
        alice ..
        bob :
        {_ASKED}
        bob > LIST $room
        bob < 321 ...
        bob < 323 ...
        bob > WHOIS $alice
        bob < 311 ...
        bob < 312 ...
        bob < 330 ...
        bob < 317 ...
        bob < 318 ...
        bob > JOIN $room
        bob < :$S 473 $bob $room :*
        bob .
        alice .
    """,
}
test_rooms_are_hidden = dialogues(HIDDEN)
