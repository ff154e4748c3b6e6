"""The servers of a shared log tell each other who is online, over broadcasts that may be lost or overtaken."""

import heapq
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatserver.chat import peers as peers_module
from chatserver.chat.login_throttle import LoginThrottle, Pace, ThrottleLimits
from chatserver.chat.peers import PART_MAX_BYTES, Peers
from chatserver.chat.presence import Presence
from chatserver.journal.base import Appended, Applied
from chatserver.journal.entries import Entry, ServerGone, ServerStart
from chatserver.journal.log import LEASE_RENEWAL_SECONDS, LEASE_SECONDS
from chatserver.store.rooms import LOBBY_ID

from .helpers import eventually

TICK_SECONDS = 0.1
# The promise: a user who has left is offline everywhere after this time.
GONE_SECONDS = 15.0
ROOMS = {LOBBY_ID: None, 7: "dev"}
SERVERS = ("a", "b", "c")
NAMES = ("alice", "bob", "carol", "dave")


class World:
    """The log, the leases, the time, and the way of broadcasts between the nodes."""

    def __init__(self, seed: int = 0, *, loss: float = 0.0, delay_seconds: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss, self.delay_seconds = loss, delay_seconds
        self.now = 1_000.0
        self.nodes: dict[str, Node] = {}
        # Entries of runs, each with the run that wrote it.
        self.entries: list[tuple[str, ServerStart | ServerGone]] = []
        self.leases: dict[str, tuple[str, float]] = {}
        self.leases_are_unknown = False
        # Broadcasts on their way: when they arrive, a number, the receiver, and the bytes.
        self._moving: list[tuple[float, int, str, bytes]] = []
        self._sent = 0
        # The kinds of broadcasts whose last one was lost: the next one is not.
        self._lost: set[tuple[str, str, int]] = set()
        self.is_cut = False
        self.sizes: list[int] = []

    def node(self, server: str) -> "Node":
        return self.nodes[server]

    def send(self, sender: str, data: bytes) -> None:
        self.sizes.append(len(data))
        for receiver in self.nodes:
            way = (sender, receiver, data[2])
            is_lost = self.random.random() < self.loss and way not in self._lost
            self._lost ^= {way} if is_lost or way in self._lost else set()
            if not is_lost and not self.is_cut:
                self._sent += 1
                arrives_at = self.now + self.random.random() * self.delay_seconds
                heapq.heappush(self._moving, (arrives_at, self._sent, receiver, data))

    def run(self, seconds: float = TICK_SECONDS, check: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            while self._moving and self._moving[0][0] <= self.now:
                _, _, receiver, data = heapq.heappop(self._moving)
                if receiver in self.nodes:
                    self.nodes[receiver].waiting.append(data)
            for node in list(self.nodes.values()):
                if not node.is_paused:
                    node.tick()
            check()

    def shown(self) -> set[tuple[int, str]]:
        """The users that any server shows, with their rooms."""
        return {(room_id, name) for node in self.nodes.values() for room_id in ROOMS for name in node.shown(room_id)}


class Node:
    """A server: its presence and peers, what it has applied of the log, and its users."""

    def __init__(self, world: World, server: str, run: str | None = None, **options: Any) -> None:
        self.world, self.server = world, server
        self.waiting: list[bytes] = []
        self.run = ""
        self.runs: dict[str, str] = {}
        self._applied = 0
        self.is_paused = False
        self.ran_since = world.now
        self.users: dict[int, set[str]] = {room_id: set() for room_id in ROOMS}
        self.crashes: list[str] = []
        self.times_lost = 0
        self.checkpoints: dict[int, bytes] = {}
        self.clock_ms = 0
        self.presence = Presence(1_000_000.0, self.crashes.append)
        self.throttle = LoginThrottle(options.pop("limits", None))
        doubles: Any = self  # it is the log and the journal, too
        self.peers = Peers(
            server=server,
            log=doubles,
            journal=doubles,
            presence=self.presence,
            throttle=self.throttle,
            find_run=lambda: self.run,
            read_runs=lambda: self.runs,
            checkpoints=lambda: self.checkpoints,
            on_lost=self._note_lost,
            on_crash=self.crashes.append,
            clock=lambda: world.now,
            now_ms=lambda: int(world.now * 1000) + self.clock_ms,
        )
        self.receive: Callable[[bytes], None] = self.peers.receive
        world.nodes[server] = self
        self.begin_run(run or f"{server}-{len(world.entries)}")

    def _note_lost(self) -> None:
        self.times_lost += 1

    # --- the log and the journal ---

    def broadcast(self, data: bytes) -> None:
        self.world.send(self.server, data)

    def find_lease(self, server: str) -> str | None:
        if self.world.leases_are_unknown:
            raise ConnectionError
        run, renewed_at = self.world.leases.get(server, ("", float("-inf")))
        return run if self.world.now - renewed_at < LEASE_SECONDS else None

    def append(self, entries: Iterable[Entry[None]]) -> Appended[None]:
        appended: Appended[None] = Appended(list(entries), None)
        self.world.entries += [(self.run, each) for each in entries]  # type: ignore[misc]
        appended.complete([None])
        return appended

    # --- what happens to a server ---

    def begin_run(self, run: str) -> None:
        self.run = run
        self.world.entries.append((run, ServerStart(self.server)))
        self._renew()

    def _renew(self) -> None:
        self.world.leases[self.server] = (self.run, self.world.now)

    def tick(self) -> None:
        """Run for a moment: read the log, perhaps not all of it, and step."""
        if self.world.now - self.world.leases[self.server][1] >= LEASE_RENEWAL_SECONDS:
            self._renew()
        lag = self.world.random.randrange(3) if self.world.delay_seconds else 0
        for run, entry in self.world.entries[self._applied : max(self._applied, len(self.world.entries) - lag)]:
            self._applied += 1
            if isinstance(entry, ServerStart):
                self.runs = {**self.runs, entry.server: run}
            elif self.runs.get(entry.server) == entry.run:
                self.runs = {**self.runs, entry.server: ""}
                if entry.server == self.server and entry.run == self.run:
                    self.begin_run(f"{self.server}-{len(self.world.entries)}")
            self.peers.handle_applied([Applied(entry, None, None, 0)])
        received, self.waiting = self.waiting, []
        for data in received:
            self.receive(data)
        self.peers.step()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused, self.ran_since = False, self.world.now

    def kill(self) -> None:
        """End without a broadcast."""
        del self.world.nodes[self.server]

    def stop(self) -> None:
        """End in order."""
        self.peers.stop()
        self.world.entries.append((self.run, ServerGone(self.server, self.run)))
        self.world.leases.pop(self.server)
        self.kill()

    def set_users(self, room_id: int, names: set[str]) -> None:
        for name in sorted(names - self.users[room_id]):
            self.presence.add(name, room_id, ROOMS[room_id])
        for name in sorted(self.users[room_id] - names):
            self.presence.remove(name, room_id)
        self.users[room_id] = names

    def shown(self, room_id: int = LOBBY_ID) -> set[str]:
        return set(self.presence.names(room_id))


def start(*servers: str, seconds: float = 3.0, **options: Any) -> tuple[World, list[Node]]:
    """Servers that know each other."""
    world = World()
    nodes = [Node(world, server, **options) for server in servers]
    world.run(seconds)
    return world, nodes


ACTS = st.tuples(
    st.sampled_from(SERVERS),
    st.one_of(
        st.tuples(st.sampled_from(sorted(ROOMS)), st.sets(st.sampled_from(NAMES))),
        st.sampled_from(["kill", "stop", "pause", "resume", "start", "cut", "mend"]),
    ),
    st.sampled_from([0.0, 0.2, 3.0, 20.0]),
)


def act(world: World, server: str, what: str | tuple[int, set[str]]) -> None:
    """Let something happen, if it can."""
    node = world.nodes.get(server)
    if what == "cut":
        world.is_cut = True
    elif what == "mend":
        world.is_cut = False
    elif what == "start":
        if node is None:
            Node(world, server).set_users(LOBBY_ID, {"alice", server})
    elif node is None:
        return
    elif isinstance(what, tuple):
        if not node.is_paused:
            node.set_users(*what)
    elif what != "stop" or not node.is_paused:
        getattr(node, what)()


@example([("a", (0, set()), 3.0), ("c", (0, set()), 3.0), ("a", (0, set()), 3.0), ("c", "kill", 0.0)], 1)
@given(st.lists(ACTS, max_size=10), st.integers(0, 1_000))
def test_all_servers_show_the_users_of_all_servers(
    acts: list[tuple[str, Any, float]],
    seed: int,
) -> None:
    """Servers are killed, paused, stopped and started; broadcasts are lost, overtaken and, for a time, cut off.

    A server that ran all the time shows no user for longer than 15 s after it has left, or after a server was killed or
    paused, which may have told of it in vain. In the end all agree.
    """
    world = World(seed, loss=0.15, delay_seconds=0.3)
    for server in SERVERS:
        Node(world, server).set_users(LOBBY_ID, {"alice", server})
    # When each user was last on a server, or on the way to it.
    online_at: dict[tuple[int, str], float] = {}
    mended_at = world.now

    def check() -> None:
        nonlocal mended_at
        mended_at = world.now if world.is_cut else mended_at
        for node in world.nodes.values():
            online_at.update({(room_id, name): world.now for room_id in ROOMS for name in node.users[room_id]})
        for node in world.nodes.values():
            ran_since = max(node.ran_since, mended_at)
            for room_id in ROOMS:
                for name in node.shown(room_id):
                    left_at = max(online_at[room_id, name], ran_since)
                    assert node.is_paused or world.now - left_at <= GONE_SECONDS, (node.server, room_id, name)

    for server, what, seconds in acts:
        # News that were lost before a server ends are not repeated.
        online_at.update(dict.fromkeys(world.shown() if what in ("kill", "pause") else (), world.now))
        act(world, server, what)
        world.run(seconds, check)
    world.is_cut = False
    for node in world.nodes.values():
        node.resume()
    world.run(2 * GONE_SECONDS, check)
    world.loss = 0.0
    world.run(GONE_SECONDS, check)
    for room_id in ROOMS:
        truth = set().union(*(node.users[room_id] for node in world.nodes.values()))
        assert {node.server: node.shown(room_id) for node in world.nodes.values()} == dict.fromkeys(world.nodes, truth)
    assert all(node.crashes == [] and not node.times_lost for node in world.nodes.values())


def test_changes_are_known_at_once_and_a_clean_end_too() -> None:
    world, (a, b) = start("a", "b")
    a.set_users(LOBBY_ID, {"alice"})
    world.run(0.3)
    assert b.shown() == {"alice"}
    a.stop()
    world.run(0.3)
    assert b.shown() == set()


def test_users_of_a_killed_server_leave_after_its_lease() -> None:
    world, (a, b, c) = start("a", "b", "c")
    a.set_users(LOBBY_ID, {"alice"})
    world.run(1.0)
    a.kill()
    world.run(9.0)
    assert b.shown() == c.shown() == {"alice"}
    world.run(GONE_SECONDS - 9.0)
    assert b.shown() == c.shown() == set()


def test_silent_server_with_a_lease_stays() -> None:
    """The server runs, but its broadcasts are lost, or the leases can't be read."""
    world, (a, b) = start("a", "b")
    a.set_users(LOBBY_ID, {"alice"})
    world.run(1.0)
    world.is_cut = True
    world.run(60.0)
    assert b.shown() == {"alice"}
    a.kill()
    world.leases_are_unknown = True
    world.run(60.0)
    assert b.shown() == {"alice"}
    world.leases_are_unknown = False
    world.run(2.0)
    assert b.shown() == set()


def test_paused_server_takes_no_other_for_gone() -> None:
    """During the pause it loses the broadcasts of the others, and their leases may look old."""
    world, (a, b) = start("a", "b")
    b.set_users(LOBBY_ID, {"bob"})
    world.run(1.0)
    a.pause()
    world.is_cut = True
    world.run(20.0)
    b.pause()
    world.leases.clear()
    a.resume()
    a.world.leases["a"] = (a.run, world.now)
    world.run(9.0)
    assert a.shown() == {"bob"}
    world.run(3.0)
    assert a.shown() == set()


def test_server_whose_lease_has_another_run_is_gone() -> None:
    world, (a, b) = start("a", "b")
    a.set_users(LOBBY_ID, {"alice"})
    world.run(1.0)
    a.kill()
    world.leases["a"] = ("another", world.now + 1_000.0)
    world.run(GONE_SECONDS)
    assert b.shown() == set()


def test_server_that_was_taken_for_gone_comes_back_with_its_users() -> None:
    world, (a, b) = start("a", "b")
    a.set_users(LOBBY_ID, {"alice"})
    world.run(1.0)
    old_run = a.run
    a.pause()
    world.run(GONE_SECONDS)
    assert b.shown() == set()
    a.resume()
    world.run(3.0)
    assert a.run != old_run
    assert b.shown() == {"alice"}


def record(node: Node, *, passes_on: bool = True) -> list[bytes]:
    """The broadcasts that arrive from now on; they may be lost."""
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        if passes_on:
            node.peers.receive(data)

    node.receive = receive
    return heard


def test_broadcasts_of_a_former_run_are_ignored() -> None:
    """Their versions are higher than those of the present run."""
    world, (a, b) = start("a", "b")
    heard = record(b)
    for names in ({"alice"}, {"alice", "bob"}, {"bob"}):
        a.set_users(LOBBY_ID, names)
        world.run(3.0)
    a.kill()
    a = Node(world, "a")
    a.set_users(LOBBY_ID, {"carol"})
    world.run(3.0)
    for data in list(heard):
        b.peers.receive(data)
        world.run()
        assert b.shown() == {"carol"}


def test_lost_changes_are_repaired_when_the_next_ones_arrive() -> None:
    world, (a, b) = start("a", "b", seconds=2.5)
    record(b, passes_on=False)
    a.set_users(LOBBY_ID, {"alice"})
    world.run(0.2)
    record(b)
    a.set_users(LOBBY_ID, {"alice", "bob"})
    world.run(0.4)
    assert b.shown() == {"alice", "bob"}


def test_repeated_broadcasts_change_nothing() -> None:
    """A repeated state or change is older than the version that the receiver has."""
    world, (a, b) = start("a", "b", seconds=0.0)
    heard = record(b)
    a.set_users(LOBBY_ID, {"alice"})
    world.run(3.0)
    a.set_users(LOBBY_ID, {"bob"})
    world.run(3.0)
    for data in list(heard):
        b.peers.receive(data)
        world.run()
        assert b.shown() == {"bob"}


def test_parts_of_different_states_are_not_mixed() -> None:
    world, (a, b) = start("a", "b")
    many = {f"user{number:028}" for number in range(9_000)}
    states: list[list[bytes]] = []
    for names in (many, many - {"user" + "0" * 28} | {"alice"}):
        a.set_users(LOBBY_ID, names)
        heard = record(b, passes_on=False)
        b.peers.step()
        Node(world, "c")
        world.run(2.0)
        world.node("c").stop()
        states.append([data for data in heard if data[2] == 3 and len(data) > 10_000])
    (first, *_), (_, second, *_) = states
    b.peers.receive(first)
    b.peers.receive(second)
    b.peers.step()
    assert b.shown() == set()


def test_many_users_are_told_in_parts() -> None:
    world, (a,) = start("a")
    names = {f"user{number:028}" for number in range(10_000)}
    a.set_users(LOBBY_ID, names)
    a.set_users(7, names)
    world.run(1.0)
    b = Node(world, "b")
    world.run(3.0)
    assert b.shown() == b.shown(7) == names
    a.set_users(7, set())
    world.run(1.0)
    assert b.shown(7) == set()
    assert max(world.sizes) <= PART_MAX_BYTES + 1_000


def test_state_is_sent_once_for_all_that_request_it() -> None:
    world, (a,) = start("a")
    a.set_users(LOBBY_ID, {"alice"})
    for server in "bcdefgh":
        Node(world, server)
    world.sizes.clear()
    kinds: list[int] = []
    world.nodes["b"].receive = lambda data: kinds.append(data[2])
    world.run(20.0)
    assert kinds.count(3) <= 8 + 2


@pytest.mark.parametrize("data", [b"", b"\x02\x95\x01", b"\x01\xff", b"\x01\x95\x01\xa1a"])
def test_broadcast_that_cannot_be_read_is_ignored(data: bytes) -> None:
    """A server of a later version may have sent it."""
    world, (a, b) = start("a", "b")
    with capture_logs() as log:
        for _ in range(3):
            a.peers.receive(data)
            world.run()
    assert [entry["event"] for entry in log] == ["broadcast ignored"]
    b.set_users(LOBBY_ID, {"alice"})
    world.run(0.3)
    assert a.shown() == {"alice"}


@pytest.mark.parametrize(("seconds", "is_told"), [(4.0, False), (6.0, True), (-6.0, True)])
def test_clock_that_differs_is_reported_once(seconds: float, *, is_told: bool) -> None:
    """A difference that lasts is reported; after a pause, all broadcasts are late for a moment."""
    world, (a, b) = start("a", "b")
    a.clock_ms = int(seconds * 1000)
    with capture_logs() as log:
        world.run(8.0)
        assert log == []
        world.run(30.0)
    told = [(entry["event"], entry["server"], round(entry["seconds"])) for entry in log]
    assert sorted(told) == ([("peer clock differs", "a", seconds), ("peer clock differs", "b", -seconds)] * is_told)
    assert b.crashes == []


# --- checkpoints ---
@pytest.mark.parametrize(
    ("digests", "lost"),
    [
        ("xx", ""),
        ("xy", "ab"),
        ("xxy", "c"),
        ("xyx", "b"),
        ("xyz", "abc"),
        ("xx-", ""),
        ("xy-", "ab"),
        ("xxyy", "abcd"),
    ],
)
def test_server_whose_data_differ_stops(digests: str, lost: str) -> None:
    """A minority stops, and all stop if there is no majority. A server without a digest of the record has no vote."""
    world, nodes = start(*"abcd"[: len(digests)])
    for node, digest in zip(nodes, digests, strict=True):
        node.checkpoints = {} if digest == "-" else {1_000: digest.encode()}
    with capture_logs() as log:
        world.run(20.0)
    assert "".join(node.server for node in nodes if node.times_lost) == lost
    assert all(node.times_lost <= 1 for node in nodes)
    sentences = [entry["error"] for entry in log if entry["event"] == "shared log lost"]
    assert all("at record 1000 of the shared log; start it with an empty data folder." in each for each in sentences)
    assert len(sentences) == len(lost)


def test_minority_is_not_judged_before_all_have_told_their_digest() -> None:
    """The first two servers that compare may be a right one and the wrong one."""
    world, (a, b, c) = start("a", "b", "c")
    a.checkpoints, b.checkpoints = {1_000: b"right"}, {1_000: b"wrong"}
    world.run(5.0)
    c.checkpoints = {1_000: b"right", 2_000: b"right"}
    world.run(10.0)
    assert (a.times_lost, c.times_lost) == (0, 0)
    b.checkpoints = {}


# --- wrong passwords ---
def guess(node: Node, now: float, network: str = "n", account: str = "alice") -> float | None:
    """Try a wrong password: None if it was checked at once, else the wait."""
    attempt = node.throttle.enter(now, account, network, is_known=False, wake=lambda: None)
    wait_seconds = node.throttle.poll(attempt, now)
    if wait_seconds is None:
        node.throttle.finish(attempt, now, was_right=False)
    else:
        node.throttle.leave(attempt, now)
    return wait_seconds


@pytest.mark.parametrize(("network", "account"), [("n", "other"), ("n", "alice"), ("other", "alice")])
def test_wrong_passwords_count_on_all_servers(network: str, account: str) -> None:
    """They count for the network and for the account, and a server does not pass on those of others."""
    limits = ThrottleLimits(first=Pace(3, 2.5), further=Pace(3, 2.5), network=Pace(3, 2.5))
    world, (a, b, c) = start("a", "b", "c", limits=limits)
    heard = [record(node) for node in (a, b, c)]
    for number in range(4):
        for each in ("n", f"n{number}"):
            guess(a, world.now, each)
    world.run(0.3)
    assert guess(b, world.now, network, account)
    assert guess(c, world.now, network, account)
    world.run(2.0)
    assert [[data[2] for data in each].count(5) for each in heard] == [1, 1, 1], "one broadcast, to three servers"
    assert guess(b, world.now, "another", "another") is None


def test_right_password_is_not_told() -> None:
    world, (a, b) = start("a", "b", limits=ThrottleLimits(network=Pace(1, 2.5)))
    attempt = a.throttle.enter(world.now, "alice", "n", is_known=True, wake=lambda: None)
    a.throttle.finish(attempt, world.now, was_right=True)
    world.run(0.3)
    assert guess(b, world.now) is None


def test_flood_of_wrong_passwords_is_told_in_part() -> None:
    limits = ThrottleLimits(Pace(10_000, 1.0), Pace(10_000, 1.0), Pace(10_000, 1.0))
    world, (a, b) = start("a", "b", limits=limits)
    for number in range(2 * peers_module.FAILURES_MAX):
        guess(a, world.now, f"n{number}")
    world.run(0.3)
    assert peers_module.FAILURES_MAX <= len(b.throttle) <= peers_module.FAILURES_MAX + 1_100


# --- the thread ---
def test_thread_sends_and_receives() -> None:
    """The clock stands still, so the thread handles its inbox, and broadcasts once."""
    world = World()
    a, b = Node(world, "a"), Node(world, "b")
    world.run()
    a.set_users(LOBBY_ID, {"alice"})
    for node in (a, b):
        node.broadcast = lambda data: [each.peers.receive(data) for each in (a, b)]  # type: ignore[method-assign]
    a.peers.start()
    b.peers.start()
    world.now += 3.0
    eventually(lambda: b.shown() == {"alice"})
    a.peers.stop()
    eventually(lambda: b.shown() == set())
    b.peers.stop()
    assert a.crashes == b.crashes == []
