"""The health check: ``python -m chatserver.health`` asks the server of the data folder and exits with 0 or 1.

The check accepts the server's arguments, variables and ``.env``; only the data folder matters. Without arguments it
uses the arguments and the current folder of process 1 if that is a server, as in a container. A server that can't
commit is unhealthy. A full server is healthy, and so is one that waits for NATS, which a restart would not mend. The
check writes nothing to the server's log and uses no client
connection.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from chatprotocol.settings import ConfigError
from chatserver.config import load_config, read_environment
from chatserver.control import HEALTHY, ask, is_healthy

if TYPE_CHECKING:
    from collections.abc import Sequence

# Timeout of the answer: less than the timeout in the Dockerfile, and more than the server's test of its disk.
_TIMEOUT_SECONDS = 2.5
PROCESS_1 = Path("/proc/1")


def main(process_1: Path = PROCESS_1) -> int:
    """Return 0 if the server is healthy. Otherwise print the reason to stderr and return 1, as Docker requires."""
    try:
        is_well, note = _examine(process_1)
    except ConfigError as error:
        is_well, note = False, str(error)
    if note:
        print(f"chatserver.health: {note}", file=sys.stderr)
    return 0 if is_well else 1


def _examine(process_1: Path) -> tuple[bool, str]:
    """True if the server is healthy; and the problem as a sentence, or what it waits for. Raises ConfigError."""
    arguments: Sequence[str] | None = sys.argv[1:]
    if not arguments:
        with suppress(OSError):
            arguments = server_arguments((process_1 / "cmdline").read_bytes())
            if arguments is not None:
                os.chdir(process_1 / "cwd")  # for its .env and its relative paths
    folder = load_config(arguments or (), read_environment()).data
    try:
        answer = ask(folder, "health", _TIMEOUT_SECONDS)
    except TimeoutError:
        return False, f"The server with the data folder {folder} does not answer within {_TIMEOUT_SECONDS:g} s."
    except OSError as error:
        return False, f"No server can be asked in the data folder {folder}: {error.strerror or error}."
    if is_healthy(answer):
        return True, answer.removeprefix(HEALTHY).removeprefix(": ")
    return False, f"The server with the data folder {folder} is not well: {answer}."


def server_arguments(command_line: bytes) -> list[str] | None:
    """The arguments in a server's command line as /proc has it; None if it belongs to another program."""
    words = [os.fsdecode(word) for word in command_line.split(b"\0")[:-1]]
    names = [PurePath(word).name for word in words]
    return words[names.index("chatserver") + 1 :] if "chatserver" in names else None


if __name__ == "__main__":
    sys.exit(main())
