"""The command ``chatserver``: settings, signals, exit code."""

from __future__ import annotations

import os
import queue
import signal
import sys
from contextlib import suppress

import structlog

from chatprotocol.settings import unknown_settings
from chatserver.app import Server
from chatserver.config import ConfigError, load_config, read_dotenv
from chatserver.log import configure_log
from chatserver.store.database import StoreError

_log = structlog.get_logger()

EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_USAGE = 2

_LOOK_UP_SECONDS = 0.5


def main() -> int:
    """Run the server until SIGTERM or SIGINT. Returns 0, 1 when a thread died, 2 when it could not begin."""
    try:
        environment = {**read_dotenv(), **os.environ}
        config = load_config(sys.argv[1:], environment)
    except ConfigError as error:
        return _complain(str(error))
    configure_log(config.log_level, config.log_format, sys.stdout)
    for name, similar in unknown_settings(environment):
        _log.warning("unknown setting ignored", name=name, did_you_mean=similar or None)
    # A queue's put may interrupt its get, in the same thread; the methods of locks and events may not.
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    # Before anything is opened: as process 1 of a container it would not hear a signal otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.put(None))
    try:
        server = Server(config, lambda: ended.put(None))
    except StoreError as error:
        return _complain(str(error))
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None)
        reason = " ".join([os.strerror(code) if code and code > 0 else str(error), *getattr(error, "__notes__", [])])
        return _complain(f"Can't listen on {config.host} port {config.port}: {reason}.")
    try:
        server.start()
        _wait(ended)
    finally:
        # A second signal does not wait for the end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        all_well = server.stop()
    _forget_output()
    return EXIT_OK if all_well else EXIT_CRASHED


def _wait(ended: queue.SimpleQueue[None]) -> None:
    """A signal that comes just before the main thread begins to wait is handled only when it stops waiting."""
    while True:
        with suppress(queue.Empty):
            ended.get(timeout=_LOOK_UP_SECONDS)
            return


def _forget_output() -> None:
    """Nobody may read the log any more. Python would find that out at its end, and exit with 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(problem: str) -> int:
    print(f"chatserver: {problem}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
