"""The metrics of a running server, and the queries of the dashboard and of the alerts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
from integration.room import wait_for
from integration.web import WebPeer, enter_web
from prometheus_client.parser import text_string_to_metric_families
from reliability.peers import NarrowPeer
from unit.server.fake_log import FakeLog, FakeStream

from chatserver.admin.metrics import SharedLog, shared_log_metrics
from chatserver.counters import Histogram
from chatserver.journal.monitor import LogMonitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from certificates import Authority
    from integration.room import Room, ServerLog

OPS = Path(__file__).parents[2] / "ops" / "observe"
DASHBOARD = OPS / "grafana" / "chat.json"
ALERTS = OPS / "alerts.yml"


@pytest.fixture
def room(open_room: Callable[..., Room], authority: Authority, tmp_path: Path) -> Room:
    files = authority.write(tmp_path)
    return open_room(metrics=("127.0.0.1", 0), tls_cert=files.certificate, tls_key=files.key, waiting_from_sender=1)


def metrics_address(log: ServerLog) -> str:
    log.wait_for("metrics served address=")
    (address,) = re.findall(r"metrics served address=(\S+)", log.getvalue())
    return str(address)


@pytest.fixture
def scrape(log: ServerLog, room: Room) -> Callable[[], str]:  # noqa: ARG001 - the room logs the address
    """Returns the metrics as Prometheus reads them."""
    address = metrics_address(log)

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    return scrape


def values(text: str) -> dict[str, float]:
    """The value of each sample, by its name and labels."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(room: Room, scrape: Callable[[], str]) -> None:
    """Users of each protocol; a message is delivered to each connection of its receivers."""
    room.enter("erin").close()
    room.wait_for_connections(0)
    alice, second, bob = room.enter("alice"), room.enter("alice"), room.enter("bob")
    room.enter_frames("carol")
    guest = room.enter_guest("guest")
    room.enter_datagram("dave")
    enter_web(room, "frank")
    browser = room.connect(WebPeer)
    assert browser.get("/", Connection="close").status == 200
    browser.close()
    stranger = room.peer()
    stranger.ask(command="login", username="bob", password="wrong")
    stranger.next("error")
    alice.say("hello")
    guest.take()
    alice.ask(command="DM", to="bob", message="x", nonce="1")
    bob.next("direct")
    second.next("direct")
    for answer in ("sent", "error"):
        alice.ask(command="DM", to="erin", message="x")
        alice.next(answer)

    expected = {
        "chat_connections{protocol=json}": 4,
        "chat_connections{protocol=register}": 2,
        "chat_connections{protocol=websocket}": 1,
        "chat_members{protocol=json}": 3,
        "chat_members{protocol=frames}": 1,
        "chat_members{protocol=websocket}": 1,
        "chat_members{protocol=datagram}": 1,
        "chat_members{protocol=register}": 1,
        "chat_users_online": 6,
        "chat_connections_accepted_total": 11,
        "chat_pages_served_total": 1,
        "chat_messages_total{kind=public}": 1,
        "chat_messages_total{kind=direct}": 2,
        "chat_deliveries_total": 6 + 2 + 1,
        "chat_logins_total{result=ok}": 7,
        "chat_logins_total{result=guest}": 1,
        "chat_logins_total{result=wrong_password}": 1,
        "chat_requests_refused_total{code=wrong_password}": 1,
        "chat_requests_refused_total{code=mailbox_full}": 1,
        "chat_unread_bytes": 0,
        "chat_journal_failing": 0,
        "chat_log_entries_dropped_total": 0,
    }
    found: dict[str, float] = {}

    def is_counted() -> bool:
        found.update(values(scrape()))
        print(f"not yet counted: {expected.items() - found.items()}")
        return expected.items() <= found.items()

    wait_for(is_counted, "what happened is counted")
    assert found["chat_commit_seconds_count"] >= 7
    assert found["chat_confirmation_seconds_count"] >= 3  # the last one is counted after its answer was sent
    assert found["chat_delivery_seconds_count"] >= 1
    assert found["chat_sent_bytes_total"] > found["chat_received_bytes_total"] > 300
    assert found["process_resident_memory_bytes"] > 2**20
    assert not re.search("alice|bob|127.0.0", scrape())


def test_clients_that_do_not_read_are_counted_with_their_bytes(room: Room, scrape: Callable[[], str]) -> None:
    with closing(NarrowPeer(room.server.port)) as slow:
        slow.login("slow")
        alice = room.enter("alice")
        for _ in range(200):
            alice.say("x" * 8_000)
        wait_for(lambda: values(scrape())["chat_slow_clients"] == 1, "the slow client")
        assert 1_000_000 < values(scrape())["chat_unread_bytes"] < 2_000_000


def test_server_is_not_ready_while_the_reserve_of_the_disk_is_used(
    open_room: Callable[..., Room], log: ServerLog
) -> None:
    """It is healthy all the same: a restart would not help."""
    open_room(metrics=("127.0.0.1", 0), disk_reserve=2**50)
    address = metrics_address(log)
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"http://{address}/readyz", timeout=10)
    with refused.value as page:
        assert (page.code, page.read()) == (503, b"the reserve of its disk is used up\n")
    with urllib.request.urlopen(f"http://{address}/healthz", timeout=10) as answer:
        assert answer.read() == b"ok\n"


def queries() -> list[str]:
    """The queries of the dashboard and of the alerts."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += re.findall(r" expr: (.+)\n", ALERTS.read_text())
    return [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in asked]


def test_dashboard_and_alerts_ask_for_metrics_that_exist(room: Room, scrape: Callable[[], str]) -> None:
    room.enter("alice").say("hello")
    text = scrape()
    sampled = {name.partition("{")[0] for name in values(text)}
    sampled |= set(re.findall(r"# TYPE (\w+_total) counter", text))  # one without samples yet
    sampled |= {sample.name for family in of_cluster() for sample in family.samples}
    asked = {name for query in queries() for name in re.findall(r"\b(?:chat|process)_\w+", query)}
    assert len(asked) > 20
    assert asked - sampled == set()


def of_cluster() -> list[Any]:
    """The metrics that only one of several servers has."""
    log = FakeLog(FakeStream())
    monitor = LogMonitor(log, lambda: 0, lambda _: None)
    shared = SharedLog(monitor, lambda: 7, lambda: 1, log.find_problem, lambda: 3)
    return list(shared_log_metrics(shared, Histogram()))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_accepts_the_alerts_and_queries(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "config", OPS / "prometheus.yml"], check=True, capture_output=True)
    rules = {"groups": [{"name": "all", "rules": [{"record": "x", "expr": query} for query in queries()]}]}
    (tmp_path / "rules.yml").write_text(json.dumps(rules))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True)


def test_operations_page_says_what_to_do_about_each_alert() -> None:
    page = (OPS.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(Chat\w+)` \|", page, re.MULTILINE)
    assert described == re.findall(r"alert: (\w+)", ALERTS.read_text())
