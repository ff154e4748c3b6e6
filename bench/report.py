"""The figures as Markdown tables."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, Final

from bench.results import medians
from bench.servers import OURS, OURS_IN_IRC, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.results import (
        Cluster,
        Engine,
        History,
        Latency,
        Logins,
        ManyConnections,
        Percentiles,
        Results,
        Rooms,
        Stopped,
        Storm,
        Throughput,
    )

FAILS: Final = "fails"
PERCENTILES: Final = ["p50", "p90", "p99", "p99.9", "max"]


def render(results: Results) -> str:
    """The machine and all tables of a run."""
    return "\n".join(line for section in _sections(results) for line in (*section, "")).rstrip() + "\n"


def _sections(results: Results) -> Iterator[list[str]]:
    yield _about(results)
    sections: list[tuple[Any, Callable[[Any], list[str]]]] = [
        (results.throughput, _throughput),
        (results.latency, _latency),
        (results.connections, _many_connections),
        (results.logins, _logins),
        (results.storm, _storm),
        (results.stopped, _stopped),
        (results.rooms, _rooms),
        (results.history, _history),
        (results.cluster, _cluster),
        (results.engine, _engine),
    ]
    yield from (section(figures) for figures, section in sections if figures)
    if failures := _failures(results):
        yield ["## Failures", "", *failures]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, padded so that the text is readable. The first column is left-aligned, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, rows)]


def _about(results: Results) -> list[str]:
    machine = results.machine
    servers = ", ".join(f"{name} ({version})" for name, version in results.servers.items())
    lines = [
        f"{results.date}, commit {results.commit or 'unknown'}, {results.seconds:.0f} s, rounds: {results.rounds}.",
        f"{machine.processor}, {machine.processors} processors ({machine.pinning}), {machine.memory_gib:g} GiB.",
        f"{machine.kernel}, Python {machine.python}, SQLite {machine.sqlite}.",
        f"Data on {machine.file_system}: a sync takes {machine.sync_ms:g} ms, after a rest {machine.rested_sync_ms:g}.",
        f"Servers: {servers}.",
    ]
    if results.left_out:
        lines.append(f"Left out: {', '.join(f'{name} ({why})' for name, why in results.left_out.items())}.")
    return lines


def _throughput(rows: Sequence[Throughput]) -> list[str]:
    """The table of all servers, and another one of those that speak IRC, if our own was measured in it."""
    lines = ["## Deliveries a second, in millions", "", *_throughput_table(rows, OURS)]
    in_irc = [row for row in rows if row.server == OURS_IN_IRC or (row.server in PEERS and _speaks_irc(row.server))]
    if any(row.server == OURS_IN_IRC for row in in_irc):
        lines += ["", "In IRC:", "", *_throughput_table(in_irc, OURS_IN_IRC)]
    return lines


def _speaks_irc(peer: str) -> bool:
    return PEERS[peer].protocol == "irc"


def _throughput_table(rows: Sequence[Throughput], ours: str) -> list[str]:
    servers = list(dict.fromkeys(row.server for row in rows))
    loads: dict[tuple[int, int], dict[str, float | None]] = {}
    for row in rows:
        loads.setdefault((row.receivers, row.senders), {})[row.server] = row.median
    lines = [
        [_load(*load), *(_millions(values.get(server), values.get(ours), server, ours) for server in servers)]
        for load, values in loads.items()
    ]
    note = f"In parentheses: the deliveries of {ours}, divided by those of the server."
    return [*table(["receivers", *servers], lines), "", note]


def _load(receivers: int, senders: int) -> str:
    return f"{receivers:,}" if senders == 1 else f"{receivers:,}, from {senders} senders"


def _millions(value: float | None, our_value: float | None = None, server: str = "", ours: str = OURS) -> str:
    if value is None:
        return FAILS
    ratio = "" if our_value is None or server == ours else f" ({_rounded(our_value / value)})"
    return f"{_rounded(value / 1e6)}{ratio}"


def _rounded(value: float) -> str:
    """The value with three significant digits, or two if it is small."""
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3  # noqa: PLR2004 - the limits of the digits
    return f"{value:.{digits}f}"


def percentile_cells(value: Percentiles | None) -> list[str]:
    """A cell for each of PERCENTILES, in milliseconds."""
    if value is None:
        return [FAILS] * len(PERCENTILES)
    return [_rounded(one) for one in (value.p50, value.p90, value.p99, value.p99_9, value.max)]


def _latency(rows: Sequence[Latency]) -> list[str]:
    title = f"## Latency in ms: {rows[0].messages_per_second} messages/s to {rows[0].receivers} receivers"
    return [title, "", *table(["server", *PERCENTILES], [[row.server, *percentile_cells(row.median)] for row in rows])]


def _many_connections(rows: Sequence[ManyConnections]) -> list[str]:
    header = ["server", "connections", "KiB each", "after the load", "logins/s", "million deliveries/s"]
    return ["## Many connections", "", *table(header, [_connections_row(row) for row in rows])]


def _connections_row(row: ManyConnections) -> list[str]:
    reached = f"{row.memory[-1].connections:,}" if row.memory else "0"
    if row.failure:
        return [row.server, reached, FAILS, "", "", ""]
    each = row.bytes_per_connection(row.memory[-1].resident_bytes)
    after = row.bytes_per_connection(row.after_load_bytes)
    return [
        row.server,
        reached,
        f"{each / 1024:.1f}",
        f"{after / 1024:.1f}",
        f"{row.logins_per_second:,.0f}",
        _rounded(row.deliveries_per_second / 1e6),
    ]


def _logins(logins: Logins) -> list[str]:
    rows = [
        ["new names", f"{median(logins.new_per_second):,.0f}"],
        ["existing names", f"{median(logins.existing_per_second):,.0f}"],
    ]
    title = f"## Logins a second: {logins.count:,}, {logins.at_once} at once, with the cheapest hash"
    return [title, "", *table(["", "logins/s"], rows)]


def _storm(storm: Storm) -> list[str]:
    title = f"## Latency in ms of {storm.receivers} receivers during {storm.logins} simultaneous logins"
    rows = [
        ["without", *percentile_cells(storm.without)],
        [f"for {storm.seconds:.1f} s", *percentile_cells(storm.during)],
    ]
    return [title, "", *table(["logins", *PERCENTILES], rows)]


def _stopped(stopped: Stopped) -> list[str]:
    rows = [["none", *percentile_cells(medians(stopped.none))], ["one", *percentile_cells(medians(stopped.one))]]
    title = f"## Latency in ms if one of {stopped.receivers} receivers does not read"
    return [title, "", *table(["stopped", *PERCENTILES], rows)]


def _rooms(rooms: Rooms) -> list[str]:
    title = f"## {rooms.rooms:,} rooms of {rooms.members:,} receivers, each in {rooms.rooms_each} of them"
    row = [
        f"{rooms.connections:,}",
        _rounded(median(rooms.deliveries_per_second) / 1e6),
        f"{median(rooms.connection_bytes) / 1024:.1f}",
        f"{median(rooms.after_load_bytes) / 1024:.1f}",
    ]
    return [title, "", *table(["connections", "million deliveries/s", "KiB each", "after the load"], [row])]


def _history(history: History) -> list[str]:
    title = f"## With {history.messages:,} stored messages ({history.database_bytes / 2**20:,.0f} MiB)"
    requests = history.requests
    return [
        title,
        "",
        *table(*_by_server(history.throughput, history.latency)),
        "",
        f"{requests.count} requests for the last 50 messages: p50 {requests.p50:.2f} ms, p99 {requests.p99:.2f} ms.",
    ]


def _by_server(throughputs: Sequence[Throughput], latencies: Sequence[Latency]) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each server: its throughput with each load, and its latency."""
    columns: dict[str, list[str]] = {}
    for throughput in throughputs:
        columns.setdefault(throughput.server, []).append(_millions(throughput.median))
    for latency in latencies:
        p50, _, p99, *_ = percentile_cells(latency.median)
        columns.setdefault(latency.server, []).extend((p50, p99))
    loads = dict.fromkeys((row.receivers, row.senders) for row in throughputs)
    header = ["", *(f"million deliveries/s to {_load(*load)}" for load in loads), "latency p50, ms", "p99, ms"]
    return header, [[server, *values] for server, values in columns.items()]


def _cluster(cluster: Cluster) -> list[str]:
    header, rows = _by_server(cluster.throughput, cluster.latency)
    for latency, row in zip(cluster.latency, rows, strict=True):
        engine = cluster.engine.get(latency.server)
        for rounds in (latency.confirmations, engine):
            p50, _, p99, *_ = percentile_cells(medians(rounds)) if rounds else [""] * len(PERCENTILES)
            row += [p50, p99]
        row.append(f"{cluster.memory.get(latency.server, 0) / 2**20:.0f}")
    header += ["confirmation p50, ms", "p99, ms", "NATS alone p50, ms", "p99, ms", "MiB of a server"]
    rate = median(cluster.caught_up_per_second)
    return [
        f"## One log on NATS: {cluster.placement}",
        "",
        *table(header, rows),
        "",
        f"A new server reads {cluster.caught_up_messages:,} messages of the log: {rate:,.0f} a second, with its start.",
    ]


def _engine(rows: Sequence[Engine]) -> list[str]:
    first = rows[0]
    title = f"## NATS alone: records of {first.record_bytes:,} bytes, {first.records_per_second} a second"
    header = ["replicas", *(f"{each}, ms" for each in PERCENTILES), f"records/s, {first.in_flight} in flight"]
    cells = [
        [f"{row.replicas}", *percentile_cells(medians(row.rounds)), f"{median(row.in_flight_per_second):,.0f}"]
        for row in rows
    ]
    return [title, "", *table(header, cells)]


def _failures(results: Results) -> list[str]:
    throughputs, latencies = [*results.throughput], [*results.latency]
    for part in (results.history, results.cluster):
        if part:
            throughputs += part.throughput
            latencies += part.latency
    lines = [
        f"- {row.server}, {row.receivers:,} receivers, {row.senders} senders: {row.failure}"
        for row in throughputs
        if row.failure
    ]
    lines += [f"- {row.server}, latency: {row.failure}" for row in latencies if row.failure]
    lines += [f"- {row.server}, many connections: {row.failure}" for row in results.connections if row.failure]
    return lines + [f"- {name}: {why}" for name, why in results.failures.items()]
