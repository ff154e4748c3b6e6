"""The program ``chatserver`` as a process that a test starts, stops, kills, and starts again on the same data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How long a program may take to begin or to end, on a machine that is busy with something else.
DEADLINE_SECONDS = 30.0
# A test must not wait for the hash of each password.
CHEAP_HASHES = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}
_LOOK_AGAIN_SECONDS = 0.005
# The same program, but for what is said about it in docs/wire/datagram.md: nobody wants to wait a minute.
_HASTY = (
    "import sys; from functools import partial; from chatserver.app import Server; "
    "from chatserver.__main__ import main; sys.exit(main(partial(Server, udp_silence_seconds={!r})))"
)
_PROGRAM = """
import sys
from chatserver.__main__ import main
sys.exit(main())
"""


def own_environment() -> dict[str, str]:
    """The environment of this process without the settings of a chat room that somebody may have made."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return {**inherited, **CHEAP_HASHES, "PYTHONUNBUFFERED": "1"}


class Program:
    """A server on a free port of 127.0.0.1, with its data and its log in ``folder``. Leaving the context kills it.

    ``under`` is a command that runs another one, such as ``("prlimit", "--nofile=100")``; ``settings`` are variables of
    its environment, such as ``CHAT_LAG_MAX_BYTES="1048576"``. With ``silence_seconds`` it has less patience than usual
    with sessions over UDP of which nothing is heard. ``prelude`` is Python that runs before it: a fault, say.
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
        program = ["-m", "chatserver"] if silence_seconds is None else ["-c", _HASTY.format(silence_seconds)]
        if prelude:
            program = ["-c", prelude + _PROGRAM]
        self._command = [*under, sys.executable, *program, "--host", "127.0.0.1", "--data", str(self.data), *arguments]
        self._environment = {**own_environment(), **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        print(self.log())  # shown when the test fails

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self, port: int = 0) -> None:
        """Start it, or start it again on the same data; returns when it takes connections."""
        with self._log.open("ab") as log:
            begins_at = log.tell()
            self._process = subprocess.Popen(
                [*self._command, "--port", str(port)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.port = self._wait_for_port(begins_at)

    def _wait_for_port(self, begins_at: int) -> int:
        def said() -> re.Match[str] | None:
            text = self._log.read_bytes()[begins_at:].decode()
            return re.search(r"^\[INFO\] Waiting for connection on port (\d+)\.\.\. ", text, re.MULTILINE)

        try:
            self.wait_until(lambda: said() is not None, "its port")
        except AssertionError:
            self.kill()
            print(self.log())
            raise
        ready = said()
        assert ready is not None
        return int(ready[1])

    def kill(self) -> None:
        """End it as a power cut would (but for what the system has in its cache); nothing if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End it as ``docker stop`` does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def log(self) -> str:
        """Everything that it said since the first start."""
        return self._log.read_text(encoding="utf-8")

    def memory_bytes(self) -> int:
        """What it holds of the machine's memory."""
        return int(self._status("VmRSS").removesuffix(" kB")) * 1024

    def address_bytes(self) -> int:
        """What it holds of addresses."""
        return int(self._status("VmSize").removesuffix(" kB")) * 1024

    def threads(self) -> int:
        """How many threads it has."""
        return int(self._status("Threads"))

    def descriptors(self, kind: str = "") -> int:
        """How many files and sockets it has open; with ``socket:`` only sockets."""
        count = 0
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed in between
                count += os.readlink(descriptor).startswith(kind)  # noqa: PTH115 - not the path of anything
        return count

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something is true of the running program; fail when it takes too long, or ends it."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < give_up_at, f"waited {DEADLINE_SECONDS:g} s in vain for {what}"
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(_LOOK_AGAIN_SECONDS)
                raise AssertionError(f"it ended with {code}; waiting for {what}")

    def _status(self, name: str) -> str:
        """A field of the kernel's account of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return dict(line.split(":", 1) for line in status.splitlines())[name].strip()
