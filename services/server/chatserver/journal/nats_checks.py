"""Checks of the NATS servers and of the stream, so that no acknowledged record can be lost.

A server must sync each record before it acknowledges it (``sync_interval: always``), which is complete and fast from
version 2.15 on. Otherwise a cluster loses acknowledged records when its machines lose power at once. The setting
is read over the connection, if the account of the chat may ask for it, or else from the monitoring pages.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chatserver.journal.log import LEASE_SECONDS, LogError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from chatserver.journal.nats_settings import NatsSettings

# The first version that syncs always in all places, and at one sync for many records.
MIN_VERSION: Final = (2, 15)
# NATS' own default. Records are half of it at most: see log.py.
MIN_PAYLOAD_BYTES: Final = 1024 * 1024
# Each server answers with its settings, if the account imports this subject from the system account.
SETTINGS_SUBJECT: Final = "$SYS.REQ.SERVER.PING.VARZ"
# Wait for the answer of the server that is connected.
_ANSWER_SECONDS: Final = 2.0
# Wait for the answers of the others after that; a server that is slower is checked when it is connected.
_OTHERS_SECONDS: Final = 0.25
_PAGE_MAX_BYTES: Final = 4 * 1024 * 1024
# Wait for an answer of JetStream. An election takes some seconds, and an unanswered request is repeated.
API_SECONDS: Final = 2.0
# NATS refuses a repeated id for this time.
_DUPLICATE_WINDOW_SECONDS: Final = 120.0

# Codes of JetStream's errors: server/errors.json of the NATS server.
NO_PEERS: Final = 10005
NOT_IN_ACCOUNT: Final = 10039
OTHER_CONFIG: Final = 10058
STREAM_NOT_FOUND: Final = 10059
SUBJECT_TAKEN: Final = 10065
NO_MESSAGE: Final = 10037
WRONG_LAST: Final = 10071
NOT_CLUSTERED: Final = 10074
NOT_ENABLED: Final = 10076

_UNSAFE_HINT = "or accept with CHAT_NATS_UNSAFE=yes that confirmed messages may be lost"


class ApiError(OSError):
    """JetStream refused a request. ``code`` is its err_code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class ServerAnswer(NamedTuple):
    """A NATS server, and whether it syncs always; None if it stores nothing."""

    server_id: str
    name: str
    syncs: bool | None


async def call_api(client: Client, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to JetStream. ApiError: it refused; OSError and NatsError: no answer."""
    data = b"" if body is None else json.dumps(body).encode()
    answer = await client.request(f"$JS.API.{subject}", data, API_SECONDS)
    return read_answer(answer.data)


def read_answer(data: bytes) -> dict[str, Any]:
    """Read an answer of JetStream, or the acknowledgement of a record. ApiError: it refused."""
    try:
        answer: dict[str, Any] = dict(json.loads(data))
    except ValueError as error:
        raise ApiError(0, "an answer that is not JetStream's") from error
    if (refusal := answer.get("error")) is not None:
        raise ApiError(refusal.get("err_code", 0), refusal.get("description", "unknown"))
    return answer


def check_info(info: Mapping[str, Any], settings: NatsSettings) -> None:
    """Check the greeting of a server, before it gets credentials. Raises LogError."""
    name = info.get("server_name", "unknown")
    version = str(info.get("version", "0"))
    if settings.tls is not None and not info.get("tls_required"):
        raise LogError(f"The NATS server {name} does not encrypt; set tls in its configuration, or use nats:// URLs.")
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    if numbers < MIN_VERSION and not settings.unsafe:
        least = ".".join(map(str, MIN_VERSION))
        raise LogError(f"The NATS server {name} has the version {version}; install {least} or later, {_UNSAFE_HINT}.")
    if int(info.get("max_payload", 0)) < MIN_PAYLOAD_BYTES:
        raise LogError(f"The NATS server {name} takes no records of 1 MiB; raise max_payload in its configuration.")


async def check_sync(client: Client, server_id: str, name: str, settings: NatsSettings) -> None:
    """Check that this server and all others that answer sync always. Raises LogError."""
    answers = await _ask_servers(client, server_id)
    if not any(each.server_id == server_id for each in answers):
        answers += await _ask_pages(settings)
    for each in answers:
        if each.syncs is False:
            raise LogError(
                f"The NATS server {each.name} loses confirmed messages if its machine fails; set sync_interval: always "
                f"in the block jetstream of its configuration, {_UNSAFE_HINT}."
            )
    if not any(each.server_id == server_id for each in answers):
        raise LogError(
            f"The NATS server {name} does not tell if it syncs always; let the account of the chat import the service "
            f"{SETTINGS_SUBJECT}, or make its monitoring page readable ({' '.join(settings.monitors)}, see "
            f"CHAT_NATS_MONITOR), {_UNSAFE_HINT}."
        )


async def _ask_servers(client: Client, server_id: str) -> list[ServerAnswer]:
    """The answers of the servers over the connection; none if the account must not ask."""
    answers: list[ServerAnswer] = []
    answered = asyncio.Event()

    async def receive(message: Msg) -> None:
        try:
            answer = json.loads(message.data)
            answers.append(_server_answer(answer["server"]["id"], answer["server"]["name"], answer["data"]))
        except (ValueError, KeyError, TypeError):  # the account may not ask
            answered.set()
            return
        if answers[-1].server_id == server_id:
            answered.set()

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=receive)
    await client.publish(SETTINGS_SUBJECT, reply=inbox)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await answered.wait()
        if answers:
            await asyncio.sleep(_OTHERS_SECONDS)
    except TimeoutError:
        pass
    await subscription.unsubscribe()
    return answers


async def _ask_pages(settings: NatsSettings) -> list[ServerAnswer]:
    """The answers of the monitoring pages that can be read."""
    pages = [asyncio.to_thread(_read_page, url, settings.tls) for url in settings.monitors]
    return [each for each in await asyncio.gather(*pages) if each is not None]


def _read_page(url: str, tls: ssl.SSLContext | None) -> ServerAnswer | None:
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    try:
        with urllib.request.build_opener(*handlers).open(f"{url.rstrip('/')}/varz", timeout=_ANSWER_SECONDS) as page:
            answer = json.loads(page.read(_PAGE_MAX_BYTES))
        return _server_answer(answer["server_id"], answer["server_name"], answer)
    except (OSError, ValueError, KeyError, TypeError):  # it does not run, or is another program
        return None


def _server_answer(server_id: str, name: str, settings: Mapping[str, Any]) -> ServerAnswer:
    config = (settings.get("jetstream") or {}).get("config")
    return ServerAnswer(server_id, name, config.get("sync_always", False) if config else None)


def log_config(settings: NatsSettings) -> dict[str, Any]:
    """The stream of the log: it keeps all records, and nothing removes one.

    Without direct access each read is answered by the leader, which has all records.
    """
    return {
        "name": settings.stream,
        "description": "The log of the chat. Without it the chat servers can't start.",
        "subjects": [f"{settings.stream}.log"],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "duplicate_window": int(_DUPLICATE_WINDOW_SECONDS * 1e9),
        "compression": "none",
        "allow_direct": False,
        "allow_rollup_hdrs": False,
        "deny_delete": True,
        "deny_purge": True,
    }


def leases_config(settings: NatsSettings) -> dict[str, Any]:
    """The leases, a bucket for NATS' tools: a value is forgotten when it was not renewed.

    A few writes a second go to the disk. In memory the leases had no quorum for 25 s after two servers were killed and
    started, one after the other.
    """
    bucket = f"{settings.stream}_leases"
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": 1,
        "max_bytes": -1,
        "max_age": int(LEASE_SECONDS * 1e9),
        "max_msg_size": -1,
        "duplicate_window": int(LEASE_SECONDS * 1e9),
        "allow_direct": False,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


async def make_stream(client: Client, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return JetStream's description of a stream, which is made if it is missing.

    LogError: it can't be made. OSError, NatsError: it is unknown; try again.
    """
    name, replicas = config["name"], config["num_replicas"]
    try:
        return await call_api(client, f"STREAM.INFO.{name}")
    except ApiError as error:
        _check_enabled(error)
        if error.code != STREAM_NOT_FOUND:
            raise
    try:
        return await call_api(client, f"STREAM.CREATE.{name}", config)
    except ApiError as error:
        if error.code == OTHER_CONFIG:  # another server has made it meanwhile
            return await call_api(client, f"STREAM.INFO.{name}")
        if error.code in (NOT_CLUSTERED, NO_PEERS):
            refusal = LogError if error.code == NOT_CLUSTERED else TooFewServersError
            raise refusal(
                f"NATS has fewer than {replicas} servers that can store the shared log ({error}); start them all, or "
                "set CHAT_NATS_REPLICAS lower."
            ) from error
        if error.code == SUBJECT_TAKEN:
            raise LogError(
                f"Another stream of NATS has the subject {config['subjects'][0]}; choose another CHAT_NATS_STREAM."
            ) from error
        raise


class TooFewServersError(LogError):
    """NATS has too few servers for a new stream. Perhaps some are still starting."""


def _check_enabled(error: ApiError) -> None:
    if error.code in (NOT_IN_ACCOUNT, NOT_ENABLED):
        raise LogError(
            f"NATS has no JetStream for the account of the chat ({error}); enable it in the servers' configuration."
        ) from error


def check_stream(found: Mapping[str, Any], settings: NatsSettings) -> None:
    """Check that an existing stream keeps all records. Raises LogError."""
    expected = log_config(settings)
    config: dict[str, Any] = {"max_age": 0, **found["config"]}
    must: Sequence[str] = (
        *("subjects", "retention", "discard", "storage", "max_age", "max_bytes", "max_msgs", "max_msgs_per_subject"),
        *("deny_delete", "deny_purge", "allow_rollup_hdrs"),
    )
    wrong = {name: config.get(name) for name in must if config.get(name) != expected[name]}
    wrong |= {name: True for name in ("mirror", "sources", "sealed", "allow_msg_ttl") if config.get(name)}
    if config.get("persist_mode") not in (None, "", "default"):
        wrong["persist_mode"] = config["persist_mode"]
    if 0 <= config.get("max_msg_size", -1) < MIN_PAYLOAD_BYTES:
        wrong["max_msg_size"] = config["max_msg_size"]
    if wrong:
        name, value = next(iter(wrong.items()))
        raise LogError(
            f"The stream {settings.stream} of NATS has {name} = {json.dumps(value)}, so it is not the log of this "
            "chat, or would lose records; choose another CHAT_NATS_STREAM."
        )
