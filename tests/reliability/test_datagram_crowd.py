"""Many sessions over UDP at once: all are served, what each costs is bounded, and who vanishes costs nothing more."""

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

SESSIONS = 1_000
NAMES = [f"user{number}" for number in range(SESSIONS)]
MEBIBYTE = 1024 * 1024
# A thread, its stack, a session. It is about 30 KiB.
SESSION_MAX_BYTES = 64 * 1024
# The promise is that they are gone 60 s after they were last heard; it is looked 20 times in a second.
SILENCE_SECONDS = 60.0
GONE_SECONDS = SILENCE_SECONDS + 3.0
# What a second crowd as large as the first may cost more: what was freed lies in pieces.
GROWTH_MAX_BYTES = 12 * MEBIBYTE


def talk(crowd: Callers, witness: Peer, text: str) -> None:
    """Everybody hears the same, and everybody is answered what they ask."""
    heard = [len(each.of("D PUBLIC witness")) for each in crowd.members]
    pongs = [len(each.of("C PONG")) for each in crowd.members]
    witness.say(text)
    crowd.wait_until(
        lambda: all(
            len(each.of("D PUBLIC witness")) == before + 1 for each, before in zip(crowd.members, heard, strict=True)
        ),
        "everybody to hear it",
    )
    assert {each.of("D PUBLIC witness")[-1].partition("\n")[2] for each in crowd.members} == {text}
    for each in crowd.members:
        each.command("PING")
    crowd.wait_until(
        lambda: all(len(each.of("C PONG")) == before + 1 for each, before in zip(crowd.members, pongs, strict=True)),
        "everybody to be answered",
    )


@pytest.mark.timeout(180)
def test_a_thousand_sessions_at_once_are_served_and_nothing_is_left_of_those_who_vanish(tmp_path: Path) -> None:
    """Twice: what the first thousand cost serves the second, who leave politely."""
    peaks = []
    with Program(tmp_path) as server, Callers() as crowd, closing(Peer(server.port)) as witness:
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
                witness.socket.settimeout(GONE_SECONDS)
                witness.ask(command="users")
                while here:
                    left = witness.next("users")["left"]
                    assert not left or time.monotonic() - vanished_at > SILENCE_SECONDS - 5.0
                    here -= set(left)
                gone_seconds = time.monotonic() - vanished_at
                assert server.log().count("detail='nothing was heard for 60 s'") == SESSIONS
        for each in crowd.members:
            each.command("EX")
        crowd.wait_until(lambda: all(each.is_over for each in crowd.members), "the goodbyes")
        server.wait_until(lambda: server.threads() == threads, "the end of their threads")
        first, second = peaks
        print(f"{first / SESSIONS / 1024:.0f} KiB each; gone in {gone_seconds:.1f} s")
        print(f"{(second - first) / MEBIBYTE:+.1f} MiB for the second thousand")
        assert first < SESSIONS * SESSION_MAX_BYTES
        assert second - first < GROWTH_MAX_BYTES
        assert gone_seconds < GONE_SECONDS
        assert server.stop() == 0


def test_what_a_session_cost_is_given_back_when_it_is_over(tmp_path: Path) -> None:
    """At once: not when the collector comes by, which looks for what should not be there."""
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
