"""The command ``chatserver``: settings, signals, exit code."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from chatprotocol.settings import unknown_settings
from chatserver.app import Server, StartError, prepare_threads
from chatserver.config import ConfigError, load_config, read_dotenv
from chatserver.log import LibraryLog, LogWriter, NoLog, configure_log
from chatserver.store.errors import StoreError
from chatserver.threads import Watchdog

if TYPE_CHECKING:
    from chatserver.config import Config

_log = structlog.get_logger()

EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_USAGE = 2

_STDERR = 2

_LOOK_UP_SECONDS = 0.2
# Time for the log to write its last entries, at the end. What is not read by then is lost.
_LOG_SECONDS = 1.0
# Another signal ends it at once, but not within this time: systemd (SendSIGHUP=), a shell whose terminal is closed, and
# timeout(1) send two for one end.
_SAME_END_SECONDS = 1.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Their default is to end the process at once, and no client is told. They may be ignored at the start (nohup).
_UNLESS_IGNORED = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)


def main() -> int:
    """Run the server until it is told to end. Returns 0, 1 when a thread died, 2 when it could not begin."""
    log = None
    watchdog = Watchdog()
    try:
        _fill_standard_descriptors()
        environment = {**read_dotenv(), **os.environ}
        config = load_config(sys.argv[1:], environment)
        prepare_threads()
        log = _open_log(config, watchdog)
        for name, similar in unknown_settings(environment):
            _log.warning("unknown setting ignored", name=name, did_you_mean=similar or None)
        return _serve(config, watchdog)
    except (ConfigError, StoreError, StartError) as error:
        return _complain(str(error))
    except BaseException:
        watchdog.trip()
        raise
    finally:
        if log is not None:
            log.close(_LOG_SECONDS)


def _fill_standard_descriptors() -> None:
    """If one of them is closed, the database must not take its number: C code writes its last words to number 2."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)


def _open_log(config: Config, watchdog: Watchdog) -> LogWriter | None:
    """Start the two threads that every other one relies on, before anything can go wrong."""
    log = None
    try:
        watchdog.start()
        if sys.stdout is not None:  # it is None if the program was started with its output closed
            log = LogWriter(sys.stdout.fileno(), config.log_format)
            log.start()
    except RuntimeError as error:
        raise StartError.no_threads(error) from error
    configure_log(config.log_level, config.log_format, log or NoLog())
    logging.basicConfig(handlers=[LibraryLog()])

    def note_escaped(crash: threading.ExceptHookArgs) -> None:
        watchdog.trip()
        _log.error("thread died", thread=crash.thread and crash.thread.name, exc_info=crash.exc_value)

    # Python's own hooks write to standard error, which may block.
    threading.excepthook = note_escaped
    sys.unraisablehook = lambda crash: _log.error("error in a finalizer", exc_info=crash.exc_value)
    return log


def _serve(config: Config, watchdog: Watchdog) -> int:
    # A queue's put may interrupt its get, in the same thread; the methods of locks and events may not.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    # Before anything is opened: as process 1 of a container it would not hear a signal otherwise.
    signals = [*_SIGNALS, *(number for number in _UNLESS_IGNORED if signal.getsignal(number) is not signal.SIG_IGN)]
    for number in signals:
        signal.signal(number, lambda number, _: ended.put(number))
    server = Server(config, watchdog.trip)
    try:
        server.start()
        heard = _wait(ended, watchdog)
        if heard is not None:
            _log.info("shutting down", signal=signal.Signals(heard).name)
    except BaseException:
        watchdog.trip()
        raise
    finally:
        _end_at_once_on(signals)
        all_well = server.stop()
        # Python undoes handlers at its end, and a signal would then change the exit code of what ended in order.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
    return EXIT_OK if all_well and not watchdog.tripped else EXIT_CRASHED


def _end_at_once_on(signals: list[signal.Signals]) -> None:
    """From a moment later on, each of these signals ends the process without waiting for the orderly end."""
    begins_at = time.monotonic() + _SAME_END_SECONDS

    def end_at_once(number: int, _: object) -> None:
        if time.monotonic() >= begins_at:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in signals:
        signal.signal(number, end_at_once)


def _wait(ended: queue.SimpleQueue[int], watchdog: Watchdog) -> int | None:
    """Wait for a signal, which is returned, or a crash.

    A signal that comes just before the main thread begins to wait is handled only when it stops waiting, and a crash
    can do no more than to set the flag.
    """
    while not watchdog.tripped:
        with suppress(queue.Empty):
            return ended.get(timeout=_LOOK_UP_SECONDS)
    return None


def _complain(problem: str) -> int:
    print(f"chatserver: {problem}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
