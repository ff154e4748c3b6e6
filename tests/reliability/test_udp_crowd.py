"""A thousand sessions over UDP at once: all are served, each costs little, and lost ones cost nothing more."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer, c, d
from reliability.callers import Callers
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

SESSIONS = 1_000
NAMES = [f"user{number}" for number in range(SESSIONS)]
MEBIBYTE = 1024 * 1024
# A thread, its stack and a session. It is about 30 KiB.
SESSION_MAX_BYTES = 64 * 1024
# Long enough for a thousand logins.
SILENCE_SECONDS = 15.0
# Maximum delay of the check for lost sessions.
LATE_SECONDS = 3.0
# Fragmentation: a second crowd of the same size may cost this much more.
GROWTH_MAX_BYTES = 12 * MEBIBYTE


def talk(crowd: Callers, witness: Peer, text: str) -> None:
    """All hear the same message, and each ping is answered."""
    heard = [len(each.of("D PUBLIC witness")) for each in crowd.members]
    pongs = [len(each.of("C PONG")) for each in crowd.members]
    witness.say(text)
    for each in crowd.members:
        each.command("PING")
    crowd.wait_until(
        lambda: all(
            (len(each.of("D PUBLIC witness")), len(each.of("C PONG"))) == (heard_before + 1, pongs_before + 1)
            for each, heard_before, pongs_before in zip(crowd.members, heard, pongs, strict=True)
        ),
        "the message and the answers",
    )
    assert {each.of("D PUBLIC witness")[-1].partition("\n")[2] for each in crowd.members} == {text}


@pytest.mark.timeout(180)
def test_thousand_sessions_are_served_and_lost_ones_removed(tmp_path: Path) -> None:
    """Twice: the second thousand reuses what the first one cost, and leaves politely."""
    peaks = []
    with (
        Program(tmp_path, silence_seconds=SILENCE_SECONDS) as server,
        Callers() as crowd,
        closing(Peer(server.port)) as witness,
    ):
        witness.login("witness")
        before_bytes, threads = server.memory_bytes(), server.threads()
        for wave in ("first", "second"):
            crowd.enter(server.port, NAMES)
            assert server.threads() == threads + SESSIONS
            talk(crowd, witness, f"hello, {wave} thousand")
            crowd.members[0].send(c("PM") + d("hello, all"))
            crowd.wait_until(
                lambda: sum(len(each.of("D PUBLIC user0")) for each in crowd.members) == SESSIONS - 1, "all"
            )
            peaks.append(server.memory_bytes() - before_bytes)
            if wave == "first":
                crowd.vanish(crowd.members)
                vanished_at = time.monotonic()
                here = set(NAMES)
                witness.until_fence()
                witness.socket.settimeout(SILENCE_SECONDS + LATE_SECONDS)
                witness.ask(command="users")
                while here:
                    left = witness.next("users")["left"]
                    assert not left or time.monotonic() - vanished_at > SILENCE_SECONDS - 5.0
                    here -= set(left)
                gone_seconds = time.monotonic() - vanished_at
                assert server.log().count(f"detail='nothing was heard for {SILENCE_SECONDS:g} s'") == SESSIONS
        for each in crowd.members:
            each.command("EX")
        crowd.wait_until(lambda: all(each.is_over for each in crowd.members), "the goodbyes")
        server.wait_until(lambda: server.threads() == threads, "the end of their threads")
        first, second = peaks
        print(f"{first / SESSIONS / 1024:.0f} KiB each; gone in {gone_seconds:.1f} s")
        print(f"{(second - first) / MEBIBYTE:+.1f} MiB for the second thousand")
        assert first < SESSIONS * SESSION_MAX_BYTES
        assert second - first < GROWTH_MAX_BYTES
        assert gone_seconds < SILENCE_SECONDS + LATE_SECONDS
        assert server.stop() == 0


def test_ended_sessions_give_their_memory_back(tmp_path: Path) -> None:
    """At once, without the garbage collector."""
    with Program(tmp_path) as server:
        threads, rests = server.threads(), []
        for _ in range(6):
            with Callers() as crowd:
                for caller in crowd.enter(server.port, NAMES[:300]):
                    caller.command("EX")
                crowd.wait_until(lambda: all(each.is_over for each in crowd.members), "the goodbyes")
            server.wait_until(lambda: server.threads() == threads, "the end of their threads")
            rests.append(server.memory_bytes())
        assert rests[-1] - rests[0] < 2 * MEBIBYTE
