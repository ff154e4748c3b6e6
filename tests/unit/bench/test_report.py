"""Figures: percentiles, medians, and the tables that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.report import render, table
from bench.results import (
    Crowd,
    History,
    Latency,
    Logins,
    Machine,
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
        crowds=[
            Crowd("chatserver", [Memory(0, 10 * 2**20), Memory(1_024, 42 * 2**20)], 3_000.0, 5e6, 43 * 2**20),
            Crowd("nats-server", [], failure="7 were not let in"),
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


def test_a_percentile_is_a_value_that_so_many_percent_do_not_exceed() -> None:
    values = [float(value) for value in range(1, 1_001)]
    assert [percentile(values, share) for share in (0, 50, 90, 99, 99.9, 100)] == [1, 500, 900, 990, 999, 1_000]
    assert percentile([7.0], 99.9) == 7.0
    shuffled = percentiles([3.0, 1.0, 2.0])
    assert (shuffled.count, shuffled.p50, shuffled.p99, shuffled.max) == (3, 2.0, 3.0, 3.0)


def test_medians_are_taken_of_each_percentile() -> None:
    middle = medians([percentiles([1.0]), percentiles([9.0]), percentiles([4.0])])
    assert (middle.p50, middle.max) == (4.0, 4.0)


def test_a_load_that_failed_in_one_round_has_no_median() -> None:
    assert Throughput("x", 10, 1, [1.0, 3.0, 2.0]).median == 2.0
    assert Throughput("x", 10, 1, [1.0], "lost").median is None
    assert Latency("x", 100, 500, [FAST], "lost").median is None


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(["", "ms"], [["one", "1.0"], ["eleven", "11.0"]]) == [
        "|        |   ms |",
        "| :----- | ---: |",
        "| one    |  1.0 |",
        "| eleven | 11.0 |",
    ]


LINES = {
    "the median of three rounds, and the ratio": "| 1,000                |       6.00 |  3.00 (2.00) |",
    "a slow server": "| 10                   |       0.50 | 0.040 (12.5) |",
    "a load that failed": "| 100, from 10 senders |       2.00 |        fails |",
    "a pace that failed": "| nats-server | fails | fails | fails | fails | fails |",
    "a crowd": "| chatserver  |       1,024 |     32.0 |           33.0 |    3,000 |                 5.00 |",
    "a crowd that failed": "| nats-server |           0 |    fails |",
    "logins": "| new names      |    3,000 |",
    "a storm": "| for 12.5 s | 30.0 | 30.0 | 30.0 |  30.0 | 30.0 |",
    "a stopped receiver": "| one     | 30.0 |",
    "history": "| with history |                        2.00 |                         fails |            30.0 |    30.0 |",  # noqa: E501 - a line of the table as it is
    "why a load with history failed": "- with history, 1,000 receivers, 1 senders: not done",
    "asking": "asked for 100 times: p50 0.50 ms, p99 0.50 ms",
    "who was left out": "ngircd (not installed)",
    "why a load failed": "- nats-server, 100 receivers, 10 senders: a receiver was lost: closed by the server",
    "why a part failed": "- storm: the server does not read",
    "the machine": "A processor, 2 processors (not pinned), 8 GiB.",
    "the disk": "Data on ext4: a sync takes 0.5 ms, after a rest 0.75.",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_the_report_tells_of(line: str) -> None:
    assert line in render(results())


def test_a_run_of_which_nothing_was_measured_can_be_reported() -> None:
    run = results()
    assert "##" not in render(Results(run.date, "", run.machine, {}, {}, 1))


def test_figures_that_were_kept_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "latest.json"
    write(results(), path)
    assert read(path) == results()
