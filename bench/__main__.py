"""The benchmark in one command: measures, prints tables, keeps the figures, draws pictures. See measure.py for what."""

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
from bench.crowd import LoadError, allow_descriptors
from bench.draw import LATEST, PICTURES, draw
from bench.machine import commit, describe, on_processor, processors
from bench.measure import QUICK, Ground, Plan
from bench.report import render
from bench.results import Results, write
from bench.servers import (
    CHEAPEST_HASH,
    FLOOR,
    OURS,
    OURS_IN_DATAGRAMS,
    OURS_IN_FRAMES,
    PEERS,
    ServerError,
    build_floor,
    chatserver,
    find_peer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.servers import Server

HERE: Final = Path(__file__).resolve().parent
# Figures of a run that was not whole; git does not keep them.
PARTIAL: Final = HERE / "results" / "partial.json"
# On the disk that the repository is on: where /tmp is memory, a sync would cost nothing.
SCRATCH: Final = HERE / "scratch"

_BEGIN: Final = perf_counter()

# The parts, in order, and where their figures are kept.
PARTS: Final[dict[str, tuple[Callable[[Ground], Any], str]]] = {
    "throughput": (measure.throughput, "throughput"),
    "latency": (measure.latency, "latency"),
    "crowd": (measure.crowds, "crowds"),
    "logins": (measure.logins, "logins"),
    "storm": (measure.storm, "storm"),
    "stopped": (measure.stopped, "stopped"),
    "history": (measure.stored, "history"),
}
# What a server with as many connections has open beside them.
OTHER_DESCRIPTORS: Final = 200
# How long the load sleeps when there is nothing to do, where it has no processor of its own.
SHARED_SLEEP_SECONDS: Final = 0.001
# Our own server, by the dialect that its clients speak.
OURS_IN: Final = {OURS: "json", OURS_IN_FRAMES: "frames", OURS_IN_DATAGRAMS: "datagram"}
ALL_SERVERS: Final = (*OURS_IN, FLOOR, *PEERS)


def main() -> int:
    """0 when everything of our own server's was measured."""
    options = _options()
    # So that what was started is ended, whoever ends the benchmark.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    SCRATCH.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            results = _measure(options, Path(folder))
    except KeyboardInterrupt:
        _say("Interrupted; everything that was started has been ended")
        return 1
    print(f"\n{render(results)}")
    _keep(options, results)
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a little of everything, within a minute, to try it")
    parser.add_argument("--only", type=_words(PARTS), default=[*PARTS], metavar="PARTS", help=f"of {','.join(PARTS)}")
    parser.add_argument(
        "--servers",
        type=_words(ALL_SERVERS),
        default=[*ALL_SERVERS],
        metavar="NAMES",
        help=f"of {','.join(ALL_SERVERS)}; those that are not installed are left out",
    )
    parser.add_argument("--stored", type=int, metavar="MESSAGES", help="how long the history is (5,000,000)")
    parser.add_argument("--output", type=Path, help="where the figures are kept, as JSON (bench/results/)")
    options = parser.parse_args()
    is_cut = options.quick or options.stored is not None
    options.is_whole = not is_cut and options.only == [*PARTS] and options.servers == [*ALL_SERVERS]
    options.output = options.output or (LATEST if options.is_whole else PARTIAL)
    return options


def _words(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = text.split(",")
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [word for word in known if word in words]

    return parse


def _measure(options: argparse.Namespace, folder: Path) -> Results:
    plan = _plan(options, allow_descriptors())
    servers, left_out = _find_servers(options.servers, folder)
    results = Results(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(),
        machine=describe(folder),
        servers={server.name: server.version for server in servers},
        left_out=left_out,
        rounds=plan.rounds,
    )
    for name, why in left_out.items():
        _say(f"{name} is left out: {why}")
    pair = processors()
    if pair is None:
        _say("The servers and the load share the processors: there is only one, or no way to choose")
    server_processor, load_processor = pair or (None, None)
    ground = Ground(
        plan, servers, folder, _say, processor=server_processor, patience_seconds=0.0 if pair else SHARED_SLEEP_SECONDS
    )
    with on_processor(load_processor):
        for name in options.only:
            part, kept_as = PARTS[name]
            try:
                setattr(results, kept_as, part(ground))
            except (LoadError, ServerError) as error:
                results.failures[name] = str(error)
    results.seconds = round(perf_counter() - _BEGIN, 1)
    return results


def _plan(options: argparse.Namespace, descriptors: int) -> Plan:
    plan = QUICK if options.quick else Plan()
    if options.stored is not None:
        plan = replace(plan, stored_messages=options.stored)
    most = descriptors - OTHER_DESCRIPTORS
    steps = tuple(step for step in plan.crowd_steps if step <= most) or (most,)
    if steps != plan.crowd_steps:
        _say(f"The system allows {descriptors} open files: a crowd is at most {steps[-1]} connections")
    return replace(plan, crowd_steps=steps)


def _find_servers(names: Sequence[str], folder: Path) -> tuple[list[Server], dict[str, str]]:
    """Those that are there, and why the others are not."""
    servers, left_out = [], {}
    for name in names:
        if name in OURS_IN:
            servers.append(chatserver(*CHEAPEST_HASH, name=name, wire=OURS_IN[name]))
        elif found := build_floor(folder) if name == FLOOR else find_peer(name):
            servers.append(found)
        else:
            left_out[name] = "can't be compiled here" if name == FLOOR else "not installed"
    return servers, left_out


def _keep(options: argparse.Namespace, results: Results) -> None:
    """The figures as JSON; of a whole run the pictures, too."""
    write(results, options.output)
    _say(f"The figures are in {options.output}")
    if options.is_whole:
        for path in draw(results, PICTURES):
            _say(f"Drawn: {path}")


def _say(text: str) -> None:
    print(f"==> {perf_counter() - _BEGIN:3.0f} s: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
