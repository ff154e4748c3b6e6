"""Users of a server under attack, and the bounds of the harm that it may do them: ``Bystanders.assert_unharmed``.

The server has one processor. Attackers have addresses in 127.1.0.0/16, and legitimate users in 127.2.0.0/16.

Other programs share that processor: the attackers, other tests, and whatever else the machine runs. A hash has a lower
priority than they have, and takes four times as long beside one of them. So all bounds are for the time of a Stopwatch,
which stands still while the processor runs another program. Everything that the server does counts, and all time in
which the processor is idle because the server waits for something else. What the stopwatch can't tell is whether the
server wanted to run while another program did. A server that wants to run gets its share: so the time of others counts
if it is more than sixteen times the server's own.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

from integration.room import Peer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Two who say forty messages a second; the home of a known user; and the address of attackers who have only one.
HERE, HOME, ATTACKER = "127.0.0.1", "127.2.0.1", "127.1.0.1"
# The defaults of limits that other tests switch off.
SETTINGS = {
    "CHAT_EXEMPT": HERE,
    "CHAT_WAITING_FROM_SENDER": "",
    "CHAT_WAITING_MESSAGES": "",
}
# For attackers who have only one address, but would have many.
NO_CONNECTION_LIMITS = {
    "CHAT_ADDRESS_CONNECTIONS": "0",
    "CHAT_ADDRESS_NEW_CONNECTIONS": "0",
    "CHAT_WAITING_PERCENT": "100",
}
NO_REGISTRATION_LIMITS = {"CHAT_ADDRESS_REGISTRATIONS": "0", "CHAT_REGISTRATIONS": "0"}
DEFAULT_HASHES = {"CHAT_HASH_TIME_COST": "", "CHAT_HASH_MEMORY_KIB": ""}

# Short tests are too short for percentiles. They check the median, and the fastest login.
_IS_LONG = bool(os.environ.get("CHAT_TEST_LONG"))
# Of each call of ``chat``, which takes longer on a busy machine. A stall must not hit all of them.
_MESSAGES_MIN, _LOGINS_MIN = 10, 3
# Left out, however few times there are: a disk that stalls for a second delays one login, and one or two messages.
_STALLED_LOGINS, STALLED_MESSAGES = 1, 2
# On a busy machine a login may wait for long behind eighty others.
_PATIENCE_SECONDS = 60.0
# The 99th percentile of messages.
DELAY_MAX_SECONDS = 0.1
# Of a Stopwatch beside other programs: /proc/stat has hundredths of a second.
_ERROR_SECONDS = 0.02
# "At once": people take it for a slow network. A quiet server needs 0.03 s, or 0.1 s with the default hash.
KNOWN_MAX_SECONDS = 1.0
# Logins of users with a new name, and of a known user in a network that the server does not know.
NEW_MAX_SECONDS = 2.0
# The longest wait for a processor that others use, for each second that the server runs, and for all its wake-ups. A
# thread that hashes gets a quarter of the processor beside one busy program, and a seventh beside two.
_WAIT_MAX_FACTOR = 16
_WAKE_UPS_MAX_SECONDS = 0.5
MEBIBYTE = 1024 * 1024
MEMORY_MAX_BYTES = 100 * MEBIBYTE
# Stacks of ended threads, caches of SQLite, and holes in malloc's heap: one has the size of a hash, 19 MiB.
KEPT_MAX_BYTES = 32 * MEBIBYTE


def attacked(folder: Path, *arguments: str, **settings: str) -> Program:
    """A server on one processor, which is not that of another worker's server."""
    processors = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    under = ("taskset", "--cpu-list", str(processors[worker % len(processors)]))
    return Program(folder, *arguments, under=under, **{**SETTINGS, **settings})


class Stopwatch:
    """Measures the time of a server that has one processor, without the time in which that ran other programs."""

    def __init__(self, server: Program) -> None:
        """It starts now."""
        self._server = server
        (self._processor,) = os.sched_getaffinity(server.process.pid)
        self._began_at, self._own_before, self._idle_before = self._look()

    def seconds(self) -> float:
        """The time since the start, to about 0.01 s."""
        passed, ran, others = self._shares()
        return passed - min(others, _WAIT_MAX_FACTOR * ran + _WAKE_UPS_MAX_SECONDS)

    def others_share(self) -> float:
        """The share of the processor that other programs have had since the start."""
        passed, _, others = self._shares()
        return others / passed

    def _shares(self) -> tuple[float, float, float]:
        """The time since the start, and what the server and all others have had of the processor."""
        now, own, idle = self._look()
        passed, ran = now - self._began_at, own - self._own_before
        return passed, ran, max(0.0, passed - (idle - self._idle_before) - ran)

    def _look(self) -> tuple[float, float, float]:
        """The present time, the server's processor time, and the time for which the processor was idle.

        The system knows idle times exactly, and counts busy ones at the ticks of its clock.
        """
        stat = Path("/proc/stat").read_text(encoding="ascii")
        line = next(line for line in stat.splitlines() if line.startswith(f"cpu{self._processor} "))
        idle, waiting_for_disks = map(int, line.split()[4:6])
        return (
            time.monotonic(),
            self._server.processor_seconds(),
            (idle + waiting_for_disks) / os.sysconf("SC_CLK_TCK"),
        )


def seconds_to_log_in(server: Program, name: str, address: str) -> float:
    """Log in with the right password, which is never refused, and return how long that takes."""
    with closing(Peer(server.port, address)) as peer:
        peer.socket.settimeout(_PATIENCE_SECONDS)
        watch = Stopwatch(server)
        peer.login(name)
        return watch.seconds()


def longest(times: Sequence[float], one_of: int, left_out_min: int) -> float:
    """The longest time without the slowest ones: one of so many, and at least ``left_out_min``."""
    return sorted(times)[max(0, len(times) - 1 - max(len(times) // one_of, left_out_min))]


class Bystanders:
    """Two users who chat, and others who log in. Leaving the context checks that the attack did them no harm.

    The user ``known`` logs in from HOME, and from networks that the server does not know.
    """

    def __init__(self, server: Program, memory_max_bytes: int = MEMORY_MAX_BYTES, *, one_late_of: int = 100) -> None:
        """The growth of the server's memory counts from now on. One of ``one_late_of`` messages may be late."""
        self._server = server
        self._one_late_of = one_late_of
        self._memory_max_bytes = memory_max_bytes
        self._one, self._other = Peer(server.port), Peer(server.port)
        for peer, name in ((self._one, "one"), (self._other, "other")):
            peer.login(name)
        self._delays: list[float] = []
        self._known: list[float] = []
        self._new: list[float] = []
        self._log_in()
        self._known.clear()
        self._watch = Stopwatch(server)
        server.forget_memory_peak()
        self._before_bytes = server.memory_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.assert_unharmed()
        finally:
            self._one.close()
            self._other.close()

    def chat(self, seconds: float, also: Callable[[], object] = lambda: None) -> None:
        """Chat, forty messages a second, and log in about ten times. ``also`` must be as quick as a message.

        It takes longer if the machine is too busy for a few messages and logins.
        """
        until, messages = time.monotonic() + seconds, len(self._delays) + _MESSAGES_MIN
        with ThreadPoolExecutor(1, "logins") as pool:
            logins = pool.submit(self._log_in_again_and_again, until, max(0.5, seconds / 10))
            while time.monotonic() < until or len(self._delays) < messages:
                watch = Stopwatch(self._server)
                self._talk()
                also()
                self._delays.append(watch.seconds())
                self._one.next("sent")
                time.sleep(0.02)
            logins.result()

    def assert_unharmed(self) -> None:
        """Check delays, logins, and memory: at its peak, and what is left of it. The attackers have gone."""
        peak_bytes = self._server.memory_peak_bytes() - self._before_bytes
        self._server.wait_until(lambda: self._grown_bytes() < KEPT_MAX_BYTES, "its memory")
        p50 = statistics.median(self._delays)
        late, p99 = (longest(self._delays, each, STALLED_MESSAGES) for each in (self._one_late_of, 100))
        if _IS_LONG:
            delay = late
            known, new = (longest(times, 10, _STALLED_LOGINS) for times in (self._known, self._new))
        else:
            delay, known, new = p50, min(self._known), min(self._new)
        print(
            f"messages: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, of {len(self._delays)};"
            f" logins: known {known:.2f} s, new {new:.2f} s, of {len(self._known)};"
            f" others had {self._watch.others_share():.0%} of the processor;"
            f" memory: {peak_bytes / MEBIBYTE:+.1f} MiB at the peak, {self._grown_bytes() / MEBIBYTE:+.1f} MiB left"
        )
        assert delay < DELAY_MAX_SECONDS + _ERROR_SECONDS, sorted(self._delays)[-10:]
        assert known < KNOWN_MAX_SECONDS, self._known
        assert new < NEW_MAX_SECONDS, self._new
        assert peak_bytes < self._memory_max_bytes

    def _grown_bytes(self) -> int:
        return self._server.memory_bytes() - self._before_bytes

    def _talk(self) -> None:
        text = f"hello {len(self._delays)}"
        self._one.ask(command="PM", message=text)
        while self._other.next("broadcast")["message"] != text:
            pass

    def _log_in_again_and_again(self, until: float, pause_seconds: float) -> None:
        logins = len(self._known) + _LOGINS_MIN
        while (began_at := time.monotonic()) < until or len(self._known) < logins:
            self._log_in()
            time.sleep(max(0.0, min(began_at + pause_seconds, until) - time.monotonic()))

    def _log_in(self) -> None:
        number = len(self._new) + 1
        self._known.append(seconds_to_log_in(self._server, "known", HOME))
        for name, network in (("known", 1), (f"new{number}", 2)):
            self._new.append(seconds_to_log_in(self._server, name, f"127.2.{network}.{number}"))
