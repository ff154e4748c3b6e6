"""Fakes for Watch: a session whose state the test sets, and a watch whose decisions the test makes."""

import math
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chatclient.links.watch import ExpectedAnswer, Watch
from chatprotocol.wire.base import ClientEvent, Outgoing

PING = Outgoing(b'{"command":"ping"}\n')


@dataclass
class FakeSession:
    """The state of a session."""

    expected_answer: ExpectedAnswer = ExpectedAnswer.NOTHING
    ping: Outgoing | None = PING
    has_other_server: bool = False


class ScriptedWatch(Watch):
    """Polls often. Each check takes the next decision of ``script``: a ping to send, or the error of a lost server.

    ``received`` gets the events of each read after the link has handled them.
    """

    def __init__(self) -> None:
        super().__init__(FakeSession(), math.inf, 0.0)
        self.script: queue.SimpleQueue[Outgoing | TimeoutError] = queue.SimpleQueue()
        self.received: queue.SimpleQueue[Sequence[ClientEvent]] = queue.SimpleQueue()

    def next_check_at(self, now: float) -> float:
        return now + 0.01

    def note_received(self, events: Sequence[ClientEvent], now: float) -> None:
        super().note_received(events, now)
        self.received.put(events)

    def check(self, now: float) -> Outgoing | None:
        del now
        if self.script.empty():
            return None
        decision = self.script.get()
        if isinstance(decision, TimeoutError):
            raise decision
        return decision


def patient() -> Watch:
    """A watch that never counts a server as lost."""
    return Watch(FakeSession(), math.inf, time.monotonic())
