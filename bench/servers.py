"""The servers that bear the load: where each is found, how it is set, started and ended.

The peers run as their distributions make them, but for what stands in a load's way: limits of how much one may say, of
how many may come from one address, of how much may wait for a slow receiver; and looking up who comes. Nobody's log has
a line for each login, ours neither. The hash of a password has the cheapest parameters where nothing else is said.

To add a peer: a function that writes its settings into a folder and returns its command, and a line in PEERS. If it
speaks a wire that the load doesn't know, an entrance and a frame in protocols.py.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.crowd import LOGINS_AT_ONCE
from bench.machine import on_processor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OURS: Final = "chatserver"
# The same, with clients that speak another dialect.
OURS_IN_FRAMES: Final = "chatserver-frames"
OURS_IN_DATAGRAMS: Final = "chatserver-datagram"
FLOOR: Final = "floor"
CHEAPEST_HASH: Final = ("--hash-time-cost", "1", "--hash-memory-kib", "8")
# More than any load has; the usual limit is for people.
_CONNECTIONS_MAX: Final = "20000"
_START_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
# Where daemons are, which is not on everybody's path.
_DAEMONS: Final = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin"))

# From a port and a folder of its own, in which it may write settings, to how it is started there.
Command = Callable[[int, Path], list[str]]


class ServerError(Exception):
    """A server did not start. The text says how it ended."""


@dataclass(frozen=True)
class Server:
    """A server that can be started."""

    name: str
    wire: str
    version: str
    command: Command
    logins_at_once: int = LOGINS_AT_ONCE


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    port: int


# --- ours ---


def chatserver(*flags: str, data: Path | None = None, name: str = OURS, wire: str = "json") -> Server:
    """Our own, with further flags; on a data folder that is there already, or on an empty one."""

    def command(port: int, folder: Path) -> list[str]:
        settings = ("--host", "127.0.0.1", "--log-level", "warning", "--max-connections", _CONNECTIONS_MAX)
        place = str(data or folder / "data")
        return [sys.executable, "-m", "chatserver", str(port), "--data", place, *settings, *flags]

    return Server(name, wire, "this commit", command)


# --- the floor ---


def build_floor(folder: Path) -> Server | None:
    """Compile floor.c; nothing where that can't be done, for there is no compiler or no epoll."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    program = folder / "floor"
    source = Path(__file__).with_name("floor.c")
    compiled = subprocess.run([compiler, "-O2", "-o", str(program), str(source)], capture_output=True, check=False)
    if compiled.returncode:
        return None
    version = f"{Path(compiler).name} {_version(compiler, '--version')}"
    return Server(FLOOR, "raw", version, lambda port, _: [str(program), str(port)])


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
    """What a daemon must be told so that it works for root, too."""
    return words if os.geteuid() == 0 else ()


@dataclass(frozen=True)
class _Peer:
    """Somebody else's server, which may be installed. ``version`` is the flag that shows it.

    Where few connections may wait to be accepted, more logins at once make some of them try again after a second. Where
    logins are answered at a tick of a second, it takes many at once.
    """

    wire: str
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
    """Beside this Python, on the path, or where daemons are; nothing when it is not installed."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), _DAEMONS))
    program = shutil.which(name, path=places)
    if program is None:
        return None
    peer = PEERS[name]
    version = _version(program, peer.version)
    return Server(name, peer.wire, version, partial(peer.command, program), peer.logins_at_once)


def _version(*command: str) -> str:
    """The version number in what a command prints first, or that line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECONDS, check=False)
    line = next(iter((done.stdout or done.stderr).splitlines()), "").strip()
    number = re.search(r"\d+(\.\d+)+", line)
    return number.group() if number else line


# --- starting and ending ---


@contextmanager
def running(server: Server, folder: Path, processor: int | None = None) -> Iterator[Running]:
    """Start it on a free port, in a folder of its own, on one processor; end it. Raises ServerError."""
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
            # A Ctrl-C is the benchmark's to hear, which then ends its servers one after the other.
            start_new_session=True,
        )
    try:
        if not _answers(process, port):
            last = output_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"it did not start: {''.join(last) or f'exit code {process.poll()}'}")
        yield Running(process.pid, port)
    finally:
        _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it accepts connections; false when it ends, or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), _START_SECONDS):
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; insist after a while."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int:
    """Memory that a process has in use. Of Linux; 0 elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
