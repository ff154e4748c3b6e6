"""The command ``chatclient``. It is in cli/program.py, whose imports take half a second."""

import sys

from chatprotocol.interrupts import exit_on_interrupt


def main() -> int:
    """Run the client. Returns its exit code; 0 after Ctrl-C during the imports."""
    with exit_on_interrupt(0):
        from chatclient.cli.program import run  # noqa: PLC0415 -- Ctrl-C is handled here only
    return run()


if __name__ == "__main__":
    sys.exit(main())
