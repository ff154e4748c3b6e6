"""Rooms on broken connections and over kills of the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import read_database
from reliability.program import Program
from reliability.proxy import Proxy
from reliability.senders import Record, RoomUser, check_stored, check_windows

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from pathlib import Path

# A connection breaks after at most this many bytes in one direction: about 200 messages.
CARRIED_MAX_BYTES = 60_000
PATIENCE_SECONDS = 60.0


class Size(NamedTuple):
    """Each user is in ``rooms_each`` of the rooms, so a room has ``users * rooms_each / rooms`` members."""

    rooms: int
    users: int
    rooms_each: int
    # Answers to all users together, between two kills.
    answers: int
    kills: int


def make_rooms(port: int, size: Size) -> dict[str, list[str]]:
    """Register the users, and make the rooms. Every third one is private. Returns the members, the owner first."""
    members = {
        f"room{room}": [
            f"user{(room + place * (size.rooms + 1)) % size.users}"
            for place in range(size.users * size.rooms_each // size.rooms)
        ]
        for room in range(size.rooms)
    }
    peers = {}
    for number in range(size.users):
        peers[f"user{number}"] = Peer(port)
        peers[f"user{number}"].login(f"user{number}")
    for room, (owner, *others) in members.items():
        requests = [{"command": "join", "room": room, "private": room.endswith(("0", "3", "6"))}]
        requests += [{"command": "invite", "room": room, "username": name} for name in others]
        peers[owner].send(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        for _ in others:
            peers[owner].next("invited")
    for room, names in members.items():
        for name in names[1:]:
            peers[name].ask(command="join", room=room)
    for room, names in members.items():
        for name in names[1:]:
            while peers[name].next("joined")["room"] != room:
                pass
    for peer in peers.values():
        peer.close()
    return members


def keep_connected(crowd: Crowd, users: Sequence[RoomUser], port: int, holds: Callable[[], bool], what: str) -> None:
    """Log in the users that were cut, until the condition holds."""
    while True:
        for user in users:
            if user.is_cut:
                user.log_in(crowd, port)
        crowd.wait_until(lambda: holds() or any(user.is_cut for user in users), what, PATIENCE_SECONDS)
        with crowd.changed:
            if holds():
                return


def check_rooms(folder: Path, chance: random.Random, size: Size) -> None:
    """Let the users talk, and compare what each of them saw with the stored messages."""
    record = Record()
    with Program(folder) as program:
        members = make_rooms(program.port, size)
        users = [
            RoomUser(
                name,
                record,
                chance,
                [room for room, names in members.items() if name in names],
                {room: names[1:] for room, names in members.items() if names[0] == name},
            )
            for name in {name: None for names in members.values() for name in names}
        ]
        assert {len(names) for names in members.values()} == {size.users * size.rooms_each // size.rooms}

        def count_changes() -> tuple[int, int, int]:
            """The ends of memberships, the kicks, and the refused messages of former members."""
            ended = sum(len(user.closed) for user in users)
            kicks = sum(kick.is_done for user in users for kick in user.kicks)
            return ended, kicks, sum(user.refused for user in users)

        with Crowd() as crowd, Proxy(program.port, chance, CARRIED_MAX_BYTES) as proxy:
            for _ in range(size.kills):
                answers = record.answers + int(chance.uniform(0.5, 1.0) * size.answers)
                keep_connected(crowd, users, proxy.port, lambda: record.answers >= answers, f"answer {answers}")  # noqa: B023
                program.kill()
                program.start(program.port)
                record.newest_before = check_stored(program, record, record.newest_before)
            keep_connected(crowd, users, proxy.port, lambda: min(count_changes()) > 0, "a change of each kind")
            for user in users:
                user.is_silent = True
            keep_connected(
                crowd, users, proxy.port, lambda: not any(user.unconfirmed for user in users), "all confirmations"
            )
            stored = read_database(program.data)
            newest = {content.room: message_id for message_id, content in stored.items() if content.recipient is None}
            keep_connected(
                crowd, users, proxy.port, lambda: all(user.has_seen(newest) for user in users), "all messages"
            )
        check_stored(program, record, 0)
        check_windows(users, stored)
    ended, kicks, _ = count_changes()
    print(f"{len(record.confirmed)} messages, {len(proxy.cuts)} cuts, {ended} ends of memberships, {kicks} kicks")
    assert {cut.how for cut in proxy.cuts} == {"close", "reset", "swallow"}
    assert "[ERROR]" not in program.log()


def test_members_see_their_rooms_once_and_in_order(tmp_path: Path, chance: random.Random) -> None:
    """Promise: a user sees all of its rooms while it is a member, and no more; also over lost connections and kills."""
    check_rooms(tmp_path, chance, Size(rooms=10, users=20, rooms_each=5, answers=6_000, kills=2))


@pytest.mark.long
def test_hundred_members_see_their_rooms_once_and_in_order(tmp_path: Path, chance: random.Random) -> None:
    check_rooms(tmp_path, chance, Size(rooms=50, users=100, rooms_each=10, answers=80_000, kills=5))
