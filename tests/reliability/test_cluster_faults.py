"""Single faults of a cluster: of NATS, of the log, of a data folder, of the settings; and races for a name."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import nats
import pytest
from integration.room import Guest, Peer
from reliability.cluster import READY_SECONDS, Cluster, await_, compare_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reliability.cluster import ChatServer

CLIENTS = 20
# Exit code of a server that could not start, and of one whose thread died.
NOT_STARTED, CRASHED = 2, 1


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers and three NATS servers for all tests that leave them as they were."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two servers and one NATS server, for a test that breaks them."""
    with Cluster(tmp_path_factory.mktemp("pair"), 2, 1) as pair:
        yield pair


@contextmanager
def entered(server: ChatServer, name: str) -> Iterator[Peer]:
    with closing(Peer(server.port)) as peer:
        peer.login(name)
        yield peer


def say(peer: Peer, text: str) -> dict[str, Any]:
    """Send a message once. Returns the answer."""
    peer.ask(command="PM", message=text, nonce=text)
    return peer.next("sent", "error")


def texts(peer: Peer) -> list[str]:
    """The newest messages of the history."""
    peer.ask(command="CH", limit=500)
    return [each["message"] for each in peer.next("history")["messages"]]


def await_service(server: ChatServer, text: str) -> None:
    """Wait until a message is confirmed on this server: the same one, so that it is stored once."""
    with entered(server, "alice") as alice:
        await_(lambda: say(alice, text)["type"] == "sent", f"a confirmation of {text}", READY_SECONDS)


def assert_equal(cluster: Cluster) -> None:
    assert compare_tables(cluster.read_equal_tables()) == []


def test_one_of_many_registrations_of_a_name_wins(cluster: Cluster) -> None:
    """Promise: the others are refused on all servers, and the first password is valid on all."""
    with ExitStack() as stack:
        peers = [stack.enter_context(closing(Peer(cluster.servers[number % 3].port))) for number in range(CLIENTS)]
        for number, peer in enumerate(peers):
            peer.ask(command="login", username="contested", password=f"secret{number}")
        answers = [peer.next("login", "error") for peer in peers]
    winners = [number for number, answer in enumerate(answers) if answer["type"] == "login"]
    assert len(winners) == 1
    assert {answer.get("code") for answer in answers} <= {None, "wrong_password", "too_many_attempts"}
    for server in cluster.servers:
        with closing(Peer(server.port)) as peer:
            assert peer.login("contested", f"secret{winners[0]}")["account"] == "existing"


def test_one_of_two_guests_gets_a_name(cluster: Cluster) -> None:
    """Promise: also if they ask on different servers at the same time; and a free name can be had on any."""
    with ExitStack() as stack:
        guests = [stack.enter_context(closing(Guest(server.port, "visitor"))) for server in cluster.servers[:2]]
        for guest in guests:
            guest.sending.send(b"REGISTER TOSEND visitor\n\n")
            guest.receiving.send(b"REGISTER TORECV visitor\n\n")
        answers = [[guest.sending.section(), guest.receiving.section()] for guest in guests]
        registered = [all(each.startswith(b"REGISTERED") for each in pair) for pair in answers]
        assert sorted(registered) == [False, True], answers
    for server in cluster.servers:

        def is_free(port: int = server.port) -> bool:
            with closing(Guest(port, "visitor")) as guest:
                return guest.sending.register("TOSEND", "visitor").startswith(b"REGISTERED")

        await_(is_free, "the name to be free", READY_SECONDS)


def test_server_without_nats_refuses_messages_and_goes_on_by_itself(cluster: Cluster) -> None:
    """Promises: `unavailable`, not ready, the history readable; and as before when NATS is back."""
    server, other = cluster.servers[:2]
    await_service(server, "before")
    with entered(server, "bob") as bob, entered(server, "carol") as carol:
        for link in server.links:
            link.cut()
        await_(lambda: not server.is_ready(), "no readiness", READY_SECONDS)
        answer = say(bob, "meanwhile")
        assert answer["type"] == "error", answer
        assert answer["code"] == "unavailable", answer
        assert "before" in texts(carol)
        await_service(other, "elsewhere")
        for link in server.links:
            link.mend()
        server.await_ready()
        assert say(bob, "meanwhile")["type"] == "sent"
        await_(lambda: "elsewhere" in texts(carol), "the message of the other server", READY_SECONDS)
        assert texts(carol).count("meanwhile") == 1
    assert_equal(cluster)


@pytest.mark.long
def test_servers_without_a_quorum_refuse_messages_and_go_on_by_themselves(cluster: Cluster) -> None:
    """Promise: with two of three NATS servers killed nothing is confirmed, and the history is readable."""
    await_service(cluster.servers[0], "with a quorum")
    with ExitStack() as stack:
        peers = [stack.enter_context(entered(server, f"user{server.name}")) for server in cluster.servers]
        killed = cluster.nats.servers[:2]
        for engine in killed:
            engine.kill()
        for server, peer in zip(cluster.servers, peers, strict=True):
            await_(lambda server=server: not server.is_ready(), "no readiness", READY_SECONDS)
            answer = say(peer, f"no quorum on {server.name}")
            assert answer.get("code") == "unavailable", answer
            assert "with a quorum" in texts(peer)
        for engine in killed:
            engine.start()
        cluster.await_ready()
        for server, peer in zip(cluster.servers, peers, strict=True):
            assert say(peer, f"no quorum on {server.name}")["type"] == "sent"
    cluster.await_nats()
    assert_equal(cluster)


@pytest.mark.long
def test_paused_leader_of_nats_is_replaced(cluster: Cluster) -> None:
    """Promise: messages are confirmed again while it is paused, and once it goes on there is still one history."""
    leader = cluster.nats.leader("chat")
    leader.pause()
    for server in cluster.servers:
        await_service(server, f"paused, {server.name}")
    leader.resume()
    cluster.await_nats()
    assert_equal(cluster)


@pytest.mark.long
def test_wiped_data_folder_comes_back_from_the_log(cluster: Cluster) -> None:
    server = cluster.servers[1]
    await_service(server, "before the loss")
    server.program.kill()
    shutil.rmtree(server.data)
    server.launch()
    server.await_ready()
    with entered(server, "alice") as alice:
        assert "before the loss" in texts(alice)
    assert_equal(cluster)


@pytest.mark.long
def test_servers_stop_if_the_log_is_deleted(pair: Cluster) -> None:
    """Promise: they say so, and don't begin another history."""

    async def delete() -> None:
        client = await nats.connect(pair.nats.urls)
        await client.jetstream().delete_stream("chat")
        await client.close()

    await_service(pair.servers[0], "hello")
    asyncio.run(delete())
    for server in pair.servers:
        assert server.await_end() == CRASHED
        assert_says(server, "shared log lost")


@pytest.mark.long
def test_second_server_with_a_name_does_not_start(pair: Cluster) -> None:
    first = pair.servers[0]
    second = pair.add(first.name, "second")
    second.launch()
    assert second.await_end() in (NOT_STARTED, CRASHED)
    assert_says(second, "name")
    first.await_ready()  # its next lease may be on the way
    await_service(first, "hello")


def assert_says(server: ChatServer, word: str) -> None:
    """The last lines have one with this word, and there is no traceback."""
    log = server.program.log()
    assert any(word in line for line in log.splitlines()[-20:]), log
    assert "Traceback" not in log
