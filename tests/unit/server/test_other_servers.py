"""Users of other servers that share the log, as the sessions of this server meet them."""

import pytest

from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import PublicMessage, Refused, Sent, SentStatus, Welcome
from chatprotocol.requests import Acknowledge, AskUser, AskUsers, Ban, Login, Say, Whisper
from chatserver.chat.presence import RosterChange
from chatserver.chat.room import Member
from chatserver.journal.base import Applied
from chatserver.journal.entries import DirectMessage, GuestClaim, KickFromServer, Moderated, SetServerRole, Stored
from chatserver.store.accounts import Account, Role
from chatserver.store.rooms import LOBBY_ID

from .chat_fixture import ChatFixture, Peer, codes
from .helpers import FakeSendQueue, direct, eventually, in_background, join_hub, must_end, public

ALICE, BOB = "Alice", "bob"
# A guest of another server.
GINA = Account(1_500, "Gina", "", 0, 7)


@pytest.fixture
def services() -> ChatFixture:
    """One of several servers. Bob and the guest Gina are on another one."""
    services = ChatFixture(server="a")
    services.accounts.add(ALICE, "terces", role=Role.OPERATOR)
    services.accounts.add(BOB, "terces")
    services.accounts.elsewhere["gina"] = GINA
    services.presence.change_peer("b", [RosterChange(LOBBY_ID, None, [BOB, GINA.name])])
    return services


@pytest.fixture
def alice(services: ChatFixture) -> Peer:
    return enter(services, ALICE)


def enter(services: ChatFixture, name: str) -> Peer:
    peer = services.connect()
    peer.ask(Login(name, "secret"))
    return peer


def account(services: ChatFixture, name: str) -> Account:
    """The account or the row of a guest of this server."""
    found = services.accounts.find(name) or services.services.guests.find(name)
    assert found is not None
    return found


def bob_elsewhere(services: ChatFixture) -> Member:
    """Bob on the other server, for the messages that he sends there."""
    bob = account(services, BOB)
    return Member(bob.id, bob.name, FakeSendQueue(services.broadcast))


def test_lists_have_the_users_of_all_servers(services: ChatFixture, alice: Peer) -> None:
    assert alice.ask(AskUsers()) == [events.Users(users=(ALICE, BOB, "Gina"))]
    assert alice.ask(AskUser("BOB"), AskUser("gina")) == [events.User(BOB, True), events.User("Gina", True)]
    services.presence.drop_peer("b")
    found, unknown = alice.ask(AskUser("bob"), AskUser("gina"))
    assert found == events.User(BOB, False)
    assert codes([unknown]) == [ErrorCode.UNKNOWN_USER]


def test_highest_number_of_users_counts_those_of_all_servers(services: ChatFixture, alice: Peer) -> None:  # noqa: ARG001
    services.presence.drop_peer("b")
    counts = services.users.counts(unknown=0)
    assert (counts.users, counts.users_max) == (1, 3)


def test_mark_is_not_told_while_the_user_is_on_another_server(services: ChatFixture) -> None:
    """The mark is too old: see Login.join."""
    for is_there in (True, False):
        peer = services.connect()
        (welcome,) = peer.ask(Login(BOB, "secret"))
        assert isinstance(welcome, Welcome)
        assert (welcome.seen_id is None) is is_there
        peer.session.end()
        services.presence.drop_peer("b")


@pytest.mark.parametrize("name", [BOB, "GINA"])
def test_direct_message_to_a_user_of_another_server_is_sent(services: ChatFixture, alice: Peer, name: str) -> None:
    """The message does not count as waiting. After the recipient has left, it is stored, or a guest is unknown."""
    alice.ask(Whisper(name, "hello"))
    sent = alice.received()[-1]
    assert isinstance(sent, Sent)
    assert sent.status is SentStatus.SENT
    ((batch,),) = services.journal.batches
    assert isinstance(batch, DirectMessage)
    assert not batch.is_waiting
    assert (batch.recipient_id, batch.recipient_claim) == ((2, 0) if name == BOB else (GINA.id, GINA.claim))
    services.presence.drop_peer("b")
    refused = alice.ask(Whisper(name, "hello"))
    if name == BOB:
        stored = alice.received()[-1]
        assert isinstance(stored, Sent)
        assert stored.status is SentStatus.STORED
    else:
        assert codes(refused) == [ErrorCode.UNKNOWN_USER]


def test_guest_is_confirmed_when_the_message_is_stored(services: ChatFixture) -> None:
    """The guest acknowledges the message on its own server."""
    carol = services.guest("carol")
    carol.sending.new_replies()
    sent = [Sent(11, SentStatus.SENT), Sent(12, SentStatus.SENT)]
    assert carol.sending.ask(Whisper("gina", "hello"), Say("hello")) == sent


def test_message_for_a_guest_who_leaves_another_server_meanwhile_fails(services: ChatFixture) -> None:
    carol = services.guest("carol")
    carol.sending.new_replies()
    services.journal.holds_back = True
    asked = in_background(lambda: carol.sending.session.handle([Whisper("gina", "hello")]))
    eventually(lambda: services.journal.batches)
    services.presence.drop_peer("b")
    services.journal.wait_for_pending()
    must_end(asked)
    assert codes(carol.sending.new_replies()) == [ErrorCode.INTERNAL]


def test_message_of_another_server_reaches_all_users_here(services: ChatFixture, alice: Peer) -> None:
    """The sender has no connection here. Guests acknowledge the message as usual."""
    carol = services.guest("carol").receiving
    carol.new_replies()
    bob = bob_elsewhere(services)
    services.journal.append([public(bob, "to all")])
    assert alice.received()[-1] == PublicMessage(11, 0, BOB, "to all")
    assert carol.new_replies() == [PublicMessage(11, 0, BOB, "to all")]
    carol.ask(Acknowledge(BOB))
    services.journal.append([direct(bob, account(services, "carol"), "psst")])
    assert carol.new_replies() == [events.DirectMessage(12, events.TimeMs(0), BOB, "carol", "psst")]


def test_user_gets_what_it_sends_on_another_server(services: ChatFixture) -> None:
    bob = enter(services, BOB)
    services.journal.append([direct(bob_elsewhere(services), account(services, ALICE), "from there")])
    assert bob.received()[-1] == events.DirectMessage(11, events.TimeMs(0), BOB, ALICE, "from there")


@pytest.mark.parametrize("name", [BOB, "carol"])
def test_kick_on_another_server_ends_the_connections_here(services: ChatFixture, name: str) -> None:
    peer = enter(services, BOB) if name == BOB else services.guest(name).receiving
    kick = KickFromServer(by_id=1, by=ALICE, account_id=account(services, name).id, username=name)
    services.hub.handle_applied([Applied(kick, Moderated(), None, 0)])
    assert peer.send_queue.is_finished


def test_operator_who_is_made_on_another_server_is_one_here(services: ChatFixture) -> None:
    bob = Member(2, BOB, FakeSendQueue(services.broadcast))
    join_hub(services.users, bob)
    role = SetServerRole(by_id=1, by=ALICE, account_id=2, username=BOB, role=Role.OPERATOR)
    services.hub.handle_applied([Applied(role, Moderated(), None, 0)])
    assert bob.is_operator


def test_guest_of_another_server_is_not_banned_by_an_address(alice: Peer) -> None:
    """Only the other server knows the address."""
    (refused,) = alice.ask(Ban(username="gina"))
    assert isinstance(refused, Refused)
    assert refused.code is ErrorCode.BAD_REQUEST
    assert refused.reason.startswith("Gina is a guest on another server, which alone knows the address: kick Gina, or ")


def test_claims_have_the_name_of_the_server_and_end_with_its_run(services: ChatFixture) -> None:
    claims: list[GuestClaim] = []
    services.journal.when_appended = lambda entry: claims.append(entry) if isinstance(entry, GuestClaim) else None
    carol = services.guest("carol")
    assert claims == [GuestClaim("carol", "a")]
    services.services.guests.end_run("the next run")
    assert carol.sending.send_queue.hangs_up
    assert carol.receiving.send_queue.hangs_up


def test_name_of_a_guest_of_another_server_is_taken(services: ChatFixture) -> None:
    """The log decides, when the guest opens its second connection."""
    services.accounts.claimed.add("gina")
    gina = services.guest("gina")
    assert codes(gina.receiving.send_queue.replies) == [ErrorCode.BAD_USERNAME]
    assert gina.sending.send_queue.hangs_up


def test_refused_or_repeated_message_of_another_server_is_not_told(services: ChatFixture, alice: Peer) -> None:
    for outcome in (OSError("the entry can't be applied"), (Stored(0, 1, 5, is_repeated=True),)):
        services.hub.handle_applied([Applied(public(bob_elsewhere(services), "x"), outcome, None, 0)])
    assert alice.received() == []
