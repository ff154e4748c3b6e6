"""Clients of IRC, and a room with clients of all kinds."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from browser import the_lounge
from browser.the_lounge import TheLounge
from certificates import Authority
from integration.irc_clients import TERMINAL_CLIENTS, TerminalClients
from integration.room import DatagramPeer, FramesPeer, Guest, Peer, leave
from reliability.program import Program

from ops.window import ENTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from browser.page import Page

pytestmark = pytest.mark.long


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Program]:
    """A server for one test, with a certificate of the authority whose own is ``root.pem``."""
    authority = Authority()
    authority.write_root(tmp_path / "root.pem")
    files = authority.write(tmp_path)
    with Program(tmp_path, CHAT_TLS_CERT=str(files.certificate), CHAT_TLS_KEY=str(files.key)) as program:
        yield program


def test_the_lounge(tls_server: Program, open_page: Callable[[int], Page], tmp_path: Path) -> None:
    """SASL, over TLS with a certificate that it verifies: talk, topic, operator, kick, direct messages."""
    with (
        TheLounge(tmp_path / "lounge", tmp_path / "root.pem") as lounge,
        closing(Peer(tls_server.port)) as alice,
        closing(Peer(tls_server.port)) as bob,
    ):
        alice.login("alice")
        leave(alice)
        bob.login("bob")
        page = open_page(lounge.port)
        the_lounge.connect(page, tls_server.port, "alice", "secret")
        the_lounge.until_shows(page, "alice (alice@chat.local) [alice] (alice) has joined the channel")
        the_lounge.write(page, "hello from The Lounge")
        assert bob.next("broadcast")["message"] == "hello from The Lounge"
        bob.say("hello from json")
        the_lounge.until_shows(page, "<alice> hello from The Lounge", "<bob> hello from json")

        the_lounge.write(page, "/join #dev")
        page.until(lambda: "#dev" in page.driver.title, "it shows #dev")
        bob.ask(command="join", room="dev")
        assert bob.next("joined")["users"] == ["alice", "bob"]
        the_lounge.write(page, "/topic Plans for Monday")
        assert bob.next("topic")["topic"] == "Plans for Monday"
        the_lounge.write(page, "/me plans")
        assert bob.next("broadcast")["message"] == "/me plans"
        the_lounge.write(page, "/op bob")
        assert bob.next("role")["role"] == "operator"
        the_lounge.write(page, "/kick bob out of turn")
        assert bob.next("parted")["reason"] == "out of turn"
        shown = ("@alice has changed the topic to: Plans for Monday", "@alice plans", "@alice sets mode +o bob")
        the_lounge.until_shows(page, *shown, "@alice has kicked @bob (out of turn)")

        the_lounge.write(page, "/query bob")
        page.until(lambda: "bob" in page.driver.title, "it shows bob")
        the_lounge.write(page, "for you only")
        assert bob.next("direct")["message"] == "for you only"
        bob.ask(command="DM", to="alice", message="and for you")
        the_lounge.until_shows(page, "<alice> for you only", "<bob> and for you")


def test_clients_of_all_kinds_share_a_room(
    own_server: Program, open_page: Callable[[int], Page], tmp_path: Path
) -> None:
    """Each sees what all others say, in one order."""
    port = own_server.port
    kinds = ["page", *TERMINAL_CLIENTS, "json", "frames", "udp", "register"]
    with (
        TerminalClients(tmp_path) as clients,
        closing(Peer(port)) as json,
        closing(FramesPeer(port)) as frames,
        closing(DatagramPeer(port)) as udp,
        closing(Guest(port, "register")) as register,
    ):
        windows = {program: clients.start(program, port, program) for program in TERMINAL_CLIENTS}
        page = open_page(port)
        page.log_in("page")
        for name, window in windows.items():
            window.until_shows(f"Network, {name}")
            window.type("/join #lobby", ENTER)
            window.until_shows("has joined #lobby")
        for peer, name in ((json, "json"), (frames, "frames"), (udp, "udp")):
            peer.login(name)
        register.register()

        page.send("says page")
        for name, window in windows.items():
            window.type(f"says {name}", ENTER)
        json.ask(command="PM", message="says json")
        for name, peer in (("frames", frames), ("udp", udp)):
            peer.command("PM")
            peer.data(f"says {name}")
        register.send("ALL", "says register")

        others = len(kinds) - 1
        seen = {"register": [register.take()[1] for _ in range(others)]}
        seen["json"] = [json.next("broadcast")["message"] for _ in range(others)]
        seen |= {"udp": _heard(udp, others), "frames": _heard(frames, others)}
        seen["page"] = page.until(lambda: len(page.texts()) == len(kinds) and page.texts(), "the page shows all")
        for name, window in windows.items():
            window.until(lambda window=window: len(_said(window.text())) == len(kinds), "the window shows all")
            seen[name] = _said(window.text())
        json.ask(command="CH")
        order = [each["message"] for each in json.next("history")["messages"]]
    assert sorted(order) == sorted(f"says {kind}" for kind in kinds)
    for name, texts in seen.items():
        own = f"says {name}"
        assert [text for text in texts if text != own] == [text for text in order if text != own], name


def _heard(peer: FramesPeer, count: int) -> list[str]:
    """The texts of the next messages. Answers are skipped."""
    texts: list[str] = []
    while len(texts) < count:
        frame = peer.frame()
        if frame.startswith("D "):
            texts.append(frame.partition("\n")[2])
    return texts


def _said(text: str) -> list[str]:
    """The messages among the rows of a window."""
    return re.findall(r"says \w+", text)
