"""Sockets in the data folder: requests from programs on the same machine to the running server.

The control socket is a Unix datagram socket in the data folder. A program that knows the folder finds the server
without its host and port, and only the server's own user (and root) may write to the socket. Datagrams need no
connection: the server needs no descriptor to accept one, and a silent peer can't block it.

A request is one word, an answer is one line of text. The only request is ``health``.

Administrators' commands have a socket of their own, a stream: see ``chatserver.admin``.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_FILE: Final = "control.sock"
ADMIN_FILE: Final = "admin.sock"
# Maximum size of an answer; longer answers are cut.
ANSWER_MAX_BYTES: Final = 1_024
# Answer of a healthy server to ``health``. One that waits for something which a restart does not mend is healthy, too:
# then a colon and the reason follow. Any other answer describes the problem.
HEALTHY: Final = "ok"

# struct ucred: process, user and group of the peer (unix(7)).
_CREDENTIALS: Final = struct.Struct("3i")
# Longest path of a Unix socket: sockaddr_un has 108 bytes, including the final zero.
_PATH_MAX_BYTES: Final = 107


def open_folder(folder: Path) -> int:
    """A descriptor of the data folder for the functions below; the caller closes it. Raises OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def address_in(folder: Path, descriptor: int, file: str = CONTROL_FILE) -> str:
    """The address of a socket; it goes through the descriptor if the path is too long for a socket address."""
    path = str(folder / file)
    return path if len(os.fsencode(path)) <= _PATH_MAX_BYTES else f"/proc/self/fd/{descriptor}/{file}"


def fallback_address(descriptor: int, file: str = CONTROL_FILE) -> str:
    """The address for a file system without sockets: an abstract name (Linux, unix(7))."""
    status = os.fstat(descriptor)
    return f"\0chatserver-{'' if file == CONTROL_FILE else f'{file}-'}{status.st_dev:x}-{status.st_ino:x}"


def peer_user_id(connection: socket.socket) -> int:
    """The system user at the other end of a Unix stream. Without SO_PEERCRED (Linux) this one: the mode let it in."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()
    _, user_id, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user_id)


def is_healthy(answer: str) -> bool:
    """True for the answers of a healthy server to ``health``."""
    return answer.partition(":")[0] == HEALTHY


def ask(folder: Path, request: str, timeout_seconds: float) -> str:
    """Send a request to the server of this data folder and return its answer.

    Raises TimeoutError if it does not answer, OSError if no server listens.
    """
    descriptor = open_folder(folder)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind("")  # the kernel assigns an address for the answer
            sock.settimeout(timeout_seconds)
            try:
                sock.connect(address_in(folder, descriptor))
            except FileNotFoundError:
                sock.connect(fallback_address(descriptor))
            sock.send(request.encode())
            return sock.recv(ANSWER_MAX_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)
