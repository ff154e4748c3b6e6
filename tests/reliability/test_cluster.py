"""Three servers that share a log, with random faults of servers, NATS and network: see docs/cluster.md."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from reliability.cluster import READY_SECONDS, Cluster, await_, compare_tables, running, wait
from reliability.cluster_check import DIRECT, find_problems, place_of
from reliability.cluster_faults import FaultRunner, Lane, Timeline, plan_faults
from reliability.history import read_database, read_history
from reliability.roaming import LIST_SECONDS, Habits, Record, RoamingClient, members_of, told_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from reliability.history import Content

CLIENTS = 20
SHORT_SECONDS = 8.0
# Deadline until stored messages have reached all clients that are connected: far above the usual time.
HEARD_SECONDS = 30.0
# Problems that a failed test shows.
_SHOWN_MAX = 30
ROOM = "dev"
# Duration of the faults in `make test-long`.
LONG_SECONDS = 60.0 * float(os.environ.get("CHAT_TEST_CLUSTER_MINUTES", "10"))
# A client of a server that is stopped has another one after this time.
SERVICE_SECONDS = 5.0


class Users:
    """The clients, and their record."""

    def __init__(self, cluster: Cluster, chance: random.Random, timeline: Timeline, habits: Habits) -> None:
        names = [f"user{number}" for number in range(CLIENTS)]
        self.rooms = {name: [ROOM] if number % 2 else [] for number, name in enumerate(names)}
        self.record = Record(timeline)
        self.clients = [
            RoamingClient(
                name,
                cluster.servers,
                [other for other in names if other != name],
                self.rooms[name],
                self.record,
                random.Random(chance.random()),
                habits,
            )
            for name in names
        ]
        self._cluster = cluster

    @contextmanager
    def talking(self) -> Iterator[None]:
        """They register, then talk. At the end they wait until all their messages are confirmed and all are heard."""
        for client in self.clients:
            client.enter()
        self._cluster.read_equal_tables()  # the memberships are known on all servers
        with ExitStack() as stack:
            for client in self.clients:
                stack.enter_context(running(client.thread, client.leaving.set))
            yield
            self.record.quiet.set()
            await_(self._are_settled, self._describe, READY_SECONDS)
            self._cluster.read_equal_tables()
            counts = {client.username: self._count_visible(client) for client in self.clients}
            wait(lambda: self._have_heard(counts), HEARD_SECONDS)  # the check tells what is missing
            if self.record.problems:
                return
            self._await_lists(self.clients)
            leavers, stayers = self.clients[::2], self.clients[1::2]
            for client in leavers:
                client.leaving.set()
            self._await_lists(stayers)

    def find_problems(self) -> list[str]:
        """Compare all that was stored with all that was told."""
        cluster, told = self._cluster, told_of(self.record, self.clients)
        histories = {server.name: list(read_database(server.data).items()) for server in cluster.servers}
        problems = [*self.record.problems, *find_problems(histories, told, members_of(self.clients, self.rooms))]
        for server in cluster.servers:
            reader = self.clients[0].username
            stored = dict(histories[server.name])
            visible = {key: each for key, each in stored.items() if each.room is None and _may_read(reader, each)}
            if read_history(server.port, reader) != visible:
                problems.append(f"{server.name} answers CH with another history than it has stored")
        return problems + compare_tables(cluster.read_equal_tables())

    def _await_lists(self, clients: list[RoamingClient]) -> None:
        """Wait until these clients are those whom all of them have in their lists."""
        names = {client.username for client in clients}

        def describe() -> str:
            return f"the right lists: { ({each.username: sorted(names ^ set(each.listed)) for each in clients}) }"

        await_(lambda: all(set(each.listed) == names for each in clients), describe, LIST_SECONDS)

    def _are_settled(self) -> bool:
        return all(client.is_settled for client in self.clients) or bool(self.record.problems)

    def _describe(self) -> str:
        unsettled = {each.username: list(each.unconfirmed) for each in self.clients if not each.is_settled}
        return f"the confirmations of {unsettled}"

    def _have_heard(self, counts: dict[str, int]) -> bool:
        return all(sum(map(len, each.views.values())) >= counts[each.username] for each in self.clients)

    def _count_visible(self, client: RoamingClient) -> int:
        """The number of stored messages that the user may see."""
        rooms = (None, *self.rooms[client.username])
        stored = read_database(self._cluster.servers[0].data).values()
        return sum(each.room in rooms and _may_read(client.username, each) for each in stored)


def _may_read(username: str, content: Content) -> bool:
    return place_of(content) != DIRECT or username in (content.sender, content.recipient)


def run_checker(
    folder: Path,
    chance: random.Random,
    seconds: float,
    rest_max_seconds: float,
    fault_max_seconds: float,
    habits: Habits,
    **cluster_options: Any,
) -> None:
    """Let the users talk for a while, with faults of any one server and any one NATS server; then check all."""
    timeline = Timeline()
    with Cluster(folder, **cluster_options) as cluster:
        users = Users(cluster, chance, timeline, habits)
        runners = []
        for lane, count in ((Lane.CHAT, len(cluster.servers)), (Lane.NATS, len(cluster.nats.servers))):
            faults = plan_faults(random.Random(chance.random()), lane, count, rest_max_seconds, fault_max_seconds)
            runners.append(FaultRunner(cluster, faults, timeline, users.record.note_problem))
        try:
            with users.talking(), ExitStack() as stack:
                for runner in runners:
                    stack.enter_context(running(runner.thread, runner.stop))
                users.record.failed.wait(seconds)
            problems = users.find_problems()
            problems += [f"{each.name} has ended" for each in cluster.servers if not each.is_running]
        except BaseException:
            problems = users.record.problems
            raise
        finally:
            (folder / "timeline.txt").write_text(str(timeline))
            confirmed, connections = len(users.record.confirmed), sum(each.connections for each in users.clients)
            print(f"{confirmed} messages, {connections} connections, {sum(each.count for each in runners)} faults")
            print(timeline.main())
            print("\n".join(problems[:_SHOWN_MAX]))
        assert not problems, problems[0]
        assert confirmed > CLIENTS * seconds / 10, "the clients hardly talked"
        assert all(runner.count for runner in runners)


def test_cluster_loses_nothing_in_a_few_faults(tmp_path: Path, chance: random.Random) -> None:
    """Promises: see find_problems, for messages and histories; Presence, for the lists of users."""
    run_checker(tmp_path, chance, SHORT_SECONDS, 1.0, 3.0, Habits(stay_max_seconds=4.0))


@pytest.mark.long
@pytest.mark.timeout(LONG_SECONDS + 300)
def test_cluster_loses_nothing_in_many_faults(tmp_path: Path, chance: random.Random) -> None:
    """The same for ten minutes, with pauses that are longer than the lease of a server."""
    run_checker(tmp_path, chance, LONG_SECONDS, 8.0, 20.0, Habits())


def test_rolling_upgrade_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    """Promise: no client is without service for more than 5 s while all servers are replaced, one by one.

    The best replacement counts: the machine may stall during the others.
    """
    timeline = Timeline()
    begins: list[float] = []
    with Cluster(tmp_path) as cluster:
        users = Users(cluster, chance, timeline, Habits(stay_max_seconds=LONG_SECONDS, absent_share=0.0))
        with users.talking():
            for server in cluster.servers:
                timeline.note(f"{server.name} is replaced", is_main=True)
                begins.append(time.monotonic())
                server.healthy_since = None
                assert server.program.stop() == 0
                server.launch()
                server.await_ready()
                server.healthy_since = time.monotonic()
        print(timeline.main())
        assert users.find_problems() == []
        waits = [each for client in users.clients for each in client.waits]
        longest = [
            max((seconds for said_at, seconds in waits if begin <= said_at < end), default=math.inf)
            for begin, end in itertools.pairwise([*begins, math.inf])
        ]
        print(f"without service for {', '.join(f'{each:.1f} s' for each in longest)} at most")
        assert min(longest) < SERVICE_SECONDS
