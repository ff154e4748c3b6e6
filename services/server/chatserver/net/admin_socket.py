"""The server's end of the socket for administrators' commands; see chatserver.admin."""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from chatserver.control import ADMIN_FILE, peer_user_id
from chatserver.net.control_socket import FolderSocket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger()

# Maximum size of a request, which is one line: names, a reason and a hash.
REQUEST_MAX_BYTES: Final = 64 * 1024
# Time for a peer to send its request, and to read the answer. Meanwhile the next peer waits.
_PEER_SECONDS: Final = 5.0
# Pause after a connection that could not be accepted.
_PAUSE_SECONDS: Final = 0.2
# Maximum peers that wait to be accepted; the system makes others wait in connect().
_BACKLOG: Final = 8
_ROOT: Final = 0


class AdminSocket(FolderSocket):
    """Answers requests in its own thread, one connection after the other: a request line, and an answer line.

    Only root and the user of this process get an answer: the mode of the socket says so, and its peer's credentials
    are checked as well, because an abstract address has no mode.
    """

    def __init__(
        self,
        folder: Path,
        answer: Callable[[bytes, int], bytes],
        on_crash: Callable[[str], None],
        peer_seconds: float = _PEER_SECONDS,
    ) -> None:
        """``answer`` gets a request and the user id of its sender. It may wait for the disk, and must not raise."""
        self._answer = answer
        self._peer_seconds = peer_seconds
        self._allowed = {_ROOT, os.geteuid()}
        super().__init__(folder, ADMIN_FILE, socket.SOCK_STREAM, "admin", on_crash)
        if self._socket is not None:
            self._socket.listen(_BACKLOG)

    def _run(self) -> None:
        assert self._socket is not None
        while self._wait_for(self._socket, None):
            try:
                peer, _ = self._socket.accept()
            except OSError:  # the peer has ended, or the system has no more descriptors
                self._wait_for(None, time.monotonic() + _PAUSE_SECONDS)
                continue
            with suppress(OSError), peer:  # the peer may end
                self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        user_id = peer_user_id(peer)
        if user_id not in self._allowed:
            _log.warning("admin command refused", user_id=user_id)
            return
        peer.setblocking(False)
        request = b""
        deadline = time.monotonic() + self._peer_seconds
        while not request.endswith(b"\n") and len(request) <= REQUEST_MAX_BYTES and self._wait_for(peer, deadline):
            part = peer.recv(REQUEST_MAX_BYTES)
            if not part:
                break
            request += part
        if request.endswith(b"\n"):
            peer.settimeout(self._peer_seconds)
            peer.sendall(self._answer(request, user_id) + b"\n")

    def _wait_for(self, sock: socket.socket | None, deadline: float | None) -> bool:
        """Wait until the socket is readable. False after the deadline, or if the thread is to stop."""
        poll = select.poll()  # takes no descriptor, of which there may be none left
        for each in (self._thread, sock):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = dict(poll.poll(None if deadline is None else max(deadline - time.monotonic(), 0.0) * 1000))
        return bool(ready) and self._thread.fileno() not in ready
