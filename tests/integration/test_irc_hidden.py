"""Private channels of irc: whatever a user asks about one, the answer is that for a channel that does not exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer
from integration.room import leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

# "$room" is the channel, "$owner" its operator, and "$me" the user. Only JOIN tells that a channel is closed: it would
# make one that does not exist.
QUESTIONS = [
    *("PART $room", "PART $room :x", "NAMES $room", "LIST", "LIST $room", "LIST *", "TOPIC $room", "TOPIC $room :x"),
    *("MODE $room", "MODE $room b", "MODE $room +b", "MODE $room +i", "MODE $room +o $owner", "MODE $room -v $me"),
    *(
        "MODE $room +b $owner",
        "MODE $room -b $owner!*@*",
        "MODE $room +kl x 3",
        "KICK $room $owner",
        "KICK $room nobody",
    ),
    *("INVITE $owner $room", "INVITE $me $room", "INVITE nobody $room", "INVITE"),
    *("PRIVMSG $room :x", "NOTICE $room :x", "PRIVMSG $room :\1PING 1\1", "@+typing=active TAGMSG $room"),
    *("WHO $room", "WHO $room %tcnfa,1", "WHO $owner", "WHO *", "WHOIS $owner", "WHOIS $room", "WHOWAS $room"),
    *("CHATHISTORY LATEST $room * 5", "CHATHISTORY AROUND $room msgid=1 5", "CHATHISTORY BEFORE $room msgid=99 5"),
    "CHATHISTORY TARGETS timestamp=2000-01-01T00:00:00.000Z timestamp=2100-01-01T00:00:00.000Z 50",
    *("MARKREAD $room", "MARKREAD $room timestamp=2026-01-01T00:00:00.000Z", "REDACT $room 1", "REDACT $room 2"),
    *("MONITOR + $room", "USERHOST $room", "ISON $room", "LUSERS"),
]
CAPABILITIES = "batch draft/chathistory draft/read-marker message-tags standard-replies"


@pytest.mark.parametrize("caps", ["", CAPABILITIES], ids=["plain", "ircv3"])
@pytest.mark.parametrize("kind", ["account", "guest"])
def test_private_channel_is_like_one_that_does_not_exist(
    shared_room: Room, fresh_name: Callable[[str], str], kind: str, caps: str
) -> None:
    """Promise: a private room can't be told from a missing one."""
    me, owner, private, missing = (fresh_name(name) for name in ("me", "owner", "hidden", "missing"))
    running = shared_room.connect(IrcPeer)
    running.register(owner)
    running.put(
        f"JOIN #{private}", f"MODE #{private} +ik sesame", f"TOPIC #{private} :hush", f"PRIVMSG #{private} :psst"
    )
    running.sync()
    if kind == "account":
        leave(shared_room.enter(me))
    peer = shared_room.connect(IrcPeer)
    peer.register(me, caps=caps, account=me if kind == "account" else "")

    def answers(question: str, room: str) -> list[str]:
        peer.put(question.replace("$room", f"#{room}").replace("$owner", owner).replace("$me", me))
        said = [line.replace(f"#{room}", "#").replace(f"'{room}'", "''") for line in peer.sync()]
        return [re.sub(r"BATCH ([+-])\w+", r"BATCH \1", line) for line in said]

    for question in QUESTIONS:
        assert answers(question, private) == answers(question, missing), question
    for key in ("", " sesame"):
        assert answers(f"JOIN $room{key}", private) == [f":chat.local 473 {me} # :Cannot join channel (+i)"]
