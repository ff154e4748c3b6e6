"""Draws the pictures of a run: python -m bench.draw [RESULTS] [--folder FOLDER]. Measures nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.results import read
from bench.servers import BASELINE, OURS, OURS_IN_DATAGRAMS, OURS_IN_FRAMES, OURS_IN_IRC, OURS_IN_TLS, OURS_IN_WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.results import Latency, ManyConnections, Results, Throughput

TOP: Final = Path(__file__).resolve().parent.parent
LATEST: Final = TOP / "bench" / "results" / "latest.json"
PICTURES: Final = TOP / "docs" / "pictures"

# Our server has the blue of docs/pictures/way-of-a-message.svg.
_INK: Final = "#444444"
_FAINT: Final = "#dddddd"
_STYLES: Final[dict[str, dict[str, Any]]] = {
    OURS: {"color": "#3b5b8c", "marker": "o", "linewidth": 2.5, "zorder": 4},
    OURS_IN_FRAMES: {"color": "#6d8fc4", "marker": "P", "linewidth": 1.5, "zorder": 3},
    OURS_IN_TLS: {"color": "#4f6fa8", "marker": "D", "linewidth": 1.5, "linestyle": "--", "zorder": 3},
    OURS_IN_WEBSOCKET: {"color": "#5a7fb8", "marker": "d", "linewidth": 1.5, "linestyle": "-.", "zorder": 3},
    OURS_IN_IRC: {"color": "#7f9bd0", "marker": "p", "linewidth": 1.5, "linestyle": (0, (5, 1)), "zorder": 3},
    OURS_IN_DATAGRAMS: {"color": "#9db4d8", "marker": "X", "linewidth": 1.5, "linestyle": ":", "zorder": 3},
    BASELINE: {"color": "#777777", "marker": "", "linestyle": "--"},
    "nats-server": {"color": "#a8681a", "marker": "s"},
    "inspircd": {"color": "#4f7d4a", "marker": "^"},
    "ngircd": {"color": "#8a4f7d", "marker": "v"},
    "mosquitto": {"color": "#2f8f8f", "marker": "D"},
    "miniircd": {"color": "#b04a4a", "marker": "x"},
}
_STYLE: Final = {
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.markersize": 6,
    "legend.frameon": False,
    # Text is written as text, and the same figures give the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
}
_INCHES: Final = (8.0, 4.6)
_MARGIN_INCHES: Final = 0.15
_MEBIBYTE: Final = 2**20


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw each picture that has figures. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, figure in _pictures(results):
            path = folder / f"bench-{name}.svg"
            # White, because a page may be dark.
            figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
            # matplotlib writes trailing blanks.
            path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
            drawn.append(path)
    return drawn


def _pictures(results: Results) -> Iterator[tuple[str, Figure]]:
    if results.throughput:
        yield "throughput", _throughput([row for row in results.throughput if row.senders == 1])
    if results.latency:
        yield "latency", _latency([row for row in results.latency if row.server != BASELINE])
    if any(row.memory for row in results.connections):
        yield "memory", _memory([row for row in results.connections if row.server != BASELINE])


def _axes(title: str, across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_INCHES)
    figure.set_layout_engine("constrained", w_pad=_MARGIN_INCHES, h_pad=_MARGIN_INCHES)
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return figure, axes


def _throughput(rows: Sequence[Throughput]) -> Figure:
    figure, axes = _axes("Deliveries a second", "receivers", "million deliveries/s")
    for server in dict.fromkeys(row.server for row in rows):
        points = [(row.receivers, row.median / 1e6) for row in rows if row.server == server and row.median]
        if points:
            axes.plot(*zip(*points, strict=True), label=server, **_STYLES.get(server, {}))
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis, sorted({row.receivers for row in rows}))
    _plain_numbers(axes.yaxis)
    _legend(axes)
    return figure


def _latency(rows: Sequence[Latency]) -> Figure:
    title = f"Latency: {rows[0].messages_per_second} messages/s to {rows[0].receivers} receivers"
    figure, axes = _axes(title, "percentile", "ms")
    names = ["p50", "p90", "p99", "p99.9"]
    for row in rows:
        value = row.median
        if value is not None:
            axes.plot(
                names, [value.p50, value.p90, value.p99, value.p99_9], label=row.server, **_STYLES.get(row.server, {})
            )
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    _legend(axes)
    return figure


def _memory(rows: Sequence[ManyConnections]) -> Figure:
    figure, axes = _axes("Resident memory", "connections, all of them in the room", "MiB")
    for row in rows:
        if row.memory:
            points = [(value.connections, value.resident_bytes / _MEBIBYTE) for value in row.memory]
            axes.plot(*zip(*points, strict=True), label=row.server, **_STYLES.get(row.server, {}))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _plain_numbers(axes.xaxis)
    _legend(axes)
    return figure


def _plain_numbers(axis: Any, ticks: Sequence[float] = ()) -> None:
    """Label ticks as 10,000, not as a power of ten."""
    if ticks:
        axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(axes: Any) -> None:
    """Put the legend to the right of the lines, not over them."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures of a stored run."""
    parser = argparse.ArgumentParser(prog="python -m bench.draw", description=__doc__)
    parser.add_argument(
        "results", nargs="?", type=Path, default=LATEST, help="a results file (that of the last complete run)"
    )
    parser.add_argument("--folder", type=Path, default=PICTURES, help="the folder of the pictures (docs/pictures)")
    options = parser.parse_args(arguments)
    for path in draw(read(options.results), options.folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
