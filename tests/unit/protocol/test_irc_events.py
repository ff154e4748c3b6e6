"""Events of rooms and users as lines of irc: those that all connections of a variant share, and those of one."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from chatprotocol import events
from chatprotocol.events import (
    PublicBatch,
    PublicMessage,
    RoomEvent,
    RoomEventKind,
    RoomModes,
    RoomRole,
    TimeMs,
    UserInfo,
)
from chatprotocol.wire import Irc, WebSocket
from chatprotocol.wire.irc_capabilities import Encoding, Users, letters_of, offered
from chatprotocol.wire.irc_connection import IrcSettings
from chatprotocol.wire.irc_events import event_line, shared_lines

from .irc_dialogue import NAME, Dialogue

BOB = UserInfo(username="bob", is_online=True, realname="Bob B.", away="lunch")
FROM_BOB = ":bob!bob@chat.test"
MODES = RoomModes(moderated=True, key="word", members_max=5)
PLACE = events.EventPlace(9, 2, 7, TimeMs(5_000))
# The tags of a line with this place, for a client that knows time and tags.
TAGS = "time=1970-01-01T00:00:05.000Z;msgid=9.2.7"

SHARED: tuple[tuple[events.Event | events.Modes, str, list[str]], ...] = (
    (events.MemberJoined(room="dev", info=BOB), "", [f"{FROM_BOB} JOIN #dev"]),
    (events.MemberJoined(room="dev", info=BOB), "ae", [f"@account=bob {FROM_BOB} JOIN #dev bob :Bob B."]),
    (events.MemberJoined(room="dev", info=BOB), "n", [f"{FROM_BOB} JOIN #dev", f"{FROM_BOB} AWAY lunch"]),
    (
        events.MemberJoined(room="dev", info=BOB, role=RoomRole.VOICE),
        "",
        [f"{FROM_BOB} JOIN #dev", ":chat.test MODE #dev +v bob"],
    ),
    (
        events.MemberJoined(room="dev", info=structs.replace(BOB, is_bot=True, away="")),
        "ag",
        [f"@account=bob;bot {FROM_BOB} JOIN #dev"],
    ),
    (events.MemberLeft("dev", "bob"), "", [f"{FROM_BOB} PART #dev"]),
    (events.MemberLeft("dev", "bob", "bye all"), "", [f"{FROM_BOB} PART #dev :bye all"]),
    (events.Kicked(room="dev", username="carol", by="bob"), "", [f"{FROM_BOB} KICK #dev carol bob"]),
    (events.UserQuit("bob", "bye all"), "", [f"{FROM_BOB} QUIT :bye all"]),
    (events.Renamed("bob", "rob"), "", [f"{FROM_BOB} NICK rob"]),
    (events.TopicChanged("dev", "", "bob"), "", [f"{FROM_BOB} TOPIC #dev :"]),
    (events.Invited("dev", "carol", "bob"), "i", [f"{FROM_BOB} INVITE carol #dev"]),
    (events.Invited("dev", "carol", "bob"), "", []),
    (events.AwayChanged("bob", "lunch"), "n", [f"{FROM_BOB} AWAY lunch"]),
    (events.AwayChanged("bob", ""), "n", [f"{FROM_BOB} AWAY"]),
    (events.AwayChanged("bob", "lunch"), "", []),
    (events.RealnameChanged("bob", "Rob B."), "s", [f"{FROM_BOB} SETNAME :Rob B."]),
    (events.RealnameChanged("bob", "Rob B."), "", []),
    (
        events.ModesMoved(room="dev", modes=MODES, by="bob", old=RoomModes(private=True)),
        "",
        [f"{FROM_BOB} MODE #dev +mkl-i word 5"],
    ),
    (
        events.ModesMoved(room="dev", modes=RoomModes(open_topic=True), by="bob", old=MODES),
        "",
        [f"{FROM_BOB} MODE #dev -tmkl *"],
    ),
    (events.ModesMoved(room="dev", modes=MODES, by="bob", old=MODES), "", []),
    (events.Modes(room="dev", modes=MODES, by="bob"), "", [f"{FROM_BOB} MODE #dev +tmkl-i word 5"]),
    (
        events.RoleMoved(room="dev", username="carol", role=RoomRole.VOICE, by="bob", old_role=RoomRole.OPERATOR),
        "",
        [f"{FROM_BOB} MODE #dev -o+v carol carol"],
    ),
    (
        events.RoleMoved(room="dev", username="carol", role=RoomRole.MEMBER, by="bob", old_role=RoomRole.OPERATOR),
        "",
        [f"{FROM_BOB} MODE #dev -o carol"],
    ),
    (events.RoleMoved(room="dev", username="carol", role=RoomRole.OWNER, old_role=RoomRole.OPERATOR), "", []),
    (events.RoleChanged(room="dev", username="carol", role=RoomRole.OWNER), "", [":chat.test MODE #dev +o carol"]),
    (
        events.RoleChanged(room="dev", username="carol", role=RoomRole.MEMBER),
        "",
        [":chat.test MODE #dev -ov carol carol"],
    ),
)


@pytest.mark.parametrize(("event", "letters", "expected"), SHARED)
def test_shared_lines(event: events.Event, letters: str, expected: list[str]) -> None:
    assert shared_lines(event, Encoding(NAME, letters)) == expected


# Of all variants.
LETTERS = "abeginst"
VARIANTS = ["".join(letters) for count in range(len(LETTERS) + 1) for letters in combinations(LETTERS, count)]
MORE = (
    PublicMessage(18, TimeMs(0), "bob", "a\nb", bot=True),
    PublicMessage(18, TimeMs(0), "bob", "hi", "dev", guest=True),
    PublicBatch(18, 0, "bob", ["/me waves", "b" * 600]),
    events.Relayed("bob", "dev", None, "TAGMSG", "+typing=active", ""),
    events.Relayed("bob", "dev", None, "PRIVMSG", "+typing=done", "\x01PING 1\x01", TimeMs(1), bot=True),
    events.MemberJoined(room="dev", info=structs.replace(BOB, is_bot=True), role=RoomRole.VOICE),
    events.Placed(events.MemberJoined(room="dev", info=BOB, role=RoomRole.VOICE), PLACE),
    events.Placed(events.TopicChanged("dev", "plans", "bob"), PLACE),
)


def test_event_has_in_each_variant_the_lines_of_its_capabilities() -> None:
    """Also if variants share its bytes: irc_capabilities.letters_for has all that the lines depend on."""
    assert letters_of({*offered(has_registration=True)}) == LETTERS
    irc = Irc(IrcSettings(name=NAME, users=Users(is_account=lambda _: True, is_bot="bob".__eq__)))
    for event in (*MORE, *dict.fromkeys(each[0] for each in SHARED)):
        for letters in VARIANTS:
            encode = irc.encoder(f"irc/{letters}")
            # Several events are encoded for the variant alone.
            assert encode([event]) * 2 == encode([event, event]), (event, letters)


def test_message_is_encoded_once_for_all_variants_with_the_same_lines() -> None:
    """The encoding is under the hub's lock, and users choose their capabilities."""
    irc = Irc()
    websocket = WebSocket(irc=irc)
    for protocol, prefix in ((irc, "irc"), (websocket, "websocket/text.ircv3.net")):
        for event, encodings in (
            (PublicBatch(18, 0, "bob", ["hi", "you"]), 16),
            (events.MemberLeft("dev", "bob"), 4),
            (events.Placed(events.MemberLeft("dev", "bob"), PLACE), 8),
        ):
            encoded = [protocol.encoder(f"{prefix}/{letters}")([event]) for letters in VARIANTS]
            assert len({id(each) for each in encoded}) <= encodings


NOTICE = ":chat.test NOTICE alice :"
OWN: tuple[tuple[events.Event, list[str]], ...] = (
    (events.Parted("dev"), [":alice!alice@chat.test PART #dev"]),
    (events.Parted("dev", "bob", "spam"), [f"{FROM_BOB} KICK #dev alice spam"]),
    (events.Kicked(room="dev", username="carol", by="bob", reason="spam"), [f"{FROM_BOB} KICK #dev carol spam"]),
    (events.Kicked(room="ops", username="carol", by="bob"), [f"{NOTICE}bob removed carol from #ops"]),
    (events.Invited("ops", "alice", "bob"), [f"{FROM_BOB} INVITE alice #ops"]),
    (events.TopicUnchanged("dev", "tea", "alice"), []),
    (events.InvitedMember("dev", "bob", "alice"), [":chat.test 443 alice bob #dev :is already on channel"]),
    (events.Banned(room="dev", username="carol", by="bob"), [f"{FROM_BOB} MODE #dev +b carol!*@*"]),
    (events.Unbanned(room="dev", username="carol", by="bob"), [f"{FROM_BOB} MODE #dev -b carol!*@*"]),
    (events.Banned(room="dev", username="alice", by="bob", until=TimeMs(5_000), reason="spam"), []),
    (events.Unbanned(room="dev", username="alice", by="bob"), []),
    (
        events.Banned(room="ops", username="carol", by="bob", until=TimeMs(5_000), reason="spam"),
        [f"{NOTICE}bob banned carol in #ops until 1970-01-01 00:01 UTC: spam"],
    ),
    (events.Unbanned(username="alice", by="bob"), [f"{NOTICE}bob ended the ban of alice"]),
    (events.Banned(address="192.0.2.1", by="bob"), [f"{NOTICE}bob banned 192.0.2.1"]),
    (events.Muted(room="dev", username="carol", by="bob"), [":chat.test NOTICE #dev :bob muted carol in #dev"]),
    (events.Unmuted(username="carol", by="bob"), [f"{NOTICE}bob ended the mute of carol"]),
    (events.Deleted(9, "bob", "dev"), [":chat.test NOTICE #dev :bob deleted the message 9"]),
    (events.Deleted(9, "bob", "dev", "spam"), [":chat.test NOTICE #dev :bob deleted the message 9: spam"]),
    (events.Deleted(9, "bob", "ops"), []),
    (events.DirectDeleted(9, "bob", sender="bob", recipient="alice"), [f"{NOTICE}bob deleted the message 9"]),
    (events.Reported(id=9, by="bob", reason="spam"), [f"{NOTICE}bob reported the message 9 in #lobby: spam"]),
    (events.AwayChanged("bob", "lunch"), []),
    (events.IsAway("bob", "lunch"), [":chat.test 301 alice bob lunch"]),
    (events.CameOnline("bob"), [":chat.test 730 alice bob!bob@chat.test"]),
    (events.WentOffline("bob"), [":chat.test 731 alice bob"]),
    (events.ReadMarked("dev", None, 5_000), []),
    (
        events.RoleChanged(username="alice", role=RoomRole.OPERATOR, by="bob"),
        [":chat.test MODE alice +o", ":chat.test 381 alice :You are now an IRC operator"],
    ),
    (
        events.RoleChanged(username="carol", role=RoomRole.MEMBER, by="bob"),
        [f"{NOTICE}carol is no longer an operator of the server, by bob"],
    ),
)


@pytest.mark.parametrize(("event", "expected"), OWN)
def test_own_lines(event: events.Event, expected: list[str]) -> None:
    """The connection is in the room dev, and in no other."""
    alice = Dialogue()
    alice.enter("dev")
    assert alice.hear(event) == expected


def test_inviter_gets_a_numeric() -> None:
    """RPL_INVITING (341)."""
    said = Dialogue().say("INVITE bob #dev", events.Invited("dev", "bob", "alice"))
    assert said.lines == [":chat.test 341 alice bob #dev"]


def test_role_on_the_server_opens_and_closes_kill() -> None:
    alice = Dialogue()
    alice.hear(events.RoleChanged(username="alice", role=RoomRole.OPERATOR, by="bob"))
    assert alice.say("OPER x y").lines == [":chat.test 381 alice :You are now an IRC operator"]
    alice.hear(events.RoleChanged(username="alice", role=RoomRole.MEMBER, by="bob"))
    assert alice.say("KILL bob").requests == []


def test_read_marks_of_another_device() -> None:
    """IRCv3, read-marker."""
    marked = Dialogue("draft/read-marker").hear(events.ReadMarked(None, "bob", 5_000))
    assert marked == [":chat.test MARKREAD bob timestamp=1970-01-01T00:00:05.000Z"]


def test_deletion_is_a_redaction_for_those_who_know_it() -> None:
    """IRCv3, message-redaction."""
    alice = Dialogue("draft/message-redaction message-tags")
    alice.enter("dev")
    assert alice.hear(events.Deleted(9, "bob", "dev")) == [f"{FROM_BOB} REDACT #dev 9"]
    assert alice.hear(events.DirectDeleted(9, "bob", sender="bob", recipient="alice")) == [f"{FROM_BOB} REDACT alice 9"]


def played(kind: RoomEventKind, actor: str = "bob", **values: Any) -> RoomEvent:
    return RoomEvent(
        after_id=9, number=2, room_id=7, time_ms=TimeMs(5_000), kind=kind, room="dev", actor=actor, **values
    )


PLAYED: tuple[tuple[RoomEvent, str], ...] = (
    (played(RoomEventKind.JOIN), f"{FROM_BOB} JOIN #dev"),
    (played(RoomEventKind.PART), f"{FROM_BOB} PART #dev"),
    (played(RoomEventKind.PART, text="bye all"), f"{FROM_BOB} PART #dev :bye all"),
    (played(RoomEventKind.QUIT), f"{FROM_BOB} QUIT"),
    (played(RoomEventKind.NICK, target="rob"), f"{FROM_BOB} NICK rob"),
    (played(RoomEventKind.KICK, target="carol"), f"{FROM_BOB} KICK #dev carol bob"),
    (played(RoomEventKind.KICK, target="carol", text="spam"), f"{FROM_BOB} KICK #dev carol spam"),
    (played(RoomEventKind.KICK, "", target="carol"), ":chat.test KICK #dev carol chat.test"),
    (played(RoomEventKind.TOPIC, text="the plan"), f"{FROM_BOB} TOPIC #dev :the plan"),
    (played(RoomEventKind.TOPIC), f"{FROM_BOB} TOPIC #dev :"),
    (
        played(RoomEventKind.MODES, old_modes=RoomModes(private=True), modes=RoomModes(key="*", members_max=5)),
        f"{FROM_BOB} MODE #dev +kl-i * 5",
    ),
    (
        played(RoomEventKind.ROLE, target="carol", old_role=RoomRole.VOICE, role=RoomRole.OPERATOR),
        f"{FROM_BOB} MODE #dev -v+o carol carol",
    ),
    (
        played(RoomEventKind.ROLE, target="carol", old_role=RoomRole.VOICE, role=RoomRole.MEMBER),
        f"{FROM_BOB} MODE #dev -v carol",
    ),
    (played(RoomEventKind.HEIR, "", target="carol"), ":chat.test MODE #dev +o carol"),
    (played(RoomEventKind.BAN, target="carol"), f"{FROM_BOB} MODE #dev +b carol!*@*"),
    (played(RoomEventKind.UNBAN, target="carol"), f"{FROM_BOB} MODE #dev -b carol!*@*"),
)


@pytest.mark.parametrize(("event", "expected"), PLAYED)
def test_event_of_the_history_is_the_line_that_members_got(event: RoomEvent, expected: str) -> None:
    """IRCv3, chathistory: event-playback."""
    assert event_line(Encoding(NAME), event) == expected


def test_event_of_the_history_has_tags() -> None:
    """The time and an id of its own. A guest has no account, whoever has the name now; the server has none either."""
    encoding = Encoding(NAME, LETTERS, Users(is_account=lambda _: True))
    assert event_line(encoding, played(RoomEventKind.JOIN)) == f"@{TAGS};account=bob {FROM_BOB} JOIN #dev bob bob"
    assert event_line(encoding, played(RoomEventKind.JOIN, is_guest=True)) == f"@{TAGS} {FROM_BOB} JOIN #dev * bob"
    assert event_line(encoding, played(RoomEventKind.HEIR, "", target="bob")).startswith(f"@{TAGS} :chat.test MODE")


PLACED: tuple[tuple[events.DirectoryEvent | events.TaggedEvent, list[str]], ...] = (
    (events.MemberJoined(room="dev", info=BOB, role=RoomRole.VOICE), [f"@{TAGS} {FROM_BOB} JOIN", ":chat.test MODE"]),
    (events.Entered(room="dev", username="alice", last_id=9, members=()), [f"@{TAGS} :alice", ":chat.test 366"]),
    (events.MemberLeft("dev", "bob"), [f"@{TAGS} {FROM_BOB} PART #dev"]),
    (events.Parted("dev", "bob", "spam"), [f"@{TAGS} {FROM_BOB} KICK #dev alice spam"]),
    (events.TopicChanged("dev", "tea", "bob"), [f"@{TAGS} {FROM_BOB} TOPIC #dev tea"]),
    (events.Banned(room="dev", username="carol", by="bob"), [f"@{TAGS} {FROM_BOB} MODE #dev +b carol!*@*"]),
    # Operators of the server who are not in the room.
    (events.Kicked(room="ops", username="carol", by="bob"), [":chat.test NOTICE alice :bob removed carol from #ops"]),
)


@pytest.mark.parametrize(("event", "starts"), PLACED)
def test_line_of_now_has_the_id_and_time_of_the_history(event: Any, starts: list[str]) -> None:
    """A client that gets both knows that they are one. Lines that the history does not have get no id."""
    alice = Dialogue("message-tags server-time")
    alice.enter("dev")
    for line, start in zip(alice.hear(events.Placed(event, PLACE))[: len(starts)], starts, strict=True):
        assert line.startswith(start)
    without = Dialogue()
    without.enter("dev")
    assert without.hear(events.Placed(event, PLACE)) == without.hear(event)
    labeled = Dialogue("message-tags server-time labeled-response batch")
    changed = events.Placed(events.TopicChanged("dev", "tea", "alice"), PLACE)
    (line,) = labeled.say("@label=7 TOPIC #dev tea", changed).lines
    assert line == f"@label=7;{TAGS} :alice!alice@chat.test TOPIC #dev tea"


def test_every_kind_of_event_has_a_line() -> None:
    assert {event.kind for event, _ in PLAYED} == {*RoomEventKind}


@given(text=st.text(max_size=300), name=st.text(max_size=40))
def test_no_text_makes_a_second_line_or_a_long_one(text: str, name: str) -> None:
    """Texts and names of other protocols can't speak for the server."""
    info = UserInfo(username=name, is_online=True, realname=text, away=text)
    encoding = Encoding(NAME, LETTERS)
    said = [
        events.MemberJoined(room=name, info=info),
        events.MemberLeft(name, name, text),
        events.Kicked(room=name, username=name, by=name, reason=text),
        events.UserQuit(name, text),
        events.TopicChanged(name, text, name),
        events.AwayChanged(name, text),
        events.RealnameChanged(name, text),
    ]
    lines = [line for event in said for line in shared_lines(event, encoding)]
    lines += [
        event_line(encoding, played(kind, name, target=name, text=text))
        for kind in (RoomEventKind.PART, RoomEventKind.KICK, RoomEventKind.TOPIC, RoomEventKind.NICK, RoomEventKind.BAN)
    ]
    for line in lines:
        assert not {"\r", "\n", "\0"} & set(line)
        without_tags = line.partition(" ")[2] if line.startswith("@") else line
        assert len(without_tags.encode(errors="replace")) <= 510
