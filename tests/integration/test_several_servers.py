"""A client with several servers of one log: here one server behind two proxies, or fake servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from integration.client_process import ClientProcess
from integration.fake_server import FakeServer, error, serve, serve_but
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS

from chatclient import ChatClient, LostError, RefusedError
from chatclient.notices import ConnectionLost, Reconnected
from chatprotocol.events import PublicMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from certificates import Authority
    from integration.room import Room

UNAVAILABLE = serve_but("login", error("unavailable"), None)


@pytest.fixture
def proxies(shared_room: Room) -> Iterator[tuple[TcpProxy, TcpProxy]]:
    """Two ways to the server; the second one is cut."""
    with TcpProxy(shared_room.server.port) as one, TcpProxy(shared_room.server.port) as two:
        two.cut()
        yield one, two


def name_of(server: TcpProxy | FakeServer) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("protocol", ["json", "frames", "irc"])
def test_client_resumes_at_another_server_and_tells_it_once(
    shared_room: Room, fresh_name: Callable[[str], str], proxies: tuple[TcpProxy, TcpProxy], protocol: str
) -> None:
    """Promise: nothing lost, nothing twice, one event. The first login finds the server that works, too."""
    bob = shared_room.enter(fresh_name("bob"))
    one, two = proxies
    with ChatClient([*map(name_of, proxies)], dialect=protocol) as client:
        client.login(fresh_name("alice"), "secret")
        heard: list[object] = []
        for lost, found in ((one, two), (two, one)):
            bob.say(f"to {name_of(lost)}")
            heard += [next(event for event in client.events(DEADLINE_SECONDS) if isinstance(event, PublicMessage))]
            found.mend()
            lost.cut()
            bob.say(f"missed at {name_of(lost)}")
            client.say(f"from {name_of(found)}")
            bob.say(f"to {name_of(found)}")
            for event in client.events(DEADLINE_SECONDS):
                heard += [event] if isinstance(event, PublicMessage | ConnectionLost | Reconnected) else []
                if getattr(event, "text", "") == f"to {name_of(found)}":
                    break
    told = [event.text if isinstance(event, PublicMessage) else event[2:] for event in heard]
    a, b = map(name_of, proxies)
    expected = [f"to {a}", (b, a), f"missed at {a}", f"to {b}", f"to {b}", (a, b), f"missed at {b}", f"to {a}"]
    assert [each for each in told if each not in (f"from {a}", f"from {b}")] == expected
    assert len(told) == len(expected)


def test_program_tells_the_change_in_one_line(
    shared_room: Room, fresh_name: Callable[[str], str], proxies: tuple[TcpProxy, TcpProxy]
) -> None:
    """By its setting. If no server is left, that is told; then another line for the return."""
    one, two = proxies
    a, b = map(name_of, proxies)
    name, bob = fresh_name("alice"), shared_room.enter(fresh_name("bob"))
    settings = {"CHAT_SERVER": f"{a}, {b}", "CHAT_USER": name, "CHAT_PASSWORD": "secret", "CHAT_HIDE_JOINS": "yes"}
    with ClientProcess("--plain", **settings) as client:
        assert client.line().startswith(f"[welcome new] {name};")
        two.mend()
        one.cut()
        client.expect(f"[back] {name}: connected to {b}; {a} is gone")
        bob.say("hello")
        assert client.line().endswith("hello")
        two.cut()
        line = client.line()  # with the reason of each server: closed or reset
        assert re.fullmatch(rf"\[lost\] {a}: [^;]+; {b}: [^;]+; connecting again", line), line
        two.mend()
        client.expect(f"[back] {name}")
        client.leave()


def test_server_that_is_unavailable_is_passed_over() -> None:
    """Promise: the client leaves it, also later, and sends the message again with the same nonce."""

    def becomes_unavailable(request: dict[str, Any]) -> list[dict[str, Any] | None]:
        return [error("unavailable", request["nonce"])] if request["command"] == "PM" else serve(request)

    with FakeServer(becomes_unavailable, UNAVAILABLE) as one, FakeServer(UNAVAILABLE, serve) as two:
        with ChatClient([name_of(one), name_of(two)]) as client:
            client.login("alice", "secret")
            assert client.say("hello") == 8
            moved = next(event for event in client.events(DEADLINE_SECONDS) if isinstance(event, Reconnected))
        assert (moved.server, moved.gone) == (name_of(two), name_of(one))
        assert len(one.requested("PM")) == 1
        assert one.requested("PM") == two.requested("PM")


def test_all_servers_that_refuse_are_named() -> None:
    with FakeServer(UNAVAILABLE) as one, FakeServer(UNAVAILABLE) as two:
        with ChatClient([name_of(one), name_of(two)]) as client, pytest.raises(RefusedError) as refused:
            client.login("alice", "secret")
        assert refused.value.code == "unavailable"
        assert [len(each.requested("login")) for each in (one, two)] == [1, 1]
        names = [name_of(one), name_of(two)]
    with pytest.raises(LostError) as lost, ChatClient(",".join(names)):
        pass
    assert all(f"can't reach {name}: Connection refused" in str(lost.value) for name in names)


def test_refusal_about_the_user_is_not_repeated_at_another_server() -> None:
    banned = serve_but("login", error("banned"), None)
    with FakeServer(banned) as one, FakeServer(banned) as two:
        with ChatClient([name_of(one), name_of(two)]) as client, pytest.raises(RefusedError, match="banned"):
            client.login("alice", "secret")
        assert len(one.requested("login")) + len(two.requested("login")) == 1


def test_certificate_must_have_the_name_of_its_own_server(
    open_tls_room: Callable[..., Room], authority: Authority, tmp_path: Path
) -> None:
    """A name in the list does not vouch for another one."""
    root = authority.write_root(tmp_path / "root.pem")
    room = open_tls_room()
    authority.write(tmp_path, "localhost")
    room.server.reload(room.config)
    servers = [f"127.0.0.1:{room.server.port}", f"localhost:{room.server.port}"]
    for order in (servers, servers[::-1]):
        with ChatClient(order, ca=root) as client:
            client.login("alice", "secret")
    with pytest.raises(LostError, match=f"can't reach {servers[0]}: its certificate is for another name"):
        ChatClient(f"{servers[0]},127.0.0.1:1", ca=root).connect()
