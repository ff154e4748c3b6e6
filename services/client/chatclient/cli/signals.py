"""The signals that end the client with a goodbye, like Ctrl-C."""

import signal
from typing import Final

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
