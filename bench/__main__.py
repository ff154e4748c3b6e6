"""The benchmark: measures, prints tables, stores the results and draws pictures. measure.py has the measurements."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from bench import measure
from bench.connections import LoadError, raise_descriptor_limit
from bench.draw import LATEST, PICTURES, draw
from bench.machine import commit, describe, on_processor, processors
from bench.measure import QUICK, SHARED_POLL_SECONDS, Environment, Plan
from bench.report import render
from bench.results import Results, write
from bench.servers import (
    BASELINE,
    CHEAPEST_HASH,
    OURS,
    OURS_IN_DATAGRAMS,
    OURS_IN_FRAMES,
    OURS_IN_IRC,
    OURS_IN_TLS,
    OURS_IN_WEBSOCKET,
    PEERS,
    ServerError,
    build_baseline,
    chatserver,
    find_peer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.servers import Server

HERE: Final = Path(__file__).resolve().parent
# Results of an incomplete run. Git ignores the file.
PARTIAL: Final = HERE / "results" / "partial.json"
# On the disk of the repository: /tmp may be in memory, and a sync would then cost nothing.
SCRATCH: Final = HERE / "scratch"

_BEGIN: Final = perf_counter()

# The measurements in order. Each key is also the name of a field of Results.
MEASUREMENTS: Final[dict[str, Callable[[Environment], Any]]] = {
    "throughput": measure.throughput,
    "latency": measure.latency,
    "connections": measure.many_connections,
    "logins": measure.logins,
    "storm": measure.storm,
    "stopped": measure.stopped,
    "rooms": measure.rooms,
    "history": measure.stored_history,
    "cluster": measure.cluster,
    "engine": measure.engine,
}
# Files that a server has open in addition to its connections.
OTHER_DESCRIPTORS: Final = 200
# Our own server, by the protocol of its clients.
OURS_IN: Final = {
    OURS: "json",
    OURS_IN_WEBSOCKET: "websocket",
    OURS_IN_TLS: "json-tls",
    OURS_IN_FRAMES: "frames",
    OURS_IN_DATAGRAMS: "datagram",
    OURS_IN_IRC: "irc",
}
ALL_SERVERS: Final = (*OURS_IN, BASELINE, *PEERS)


def main() -> int:
    """Returns 0 if no measurement of our own server failed."""
    options = _options()
    # SIGTERM ends the benchmark as Ctrl-C does, so that its servers are ended as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    SCRATCH.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            results = _measure(options, Path(folder))
    except KeyboardInterrupt:
        _show("Interrupted; all servers have been ended")
        return 1
    print(f"\n{render(results)}")
    write(results, options.output)
    _show(f"Results: {options.output}")
    if options.is_complete:
        for path in draw(results, PICTURES):
            _show(f"Picture: {path}")
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial run of about a minute")
    parser.add_argument(
        "--only",
        type=_list_of(MEASUREMENTS),
        default=[*MEASUREMENTS],
        metavar="MEASUREMENTS",
        help=f"of {','.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--servers",
        type=_list_of(ALL_SERVERS),
        default=[*ALL_SERVERS],
        metavar="NAMES",
        help=f"of {','.join(ALL_SERVERS)}; servers that are not installed are left out",
    )
    parser.add_argument("--stored", type=int, metavar="MESSAGES", help="length of the history (5,000,000)")
    parser.add_argument("--output", type=Path, help="the results file, as JSON (in bench/results/)")
    options = parser.parse_args()
    is_reduced = options.quick or options.stored is not None
    has_all = options.only == [*MEASUREMENTS] and options.servers == [*ALL_SERVERS]
    options.is_complete = has_all and not is_reduced
    options.output = options.output or (LATEST if options.is_complete else PARTIAL)
    return options


def _list_of(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = text.split(",")
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; the names are {', '.join(known)}")
        return [word for word in known if word in words]

    return parse


def _measure(options: argparse.Namespace, folder: Path) -> Results:
    plan = _plan(options, raise_descriptor_limit())
    servers, left_out = _find_servers(options.servers, folder)
    results = Results(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(),
        machine=describe(folder),
        servers={server.name: server.version for server in servers},
        left_out=left_out,
        rounds=plan.rounds,
    )
    for name, reason in left_out.items():
        _show(f"{name} is left out: {reason}")
    pair = processors()
    if pair is None:
        _show("The servers and the load share the processors: there is only one, or they cannot be chosen")
    server_processor, load_processor = pair or (None, None)
    poll_seconds = 0.0 if pair else SHARED_POLL_SECONDS
    environment = Environment(
        plan,
        servers,
        folder,
        _show,
        processor=server_processor,
        nats_processor=load_processor,
        poll_seconds=poll_seconds,
    )
    with on_processor(load_processor):
        for name in options.only:
            try:
                setattr(results, name, MEASUREMENTS[name](environment))
            except (LoadError, ServerError) as error:
                results.failures[name] = str(error)
    results.seconds = round(perf_counter() - _BEGIN, 1)
    return results


def _plan(options: argparse.Namespace, descriptors: int) -> Plan:
    plan = QUICK if options.quick else Plan()
    if options.stored is not None:
        plan = replace(plan, stored_messages=options.stored)
    most = descriptors - OTHER_DESCRIPTORS
    steps, irc_steps = (
        tuple(step for step in steps if step <= most) or (most,)
        for steps in (plan.connection_steps, plan.irc_connection_steps)
    )
    if steps != plan.connection_steps:
        _show(f"The system allows {descriptors} open files: at most {steps[-1]} connections are measured")
    return replace(plan, connection_steps=steps, irc_connection_steps=irc_steps)


def _find_servers(names: Sequence[str], folder: Path) -> tuple[list[Server], dict[str, str]]:
    """The servers that can be started, and the reason for each of the others."""
    servers, left_out = [], {}
    for name in names:
        if name in OURS_IN:
            servers.append(chatserver(*CHEAPEST_HASH, name=name, protocol=OURS_IN[name]))
        elif found := build_baseline(folder) if name == BASELINE else find_peer(name):
            servers.append(found)
        else:
            left_out[name] = "cannot be compiled here" if name == BASELINE else "not installed"
    return servers, left_out


def _show(text: str) -> None:
    print(f"==> {perf_counter() - _BEGIN:3.0f} s: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
