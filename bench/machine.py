"""The machine: its description, and the processors of the servers and the load."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Final

from bench.results import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYNCS: Final = 100
# Pause between two syncs, as between two messages of the latency measurement.
_REST_SECONDS: Final = 0.002
# The highest priority: see setpriority(2).
_FIRST: Final = -20
_PAGE: Final = b"\0" * 4096
# The system call that SQLite uses for a commit; not every system has fdatasync.
_sync: Final = getattr(os, "fdatasync", os.fsync)


def processors() -> tuple[int, int] | None:
    """The processors of the servers and of the load; None if there is only one, or processors cannot be chosen."""
    if sys.platform != "linux":
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


@contextmanager
def on_processor(number: int | None) -> Iterator[None]:
    """Pin this process and the processes that it starts to a processor; None pins nothing."""
    if number is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def may_prefer() -> bool:
    """True if ``prefer`` has an effect: for root on Linux."""
    return sys.platform == "linux" and os.geteuid() == 0


def prefer(pid: int) -> None:
    """Let a process run before the others on its processor, as if it had one of its own."""
    if may_prefer():
        for thread in Path(f"/proc/{pid}/task").iterdir():  # their own threads inherit it
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _FIRST)


def describe(folder: Path) -> Machine:
    """Describe the machine, and the disk of ``folder``."""
    pair = processors()
    return Machine(
        processor=_processor(),
        processors=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        file_system=_file_system(folder),
        sync_ms=round(_sync_seconds(folder, 0) * 1_000, 3),
        rested_sync_ms=round(_sync_seconds(folder, _REST_SECONDS) * 1_000, 3),
        pinning=f"servers on processor {pair[0]}, the load on processor {pair[1]}" if pair else "not pinned",
    )


def commit() -> str:
    """The commit of the repository, with a plus if files have changed since; empty without git."""
    top = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=top, capture_output=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=top, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.decode().strip() + ("+" if changes.stdout else "")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"model name\s*: (.*)", text)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the mount that contains the folder."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return sys.platform
    kinds = {mount: kind for _, mount, kind, *_ in (line.split() for line in mounts.splitlines())}
    holders = [mount for mount in kinds if folder.resolve().is_relative_to(mount)]
    return kinds[max(holders, key=len)] if holders else "unknown"


def _sync_seconds(folder: Path, rest_seconds: float) -> float:
    """The median time to write and sync a page after a pause of ``rest_seconds``."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        descriptor = file.fileno()
        for _ in range(_SYNCS):  # SQLite mostly overwrites its WAL, so the blocks are allocated before the measurement
            os.write(descriptor, _PAGE)
        os.fsync(descriptor)
        for number in range(_SYNCS):
            sleep(rest_seconds)
            begin = perf_counter()
            os.pwrite(descriptor, _PAGE, number * len(_PAGE))
            _sync(descriptor)
            took.append(perf_counter() - begin)
    return median(took)
