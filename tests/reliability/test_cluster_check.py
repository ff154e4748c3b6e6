"""The check of a cluster's histories finds each kind of fault in made-up histories; and the plan of real faults."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, NamedTuple

import pytest
from reliability.cluster_check import DIRECT, LOBBY, Told, View, find_problems
from reliability.cluster_faults import Fault, Kind, Lane, plan_faults
from reliability.history import Content
from reliability.roaming import ELECTION_SECONDS, LIST_SECONDS, ListWatch, Presence

if TYPE_CHECKING:
    from reliability.cluster_check import History

SAID = [
    (1, Content("alice", None, "a1")),
    (2, Content("bob", None, "b1", "dev")),
    (4, Content("alice", "bob", "a2")),
    (5, Content("bob", None, "b2")),
    (6, Content("carol", None, "c1")),
]
REFUSED = Content("carol", None, "c2")
MEMBERS = {"dev": frozenset({"alice", "bob"})}
VIEWS = (
    View("alice", LOBBY, (1, 5, 6)),
    View("alice", "dev", (2,)),
    View("alice", DIRECT, (4,)),
    View("bob", DIRECT, (4,)),
    View("carol", LOBBY, (1, 5, 6)),
    View("carol", "dev", ()),
    View("carol", DIRECT, ()),
)
TOLD = Told(SAID, [REFUSED], dict(SAID), VIEWS)


class Case(NamedTuple):
    """Another history of the second server, or other views; and words of the problem that must be found."""

    words: str
    second: History = SAID
    # In place of the first view.
    view: View = VIEWS[0]


CASES = {
    "lost": Case("s2: a confirmed message is lost: 5", SAID[:3] + SAID[4:]),
    "stored twice": Case("s2: messages are stored more than once", [*SAID, (7, SAID[0][1])]),
    "another id": Case("s2: a message was confirmed as 6, which is None", [*SAID[:4], (7, SAID[4][1])]),
    "another text": Case("s2: a message was seen as 6", [*SAID[:4], (6, Content("carol", None, "C1"))]),
    "swapped": Case("as 5, which is", [*SAID[:3], (5, SAID[4][1]), (6, SAID[3][1])]),
    "reordered": Case("s2: its ids don't grow", [*SAID[:3], SAID[4], SAID[3]]),
    "refused": Case("s2: a message was refused, and is stored", [*SAID, (7, REFUSED)]),
    "more on one": Case("s2 and s1 have other histories", [*SAID, (7, Content("bob", None, "b3"))]),
    "missed": Case("alice in lobby: 1 messages are missing: [5]", view=View("alice", LOBBY, (1, 6))),
    "missed at the end": Case("1 messages are missing: [6]", view=View("alice", LOBBY, (1, 5))),
    "told twice": Case("1 messages are repeated: [5]", view=View("alice", LOBBY, (1, 5, 5, 6))),
    "told again": Case("messages are out of order: [1]", view=View("alice", LOBBY, (1, 5, 1, 6))),
    "told late": Case("messages are out of order: [5]", view=View("alice", LOBBY, (1, 6, 5))),
    "of others": Case("carol in dev: 1 messages are not of this user: [2]", view=View("carol", "dev", (2,))),
    "direct of others": Case("1 messages are not of this user: [4]", view=View("carol", DIRECT, (4,))),
}


@pytest.mark.parametrize("name", CASES)
def test_fault_is_found(name: str) -> None:
    case = CASES[name]
    told = TOLD._replace(views=(case.view, *VIEWS[1:]))
    problems = find_problems({"s1": SAID, "s2": case.second, "s3": SAID}, told, MEMBERS)
    assert any(case.words in each for each in problems), problems


def test_right_histories_have_no_problems() -> None:
    assert find_problems({"s1": SAID, "s2": SAID, "s3": SAID}, TOLD, MEMBERS) == []


def test_mistake_in_a_list_of_users_counts_at_the_second_look() -> None:
    """At the first, the thread of the user may not have noted that it came or left; or the log has no leader."""
    now = [0.0]
    presence = Presence(lambda: now[0])
    watch = ListWatch(presence)
    presence.leave("alice")
    now[0] = LIST_SECONDS
    assert watch.look(["alice"], 0.0) == watch.look(["alice"], 0.0) == []
    now[0] += 1
    assert watch.look(["alice"], 0.0) == watch.look([], 0.0) == watch.look(["alice"], 0.0) == []
    presence.leave("alice")
    now[0] += LIST_SECONDS + 1
    assert watch.look(["alice"], 0.0) == []
    assert watch.look(["alice"], 0.0) == ["alice left 16.0 s ago, and the list is ['alice']"]
    assert watch.look(["alice"], 0.0, now[0] - ELECTION_SECONDS) == []
    assert watch.look(["alice"], 0.0) == []
    assert watch.look(["alice"], 0.0, now[0] - ELECTION_SECONDS - 1) != []


def test_plan_depends_on_the_seed_and_has_each_kind_of_fault() -> None:
    def plan(seed: int) -> list[Fault]:
        return list(itertools.islice(plan_faults(random.Random(seed), Lane.CHAT, 3, 2.0, 20.0), 10))

    assert plan(1) == plan(1) != plan(2)
    assert [sorted({each.kind for each in part}) for part in (plan(1)[:5], plan(1)[5:])] == [sorted(Kind)] * 2
    assert all(0 <= each.index < 3 and 0 < each.seconds <= 20.0 for each in plan(1))
