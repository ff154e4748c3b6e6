"""The client with the dialect irc: at a server of ours, and at ngircd, which has neither accounts nor history."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS

from chatclient import ChatClient, RefusedError
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, DirectMessage, PublicMessage
from chatprotocol.wire.base import Forwarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.room import Room

NGIRCD = shutil.which("ngircd") or shutil.which("ngircd", path="/usr/sbin")


def texts(client: ChatClient, last: str) -> list[str]:
    """The texts of messages, up to this one."""
    found: list[str] = []
    for event in client.events(DEADLINE_SECONDS):
        if isinstance(event, PublicMessage | DirectMessage | Forwarded):
            found.append(event.text)
            if event.text == last:
                return found
    raise AssertionError(f"{last} did not come: {found}")


def test_both_ways_with_json(shared_room: Room, fresh_name: Callable[[str], str]) -> None:
    """Promise: a message is confirmed once, with its id; long texts and texts of several lines arrive whole."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    address = ("127.0.0.1", shared_room.server.port)
    with ChatClient(*address, dialect="irc") as irc, ChatClient(*address) as json:
        irc.login(alice, "secret")
        json.login(bob, "secret")
        for text in ("hello", "/me waves", "two\nlines", "word " * 500 + "end"):
            assert irc.say(text) is not None
            assert texts(json, text) == [text]
            json.say(text)
            assert texts(irc, text) == [text]
        irc.whisper(bob, "psst")
        assert texts(json, "psst") == ["psst"]
        json.whisper(alice, "psst too")
        assert texts(irc, "psst too") == ["psst too"]
        assert {alice, bob} <= set(irc.users())
        assert [each.text for each in irc.history(2)][-1].endswith("end")
    for password in ("wrong", ""):  # without one the server refuses the nick, and the client asks for the password
        with ChatClient(*address, dialect="irc") as irc, pytest.raises(RefusedError) as refused:
            irc.login(alice, password)
        assert refused.value.code == ErrorCode.WRONG_PASSWORD
    with ChatClient(*address, dialect="irc") as irc:
        assert irc.login(fresh_name("guest")).account is AccountKind.GUEST


def test_missed_messages_come_once_after_a_reconnect(shared_room: Room, fresh_name: Callable[[str], str]) -> None:
    """Promise: nothing lost, nothing twice."""
    bob = shared_room.enter(fresh_name("bob"))
    with TcpProxy(shared_room.server.port) as proxy, ChatClient("127.0.0.1", proxy.port, dialect="irc") as client:
        client.login(fresh_name("alice"), "secret")
        bob.say("before")
        assert texts(client, "before") == ["before"]
        proxy.cut()
        for number in range(3):
            bob.say(f"missed {number}")
        proxy.mend()
        assert client.say("back") is not None
        bob.say("after")
        assert texts(client, "after") == ["missed 0", "missed 1", "missed 2", "after"]


@pytest.mark.skipif(NGIRCD is None, reason="ngircd is not installed")
def test_server_without_capabilities(tmp_path: Path, kept_port: int) -> None:
    """Promise: the client speaks to other servers, by name alone."""
    config = tmp_path / "ngircd.conf"
    config.write_text(
        f"[Global]\nName = irc.test.local\nInfo = x\nListen = 127.0.0.1\nPorts = {kept_port}\n"
        "[Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nMaxPenaltyTime = 0\n"
        "[Options]\nDNS = no\nIdent = no\nPAM = no\n"
    )
    with subprocess.Popen([str(NGIRCD), "-n", "-f", str(config)], stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(kept_port)
            clients = [ChatClient("127.0.0.1", kept_port, dialect="irc") for _ in range(2)]
            with clients[0] as alice, clients[1] as bob:
                alice.login("alice")
                bob.login("bob")
                alice.say("hello")
                assert texts(bob, "hello") == ["hello"]
                bob.whisper("alice", "psst")
                assert texts(alice, "psst") == ["psst"]
                assert set(bob.users()) == {"alice", "bob"}
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline
        else:
            return
