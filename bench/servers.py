"""The servers under load: finds, configures, starts and ends them.

The peers run with the settings of their distributions, except for settings that stop a load: limits of messages from
one client, of connections from one address, and of data queued for a slow receiver, and look-ups of client addresses.
No server, ours included, logs each login. Passwords are hashed with the cheapest parameters, except in the measurement
"storm".

To add a peer, write a function that writes the peer's settings into a folder and returns the command, and add a row to
PEERS. For a new protocol, add a login and a frame to protocols.py.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trustme

from bench.connections import LOGINS_AT_ONCE
from bench.machine import on_processor
from ops.nats_servers import NatsServers, bind_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OURS: Final = "chatserver"
# The same server, with clients that use another protocol.
OURS_IN_FRAMES: Final = "chatserver-frames"
OURS_IN_DATAGRAMS: Final = "chatserver-datagram"
OURS_IN_TLS: Final = "chatserver-tls"
OURS_IN_WEBSOCKET: Final = "chatserver-websocket"
OURS_IN_IRC: Final = "chatserver-irc"
# The same server with its log on NATS: one server with one replica, and three with three.
OURS_ON_NATS: Final = "chatserver-nats"
OURS_ON_NATS_3: Final = "chatserver-nats-3"
# A relay in C that only copies bytes: baseline.c.
BASELINE: Final = "baseline"
CHEAPEST_HASH: Final = ("--hash-time-cost", "1", "--hash-memory-kib", "8")
# Connection limit of the servers: more than any load needs.
_CONNECTIONS_MAX: Final = "20000"
_START_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02
# Folders of daemons, which a user's PATH may lack.
_DAEMON_FOLDERS: Final = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin"))

# Returns the command for a port and a folder, in which it may write settings.
Command = Callable[[int, Path], list[str]]


class ServerError(Exception):
    """A server did not start. The text is the last line of its output, or its exit code."""


@dataclass(frozen=True)
class Server:
    """A server that can be started. ``protocol`` is a key of PROTOCOLS.

    ``sharing`` is the number of servers that share a log on as many NATS servers; 0 without such a log.
    """

    name: str
    protocol: str
    version: str
    command: Command
    logins_at_once: int = LOGINS_AT_ONCE
    sharing: int = 0


@dataclass(frozen=True)
class Running:
    """A running server, and the ``others`` that share a log with it on the NATS servers of ``nats_url``."""

    pid: int
    port: int
    others: tuple[Running, ...] = ()
    nats_url: str = ""


# --- ours ---


def chatserver(
    *flags: str, data: Path | None = None, name: str = OURS, protocol: str = "json", sharing: int = 0
) -> Server:
    """Our own server with additional flags, on the data folder ``data`` or an empty one."""

    def command(port: int, folder: Path) -> list[str]:
        settings = ("--host", "127.0.0.1", "--log-level", "warning", "--max-connections", _CONNECTIONS_MAX)
        data_folder = str(data or folder / "data")
        tls = _certificate(folder) if name == OURS_IN_TLS else ()
        return [sys.executable, "-m", "chatserver", str(port), "--data", data_folder, *settings, *flags, *tls]

    return Server(name, protocol, "this commit", command, sharing=sharing)


def on_nats(server: Server, number: int, nats: NatsServers) -> Server:
    """Our own server as one of those that share a log."""
    monitors = ",".join(f"http://127.0.0.1:{each.monitor_port}" for each in nats.servers)
    replicas = str(len(nats.servers))
    flags = ["--nats", nats.url, "--nats-monitor", monitors, "--nats-replicas", replicas, "--server-name", f"s{number}"]
    return replace(server, command=lambda port, folder: [*server.command(port, folder), *flags])


def _certificate(folder: Path) -> Sequence[str]:
    """Make a certificate with the key type that Let's Encrypt issues (ECDSA P-256); returns the flags that use it."""
    issued = trustme.CA().issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    files = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(files[0])
    issued.private_key_pem.write_to_path(files[1])
    return "--tls", "required", "--tls-cert", str(files[0]), "--tls-key", str(files[1])


# --- the baseline ---


def build_baseline(folder: Path) -> Server | None:
    """Compile baseline.c. None if there is no compiler or no epoll."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    program = folder / "baseline"
    source = Path(__file__).with_name("baseline.c")
    compiled = subprocess.run([compiler, "-O2", "-o", str(program), str(source)], capture_output=True, check=False)
    if compiled.returncode:
        return None
    version = f"{Path(compiler).name} {_version(compiler, '--version')}"
    return Server(BASELINE, "raw", version, lambda port, _: [str(program), str(port)])


# --- the peers ---


def _nats(program: str, port: int, _: Path) -> list[str]:
    return [program, "--addr", "127.0.0.1", "--port", str(port)]


_INSPIRCD: Final = """
<server name="bench.example.org" description="bench" network="bench">
<admin name="bench" nick="bench" email="bench@example.org">
<bind address="127.0.0.1" port="{port}" type="clients">
<connect allow="*" timeout="120" pingfreq="3600" maxchans="10" localmax="{most}" globalmax="{most}"
    fakelag="no" threshold="1000000000" commandrate="1000000000" recvq="256M" softsendq="256M" hardsendq="256M"
    resolvehostnames="no" useident="no" useconnectban="no">
<performance softlimit="{most}" somaxconn="4096" netbuffersize="65534" clonesonconnect="no">
<files motd="/dev/null">
<pid file="{folder}/inspircd.pid">
<log method="file" target="{folder}/inspircd.log" type="* -USERINPUT -USEROUTPUT" level="default">
"""


def _inspircd(program: str, port: int, folder: Path) -> list[str]:
    settings = folder / "inspircd.conf"
    settings.write_text(_INSPIRCD.format(port=port, folder=folder, most=_CONNECTIONS_MAX))
    return [program, "--nofork", f"--config={settings}", *_if_root("--runasroot")]


_NGIRCD: Final = """
[Global]
Name = bench.example.org
Info = bench
AdminInfo1 = bench
Listen = 127.0.0.1
Ports = {port}
{user}
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxPenaltyTime = 0
PingTimeout = 3600
[Options]
DNS = no
Ident = no
PAM = no
"""


def _ngircd(program: str, port: int, folder: Path) -> list[str]:
    settings = folder / "ngircd.conf"
    user = "\n".join(_if_root("ServerUID = root", "ServerGID = root"))
    settings.write_text(_NGIRCD.format(port=port, user=user))
    return [program, "--nodaemon", "--config", str(settings)]


_MOSQUITTO: Final = """
listener {port} 127.0.0.1
allow_anonymous true
max_connections -1
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
{user}
"""


def _mosquitto(program: str, port: int, folder: Path) -> list[str]:
    settings = folder / "mosquitto.conf"
    settings.write_text(_MOSQUITTO.format(port=port, user="\n".join(_if_root("user root"))))
    return [program, "-c", str(settings)]


def _miniircd(program: str, port: int, _: Path) -> list[str]:
    return [program, "--listen", "127.0.0.1", "--ports", str(port), *_if_root("--setuid", "root")]


def _if_root(*words: str) -> Sequence[str]:
    """Flags or settings that a daemon needs to run as root."""
    return words if os.geteuid() == 0 else ()


@dataclass(frozen=True)
class _Peer:
    """Another server, which may be installed. ``version`` is the flag that prints its version.

    ``logins_at_once`` is small for a server with a short accept queue, because excess connections are retried only
    after a second. It is large for a server that answers logins once a second.
    """

    protocol: str
    version: str
    command: Callable[[str, int, Path], list[str]]
    logins_at_once: int = LOGINS_AT_ONCE


PEERS: Final[Mapping[str, _Peer]] = {
    "nats-server": _Peer("nats", "--version", _nats),
    "inspircd": _Peer("irc", "--version", _inspircd, logins_at_once=1_000),
    "ngircd": _Peer("irc", "--version", _ngircd, logins_at_once=8),
    "mosquitto": _Peer("mqtt", "-h", _mosquitto),
    "miniircd": _Peer("irc", "--version", _miniircd, logins_at_once=4),
}


def find_peer(name: str) -> Server | None:
    """Look for a peer in the folder of this Python, in PATH and in the folders of daemons. None if not installed."""
    folders = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), _DAEMON_FOLDERS))
    program = shutil.which(name, path=folders)
    if program is None:
        return None
    peer = PEERS[name]
    version = _version(program, peer.version)
    return Server(name, peer.protocol, version, partial(peer.command, program), peer.logins_at_once)


def _version(*command: str) -> str:
    """The version number in the first line of a command's output, or that line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECONDS, check=False)
    line = next(iter((done.stdout or done.stderr).splitlines()), "").strip()
    number = re.search(r"\d+(\.\d+)+", line)
    return number.group() if number else line


# --- starting and ending ---


@contextmanager
def running(
    server: Server, folder: Path, processor: int | None = None, start_seconds: float = _START_SECONDS
) -> Iterator[Running]:
    """Start a server on a free port, in a new folder, pinned to a processor; then end it. Raises ServerError."""
    folder.mkdir(parents=True)
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    output_path = folder / "output.txt"
    with output_path.open("wb") as output, on_processor(processor):
        process = subprocess.Popen(
            server.command(port, folder),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C must reach only the benchmark, which then ends its servers.
            start_new_session=True,
        )
    try:
        if not _accepts_connections(process, port, start_seconds):
            last = output_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"it did not start: {''.join(last) or f'exit code {process.poll()}'}")
        yield Running(process.pid, port)
    finally:
        _end(process)


def _free_port() -> int:
    """A port that the system gives to no program that asks for any free one."""
    with bind_free_port() as reserved:
        return int(reserved.getsockname()[1])


def _accepts_connections(process: subprocess.Popen[bytes], port: int, seconds: float) -> bool:
    """Wait until the server accepts connections. False if it ends, or at the time limit."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), seconds):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process; kill it after _STOP_SECONDS."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if the system is not Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
