"""``python -m ops COMMAND``: the commands of the Makefile. Ctrl-C ends them without a traceback, also their imports."""

from __future__ import annotations

import importlib
import sys

from chatprotocol.interrupts import exit_on_interrupt

# As a shell reports a command that SIGINT has ended.
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run ``main`` of the module ``ops.COMMAND``. Returns its exit code, or EXIT_INTERRUPTED."""
    sys.argv[0] = command = sys.argv.pop(1)
    with exit_on_interrupt(EXIT_INTERRUPTED):
        module = importlib.import_module(f"ops.{command}")
    try:
        code: int = module.main() or 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
