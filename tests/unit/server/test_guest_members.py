"""Guests with one connection: members of the hub that have a name and no account."""

from typing import Any, get_args

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    YOU_LEFT,
    AccountKind,
    Authenticated,
    Bye,
    Counts,
    DirectMessage,
    History,
    PublicMessage,
    Renamed,
    SanctionKind,
    Sent,
    SentStatus,
    TimeMs,
    UserQuit,
    Welcome,
)
from chatprotocol.requests import (
    AskAudit,
    AskHistory,
    AskIgnored,
    Authenticate,
    ChangePassword,
    Delete,
    Enter,
    EnterLobby,
    GuestLogin,
    Ignore,
    Login,
    Quit,
    Rename,
    Report,
    Say,
    Search,
    Side,
    TokenRequest,
    Unignore,
    Whisper,
)
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import DirectMessage as DirectEntry
from chatserver.journal.entries import GuestRelease
from chatserver.store.moderation import ActiveSanction

from .chat_fixture import ChatFixture, Peer, any_request, codes


def enter(name: str) -> Enter:
    return Enter(username=name, variant="json")


def guest(services: ChatFixture, name: str = "carol", address: str = "10.0.0.1") -> Peer:
    """A guest who is online."""
    peer = services.connect(address)
    assert codes(peer.ask(enter(name))) == [Welcome, Counts]
    return peer


def register(name: str, password: str = "secret") -> Authenticate:
    return Authenticate(username=name, password=password, registers=True)


def directs(peer: Peer) -> list[str]:
    return [each.text for each in peer.received() if isinstance(each, DirectMessage)]


def test_guest_is_online_and_talks(services: ChatFixture) -> None:
    """It gets no message from before its login."""
    services.messages.stored = (DirectMessage(9, TimeMs(0), "bob", "carol", "old"),)
    bob, carol = services.connect(), services.connect()
    bob.ask(Login("bob", "secret"))
    welcome, _ = carol.ask(enter("Carol"))
    assert isinstance(welcome, Welcome)
    assert (welcome.account, welcome.username) == (AccountKind.GUEST, "Carol")
    assert services.presence.names() == ("bob", "Carol")
    assert services.messages.asked == [("undelivered", 2, 0, 10, 500)], "those of bob"
    assert codes(carol.ask(Say("hello"))) == []
    bob.ask(Whisper("CAROL", "psst"))
    assert directs(carol) == ["psst"]
    (sent,) = (each for each in bob.received() if isinstance(each, Sent))
    assert (sent.status, sent.looks_public) == (SentStatus.SENT, False)
    assert [each.guest for each in bob.received() if isinstance(each, PublicMessage)] == [True]
    assert services.services.counters.logins == {"ok": 1, "guest": 1}


def test_guest_that_quits_frees_its_name_at_once(services: ChatFixture) -> None:
    """Its rooms may need another owner, so the release is not left to a later commit."""
    carol = guest(services)
    assert carol.ask(Quit("bye now")) == [Bye(YOU_LEFT)]
    assert services.presence.names() == ()
    assert [type(each) for each in services.journal.deferred.values()] == [GuestRelease]
    assert services.journal.fences == 1
    assert codes(services.connect().ask(Authenticate(username="carol", password="x", registers=True))) == [
        Authenticated
    ]


def test_guest_registers_its_name_and_enters_as_the_account(services: ChatFixture) -> None:
    """Promise: nobody else gets the name meanwhile, and a refused password changes nothing."""
    carol, claimed = guest(services), set(services.accounts.claimed)
    assert codes(carol.ask(register("carol", "secret" * 1_000))) == [ErrorCode.TOO_LONG]
    assert codes(carol.ask(register("dave"))) == [ErrorCode.NOT_PERMITTED]
    assert codes(carol.ask(Authenticate(username="carol", password="secret"))) == [ErrorCode.NOT_PERMITTED]
    assert (services.presence.names(), services.accounts.claimed) == (("carol",), claimed)
    assert codes(carol.ask(register("CAROL"))) == [Authenticated]
    assert services.presence.names() == ()
    (welcome, _) = carol.ask(enter("carol"))
    assert isinstance(welcome, Welcome)
    assert welcome.account == AccountKind.NEW
    bob = services.connect()
    bob.ask(Login("bob", "secret"))
    bob.ask(Whisper("carol", "psst"))
    assert directs(carol) == ["psst"]
    carol.session.end()
    assert services.presence.names() == ("bob",)


@pytest.mark.parametrize("is_muted", [False, True])
def test_muted_user_says_nothing_with_the_reason_of_its_end(services: ChatFixture, *, is_muted: bool) -> None:
    dave, carol = guest(services, "dave"), guest(services)
    dave.ask(EnterLobby())
    if is_muted:
        (account_id,) = (each for name, each in services.accounts.guests.items() if name == "carol")
        services.records.silences[account_id] = ActiveSanction(SanctionKind.MUTE, None, "")
    carol.ask(Quit("insults"))
    (quit_,) = (each for each in dave.received() if isinstance(each, UserQuit))
    assert quit_ == UserQuit("carol", "" if is_muted else "insults")


# --- names ---
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ALICE", ErrorCode.BAD_USERNAME),
        ("root", ErrorCode.BAD_USERNAME),
        ("Pair", ErrorCode.BAD_USERNAME),
        ("half", ErrorCode.BAD_USERNAME),
        ("DORA", ErrorCode.BAD_USERNAME),
        ("not a name", ErrorCode.BAD_USERNAME),
    ],
)
def test_name_that_is_taken_is_refused(name: str, code: ErrorCode) -> None:
    """Promise: nobody acts under the name of an account, an operator or another guest."""
    services = ChatFixture(operators=["root"])
    services.accounts.add("alice", "terces")
    services.guest("pair")
    services.connect().ask(GuestLogin(Side.SENDING, "half"))
    guest(services, "dora")
    peer = services.connect()
    assert codes(peer.ask(enter(name))) == [code]
    assert peer.session.username == ""
    assert services.presence.names() == ("pair", "dora")
    assert codes(peer.ask(enter("erin"))) == [Welcome, Counts], "the connection may try another name"


def test_name_of_a_guest_is_refused_to_pairs_and_registrations(services: ChatFixture) -> None:
    guest(services)
    for request in (
        GuestLogin(Side.SENDING, "Carol"),
        Login("carol", "secret"),
        Authenticate(username="CAROL", password="x", registers=True),
    ):
        assert codes(services.connect().ask(request)) == [ErrorCode.BAD_USERNAME]


def test_policy_and_limits_of_guests_hold() -> None:
    services = ChatFixture(guests_allowed=False)
    assert codes(services.connect().ask(enter("carol"))) == [ErrorCode.NOT_LOGGED_IN]
    services = ChatFixture(registration_limits=(1, 0))
    guest(services)
    assert codes(services.connect().ask(enter("dora"))) == [ErrorCode.RATE_LIMITED]
    assert codes(services.connect().ask(enter("carol"))) == [ErrorCode.BAD_USERNAME]


@pytest.mark.parametrize("fault", [OSError("disk full"), JournalClosedError()])
def test_guest_that_is_not_stored_leaves_no_trace(services: ChatFixture, fault: Exception) -> None:
    services.journal.fault = fault
    peer = services.connect()
    peer.ask(enter("carol"))
    assert services.presence.names() == ()
    assert not services.services.guests.is_claimed("carol")


def test_banned_address_keeps_guests_out(services: ChatFixture) -> None:
    """Also a ban that comes while the name is claimed."""
    for bans in ([ActiveSanction(SanctionKind.BAN, None, "")], [None, ActiveSanction(SanctionKind.BAN, None, "")]):
        services.records.bans_of_address = [*bans]
        assert codes(services.connect().ask(enter("carol"))) == [ErrorCode.BANNED]
        assert not services.services.guests.is_claimed("carol")


# --- another name ---
def test_guest_takes_another_name(services: ChatFixture) -> None:
    """Its old name is free, and it is found under the new one."""
    bob, carol = services.connect(), guest(services)
    bob.ask(Login("bob", "secret"))
    carol.ask(Rename("Dora"))
    assert [each for each in carol.received() if isinstance(each, Renamed)] == [Renamed("carol", "Dora")]
    assert services.presence.names() == ("bob", "Dora")
    assert carol.session.username == "Dora"
    bob.ask(Whisper("dora", "psst"))
    assert directs(carol) == ["psst"]
    carol.ask(Say("hello"))
    assert services.journal.appended[-1].sender == "Dora"
    guest(services, "CAROL")
    carol.session.end()
    assert services.presence.names() == ("bob", "CAROL")
    guest(services, "dora")


@pytest.mark.parametrize("name", ["ALICE", "root", "erin", "no name"])
def test_name_that_a_guest_can_not_take_leaves_the_old_one(name: str) -> None:
    services = ChatFixture(operators=["root"])
    services.accounts.add("alice", "terces")
    carol, _ = guest(services), guest(services, "erin")
    assert codes(carol.ask(Rename(name))) == [ErrorCode.BAD_USERNAME]
    assert (carol.session.username, services.presence.names()) == ("carol", ("carol", "erin"))
    carol.ask(Rename("CAROL"))
    assert services.presence.names() == ("erin", "CAROL")


# --- what guests may not do ---
NEEDS_ACCOUNT: list[Any] = [
    *(AskAudit(), AskIgnored(), ChangePassword("x", "y"), Ignore("bob")),
    *(Unignore("bob"), Search("x"), *map(any_request, get_args(TokenRequest))),
]


@pytest.mark.parametrize("request_", NEEDS_ACCOUNT, ids=lambda each: type(each).__name__)
def test_guest_needs_an_account_for_the_rest(services: ChatFixture, request_: Any) -> None:
    carol = guest(services)
    (refused,) = carol.ask(request_)
    assert (codes([refused]), "account" in getattr(refused, "reason", "")) == ([ErrorCode.NOT_PERMITTED], True)


@pytest.mark.parametrize("request_", [Delete(10), Report(id=10)])
def test_guest_does_not_act_on_older_messages(services: ChatFixture, request_: Any) -> None:
    """They may be those of an earlier guest of the name, who has the same row."""
    assert codes(guest(services).ask(request_)) == [ErrorCode.UNKNOWN_MESSAGE]


def test_guest_sees_no_history_from_before_its_login(services: ChatFixture) -> None:
    carol = guest(services)
    assert codes(carol.ask(AskHistory())) == [History]
    _, _, _, _, options = services.messages.asked[-1]
    assert options["first_id"] == 11


def test_renamed_guest_is_not_the_earlier_guest_of_the_name(services: ChatFixture) -> None:
    """Promise: it sees no message from before the change, and does not act on one: the row of the name is the same."""
    services.accounts.claim("dora")
    services.accounts.claimed.discard("dora")
    bob, carol = services.connect(), guest(services)
    bob.ask(Login("bob", "secret"))
    bob.ask(Say("hello"))
    (sent,) = (each for each in bob.received() if isinstance(each, Sent))
    carol.ask(Rename("dora"))
    carol.ask(AskHistory())
    assert services.messages.asked[-1][-1]["first_id"] == sent.id + 1
    assert codes(carol.ask(Delete(sent.id))) == [ErrorCode.UNKNOWN_MESSAGE]


# --- the next guest of the name ---
def test_message_to_a_guest_is_not_for_a_later_one(services: ChatFixture) -> None:
    """Promise: a direct message reaches its recipient only."""
    bob = services.connect()
    bob.ask(Login("bob", "secret"))
    first = guest(services)
    services.journal.holds_back = True
    bob.ask(Whisper("carol", "for the first"))
    (entry,) = services.journal.appended
    assert isinstance(entry, DirectEntry)
    assert (entry.recipient_claim, entry.is_waiting) == (1, False)
    first.session.end()
    assert bob.send_queue.replies != []
    second = guest(services)
    services.journal.wait_for_pending()
    assert directs(second) == []


def test_message_of_a_pair_to_a_guest_needs_no_acknowledgement(services: ChatFixture) -> None:
    pair = services.guest("pair")
    carol = guest(services)
    assert codes(pair.sending.ask(Whisper("carol", "psst")))[-1] is Sent
    assert directs(carol) == ["psst"]
