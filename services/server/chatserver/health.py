"""Is the server on this machine alive? ``python -m chatserver.health`` exits 0 or 1, and leaves no line in its log."""

from __future__ import annotations

import os
import socket
import sys

_PATIENCE_SECONDS = 2.0


def main() -> int:
    """Ask for a pong, as any client may before it logs in."""
    port = int(os.environ.get("CHAT_PORT") or 9999)
    try:
        with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as connection:
            connection.sendall(b'{"command":"ping"}\n')
            answer = connection.recv(64)
    except OSError as error:
        print(f"No answer on port {port}: {error}", file=sys.stderr)
        return 1
    # A server that is full is well.
    return 0 if b'"pong"' in answer or b'"server_full"' in answer else 1


if __name__ == "__main__":
    sys.exit(main())
