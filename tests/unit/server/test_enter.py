"""Logins in two parts: Authenticate proves who the user is, and Enter brings the user online."""

from typing import Any

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    Authenticated,
    Bye,
    Counts,
    DirectMessage,
    PublicMessage,
    Refused,
    SanctionKind,
    TimeMs,
    Welcome,
)
from chatprotocol.requests import AskHistory, Authenticate, Enter, Leave, Login, Say, Whisper
from chatserver.store.moderation import ActiveSanction

from .chat_fixture import ChatFixture, Peer, codes

ENTER = Enter(username="alice", variant="json")
PROVE = Authenticate(username="ALICE", password="secret")
WRONG = Authenticate(username="alice", password="wrong")
LOGIN = Login("alice", "secret")


def registers(name: str) -> Authenticate:
    return Authenticate(username=name, password="secret", registers=True)


def test_authenticated_user_is_not_online_before_it_enters(services: ChatFixture) -> None:
    """Promise: Authenticate gives nothing but the proof: no message, no place in the list, no request of a user."""
    peer = services.connect()
    assert peer.ask(PROVE) == [Authenticated("Alice")]
    assert services.presence.names() == ()
    assert not peer.session.is_logged_in, "the time limit of logins applies"
    bob = services.connect()
    bob.ask(Login("bob", "secret"), Say("hello"), Whisper("alice", "psst"))
    assert codes(peer.ask(Say("x"), Whisper("bob", "x"), AskHistory())) == [ErrorCode.NOT_LOGGED_IN] * 3
    assert [each for each in peer.received() if isinstance(each, PublicMessage | DirectMessage)] == []
    welcome, _ = peer.ask(ENTER)
    assert isinstance(welcome, Welcome)
    assert (welcome.username, welcome.users, welcome.rooms) == ("Alice", (), None)
    assert services.presence.names() == ("bob", "Alice")
    assert peer.session.is_logged_in
    peer.session.end()
    assert services.presence.names() == ("bob",)


@pytest.mark.parametrize("is_muted", [False, True])
def test_muted_user_describes_itself_with_its_name(services: ChatFixture, *, is_muted: bool) -> None:
    """Promise: others read no words of its own."""
    alice = services.accounts.by_key["alice"]
    if is_muted:
        services.records.silences[alice.id] = ActiveSanction(SanctionKind.MUTE, None, "")
    services.connect().ask(PROVE, Enter(username="alice", variant="json", realname="insults", ident="rude"))
    info = services.services.users.tracking.info("Alice")
    assert (info.realname, info.ident) == (("Alice", "Alice") if is_muted else ("insults", "rude"))


def test_undelivered_direct_messages_follow_the_welcome(services: ChatFixture) -> None:
    missed = DirectMessage(9, TimeMs(0), "bob", "alice", "psst")
    services.messages.stored = (missed,)
    peer = services.connect()
    peer.ask(PROVE)
    assert peer.ask(ENTER)[2:] == [missed]


def test_unknown_name_is_answered_like_a_wrong_password(services: ChatFixture) -> None:
    """Promise: names can't be probed. Both cost one check, and count as tries of the same connection."""
    answers = []
    for name in ("alice", "nobody"):
        (refused,) = services.connect().ask(Authenticate(username=name, password="wrong"))
        assert isinstance(refused, Refused)
        answers.append((refused.code, refused.reason.replace(name, "x")))
    assert answers[0] == answers[1]
    assert answers[0][0] is ErrorCode.WRONG_PASSWORD
    assert services.passwords.checked == [("terces", "wrong"), (None, "wrong")]
    assert services.accounts.find("nobody") is None
    assert services.services.counters.logins == {"wrong_password": 2}


def test_connection_has_three_tries(services: ChatFixture) -> None:
    peer = services.connect()
    wrong = [ErrorCode.WRONG_PASSWORD]
    assert codes(peer.ask(WRONG)) == wrong
    assert codes(peer.ask(Login("alice", "wrong"))) == wrong
    assert codes(peer.ask(Authenticate(username="", token="none"))) == [
        ErrorCode.TOO_MANY_ATTEMPTS,
        Bye,
    ]


def test_token_replaces_the_password(services: ChatFixture) -> None:
    (welcome,) = services.connect().ask(Login("alice", "secret", remember="laptop"))
    assert isinstance(welcome, Welcome)
    assert welcome.token is not None
    peer = services.connect()
    assert peer.ask(Authenticate(username="", token=welcome.token)) == [Authenticated("Alice")]
    assert codes(peer.ask(ENTER)) == [Welcome, Counts]


def test_sessions_without_a_login_are_counted_until_they_end(services: ChatFixture) -> None:
    """Not until their connections end: a client that has read the end of its own would see itself."""

    def unknown() -> int:
        *_, counts = services.connect().ask(PROVE, ENTER)
        assert isinstance(counts, Counts)
        return counts.unknown

    assert unknown() == 0
    silent = services.connect()
    assert unknown() == 1
    silent.session.end()
    assert unknown() == 0
    leaving = services.connect()
    services.connect()
    leaving.ask(Leave())
    assert unknown() == 1, "one that has got its bye counts no longer"
    leaving.session.end()
    assert unknown() == 1, "its end counts once"


# --- registration ---
def test_new_name_is_registered_and_a_known_one_is_refused(services: ChatFixture) -> None:
    peer = services.connect()
    assert peer.ask(registers("Carol")) == [Authenticated("Carol", is_new=True)]
    assert codes(services.connect().ask(registers("carol"))) == [ErrorCode.BAD_USERNAME]
    assert codes(services.connect().ask(registers("ALICE"))) == [ErrorCode.BAD_USERNAME]
    assert services.passwords.checked == []
    assert codes(peer.ask(ENTER)) == [Welcome, Counts]
    assert services.presence.names() == ("Carol",)


@pytest.mark.parametrize(
    ("mode", "name", "code"),
    [
        ("closed", "carol", ErrorCode.NOT_PERMITTED),
        ("closed", "alice", ErrorCode.NOT_PERMITTED),
        ("invite", "carol", ErrorCode.INVITATION_REQUIRED),
        ("open", "root", ErrorCode.INVITATION_REQUIRED),
        ("open", "guest", ErrorCode.BAD_USERNAME),
        ("open", "not a name", ErrorCode.BAD_USERNAME),
    ],
)
def test_registration_keeps_to_its_policy(mode: str, name: str, code: ErrorCode) -> None:
    """A closed server does not say which names are known."""
    services = ChatFixture(registration=mode, operators=["root"])
    services.accounts.add("alice", "terces")
    services.guest("guest")
    assert codes(services.connect().ask(registers(name))) == [code]
    assert services.passwords.hashed == []


def test_registrations_are_limited() -> None:
    services = ChatFixture(registration_limits=(1, 0))
    assert codes(services.connect().ask(registers("carol"))) == [Authenticated]
    assert codes(services.connect().ask(registers("dora"))) == [ErrorCode.RATE_LIMITED]


# --- what keeps a user out ---
def test_banned_account_is_refused_after_its_password(services: ChatFixture) -> None:
    """Promise: a ban holds for both parts. Only who knows the password learns of it."""
    ban = ActiveSanction(SanctionKind.BAN, None, "")
    early = services.connect()
    early.ask(PROVE)
    services.records.banned[1] = ban
    assert codes(services.connect().ask(WRONG)) == [ErrorCode.WRONG_PASSWORD]
    assert codes(services.connect().ask(PROVE)) == [ErrorCode.BANNED]
    assert codes(early.ask(ENTER)) == [ErrorCode.BANNED]
    assert services.presence.names() == ()


@pytest.mark.parametrize("second", [WRONG, ENTER])
def test_banned_address_is_refused(services: ChatFixture, second: Any) -> None:
    """Before its password is checked."""
    ban = ActiveSanction(SanctionKind.BAN, None, "")
    peer = services.connect()
    peer.ask(PROVE)
    services.records.bans_of_address = [ban]
    assert codes(peer.ask(second)) == [ErrorCode.BANNED]


def test_password_that_must_be_changed_is_refused(services: ChatFixture) -> None:
    services.accounts.add("carol", "terces", must_change_password=True)
    prove = Authenticate(username="carol", password="secret")
    assert codes(services.connect().ask(prove)) == [ErrorCode.PASSWORD_CHANGE_REQUIRED]


def test_password_that_was_changed_since_it_was_proved_is_checked_again(services: ChatFixture) -> None:
    peer = services.connect()
    peer.ask(PROVE)
    services.records.changed_hashes[1] = "wen"
    assert codes(peer.ask(ENTER)) == [ErrorCode.WRONG_PASSWORD]
    assert services.presence.names() == ()
    services.records.changed_hashes[1] = "terces"
    services.records.must_change.add(1)
    assert codes(peer.ask(ENTER)) == [ErrorCode.PASSWORD_CHANGE_REQUIRED]
    assert services.presence.names() == ()


def test_new_users_are_refused_while_the_server_is_not_ready(services: ChatFixture) -> None:
    peer: Peer = services.connect()
    peer.ask(PROVE)
    services.refusal = "it is behind"
    assert codes(peer.ask(ENTER, PROVE)) == [ErrorCode.UNAVAILABLE] * 2
