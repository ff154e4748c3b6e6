"""irssi, WeeChat and bots, as people use them, beside clients of json.

The commands that connect them are those of docs/wire/irc.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from certificates import Authority
from integration.irc_clients import BOTS, TERMINAL_CLIENTS, TerminalClients, running_bot
from integration.room import leave

from ops.window import ENTER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.room import Room

pytestmark = pytest.mark.long


# How each program shows an event, and the command that shows a conversation.
SHOWN: Final = {
    "irssi": {
        "joined": "{user} [{user}@chat.local] has joined {room}",
        "topic set": "alice changed the topic of #dev to: {topic}",
        "topic": "Topic for #dev: {topic}",
        "topic by": "Topic set by alice [alice@chat.local] [",
        "operator": "mode/#dev [+o bob] by alice",
        "kicked": "{user} was kicked from {room} by {by} [{reason}]",
        "banned": "mode/#dev [+b {mask}] by alice",
        "bans of nicks": "/set ban_type custom nick",
        "direct": "<{user}> {text}",
        "conversations": "[Act: 2,3]",
        "untrusted": "unable to get local issuer certificate",
        "switch": "/window goto {name}",
    },
    "weechat": {
        "joined": "({user}@chat.local) has joined {room}",
        "topic set": 'alice has changed topic for #dev to "{topic}"',
        "topic": 'Topic for #dev is "{topic}"',
        "topic by": "Topic set by alice (alice@chat.local) on ",
        "operator": "Mode #dev [+o bob] by alice",
        "kicked": "{by} has kicked {user} ({reason})",
        "banned": "Mode #dev [+b {mask}] by alice",
        "bans of nicks": "/set irc.network.ban_mask_default $nick!*@*",
        "direct": "{user} | {text}",
        "conversations": "4.  bob",
        "untrusted": "peer's certificate is NOT trusted",
        "switch": "/buffer irc.chat.{name}",
    },
}


@pytest.mark.parametrize("program", TERMINAL_CLIENTS)
def test_user_talks_and_comes_back(  # noqa: PLR0915 -- one story, because a start takes a second
    program: str, tmp_path: Path, open_room: Callable[..., Room]
) -> None:
    """Over TLS, with a certificate that the program verifies: talk, topic, operator, kick, and what was missed."""
    authority = Authority()
    files = authority.write(tmp_path)
    room = open_room(tls_cert=files.certificate, tls_key=files.key)
    bob = room.enter("bob")
    leave(room.enter("alice"))

    def shows(event: str, **values: str) -> None:
        window.until_shows(SHOWN[program][event].format(**values))

    def join(channel: str) -> None:
        window.type(f"/join {channel}", ENTER)
        shows("joined", user="alice", room=channel)

    with TerminalClients(tmp_path, authority.write_root(tmp_path / "root.pem")) as clients:
        window = clients.start(program, room.server.port, "alice", "secret", tls=True)
        window.until_shows("Welcome to the chat.local Network, alice")
        join("#lobby")
        window.type("hello from irc", ENTER)
        assert bob.next("broadcast")["message"] == "hello from irc"
        bob.say("hello from json")
        window.until_shows("hello from json")

        join("#dev")
        bob.ask(command="join", room="dev")
        assert bob.next("joined")["users"] == ["alice", "bob"]
        shows("joined", user="bob", room="#dev")
        window.type("/topic #dev Plans for Monday", ENTER)
        shows("topic set", topic="Plans for Monday")
        assert bob.next("topic")["topic"] == "Plans for Monday"
        window.type("/me plans", ENTER)
        assert bob.next("broadcast")["message"] == "/me plans"
        window.type("/op bob", ENTER)
        shows("operator")
        assert bob.next("role")["role"] == "operator"
        window.type(SHOWN[program]["bans of nicks"], ENTER)
        window.type(SHOWN[program]["switch"].format(name="#dev"), ENTER, "/ban bob", ENTER)
        shows("banned", mask="bob!*@*")
        assert bob.next("parted")["by"] == "alice"
        window.type("/unban bob!*@*", ENTER)
        window.until_shows("-b bob!*@*")
        bob.ask(command="join", room="dev")
        bob.next("joined")
        window.type("/kick bob out of turn", ENTER)
        shows("kicked", user="bob", room="#dev", by="alice", reason="out of turn")
        assert bob.next("parted")["reason"] == "out of turn"

        window.type("/query bob", ENTER, "for you only", ENTER)
        assert bob.next("direct")["message"] == "for you only"
        bob.ask(command="DM", to="alice", message="and for you")
        shows("direct", user="bob", text="and for you")

        bob.ask(command="join", room="garden")
        bob.next("joined")
        join("#garden")
        bob.ask(command="kick", room="garden", username="alice", reason="weeds")
        shows("kicked", user="alice", room="#garden", by="bob", reason="weeds")

        bob.ask(command="join", room="dev")
        bob.next("joined")
        window.type("/quit", ENTER)
        window.until_end()
        room.wait_for_connections(1)
        bob.ask(command="DM", to="alice", message="missed by alice")
        bob.say("missed in dev", room="dev")
        bob.say("missed in the lobby")
        window = clients.start(program, room.server.port, "alice", "secret", tls=True)
        shows("conversations")
        window.type(SHOWN[program]["switch"].format(name="bob"), ENTER)
        shows("direct", user="bob", text="missed by alice")
        window.type(SHOWN[program]["switch"].format(name="#dev"), ENTER)
        shows("topic", topic="Plans for Monday")
        shows("topic by")
        window.until_shows("missed in dev")
        once = (SHOWN[program]["joined"].format(user="alice", room="#dev"), "missed in dev")
        assert [window.text().count(text) for text in once] == [1, 1]
        join("#lobby")
        window.until_shows("missed in the lobby")


@pytest.mark.parametrize("program", TERMINAL_CLIENTS)
def test_refused_login_is_told(program: str, tmp_path: Path, open_room: Callable[..., Room]) -> None:
    """A wrong password, a guest's name that is taken, and a certificate that the program does not trust."""
    files = Authority().write(tmp_path)
    room = open_room(tls_cert=files.certificate, tls_key=files.key)
    room.enter("alice")
    with TerminalClients(tmp_path) as clients:
        port = room.server.port
        windows = [clients.start(program, port, *each) for each in (("alice", "wrong"), ("alice",))]
        windows.append(clients.start(program, port, "carol", "secret", tls=True))
        windows[0].until_shows("That is not the password of alice")
        windows[1].until_shows("Welcome to the chat.local Network, alice2")
        windows[2].until_shows(SHOWN[program]["untrusted"])


@pytest.mark.parametrize("bot", BOTS)
def test_bot_answers(bot: str, tmp_path: Path, open_room: Callable[..., Room]) -> None:
    authority = Authority()
    files = authority.write(tmp_path)
    room = open_room(tls_cert=files.certificate, tls_key=files.key)
    leave(room.enter(bot))
    bob = room.enter("bob")
    with running_bot(bot, tmp_path, room.server.port, authority.write_root(tmp_path / "root.pem")):
        ready = bob.next("broadcast")
        assert (ready["from"], ready["message"]) == (bot, "ready")
        bob.say("echo who is there?")
        assert bob.next("broadcast")["message"] == "who is there?"
