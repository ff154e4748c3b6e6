"""What a server owes its client, as a test has it."""

import math
import time
from dataclasses import dataclass, field

from chatclient.links.watch import Due, Watch
from chatprotocol.requests import Ping, Request


@dataclass
class Debts:
    due: Due = Due.NOTHING
    ping: Request | None = field(default_factory=Ping)


def patient() -> Watch:
    """A watch that gives nobody up."""
    return Watch(Debts(), math.inf, time.monotonic())
