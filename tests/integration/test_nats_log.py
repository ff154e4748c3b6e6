"""The log on NATS: all servers read all published records in one order, despite failures."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import nats as nats_py
import pytest
from certificates import Authority
from integration.nats_credentials import make_credentials
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS, wait_for
from msgspec.structs import replace
from nats.js.api import ObjectMeta
from structlog.testing import capture_logs

from chatserver.config import load_config
from chatserver.journal.log import LogError
from chatserver.journal.nats_checks import call_api, log_config
from chatserver.journal.nats_client import NatsClient
from chatserver.journal.nats_log import NatsLog
from chatserver.journal.nats_settings import NatsSettings, nats_settings
from chatserver.journal.nats_snapshots import put_snapshot
from chatserver.store.backup import UnusableBackupError
from ops.nats_servers import NatsServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_streams = itertools.count(1)


class Reader:
    """A NatsLog and what was taken from it."""

    def __init__(self, settings: NatsSettings, name: str = "a") -> None:
        self.crashes: list[str] = []
        self.heard: list[bytes] = []
        self.taken: list[bytes] = []
        self._changed = threading.Event()
        self.log = NatsLog(settings, name, self.crashes.append, patience_seconds=1.0, loss_seconds=0.5)
        self.log.on_broadcast(self._hear)
        self.log.start()

    def _hear(self, data: bytes) -> None:
        self.heard.append(data)
        self._changed.set()

    def open(self) -> None:
        assert self.log.wait_until_open(DEADLINE_SECONDS)
        self.log.read_after(0, self._changed.set)

    def publish(self, *texts: str) -> None:
        for text in texts:
            self.log.publish(text, text.encode())

    def until(self, holds: Callable[[], object]) -> None:
        """Take records until something holds; LogError as from take()."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while True:
            self._changed.clear()
            for number, data in self.log.take():
                assert number == len(self.taken) + 1
                self.taken.append(data)
            if holds():
                return
            assert time.monotonic() < give_up_at, (self.taken, self.log.find_problem())
            self._changed.wait(0.05)

    def until_taken(self, *texts: str) -> None:
        expected = [text.encode() for text in texts]
        self.until(lambda: len(self.taken) >= len(expected))
        assert self.taken == expected


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of the threads")


@contextmanager
def opened(settings: NatsSettings, name: str = "a") -> Iterator[Reader]:
    reader = Reader(settings, name)
    try:
        yield reader
    finally:
        reader.log.close(0.0)
    assert reader.crashes == []


def settings_for(servers: NatsServers, **changes: Any) -> NatsSettings:
    """Settings with a stream of their own."""
    settings = NatsSettings(tuple(servers.urls), f"s{next(_streams)}", replicas=len(servers.servers))
    return replace(settings, **changes)


def refusal(settings: NatsSettings) -> str:
    """Why the log can't be used."""
    with opened(settings) as reader, pytest.raises(LogError) as refused:
        reader.log.wait_until_open(DEADLINE_SECONDS)
    text = str(refused.value)
    assert text.endswith(".")
    assert ". " not in text
    return text


def ask(servers: NatsServers, subject: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to JetStream, as an operator."""

    async def run() -> dict[str, Any]:
        client = await nats_py.connect(servers.urls)
        try:
            answer = await client.request(f"$JS.API.{subject}", json.dumps(request).encode(), DEADLINE_SECONDS)
        finally:
            await client.close()
        return dict(json.loads(answer.data))

    answer = asyncio.run(run())
    assert "error" not in answer
    return answer


def test_records_leases_broadcasts_and_snapshots(nats: NatsServers, tmp_path: Path) -> None:
    """Promise: two servers read the same records in one order, and each other's leases, broadcasts and snapshots."""
    settings = settings_for(nats)
    with opened(settings) as one, opened(settings, "b") as two:
        one.open()
        two.open()
        assert one.log.read_first() is None
        assert [each.log.create_first(text) for each, text in ((one, b"0"), (two, b"1"))] == [True, False]
        assert two.log.read_first() == b"0"
        one.publish(*"abc")
        one.until_taken("0", *"abc")
        two.until_taken("0", *"abc")
        two.until(lambda: (two.log.last_number(), two.log.find_problem()) == (4, ""))
        two.log.renew_lease("b", "run")
        one.until(lambda: one.log.find_lease("b") == "run")

        def is_heard() -> bool:
            """Broadcasts are lost while a server is not connected, also on a machine that stalls."""
            one.log.broadcast(b"hello")
            return set(two.heard) == set(one.heard) == {b"hello"}

        two.until(is_heard)
        path = tmp_path / "snapshot"
        assert two.log.get_snapshot(path) is None
        for number in (3, 2, 4):
            path.write_bytes(bytes([number]) * 300_000)
            one.log.put_snapshot(number, path)
            assert two.log.get_snapshot(tmp_path / "copy") == max(number, 3)
        copy = tmp_path / "copy"
        assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (path.read_bytes(), 0o600)
        two.log.close(DEADLINE_SECONDS)
        assert one.log.find_lease("b") is None


def test_chunks_of_an_aborted_snapshot_are_removed(nats: NatsServers, tmp_path: Path) -> None:
    settings = settings_for(nats)
    bucket = f"{settings.stream}_snapshots"

    async def run() -> list[dict[str, int]]:
        client = NatsClient(settings)
        await client.open(nats.urls[0], "test")
        found = []
        for seconds in (60.0, 0.0):
            path = tmp_path / "snapshot"
            path.write_bytes(bytes(200_000))
            await put_snapshot(client, settings, 1, path, garbage_seconds=seconds)
            await client.jetstream().publish(f"$O.{bucket}.C.aborted", b"x")
            await put_snapshot(client, settings, 2, path, garbage_seconds=seconds)
            info = await call_api(client, f"STREAM.INFO.OBJ_{bucket}", {"subjects_filter": f"$O.{bucket}.C.>"})
            found.append(info["state"]["subjects"])
        await client.abandon()
        return found

    kept, left = asyncio.run(run())
    assert kept[f"$O.{bucket}.C.aborted"] == 1
    assert list(left.values()) == [2]


def test_snapshot_of_another_program_is_unusable_and_is_replaced(nats: NatsServers, tmp_path: Path) -> None:
    settings = settings_for(nats)
    path, copy = tmp_path / "snapshot", tmp_path / "copy"
    path.write_bytes(b"data")

    async def put(description: str | None) -> None:
        client = NatsClient(settings)
        await client.open(nats.urls[0], "test")
        store = await client.jetstream().object_store(f"{settings.stream}_snapshots")
        await store.put("snapshot", b"hello", ObjectMeta(description=description))
        await client.abandon()

    with opened(settings) as reader:
        reader.open()
        reader.log.put_snapshot(1, path)
        for description in ("hello", "-1", "9" * 5_000, None):
            asyncio.run(put(description))
            with pytest.raises(UnusableBackupError, match="does not tell its last record"):
                reader.log.get_snapshot(copy)
            assert list(tmp_path.iterdir()) == [path]
        reader.log.put_snapshot(1, path)
        assert reader.log.get_snapshot(copy) == 1


def test_server_that_may_lose_records_is_refused(tmp_path: Path) -> None:
    """Promise: the log is used only if NATS tells, over the connection or on a page, that it syncs always."""
    with NatsServers(tmp_path / "lazy", sync="2m") as lazy:
        assert "sync_interval: always" in refusal(settings_for(lazy))
        with opened(settings_for(lazy, unsafe=True)) as reader:
            reader.open()
    with NatsServers(tmp_path / "mute", tells_sync=False) as mute:
        page = f"http://127.0.0.1:{mute[0].monitor_port}"
        assert "does not tell" in refusal(settings_for(mute, monitors=("http://127.0.0.1:1",)))
        with opened(settings_for(mute, monitors=("http://127.0.0.1:1", page))) as reader:
            reader.open()


def test_server_that_is_too_old_gets_no_password() -> None:
    told: list[bytes] = []

    def tell(listening: socket.socket) -> None:
        peer, _ = listening.accept()
        peer.settimeout(DEADLINE_SECONDS)
        with peer:
            info = {
                "server_id": "X",
                "server_name": "old",
                "version": "2.14.9",
                "max_payload": 1 << 20,
                "headers": True,
            }
            peer.sendall(b"INFO " + json.dumps(info).encode() + b"\r\n")
            told.append(peer.recv(1_000))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=tell, args=(listening,))
        thread.start()
        url = f"nats://127.0.0.1:{listening.getsockname()[1]}"
        assert "old has the version 2.14.9; install 2.15" in refusal(NatsSettings((url,), user="a", password="secret"))
        thread.join(DEADLINE_SECONDS)
    assert told == [b""]


async def unsent_after_loss(settings: NatsSettings, servers: NatsServers) -> int:
    client = NatsClient(settings)
    await client.open(settings.urls[0], "a")
    servers.servers[0].kill()
    await client.is_lost.wait()
    return client.unsent_bytes


def test_credentials_and_certificates(tmp_path: Path, nats: NatsServers) -> None:
    files = Authority()
    pair = files.write(tmp_path)
    trusting = files.client_context()
    with NatsServers(tmp_path / "nats", user="chat", password="right", tls=pair) as servers:
        settings = settings_for(servers, user="chat", password="right", tls=trusting)
        with opened(settings) as reader:
            reader.open()
            reader.publish("a")
            reader.until_taken("a")
        assert "refuses the credentials" in refusal(replace(settings, password="wrong"))
        assert "certificate" in refusal(replace(settings, tls=Authority().client_context()))
        assert asyncio.run(unsent_after_loss(settings, servers)) == 0
    assert "does not encrypt" in refusal(settings_for(nats, tls=trusting))


def test_credentials_of_a_file(tmp_path: Path) -> None:
    """Promise: the files of the settings are read; a user with a JWT is let in, and the monitoring page is used."""
    config = make_credentials(tmp_path / "user.creds")
    with ExitStack() as stack:
        servers = NatsServers(tmp_path / "nats")
        stack.callback(servers.close)
        server = servers[0]
        jetstream = {"store_dir": str(server.store), "sync_interval": "always"}
        page = f"127.0.0.1:{server.monitor_port}"
        server.configure({"listen": server.address, "http": page, "jetstream": jetstream, **config})
        servers.start()
        flags = f"--nats {servers.url} --nats-credentials {tmp_path}/user.creds --nats-replicas 1"
        with opened(nats_settings(load_config([*flags.split(), "--nats-monitor", f"http://{page}"], {}))) as reader:
            reader.open()
            reader.publish("a")
            reader.until_taken("a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subjects", ["other", "more"]),
        ("retention", "interest"),
        ("discard", "old"),
        ("storage", "memory"),
        ("max_age", 3_600_000_000_000),
        ("max_bytes", 1 << 30),
        ("max_msgs", 1_000_000),
        ("deny_delete", False),
        ("deny_purge", False),
        ("max_msg_size", 1_000),
    ],
)
def test_stream_that_would_lose_records_is_refused(nats: NatsServers, name: str, value: object) -> None:
    settings = settings_for(nats)
    config = log_config(settings) | {name: value}
    if name == "subjects":
        config["subjects"] = [f"{settings.stream}.{each}" for each in ("other", "more")]
    ask(nats, f"STREAM.CREATE.{settings.stream}", config)
    assert f"{name} = " in refusal(settings)


def test_streams_that_can_not_be_made_or_have_fewer_replicas(nats: NatsServers) -> None:
    assert "CHAT_NATS_REPLICAS" in refusal(settings_for(nats, replicas=3))
    settings = settings_for(nats)
    ask(nats, f"STREAM.CREATE.{settings.stream}x", log_config(settings) | {"name": f"{settings.stream}x"})
    assert "CHAT_NATS_STREAM" in refusal(settings)
    settings = settings_for(nats)
    with opened(settings) as reader:
        reader.open()
    with capture_logs() as log, opened(replace(settings, replicas=3)) as reader:
        reader.open()
    assert {"shared log underreplicated"} & {each["event"] for each in log}


def test_lost_records_end_the_reading(nats: NatsServers) -> None:
    """Promise: a log that was deleted, replaced or shortened is an error and not an empty log."""
    settings, replaced = settings_for(nats), settings_for(nats)
    with (
        TcpProxy(nats[0].port) as link,
        opened(settings) as reader,
        opened(settings) as ahead,
        opened(replaced) as stale,
        opened(replace(settings, urls=(f"nats://127.0.0.1:{link.port}",))) as away,
    ):
        away.open()
        link.cut()
        stale.open()
        ask(nats, f"STREAM.DELETE.{replaced.stream}", {})
        ask(nats, f"STREAM.CREATE.{replaced.stream}", log_config(replaced))
        reader.open()
        reader.publish(*"abc")
        reader.until_taken(*"abc")
        assert ahead.log.wait_until_open(DEADLINE_SECONDS)
        ahead.log.read_after(7, lambda: None)
        with pytest.raises(LogError, match="ends with record 3, and this server has read record 7"):
            ahead.until(lambda: False)
        ask(nats, f"STREAM.DELETE.{settings.stream}", {})
        with pytest.raises(LogError, match="was deleted; the data folders"):
            reader.until(lambda: False)
        link.mend()
        with pytest.raises(LogError, match="was deleted; the data folders"):
            away.until(lambda: False)
        with pytest.raises(LogError, match="was deleted and made again"):
            stale.until(lambda: False)
    ask(nats, f"STREAM.CREATE.{settings.stream}", log_config(settings) | {"first_seq": 5})
    with opened(settings) as reader:
        reader.open()
        with pytest.raises(LogError, match="begins with record 5"):
            reader.until(lambda: False)


def test_log_goes_on_after_lost_connections(nats: NatsServers) -> None:
    """Promise: it connects when NATS starts; earlier records are stored once, and each change is reported."""
    with TcpProxy(nats[0].port) as link, capture_logs() as log:
        link.is_cut = True
        settings = settings_for(nats, urls=(f"nats://127.0.0.1:{link.port}",))
        with opened(settings) as reader:
            assert not reader.log.wait_until_open(0.2)
            assert reader.log.find_problem()
            with pytest.raises(OSError, match="NATS"):
                reader.log.read_first()
            reader.publish("a")
            link.mend()
            reader.open()
            reader.until_taken("a")
            link.loses_answers = True
            reader.publish("b")
            reader.until(lambda: ask(nats, f"STREAM.INFO.{settings.stream}", {})["state"]["last_seq"] == 2)
            link.cut()
            reader.publish("c")
            reader.until(lambda: reader.log.find_problem() == "it can't reach NATS")
            link.mend()
            reader.until_taken(*"abc")
            reader.until(lambda: not reader.log.find_problem())
            link.pause()
            reader.publish("d")
            reader.until(lambda: reader.log.find_problem() != "")
            link.mend()
            reader.until_taken(*"abcd")
            reader.until(lambda: not reader.log.find_problem())
            reader.log.close(DEADLINE_SECONDS)
    events = [each["event"] for each in log]
    assert events.count("shared log connected") == events.count("shared log disconnected") + 1
    changes = [(each["event"], each.get("problem")) for each in log if each["event"].endswith("available")]
    assert all(before != after for before, after in pairwise(changes))
    assert ("shared log unavailable", "it can't reach NATS") in changes
    assert changes[-1] == ("shared log available", None)


def test_record_that_is_lost_on_the_way_is_read_again(nats: NatsServers) -> None:
    """Promise: a reader sees a gap, and continues before it."""
    with TcpProxy(nats[0].port) as link:
        settings = settings_for(nats)
        with opened(settings) as writer, opened(replace(settings, urls=(f"nats://127.0.0.1:{link.port}",))) as reader:
            writer.open()
            reader.open()
            writer.publish("a")
            reader.until_taken("a")
            link.loses_answers = True
            writer.publish("b")
            writer.until_taken(*"ab")
            link.mend()
            writer.publish("c")
            reader.until_taken(*"abc")


def test_slow_reader_limits_its_memory(nats: NatsServers) -> None:
    """Promise: at most 48 MiB wait for take(), and the rest comes later."""
    count, text = 200, bytes(400_000)
    settings = settings_for(nats)
    with opened(settings) as writer, opened(settings) as slow:
        assert writer.log.wait_until_open(DEADLINE_SECONDS)
        assert slow.log.wait_until_open(DEADLINE_SECONDS)
        slow.log.read_after(0, lambda: None)
        for number in range(count):
            writer.log.publish(str(number), text)
        writer.open()
        writer.until(lambda: len(writer.taken) == count)
        slow.until(lambda: slow.taken)  # what waits now, at once
        assert len(slow.taken) * len(text) < 48 << 20
        slow.until(lambda: len(slow.taken) == count)


def test_full_disk_is_told_and_records_are_kept(tmp_path: Path) -> None:
    with NatsServers(tmp_path, max_store_bytes=1_000_000) as servers, opened(settings_for(servers)) as reader:
        reader.open()
        for number in range(10):
            reader.log.publish(str(number), bytes(200_000))
        full = "NATS refuses records: insufficient"
        reader.until(lambda: reader.taken and full in reader.log.find_problem())
        assert len(reader.taken) < 10


@pytest.mark.long  # elections take seconds
def test_log_without_a_quorum_goes_on_with_it(nats3: NatsServers) -> None:
    settings = settings_for(nats3)
    with opened(settings) as reader:
        reader.open()
        reader.log.renew_lease("a", "run")
        reader.publish("a")
        reader.until_taken("a")
        for server in nats3.servers[1:]:
            server.kill()
        reader.until(lambda: reader.log.find_problem() != "")
        reader.publish("b")
        nats3.start()
        reader.until_taken(*"ab")
        reader.until(lambda: not reader.log.find_problem())
        reader.until(lambda: reader.log.find_lease("a") == "run")


@pytest.mark.long  # elections take seconds
def test_paused_leader(nats3: NatsServers) -> None:
    """Promise: all servers go on while the leader of the stream is paused, and after it continues."""
    settings = settings_for(nats3)
    with opened(settings) as one, opened(settings) as two:
        one.open()
        two.open()
        one.publish("a")
        for each in (one, two):
            each.until_taken("a")
        leader = nats3.leader(settings.stream)
        leader.pause()
        one.publish("b")
        two.publish("c")
        for each in (one, two):
            each.until(lambda each=each: len(each.taken) == 3)  # type: ignore[misc]
        leader.resume()
        one.publish("d")
        for each in (one, two):
            each.until(lambda each=each: len(each.taken) == 4)  # type: ignore[misc]
        assert one.taken == two.taken
        assert sorted(one.taken) == [b"a", b"b", b"c", b"d"]
