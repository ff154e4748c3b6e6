"""The program ``chatserver``: a test starts, stops and kills it, and starts it again on the same data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.error import HTTPError

from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

# Deadline of each start and end, on a busy machine.
DEADLINE_SECONDS = 30.0
# No test must wait for the hash of a password.
CHEAP_HASHES = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}
# Tests run on small disks, too; they disconnect many peers, and send thousands of messages to users who are offline.
NO_LIMITS = {
    "CHAT_DISK_RESERVE": "0",
    "CHAT_LOG_LINES_PER_ADDRESS": "0",
    "CHAT_WAITING_FROM_SENDER": "0",
    "CHAT_WAITING_MESSAGES": "0",
}
_POLL_SECONDS = 0.005
_PROGRAM = """
import sys
from functools import partial
from chatserver.app import Server
from chatserver.program import run
sys.exit(run(partial(Server, {})))
"""


def own_environment() -> dict[str, str]:
    """The environment of this process without settings of the chat programs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return {**inherited, **CHEAP_HASHES, **NO_LIMITS, "PYTHONUNBUFFERED": "1"}


class Program:
    """A server on a free port of 127.0.0.1. Leaving the context kills it.

    Its data and its log are in ``folder``. ``under`` is a command that runs another one, such as ``("prlimit",
    "--nofile=100")``. ``silence_seconds`` is the timeout of UDP sessions. ``prelude`` is Python that runs first, to
    inject a fault. ``settings`` are variables of its environment, such as ``CHAT_LAG_MAX_BYTES="1048576"``.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        under: Sequence[str] = (),
        silence_seconds: float | None = None,
        prelude: str = "",
        **settings: str,
    ) -> None:
        self.data = folder / "data"
        self.port = 0
        self._folder = folder
        self._log = folder / "chatserver.log"
        self._begins_at = 0
        # Ports of earlier runs as well: their clients look for the server there, and must not find another test's.
        self._reserved: list[socket.socket] = []
        program = ["-m", "chatserver"]
        if prelude or silence_seconds is not None:
            limits = "" if silence_seconds is None else f"udp_silence_seconds={silence_seconds!r}"
            program = ["-c", prelude + _PROGRAM.format(limits)]
        self._command = [*under, sys.executable, *program, "--host", "127.0.0.1", "--data", str(self.data), *arguments]
        self._environment = {**own_environment(), **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        print(self.log())  # shown when the test fails

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self, port: int = 0) -> None:
        """Start it, also again on the same data and port. Returns when it accepts connections."""
        self.launch(port)
        self.wait_for_port()

    def launch(self, port: int = 0) -> None:
        """The same without the wait."""
        if not port:
            self._reserved.append(bind_free_port())
            port = int(self._reserved[-1].getsockname()[1])
        with self._log.open("ab") as log:
            self._begins_at = log.tell()
            self._process = subprocess.Popen(
                [*self._command, "--port", str(port)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def administer(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run ``chatserver admin`` in the environment of the server, running or not, with other settings."""
        command = [sys.executable, "-m", "chatserver", "admin", *words, "--data", str(self.data)]
        environment = self._environment | settings
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=2 * DEADLINE_SECONDS
        )

    def page(self, path: str) -> tuple[int, str]:
        """The status and the text of a page of the metrics' port."""
        self.wait_until(lambda: "metrics served" in self.log(), "the address of the metrics")
        address = re.findall(r"metrics served address=(\S+)", self.log())[-1]
        try:
            with urllib.request.urlopen(f"http://{address}/{path}", timeout=DEADLINE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait_for_port(self) -> None:
        """Wait until it accepts connections after launch()."""

        def find_port() -> re.Match[str] | None:
            text = self._log.read_bytes()[self._begins_at :].decode()
            return re.search(r"^\[INFO\] Waiting for connection on port (\d+)\.\.\. ", text, re.MULTILINE)

        try:
            self.wait_until(lambda: find_port() is not None, "its port")
        except AssertionError:
            self.kill()
            print(self.log())
            raise
        found = find_port()
        assert found is not None
        self.port = int(found[1])

    def suspend(self) -> None:
        """Stop all threads of the process; its connections stay open. On return none of them runs."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it like a power cut, except for the system's caches."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill it, and give its ports back."""
        self.kill()
        for each in self._reserved:
            each.close()

    def stop(self) -> int:
        """End it like ``docker stop``. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def log(self) -> str:
        """Its output since the first start."""
        return self._log.read_text(encoding="utf-8")

    def processor_seconds(self) -> float:
        """The processor time of all its threads so far."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory_bytes(self) -> int:
        """The resident memory."""
        return int(self._status("VmRSS").removesuffix(" kB")) * 1024

    def memory_peak_bytes(self) -> int:
        """The highest resident memory since the start, or since ``forget_memory_peak``."""
        return int(self._status("VmHWM").removesuffix(" kB")) * 1024

    def forget_memory_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def address_bytes(self) -> int:
        """The address space."""
        return int(self._status("VmSize").removesuffix(" kB")) * 1024

    def threads(self) -> int:
        return int(self._status("Threads"))

    def descriptors(self, kind: str = "") -> int:
        """The number of open files and sockets; with ``socket:`` of sockets."""
        count = 0
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                count += os.readlink(descriptor).startswith(kind)  # noqa: PTH115 - not the path of anything
        return count

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Poll until the condition holds. Fails after the deadline, or if the program ends."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < give_up_at, f"waited {DEADLINE_SECONDS:g} s in vain for {what}"
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(_POLL_SECONDS)
                raise AssertionError(f"it ended with {code}; waiting for {what}")

    def _status(self, name: str) -> str:
        """A field of /proc/PID/status."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return dict(line.split(":", 1) for line in status.splitlines())[name].strip()
