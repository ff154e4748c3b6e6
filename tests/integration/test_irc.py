"""IRC beside the other protocols: what its users see of messages and rooms of json, and the reverse.

That all of them see all messages in one order is in test_messages.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.irc import SERVER_NAME, IrcPeer, dialogues, enter_irc, parse

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


def test_guest_of_register_is_shown_as_a_guest(shared_room: Room, fresh_name: Name) -> None:
    """In JOIN (IRCv3, extended-join), WHO and WHOIS."""
    name = fresh_name("gus")
    irene = enter_irc(shared_room, fresh_name("irene"), caps="extended-join")
    shared_room.enter_guest(name)
    while (joined := irene.until("JOIN")).source.partition("!")[0] != name:
        pass
    assert joined.params == ["#lobby", "*", name]
    for command in (f"WHO {name} %na", "WHO #lobby %na"):
        irene.put(command)
        accounts = dict(parse(line).params[1:] for line in irene.sync() if parse(line).command == "354")
        assert accounts[name] == "0"
    irene.put(f"WHOIS {name}")
    assert "330" not in [parse(line).command for line in irene.sync()]


def test_many_lines_in_one_write_arrive_once_and_in_order(shared_room: Room, fresh_name: Name) -> None:
    """The server takes such a read as one request. The sender gets its echoes, also those of a later labelled line."""
    alice = enter_irc(shared_room, fresh_name("alice"), caps="echo-message batch labeled-response message-tags")
    bob, carol = enter_irc(shared_room, fresh_name("bob")), shared_room.enter(fresh_name("carol"))
    alice.sync()
    texts = [f"line {number}" for number in range(300)]
    alice.put(*(f"PRIVMSG #lobby :{text}" for text in texts))
    alice.put("@label=x PRIVMSG #lobby :last")
    texts.append("last")
    assert [bob.until("PRIVMSG").params[1] for _ in texts] == texts
    assert [carol.next("broadcast")["message"] for _ in texts] == texts
    echoes = [alice.until("PRIVMSG") for _ in texts]
    assert [echo.params[1] for echo in echoes] == texts
    assert [echo.tags.get("label") for echo in echoes] == [None] * 300 + ["x"]


def test_missed_lines_come_before_live_ones(shared_room: Room, fresh_name: Name) -> None:
    """A member of a room who comes back gets JOIN, the names, then what it missed, then new messages; also directs.

    In the lobby, whose messages a connection gets after JOIN, the same follows JOIN.
    """
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
    bob.say("missed in the lobby")
    bob.ask(command="DM", to=name, message="for you")
    assert bob.next("sent")["status"] == "stored"

    back = shared_room.connect(IrcPeer)
    lines = [parse(line) for line in back.register(name, account=name)]
    bob.say("live", room=dev)
    lines += [parse(line) for line in back.sync()]
    told = [line.params[-1] if line.command == "PRIVMSG" else line.command for line in lines]
    begin = told.index("JOIN")
    assert told[begin:] == ["JOIN", "353", "366", "missed 0", "missed 1", "missed 2", "for you", "live"]
    back.put("JOIN #lobby")
    lines = [parse(line) for line in back.sync()]
    assert [line.command for line in lines][:3] == ["JOIN", "353", "366"]
    missed = [line.params for line in lines[3:]]
    assert ["#lobby", "missed in the lobby"] in missed
    assert {room for room, _ in missed} == {"#lobby"}


@pytest.mark.parametrize("place", ["the server", "the room", "a moderated room"])
def test_silenced_user_gives_no_reason(moderated: Room, fresh_name: Name, place: str) -> None:
    """Whoever may not write in a room leaves it without a word, also by QUIT."""
    olga, op = enter_rooms(moderated, fresh_name("olga")), enter_rooms(moderated, "op")
    dev, name = fresh_name("dev"), fresh_name("gus")
    olga.ask(command="join", room=dev)
    olga.next("joined")
    irene, gus = (enter_irc(moderated, each) for each in (fresh_name("irene"), name))
    for peer in (irene, gus):
        peer.put(f"JOIN #{dev}")
        peer.sync()
    match place:
        case "the server":
            op.ask(command="mute", username=name)
            op.next("muted")
        case "the room":
            olga.ask(command="mute", username=name, room=dev)
            olga.next("muted")
        case _:
            olga.ask(command="modes", room=dev, moderated=True)
            olga.next("modes")
    gus.put(f"PART #{dev} :insults", f"JOIN #{dev}", "QUIT :insults")
    assert irene.until("PART") == ({}, f"{name}!{name}@{SERVER_NAME}", "PART", [f"#{dev}"])
    assert irene.until("QUIT") == ({}, f"{name}!{name}@{SERVER_NAME}", "QUIT", [])


MEMBERS = {
    "the members of a public room are shown to its members": """
        olga : json
        jane : json
        bob :
        olga > join room=$dev
        olga < joined room=$dev
        jane > users room=$dev
        jane < error code=not_a_member room=$dev
        bob > NAMES #$dev
        bob < 366 $bob #$dev :*
        bob > WHO #$dev
        bob < 315 $bob #$dev :*
        bob > LIST #$dev
        bob < 321 ...
        bob < 322 $bob #$dev 1 *
        bob < 323 ...
        bob > WHOIS $olga
        bob < 311 ...
        bob < 319 $bob $olga @#$dev
        bob ..
        bob > JOIN #$dev
        bob < :$bob!*@* JOIN #$dev
        bob < 353 $bob = #$dev :@$olga $bob
        bob < 366 ...
        bob > WHO #$dev
        bob < 352 $bob #$dev * * * $olga ...
        bob < 352 $bob #$dev * * * $bob ...
        bob < 315 ...
    """,
}
test_members_of_public_rooms = dialogues(MEMBERS)
BY_NAME = {
    "a guest is invited, muted, kicked and banned by name": """
        olga : json
        ian : account
        gus :
        olga > join room=$dev
        olga < joined room=$dev
        ian > JOIN #$dev
        ian ..
        olga > op room=$dev username=$ian
        olga < role username=$ian role=operator by=$olga
        ian < :$olga!*@* MODE #$dev +o $ian

        olga > invite room=$dev username=$gus
        olga < invited username=$gus by=$olga
        gus < :$olga!*@* INVITE $gus #$dev
        gus > JOIN #$dev
        gus < :$gus!*@* JOIN #$dev
        gus ..
        ian < :$gus!*@* JOIN #$dev
        olga > op room=$dev username=$gus
        olga < role username=$gus role=operator by=$olga
        gus < :$olga!*@* MODE #$dev +o $gus
        ian < :$olga!*@* MODE #$dev +o $gus
        ian > MODE #$dev -o+v $gus $gus
        ian < :$ian!*@* MODE #$dev -o $gus
        ian < :$ian!*@* MODE #$dev +v $gus
        gus < :$ian!*@* MODE #$dev -o $gus
        gus < :$ian!*@* MODE #$dev +v $gus
        olga < role username=$gus role=member by=$ian
        olga < role username=$gus role=voice by=$ian

        olga > mute room=$dev username=$gus
        olga < muted room=$dev username=$gus by=$olga
        gus < :$S NOTICE #$dev :$olga muted $gus*
        ian < :$S NOTICE #$dev :$olga muted $gus*
        gus > PRIVMSG #$dev :hello
        gus < :$S 404 $gus #$dev :*
        gus > NICK $nobody
        gus < :$S 447 $gus $nobody :*
        olga > unmute room=$dev username=$gus
        olga < unmuted room=$dev username=$gus by=$olga
        gus < :$S NOTICE #$dev *
        ian < :$S NOTICE #$dev *

        ian > KICK #$dev $gus :out
        ian < :$ian!*@* KICK #$dev $gus out
        gus < :$ian!*@* KICK #$dev $gus out
        olga < kicked room=$dev username=$gus by=$ian reason=out
        olga > op room=$dev username=$gus
        olga < error code=not_a_member
        ian > MODE #$dev +v $gus
        ian < :$S 441 $ian $gus #$dev :*

        ian > MODE #$dev +b $gus!*@*.local
        ian < :$ian!*@* MODE #$dev +b $gus!*@*
        gus .
        olga < banned room=$dev username=$gus by=$ian
        gus > JOIN #$dev
        gus < :$S 474 $gus #$dev :*banned*
        gus > QUIT
        gus < ERROR :*
        gus $
        ian > MODE #$dev b
        ian < :$S 367 $ian #$dev $gus!*@* ...
        ian < 368 ...
        ian > MODE #$dev -b $gus!*@*
        ian < :$ian!*@* MODE #$dev -b $gus!*@*
        olga < unbanned room=$dev username=$gus by=$ian
        gus : nick=$gus
        gus > JOIN #$dev
        gus < :$gus!*@* JOIN #$dev
        ian < :$gus!*@* JOIN #$dev
        olga > ban room=$dev username=$gus reason=noise
        olga < banned room=$dev username=$gus by=$olga reason=noise
        ian < :$olga!*@* KICK #$dev $gus noise
        ian < :$olga!*@* MODE #$dev +b $gus!*@*
        gus <+ :$olga!*@* KICK #$dev $gus noise
        gus .
        ian .
        olga .
    """,
}
test_guests_are_moderated_by_name = dialogues(BY_NAME)
BY_OPERATORS = {
    "a guest is banned by name from the server, as its address": """
        op : json as=op
        ron : as=op
        ron > JOIN #lobby
        ron ..
        gus : at=127.0.0.80
        gus > JOIN #lobby
        gus ..
        ron < :$gus!*@* JOIN #lobby
        op > ban username=$gus reason=spam
        op < banned address=127.0.0.80 by=op reason=spam
        gus <<<
        gus & ERROR :*you are banned: spam*
        ron < :op!*@* MODE #lobby +b *!*@127.0.0.80
        ron < :$gus!*@* QUIT :*
        other : raw at=127.0.0.80
        other > NICK $other
        other > USER other 0 * :Other
        other < :$S 465 $other :*spam*
        other < ERROR :*
        other $
        ron > MODE #lobby -b *!*@127.0.0.80
        ron < :op!*@* MODE #lobby -b *!*@127.0.0.80
        op < unbanned address=127.0.0.80 by=op

        gus : nick=$gus at=127.0.0.80
        ron < :$gus!*@* JOIN #lobby
        ron > MODE #lobby +b $gus!*@*
        ron < :op!*@* MODE #lobby +b *!*@127.0.0.80
        op < banned address=127.0.0.80 by=op
        gus <<<
        gus & ERROR :*banned*
        ron < :$gus!*@* QUIT :*
        ron > MODE #lobby b
        ron < :$S 367 op #lobby *!*@127.0.0.80 op *
        ron < 368 ...
        ron > MODE #lobby -b *!*@127.0.0.80
        ron < :op!*@* MODE #lobby -b *!*@127.0.0.80
        op < unbanned address=127.0.0.80 by=op
    """,
    "an account is banned from the server": """
        ann : account
        op : json as=op
        ron : as=op
        ron > JOIN #lobby
        ron ..
        ron > MODE #lobby +b $ann!*@$S
        ron < :op!*@* MODE #lobby +b $ann!*@*
        op < banned username=$ann by=op
        ann <<<
        ann & ERROR :*banned*
        again : raw
        again > PASS $ann:secret
        again > NICK $ann
        again > USER again 0 * :Again
        again <+ 465 * :*banned*
        again < ERROR :*
        again $
        ron < :$ann!*@* QUIT :*
        ron > MODE #lobby -b $ann
        ron < :op!*@* MODE #lobby -b $ann!*@*
        op < unbanned username=$ann by=op
    """,
    "bans from the server that are refused": """
        ann : account
        ron : as=op
        ron > MODE #lobby +b *!*@*
        ron < :$S 696 op #lobby b *!*@* :*
        ron > MODE #lobby +b *!*@0.0.0.0/0
        ron < :$S 400 op MODE :*too large*
        ron > MODE #lobby +b *!*@127.0.0.1
        ron < :$S 482 op #lobby :*
        ron > MODE #lobby +b $nobody
        ron < :$S 401 op $nobody :*
        ron > MODE #lobby -b $ann
        ron < :$S 400 op MODE :*no such ban*
        ann > MODE #lobby +b op!*@*
        ann < :$S 482 $ann #lobby :*
        ann > MODE #lobby +b *!*@192.0.2.1
        ann < :$S 482 $ann #lobby :*
        ann > MODE #lobby b
        ann < :$S 368 $ann #lobby :*
    """,
}
test_users_are_banned_from_the_server = dialogues(BY_OPERATORS, room="moderated")
