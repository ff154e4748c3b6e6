"""Clients of IRC, and a room with clients of all kinds."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from browser import the_lounge
from browser.the_lounge import TheLounge
from certificates import Authority
from integration.irc_clients import BOTS, TERMINAL_CLIENTS, TerminalClients, running_bot
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
    tls_server: Program, open_page: Callable[[int], Page], tmp_path: Path
) -> None:
    """Each sees what all others say, in one order. The Lounge and the bots are accounts, and come over TLS."""
    port, root = tls_server.port, tmp_path / "root.pem"
    _register(port, "lounge", *BOTS)
    kinds = ["page", *TERMINAL_CLIENTS, "lounge", *BOTS, "json", "frames", "udp", "register"]
    with (
        closing(Peer(port)) as json,
        TheLounge(tmp_path / "lounge", root) as program,
        TerminalClients(tmp_path) as clients,
        ExitStack() as stack,
    ):
        json.login("json")
        for name in BOTS:
            stack.enter_context(running_bot(name, tmp_path, port, root))
        windows = {name: clients.start(name, port, name) for name in TERMINAL_CLIENTS}
        page, lounge = open_page(port), open_page(program.port)
        page.log_in("page")
        the_lounge.connect(lounge, port, "lounge", "secret")
        for name, window in windows.items():
            window.until_shows(f"Network, {name}")
            window.type("/join #lobby", ENTER)
            window.until_shows("has joined #lobby")
        the_lounge.until_shows(lounge, "(lounge) has joined the channel")
        frames = stack.enter_context(closing(FramesPeer(port)))
        frames.login("frames")
        udp = stack.enter_context(closing(DatagramPeer(port)))
        udp.login("udp")
        register = stack.enter_context(closing(Guest(port, "register")))
        register.register()
        assert {json.next("broadcast")["from"] for _ in BOTS} == {*BOTS}, "one is not ready"

        page.send("says page")
        for name, window in windows.items():
            window.type(f"says {name}", ENTER)
        the_lounge.write(lounge, "says lounge")
        for text in ("speak", "says json"):
            json.ask(command="PM", message=text)
        for name, peer in (("frames", frames), ("udp", udp)):
            peer.command("PM")
            peer.data(f"says {name}")
        register.send("ALL", "says register")

        others = len(kinds) - 1
        seen = {"register": _heard(others, lambda: register.take()[1])}
        seen["json"] = _heard(others, lambda: json.next("broadcast")["message"])
        seen["frames"] = _heard(others, lambda: frames.frame().partition("\n")[2])
        seen["udp"] = _heard(others, lambda: udp.frame().partition("\n")[2])
        seen["page"] = page.until(lambda: _said("\n".join(page.texts()), len(kinds)), "the page shows all")
        seen["lounge"] = lounge.until(lambda: _said(lounge.text(), len(kinds)), "The Lounge shows all")
        for name, window in windows.items():
            window.until(lambda window=window: _said(window.text(), len(kinds)), "the window shows all")
            seen[name] = _said(window.text(), len(kinds))
        json.ask(command="PM", message="what was said?")
        for _ in BOTS:
            answer = json.next("broadcast")
            seen[answer["from"]] = [f"says {name}" for name in answer["message"].split()]
        json.ask(command="CH")
        order = _said("\n".join(each["message"] for each in json.next("history")["messages"]), len(kinds))
    assert sorted(order) == sorted(f"says {kind}" for kind in kinds)
    for name, texts in seen.items():
        own = f"says {name}"
        assert [text for text in texts if text != own] == [text for text in order if text != own], name


def _register(port: int, *names: str) -> None:
    for name in names:
        with closing(Peer(port)) as peer:
            peer.login(name)
            leave(peer)


def _heard(count: int, take: Callable[[], str]) -> list[str]:
    """The texts of the next ``count`` messages that say who speaks. Other messages, and answers, are skipped."""
    texts: list[str] = []
    while len(texts) < count:
        text = take()
        if text.startswith("says "):
            texts.append(text)
    return texts


def _said(shown: str, count: int) -> list[str]:
    """The messages that say who speaks; none if there are fewer than ``count``."""
    found = re.findall(r"says \w+", shown)
    return found if len(found) >= count else []
