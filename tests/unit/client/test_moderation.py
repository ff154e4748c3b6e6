"""Moderation in the client of a user who types: ignored users, deleted messages, the end by an operator, and rates."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Resend, SelectRoom
from chatclient.cli.input import InputParser
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Bye, Deleted, Found, History, Ignored, Refused, Users
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import AskHistory, Delete, Ignore, Leave, Say

from .dialogue import Dialogue, sends
from .samples import confirmation, in_room, public
from .test_controller_terminal import TerminalDialogue
from .test_rooms import DEV, OPS, welcome

DOWN = LinkDown("reset")


@pytest.fixture
def alice() -> TerminalDialogue:
    """A person at a terminal, who is in dev and Ops."""
    client = TerminalDialogue()
    client.connect(sends(client.model.login()))
    for event in (welcome(DEV, OPS), Ignored(()), History(())):
        client.controller.react(event)
    return client


def test_messages_of_ignored_users_are_hidden_and_not_counted(alice: TerminalDialogue) -> None:
    """Direct ones do not arrive. Joins and leaves are shown."""
    alice.type("/ignore bob", sends(Ignore("bob")))
    alice.give(Ignored(("Bob",)), "[ignored 1] Bob")
    for event in (public(11), in_room(12), in_room(13, room="Ops")):
        alice.give(event)
    assert alice.ui_state.unread == ()
    alice.give(Users(None, ("bob",), ("bob",), ()), "[joined] bob")
    for event in (
        History((public(14), in_room(15, sender="eve"))),
        Found("x", (public(14), public(16, sender="eve")), 16),
    ):
        alice.controller.react(event)
        shown = alice.shown[-1]
        assert isinstance(shown, History | Found)
        assert [each.sender for each in shown.messages] == ["eve"]
    # The list is kept until the next login's answer, which is not shown.
    alice.controller.react(DOWN)
    alice.connect(sends(alice.model.login()))
    alice.controller.react(welcome(DEV, OPS))
    alice.give(public(17))
    alice.give(Ignored(()))
    alice.give(public(18), "[public #18 2026-01-31T12:00:00Z] bob: hello")


def test_server_that_does_not_know_ignored_users_is_asked_silently() -> None:
    client = TerminalDialogue()
    client.connect(sends(client.model.login()))
    client.controller.react(welcome(DEV))
    unknown = Refused(ErrorCode.UNKNOWN_COMMAND, "There is no command 'ignored'.")
    client.give(unknown)
    client.give(unknown, "[error unknown_command] There is no command 'ignored'.")


def test_own_last_message_of_the_room_is_deleted(alice: TerminalDialogue) -> None:
    """The one before it is the last one then. An unconfirmed message has no id, so the line waits."""
    for event in (
        public(11, "x", "alice"),
        in_room(12, "x", "alice"),
        public(13, "x", "alice"),
        public(14, "x", "bob"),
    ):
        alice.controller.react(event)
    alice.type("oops", sends(Say("oops", "n1")))
    alice.type("/delete")
    alice.give(confirmation(15, "n1"), "[sent #15]", sends(Delete(15)))
    alice.give(Deleted(15, "alice"), "[deleted #15] by alice")
    alice.type("/delete", sends(Delete(13)))
    alice.give(Deleted(13, "alice"), "[deleted #13] by alice")
    alice.give(SelectRoom(2), "[room #dev] tea", sends(AskHistory(20, room="dev")))
    alice.type("/delete", sends(Delete(12, "dev")))
    alice.give(Deleted(14, "eve"), "[deleted #14] by eve")
    alice.give(Deleted(3, "eve"))  # this client has not shown it


@pytest.mark.parametrize("code", [ErrorCode.BANNED, ErrorCode.KICKED, ErrorCode.REPLACED])
def test_user_who_was_put_out_does_not_come_back(alice: TerminalDialogue, code: ErrorCode) -> None:
    alice.type("hello", sends(Say("hello", "n1")))
    alice.give(Bye("by bob: spam", code), f"[bye {code}] by bob: spam")
    alice.give(LinkLost("by bob: spam"), "[error lost] 1 typed line was not confirmed\\nhello")
    assert alice.exit is Exit.REFUSED


def test_pipe_waits_for_the_rate_of_the_server() -> None:
    """It leaves when all is confirmed."""
    client = Dialogue(parser=InputParser(KEYWORD_SETS["pm-dm"], is_json=True), resends_limited=True)
    client.log_in()
    for number in (1, 2):
        client.type(f"PM {number}", sends(Say(str(number), f"n{number}")))
    client.end_input()
    client.give(confirmation(11, "n1"), "[sent #11]")
    limited = Refused(ErrorCode.RATE_LIMITED, "Too fast.", "n2", retry_seconds=2.5)
    client.give(limited, "[error rate_limited] The server takes no more messages now; they are sent again in 2.5 s.")
    assert client.controller.resend_at == client.now + 2.5
    client.give(Resend(), sends(Say("2", "n2")))
    assert client.controller.resend_at is None
    client.give(confirmation(12, "n2"), "[sent #12]", sends(Leave()))
