"""The log on NATS, without a server: what its loop does between two of its steps."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.msg import Msg

from chatserver.journal.nats_log import NatsLog
from chatserver.journal.nats_settings import NatsSettings


class SilentClient:
    """A connection over which nothing is answered."""

    is_connected = True

    async def request(self, subject: str, data: bytes, timeout: float) -> None:  # noqa: ASYNC109, ARG002 - as nats-py
        await asyncio.wait_for(asyncio.Future(), timeout)


def test_acknowledgements_after_an_election_end_a_question_once() -> None:
    """Promise: those of a later read may come when the question has expired, and its task has not run yet."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        log = NatsLog(NatsSettings(("nats://127.0.0.1:1",), "chat"), "a", lambda _: None)
        log._loop = loop
        for text in "abc":
            log.publish(text, text.encode())
        for publication in log._publications.values():
            publication.since -= 60.0
        acknowledge = log._guard(log._receive_answer)
        messages = [
            Msg(_client=SilentClient(), subject=f"inbox.{number}", data=json.dumps({"seq": number}).encode())  # type: ignore[arg-type]
            for number in range(1, 4)
        ]
        session: Any = SimpleNamespace(client=SilentClient())
        question = asyncio.create_task(log._ask(session, "STREAM.INFO.chat"))
        await asyncio.sleep(0)
        acknowledge(messages[0])
        acknowledge(messages[1])
        loop.call_soon(acknowledge, messages[2])
        with pytest.raises(TimeoutError):
            await question
        assert not log._publications
        assert log._defect is None

    asyncio.run(run())
