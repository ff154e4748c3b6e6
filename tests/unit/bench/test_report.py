"""Percentiles, medians, the report and the results file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.report import render
from bench.results import (
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


def results() -> Results:
    return Results(
        date="2026-01-31 12:00 UTC",
        commit="abc1234",
        machine=Machine("A processor", 2, 8.0, "Linux 6", "3.11.7", "3.40.1", "ext4", 0.5, 0.75, "not pinned"),
        servers={"chatserver": "this commit", "nats-server": "2.9.10"},
        left_out={"ngircd": "not installed"},
        rounds=3,
        throughput=[
            Throughput("chatserver", 1_000, 1, [1e6, 9e6, 6e6]),
            Throughput("nats-server", 1_000, 1, [3e6]),
            Throughput("chatserver", 10, 1, [0.5e6]),
            Throughput("nats-server", 10, 1, [0.04e6]),
            Throughput("chatserver", 100, 10, [2e6]),
            Throughput("nats-server", 100, 10, [1e6], "a receiver was lost: closed by the server"),
        ],
        latency=[Latency("chatserver", 100, 500, [FAST]), Latency("nats-server", 100, 500, [], "stalled")],
        connections=[
            ManyConnections("chatserver", [Memory(0, 10 * 2**20), Memory(1_024, 42 * 2**20)], 3_000.0, 5e6, 43 * 2**20),
            ManyConnections("nats-server", [], failure="7 logins were not accepted"),
        ],
        logins=Logins(32, 3_000, [3_000.0, 1.0, 9_000.0], [4_000.0]),
        storm=Storm(500, 100, 12.5, FAST, SLOW),
        stopped=Stopped(100, [FAST], [SLOW]),
        history=History(
            5_000_000,
            512 * 2**20,
            [
                Throughput("chatserver", 100, 1, [3e6]),
                Throughput("with history", 100, 1, [2e6]),
                Throughput("chatserver", 1_000, 1, [4e6]),
                Throughput("with history", 1_000, 1, [], "not done"),
            ],
            [Latency("chatserver", 100, 500, [FAST]), Latency("with history", 100, 500, [SLOW])],
            percentiles([0.5] * 99 + [1.5]),
        ),
        failures={"storm": "the server does not read"},
    )


def test_percentiles_are_nearest_ranks_and_medians_are_of_each() -> None:
    values = [float(value) for value in range(1, 1_001)]
    assert [percentile(values, percent) for percent in (0, 50, 99.9, 100)] == [1, 500, 999, 1_000]
    unsorted = percentiles([3.0, 1.0, 2.0])
    assert (unsorted.count, unsorted.p50, unsorted.p99, unsorted.max) == (3, 2.0, 3.0, 3.0)
    middle = medians([percentiles([1.0]), percentiles([9.0]), percentiles([4.0])])
    assert (middle.p50, middle.max) == (4.0, 4.0)


LINES = {
    "header": "| receivers            | chatserver |  nats-server |",
    "rule": "| :------------------- | ---------: | -----------: |",
    "median and ratio": "| 1,000                |       6.00 |  3.00 (2.00) |",
    "slow server": "| 10                   |       0.50 | 0.040 (12.5) |",
    "failed throughput": "| 100, from 10 senders |       2.00 |        fails |",
    "failed latency": "| nats-server | fails | fails | fails | fails | fails |",
    "connections": "| chatserver  |       1,024 |     32.0 |           33.0 |    3,000 |                 5.00 |",
    "failed connections": "| nats-server |           0 |    fails |",
    "logins": "| new names      |    3,000 |",
    "storm": "| for 12.5 s | 30.0 | 30.0 | 30.0 |  30.0 | 30.0 |",
    "stopped receiver": "| one     | 30.0 |",
    "history": "| with history |                        2.00 |                         fails |            30.0 |    30.0 |",  # noqa: E501 - a line of the table as it is
    "reason of history": "- with history, 1,000 receivers, 1 senders: not done",
    "history requests": "100 requests for the last 50 messages: p50 0.50 ms, p99 0.50 ms",
    "left out": "ngircd (not installed)",
    "reason of throughput": "- nats-server, 100 receivers, 10 senders: a receiver was lost: closed by the server",
    "reason of a measurement": "- storm: the server does not read",
    "machine": "A processor, 2 processors (not pinned), 8 GiB.",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_report_contains(line: str) -> None:
    assert line in render(results())


def test_report_of_an_empty_run_has_no_tables() -> None:
    run = results()
    assert "##" not in render(Results(run.date, "", run.machine, {}, {}, 1))


def test_results_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "latest.json"
    write(results(), path)
    assert read(path) == results()
