"""The controller with which irctest starts this server. README.md, beside this file, has the commands.

irctest imports this file and calls get_irctest_controller_class. It makes one controller for each test.
"""

from __future__ import annotations

import functools
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, ClassVar

from irctest.basecontrollers import BaseServerController, DirectoryBasedController, NotImplementedByController
from irctest.irc_utils import junkdrawer
from irctest.patma import ANYSTR
from irctest.specifications import Capabilities, OptionalBehaviors

_SERVER = [sys.executable, "-m", "chatserver"]
# Hashes of passwords are as cheap as argon2id allows. Loopback is exempt from limits by default.
_FLAGS = ["--hash-time-cost", "1", "--hash-memory-kib", "8", "--disk-reserve", "0", "--log-level", "warning"]
_SETTINGS = {"CHAT_IRC_NAME": "My.Little.Server"}
# irctest's own name and password.
_OPERATOR, _OPERATOR_PASSWORD = "operuser", "operpassword"
_READ_BYTES = 65_536
_RANDOM_BYTES = 5
_POLL_SECONDS = 0.02

_CAPABILITIES = (
    "account-notify",
    "account-tag",
    "away-notify",
    "batch",
    "draft/message-redaction",
    "draft/multiline",
    "draft/read-marker",
    "echo-message",
    "extended-join",
    "extended-monitor",
    "labeled-response",
    "message-tags",
    "multi-prefix",
    "server-time",
    "setname",
)
_BEHAVIORS = (
    "CAP_REQ_MINUS",
    "ELIST_M",
    "ELIST_N",
    "ELIST_U",
    "INVITE_LIST",
    "INVITE_OVERRIDES_LIMIT",
    "MULTI_JOIN",
    "MULTI_KICK",
    "MULTI_PRIVMSG",
)


class ChatserverController(BaseServerController, DirectoryBasedController):
    """One server, in a folder of its own."""

    software_name = "chatserver"
    supported_sasl_mechanisms: ClassVar = {"PLAIN"}
    supports_sts = False
    extban_mute_char = None
    # Names that this version of irctest does not know have no tests in it.
    capabilities = frozenset(each for each in Capabilities if each.value in _CAPABILITIES)
    optional_behaviors = frozenset(each for each in OptionalBehaviors if each.name in _BEHAVIORS)
    isupport: ClassVar = {
        "BOT": "B",
        "CASEMAPPING": "ascii",
        "CHATHISTORY": ANYSTR,
        "ELIST": "MNU",
        "MONITOR": ANYSTR,
        "MSGREFTYPES": "msgid,timestamp",
        "PREFIX": "(ov)@+",
        "TARGMAX": ANYSTR,
        "UTF8ONLY": None,
        "WHOX": None,
    }
    _port_wait_interval = 0.01
    # A message is stored before others get it, so their PING may be answered before: irctest then reads no further.
    sync_sleep_time = 0.1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._relay: _Relay | None = None

    def run(
        self,
        hostname: str,
        port: int,
        *,
        password: str | None,
        ssl: bool,
        run_services: bool,  # noqa: ARG002
        faketime: str | None,  # noqa: ARG002
        websocket_hostname: str | None = None,
        websocket_port: int | None = None,
    ) -> None:
        """Start the server. It has accounts of its own, so services need nothing.

        ``faketime`` is for searches by time in LIST, which are not there.
        """
        if password is not None:
            raise NotImplementedByController("password of the server")
        if self.test_config.account_registration_requires_email:
            raise NotImplementedByController("addresses of accounts")
        assert self.proc is None
        self.port, self.hostname = port, hostname
        self.create_config()
        assert self.directory is not None
        shutil.copytree(_prepared_data(), self._data)
        tls = []
        if ssl:
            self.gen_ssl()
            tls = ["--tls", "required", "--tls-cert", str(self.pem_path), "--tls-key", str(self.key_path)]
        # Names are registered before the end of the registration, or not at all.
        registration = "open" if self.test_config.account_registration_before_connect else "closed"
        policy = ["--registration", registration, "--guests", "on"]
        command = [*_SERVER, str(port), "--host", hostname, "--data", self._data, *_FLAGS, *policy, *tls]
        settings = [f"{name}={value}" for name, value in _SETTINGS.items()]
        self.proc = self.execute(["env", *settings, *command], proc_name="chatserver")
        if websocket_port is not None:
            self._relay = _Relay((websocket_hostname or hostname, websocket_port), (hostname, port))

    def wait_for_services(self) -> None:
        """Wait for the server, whose accounts need no services."""
        self.wait_for_port()

    def registerUser(self, case: Any, username: str, password: str | None = None, **more: Any) -> None:  # noqa: ARG002, N802
        """Register an account with the administrator's command."""
        if more:
            raise NotImplementedByController("accounts with " + ", ".join(more))
        assert password is not None, "an account has a password"
        self.wait_for_port()
        _administer(self._data, "add", username, password=password)

    def kill(self) -> None:
        """End the server and delete its folder."""
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        super().kill()

    @property
    def _data(self) -> str:
        assert self.directory is not None
        return str(Path(self.directory) / "data")


@functools.cache
def _prepared_data() -> Path:
    """A data folder with the operator, which is made once: the first start of a server makes the database.

    Its socket for administrators comes after that.
    """
    folder = Path(tempfile.mkdtemp(prefix="irctest-chatserver-")) / "data"
    with subprocess.Popen([*_SERVER, "0", "--host", "127.0.0.1", "--data", str(folder), *_FLAGS]) as server:
        try:
            while not (folder / "admin.sock").exists():
                assert server.poll() is None, "the server does not start"
                time.sleep(_POLL_SECONDS)
        finally:
            server.terminate()
    _administer(str(folder), "add", _OPERATOR, password=_OPERATOR_PASSWORD)
    _administer(str(folder), "operator", _OPERATOR)
    return folder


def _administer(data: str, *words: str, password: str = "") -> None:
    command = [*_SERVER, "admin", "--data", data, *words]
    subprocess.run(command, input=f"{password}\n", text=True, check=True, stdout=subprocess.DEVNULL)


class _Relay:
    """Passes connections to a second port on to the server: irctest has WebSocket on a port of its own."""

    def __init__(self, address: tuple[str, int], server: tuple[str, int]) -> None:
        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(server) as outer:
                    back = threading.Thread(target=_copy, args=(outer, self.request), daemon=True)
                    back.start()
                    _copy(self.request, outer)
                    back.join()

        ThreadingTCPServer.allow_reuse_address = True
        ThreadingTCPServer.daemon_threads = True
        self._listener = ThreadingTCPServer(address, Handler)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends."""
    with suppress(OSError):
        while data := source.recv(_READ_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _random_name(base: str) -> str:
    """A name that a user and a channel may have. irctest's own random names have a hyphen, which no user may have."""
    return base + secrets.token_hex(_RANDOM_BYTES)


def get_irctest_controller_class() -> type[ChatserverController]:
    """Called before irctest imports its tests, which then get their names from here."""
    junkdrawer.random_name = _random_name
    return ChatserverController
