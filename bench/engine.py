"""NATS without a chat server: the time until a record is stored, which no server that uses it can be below."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import nats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nats.js import JetStreamContext

_STREAM: Final = "engine"
_ANSWER_SECONDS: Final = 20.0
# Records before the measurement: the first ones open files.
_WARM_UP: Final = 20


@dataclass(frozen=True)
class EngineFigures:
    """``milliseconds`` of each record at a steady rate; and records a second with several in flight."""

    milliseconds: Sequence[float]
    records_per_second: float


def measure_engine(
    url: str, replicas: int, *, record_bytes: int, rate: float, in_flight: int, seconds: float
) -> EngineFigures:
    """Publish records into a new stream for ``seconds`` in either way, and wait for each one's acknowledgement."""
    record = os.urandom(record_bytes)

    async def measure() -> EngineFigures:
        async with _new_stream(url, replicas, record) as context:
            times = await _at_rate(context, record, rate, seconds)
            return EngineFigures(times, await _in_flight(context, record, in_flight, seconds))

    return asyncio.run(measure())


def measure_engine_at_rate(url: str, replicas: int, *, record_bytes: int, rate: float, seconds: float) -> list[float]:
    """The first half of ``measure_engine``: the milliseconds of each record at a steady rate."""
    record = os.urandom(record_bytes)

    async def measure() -> list[float]:
        async with _new_stream(url, replicas, record) as context:
            return await _at_rate(context, record, rate, seconds)

    return asyncio.run(measure())


@asynccontextmanager
async def _new_stream(url: str, replicas: int, record: bytes) -> AsyncIterator[JetStreamContext]:
    """Make a stream with a few records, and delete it at the end."""
    client = await nats.connect(url.split(","))
    try:
        context = client.jetstream(timeout=_ANSWER_SECONDS)
        await context.add_stream(name=_STREAM, subjects=[_STREAM], num_replicas=replicas)
        for _ in range(_WARM_UP):
            await _publish(context, record)
        yield context
        await context.delete_stream(_STREAM)
    finally:
        await client.close()


async def _publish(context: JetStreamContext, record: bytes) -> float:
    """Returns the milliseconds until the acknowledgement. The id is what a journal needs to repeat a record."""
    begin = perf_counter()
    await context.publish(_STREAM, record, headers={"Nats-Msg-Id": os.urandom(16).hex()})
    return (perf_counter() - begin) * 1_000


async def _at_rate(context: JetStreamContext, record: bytes, rate: float, seconds: float) -> list[float]:
    async def due() -> AsyncIterator[None]:
        begin = perf_counter()
        for number in range(max(1, int(rate * seconds))):
            await asyncio.sleep(max(0.0, begin + number / rate - perf_counter()))
            yield

    # A late record does not delay the next one.
    return await asyncio.gather(*[asyncio.create_task(_publish(context, record)) async for _ in due()])


async def _in_flight(context: JetStreamContext, record: bytes, count: int, seconds: float) -> float:
    begin = perf_counter()

    async def publish_until_end() -> int:
        published = 0
        while perf_counter() - begin < seconds:
            await _publish(context, record)
            published += 1
        return published

    published = await asyncio.gather(*(publish_until_end() for _ in range(count)))
    return sum(published) / (perf_counter() - begin)
