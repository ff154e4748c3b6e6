"""Commands of irc about rooms: their requests, answers and errors. Sections are those of modern.ircdocs.horse."""

from __future__ import annotations

import pytest

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    Refused,
    RoomMember,
    RoomRole,
    RoomSummary,
    SanctionKind,
    SanctionState,
    TimeMs,
    UserInfo,
)

from .irc_dialogue import Dialogue, entered

BOB = UserInfo(username="bob", is_online=True, is_guest=True, realname="Bob")
OPERATOR = RoomMember(BOB, RoomRole.OPERATOR)


def refused(code: str, **about: object) -> Refused:
    return Refused(ErrorCode(code), "A reason.", **about)  # type: ignore[arg-type]


def test_join_shows_topic_and_names() -> None:
    """JOIN, RPL_TOPIC, RPL_TOPICWHOTIME and the names, of which owners and operators have the prefix @."""
    room = events.Entered(
        room="dev",
        username="alice",
        topic="all of it",
        topic_by="bob",
        topic_ms=1_500,
        last_id=0,
        members=entered("dev", RoomRole.OWNER, OPERATOR).members,
    )
    assert Dialogue().say("JOIN #dev", room) == (
        [requests.Join("dev")],
        [
            ":alice!alice@chat.test JOIN #dev",
            ":chat.test 332 alice #dev :all of it",
            ":chat.test 333 alice #dev bob!bob@chat.test 1",
            ":chat.test 353 alice = #dev :@alice @bob",
            ":chat.test 366 alice #dev :End of /NAMES list",
        ],
    )


@pytest.mark.parametrize(("capabilities", "replays_after"), [("", 7), ("draft/chathistory", None)])
def test_first_join_of_the_lobby_gets_what_was_missed(capabilities: str, replays_after: int | None) -> None:
    """Unless the client asks for the history by itself."""
    alice = Dialogue(capabilities, seen_id=7)
    assert alice.say("JOIN #lobby", entered("lobby")).requests == [requests.EnterLobby(replays_after)]
    alice.say("PART #lobby", events.Parted(room="lobby"))
    assert alice.say("JOIN #lobby").requests == [requests.EnterLobby()]


def test_bans_of_the_lobby_are_for_operators_of_the_server() -> None:
    """RPL_ENDOFBANLIST to others, and no error: irssi asks whenever it joins."""
    assert Dialogue(is_operator=True).say("MODE #lobby b").requests == [requests.AskBans()]
    assert Dialogue().say("MODE #lobby b") == (
        [],
        [":chat.test 368 alice #lobby :Operators of the server see the bans"],
    )


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("extended-join", ":alice!alice@chat.test JOIN #dev alice :Alice A."),
        ("account-tag", "@account=alice :alice!alice@chat.test JOIN #dev"),
        ("userhost-in-names", ":chat.test 353 alice = #dev alice!alice@chat.test"),
    ],
)
def test_capabilities_change_a_join(capability: str, expected: str) -> None:
    assert expected in Dialogue(capability).say("JOIN #dev", entered("dev")).lines


def test_join_without_names() -> None:
    """IRCv3, no-implicit-names."""
    said = Dialogue("draft/no-implicit-names").say("JOIN #dev", entered("dev"))
    assert said.lines == [":alice!alice@chat.test JOIN #dev"]


def test_read_mark_comes_before_the_end_of_the_names() -> None:
    """IRCv3, read-marker: MARKREAD comes after JOIN and before RPL_ENDOFNAMES."""
    alice = Dialogue("draft/read-marker")
    said = alice.say("JOIN #dev", entered("dev"), events.ReadMarked("dev", None, 1_500))
    assert said.requests == [requests.Join("dev"), requests.AskMark(room="dev")]
    assert [line.split()[1] for line in said.lines] == ["JOIN", "353", "MARKREAD", "366"]
    assert said.lines[2] == ":chat.test MARKREAD #dev timestamp=1970-01-01T00:00:01.500Z"
    assert alice.say("JOIN #ops", refused("banned")).requests == [requests.Join("ops")]


def test_join_of_several_rooms_with_keys() -> None:
    """A key belongs to the room at its place. A room that the connection is in has no request."""
    alice = Dialogue()
    said = alice.say("JOIN #a,#b,#lobby,#a k1,k2", entered("a"), entered("b"), entered("lobby"))
    assert said.requests == [
        requests.Join("a", key="k1"),
        requests.Join("b", key="k2"),
        requests.EnterLobby(),
    ]


def test_join_0_leaves_all_rooms() -> None:
    alice = Dialogue()
    for room in ("lobby", "dev"):
        alice.enter(room)
    said = alice.say("JOIN 0", events.Parted("dev"), events.Parted("lobby"))
    assert said.requests == [requests.Part("dev"), requests.LeaveLobby()]
    assert said.lines == [":alice!alice@chat.test PART #dev", ":alice!alice@chat.test PART #lobby"]


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("JOIN #dev", "unknown_room", "473 alice #dev :Cannot join channel (+i)"),
        ("JOIN #dev", "banned", "474 alice #dev :Cannot join channel (+b): A reason."),
        ("JOIN #dev", "too_many_rooms", "405 alice #dev :You have joined too many channels"),
        ("JOIN #dev", "rate_limited", "263 alice JOIN :Please wait a while and try again."),
        ("JOIN #dev", "unavailable", "400 alice JOIN :A reason."),
        ("PART #dev", "unknown_room", "403 alice #dev :No such channel"),
        ("PART #dev", "not_a_member", "442 alice #dev :You're not on that channel"),
        ("TOPIC #dev :new", "not_permitted", "482 alice #dev :You're not channel operator"),
        ("INVITE bob #dev", "unknown_user", "401 alice bob :No such nick/channel"),
        ("INVITE bob #dev", "not_a_member", "442 alice #dev :You're not on that channel"),
        ("INVITE bob #dev", "bad_request", "400 alice INVITE :A reason."),
        ("KICK #dev bob", "not_permitted", "482 alice #dev :You're not channel operator, or they own the channel"),
        ("KICK #dev bob", "unknown_user", "401 alice bob :No such nick/channel"),
        ("KICK #dev bob", "not_a_member", "442 alice #dev :You're not on that channel"),
        ("MODE #dev -o bob", "not_permitted", "482 alice #dev :You're not channel operator, or they own the channel"),
        ("MODE #dev +m", "not_permitted", "482 alice #dev :You're not channel operator"),
        ("MODE #dev", "unknown_room", "403 alice #dev :No such channel"),
        ("MODE #dev +b", "not_a_member", "442 alice #dev :You're not on that channel"),
        ("NAMES #dev", "unknown_room", "366 alice #dev :End of /NAMES list"),
        ("NAMES #dev", "not_a_member", "366 alice #dev :End of /NAMES list"),
        ("WHO #dev", "unknown_room", "315 alice #dev :End of /WHO list"),
    ],
)
def test_refused_request_has_the_numeric_of_its_command(line: str, code: str, expected: str) -> None:
    assert Dialogue().say(line, refused(code)).lines == [f":chat.test {expected}"]


@pytest.mark.parametrize("line", ["KICK #dev bob", "MODE #dev +v bob", "MODE #dev -o bob"])
def test_user_who_is_not_in_the_room_of_the_operator(line: str) -> None:
    """ERR_USERNOTINCHANNEL (441), because the connection itself is in the room."""
    alice = Dialogue()
    alice.enter("dev")
    assert alice.say(line, refused("not_a_member")).lines == [
        ":chat.test 441 alice bob #dev :They aren't on that channel"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("JOIN", "461 alice JOIN :Not enough parameters"),
        ("JOIN dev", "403 alice dev :No such channel"),
        *(
            (line, "403 alice #a!b :No such channel")
            for line in ("JOIN #a!b", "PART #a!b", "TOPIC #a!b", "TOPIC #a!b :x", "MODE #a!b", "MODE #a!b +i")
        ),
        *((line, "403 alice #a!b :No such channel") for line in ("MODE #a!b b", "KICK #a!b bob", "INVITE bob #a!b")),
        ("PART #lobby", "442 alice #lobby :You're not on that channel"),
        ("NAMES", "366 alice * :End of /NAMES list"),
        ("NAMES dev", "366 alice dev :End of /NAMES list"),
        ("TOPIC #lobby", "331 alice #lobby :No topic is set"),
        ("TOPIC #lobby :new", "482 alice #lobby :You're not channel operator"),
        ("INVITE bob", "461 alice INVITE :Not enough parameters"),
        ("INVITE bob #lobby", "443 alice bob #lobby :is already on channel"),
        ("KICK #dev", "461 alice KICK :Not enough parameters"),
        ("MODE", "461 alice MODE :Not enough parameters"),
        ("MODE #lobby", "324 alice #lobby +nt"),
        ("MODE #lobby +m", "482 alice #lobby :You're not channel operator"),
        ("MODE #dev +x", "472 alice x :is unknown mode char to me"),
        ("MODE #dev -n", "742 alice #dev n n :This mode is always set"),
        ("MODE #dev +k :two words", "696 alice #dev k * :A key is a word without commas, of 32 bytes at most"),
        ("MODE #dev +l 0", "696 alice #dev l 0 :A limit is a number from 1 to 10000"),
        ("MODE #dev +l abc", "696 alice #dev l abc :A limit is a number from 1 to 10000"),
        ("MODE #dev +o", "696 alice #dev o * :A nick is needed"),
        *(
            (f"MODE #dev +b {mask}", f"696 alice #dev b {mask} :Only nicks can be banned, as nick!*@*")
            for mask in ("*!*@host", "*", "*!*@192.0.2.1", "*!bob@*", "bob!*@other", "b*!*@*", "*!*@*.test")
        ),
        ("MODE bob", "502 alice :Can't change mode for other users"),
        ("MODE alice +x", "501 alice :Unknown MODE flag"),
        ("MODE alice", "221 alice +"),
    ],
)
def test_line_that_the_protocol_answers_alone(line: str, expected: str) -> None:
    said = Dialogue().say(line)
    assert said.requests == []
    assert said.lines == [f":chat.test {expected}"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("PART #dev :bye all", [requests.Part("dev", "bye all")]),
        ("PART #dev,#ops", [requests.Part("dev"), requests.Part("ops")]),
        ("NAMES #dev,#lobby", [requests.AskMembers("dev"), requests.AskMembers(None)]),
        ("TOPIC #dev :", [requests.SetTopic("dev", "")]),
        (f"TOPIC #dev :{'x' * 255}\u00e4", [requests.SetTopic("dev", "x" * 255)]),
        ("INVITE bob #dev", [requests.Invite("dev", "bob")]),
        ("KICK #dev bob,carol :out", [requests.Kick(room="dev", username=n, reason="out") for n in ("bob", "carol")]),
        ("KICK #a,#b bob,carol", [requests.Kick(room=r, username=n) for r, n in (("a", "bob"), ("b", "carol"))]),
        ("MODE #dev +ms-t", [requests.SetModes(room="dev", moderated=True, private=True, open_topic=True)]),
        ("MODE #dev +kl word 5", [requests.SetModes(room="dev", key="word", members_max=5)]),
        ("MODE #dev -kl word", [requests.SetModes(room="dev", key="", members_max=0)]),
        ("MODE #dev +o-v bob bob", [requests.MakeOperator("dev", "bob"), requests.TakeVoice("dev", "bob")]),
        *(
            (f"MODE #dev +b {mask}", [requests.Ban(room="dev", username="bob")])
            for mask in ("bob", "bob!*@*", "bob!al@chat.test", "bob!*al@*.test")
        ),
        ("MODE #dev -b bob", [requests.Unban(room="dev", username="bob")]),
        ("MODE #dev b", [requests.AskRoomBans("dev")]),
        ("MODE #dev " + "b" * 400, [requests.AskRoomBans("dev")]),
        ("MODE #lobby +b *!*@192.0.2.0/24", [requests.Ban(address="192.0.2.0/24")]),
        ("MODE #dev", [requests.SetModes(room="dev")]),
        ("MODE alice +B", [requests.SetBot(is_bot=True)]),
    ],
)
def test_requests_of_a_command(line: str, expected: list[requests.Request]) -> None:
    assert Dialogue().say(line).requests == expected


def test_names() -> None:
    """NAMES message: RPL_NAMREPLY with prefixes, and RPL_ENDOFNAMES."""
    voiced = RoomMember(UserInfo(username="carol", is_online=True), RoomRole.VOICE)
    assert Dialogue().say("NAMES #dev", events.Members("dev", (OPERATOR, voiced))).lines == [
        ":chat.test 353 alice = #dev :@bob +carol",
        ":chat.test 366 alice #dev :End of /NAMES list",
    ]


def test_many_names_take_several_lines() -> None:
    names = [f"user{number}" for number in range(200)]
    members = tuple(RoomMember(UserInfo(username=name, is_online=True), RoomRole.MEMBER) for name in names)
    *lines, _ = Dialogue().say("NAMES #dev", events.Members("dev", members)).lines
    assert len(lines) > 1
    assert max(map(len, lines)) <= 510
    assert [name for line in lines for name in line.split(":")[2].split()] == names


ROOMS = events.Rooms(
    (
        RoomSummary("dev", "code", 3, joined=True),
        RoomSummary("ops", "", 1, joined=False, invited=True),
    )
)
COUNTS = events.Counts(users=7, users_max=9, operators=1, unknown=0, rooms=3)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("LIST", ["#lobby 7 :", "#dev 3 code", "#ops 1 :"]),
        ("LIST #dev,#OPS", ["#dev 3 code", "#ops 1 :"]),
        ("LIST #*o*", ["#lobby 7 :", "#ops 1 :"]),
        ("LIST !#?ps", ["#lobby 7 :", "#dev 3 code"]),
        ("LIST >1,<7", ["#dev 3 code"]),
        ("LIST #nothing", []),
    ],
)
def test_list(line: str, expected: list[str]) -> None:
    """LIST message, and ELIST=MNU. The lobby has all users."""
    said = Dialogue().say(line, COUNTS, ROOMS)
    assert said.requests == [requests.AskCounts(), requests.AskRooms()]
    assert said.lines == [
        ":chat.test 321 alice Channel :Users  Name",
        *(f":chat.test 322 alice {each}" for each in expected),
        ":chat.test 323 alice :End of /LIST",
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (events.Topic("dev", "code", "bob", 5_000), ["332 alice #dev code", "333 alice #dev bob!bob@chat.test 5"]),
        (events.Topic("dev", "code"), ["332 alice #dev code"]),
        (events.Topic("dev", "", "bob", 5_000), ["331 alice #dev :No topic is set"]),
        (refused("unknown_room"), ["403 alice #dev :No such channel"]),
    ],
)
def test_question_for_a_topic(answer: events.Event, expected: list[str]) -> None:
    """TOPIC message without a topic."""
    said = Dialogue().say("TOPIC #dev", answer)
    assert said == ([requests.AskTopic("dev")], [f":chat.test {each}" for each in expected])


def test_list_of_invitations() -> None:
    """INVITE message without parameters: RPL_INVITELIST (336), RPL_ENDOFINVITELIST (337)."""
    assert Dialogue().say("INVITE", ROOMS).lines == [
        ":chat.test 336 alice #ops",
        ":chat.test 337 alice :End of /INVITE list",
    ]


def test_modes_of_a_room() -> None:
    """RPL_CHANNELMODEIS (324) and RPL_CREATIONTIME (329)."""
    modes = events.RoomModes(private=True, moderated=True, key="word", members_max=5)
    assert Dialogue().say("MODE #dev", events.ModesMoved(room="dev", modes=modes, created_ms=5_000)).lines == [
        ":chat.test 324 alice #dev +ntimkl word 5",
        ":chat.test 329 alice #dev 5",
    ]


def test_bans_of_a_room() -> None:
    """RPL_BANLIST (367) and RPL_ENDOFBANLIST (368), without mutes."""
    bans = tuple(
        SanctionState(kind=kind, username="bob", by="carol", time_ms=TimeMs(5_000))
        for kind in (SanctionKind.BAN, SanctionKind.MUTE)
    )
    assert Dialogue().say("MODE #dev +b", events.Bans(bans, "dev")).lines == [
        ":chat.test 367 alice #dev bob!*@* carol 5",
        ":chat.test 368 alice #dev :End of channel ban list",
    ]


def test_own_modes() -> None:
    """The mode o is that of operators of the server; i has no effect. Known changes count if others are unknown."""
    alice = Dialogue(is_operator=True)
    assert alice.say("MODE alice +ix-o").lines == [
        ":chat.test 501 alice :Unknown MODE flag",
        ":alice!alice@chat.test MODE alice +i",
    ]
    assert alice.say("MODE alice").lines == [":chat.test 221 alice +io"]


def test_labelled_command_with_several_requests_is_one_batch() -> None:
    """IRCv3, labeled-response."""
    alice = Dialogue("labeled-response batch")
    said = alice.say("@label=x JOIN #a,#b", entered("a"), refused("banned"))
    assert said.lines[0].startswith("@label=x :chat.test BATCH +")
    batch = said.lines[0].split("+")[1].split()[0]
    assert all(line.startswith(f"@batch={batch} ") for line in said.lines[1:-1])
    assert said.lines[-1] == f":chat.test BATCH -{batch}"
