"""The controller for irctest: it starts the server, registers accounts, and ends all of it.

irctest is not in a package registry, so stand-ins take the places of the parts that the controller imports.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from integration.irc import IrcPeer
from integration.room import DEADLINE_SECONDS, Peer, wait_for
from integration.web import WebPeer

from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

JUNKDRAWER = SimpleNamespace(random_name=lambda base: f"{base}-1")
CONTROLLER = Path(__file__).parents[1] / "irctest" / "chatserver_controller.py"
LOCALHOST = "127.0.0.1"
HAS_OPENSSL = shutil.which("openssl") is not None
NO_CHECKS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
NO_CHECKS.check_hostname, NO_CHECKS.verify_mode = False, ssl.CERT_NONE


class Refused(Exception):  # noqa: N818
    """NotImplementedByController of irctest."""


class CaseConfig(NamedTuple):
    """irctest's TestCaseControllerConfig: what a test asks for."""

    account_registration_before_connect: bool = False
    account_registration_requires_email: bool = False


class _BaseController:
    """irctest's: a process."""

    port: int
    openssl_bin = "openssl"

    def __init__(self, test_config: CaseConfig) -> None:
        self.test_config = test_config
        self.proc: subprocess.Popen[bytes] | None = None

    def execute(self, command: list[str], proc_name: str | None = None) -> subprocess.Popen[bytes]:  # noqa: ARG002
        return subprocess.Popen(command)

    def kill(self) -> None:
        if self.proc is not None:
            self.proc.terminate()
            assert self.proc.wait(DEADLINE_SECONDS) == 0
            self.proc = None


class BaseServerController(_BaseController):
    """irctest's: a server."""

    def wait_for_port(self) -> None:
        wait_for(self._has_port, "the port")

    def _has_port(self) -> bool:
        with socket.socket() as tried:
            return not tried.connect_ex((LOCALHOST, self.port))


class DirectoryBasedController(_BaseController):
    """irctest's: a process with a folder."""

    directory: Path | None = None

    def create_config(self) -> None:
        self.directory = Path(tempfile.mkdtemp())

    def gen_ssl(self) -> None:
        """A certificate without names, signed by itself."""
        assert self.directory is not None
        self.key_path, self.pem_path = self.directory / "ssl.key", self.directory / "ssl.pem"
        request = self.directory / "ssl.csr"
        for command in (
            ["req", "-new", "-newkey", "rsa", "-nodes", "-out", request, "-keyout", self.key_path, "-batch"],
            ["x509", "-req", "-in", request, "-signkey", self.key_path, "-out", self.pem_path],
        ):
            subprocess.run([self.openssl_bin, *command], check=True, capture_output=True)

    def kill(self) -> None:
        super().kill()
        if self.directory is not None:
            shutil.rmtree(self.directory)


class Capabilities(Enum):
    """A part of irctest's list."""

    BATCH = "batch"
    METADATA = "draft/metadata-2"


class OptionalBehaviors(Enum):
    """A part of irctest's list."""

    MULTI_JOIN = "JOIN multiple channels with one command"
    NO_CTCP = "+C no-CTCP mode"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The file of the controller, with stand-ins for what it imports."""
    modules: dict[str, dict[str, object]] = {
        "irctest": {},
        "irctest.basecontrollers": {
            "BaseServerController": BaseServerController,
            "DirectoryBasedController": DirectoryBasedController,
            "NotImplementedByController": Refused,
        },
        "irctest.irc_utils": {"junkdrawer": JUNKDRAWER},
        "irctest.patma": {"ANYSTR": object()},
        "irctest.specifications": {"Capabilities": Capabilities, "OptionalBehaviors": OptionalBehaviors},
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Python looks for the folder of temporary files once.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("irctest")))
        for name, members in modules.items():
            stand_in = ModuleType(name)
            vars(stand_in).update(members)
            monkeypatch.setitem(sys.modules, name, stand_in)
        spec = importlib.util.spec_from_file_location("chatserver_controller", CONTROLLER)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        yield loaded


@pytest.fixture
def controller(module: ModuleType) -> Iterator[Any]:
    made = module.get_irctest_controller_class()(CaseConfig())
    yield made
    if made.proc is not None:
        made.kill()


def free_port() -> int:
    with bind_free_port() as reserved:
        return int(reserved.getsockname()[1])


def run(controller: Any, **options: Any) -> None:
    """Start the server as irctest does."""
    given = {"password": None, "ssl": False, "run_services": False, "faketime": None, **options}
    controller.run(LOCALHOST, free_port(), **given)
    controller.wait_for_port()


def test_server_starts_with_accounts_and_a_second_port_and_leaves_nothing(controller: Any) -> None:
    """Each test of irctest has a server of its own, so the second one begins without the first one's accounts."""
    websocket_port = free_port()
    run(controller, run_services=True, websocket_hostname=LOCALHOST, websocket_port=websocket_port)
    controller.wait_for_services()
    controller.registerUser(None, "alice", "wonderland")
    for name, password in [("alice", "wonderland"), ("operuser", "operpassword")]:
        peer = Peer(controller.port)
        assert peer.login(name, password)["account"] == "existing"
        peer.close()
    guest = IrcPeer(controller.port)
    guest.put("CAP LS", "NICK bob", "USER bob 0 * :Bob", "CAP END")
    assert "account-registration" not in guest.until("CAP").params[-1]
    guest.until("001")
    guest.close()
    browser = WebPeer(websocket_port)
    assert browser.shake_hands().status == 101
    browser.close()
    folder = controller.directory
    controller.kill()
    assert not folder.exists()
    assert controller.proc is None
    controller.test_config = CaseConfig(account_registration_before_connect=True)
    run(controller, ssl=HAS_OPENSSL)
    alice = IrcPeer(controller.port, tls=NO_CHECKS if HAS_OPENSSL else None)
    alice.put("CAP REQ draft/account-registration", "NICK alice", "REGISTER * * another")
    assert alice.until("REGISTER").params[0] == "SUCCESS"
    alice.close()


def test_only_what_this_irctest_knows_is_declared(controller: Any) -> None:
    """irctest grows: its names are looked up."""
    assert controller.capabilities == {Capabilities.BATCH}
    assert controller.optional_behaviors == {OptionalBehaviors.MULTI_JOIN}


def test_password_of_the_server_is_declined(controller: Any) -> None:
    with pytest.raises(Refused):
        run(controller, password="secret")


def test_addresses_of_accounts_are_declined(controller: Any) -> None:
    controller.test_config = CaseConfig(account_registration_requires_email=True)
    with pytest.raises(Refused):
        run(controller)
    with pytest.raises(Refused):
        controller.registerUser(None, "alice", "wonderland", vhost="example.org")


def test_random_names_are_names_of_users(controller: Any) -> None:
    """The names of irctest have a hyphen."""
    assert controller is not None
    names = [JUNKDRAWER.random_name("alice") for _ in range(10)]
    assert all(name.startswith("alice") and name.isalnum() for name in names)
    assert len(set(names)) == len(names)
