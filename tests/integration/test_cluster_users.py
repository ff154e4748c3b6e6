"""Users and guests of two servers that share a log, as they see each other. Whole processes."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer, parse
from integration.room import NOT_SENT, AnyPeer, Guest, Peer, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.cluster import Cluster
    from reliability.program import Program


class Two:
    """Two servers, and the connections of their users."""

    def __init__(self, cluster: Cluster, connections: ExitStack) -> None:
        cluster.nats.start()
        self.cluster = cluster
        self.a, self.b = cluster.server("a"), cluster.server("b")
        self.a.start()
        self.b.start()
        self._connections = connections

    def enter(self, server: Program, name: str, **members: bool | str) -> Peer:
        peer = self._connections.enter_context(closing(Peer(server.port)))
        peer.login(name, **members)
        return peer

    def connect(self, server: Program, kind: Callable[[int], AnyPeer]) -> AnyPeer:
        return self._connections.enter_context(closing(kind(server.port)))

    def enter_guest(self, server: Program, name: str, address: str | None = None) -> Guest:
        guest = self._connections.enter_context(closing(Guest(server.port, name, address)))
        guest.register()
        return guest


@pytest.fixture
def two(cluster: Cluster) -> Iterator[Two]:
    with ExitStack() as connections:
        yield Two(cluster, connections)


def users(peer: Peer) -> set[str]:
    peer.ask(command="users")
    while "joined" in (answer := peer.next("users")) and (answer["joined"] or answer["left"]):
        pass
    return set(answer["users"])


def wait_for_users(peer: Peer, *names: str) -> None:
    wait_for(lambda: users(peer) == set(names), f"the users {names}")


def names_in_dev(peer: IrcPeer) -> list[str]:
    peer.put("NAMES #dev")
    names = peer.until("353").params[-1].split()
    peer.until("366")
    return names


def test_users_of_two_servers_are_in_one_room(two: Two) -> None:
    """The users see, reach and moderate each other. If a server shuts down, its users leave the lists at once."""
    alice, bob = two.enter(two.a, "alice", moderation=True), two.enter(two.b, "bob")
    carol = two.enter_guest(two.b, "carol")
    dave = two.enter_guest(two.a, "dave", "127.0.0.9")
    for peer in (alice, bob):
        wait_for_users(peer, "alice", "bob", "carol", "dave")

    # A guest's name is taken everywhere.
    with closing(Guest(two.a.port, "Carol")) as other:
        other.sending.register("TOSEND", "Carol")
        assert other.receiving.register("TORECV", "Carol") == b"ERROR 100 Malformed username\n\n"

    # Messages: to all, and to one.
    alice.say("hello")
    assert bob.next("broadcast")["message"] == "hello"
    for guest in (carol, dave):
        assert guest.take() == ("alice", "hello")
    alice.ask(command="DM", to="bob", message="psst")
    assert alice.next("sent")["status"] == "sent"
    assert bob.next("direct")["message"] == "psst"
    alice.ask(command="DM", to="CAROL", message="and you")
    assert alice.next("sent")["status"] == "sent"
    assert carol.take() == ("alice", "and you")
    assert carol.say("dave", "from there") == b"SEND dave\n\n"
    assert dave.take() == ("carol", "from there")
    assert carol.say("ALL", "good evening") == b"SEND ALL\n\n"
    assert dave.take() == ("carol", "good evening")
    for peer in (alice, bob):
        assert peer.next("broadcast")["message"] == "good evening"

    check_guests_of_irc(two, alice)

    # Moderation reaches all servers.
    code, error = two.cluster.admin(two.b, "operator", "alice")
    assert code == 0, error
    assert alice.next("role")["role"] == "operator"  # the other server may apply it later
    alice.ask(command="ban", username="carol")
    answer = alice.next("banned", "error")
    assert answer["message"].startswith("carol is a guest on another server")
    alice.ask(command="kick", username="carol")
    assert alice.next("kicked")["username"] == "carol"
    assert carol.is_over()
    alice.ask(command="mute", username="bob")
    alice.next("muted")
    bob.ask(command="PM", message="am I muted?")
    assert bob.next("sent", "error")["code"] == "muted"
    code, error = two.cluster.admin(two.a, "delete-user", "bob", "--messages", "keep")
    assert code == 0, error
    assert bob.is_closed()
    wait_for_users(alice, "alice", "dave")
    assert dave.say("carol", "are you there?") == NOT_SENT

    erin = two.enter(two.b, "erin")
    wait_for_users(alice, "alice", "dave", "erin")
    assert two.b.stop() == 0
    assert erin.is_closed()
    ended_at = time.monotonic()
    wait_for_users(alice, "alice", "dave")
    assert time.monotonic() - ended_at < 9.0  # the others would notice a silent server after 10 s


def check_guests_of_irc(two: Two, alice: Peer) -> None:
    """They see each other come, take another name and go. Their names are taken everywhere, and their rooms end.

    A change has the same id and time on both servers.
    """
    ira, ian = (two.connect(server, IrcPeer) for server in (two.a, two.b))
    for peer, name in ((ira, "ira"), (ian, "ian")):
        peer.register(name, caps="message-tags server-time")
        peer.put("JOIN #dev")
        peer.until("366")
    assert ira.until("JOIN").source.startswith("ian!")
    wait_for(lambda: "@ira" in names_in_dev(ian), "the other server knows the first guest")
    ira.put("TOPIC #dev :plans")
    topics = [peer.until("TOPIC") for peer in (ira, ian)]
    assert topics[0] == topics[1]
    assert topics[0].tags.keys() == {"time", "msgid"}
    ian.put("NICK IRA")
    assert ian.until("433").params[1] == "IRA"
    ira.put("NICK iris")
    assert ira.until("NICK").params == ["iris"]
    assert ian.until("QUIT").source.startswith("ira!")
    assert ian.until("JOIN").source.startswith("iris!")
    assert ian.until("MODE").params == ["#dev", "+o", "iris"]
    ian.put("PRIVMSG iris :psst", "PRIVMSG #dev :hello")
    assert [ira.until("PRIVMSG").params for _ in range(2)] == [["iris", "psst"], ["#dev", "hello"]]
    ira.put("QUIT")
    ira.rest()
    told: set[tuple[str, ...]] = set()
    while not told >= {("QUIT",), ("MODE", "#dev", "+o", "ian")}:  # the room has another owner
        command, params = parse(ian.line())[2:]
        told.add((command, *params))
    assert told <= {("QUIT",), ("MODE", "#dev", "+o", "ian"), ("MODE", "#dev", "+o", "iris")}
    with closing(IrcPeer(two.b.port)) as again:
        again.register("iris")
        again.put("NAMES #dev", "QUIT")
        assert [parse(line).command for line in again.rest()] == ["366", "ERROR"], (
            "the next guest of the name is not in"
        )
    ian.put("QUIT")
    ian.rest()
    wait_for(lambda: alice.ask(command="rooms") or alice.next("rooms")["rooms"] == [], "the end of the room")


def test_session_of_one_server_is_one_of_all(two: Two) -> None:
    """Its token logs in on each of them at once, and its end on one server ends its connections on all."""
    owner = two.enter(two.a, "alice")
    made = [two.enter(two.a, "alice", remember="phone") for _ in range(2)]
    for _ in range(2):
        with closing(Peer(two.a.port)) as new, closing(Peer(two.b.port)) as again:
            token = new.login("alice", remember="bot")["token"]
            again.ask(command="login", token=token)
            assert again.next("login")["username"] == "alice"
            owner.ask(command="tokens")
            (bot,) = (each["id"] for each in owner.next("tokens")["tokens"] if each["label"] == "bot")
            owner.ask(command="revoke", id=bot)
            owner.next("tokens")
            for peer in (new, again):
                assert peer.next("bye")["code"] == "revoked"
                assert peer.is_closed()
        with closing(Peer(two.b.port)) as late:
            late.ask(command="login", token=token)
            assert late.next("error")["code"] == "bad_token"
    for phone in made:
        phone.until_fence()
    changer = two.enter(two.b, "alice")
    changer.ask(command="change_password", old="secret", new="new")
    changer.next("password_changed")
    for phone in made:
        assert phone.next("bye")["code"] == "revoked"


@pytest.mark.long  # a lease must end
def test_users_of_a_killed_server_go_offline_and_its_names_are_free(two: Two) -> None:
    alice, _ = two.enter(two.a, "alice"), two.enter(two.b, "bob")
    two.enter_guest(two.b, "carol")
    wait_for_users(alice, "alice", "bob", "carol")
    two.b.kill()
    killed_at = time.monotonic()
    wait_for_users(alice, "alice")
    assert time.monotonic() - killed_at < 15
    assert two.enter_guest(two.a, "carol")
    alice.ask(command="DM", to="bob", message="later")
    assert alice.next("sent")["status"] == "stored"
