"""ops/chatserver.service: systemd accepts it, and it agrees with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatprotocol.settings import SERVER_SETTINGS
from chatserver.config import load_config
from chatserver.program import EXIT_USAGE

TOP = Path(__file__).parents[2]
UNIT = (TOP / "ops" / "chatserver.service").read_text(encoding="utf-8")


def value(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found)


def test_unit_agrees_with_the_program() -> None:
    """Its command, its limits for the default settings, and the exit code that must not restart it."""
    program, *arguments = value("ExecStart").split()
    assert Path(program).name == "chatserver"
    config = load_config(arguments, {})
    assert str(config.data) == f"/var/lib/{value('StateDirectory')}" == value("WorkingDirectory")
    assert int(value("LimitNOFILE")) > config.max_connections < int(value("TasksMax"))
    assert int(value("RestartPreventExitStatus")) == EXIT_USAGE
    assert int(value("TimeoutStopSec")) > 8
    assert "-HUP" in value("ExecReload")
    names = re.findall(r"^Environment=(\w+)", UNIT, re.MULTILINE)
    assert set(names) <= {setting.variable for setting in SERVER_SETTINGS}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """Also the names and values of the restrictions, which systemd would otherwise ignore with a warning."""
    unit = tmp_path / "chatserver.service"
    unit.write_text(UNIT.replace(value("ExecStart").split()[0], sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True, timeout=60)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]  # others may have errors
    assert (done.returncode, lines) == (0, [])
