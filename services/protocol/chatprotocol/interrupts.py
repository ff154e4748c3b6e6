"""Ctrl-C during imports. Both programs and the commands of ops begin with it, so it imports as little as can be."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

# As typing.TYPE_CHECKING, whose import would take longer than this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def exit_on_interrupt(code: int) -> Iterator[None]:
    """Let Ctrl-C end the process with this exit code and without a message. For imports, before anything has begun.

    KeyboardInterrupt would be a traceback in an import, and would be lost in a callback of the import system.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # otherwise it is ignored, and remains so
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
