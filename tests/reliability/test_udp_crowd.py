"""A thousand UDP sessions at once: all are served, each needs little memory, and lost ones are removed."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

SESSIONS = 1_000
NAMES = [f"user{number}" for number in range(SESSIONS)]
MEBIBYTE = 1024 * 1024
# A thread, its stack and a session need about 30 KiB.
SESSION_MAX_BYTES = 64 * 1024
# Long enough for a thousand logins, which take 11 s on a busy machine, and more on one that stalls.
SILENCE_SECONDS = 40.0
# Maximum delay of the check for lost sessions.
LATE_SECONDS = 10.0
# Fragmentation: a second crowd of the same size may need this much more.
GROWTH_MAX_BYTES = 12 * MEBIBYTE


@pytest.mark.timeout(300)
def test_thousand_sessions_are_served_and_lost_ones_removed(tmp_path: Path) -> None:
    """Twice: the second thousand uses the memory of the first, and leaves with a goodbye."""
    peaks = []
    with Program(tmp_path, silence_seconds=SILENCE_SECONDS) as server, closing(Peer(server.port)) as talker:
        talker.login("talker")
        before_bytes, threads = server.memory_bytes(), server.threads()
        for wave in ("first", "second"):
            with Crowd() as crowd:
                hundreds = (NAMES[at : at + 100] for at in range(0, SESSIONS, 100))
                members = [each for names in hundreds for each in crowd.enter_udp(server.port, names)]
                server.wait_until(lambda: server.threads() == threads + SESSIONS, "a thread for each")
                talker.say(f"hello, {wave} thousand")
                asked_at = time.monotonic()
                for each in members:
                    each.command("PING")
                crowd.wait_until(
                    lambda: all(each.of("D PUBLIC talker") and each.of("C PONG") for each in members),  # noqa: B023
                    "the message and the answers",
                )
                for each in members:
                    assert [frame.partition("\n")[2] for frame in each.of("D ")] == [f"hello, {wave} thousand"]
                    assert each.of("C PONG") == ["C PONG"]
                peaks.append(server.memory_bytes() - before_bytes)
                if wave == "second":
                    for each in members:
                        each.command("EX")
                    crowd.wait_until_all_are_over()
            if wave == "first":  # the crowd has closed its sockets, and sent no goodbye
                closed_at = time.monotonic()
                online = set(NAMES)
                talker.until_fence()
                talker.socket.settimeout(SILENCE_SECONDS + LATE_SECONDS)
                while online:
                    left = talker.next("users")["left"]
                    assert not left or time.monotonic() - asked_at > SILENCE_SECONDS, "each was heard after this"
                    online -= set(left)
                gone_seconds = time.monotonic() - closed_at
                detail = f"detail='nothing was heard for {SILENCE_SECONDS:g} s'"
                server.wait_until(lambda: server.log().count(detail) == SESSIONS, "the entries in the log")  # noqa: B023
        server.wait_until(lambda: server.threads() == threads, "the end of their threads")
        first, second = peaks
        print(f"{first / SESSIONS / 1024:.0f} KiB each; gone in {gone_seconds:.1f} s")
        print(f"{(second - first) / MEBIBYTE:+.1f} MiB for the second thousand")
        assert first < SESSIONS * SESSION_MAX_BYTES
        assert second - first < GROWTH_MAX_BYTES
        assert gone_seconds < SILENCE_SECONDS + LATE_SECONDS
        assert server.stop() == 0
