"""The session of a guest's connection with its protocol object, as transcripts: requests, replies, and the end.

Which names are free is tested in test_guests, who is given what and when in test_delivery.
"""

import queue
import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, PublicMessage
from chatprotocol.requests import Acknowledge, GuestLogin, Login, Say, Side, Whisper
from chatprotocol.wire import Register as WireProtocol

from .chat_fixture import ChatFixture, Peer, codes
from .helpers import FakeBroadcast, FakeSendQueue, eventually, in_background, must_end

# Invalid input by name.
INVALID = {
    "(not UTF-8)": b"SEND dave\nContent-length: 6\n\nhello\xff",
    "(unknown word)": b"HELLO\n\n",
    "(no length)": b"SEND dave\n\n",
}


class Connection:
    """One connection of a transcript. A thread passes the requests to its session, as a reader does."""

    def __init__(self, services: ChatFixture) -> None:
        self._protocol = WireProtocol().server()
        self.send_queue = FakeSendQueue(FakeBroadcast("register"))
        self.send_queue.encode = self._protocol.encode
        self._seen = 0
        self.session = services.session(self.send_queue)
        self.has_ended = False
        self._asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._asked_count = self._done_count = 0
        self._thread = in_background(self._read)

    def _read(self) -> None:
        while (asked := self._asked.get()) is not None:
            if not self.has_ended and not self.session.handle(self._protocol.receive(asked)):
                self.has_ended = True
            self._done_count += 1

    def ask(self, *requests: str) -> None:
        """All of them arrive in one read."""
        self._asked_count += 1
        self._asked.put(b"".join(map(bytes_of, requests)))

    @property
    def is_idle(self) -> bool:
        return self._done_count == self._asked_count

    @property
    def has_new_replies(self) -> bool:
        return any(self.send_queue.sent[self._seen :])  # a goodbye has no bytes

    def next(self) -> str:
        eventually(lambda: self.has_new_replies or (self.is_idle and self.send_queue.is_finished))
        if not self.has_new_replies:
            return "(the end)"
        self._seen += 1
        return text_of(self.send_queue.sent[self._seen - 1])

    def close(self) -> None:
        self._asked.put(None)
        must_end(self._thread)


def text_of(data: bytes) -> str:
    """The header, and the body after a colon."""
    header, _, body = data.decode().partition("\n\n")
    return f"{header.partition(chr(10))[0]}: {body}" if body else header


def bytes_of(text: str) -> bytes:
    """The inverse: a request with a colon has a body."""
    if text in INVALID:
        return INVALID[text]
    header, has_body, body = text.partition(":")
    if not has_body:
        return f"{header}\n\n".encode()
    content = body.removeprefix(" ").encode()
    return b"%b\nContent-length: %d\n\n%b" % (header.encode(), len(content), content)


class Transcript:
    """Connections by name, and what is sent on them: ``name> request`` and ``name< reply``.

    Lines or three spaces separate steps. ``name> one | two`` arrives in one read. ``name END`` ends the connection.
    ``name NOTHING``: no reply so far. ``name IDLE`` waits until its requests were handled. At the end of a transcript
    nothing else may have been sent.
    """

    def __init__(self, services: ChatFixture) -> None:
        self.services = services
        self.connections: dict[str, Connection] = {}
        self._is_watched = False

    def __getitem__(self, name: str) -> Connection:
        if name not in self.connections:
            self.connections[name] = Connection(self.services)
        return self.connections[name]

    def time_out_answers(self) -> None:
        """From now on no answer is waited for."""
        self.services.acked_delivery.shorten_timeouts(0.0)
        if not self._is_watched:
            self._is_watched = True
            self.services.acked_delivery.start()

    def play(self, *texts: str) -> None:
        steps = [step.strip() for text in texts for step in re.split(r"\n|   ", text) if step.strip()]
        assert [self._step(step) for step in steps] == steps
        self.must_be_quiet()

    def _step(self, step: str) -> str:
        name, _, rest = step.partition(" ")
        connection = self[name.rstrip("<>")]
        if name.endswith("<"):
            return f"{name} {connection.next()}"
        if name.endswith(">"):
            connection.ask(*rest.split(" | "))
        elif rest == "NOTHING":
            return f"{name} {connection.next() if connection.has_new_replies else rest}"
        else:
            eventually(lambda: connection.is_idle)
            if rest == "END":
                connection.session.end()
        return step

    def must_be_quiet(self) -> None:
        eventually(lambda: all(connection.is_idle for connection in self.connections.values()))
        unread = {name: each.next() for name, each in self.connections.items() if each.has_new_replies}
        assert unread == {}

    def register(self, *names: str) -> None:
        """The connections of bob are called bob and bob.in."""
        for name in names:
            self.play(f"""
                {name}> REGISTER TOSEND {name}   {name}< REGISTERED TOSEND {name}
                {name}.in> REGISTER TORECV {name}   {name}.in< REGISTERED TORECV {name}
                """)

    def shut_down(self) -> None:
        self.services.shut_down()
        for connection in self.connections.values():
            connection.session.send_bye()

    def close(self) -> None:
        self.time_out_answers()
        for connection in self.connections.values():
            connection.session.send_bye()
        for connection in self.connections.values():
            connection.close()
        self.services.acked_delivery.stop()


@pytest.fixture
def new(services: ChatFixture) -> Iterator[Transcript]:
    """No connection is registered. Alice and bob have accounts."""
    with closing(Transcript(services)) as transcript:
        yield transcript


@pytest.fixture
def guests(new: Transcript) -> Transcript:
    """The guests carol and dave."""
    new.register("carol", "dave")
    return new


@pytest.fixture
def alice(services: ChatFixture) -> Peer:
    """A user of json."""
    alice = services.connect()
    alice.ask(Login("alice", "secret"))
    return alice


# --- registration ---
@pytest.mark.parametrize("request_", ["SEND dave: hello", "RECEIVED dave", "ERROR", "(unknown word)", "(not UTF-8)"])
def test_unregistered_connection_may_only_register(new: Transcript, request_: str) -> None:
    new.play(f"""
        x> {request_}   x< ERROR 101 No user registered
        x> {request_} | REGISTER TOSEND carol   x< ERROR 101 No user registered   x< REGISTERED TOSEND carol
        """)


@pytest.mark.parametrize("name", ["", "a b", "ALL", "alice", "ALICE", "CAROL"])
def test_invalid_reserved_and_used_names_are_refused(guests: Transcript, name: str) -> None:
    """Another name may be tried on the same connection."""
    guests.play(f"""
        x> REGISTER TOSEND {name}   x< ERROR 100 Malformed username
        y> REGISTER TORECV {name}   y< ERROR 100 Malformed username
        x> REGISTER TOSEND erin   x< REGISTERED TOSEND erin
        """)


def test_connection_registers_once_and_sends_on_one_side(guests: Transcript) -> None:
    guests.play("""
        carol> REGISTER TOSEND erin | REGISTER TORECV carol   carol< ERROR 100 Malformed username
        carol< ERROR 100 Malformed username
        carol.in> REGISTER TOSEND erin | SEND dave: hello   carol.in< ERROR 100 Malformed username
        carol.in< ERROR 102 Unable to send
        """)
    assert guests.services.journal.appended == []
    assert guests.services.presence.names() == ("carol", "dave")


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


# --- sending ---
def test_reply_comes_after_all_recipients_answered(guests: Transcript) -> None:
    """Names are accepted in any case; the reply repeats the name as it was sent. A recipient may reject a message."""
    guests.register("erin")
    guests.play("""
        carol> SEND DAVE: hello   dave.in< FORWARD carol: hello
        carol NOTHING
        dave.in> RECEIVED CAROL   carol< SEND DAVE
        carol> SEND all: hello   dave.in< FORWARD carol: hello   erin.in< FORWARD carol: hello
        erin.in> RECEIVED carol
        erin.in IDLE
        carol NOTHING
        dave.in> RECEIVED   carol< SEND all
        carol> SEND dave: hello   dave.in< FORWARD carol: hello
        dave.in> ERROR   carol< ERROR 102 Unable to send
        """)


def test_silent_recipient_is_disconnected(guests: Transcript) -> None:
    """Both its connections close, the sender is told, and the name is free."""
    guests.time_out_answers()
    guests.play("""
        carol> SEND dave: hello   dave.in< FORWARD carol: hello   carol< ERROR 102 Unable to send   dave.in< (the end)
        dave> SEND ALL: its reader has not seen the end yet   dave< ERROR 102 Unable to send
        dave.in END   dave< (the end)
        x> REGISTER TOSEND dave   x< REGISTERED TOSEND dave
        """)
    assert guests["dave.in"].send_queue.hangs_up
    assert guests["dave"].send_queue.hangs_up
    assert guests.services.journal.appended[1:] == []


def test_requests_are_answered_in_order(guests: Transcript) -> None:
    guests.play("""
        carol> SEND dave: one | SEND nobody: two | SEND dave: three   dave.in< FORWARD carol: one
        carol NOTHING
        dave.in> RECEIVED carol   carol< SEND dave   carol< ERROR 102 Unable to send   dave.in< FORWARD carol: three
        dave.in> RECEIVED carol   carol< SEND dave
        """)


@pytest.mark.parametrize(
    "request_",
    ["SEND nobody: x", "SEND : x", "SEND dave:  \n", "SEND ALL: " + "\u20ac" * 2_731, "(not UTF-8)", "(unknown word)"],
    ids=lambda request: request[:20],
)
def test_invalid_message_is_refused_and_the_connection_goes_on(guests: Transcript, request_: str) -> None:
    guests["carol"].ask(request_, "SEND carol: hello")
    assert guests["carol"].next() == "ERROR 102 Unable to send"
    assert guests["carol.in"].next() == "FORWARD carol: hello"
    guests.play("carol.in> RECEIVED", "carol< SEND carol")
    assert [batch.texts for batch in guests.services.journal.appended] == [["hello"]]


@pytest.mark.parametrize("name", ["x", "carol", "carol.in"])
def test_unreadable_header_ends_the_connection(guests: Transcript, name: str) -> None:
    """Later requests are not read."""
    refusal = "101 No user registered" if name == "x" else "103 Header incomplete"
    guests.play(f"{name}> (no length) | SEND ALL: hello", f"{name}< ERROR {refusal}")
    assert guests[name].has_ended
    assert guests.services.journal.appended == []


def test_reply_waits_for_the_disk(guests: Transcript) -> None:
    """Promise: confirmed means stored."""
    guests.services.journal.holds_back = True
    guests["carol"].ask("SEND ALL: hello")
    eventually(lambda: guests.services.journal.appended)
    assert not guests["carol"].has_new_replies
    assert not guests["dave.in"].has_new_replies
    guests.services.journal.wait_for_pending()
    guests.play("dave.in< FORWARD carol: hello", "dave.in> RECEIVED carol", "carol< SEND ALL")


def test_message_that_the_disk_refuses_is_not_delivered(guests: Transcript) -> None:
    guests.services.journal.is_full = True
    guests.play("carol> SEND dave: hello", "carol< ERROR 102 Unable to send")


def test_guest_that_leaves_before_the_commit_did_not_receive(guests: Transcript) -> None:
    """An absent account receives the message at its next login; a guest does not come back for it."""
    guests.services.journal.holds_back = True
    guests["carol"].ask("SEND dave: hello")
    eventually(lambda: guests.services.journal.appended)
    guests["dave"].session.end()
    guests.services.journal.wait_for_pending()
    guests.play("carol< ERROR 102 Unable to send", "dave.in< (the end)")


def test_connection_that_ends_is_not_answered(guests: Transcript) -> None:
    """Its peer has too many unread replies."""
    guests["carol"].send_queue.has_room = False
    assert not guests["carol"].session.handle([Say("")])
    assert not guests["carol"].has_new_replies


# --- before the second connection ---
def test_message_waits_for_the_receiving_connection(guests: Transcript) -> None:
    guests.play("""
        x> REGISTER TOSEND erin | SEND dave: hello   x< REGISTERED TOSEND erin
        x NOTHING
        x.in> REGISTER TORECV erin   x.in< REGISTERED TORECV erin   dave.in< FORWARD erin: hello
        dave.in> RECEIVED erin   x< SEND dave
        """)


def test_messages_wait_for_the_receiving_connection_once(new: Transcript) -> None:
    """The limit counts from the first registration; otherwise a flood of messages would keep half a guest alive."""
    new.play("x> REGISTER TOSEND carol", "x< REGISTERED TOSEND carol")
    new.services.now += 5
    new.play("""
        x> SEND ALL: one | SEND ALL: two   x< ERROR 101 No user registered   x< ERROR 101 No user registered
        x.in> REGISTER TORECV carol   x.in< REGISTERED TORECV carol
        x> SEND ALL: three   x< SEND ALL
        """)
    assert [batch.texts for batch in new.services.journal.appended] == [["three"]]


def test_receiving_connection_alone_is_given_nothing(guests: Transcript) -> None:
    guests.play("""
        x.in> REGISTER TORECV erin   x.in< REGISTERED TORECV erin
        x.in> RECEIVED dave | ERROR
        dave> SEND erin: hello   dave< ERROR 102 Unable to send
        """)


# --- receiving ---
@pytest.mark.parametrize("name", ["carol", "carol.in"])
def test_unsolicited_answers_get_no_reply(guests: Transcript, name: str) -> None:
    """A reply could make two peers answer each other forever."""
    with capture_logs() as log:
        guests.play(f"{name}> RECEIVED dave | RECEIVED | ERROR")
    assert [(entry["event"], entry["user"]) for entry in log] == [("ack ignored", "carol")] * 3


def test_answer_counts_on_the_receiving_connection_with_the_right_name(guests: Transcript) -> None:
    guests.play("""
        carol> SEND dave: hello   dave.in< FORWARD carol: hello
        dave> RECEIVED carol | ERROR
        dave IDLE
        dave.in> RECEIVED erin
        dave.in IDLE
        carol NOTHING
        dave.in> RECEIVED carol   carol< SEND dave
        """)


@pytest.mark.parametrize("side", Side)
def test_flood_of_unsolicited_answers_is_disconnected(services: ChatFixture, side: Side) -> None:
    carol = services.guest("carol")
    peer = carol.sending if side is Side.SENDING else carol.receiving
    assert peer.session.handle([Acknowledge("bob")] * 999)
    assert peer.new_replies() == []
    with capture_logs() as log:
        assert not peer.session.handle([Acknowledge("bob")] * 2)
    assert codes(peer.new_replies()) == [ErrorCode.BAD_REQUEST]
    assert [(entry["event"], entry["reason"]) for entry in log] == [("disconnected", "unsolicited_acks")]


def test_valid_answer_resets_the_count_of_unsolicited_ones(services: ChatFixture) -> None:
    """A simple client may answer everything twice."""
    carol, dave = services.guest("carol"), services.guest("dave")
    for _ in range(4):
        assert carol.receiving.session.handle([Acknowledge("dave")] * 300)
        sent = in_background(lambda: dave.sending.ask(Whisper("carol", "hello")))
        eventually(carol.receiving.new_replies)
        carol.receiving.ask(Acknowledge("dave"))
        must_end(sent)


# --- users of other protocols ---
def test_users_of_other_protocols_count_once_stored(guests: Transcript, alice: Peer) -> None:
    """Bob is not online."""
    guests.play("""
        carol> SEND Alice: psst   carol< SEND Alice
        carol> SEND BOB: psst   carol< SEND BOB
        carol> SEND ALL: hello   dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol   carol< SEND ALL
        """)
    assert alice.received() == [DirectMessage(11, 0, "carol", "Alice", "psst"), PublicMessage(13, 0, "carol", "hello")]


# --- the end of a connection ---
@pytest.mark.parametrize(("ends", "other"), [("carol", "carol.in"), ("carol.in", "carol")])
def test_end_of_either_connection_ends_the_guest(guests: Transcript, ends: str, other: str) -> None:
    guests.play(f"""
        {ends} END   {other}< (the end)
        {other}> SEND ALL: hello | RECEIVED dave | ERROR
        dave> SEND carol: hello   dave< ERROR 102 Unable to send
        x> REGISTER TORECV carol   x< REGISTERED TORECV carol
        """)
    assert guests[other].send_queue.hangs_up
    assert guests.services.journal.appended == []
    assert guests.services.presence.names() == ("dave",)


@pytest.mark.parametrize("side", [*Side, None])
def test_timeout_is_told(new: Transcript, side: Side | None) -> None:
    """Without a name and for one connection of a guest it is the login that is late, later an incomplete request."""
    if side is not None:
        new.play(f"x> REGISTER {side} carol", f"x< REGISTERED {side} carol")
    with capture_logs() as log:
        new["x"].session.time_out()
    new.play("x< ERROR 101 No user registered")
    assert "60 s" in log[0]["detail"]
    new.register("dave")
    new["dave"].session.time_out()
    new.play("dave< ERROR 103 Header incomplete")


# --- shutdown ---
def test_shutdown_closes_idle_connections(guests: Transcript) -> None:
    """Promise: shutdown. Registered, half registered and unregistered ones; a waiting message is let go."""
    guests.play("""
        x> REGISTER TOSEND erin   x< REGISTERED TOSEND erin
        y> REGISTER TORECV frank   y< REGISTERED TORECV frank
        z> ERROR   z< ERROR 101 No user registered
        """)
    guests.services.now -= 1_000  # the limit is far away
    guests["x"].ask("SEND ALL: waits for the receiving connection")
    guests.shut_down()
    guests.play("carol< (the end)", "carol.in< (the end)", "x< (the end)", "y< (the end)", "z< (the end)")
    assert not guests["carol"].send_queue.hangs_up, "replies may follow"
    assert guests.services.journal.appended == []


@pytest.mark.parametrize(("answer", "reply"), [("RECEIVED carol", "SEND dave"), ("ERROR", "ERROR 102 Unable to send")])
def test_shutdown_waits_for_answers(guests: Transcript, answer: str, reply: str) -> None:
    """Promise: shutdown. Stored messages are forwarded, and their sender is told."""
    guests["carol"].ask("SEND dave: hello")
    assert guests["dave.in"].next() == "FORWARD carol: hello"
    guests.shut_down()
    assert not guests["carol"].send_queue.is_finished
    assert not guests["dave.in"].send_queue.is_finished
    guests.play(f"""
        dave.in> {answer}   carol< {reply}   carol< (the end)   carol.in< (the end)   dave.in< (the end)
        dave< (the end)
        """)


def test_nothing_is_accepted_during_shutdown(guests: Transcript) -> None:
    """Promise: shutdown."""
    guests.services.shut_down()
    guests.play("""
        carol> SEND ALL: hello   carol< ERROR 102 Unable to send
        x> REGISTER TOSEND erin   x< REGISTERED TOSEND erin
        x.in> REGISTER TORECV erin   x.in< ERROR 101 No user registered
        """)


# --- the log ---
def test_each_refusal_is_logged_without_the_message(guests: Transcript) -> None:
    with capture_logs() as log:
        guests.play("""
            x> SEND dave: pr1vate | REGISTER TORECV alice   x< ERROR 101 No user registered
            x< ERROR 100 Malformed username
            carol> SEND nobody: pr1vate   carol< ERROR 102 Unable to send
            carol.in> SEND dave: pr1vate   carol.in< ERROR 102 Unable to send
            carol> SEND dave: pr1vate   dave.in< FORWARD carol: pr1vate
            dave.in> RECEIVED pr1vate | ERROR   carol< ERROR 102 Unable to send
            """)
    refusals = [entry for entry in log if entry["event"] == "request refused"]
    assert [(entry["code"], entry["user"], entry["detail"]) for entry in refusals] == [
        ("not_logged_in", None, "This connection is not registered; send REGISTER first."),
        ("bad_username", None, "The name alice is in use, or belongs to an account."),
        ("unknown_user", "carol", None),
        ("bad_request", "carol", "This connection is for receiving; send on the other one."),
    ]
    assert "pr1vate" not in str(log)
