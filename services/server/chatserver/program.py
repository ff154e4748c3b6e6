"""The command ``chatserver`` after its imports: settings, log, signals, exit code. ``chatserver admin`` is in admin/.

SIGHUP reads the settings again, SIGUSR1 logs the stacks of all threads; both leave the server running. Every other
signal that can be handled ends the server in order.
"""

from __future__ import annotations

import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from chatprotocol.interrupts import exit_on_interrupt
from chatprotocol.settings import ConfigError, unknown_settings
from chatserver.admin import cli
from chatserver.config import RELOADABLE, changed_settings, load_config, read_environment
from chatserver.journal.log import LogError
from chatserver.log import LibraryLog, LineLimiter, LogWriter, configure_log
from chatserver.process import prepare_threads
from chatserver.store.errors import StoreError
from chatserver.threads import StartError, Watchdog, log_stacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.app import Server
    from chatserver.config import Config

_log = structlog.get_logger()

EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_USAGE = 2

_STDOUT = 1
_STDERR = 2

# Interval at which the main thread checks for a crash, which can only set a flag.
_POLL_SECONDS = 0.2
# Time for the log writer to write the last entries at the end. Unwritten entries are lost.
_LOG_SECONDS = 1.0
# A second signal kills the process, but not within this time, because timeout(1) and some supervisors send two signals
# for one shutdown.
_SECOND_SIGNAL_SECONDS = 1.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Signals that by default end the process without notice to the clients. A signal that is ignored at the start stays
# ignored.
_UNLESS_IGNORED = (
    signal.SIGQUIT,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)

# Signals that never end the server.
_RELOAD = signal.SIGHUP
_STACKS = signal.SIGUSR1


def run(make_server: Callable[..., Server] | None = None) -> int:
    """Run the server until a signal. Returns 0; 1 if a thread died; 2 if the server could not start.

    ``chatserver admin`` runs a command instead: see ``admin/cli.py`` for its exit codes.
    """
    _forbid_core_dumps()
    if sys.argv[1:2] == ["admin"]:
        return cli.main(sys.argv[2:])
    log = None
    watchdog = Watchdog()
    try:
        with exit_on_interrupt(EXIT_OK):
            from chatserver import app  # noqa: PLC0415 -- commands of administrators start faster without all of it

        _fill_standard_descriptors()
        environment = read_environment()
        config = load_config(sys.argv[1:], environment)
        prepare_threads()
        log = _open_log(config, watchdog)
        for name, similar in unknown_settings(environment):
            _log.warning("unknown setting ignored", name=name, did_you_mean=similar or None)
        return _serve(make_server or app.Server, config, watchdog, log)
    except (ConfigError, LogError, StoreError, StartError) as error:
        if log is not None and config.log_format == "json":  # readers of a text log also see standard error
            _log.error("start failed", error=str(error))
        print(f"chatserver: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # Ctrl-C before _serve has installed the handlers: nothing has begun
        return EXIT_OK
    except BaseException:
        watchdog.trip()
        raise
    finally:
        if log is not None:
            log.close(_LOG_SECONDS)


def _fill_standard_descriptors() -> None:
    """Open /dev/null in place of closed standard descriptors.

    Otherwise the database could get descriptor 2, to which C code writes its error messages.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)


def _forbid_core_dumps() -> None:
    """Write no core dump: it would have passwords and messages in it. ``prlimit --core`` allows one for a process."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _open_log(config: Config, watchdog: Watchdog) -> LogWriter:
    """Start the watchdog and the log writer, which all other threads need, and configure logging. Raises StartError."""
    log = LogWriter(_STDOUT, config.log_format, LineLimiter(config.log_lines_per_address))
    try:
        watchdog.start()
        log.start()
    except RuntimeError as error:
        raise StartError.no_threads(error) from error
    configure_log(config.log_level, config.log_format, log)
    logging.basicConfig(handlers=[LibraryLog()])

    def log_uncaught(crash: threading.ExceptHookArgs) -> None:
        watchdog.trip()
        _log.error("thread died", thread=crash.thread and crash.thread.name, exc_info=crash.exc_value)

    # The default hooks write to standard error, which may block.
    threading.excepthook = log_uncaught
    sys.unraisablehook = lambda crash: _log.error("finalizer failed", exc_info=crash.exc_value)
    return log


def _serve(make_server: Callable[..., Server], config: Config, watchdog: Watchdog, log: LogWriter) -> int:
    # SimpleQueue is reentrant: a signal handler may call put while the same thread is in get. Locks and events are not.
    signals_received: queue.SimpleQueue[int] = queue.SimpleQueue()
    # Installed before anything is opened: process 1 of a container ignores signals without a handler.
    ending = [*_SIGNALS, *(number for number in _UNLESS_IGNORED if signal.getsignal(number) is not signal.SIG_IGN)]
    for number in (*ending, _RELOAD, _STACKS):
        signal.signal(number, lambda number, _: signals_received.put(number))
    server = make_server(config, watchdog.trip, dropped_log_entries=lambda: log.dropped)
    try:
        server.start(lambda seconds: _pause(signals_received, watchdog, seconds))
        while (received := _wait(signals_received, watchdog)) in (_RELOAD, _STACKS):
            if received == _STACKS:
                log_stacks()
            else:
                config = _reload(config, server, log)
        if received is not None:
            _log.info("shutting down", reason="signal", signal=signal.Signals(received).name)
    except BaseException:
        watchdog.trip()
        raise
    finally:
        for number in (_RELOAD, _STACKS):
            signal.signal(number, signal.SIG_IGN)
        _exit_on_second_signal(ending)
        is_clean = server.stop()
        # Python restores the default handlers at its exit; a signal would then change the exit code.
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
    return EXIT_OK if is_clean and not watchdog.tripped else EXIT_CRASHED


def _pause(signals_received: queue.SimpleQueue[int], watchdog: Watchdog, seconds: float) -> bool:
    """Wait during the start. True if the server must end; the signal is left for ``_wait``.

    SIGHUP has no effect meanwhile: the settings were read a moment ago, and the parts that it changes do not exist.
    """
    with suppress(queue.Empty):
        received = signals_received.get(timeout=seconds)
        if received == _STACKS:
            log_stacks()
        elif received != _RELOAD:
            signals_received.put(received)
            return True
    return watchdog.tripped


def _reload(config: Config, server: Server, log: LogWriter) -> Config:
    """Read the settings again, and apply the changes of RELOADABLE, all or none. Returns the settings in force."""
    try:
        new = load_config(sys.argv[1:], read_environment())
        server.reload(new)
    except ConfigError as error:
        _log.error("reload failed", error=str(error))
        return config
    configure_log(new.log_level, config.log_format, log)
    changed = changed_settings(config, new)
    applied = [name for name in changed if name in RELOADABLE]
    ignored = [name for name in changed if name not in RELOADABLE]
    _log.info("settings reloaded", changed=", ".join(applied) or "none")
    if ignored:
        _log.warning("restart needed", settings=", ".join(ignored))
    return replace(config, **{name: getattr(new, name) for name in applied})


def _exit_on_second_signal(signals: list[signal.Signals]) -> None:
    """After _SECOND_SIGNAL_SECONDS, let each of these signals kill the process during the shutdown."""
    kills_from = time.monotonic() + _SECOND_SIGNAL_SECONDS

    def exit_now(number: int, _: object) -> None:
        if time.monotonic() >= kills_from:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in signals:
        signal.signal(number, exit_now)


def _wait(signals_received: queue.SimpleQueue[int], watchdog: Watchdog) -> int | None:
    """Wait for a signal and return its number; None after a crash.

    This function polls for two reasons. Python handles a signal that arrives just before the wait only after the wait.
    A crash can only set a flag.
    """
    while not watchdog.tripped:
        with suppress(queue.Empty):
            return signals_received.get(timeout=_POLL_SECONDS)
    return None
