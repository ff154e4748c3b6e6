"""Labels of irc (IRCv3, labeled-response): every command, right or wrong, has one answer, which has the label."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer, parse
from integration.room import leave

if TYPE_CHECKING:
    from integration.room import Room

CAPABILITIES = (
    "batch draft/chathistory draft/message-redaction draft/multiline draft/read-marker echo-message extended-join"
    " labeled-response message-tags server-time setname standard-replies"
)
# The user is in #dev, and runs it; bob is in it; there is no #none, and no nobody.
COMMANDS = """
ADMIN | INFO | HELP | HELP x | LINKS | LUSERS | MOTD | MOTD x | TIME | TIME x | VERSION | VERSION x | AWAY
AWAY :x | SETNAME | SETNAME :x y | MODE $me | MODE $me +B | MODE $me +xi | MODE bob | USERHOST bob | BATCH
BATCH +a | BATCH -a | CAP | CAP LS | CAP LIST | CAP REQ :away-notify | CAP REQ :x | CAP END | CHATHISTORY
CHATHISTORY X | CHATHISTORY LATEST #dev * 5 | CHATHISTORY LATEST #none * 5
CHATHISTORY TARGETS timestamp=2020-01-01T00:00:00.000Z timestamp=2100-01-01T00:00:00.000Z 5 | JOIN | JOIN #
JOIN #dev | JOIN #one | JOIN #two,#three | JOIN #lobby | PART #one | PART #two,#none | JOIN #dev | NAMES
NAMES #dev | NAMES #dev,#none | LIST | LIST #dev | LIST >1 | WHO * | WHO #none | WHO bob | WHO #dev %tcn,1
WHOIS | WHOIS bob | WHOIS bob,nobody | WHOWAS nobody | WHOWAS | ISON bob nobody | TOPIC #dev | TOPIC #dev :x
TOPIC #dev :x | TOPIC #dev : | TOPIC #lobby :x | TOPIC #none | TOPIC | MODE #dev | MODE #dev b | MODE #dev +k x
MODE #dev -k | MODE #dev +mit-n | MODE #dev +l 9 | MODE #dev -mil | MODE #dev +v bob | MODE #dev +o bob
MODE #dev -o bob | MODE #dev +v nobody | MODE #dev +xy | MODE #lobby +i | MODE #dev +b nobody | MODE #dev -b bob
MODE #none +i | INVITE | INVITE bob #dev | INVITE nobody #dev | PRIVMSG | PRIVMSG #dev | PRIVMSG #dev :x
PRIVMSG bob :x | PRIVMSG nobody :x | PRIVMSG #dev,bob,#none :x | PRIVMSG #dev :\1PING 1\1
PRIVMSG bob :\1VERSION\1 | PRIVMSG #dev :\1ACTION waves\1 | PRIVMSG #none,nobody :x | NOTICE | NOTICE #dev :x
NOTICE nobody :x | @+typing=active TAGMSG #dev | TAGMSG #dev | TAGMSG | MARKREAD | MARKREAD #dev
MARKREAD #none | MARKREAD bob timestamp=2026-01-01T00:00:00.000Z | REDACT | REDACT #dev 1 | REDACT #dev x
REDACT #none 1 | MONITOR | MONITOR + bob,x | MONITOR L | MONITOR S | MONITOR - x | MONITOR C | KICK
KICK #dev nobody | KICK #dev bob,nobody :x | KICK #none bob | KILL bob | NICK | NICK ! | NICK bob | OPER
OPER a b | PASS x | USER a 0 * x | AUTHENTICATE | AUTHENTICATE PLAIN | PING | PING x | PONG x | ERROR x
NONSENSE | 123 | STATS | USERS | WALLOPS x | JOIN 0
"""


@pytest.mark.parametrize("kind", ["account", "guest"])
def test_every_command_has_one_answer_with_its_label(room: Room, kind: str) -> None:
    """Promise: a labelled command is answered exactly once."""
    if kind == "account":
        leave(room.enter("alice"))
    peer, bob = room.connect(IrcPeer), room.connect(IrcPeer)
    peer.register("alice", caps=CAPABILITIES, account="alice" if kind == "account" else "")
    bob.register("bob")
    peer.put("JOIN #dev")
    peer.sync()
    bob.put("JOIN #dev")
    bob.sync()
    peer.sync()
    for number, command in enumerate(re.split(r" \| |\n", COMMANDS.strip())):
        tags, _, line = command.rpartition("@")[2].partition(" ") if command.startswith("@") else ("", "", command)
        peer.put(f"@label=x{number}{';' if tags else ''}{tags} {line}".replace("$me", "alice"))
        said = peer.sync()
        labelled = [each for each in said if parse(each).tags.get("label") == f"x{number}"]
        others = [each for each in said if each not in labelled and "batch" not in parse(each).tags]
        assert len(labelled) == 1, (command, said)
        assert [parse(each).command for each in others] == ["BATCH"] * (parse(labelled[0]).command == "BATCH"), command
