"""The command ``chatserver``. It is in program.py, whose imports take most of a second."""

from __future__ import annotations

import sys

from chatprotocol.interrupts import exit_on_interrupt


def main() -> int:
    """Run the server, or a command of administrators. Returns the exit code."""
    with exit_on_interrupt(code=1 if sys.argv[1:2] == ["admin"] else 0):
        from chatserver.program import run  # noqa: PLC0415 -- Ctrl-C is handled here only
    return run()


if __name__ == "__main__":
    sys.exit(main())
