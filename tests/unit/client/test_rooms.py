"""Rooms in the client: the model, the session over lost connections, and the current room of a user who types."""

import pytest

from chatclient.cli.frontend import Line, SelectRoom
from chatclient.cli.input import InputParser
from chatclient.links.connection import LinkDown
from chatclient.model import Model, Unread
from chatclient.notices import ConnectionLost, Reconnected
from chatclient.session import ClientSession, answers
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    AccountKind,
    Banned,
    Bans,
    Deleted,
    Event,
    History,
    Ignored,
    Invited,
    Joined,
    Kicked,
    Modes,
    Muted,
    Parted,
    Refused,
    Reported,
    RoleChanged,
    RoomModes,
    RoomRole,
    Rooms,
    RoomState,
    RoomSummary,
    Tokens,
    TopicChanged,
    Unbanned,
    Users,
    Welcome,
)
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import (
    AskBans,
    AskHistory,
    AskIgnored,
    AskRooms,
    AskTokens,
    AskUsers,
    Ban,
    Delete,
    GiveVoice,
    Ignore,
    Invite,
    Join,
    Kick,
    Login,
    MakeMember,
    MakeOperator,
    Part,
    Report,
    Request,
    Revoke,
    Say,
    SetModes,
    SetTopic,
    Unban,
    Whisper,
)
from chatprotocol.wire.base import DeliveryUnknown, Online
from chatprotocol.wire.json import Json

from .dialogue import Dialogue, FakeConnection, nonces, sends
from .samples import confirmation, direct, in_room, public
from .test_controller_terminal import TerminalDialogue
from .test_session import connect, log_in

DOWN = LinkDown("reset")
HIDDEN = Refused(ErrorCode.UNKNOWN_ROOM, "There is no room.", None, "dev")


def welcome(*rooms: RoomState, last_id: int = 10, since: int | None = None) -> Welcome:
    """The answer to a login, of a server that knows rooms."""
    return Welcome(
        account=AccountKind.EXISTING, username="alice", users=("alice",), last_id=last_id, since=since, rooms=rooms
    )


def joined(room: str = "dev", last_id: int = 0, topic: str = "") -> Joined:
    return Joined(room, topic, ("alice",), last_id)


DEV, OPS = RoomState("dev", "tea", 8), RoomState("Ops", "", 3)


# --- the model ---


@pytest.mark.parametrize(
    ("events", "since"),
    [
        ([welcome()], 10),
        ([welcome(DEV, OPS)], {"lobby": 10, "direct": 10, "dev": 8, "Ops": 3}),
        # Each room has its own newest message; the lobby and direct messages have one order.
        ([welcome(DEV, OPS), in_room(12, room="DEV")], {"lobby": 10, "direct": 10, "dev": 12, "Ops": 3}),
        ([welcome(DEV), in_room(13), public(12)], {"lobby": 12, "direct": 12, "dev": 13}),
        ([welcome(DEV), direct(14)], {"lobby": 14, "direct": 14, "dev": 8}),
        ([welcome(DEV), History((in_room(9),), "dev")], {"lobby": 10, "direct": 10, "dev": 9}),
        ([welcome(), joined(last_id=7)], {"lobby": 10, "direct": 10, "dev": 7}),
        ([welcome(DEV), joined(last_id=9)], {"lobby": 10, "direct": 10, "dev": 8}),  # message 9 is on its way
        ([welcome(DEV, OPS), Parted("ops")], {"lobby": 10, "direct": 10, "dev": 8}),
        ([welcome(DEV), Parted("dev")], 10),
        ([welcome(DEV), in_room(12, room="other")], {"lobby": 10, "direct": 10, "dev": 8}),
        # A later login: the user is no longer in Ops; what was missed in dev is still to come.
        ([welcome(DEV, OPS), welcome(RoomState("dev", "", 20), last_id=20)], {"lobby": 10, "direct": 10, "dev": 8}),
        ([welcome(DEV), welcome(DEV, RoomState("new", "", 15))], {"lobby": 10, "direct": 10, "dev": 8, "new": 15}),
        # The server has another history: its `since` counts for all rooms.
        ([welcome(DEV, OPS), welcome(DEV, OPS, since=5)], {"lobby": 5, "direct": 5, "dev": 5, "Ops": 3}),
        ([welcome(DEV), welcome(RoomState("dev", "", 2), last_id=4)], {"lobby": 4, "direct": 4, "dev": 2}),
        # An older server: no rooms.
        ([welcome(DEV), Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=10)], 10),
    ],
)
def test_login_names_the_newest_message_of_each_room(events: list[Event], since: int | dict[str, int]) -> None:
    """Promise: once. Without rooms it is the number of earlier versions."""
    model = Model((("localhost", 9999),), "alice", "secret")
    for event in events:
        model.apply(event)
    assert model.login() == Login("alice", "secret", since, rooms=True, moderation=True)


def test_confirmation_counts_for_the_room_of_its_message() -> None:
    model = Model((("localhost", 9999),), "alice", "secret")
    model.apply(welcome(DEV))
    model.unconfirmed = {"n1": Say("x", "n1", "DEV"), "n2": Say("x", "n2", "Lobby")}
    model.apply(confirmation(12, "n1"))
    assert model.login().since == {"lobby": 10, "direct": 10, "dev": 12}
    model.apply(confirmation(13, "n2"))
    assert model.login().since == {"lobby": 13, "direct": 13, "dev": 12}


def test_invalid_names_and_too_many_rooms_are_not_kept() -> None:
    """They would go into the next login. A login names at most 1,000."""
    model = Model((("localhost", 9999),), "alice", "secret")
    model.apply(welcome(RoomState("a\x1b[2J", "", 1), RoomState("direct", "", 1), RoomState("x" * 33, "", 1)))
    model.apply(Rooms((RoomSummary("b\u202e", "", 1, joined=False), RoomSummary("ok", "", 1, joined=False))))
    model.apply(Invited("a b", "alice", "bob"))
    assert (model.rooms, model.other_rooms) == ({}, ("ok",))
    for number in range(2_000):
        model.apply(joined(f"r{number}"))
    since = model.login().since
    assert isinstance(since, dict)
    assert len(since) == 1_000


def test_presence_of_a_room_is_not_that_of_the_lobby() -> None:
    model = Model((("localhost", 9999),), "alice", "secret")
    for event in (welcome(DEV), Users(None, ("bob", "eve"), ("eve",), (), "dev"), Online(("bob",), "dev")):
        model.apply(event)
    assert (model.online, model.online_count) == (("alice",), 1)


def test_invitations_and_listed_rooms_are_completed_until_they_are_left() -> None:
    model = Model((("localhost", 9999),), "alice", "secret")
    model.apply(welcome())
    for event in (Invited("dev", "ALICE", "bob"), Invited("ops", "eve", "bob"), Invited("Dev", "alice", "bob")):
        model.apply(event)
    assert model.other_rooms == ("Dev",)
    model.apply(Rooms((RoomSummary("a", "", 1, joined=True), RoomSummary("b", "", 1, joined=False))))
    assert model.other_rooms == ("b",)


def test_speakers_of_a_room_are_known_the_last_one_first() -> None:
    """Up to a limit; also from the history, which arrives later. The user's own messages don't count."""
    model = Model((("localhost", 9999),), "alice", "secret")
    model.apply(welcome(DEV))
    for event in (public(20), in_room(21, sender="Carol"), public(22, sender="ALICE"), direct(23, sender="dora")):
        model.apply(event)
    model.apply(History((in_room(17, sender="eve", room="Dev"), public(18, sender="eve"), public(19))))
    assert (model.speakers(""), model.speakers("DEV"), model.speakers("other")) == (
        ("bob", "eve"),
        ("carol", "eve"),
        (),
    )
    for number in range(30, 130):
        model.apply(in_room(number, sender=f"user{number}"))
    assert model.speakers("dev") == tuple(f"user{number}" for number in range(129, 79, -1))
    model.apply(Parted("dev"))
    assert model.speakers("dev") == ()


# --- the session ---


@pytest.fixture
def session() -> ClientSession:
    return ClientSession(Model((("localhost", 9999),), "alice", "secret"), Json().client(), FakeConnection(), nonces())


def test_messages_to_rooms_are_sent_again_with_their_room(session: ClientSession) -> None:
    """Promise: once. The same text in another room is another message."""
    log_in(session, welcome(DEV, OPS))
    said = [session.prepare(each) for each in (Say("one", room="dev"), Say("one", room="Ops"), Say("one"))]
    for each in said:
        session.request(each)
    session.handle(DOWN)
    assert log_in(session, welcome(DEV, OPS)).sent[1:] == said
    assert session.handle(in_room(11, "one", "alice", "other")) == (in_room(11, "one", "alice", "other"),)
    assert session.handle(in_room(12, "one", "alice", "DEV")) == ()
    assert session.handle(confirmation(12, "n1")) == (confirmation(12, "n1"),)
    assert session.handle(in_room(13, "one", "alice", "DEV")) == (in_room(13, "one", "alice", "DEV"),)


def test_room_that_the_user_was_removed_from_meanwhile_is_forgotten_once(session: ClientSession) -> None:
    """The server's error about the name in the login is no answer to a request."""
    log_in(session, welcome(DEV, OPS))
    session.request(AskHistory(20, room="Ops"))
    session.handle(DOWN)
    connect(session)
    assert session.handle(welcome(OPS)) == (Reconnected("alice", 10), Parted("dev"))
    assert session.handle(HIDDEN) == ()
    assert session.handle(HIDDEN) == (HIDDEN,)
    session.handle(DOWN)
    link = log_in(session, welcome(OPS))
    assert link.sent[0] == Login("alice", "secret", {"lobby": 10, "direct": 10, "Ops": 3}, rooms=True, moderation=True)
    assert AskHistory(20, room="Ops") in link.sent


def test_part_before_a_lost_connection_is_not_requested_again(session: ClientSession) -> None:
    log_in(session, welcome(DEV))
    session.request(Part("DEV"))
    session.handle(DOWN)
    assert Part("DEV") not in log_in(session, welcome()).sent


@pytest.mark.parametrize("action", [Join("dev"), AskRooms(), SetTopic("dev", "tea"), AskUsers("dev")])
def test_server_without_rooms_gets_nothing_about_them(session: ClientSession, action: Request) -> None:
    """It would ignore the room, and show the message to all users."""
    link = log_in(session)
    error = "This server has no rooms; nothing was done."
    room = getattr(action, "room", None)
    assert session.handle(public(11)) == (public(11),)
    assert session.request(action) == (Refused(ErrorCode.UNKNOWN_COMMAND, error, None, room),)
    said = session.prepare(Say("secret", room="dev"))
    assert session.request(said) == (Refused(ErrorCode.UNKNOWN_COMMAND, error, "n1", "dev"),)
    assert link.sent == [Login("alice", "secret", rooms=True, moderation=True)]
    assert session.model.unconfirmed == {}
    assert session.is_ready


def test_message_to_a_room_is_not_sent_again_to_a_server_without_rooms(session: ClientSession) -> None:
    """A server of an earlier version may have taken its place. It can't read an id for each room, either."""
    log_in(session, welcome(DEV))
    said, public_one = session.prepare(Say("secret", room="dev")), session.prepare(Say("hello"))
    for each in (said, public_one):
        session.request(each)
    session.handle(DOWN)
    link = connect(session)
    assert session.handle(Refused(ErrorCode.BAD_REQUEST, "login can't be used.")) == (Parted("dev"),)
    assert link.is_shut
    assert session.handle(DOWN) == ()
    link = connect(session)
    old = Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=10)
    assert session.handle(old) == (Reconnected("alice", 10), DeliveryUnknown(said))
    assert link.sent == [Login("alice", "secret", 10, rooms=True, moderation=True), public_one]
    assert [*session.model.unconfirmed.values()] == [public_one]


def test_name_of_a_room_is_checked_before_a_message_is_kept(session: ClientSession) -> None:
    log_in(session, welcome())
    with pytest.raises(RequestError):
        session.prepare(Say("x", room="a b"))
    assert session.model.unconfirmed == {}
    assert session.prepare(Say("x", room="LOBBY"))


@pytest.mark.parametrize(
    ("action", "answer", "others"),
    [
        (Join("DEV"), joined("dev"), [joined("ops"), Parted("dev")]),
        (Part("dev"), Parted("Dev"), [Parted("ops")]),
        (SetTopic("dev", "x"), TopicChanged("dev", "x", "Alice"), [TopicChanged("dev", "x", "bob")]),
        (
            Invite("dev", "bob"),
            Invited("dev", "Bob", "alice"),
            [Invited("dev", "bob", "eve"), Invited("dev", "eve", "alice")],
        ),
        (
            Kick(room="dev", username="bob"),
            Kicked(room="dev", username="bob", by="alice"),
            [Kicked(room="dev", username="bob", by="eve"), Kicked(room="ops", username="bob", by="alice")],
        ),
        (
            MakeOperator("dev", "bob"),
            RoleChanged(room="dev", username="bob", role=RoomRole.OPERATOR, by="alice"),
            [RoleChanged(room="dev", username="bob", role=RoomRole.OPERATOR, by="eve")],
        ),
        (
            GiveVoice("dev", "bob"),
            RoleChanged(room="dev", username="bob", role=RoomRole.VOICE, by="alice"),
            [RoleChanged(room="dev", username="eve", role=RoomRole.VOICE, by="alice")],
        ),
        (
            SetModes(room="dev", moderated=True),
            Modes(room="dev", modes=RoomModes(moderated=True), by="alice"),
            [Modes(room="dev", modes=RoomModes(moderated=True), by="eve"), Modes(room="ops", modes=RoomModes())],
        ),
        (
            MakeMember("dev", "bob"),
            RoleChanged(room="dev", username="bob", role=RoomRole.MEMBER, by="alice"),
            [Kicked(room="dev", username="bob", by="alice")],
        ),
        (
            Kick(username="bob"),
            Kicked(username="bob", by="alice"),
            [Kicked(room="dev", username="bob", by="alice")],
        ),
        (
            Ban(username="bob"),
            Banned(username="Bob", by="alice"),
            [Banned(username="bob", by="eve"), Muted(username="bob", by="alice")],
        ),
        (Ban(username="guest"), Banned(address="192.0.2.7", by="alice"), [Banned(username="bob", by="alice")]),
        (
            Unban(address="192.0.2.7/24"),
            Unbanned(address="192.0.2.0/24", by="alice"),
            [Unbanned(address="192.0.2.0/25", by="alice"), Unbanned(username="bob", by="alice")],
        ),
        (
            Delete(17, "dev"),
            Deleted(17, "alice", "dev"),
            [Deleted(17, "alice"), Deleted(18, "alice", "dev")],
        ),
        (
            Report(id=17),
            Reported(id=17, by="alice"),
            [Reported(username="bob", by="alice"), Reported(id=17, by="bob")],
        ),
        (Ignore("bob"), Ignored(("bob", "eve")), [Kicked(username="bob", by="alice")]),
        (AskBans(), Bans(()), [Bans((), "dev")]),
        (AskUsers("dev"), Online((), "dev"), [Online(())]),
        (AskHistory(5), History(()), [History((), "dev")]),
        (
            AskHistory(5, room="dev"),
            HIDDEN,
            [Refused(ErrorCode.UNKNOWN_ROOM, "x", None, "ops"), Refused(ErrorCode.INTERNAL, "x", "n1")],
        ),
        (AskRooms(), Rooms(()), [HIDDEN]),
        (AskTokens(), Tokens(()), [Ignored(())]),
        (Revoke("5f3a90c1"), Tokens(()), [Deleted(17, "alice")]),
    ],
)
def test_request_is_answered_by_its_own_event_only(action: Request, answer: Event, others: list[Event]) -> None:
    """Other members cause the same events."""
    assert answers(action, answer, "alice")
    assert not [each for each in others if answers(action, each, "alice")]


# --- at the prompt ---


@pytest.fixture
def alice() -> TerminalDialogue:
    """A person at a terminal, who is in dev and Ops."""
    client = TerminalDialogue()
    client.connect(sends(Login("alice", "secret", rooms=True, moderation=True)))
    client.controller.react(welcome(DEV, OPS))
    client.controller.react(Ignored(()))
    client.controller.react(History(()))
    return client


@pytest.fixture
def pipe() -> Dialogue:
    client = Dialogue(parser=InputParser(KEYWORD_SETS["pm-dm"], is_json=True))
    client.connect(sends(Login("alice", "secret", rooms=True, moderation=True)))
    client.controller.react(welcome(DEV))
    client.controller.react(Ignored(()))
    return client


def test_room_changes_by_command_and_key_and_its_messages_are_counted(alice: TerminalDialogue) -> None:
    """The first visit of a room shows its recent messages."""
    for event in (in_room(11), in_room(12, room="DEV"), in_room(13, room="Ops"), in_room(14, "x", "alice", "Ops")):
        alice.controller.react(event)
    assert (alice.ui_state.room, alice.ui_state.unread) == ("", (Unread(2, "dev", 2), Unread(3, "Ops", 1)))
    alice.give(SelectRoom(2), "[room #dev] tea", sends(AskHistory(20, room="dev")))
    alice.give(SelectRoom(2))
    alice.controller.react(History((), "dev"))
    alice.controller.react(public(15))
    alice.controller.react(in_room(16))
    assert (alice.ui_state.room, alice.ui_state.unread) == ("dev", (Unread(1, "lobby", 1), Unread(3, "Ops", 1)))
    alice.type("/room ops", "[room #Ops]", sends(AskHistory(20, room="Ops")))
    alice.give(SelectRoom(1), "[room #lobby]")
    alice.give(SelectRoom(2), "[room #dev] tea")
    alice.give(SelectRoom(9))
    assert (alice.ui_state.room, alice.ui_state.unread) == ("dev", ())
    alice.type("hello", sends(Say("hello", "n1", "dev")))


def test_waiting_line_goes_to_the_room_in_which_it_was_typed(alice: TerminalDialogue) -> None:
    """Changes of the room take effect at once, because the prompt shows them."""
    alice.give(SelectRoom(2), "[room #dev] tea", sends(AskHistory(20, room="dev")))
    alice.give(DOWN, "[lost] reset; connecting again")
    alice.type("for dev")
    alice.type("/room lobby", "[room #lobby]")
    alice.type("for all")
    assert alice.ui_state.waiting == (("dev", "for dev"), ("", "for all"))
    alice.give(SelectRoom(3), "[room #Ops]")
    since = {"lobby": 10, "direct": 10, "dev": 8, "Ops": 3}
    alice.connect(sends(Login("alice", "secret", since, rooms=True, moderation=True)))
    again, *messages = map(sends, (AskHistory(20, room="dev"), Say("for dev", "n1", "dev"), Say("for all", "n2")))
    alice.give(welcome(DEV, OPS), again, "[back] alice", sends(AskIgnored()), *messages)


def test_kick_does_not_change_the_room_of_the_line_that_is_being_typed(alice: TerminalDialogue) -> None:
    """It was meant for the members of the room: the server rejects it."""
    alice.type("/room dev", "[room #dev] tea", sends(AskHistory(20, room="dev")))
    assert (alice.ui_state.room, alice.ui_state.room_number) == ("dev", 2)
    alice.give(Parted("dev", "bob"), "[parted #dev] by bob")
    assert (alice.ui_state.room, alice.ui_state.room_number) == ("dev", None)
    alice.type("secret", sends(Say("secret", "n1", "dev")))
    alice.give(Refused(ErrorCode.UNKNOWN_ROOM, "No.", "n1", "dev"), "[error unknown_room #dev] No.")
    alice.give(SelectRoom(2), "[room #Ops]", sends(AskHistory(20, room="Ops")))


def test_room_is_entered_when_the_server_confirms_it(alice: TerminalDialogue) -> None:
    """Lines typed before that wait; they are meant for the room."""
    alice.type("/join new", sends(Join("new")))
    assert alice.ui_state.room == ""
    alice.type("hello")
    alice.give(
        joined("New", 5),
        "[entered #New] online: alice",
        "[room #New]",
        sends(AskHistory(20, room="New")),
        sends(Say("hello", "n1", "new")),
    )
    assert alice.ui_state.room == "New"
    alice.type("/part", sends(Part("New")))
    alice.give(Parted("New"), "[parted #New]", "[room #lobby]")
    assert alice.ui_state.room == ""


def test_failed_join_leaves_the_room_of_the_prompt(alice: TerminalDialogue) -> None:
    alice.type("/join nosuch", sends(Join("nosuch")))
    refused = Refused(ErrorCode.UNKNOWN_ROOM, "No.", None, "nosuch")
    alice.type("for the room")
    alice.give(refused, "[error unknown_room #nosuch] No.", sends(Say("for the room", "n1", "nosuch")))
    alice.type("hello", sends(Say("hello", "n2")))


def test_failed_join_of_a_script_keeps_its_messages_out_of_the_lobby(pipe: Dialogue) -> None:
    """The lines that follow were written for the room."""
    pipe.type("/join nosuch", sends(Join("nosuch")))
    pipe.type("PM one")
    refused = Refused(ErrorCode.UNKNOWN_ROOM, "No.", None, "nosuch")
    pipe.give(refused, "[error unknown_room #nosuch] No.", sends(Say("one", "n1", "nosuch")))
    pipe.type("PM two", sends(Say("two", "n2", "nosuch")))
    pipe.type("/room lobby", "[room #lobby]")
    pipe.type("PM three", sends(Say("three", "n3")))


def test_script_need_not_wait_for_the_room(pipe: Dialogue) -> None:
    pipe.type("/join new", sends(Join("new")))
    pipe.type("PM hello")
    said = sends(Say("hello", "n1", "new"))
    pipe.give(joined("new", topic="tea"), "[entered #new] topic: tea; online: alice", "[room #new] tea", said)
    pipe.give(confirmation(11, "n1"), "[sent #11]")
    pipe.type("/room dev", "[room #dev] tea")
    pipe.type("PM bye", sends(Say("bye", "n2", "dev")))
    pipe.type("DM bob psst", sends(Whisper("bob", "psst", "n3")))


def test_joins_and_leaves_of_a_room_are_told_without_the_own_ones(pipe: Dialogue) -> None:
    pipe.give(Users(None, ("alice",), ("alice", "bob"), ("eve",), "dev"), "[joined #dev] bob", "[left #dev] eve")
    pipe.give(Users(None, ("bob",), (), ("alice",), "dev"))


def test_parser_knows_the_rooms(alice: TerminalDialogue) -> None:
    alice.give(Invited("secret", "alice", "bob"), "[invited #secret] alice by bob")
    assert alice.parser.completions("/join ") == (0, ["dev", "Ops", "secret"])
    alice.controller.react(Parted("dev"))
    assert alice.parser.completions("/room ") == (0, ["lobby", "Ops"])
    alice.give(Line("/room dev"), "[error usage] You are not in #dev; /join enters it, /rooms lists the rooms.")


def test_lost_connection_keeps_the_current_room(alice: TerminalDialogue) -> None:
    alice.give(SelectRoom(3), "[room #Ops]", sends(AskHistory(20, room="Ops")))
    alice.controller.react(DOWN)
    assert isinstance(alice.shown[-1], ConnectionLost)
    alice.connect(
        sends(Login("alice", "secret", {"lobby": 10, "direct": 10, "dev": 8, "Ops": 3}, rooms=True, moderation=True))
    )
    alice.give(welcome(OPS), sends(AskHistory(20, room="Ops")), "[back] alice", sends(AskIgnored()), "[parted #dev]")
    alice.give(HIDDEN)
    assert alice.ui_state.room == "Ops"
