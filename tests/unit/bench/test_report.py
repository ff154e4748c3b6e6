"""Percentiles, medians, the report and the results file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import render
from bench.results import (
    Cluster,
    Engine,
    History,
    Latency,
    Logins,
    Machine,
    ManyConnections,
    Memory,
    Results,
    Stopped,
    Storm,
    Throughput,
    medians,
    percentile,
    percentiles,
    read,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

FAST, SLOW = percentiles([1.0]), percentiles([30.0])
OURS, OTHER = "chatserver", "nats-server"
RESULTS = Results(
    date="2026-01-31 12:00 UTC",
    commit="abc1234",
    machine=Machine("A processor", 2, 8.0, "Linux 6", "3.11.7", "3.40.1", "ext4", 0.5, 0.75, "not pinned"),
    servers={OURS: "this commit", OTHER: "2.9.10"},
    left_out={"ngircd": "not installed"},
    rounds=3,
    throughput=[
        Throughput(OURS, 1_000, 1, [1e6, 9e6, 6e6]),
        Throughput(OTHER, 1_000, 1, [3e6]),
        Throughput(OURS, 100, 10, [2e6]),
        Throughput(OTHER, 100, 10, [1e6], "a receiver was lost: closed by the server"),
        Throughput("chatserver-irc", 100, 10, [4e6]),
        Throughput("ngircd", 100, 10, [1e6]),
    ],
    latency=[Latency(OURS, 100, 500, [FAST]), Latency(OTHER, 100, 500, [], "stalled")],
    connections=[
        ManyConnections(OURS, [Memory(0, 10 * 2**20), Memory(1_024, 42 * 2**20)], 3_000.0, 5e6, 43 * 2**20),
        ManyConnections(OTHER, [], failure="7 logins were not accepted"),
    ],
    logins=Logins(32, 3_000, [3_000.0, 1.0, 9_000.0], [4_000.0]),
    storm=Storm(500, 100, 12.5, FAST, SLOW),
    stopped=Stopped(100, [FAST], [SLOW]),
    history=History(
        5_000_000,
        512 * 2**20,
        [Throughput(OURS, 100, 1, [3e6]), Throughput("with history", 100, 1, [], "not done")],
        [Latency(OURS, 100, 500, [FAST]), Latency("with history", 100, 500, [SLOW])],
        percentiles([0.5] * 99 + [1.5]),
    ),
    cluster=Cluster(
        [Throughput(OURS, 1_000, 1, [8e6]), Throughput("chatserver-nats", 1_000, 1, [7e6])],
        [Latency(OURS, 100, 500, [FAST]), Latency("chatserver-nats", 100, 500, [SLOW], "", [SLOW])],
        {OURS: 30 * 2**20, "chatserver-nats": 40 * 2**20},
        90_000,
        [60_000.0],
        "NATS and the load on processor 1",
        {"chatserver-nats": [FAST]},
    ),
    engine=[Engine(3, 3_000, 25, 8, [FAST], [1_000.0, 3_000.0, 2_000.0])],
    failures={"storm": "the server does not read"},
)
# One line of each table, and the lines that give reasons.
LINES = (
    "| 1,000                |       6.00 | 3.00 (2.00) |          fails |       fails |",
    "| 100, from 10 senders |       2.00 |       fails |    4.00 (0.50) | 1.00 (2.00) |",
    "| 100, from 10 senders |           4.00 | 1.00 (4.00) |",
    "In parentheses: the deliveries of chatserver-irc, divided by those of the server.",
    "| nats-server | fails | fails | fails | fails | fails |",
    "| chatserver  |       1,024 |     32.0 |           33.0 |    3,000 |                 5.00 |",
    "| new names      |    3,000 |",
    "| for 12.5 s | 30.0 | 30.0 | 30.0 |  30.0 | 30.0 |",
    "| one     | 30.0 |",
    "- with history, 100 receivers, 1 senders: not done",
    "| 3        |    1.00 |    1.00 |    1.00 |      1.00 |    1.00 |                  2,000 |",
    "## One log on NATS: NATS and the load on processor 1",
    "|            30.0 |    30.0 |                 30.0 |    30.0 |               1.00 |    1.00 |              40 |",
    "A new server reads 90,000 messages of the log: 60,000 a second, with its start.",
    "100 requests for the last 50 messages: p50 0.50 ms, p99 0.50 ms",
    "ngircd (not installed)",
    "- nats-server, 100 receivers, 10 senders: a receiver was lost: closed by the server",
    "- storm: the server does not read",
    "A processor, 2 processors (not pinned), 8 GiB.",
)


def test_percentiles_are_nearest_ranks_and_medians_are_of_each() -> None:
    values = [float(value) for value in range(1, 1_001)]
    assert [percentile(values, percent) for percent in (0, 50, 99.9, 100)] == [1, 500, 999, 1_000]
    unsorted = percentiles([3.0, 1.0, 2.0])
    assert (unsorted.count, unsorted.p50, unsorted.p99, unsorted.max) == (3, 2.0, 3.0, 3.0)
    middle = medians([percentiles([1.0]), percentiles([9.0]), percentiles([4.0])])
    assert (middle.p50, middle.max) == (4.0, 4.0)


def test_report_contains_each_table_and_the_reasons() -> None:
    report = render(RESULTS)
    assert [line for line in LINES if line not in report] == []


def test_report_of_an_empty_run_has_no_tables() -> None:
    assert "##" not in render(Results(RESULTS.date, "", RESULTS.machine, {}, {}, 1))


def test_results_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "latest.json"
    write(RESULTS, path)
    assert read(path) == RESULTS
