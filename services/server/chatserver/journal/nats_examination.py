"""The examination of NATS by ``chatserver admin doctor``. It changes nothing there."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nats.errors import Error as NatsError

from chatserver.journal.log import LogError
from chatserver.journal.nats_checks import STREAM_NOT_FOUND, ApiError, call_api, check_stream, check_sync
from chatserver.journal.nats_client import NatsClient

if TYPE_CHECKING:
    from chatserver.journal.nats_settings import NatsSettings

_NAME: Final = "doctor"
# Round trips that are measured.
_PINGS: Final = 11
_PING_SECONDS: Final = 2


class ServerState(NamedTuple):
    """A NATS server of the settings."""

    url: str
    # A sentence, or empty if the server can be used.
    problem: str
    name: str = ""
    version: str = ""
    # Median of some round trips.
    round_trip_seconds: float = 0.0


class StreamState(NamedTuple):
    """The stream of the log."""

    # A sentence, or empty if the stream can be used.
    problem: str
    exists: bool = False
    records: int = 0
    size_bytes: int = 0
    replicas: int = 0
    # Names of the NATS servers that lack records, because they do not run or are behind.
    behind: tuple[str, ...] = ()


def examine_nats(settings: NatsSettings) -> tuple[list[ServerState], StreamState]:
    """Connect to all servers of the settings. It takes some seconds if one does not answer."""
    return asyncio.run(_examine(settings))


async def _examine(settings: NatsSettings) -> tuple[list[ServerState], StreamState]:
    found = await asyncio.gather(*(_examine_server(url, settings) for url in settings.urls))
    streams = sorted((stream for _, stream in found), key=lambda stream: bool(stream.problem))
    return [server for server, _ in found], streams[0]


async def _examine_server(url: str, settings: NatsSettings) -> tuple[ServerState, StreamState]:
    client = NatsClient(settings)
    unknown = StreamState("No NATS server can be used.")
    try:
        await client.open(url, _NAME)
        name, version = str(client.info.get("server_name", "")), str(client.info.get("version", ""))
        try:
            await check_sync(client, str(client.info.get("server_id", "")), name, settings)
            server = ServerState(url, "", name, version, await _measure(client))
        except LogError as error:
            server = ServerState(url, str(error), name, version)
        return server, await _examine_stream(client, settings)
    except LogError as error:
        return ServerState(url, str(error)), unknown
    except (OSError, NatsError) as error:
        return ServerState(url, f"It does not answer: {error}."), unknown
    finally:
        await client.abandon()


async def _measure(client: NatsClient) -> float:
    times = []
    for _ in range(_PINGS):
        began_at = time.perf_counter()
        await client.flush(_PING_SECONDS)
        times.append(time.perf_counter() - began_at)
    return statistics.median(times)


async def _examine_stream(client: NatsClient, settings: NatsSettings) -> StreamState:
    try:
        found = await call_api(client, f"STREAM.INFO.{settings.stream}")
        check_stream(found, settings)
    except ApiError as error:
        return StreamState("" if error.code == STREAM_NOT_FOUND else f"NATS refuses to tell about the stream: {error}.")
    except LogError as error:
        return StreamState(str(error), exists=True)
    except (OSError, NatsError):
        return StreamState("NATS has no quorum: nothing tells about the stream.")
    state, cluster = found["state"], found.get("cluster") or {}
    others: list[dict[str, Any]] = cluster.get("replicas") or []
    behind = tuple(each["name"] for each in others if each.get("offline") or not each.get("current"))
    return StreamState(
        "", exists=True, records=state["messages"], size_bytes=state["bytes"], replicas=1 + len(others), behind=behind
    )
