"""The settings of this process: its threads, its heap, its interpreter and its open files."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import threading
from contextlib import suppress
from typing import Final

import structlog

_log = structlog.get_logger()

# Stack size of a thread. Python's frames are on the heap; the stack only serves C code: parsing, SQLite, hashing.
# 10,000 stacks of the default 8 MiB would take 80 GiB of address space, and huge pages would make a part resident.
_STACK_BYTES: Final = 256 * 1024
# Interval at which a computing thread yields the GIL. With the default of 5 ms a message would wait that long.
_SWITCH_SECONDS: Final = 0.001
# Threshold of the garbage collector. Reference counting frees everything that a message allocates; only errors create
# reference cycles. A collection stops all threads while it walks the live objects, so it must be rare.
_GARBAGE_OBJECTS: Final = 100_000
# Parameter number of mallopt(3).
_M_ARENA_MAX: Final = -8


def prepare_threads() -> None:
    """Set the stack size and the heap of all threads. Call it before the first thread starts; repeats are harmless."""
    _use_one_heap()
    threading.stack_size(_STACK_BYTES)


def tune_interpreter() -> None:
    """Set how often threads take turns, and how seldom the garbage collector stops them all."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(_GARBAGE_OBJECTS)


def raise_descriptor_limit(needed: int) -> None:
    """Raise the soft limit of open files towards ``needed``: the usual 1,024 is below ``max_connections``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        _log.warning("open file limit too low", limit=hard, needed=needed)


def _use_one_heap() -> None:
    """Make all threads share one heap.

    By default glibc creates up to eight heaps per processor and keeps the peak size of each. Each connection has a new
    thread, and the memory of a small server tripled over time.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
