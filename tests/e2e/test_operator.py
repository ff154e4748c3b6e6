"""An operator's day: who may come, who may stay, what is kept, and what comes back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from .harness.stack import password_of

if TYPE_CHECKING:
    from .harness.stack import Stack

INVITATION = re.compile(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){3}")


@pytest.mark.docker
def test_day_of_an_operator(stack: Stack) -> None:
    """Story 16: invite, ban, delete, export, prune, upgrade."""
    server = stack.start_server(CHAT_REGISTRATION="invite")
    stack.admin("add", "alice", typed=password_of("alice").encode())
    stack.admin("operator", "grant", "alice")
    alice = stack.start_client("alice")
    alice.log_in(password_of("alice"), "existing")

    # An invitation registers one name.
    (code,) = stack.admin("invite").split()
    assert INVITATION.fullmatch(code.decode())
    bob = stack.start_client("bob", environment={"CHAT_INVITATION": code.decode()})
    bob.log_in(password_of("bob"), "new")
    for used in (code.decode(), "12345-12345-12345-12345"):
        carol = stack.start_client("carol", password=password_of("carol"), environment={"CHAT_INVITATION": used})
        carol.expect("[error invitation_required]")
        assert carol.wait_exit() == 3

    # Bob's spam is deleted for everybody, and bob is banned.
    number = bob.say("buy my tea")
    alice.expect("bob: buy my tea")
    alice.type(f"/delete {number}")
    bob.expect(f"[deleted #{number}] by alice")
    alice.type("/ban bob 1h spam")
    bob.expect("[bye banned]")
    assert bob.wait_exit() == 3
    alice.expect("[banned] bob by alice until")
    bob = stack.start_client("bob", password=password_of("bob"))
    bob.expect(re.compile(r"^\[error banned\] .*spam"))
    assert bob.wait_exit() == 3
    assert "bob" in stack.admin("bans").decode()
    stack.admin("unban", "bob")
    alice.expect("[unbanned] bob by the administrator")
    bob = stack.client("bob")
    kept = alice.say("welcome back")
    bob.expect("alice: welcome back")

    # A deleted message has no text; nothing is older than a day. The audit has everything.
    exported = [json.loads(line) for line in stack.admin("export").splitlines()]
    assert [(each["id"], each["from"], each.get("message")) for each in exported] == [
        (number, "bob", None),
        (kept, "alice", "welcome back"),
    ]
    stack.admin("prune", "--older-than", "1d")
    acts = [json.loads(line) for line in stack.admin("audit", "--json").splitlines()]
    assert [(each["action"], each["by"], each["target"]) for each in acts if each["action"] != "prune"] == [
        ("add", "the administrator", "alice"),
        ("role", "the administrator", "alice"),
        ("invite", "the administrator", None),
        ("delete", "alice", str(number)),
        ("ban", "alice", "bob"),
        ("unban", "the administrator", "bob"),
    ]

    # The next version takes over the data.
    assert server.stop() == 0
    alice.expect("[lost]")
    stack.start_server(CHAT_REGISTRATION="invite")
    alice.expect("[back] alice")
    alice.type("CH")
    alice.expect("[history 1]")
    alice.expect("alice: welcome back")


@pytest.mark.docker
def test_backup_and_restore(stack: Stack) -> None:
    """Story 17: a backup of the running server brings everything back after the loss of the data."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    alice.type("/join dev private", "/invite bob")
    bob.expect("[invited #dev]")
    bob.type("/ignore alice")
    bob.expect("[ignored 1] alice")
    before = alice.say("before the backup")
    stack.admin("ban", "192.0.2.0/24")
    backup = stack.admin("backup", "-")
    assert b"uses the data folder" in stack.admin("restore", "-", typed=backup, code=1)
    alice.say("after the backup")
    assert server.stop() == 0
    for client in (alice, bob):
        client.close()

    stack.erase_data()
    assert b"can't be restored" in stack.admin("restore", "-", typed=backup[:-5000], code=1)
    stack.admin("restore", "-", typed=backup)
    stack.start_server()
    assert stack.admin("check") == b"No problem was found.\n"
    alice, bob = stack.client("alice"), stack.client("bob")
    alice.type("/join dev", "CH")
    alice.expect("[entered #dev owner private]")
    alice.expect("[history 1 #dev]")
    alice.expect(re.compile(rf"^\[history #{before} .*alice: before the backup"))
    bob.type("/ignored", "/rooms")
    bob.expect("[ignored 1] alice")
    bob.expect("#dev")
    assert b"192.0.2.0/24" in stack.admin("bans")
