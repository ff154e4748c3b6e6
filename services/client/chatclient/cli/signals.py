"""The signals that end the client with a goodbye, like Ctrl-C."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Signals that end the process without a goodbye by default. A parent process may set them to ignored (nohup).
_UNLESS_IGNORED: Final = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU)
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *_UNLESS_IGNORED)


def install_signal_handlers() -> None:
    """Make these signals raise KeyboardInterrupt in the main thread. Python does so for SIGINT."""
    # Without a handler, SIGTERM has no effect on process 1 of a container.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number in _UNLESS_IGNORED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


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
