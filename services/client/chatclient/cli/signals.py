"""The signals that end the client with a goodbye, like Ctrl-C."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Signals that end the process without a goodbye by default. A parent process may set them to ignored (nohup).
_UNLESS_IGNORED: Final = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *_UNLESS_IGNORED)
# Maximum delay of a signal that arrives just before a wait.
_DELAY_SECONDS: Final = 0.25


def install_signal_handlers() -> None:
    """Make these signals raise KeyboardInterrupt in the main thread. Python does so for SIGINT."""
    # Without a handler, SIGTERM has no effect on process 1 of a container.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number in _UNLESS_IGNORED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def wait_interruptibly(wait: Callable[[float], bool]) -> None:
    """Call ``wait(timeout_seconds)`` until it returns true. For the main thread.

    A signal that arrives after Python's last check for signals and before the system call does not interrupt the call.
    Python handles the signal only after the call, so the timeout limits the delay.
    """
    while not wait(_DELAY_SECONDS):
        pass
