"""One order: all clients see the messages in the order of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from reliability.crowd import Crowd
from reliability.history import Content, read_history
from reliability.program import Program

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from pathlib import Path

    from reliability.crowd import Member

    Line: TypeAlias = dict[str, Any]

NAMES = [f"user{number}" for number in range(20)]
PUBLIC_EACH = 50
DIRECT_EACH = 10


def lines_of(name: str, chance: random.Random) -> list[Line]:
    """The commands of a client: public messages, with direct ones between them."""
    lines: list[Line] = [{"command": "PM", "message": f"{name} says {turn}"} for turn in range(PUBLIC_EACH)]
    for turn in range(DIRECT_EACH):
        other = chance.choice([other for other in NAMES if other != name])
        whisper = {"command": "DM", "to": other, "message": f"{name} whispers {turn}"}
        lines.insert(chance.randint(0, len(lines)), whisper)
    return lines


def view_of(member: Member, lines: Iterable[Line]) -> list[tuple[int, str]]:
    """Id and text of each message, in the order in which the client got it or its confirmation."""
    own = iter(lines)
    return [
        (answer["id"], next(own)["message"] if answer["type"] == "sent" else answer["message"])
        for answer in member.of("broadcast", "direct", "sent")
    ]


def test_all_see_messages_in_the_order_of_the_history(tmp_path: Path, chance: random.Random) -> None:
    """Promise: one order."""
    said = {name: lines_of(name, chance) for name in NAMES}
    everything = {Content(name, line.get("to"), line["message"]) for name in said for line in said[name]}
    visible = {
        name: {content for content in everything if content.recipient is None or name in content[:2]}
        for name in [*NAMES, "late"]
    }
    with Program(tmp_path) as program, Crowd() as crowd:
        members = crowd.enter(program.port, NAMES)
        for turn in range(PUBLIC_EACH + DIRECT_EACH):
            for member in members:
                member.ask(**said[member.name][turn])
        crowd.wait_until(lambda: all(len(each.seen) > len(visible[each.name]) for each in members), "all messages")
        members += crowd.enter(program.port, ["late"], since=0)
        crowd.wait_until(lambda: len(members[-1].seen) > len(visible["late"]), "all messages since the beginning")
        for member in members:
            member.ask(command="ping")  # a fence after any message that comes twice
        crowd.wait_until(lambda: all(member.seen[-1]["type"] == "pong" for member in members), "the fence")
        history = {name: read_history(program.port, name) for name in visible}
    for member in members:
        stored = history[member.name]
        assert view_of(member, said.get(member.name, [])) == [(key, content.text) for key, content in stored.items()]
        assert set(stored.values()) == visible[member.name]
        assert {key: content for key, content in stored.items() if content.recipient is None} == history["late"]
