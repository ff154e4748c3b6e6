"""NATS keeps the promise that the shared journal needs: an acknowledged record outlives any one server."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import pytest
from certificates import Authority
from integration.proxies import TcpProxy
from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from ops.nats_servers import SETTINGS_SUBJECT, NatsServer, NatsServers, bind_free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.js import JetStreamContext

RECORD = b"x" * 1_000
DEADLINE_SECONDS = 60.0
# Space for a few records.
STORE_MAX_BYTES = 100_000
# A publish without an answer is unknown, and is repeated.
ANSWER_SECONDS = 1.0


@asynccontextmanager
async def opened(urls: list[str], replicas: int = 1, **options: Any) -> AsyncIterator[JetStreamContext]:
    """A connection, and on it a stream ``log``, which is made if it is missing."""
    client = await nats.connect(
        urls, error_cb=ignore, max_reconnect_attempts=-1, reconnect_time_wait=0.05, ping_interval=0.5, **options
    )
    try:
        stream = client.jetstream(timeout=DEADLINE_SECONDS)
        await stream.add_stream(name="log", subjects=["log"], num_replicas=replicas)
        yield stream
    finally:
        await client.close()


async def ignore(_: Exception) -> None:
    """Lost connections are what these tests make."""


async def publish(stream: JetStreamContext, record_id: str) -> int:
    """Publish a record until it is acknowledged. Returns its place in the stream."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return (await stream.publish("log", RECORD, ANSWER_SECONDS, headers={"Nats-Msg-Id": record_id})).seq
            except (Error, NatsTimeoutError):
                await asyncio.sleep(0.01)


async def until_stored(stream: JetStreamContext, count: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await stream.stream_info("log")).state.last_seq < count:  # noqa: ASYNC110 - another process stores it
            await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the second bind")
def test_reserved_port_is_for_one_server_over_tcp_and_udp() -> None:
    """Also while the server is down: no one else gets it who asks for any port, over UDP neither."""
    first_of_any = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    with bind_free_port() as reserved:
        address = reserved.getsockname()
        assert address[1] < first_of_any
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with socket.create_server(address), socket.socket(type=socket.SOCK_DGRAM) as server:
            server.bind(address)


@pytest.mark.long  # elections take seconds
def test_acknowledged_records_outlive_a_killed_and_a_paused_leader(nats3: NatsServers) -> None:
    """Promise: each record is in the stream once, at the acknowledged place."""

    def leader() -> NatsServer:
        nats3.await_ready()
        return nats3.leader("log")

    async def run() -> None:
        async with opened(nats3.urls, 3) as stream:
            places = [await publish(stream, "first")]
            killed = await asyncio.to_thread(leader)
            killed.kill()
            places.append(await publish(stream, "second"))
            killed.start()
            paused = await asyncio.to_thread(leader)
            paused.pause()
            places.append(await publish(stream, "third"))
            paused.resume()
            await asyncio.to_thread(leader)
            places.append(await publish(stream, "third"))
            assert places == [1, 2, 3, 3]
            assert [(await stream.get_msg("log", place)).data for place in places] == [RECORD] * 4

    asyncio.run(run())


def test_record_whose_answer_is_lost_is_stored_once(nats: NatsServers) -> None:
    """Promise: a record that is published again after a lost connection has one place."""

    async def run(link: TcpProxy) -> None:
        async with opened([f"nats://127.0.0.1:{link.port}"]) as stream:
            await publish(stream, "first")
            link.loses_answers = True
            unanswered = asyncio.create_task(publish(stream, "second"))
            async with opened(nats.urls) as other:
                await until_stored(other, 2)
            link.cut()
            link.mend()
            assert await unanswered == 2
            link.pause()
            unanswered = asyncio.create_task(publish(stream, "third"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(unanswered), 0.1)
            link.mend()
            assert await unanswered == 3

    with TcpProxy(nats[0].port) as link:
        asyncio.run(run(link))


@pytest.mark.parametrize("sync", ["always", "2m"])
def test_clients_learn_if_the_servers_sync_always(tmp_path: Path, sync: str) -> None:
    async def run(urls: list[str]) -> list[bool]:
        client = await nats.connect(urls)
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        found: dict[str, bool] = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(found) < 3:
                # The other servers may get the request before they know of the subscription to the answers.
                await client.publish(SETTINGS_SUBJECT, reply=inbox)
                with suppress(NatsTimeoutError):
                    while len(found) < 3:
                        answer = json.loads((await answers.next_msg(ANSWER_SECONDS)).data)
                        config = answer["data"]["jetstream"]["config"]
                        found[answer["server"]["name"]] = config.get("sync_always", False)
        await client.close()
        return list(found.values())

    with NatsServers(tmp_path, 3, sync=sync) as servers:
        assert asyncio.run(run(servers.urls)) == [sync == "always"] * 3


def test_full_store_refuses_records_and_keeps_the_others(tmp_path: Path) -> None:
    async def run(urls: list[str]) -> None:
        async with opened(urls) as stream:
            with pytest.raises(APIError, match="insufficient resources"):
                await asyncio.gather(*(stream.publish("log", RECORD) for _ in range(STORE_MAX_BYTES // len(RECORD))))
            stored = (await stream.stream_info("log")).state.last_seq
            assert (await stream.get_msg("log", stored)).data == RECORD

    with NatsServers(tmp_path, max_store_bytes=STORE_MAX_BYTES) as servers:
        asyncio.run(run(servers.urls))


def test_server_with_a_certificate_and_a_password(tmp_path: Path) -> None:
    authority = Authority()
    files = authority.write(tmp_path)

    async def run(urls: list[str]) -> None:
        async with opened(urls, tls=authority.client_context(), user="chat", password="right") as stream:
            assert await publish(stream, "first") == 1
        with pytest.raises(Error, match="Authorization"):
            await nats.connect(
                urls, tls=authority.client_context(), user="chat", password="wrong", allow_reconnect=False
            )

    with NatsServers(tmp_path, user="chat", password="right", tls=files) as servers:
        asyncio.run(run(servers.urls))
