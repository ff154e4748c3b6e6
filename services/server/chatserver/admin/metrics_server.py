"""The port of the metrics and of the health checks: ``/metrics``, ``/healthz`` and ``/readyz``, by HTTP.

It is for programs of the operator, on an address that strangers can't reach. Its use is limited nevertheless: at most
REQUESTS_MAX requests at a time, each with a thread of its own, and REQUEST_SECONDS for each from its first byte to its
last. It has no effect on the chat: a request whose thread can't start is not answered.

A browser of the same machine must not lend the pages to the sites that it shows (DNS rebinding: the name of a site
leads to 127.0.0.1). So a request that arrives at a loopback address must name the server by an address, or by a name
without a dot, such as localhost. A server at another address may have any name.

Only the thread "metrics" accepts requests, and ends those whose time is over: it shuts their sockets, and their threads
then read the end. A thread closes its own socket, under the lock, so that the descriptor of another socket is never
shut by mistake.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from chatprotocol.address import is_in_any, read_networks, split_address
from chatprotocol.errors import RequestError
from chatserver.net.selector_thread import SelectorThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatprotocol.address import Address

_log = structlog.get_logger()

_LOOPBACK: Final = read_networks("127.0.0.0/8,::1")
_EVERYWHERE: Final = read_networks("0.0.0.0/0,::/0")
# Maximum number of requests at a time: Prometheus, a supervisor and a person need three. More are closed at once.
REQUESTS_MAX = 8
# Time limit of a request. The test of the disk takes at most a third of it.
REQUEST_SECONDS = 5.0
# Interval of the check of that limit, while there are requests.
_CHECK_SECONDS = 0.25
# Time without accepting while the system has no descriptor for another connection.
_PAUSE_SECONDS = 0.2


class Page(NamedTuple):
    """The answer to a request."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class MetricsServer:
    """Serves pages by GET. ``close`` must be called, also if ``start`` was not."""

    def __init__(
        self,
        address: Address,
        pages: Mapping[str, Callable[[str], Page]],
        on_crash: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pages``: by path, a function from the value of the header Accept to the page. Raises OSError."""
        self._pages = pages
        self._clock = clock
        family, *_ = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self._socket = socket.create_server(address, family=family, backlog=REQUESTS_MAX)
        self._socket.setblocking(False)
        self._thread = SelectorThread("metrics", self._run, on_crash)
        # With the port that the system chose if the setting is 0.
        self.address: Address = self._socket.getsockname()[:2]
        # Guards the dict, and the close of its sockets. No call that blocks is made under it.
        self._lock = threading.Lock()
        # The requests, each with its thread and the end of its time.
        self._requests: dict[socket.socket, tuple[threading.Thread, float]] = {}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop and join all threads. Requests that are not complete are cut."""
        self._thread.stop()
        self._socket.close()
        with self._lock:
            threads = [thread for thread, _ in self._requests.values()]
        self._cut(float("inf"))
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._thread, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(_CHECK_SECONDS if self._requests else None)]
                if self._thread in ready:
                    return
                self._cut(self._clock())
                if self._socket in ready and not self._accept():
                    selector.unregister(self._socket)
                    selector.select(_PAUSE_SECONDS)
                    selector.register(self._socket, selectors.EVENT_READ)

    def _accept(self) -> bool:
        """Start a request. False if the system can't accept one now."""
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return True
        except OSError:
            return False
        sock.setblocking(True)
        with self._lock:
            is_full = len(self._requests) >= REQUESTS_MAX
            if not is_full:
                thread = threading.Thread(target=self._serve, args=(sock,), name="metrics request", daemon=True)
                self._requests[sock] = thread, self._clock() + REQUEST_SECONDS
        if is_full:
            sock.close()
            return True
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            self._end(sock)
        return True

    def _serve(self, sock: socket.socket) -> None:
        try:
            _Handler(sock, self._pages)
        except OSError:
            pass  # the peer is gone, or its time is over
        except Exception:
            _log.exception("metrics failed")
        finally:
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        with self._lock:
            self._requests.pop(sock, None)
            sock.close()

    def _cut(self, now: float) -> None:
        """Shut the sockets of the requests whose time is over."""
        with self._lock:
            for sock, (_, deadline) in self._requests.items():
                if deadline <= now:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server_version = "chatserver"
    sys_version = ""

    def __init__(self, sock: socket.socket, pages: Mapping[str, Callable[[str], Page]]) -> None:
        self._pages = pages
        super().__init__(sock, ("", 0), None)  # type: ignore[arg-type]  # the base class does not use its server

    def do_GET(self) -> None:
        """Answer with the page of the path."""
        hosts = self.headers.get_all("Host", [])
        make_page = self._pages.get(self.path.partition("?")[0])
        if not all(_is_name_of(host, self.connection.getsockname()[0]) for host in hosts):
            page = Page(HTTPStatus.FORBIDDEN, b"Host must be localhost, or an address such as 127.0.0.1.\n")
        elif make_page is None:
            page = Page(HTTPStatus.NOT_FOUND, f"The pages are {', '.join(self._pages)}.\n".encode())
        else:
            page = make_page(self.headers.get("Accept", ""))
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, *_: Any) -> None:
        """Do nothing: the default prints to standard error."""


def _is_name_of(host: str, address: str) -> bool:
    """False if the header Host has a name that no program of this machine uses for this address of the server."""
    if not is_in_any(address, _LOOPBACK):
        return True
    try:
        name = split_address(host)[0]
    except RequestError:
        return False
    return "." not in name or is_in_any(name, _EVERYWHERE)
