"""``python -m ops COMMAND``: the commands of the Makefile. Ctrl-C ends them without a traceback, also their imports."""

from __future__ import annotations

import importlib
import os
import signal
import sys

# As a shell reports a command that SIGINT has ended.
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run ``main`` of the module ``ops.COMMAND``. Returns its exit code, or EXIT_INTERRUPTED."""
    # KeyboardInterrupt would be a traceback in an import, and would be lost in a callback of the import system.
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    command = sys.argv.pop(1)
    module = importlib.import_module(f"ops.{command}")
    sys.argv[0] = command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code: int = module.main() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
