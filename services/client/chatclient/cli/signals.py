"""The signals that end the client politely, as Ctrl-C does."""

from __future__ import annotations

import signal
from typing import Final

# Their default is to end the process without a goodbye. Whoever starts it may have them ignored (nohup).
_UNLESS_IGNORED: Final = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)
ENDING: Final = (signal.SIGINT, signal.SIGTERM, *_UNLESS_IGNORED)


def heed_signals() -> None:
    """Let each of them raise KeyboardInterrupt in the main thread. For SIGINT Python has done so."""
    # As process 1 of a container SIGTERM would do nothing otherwise.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number in _UNLESS_IGNORED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
