"""Snapshots in NATS' object store: the newest one only, in chunks, with the number of its last record.

nats-py stores the chunks first, then the name, which makes them visible at once, then removes those of the snapshot
before. It compares the digest when it reads. A server that is killed meanwhile leaves chunks without a name, and so do
two that store at the same time; the next one that stores removes them after an hour, when they can't be in the making.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from nats.js.api import ObjectInfo, ObjectMeta, StorageType
from nats.js.errors import NotFoundError

from chatserver.journal.nats_checks import API_SECONDS, call_api
from chatserver.store.backup import UnusableBackupError

if TYPE_CHECKING:
    from pathlib import Path

    from nats.js.object_store import ObjectStore

    from chatserver.journal.nats_client import NatsClient
    from chatserver.journal.nats_settings import NatsSettings

_NAME: Final = "snapshot"
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
# A transfer has failed if no chunk has moved for this time.
_SILENCE_SECONDS: Final = 30.0
# Chunks without a name are garbage after this time.
_GARBAGE_SECONDS: Final = 3_600.0


async def put_snapshot(
    client: NatsClient,
    settings: NatsSettings,
    number: int,
    path: Path,
    *,
    garbage_seconds: float = _GARBAGE_SECONDS,
) -> None:
    """Store a file, unless there is a newer one. NatsError, OSError: try again."""
    store, newest = await _open_store(client, settings)
    if newest is not None and (_number_of(newest) or 0) > number:
        return
    with path.open("rb") as file:  # nats-py reads in other threads
        await store.put(_NAME, file, ObjectMeta(description=str(number)))
    await _remove_garbage(client, settings, store, garbage_seconds)


async def get_snapshot(client: NatsClient, settings: NatsSettings, path: Path) -> int | None:
    """Write the newest snapshot to a file of this user, and return its number.

    NatsError, OSError: try again. UnusableBackupError: it has no number; the next one replaces it.
    """
    store, newest = await _open_store(client, settings)
    if newest is None:
        return None
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    getting = None
    try:
        part.touch(0o600, exist_ok=False)
        with part.open("wb") as file:  # nats-py writes in other threads
            getting = asyncio.ensure_future(store.get(_NAME, file))
            size = -1
            while not (await asyncio.wait((getting,), timeout=_SILENCE_SECONDS))[0]:
                if part.stat().st_size == size:
                    raise TimeoutError("the snapshot is incomplete, or NATS does not send it")
                size = part.stat().st_size
            number = _number_of(getting.result().info)
        if number is None:
            raise UnusableBackupError("it does not tell its last record")
        part.replace(path)
    except NotFoundError:
        return None
    finally:
        if getting is not None:
            getting.cancel()
        part.unlink(missing_ok=True)
    return number


async def _open_store(client: NatsClient, settings: NatsSettings) -> tuple[ObjectStore, ObjectInfo | None]:
    """Return the store, which is made if it is missing, and its snapshot. NatsError: try again.

    While the store has no leader, as when another server has just made it, NATS does not answer.
    """
    bucket = _bucket(settings)
    jetstream = client.jetstream(timeout=API_SECONDS)
    try:
        store = await jetstream.object_store(bucket)
    except NotFoundError:
        store = await jetstream.create_object_store(bucket, storage=StorageType.FILE, replicas=settings.replicas)
    try:
        newest = await store.get_info(_NAME)
    except NotFoundError:
        newest = None
    return await client.jetstream(timeout=_SILENCE_SECONDS).object_store(bucket), newest


def _number_of(snapshot: ObjectInfo) -> int | None:
    """The number of its last record; None if another program has stored it."""
    text = str(snapshot.description)
    return int(text) if _NUMBER.fullmatch(text) else None


async def _remove_garbage(client: NatsClient, settings: NatsSettings, store: ObjectStore, seconds: float) -> None:
    bucket = _bucket(settings)
    stream = f"OBJ_{bucket}"
    found = await call_api(client, f"STREAM.INFO.{stream}", {"subjects_filter": f"$O.{bucket}.C.>"})
    named = f"$O.{bucket}.C.{(await store.get_info(_NAME)).nuid}"
    for subject in (found["state"].get("subjects") or {}).keys() - {named}:
        newest = await call_api(client, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        age = datetime.fromisoformat(found["ts"]) - datetime.fromisoformat(newest["message"]["time"])
        if age >= timedelta(seconds=seconds):
            await call_api(client, f"STREAM.PURGE.{stream}", {"filter": subject})


def _bucket(settings: NatsSettings) -> str:
    return f"{settings.stream}_snapshots"
