"""The session of a guest's connection: the answers, and what they wait for.

Bytes and numbers of errors are in test_register, names in test_guests, and who is given what and when in test_delivery.
"""

import threading

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    Bye,
    DirectMessage,
    Event,
    PublicMessage,
    SanctionKind,
    Sent,
    SentStatus,
    Welcome,
)
from chatprotocol.requests import Acknowledge, GuestLogin, Request, Say, Side, Whisper
from chatserver.store.moderation import ActiveSanction

from .chat_fixture import ChatFixture, GuestPeers, Peer, codes
from .helpers import assert_waits, eventually, in_background, must_end


@pytest.fixture
def carol(services: ChatFixture) -> GuestPeers:
    return services.guest("carol")


@pytest.fixture
def dave(services: ChatFixture) -> GuestPeers:
    return services.guest("dave")


def ask_in_background(peer: Peer, *requests: Request) -> threading.Thread:
    """Send requests whose answers wait for others."""
    peer.new_replies()
    return in_background(lambda: peer.session.handle(requests))


def take(peer: Peer) -> Event:
    """Wait for the next reply."""
    eventually(lambda: peer.has_new_replies)
    return peer.next()


def test_no_guest_registers_if_guests_are_not_allowed() -> None:
    peer = ChatFixture(guests_allowed=False).connect()
    assert codes(peer.ask(GuestLogin(Side.SENDING, "not a name"))) == [ErrorCode.BAD_USERNAME]
    assert codes(peer.ask(GuestLogin(Side.SENDING, "carol"))) == [ErrorCode.NOT_LOGGED_IN]


def test_login_timeout_ends_with_the_second_registration(services: ChatFixture) -> None:
    sending, receiving = services.connect(), services.connect()
    sending.ask(GuestLogin(Side.SENDING, "carol"))
    assert not sending.session.is_logged_in
    receiving.ask(GuestLogin(Side.RECEIVING, "carol"))
    assert sending.session.is_logged_in
    assert receiving.session.is_logged_in


def test_ban_of_the_address_during_the_login_ends_it(services: ChatFixture) -> None:
    """The ban did not find the guest yet, which had no name. Both of its connections end."""
    sending, receiving = services.connect(), services.connect()
    sending.ask(GuestLogin(Side.SENDING, "carol"))
    services.records.bans_of_address = [None, ActiveSanction(SanctionKind.BAN, None, "")]
    assert codes(receiving.ask(GuestLogin(Side.RECEIVING, "carol"))) == [ErrorCode.BANNED]
    assert not services.services.guests.is_claimed("carol")
    assert sending.send_queue.hangs_up
    assert services.presence.users()[0] == ()


# --- sending ---
def test_reply_comes_after_all_recipients_answered(services: ChatFixture, carol: GuestPeers, dave: GuestPeers) -> None:
    """Requests are answered in order. Answers count on the receiving connection; a recipient may reject a message."""
    erin = services.guest("erin")
    for each in (dave, erin):
        each.receiving.new_replies()
    asked = ask_in_background(carol.sending, Say("hello"), Whisper("nobody", "x"), Whisper("DAVE", "psst"))
    for each in (dave, erin):
        assert take(each.receiving) == PublicMessage(11, 0, "carol", "hello", guest=True)
    for peer in (erin.receiving, dave.sending):
        peer.ask(Acknowledge("carol"))
    assert_waits(asked)
    assert not carol.sending.has_new_replies
    dave.receiving.ask(Acknowledge("carol"))
    assert take(carol.sending) == Sent(11, SentStatus.SENT)
    assert codes([take(carol.sending)]) == [ErrorCode.UNKNOWN_USER]
    assert take(dave.receiving) == DirectMessage(12, 0, "carol", "dave", "psst", guest=True)
    dave.receiving.ask(Acknowledge(None))
    assert codes([take(carol.sending)]) == [ErrorCode.INTERNAL]
    must_end(asked)


def test_messages_wait_for_the_receiving_connection_once(services: ChatFixture, dave: GuestPeers) -> None:
    """The limit counts from the first registration; otherwise a flood of messages would keep half a guest alive."""
    dave.receiving.new_replies()
    erin, erin_in, late = services.connect(), services.connect(), services.connect()
    for peer, name in ((erin, "erin"), (late, "late")):
        peer.ask(GuestLogin(Side.SENDING, name))
    services.now -= 1_000  # the limit is far away
    asked = ask_in_background(erin, Say("hello"))
    assert_waits(asked)
    erin_in.ask(GuestLogin(Side.RECEIVING, "erin"))
    assert take(dave.receiving) == PublicMessage(11, 0, "erin", "hello", guest=True)
    dave.receiving.ask(Acknowledge("erin"))
    must_end(asked)
    services.now += 1_005
    assert codes(late.ask(Say("one"), Say("two"))) == [ErrorCode.NOT_LOGGED_IN] * 2
    assert [batch.texts for batch in services.journal.appended] == [["hello"]]


# --- unsolicited answers get no reply: a reply could make two peers answer each other forever ---
@pytest.mark.parametrize("side", Side)
def test_flood_of_unsolicited_answers_is_disconnected(carol: GuestPeers, side: Side) -> None:
    peer = carol.sending if side is Side.SENDING else carol.receiving
    peer.new_replies()
    with capture_logs() as log:
        assert peer.session.handle([Acknowledge("bob")] * 999)
        assert peer.new_replies() == []
        assert not peer.session.handle([Acknowledge("bob")] * 2)
    assert codes(peer.new_replies()) == [ErrorCode.BAD_REQUEST]
    assert (log[0]["event"], log[0]["user"]) == ("ack ignored", "carol")
    assert (log[-1]["event"], log[-1]["reason"]) == ("disconnected", "unsolicited_acks")


def test_valid_answer_resets_the_count_of_unsolicited_ones(carol: GuestPeers, dave: GuestPeers) -> None:
    """A simple client may answer everything twice."""
    for _ in range(4):
        assert carol.receiving.session.handle([Acknowledge("dave")] * 300)
        carol.receiving.new_replies()
        sent = ask_in_background(dave.sending, Whisper("carol", "hello"))
        take(carol.receiving)
        carol.receiving.ask(Acknowledge("dave"))
        must_end(sent)


# --- shutdown ---
def test_shutdown_waits_for_answers_and_for_nothing_else(
    services: ChatFixture, carol: GuestPeers, dave: GuestPeers
) -> None:
    """Promise: shutdown. A message that waits for its sender's other connection is let go without an answer."""
    half, stranger = services.connect(), services.connect()
    half.ask(GuestLogin(Side.SENDING, "erin"))
    services.now -= 1_000  # the limit is far away
    waiting = ask_in_background(half, Say("hello"))
    dave.receiving.new_replies()
    asked = ask_in_background(carol.sending, Whisper("dave", "hello"))
    take(dave.receiving)
    guests = [*carol, *dave]
    for peer in (*guests, half, stranger):
        peer.session.send_bye()
    must_end(waiting)
    for peer in (half, stranger):
        assert [type(event) for event in peer.new_replies()] == [Bye]
    assert not any(peer.send_queue.is_finished for peer in (carol.sending, dave.receiving))
    dave.receiving.ask(Acknowledge("carol"))
    must_end(asked)
    assert take(carol.sending) == Sent(11, SentStatus.SENT)
    assert all(peer.send_queue.is_finished and not peer.send_queue.hangs_up for peer in guests)


def test_nothing_is_accepted_during_shutdown(services: ChatFixture, carol: GuestPeers) -> None:
    """Promise: shutdown."""
    carol.sending.new_replies()
    services.shut_down()
    assert codes(carol.sending.ask(Say("hello"))) == [ErrorCode.SHUTTING_DOWN]
    sending, receiving = services.connect(), services.connect()
    assert codes(sending.ask(GuestLogin(Side.SENDING, "erin"))) == [Welcome]
    assert codes(receiving.ask(GuestLogin(Side.RECEIVING, "erin"))) == [ErrorCode.SHUTTING_DOWN]


# --- the log; tests/integration/test_server_log.py tests its privacy ---
def test_each_refusal_is_logged(services: ChatFixture, carol: GuestPeers) -> None:
    with capture_logs() as log:
        services.connect().ask(Say("hello"), GuestLogin(Side.RECEIVING, "alice"))
        carol.sending.ask(Whisper("nobody", "hello"))
    assert [(entry["event"], entry["code"], entry["user"]) for entry in log] == [
        ("request refused", "not_logged_in", None),
        ("request refused", "bad_username", None),
        ("request refused", "unknown_user", "carol"),
    ]
