"""A server that shares its log on NATS: how it starts, waits, joins, and comes back. Whole processes."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer, deadline
from reliability.program import Program, own_environment

if TYPE_CHECKING:
    from integration.cluster import Cluster

# Limit of an end: at most 8 s on a machine that does not stall. A server that waits for NATS would not end.
END_SECONDS = 20.0


def health(server: Program) -> tuple[int, str]:
    command = [sys.executable, "-m", "chatserver.health", "--data", str(server.data)]
    ended = subprocess.run(
        command, env=own_environment(), capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
    return ended.returncode, ended.stderr


def wait_for_health(server: Program, note: str = "") -> None:
    """A machine that stalls delays the answer over its limit."""
    server.wait_until(lambda: (found := health(server))[0] == 0 and note in found[1], f"its health: {note}")


def wait_for_page(server: Program, path: str, status: int, text: str) -> None:
    server.wait_until(lambda: (found := server.page(path))[0] == status and text in found[1], f"{status} for {path}")


def texts(server: Program, name: str) -> list[str]:
    """The messages of the lobby, as a new user sees them."""
    with closing(Peer(server.port)) as peer:
        peer.login(name)
        peer.ask(command="CH", limit=10)
        return [each["message"] for each in peer.next("history")["messages"]]


def say(server: Program, name: str, text: str) -> int:
    """Send a message, or send it again. Returns the id."""
    with closing(Peer(server.port)) as peer:
        peer.login(name)
        peer.ask(command="PM", message=text, nonce=text)
        return int(peer.next("sent")["id"])


def refusal(server: Program) -> str:
    """The sentence of a server that does not start."""
    server.launch()
    assert server.process.wait(DEADLINE_SECONDS) == 2
    (line,) = [line for line in server.log().splitlines() if line.startswith("chatserver: ")][-1:]
    return line


def test_server_waits_for_nats_and_says_so(cluster: Cluster) -> None:
    """The server is alive and not ready, and no client can connect. A signal ends the wait; the next start serves."""
    server = cluster.server("a")
    server.launch()
    assert server.page("healthz") == (200, "ok\n")
    wait_for_page(server, "readyz", 503, "it waits for NATS: ")
    wait_for_health(server, "it waits for NATS: ")
    server.wait_until(lambda: "start waits reason=" in server.log(), "the reason in its log")
    checks = {row["check"]: row for row in cluster.doctor(server)}
    assert [checks[name]["verdict"] for name in ("server", "nats", "log")] == ["warning", "problem", "problem"]
    assert "does not answer" in checks["nats"]["state"]
    with deadline(END_SECONDS, "the end"):
        assert server.stop() == 0
    assert not (server.data / "chat.db").exists()
    server.launch()
    cluster.nats.start()
    server.wait_for_port()
    say(server, "alice", "hello")
    wait_for_page(server, "readyz", 200, "ok\n")
    wait_for_health(server)
    metrics = server.page("metrics")[1]
    assert "chat_cluster_log_up 1.0" in metrics
    assert re.search(r"chat_cluster_publish_seconds_count [1-9]", metrics)
    assert server.stop() == 0


def test_server_joins_catches_up_and_follows_no_other_log(cluster: Cluster) -> None:
    cluster.nats.start()
    first, second = cluster.server("a"), cluster.server("b")
    first.start()
    say(first, "alice", "one")
    second.start()
    say(second, "alice", "two")
    second.kill()
    say(first, "bob", "three")
    second.start()
    for server in (first, second):
        assert texts(server, "carol") == ["one", "two", "three"]
    assert re.findall(r"caught up records=(\d+)", second.log())[-1] != "0"
    code, error = cluster.admin(second, "snapshot", str(cluster.folder / "copy.db"))
    assert code == 0, error
    applied = "has [0-9]+ records.* on 1 NATS servers; this server has applied [1-9]"

    def is_well() -> bool:
        """The doctor notes slow answers."""
        checks = {row["check"]: row for row in cluster.doctor(first)}
        verdicts = [checks[name]["verdict"] for name in ("server", "nats", "log")]
        return verdicts == ["ok"] * 3 and re.search(applied, checks["log"]["state"]) is not None

    first.wait_until(is_well, "the doctor finds no problem")
    for server in (first, second):
        assert server.stop() == 0
    for wrong, verdict, part in (
        ({"CHAT_NATS": ""}, "warning", "CHAT_NATS is missing"),
        ({"CHAT_NATS_STREAM": "other"}, "problem", "This server has applied"),
    ):
        row = next(each for each in cluster.doctor(second, **wrong) if each["check"] == "log")
        assert (row["verdict"], part in row["state"]) == (verdict, True)
    assert "set CHAT_NATS, or run `chatserver admin unshare`" in refusal(cluster.server("b", CHAT_NATS=""))
    assert "The shared log is empty, and the data folder" in refusal(cluster.server("b", CHAT_NATS_STREAM="other"))
    third = cluster.server("c")
    assert cluster.admin(third, "restore", str(cluster.folder / "copy.db"))[0] == 0
    third.start()
    assert texts(third, "carol") == ["one", "two", "three"]


def test_data_of_one_server_become_those_of_several_and_back(cluster: Cluster) -> None:
    """Another server loads the snapshot that ``share`` has stored. The messages have one history all the time."""
    single = cluster.server("a", CHAT_NATS="")
    single.start()
    first_id = say(single, "alice", "alone")
    single.stop()
    cluster.nats.start()
    first, second = cluster.server("a"), cluster.server("b")
    assert "`chatserver admin share`" in refusal(first)
    code, error = cluster.admin(first, "share")
    assert code == 0, error
    second.start()
    assert "snapshot loaded record=1" in second.log()
    first.start()
    assert say(second, "alice", "alone") == first_id
    say(second, "bob", "together")
    for server in (first, second):
        assert texts(server, "carol") == ["alone", "together"]
    second.stop()
    first.stop()
    code, error = cluster.admin(first, "unshare")
    assert code == 0, error
    single.start()
    assert say(single, "alice", "alone") == first_id
    say(single, "alice", "alone again")
    assert texts(single, "carol") == ["alone", "together", "alone again"]
    assert "history renewed" not in single.log()


@pytest.mark.long
def test_server_without_nats_keeps_its_users_and_refuses_new_ones(cluster: Cluster) -> None:
    """The server is alive and not ready; after NATS has come back, it serves new users again."""
    cluster.nats.start()
    server = cluster.server("a")
    server.start()
    with closing(Peer(server.port)) as alice:
        alice.login("alice")
        alice.say("one")
        cluster.nats[0].kill()
        server.wait_until(lambda: server.page("readyz")[0] == 503, "the server to be not ready")
        assert "reach NATS" in server.page("readyz")[1]
        wait_for_page(server, "healthz", 200, "ok\n")
        wait_for_health(server, "reach NATS")
        server.wait_until(lambda: answer_to_login(server, "alice") == "unavailable", "new users to be refused")
        alice.ask(command="CH", limit=10)
        assert [each["message"] for each in alice.next("history")["messages"]] == ["one"]
        alice.ask(command="PM", message="two")
        assert alice.next("error")["code"] == "unavailable"
        cluster.nats.start()
        server.wait_until(lambda: server.page("readyz")[0] == 200, "the server to be ready")
        alice.say("three")
        assert answer_to_login(server, "alice") == "login"
    assert texts(server, "alice") == ["one", "three"]
    cluster.nats[0].kill()
    with closing(Peer(server.port)) as alice:
        alice.login("alice")
        alice.ask(command="PM", message="four")  # neither stored nor refused yet
        with deadline(END_SECONDS, "the end"):
            assert server.stop() == 0


def test_signal_ends_a_server_whose_nats_is_paused(cluster: Cluster) -> None:
    """A command waits for a record that was published, and is neither stored nor refused."""
    cluster.nats.start()
    server = cluster.server("a")
    server.start()
    cluster.nats[0].pause()
    with ThreadPoolExecutor() as pool:
        ban = pool.submit(cluster.admin, server, "ban", "192.0.2.1")
        server.wait_until(lambda: "chat_cluster_batches_in_flight 1.0" in server.page("metrics")[1], "the record")
        with deadline(END_SECONDS, "the end"):
            assert server.stop() == 0
        code, reason = ban.result(DEADLINE_SECONDS)
    assert code != 0
    assert "shutting down; perhaps" in reason


def answer_to_login(server: Program, name: str) -> str:
    """The code of the error, or ``login``."""
    with closing(Peer(server.port)) as peer:
        peer.ask(command="login", username=name, password="secret")
        answer = peer.next("login", "error")
        return str(answer.get("code", answer["type"]))
