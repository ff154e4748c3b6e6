"""The command ``chatserver``: settings, signals, exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading

from dotenv import dotenv_values

from chatserver.app import Server
from chatserver.config import ConfigError, load_config
from chatserver.log import configure_log
from chatserver.store.database import StoreError

EXIT_OK = 0
EXIT_CRASHED = 1
EXIT_USAGE = 2


def main() -> int:
    """Run the server until SIGTERM or SIGINT. Returns 0, 1 when a thread died, 2 when it could not begin."""
    try:
        config = load_config(sys.argv[1:], {**_read_dotenv(), **os.environ})
    except ConfigError as error:
        return _complain(str(error))
    configure_log(config.log_level, config.log_format, sys.stdout)
    ended = threading.Event()
    # Before anything is opened: as process 1 of a container it would not hear a signal otherwise.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        server = Server(config, ended.set)
    except StoreError as error:
        return _complain(str(error))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        return _complain(f"Can't listen on {config.host} port {config.port}: {reason}.")
    try:
        server.start()
        ended.wait()
    finally:
        # A second signal does not wait for the end.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        all_well = server.stop()
    return EXIT_OK if all_well else EXIT_CRASHED


def _read_dotenv() -> dict[str, str | None]:
    try:
        return dotenv_values(".env")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file .env can't be read: {error}.") from error


def _complain(problem: str) -> int:
    print(f"chatserver: {problem}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
