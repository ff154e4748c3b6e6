"""The controller for irctest: it starts the server, registers accounts, and ends all of it.

irctest is not in a package registry, so stand-ins take the places of the parts that the controller imports.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import Peer, wait_for
from integration.web import WebPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROLLER = Path(__file__).parents[1] / "irctest" / "chatserver_controller.py"
LOCALHOST = "127.0.0.1"


class Refused(Exception):  # noqa: N818
    """NotImplementedByController of irctest."""


class _BaseController:
    """irctest's: a process."""

    port: int

    def __init__(self, test_config: object) -> None:
        self.test_config = test_config
        self.proc: subprocess.Popen[bytes] | None = None

    def execute(self, command: list[str], proc_name: str | None = None) -> subprocess.Popen[bytes]:  # noqa: ARG002
        return subprocess.Popen(command)

    def kill(self) -> None:
        if self.proc is not None:
            self.proc.terminate()
            assert self.proc.wait(5) == 0, "irctest kills it after 5 s"
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


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    # Python looks for the folder of temporary files once.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modules: dict[str, dict[str, object]] = {
        "irctest": {},
        "irctest.basecontrollers": {
            "BaseServerController": BaseServerController,
            "DirectoryBasedController": DirectoryBasedController,
            "NotImplementedByController": Refused,
        },
        "irctest.patma": {"ANYSTR": object()},
        "irctest.specifications": {"Capabilities": Capabilities, "OptionalBehaviors": OptionalBehaviors},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("chatserver_controller", CONTROLLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_irctest_controller_class()(object())
    yield made
    if made.proc is not None:
        made.kill()


def free_port() -> int:
    with socket.create_server((LOCALHOST, 0)) as listener:
        return int(listener.getsockname()[1])


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
    logins = [("alice", "wonderland"), ("operuser", "operpassword")]
    for name, password in logins:
        peer = Peer(controller.port)
        assert peer.login(name, password)["account"] == "existing"
        peer.close()
    browser = WebPeer(websocket_port)
    assert browser.shake_hands().status == 101
    browser.close()
    folder = controller.directory
    controller.kill()
    assert not folder.exists()
    assert controller.proc is None
    run(controller)
    peer = Peer(controller.port)
    assert peer.login("alice", "another")["account"] == "new"
    peer.close()


def test_only_what_this_irctest_knows_is_declared(controller: Any) -> None:
    """irctest grows: its names are looked up."""
    assert controller.capabilities == {Capabilities.BATCH}
    assert controller.optional_behaviors == {OptionalBehaviors.MULTI_JOIN}


def test_password_of_the_server_is_declined(controller: Any) -> None:
    with pytest.raises(Refused):
        run(controller, password="secret")
