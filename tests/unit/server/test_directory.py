"""Requests about other users: what is passed on, and who is found. Their answers from outside: test_irc_users.py."""

from types import SimpleNamespace
from typing import Any

import pytest

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    Bans,
    Counts,
    Infos,
    Relayed,
    RelayedBack,
    RoomModes,
    RoomRole,
    SanctionKind,
    SanctionState,
    TimeMs,
    UserInfo,
)
from chatprotocol.limits import AWAY_MAX_BYTES, REALNAME_MAX_BYTES
from chatprotocol.rules import not_a_member
from chatserver.chat.directory import Directory
from chatserver.store.accounts import Account
from chatserver.store.moderation import ActiveSanction
from chatserver.store.rooms import LOBBY_ID

ALICE: Any = SimpleNamespace(account_id=1, name="alice", is_operator=False, echoes=False, is_guest=False, is_bot=False)
INFOS = [
    UserInfo(username="Bob", is_online=True, realname="Robert [b]"),
    UserInfo(username="carol", is_online=True),
]
SANCTIONS = tuple(
    SanctionState(kind=kind, username="dave", by="erin", time_ms=TimeMs(7), reason="spam") for kind in SanctionKind
)


class Server:
    """What the directory asks, as the test has set it; and the events that were passed on."""

    def __init__(self) -> None:
        self.silence: ActiveSanction | None = None
        self.ignored: list[tuple[int, int]] = []
        self.relayed: list[tuple[Relayed, int, bool]] = []
        counts = Counts(users=0, users_max=0, operators=0, unknown=0, rooms=0)
        server: Any = self
        self.directory = Directory(
            users=SimpleNamespace(tracking=self, relay=self._relay),  # type: ignore[arg-type]
            presence=SimpleNamespace(members=lambda _: range(len(INFOS))),  # type: ignore[arg-type]
            accounts=SimpleNamespace(find=self._find),  # type: ignore[arg-type]
            guests=SimpleNamespace(find=lambda _: None),  # type: ignore[arg-type]
            rooms=server,
            commands=SimpleNamespace(find=self._find_room, find_to_run=self._find_room),  # type: ignore[arg-type]
            records=SimpleNamespace(  # type: ignore[arg-type]
                silence=lambda *_: self.silence,
                is_ignored=lambda *ids: ids in self.ignored,
                sanctions=lambda room_id: SANCTIONS if room_id == 5 else (),
            ),
            count=lambda: counts,
            now_ms=lambda: 1_500,
        )

    def _find(self, name: str) -> Account | None:
        return Account(2, "Bob", "", 0) if name.lower() == "bob" else None

    def _find_room(self, _: object, name: str) -> SimpleNamespace:
        if name == "ops":
            raise not_a_member(name)
        return SimpleNamespace(
            room_id=5, name=name, role=RoomRole.MEMBER, modes=RoomModes(moderated=name == "moderated")
        )

    def info(self, number: int) -> UserInfo:
        return INFOS[number]

    def _relay(self, _: object, event: Relayed, target_id: int, *, is_room: bool) -> None:
        self.relayed.append((event, target_id, is_room))


@pytest.fixture
def server() -> Server:
    return Server()


def relay(room: str | None = None, to: str | None = None) -> requests.Relay:
    return requests.Relay(room=room, to=to, kind="TAGMSG", tags="+typing=active")


def test_relayed_event_goes_where_a_message_would(server: Server) -> None:
    """An ignored user does not learn that it is ignored."""
    for request in (relay("dev"), relay("LOBBY"), relay(to="bob")):
        server.directory.answer(ALICE, request)
    places = [(event.room, event.to, target_id, is_room) for event, target_id, is_room in server.relayed]
    assert places == [("dev", None, 5, True), ("lobby", None, LOBBY_ID, True), (None, "Bob", 2, False)]
    server.ignored.append((2, 1))
    server.directory.answer(ALICE, relay(to="bob"))
    assert len(server.relayed) == 3


@pytest.mark.parametrize("echoes", [False, True])
def test_what_is_passed_on_says_of_whom_and_when(server: Server, *, echoes: bool) -> None:
    """The sender gets the same back, if it wants that, also from a user who ignores it."""
    bot: Any = SimpleNamespace(account_id=3, name="dave", is_operator=False, echoes=echoes, is_guest=True, is_bot=True)
    server.ignored.append((2, 3))
    texts = ("TAGMSG", "+typing=active", "", 1_500)
    for request, place in ((relay("dev"), ("dev", None)), (relay(to="bob"), (None, "Bob"))):
        answer = server.directory.answer(bot, request)
        assert answer == (RelayedBack("dave", *place, *texts, guest=True, bot=True) if echoes else None)
    ((event, *_),) = server.relayed
    assert event == Relayed("dave", "dev", None, *texts, guest=True, bot=True)


@pytest.mark.parametrize(
    ("request_", "is_muted", "code"),
    [
        (relay("dev"), True, ErrorCode.MUTED),
        (relay("lobby"), True, ErrorCode.MUTED),
        (relay(to="bob"), True, ErrorCode.MUTED),
        (requests.SetAway("insults"), True, ErrorCode.MUTED),
        (requests.SetRealname("insults"), True, ErrorCode.MUTED),
        (relay("moderated"), False, ErrorCode.MUTED),
        (relay("ops"), False, ErrorCode.NOT_A_MEMBER),
        (requests.AskRoomBans("ops"), False, ErrorCode.NOT_A_MEMBER),
        (relay(to="nobody"), False, ErrorCode.UNKNOWN_USER),
        (requests.SetAway("x" * (AWAY_MAX_BYTES + 1)), False, ErrorCode.TOO_LONG),
        (requests.SetRealname("x" * (REALNAME_MAX_BYTES + 1)), False, ErrorCode.TOO_LONG),
    ],
)
def test_request_is_refused(
    server: Server, request_: requests.DirectoryRequest, *, is_muted: bool, code: ErrorCode
) -> None:
    server.silence = ActiveSanction(SanctionKind.MUTE, None, "") if is_muted else None
    with pytest.raises(RequestError) as refusal:
        server.directory.answer(ALICE, request_)
    assert refusal.value.code is code
    assert server.relayed == []


def test_members_see_the_bans_of_their_room_without_mutes_and_reasons(server: Server) -> None:
    ban = SanctionState(kind=SanctionKind.BAN, username="dave", by="erin", time_ms=TimeMs(7))
    assert server.directory.answer(ALICE, requests.AskRoomBans("dev")) == Bans((ban,), "dev")


def test_mask_with_many_stars_is_not_compiled(server: Server) -> None:
    """Promise: a short request costs little. It would match Robert."""
    mask = "*".join(["", *"robert [b]", ""])
    assert server.directory.answer(ALICE, requests.AskWho(mask)) == Infos(())
    assert server.directory.answer(ALICE, requests.AskWho(mask.removeprefix("*"))) == Infos((INFOS[0],))


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ("*", [0, 1]),
        ("b?B", [0]),
        ("robert [B]", [0]),
        ("[bc]*", []),
        ("caro", []),
        ("*" * 200 + "x", []),
        ("*" * 200, [0, 1]),
    ],
)
def test_mask_has_two_wildcards(server: Server, mask: str, found: list[int]) -> None:
    """The name or the description matches, ignoring case."""
    assert server.directory.answer(ALICE, requests.AskWho(mask)) == Infos(tuple(INFOS[each] for each in found))
