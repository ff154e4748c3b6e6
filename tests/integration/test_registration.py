"""Registration, as an operator restricts it: invitations, named operators, passwords that must be changed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from reliability.program import Program, own_environment

from chatclient import ChatClient, RefusedError
from chatserver.store.accounts import Accounts, Role
from chatserver.store.database import Database

if TYPE_CHECKING:
    from pathlib import Path


def admin(server: Program, *arguments: str, typed: str = "") -> str:
    """The output of ``chatserver admin`` for the server's folder."""
    command = [sys.executable, "-m", "chatserver", "admin", "--data", str(server.data), *arguments]
    return subprocess.run(
        command, input=typed, capture_output=True, text=True, check=True, env=own_environment()
    ).stdout


def test_invited_user_registers_with_the_code_once(tmp_path: Path) -> None:
    """Without a code, no name is registered. The other wire formats get an error."""
    with Program(tmp_path, CHAT_REGISTRATION="invite") as server:
        code = admin(server, "invite").split()[-1]
        for options in ({}, {"invitation": "wrong"}, {"dialect": "frames"}):
            with ChatClient(port=server.port, **options) as client, pytest.raises(RefusedError, match="invitation"):
                client.login("alice", "secret")
        with ChatClient(port=server.port, invitation=code) as client:
            assert client.login("alice", "secret").account == "new"
        with ChatClient(port=server.port, invitation=code) as client, pytest.raises(RefusedError, match="used"):
            client.login("bob", "secret")
        with ChatClient(port=server.port, dialect="frames") as client:
            assert client.login("alice", "secret").account == "existing"


def test_named_operator_is_appointed_if_it_is_registered(tmp_path: Path) -> None:
    """A stranger can't register the name first, except with an invitation."""
    server = Program(tmp_path, CHAT_OPERATOR="alice,Root")
    with Program(tmp_path) as before, ChatClient(port=before.port) as client:
        client.login("Alice", "secret")
    with server:
        with ChatClient(port=server.port) as client:
            assert client.login("alice", "secret").operator
        with ChatClient(port=server.port) as client, pytest.raises(RefusedError, match="reserved"):
            client.login("root", "secret")
        code = admin(server, "invite").split()[-1]
        with ChatClient(port=server.port, invitation=code) as client:
            assert client.login("root", "secret").operator
    database = Database(server.data)
    account = Accounts(database).find("alice")
    database.close()
    assert account is not None
    assert account.role is Role.OPERATOR


def test_demanded_password_is_changed_with_the_login(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        with ChatClient(port=server.port) as client:
            client.login("alice", "secret")
        admin(server, "password", "alice", "--must-change", typed="given\n")
        for dialect in ("json", "frames", "datagram"):
            with ChatClient(port=server.port, dialect=dialect) as client, pytest.raises(RefusedError, match="replaced"):
                client.login("alice", "given")
        with ChatClient(port=server.port) as client:
            client.login("alice", "given", new_password="chosen")
        with ChatClient(port=server.port, dialect="frames") as client:
            client.login("alice", "chosen")
