"""Story 9: taking the server down keeps its data, unless the data are taken down, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_credentials_outlive_down_and_up_and_end_with_the_data(stack: Stack) -> None:
    """In containers: docker compose down and up, then down --volumes. With default settings, real hashes among them."""
    deployment = stack.deployment()
    deployment.up()
    alice = stack.start_client("alice")
    alice.log_in("wonderland", account="new")
    alice.say("remember me")
    alice.leave()

    deployment.down(with_data=False)
    deployment.up()
    alice = stack.start_client("alice")
    alice.asked("password existing")
    alice.type("looking glass")
    alice.expect_next("[error wrong_password]")
    alice.log_in("wonderland", account="existing")
    alice.type("CH")
    alice.expect("[history 1]")
    alice.expect_next("alice: remember me")
    alice.leave()

    deployment.down(with_data=True)
    deployment.up()
    alice = stack.start_client("alice")
    alice.log_in("looking glass", account="new")
    alice.type("CH")
    alice.expect("[history 0]")
    alice.leave()
