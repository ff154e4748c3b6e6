"""The session of a guest's connection: what may be asked on which of the two, and what is answered."""

import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from textwrap import dedent

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, NotDelivered, PublicMessage, Refused, Sent, SentStatus
from chatprotocol.requests import Login, NotReceived, Received, Register, Request, Say, Send, Side, Unreadable, Whisper
from chatprotocol.wire import Register as WireProtocol
from chatserver.chat import guests as guests_module
from chatserver.store.errors import StoreError

from .chat_fixture import ChatFixture, Half, Visitor, codes, secrets_in
from .rooms import eventually, in_background, must_end

# What the decoder says of what it can't read.
UNREADABLE = {
    "(not UTF-8)": Unreadable(ErrorCode.BAD_REQUEST, "The body is not UTF-8; nothing was sent."),
    "(unknown word)": Unreadable(ErrorCode.UNKNOWN_COMMAND, "A header begins with REGISTER, not with 'HELLO'."),
    "(no length)": Unreadable(ErrorCode.BAD_REQUEST, "There is no Content-length.", closes=True),
}
FAR_AWAY = "10.0.0.2"


class Line:
    """One connection of a script: a thread asks its session what the script says, as its reader does."""

    def __init__(self, half: Half) -> None:
        self.half = half
        self._asked: queue.SimpleQueue[Sequence[Request] | None] = queue.SimpleQueue()
        # What has been asked, and what of that is answered or passed over.
        self._count = 0
        self._done = 0
        self.has_ended = False
        self._thread = in_background(self._read)

    def _read(self) -> None:
        while (asked := self._asked.get()) is not None:
            if not self.has_ended and not self.half.session.handle(asked):
                self.has_ended = True
            self._done += 1

    def ask(self, *requests: Request) -> None:
        self._count += 1
        self._asked.put(requests)

    @property
    def is_idle(self) -> bool:
        return self._done == self._count

    def hear(self) -> str:
        """The next that it is told."""
        eventually(lambda: self.half.has_news or (self.is_idle and self.half.send_queue.is_finished))
        return shown(self.half.next()) if self.half.has_news else "(the end)"

    def close(self) -> None:
        self._asked.put(None)
        must_end(self._thread)


def shown(event: Event) -> str:
    """The header, and the body behind a colon."""
    header, _, body = WireProtocol().encode(event).decode().partition("\n\n")
    return f"{header.partition(chr(10))[0]}: {body}" if body else header


def read(text: str) -> Request:
    """A request as it is written in scripts."""
    if text in UNREADABLE:
        return UNREADABLE[text]
    word, _, rest = text.partition(" ")
    name, _, body = rest.partition(":")
    match word:
        case "REGISTER":
            side, _, name = rest.partition(" ")
            return Register(Side(side), name)
        case "SEND":
            return Send(name, body.removeprefix(" "))
        case "RECEIVED":
            return Received(rest)
        case "ERROR":
            return NotReceived()
    raise ValueError(text)


class Stage:
    """Where scripts are played: ``name> request``, ``name< what it is told``. Each name is a connection.

    What ``|`` joins comes in one read. ``name END`` is the end of its peer. ``name NOTHING`` says that it was told
    nothing yet, ``name IDLE`` waits until all that it asked was looked at. Whoever begins with ``far`` has another
    address than the rest. When a script has ended, nobody may have been told anything else.
    """

    def __init__(self, services: ChatFixture) -> None:
        self.services = services
        self.lines: dict[str, Line] = {}
        self._is_watched = False

    def watch(self) -> None:
        """From now on who is late is disconnected, and nobody is waited for."""
        self.services.acked_delivery.hurry(0.0)
        if not self._is_watched:
            self._is_watched = True
            self.services.acked_delivery.start()

    def line(self, name: str) -> Line:
        if name not in self.lines:
            self.lines[name] = Line(self.services.half(FAR_AWAY) if name.startswith("far") else self.services.half())
        return self.lines[name]

    def play(self, script: str) -> None:
        steps = [step.strip() for step in dedent(script).strip().splitlines()]
        transcript = [self._step(step) for step in steps]
        assert transcript == steps
        self.must_be_quiet()

    def _step(self, step: str) -> str:
        name, _, rest = step.partition(" ")
        line = self.line(name.rstrip("<>"))
        if name.endswith("<"):
            return f"{name} {line.hear()}"
        if name.endswith(">"):
            line.ask(*(read(text) for text in rest.split(" | ")))
        elif rest == "NOTHING":
            return f"{name} {line.hear() if line.half.has_news else rest}"
        else:
            eventually(lambda: line.is_idle)
            if rest == "END":
                line.half.session.end()
        return step

    def must_be_quiet(self) -> None:
        """Everything that was asked is answered, and nobody was told more than the script says."""
        eventually(lambda: all(line.is_idle for line in self.lines.values()))
        assert {name: line.hear() for name, line in self.lines.items() if line.half.has_news} == {}

    def register(self, *names: str) -> None:
        """Guests who are here: the connections of bob are called bob and bob.in."""
        for name in names:
            self.play(f"""
                {name}> REGISTER TOSEND {name}
                {name}< REGISTERED TOSEND {name}
                {name}.in> REGISTER TORECV {name}
                {name}.in< REGISTERED TORECV {name}
                """)

    def close(self) -> None:
        self.watch()  # whoever still waits for an answer waits no more
        for line in self.lines.values():
            line.half.session.send_bye()
        for line in self.lines.values():
            line.close()
        self.services.acked_delivery.stop()


@pytest.fixture
def stage(services: ChatFixture) -> Iterator[Stage]:
    """The watcher rests: nobody is late."""
    with ExitStack() as stack:
        stage = Stage(services)
        stack.callback(stage.close)
        yield stage


@pytest.fixture
def guests(stage: Stage) -> Stage:
    """Carol and dave are here."""
    stage.register("carol", "dave")
    return stage


# --- before the registration ---


@pytest.mark.parametrize(
    "request_",
    ["SEND dave: hello", "SEND ALL: hello", "RECEIVED dave", "ERROR", "(unknown word)", "(not UTF-8)"],
)
def test_who_is_not_registered_is_told_so_whatever_it_asks_and_may_register(stage: Stage, request_: str) -> None:
    stage.play(f"""
        x> {request_}
        x< ERROR 101 No user registered
        x> {request_} | REGISTER TOSEND carol
        x< ERROR 101 No user registered
        x< REGISTERED TOSEND carol
        """)


def test_what_cannot_be_read_any_further_ends_a_connection_that_is_not_registered(stage: Stage) -> None:
    stage.play("""
        x> (no length)
        x< ERROR 101 No user registered
        """)
    assert stage.line("x").has_ended


@pytest.mark.parametrize("name", ["", "a b", "x" * 33, "all", "ALL", "Server", "\u00e4", "alice", "ALICE", "bob"])
@pytest.mark.parametrize("side", Side)
def test_a_malformed_a_reserved_and_an_accounts_name_are_refused_and_another_may_be_tried(
    stage: Stage, side: Side, name: str
) -> None:
    stage.play(f"""
        x> REGISTER {side} {name}
        x< ERROR 100 Malformed username
        x> REGISTER {side} carol
        x< REGISTERED {side} carol
        """)


@pytest.mark.parametrize("side", Side)
def test_a_name_that_a_guest_has_is_refused_and_another_may_be_tried(guests: Stage, side: Side) -> None:
    guests.play(f"""
        x> REGISTER {side} CAROL
        x< ERROR 100 Malformed username
        far> REGISTER {side} carol
        far< ERROR 100 Malformed username
        far> REGISTER {side} erin
        far< REGISTERED {side} erin
        """)


def test_the_second_connection_has_to_come_from_the_same_address(stage: Stage) -> None:
    stage.play("""
        x> REGISTER TOSEND carol
        x< REGISTERED TOSEND carol
        far> REGISTER TORECV carol
        far< ERROR 100 Malformed username
        x.in> REGISTER TORECV carol
        x.in< REGISTERED TORECV carol
        """)


@pytest.mark.parametrize("name", ["carol", "erin", "not a name"])
def test_a_connection_is_registered_once(guests: Stage, name: str) -> None:
    guests.play(f"""
        carol> REGISTER TOSEND {name}
        carol< ERROR 100 Malformed username
        carol> REGISTER TORECV {name}
        carol< ERROR 100 Malformed username
        carol.in> REGISTER TOSEND {name}
        carol.in< ERROR 100 Malformed username
        """)
    assert guests.services.presence.names() == ("carol", "dave")


def test_a_name_is_answered_as_it_was_spelled(stage: Stage) -> None:
    stage.play("""
        x> REGISTER TORECV Carol
        x< REGISTERED TORECV Carol
        y> REGISTER TOSEND cAROL
        y< REGISTERED TOSEND cAROL
        """)
    assert stage.services.presence.names() == ("Carol",)


def test_where_guests_are_not_let_in_a_good_name_is_refused_too() -> None:
    half = ChatFixture(guests_allowed=False).half()

    assert [shown(event) for event in half.ask(Register(Side.SENDING, "not a name"))] == [
        "ERROR 100 Malformed username"
    ]
    assert [shown(event) for event in half.ask(Register(Side.SENDING, "carol"))] == ["ERROR 101 No user registered"]
    assert not half.session.is_logged_in


def test_a_disk_that_refuses_lets_nobody_in_and_the_connection_may_try_again(stage: Stage) -> None:
    stage.services.journal.fault = OSError("disk full")
    stage.play("""
        x> REGISTER TOSEND carol
        x< REGISTERED TOSEND carol
        x.in> REGISTER TORECV carol
        x.in< ERROR 101 No user registered
        x< (the end)
        """)
    stage.services.journal.fault = None
    stage.play("""
        x.in> REGISTER TORECV carol
        x.in< REGISTERED TORECV carol
        """)


def test_who_has_both_connections_is_logged_in_on_both(services: ChatFixture) -> None:
    """From then on each may be silent for as long as it likes."""
    sending, receiving = services.half(), services.half()
    sending.ask(Register(Side.SENDING, "carol"))
    assert not sending.session.is_logged_in
    receiving.ask(Register(Side.RECEIVING, "carol"))
    assert sending.session.is_logged_in
    assert receiving.session.is_logged_in
    receiving.session.end()
    assert not sending.session.is_logged_in


# --- sending ---


def test_the_answer_comes_when_the_receiver_has_answered(guests: Stage) -> None:
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


@pytest.mark.parametrize("answer", ["RECEIVED carol", "RECEIVED CAROL", "RECEIVED"])
@pytest.mark.parametrize("to", ["dave", "Dave", "DAVE"])
def test_names_are_good_in_any_case_and_the_receivers_name_is_answered_as_it_was_sent(
    guests: Stage, to: str, answer: str
) -> None:
    guests.play(f"""
        carol> SEND {to}: hello
        dave.in< FORWARD carol: hello
        dave.in> {answer}
        carol< SEND {to}
        """)


@pytest.mark.parametrize("everybody", ["ALL", "all", "All"])
def test_a_message_to_all_has_one_answer_when_everybody_has_it(guests: Stage, everybody: str) -> None:
    guests.register("erin")
    guests.play(f"""
        carol> SEND {everybody}: hello
        dave.in< FORWARD carol: hello
        erin.in< FORWARD carol: hello
        erin.in> RECEIVED carol
        erin.in IDLE
        carol NOTHING
        dave.in> RECEIVED carol
        carol< SEND {everybody}
        """)


def test_a_receiver_that_cannot_read_it_fails_the_message_and_stays(guests: Stage) -> None:
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        dave.in> ERROR
        carol< ERROR 102 Unable to send
        carol> SEND dave: again
        dave.in< FORWARD carol: again
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


def test_the_first_who_fails_settles_the_answer(guests: Stage) -> None:
    guests.register("erin")
    guests.play("""
        carol> SEND ALL: hello
        dave.in< FORWARD carol: hello
        erin.in< FORWARD carol: hello
        dave.in> ERROR
        carol< ERROR 102 Unable to send
        erin.in> RECEIVED carol
        """)


def test_a_receiver_that_leaves_fails_the_message(guests: Stage) -> None:
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        dave.in END
        carol< ERROR 102 Unable to send
        dave< (the end)
        """)


def test_a_receiver_that_does_not_answer_in_time_is_disconnected(guests: Stage) -> None:
    """Both its connections are, and the sender is told."""
    guests.watch()
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        carol< ERROR 102 Unable to send
        dave.in< (the end)
        dave.in END
        dave< (the end)
        x> REGISTER TOSEND dave
        x< REGISTERED TOSEND dave
        """)
    assert guests.line("dave.in").half.send_queue.hangs_up
    assert guests.line("dave").half.send_queue.hangs_up


def test_requests_behind_a_message_are_answered_behind_its_answer(guests: Stage) -> None:
    guests.play("""
        carol> SEND dave: one | SEND dave: two | SEND nobody: three
        dave.in< FORWARD carol: one
        dave.in> RECEIVED carol
        carol< SEND dave
        dave.in< FORWARD carol: two
        dave.in> RECEIVED carol
        carol< SEND dave
        carol< ERROR 102 Unable to send
        """)


def test_a_receiver_is_given_one_message_at_a_time(guests: Stage) -> None:
    guests.register("erin")
    guests.play("""
        carol> SEND dave: one
        dave.in< FORWARD carol: one
        erin> SEND ALL: two
        carol.in< FORWARD erin: two
        carol.in> RECEIVED erin
        carol.in IDLE
        dave.in NOTHING
        erin NOTHING
        dave.in> RECEIVED carol
        carol< SEND dave
        dave.in< FORWARD erin: two
        dave.in> RECEIVED erin
        erin< SEND ALL
        """)


def test_two_who_send_to_each_other_at_once_both_get_an_answer(guests: Stage) -> None:
    """Promise: nobody waits for ever."""
    guests.play("""
        carol> SEND dave: one
        dave> SEND carol: two
        dave.in< FORWARD carol: one
        carol.in< FORWARD dave: two
        carol.in> RECEIVED dave
        dave< SEND carol
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


def test_a_message_to_oneself_comes(guests: Stage) -> None:
    guests.play("""
        carol> SEND carol: note
        carol.in< FORWARD carol: note
        carol.in> RECEIVED carol
        carol< SEND carol
        """)


def test_a_message_to_all_where_nobody_else_is_has_come(stage: Stage) -> None:
    stage.register("carol")
    stage.play("""
        carol> SEND ALL: hello
        carol< SEND ALL
        """)


@pytest.mark.parametrize(
    "request_",
    [
        "SEND nobody: hello",
        "SEND : hello",
        "SEND server: hello",
        "SEND dave: ",
        "SEND dave:  \n",
        "SEND ALL:  \n",
        "SEND dave: " + "x" * 8_193,
        "SEND dave: " + "\u20ac" * 2_731,
        "(not UTF-8)",
        "(unknown word)",
    ],
    ids=lambda request: request[:20],
)
def test_what_cannot_be_sent_is_refused_reaches_nobody_and_the_connection_goes_on(guests: Stage, request_: str) -> None:
    guests.line("carol").ask(read(request_))
    assert guests.line("carol").hear() == "ERROR 102 Unable to send"
    guests.must_be_quiet()
    assert guests.services.journal.appended == []
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


def test_the_longest_message_is_sent(guests: Stage) -> None:
    text = "x" * 8_192
    guests.play(f"""
        carol> SEND dave: {text}
        dave.in< FORWARD carol: {text}
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


def test_a_message_that_the_disk_refuses_is_not_delivered(guests: Stage) -> None:
    guests.services.journal.disk_refuses = Refused(ErrorCode.INTERNAL, "The disk is full.")
    guests.play("""
        carol> SEND dave: hello
        carol< ERROR 102 Unable to send
        """)


def test_the_answer_waits_for_the_disk(guests: Stage) -> None:
    """Promise: confirmed means stored."""
    guests.services.journal.holds_back = True
    guests.line("carol").ask(read("SEND ALL: hello"))
    eventually(lambda: guests.services.journal.appended)
    assert not guests.line("carol").half.has_news
    assert not guests.line("dave.in").half.has_news
    guests.services.journal.wait_for_pending()
    guests.play("""
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol
        carol< SEND ALL
        """)


def test_while_accounts_cannot_be_read_nothing_is_sent(guests: Stage) -> None:
    def fail(_: str) -> None:
        raise StoreError("disk I/O error")

    guests.services.accounts.find = fail  # type: ignore[method-assign, assignment]
    guests.play("""
        carol> SEND dave: hello
        carol< ERROR 102 Unable to send
        """)


def test_what_cannot_be_read_any_further_ends_the_connection(guests: Stage) -> None:
    guests.play("""
        carol> (no length)
        carol< ERROR 103 Header incomplete
        dave.in> (no length)
        dave.in< ERROR 103 Header incomplete
        """)
    assert guests.line("carol").has_ended
    assert guests.line("dave.in").has_ended


def test_behind_what_cannot_be_read_any_further_nothing_is_answered(guests: Stage) -> None:
    guests.play("""
        carol> SEND ALL:  | (no length) | SEND ALL: hello
        carol< ERROR 102 Unable to send
        carol< ERROR 103 Header incomplete
        """)
    assert guests.services.journal.appended == []


def test_nothing_is_answered_once_the_connection_has_ended(guests: Stage) -> None:
    guests.line("carol").half.send_queue.has_room = False

    assert not guests.line("carol").half.session.handle([Send("ALL", "hello")])
    assert guests.services.journal.appended == []


# --- before the second connection ---


def test_a_message_before_the_receiving_connection_is_there_waits_for_it(stage: Stage) -> None:
    stage.register("dave")
    stage.play("""
        x> REGISTER TOSEND carol | SEND dave: hello
        x< REGISTERED TOSEND carol
        x.in> REGISTER TORECV carol
        x.in< REGISTERED TORECV carol
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol
        x< SEND dave
        """)


def test_a_message_waits_no_longer_than_it_may_for_the_receiving_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests_module, "_SECOND_HALF_SECONDS", 0.0)
    stage.play("""
        x> REGISTER TOSEND carol | SEND ALL: hello
        x< REGISTERED TOSEND carol
        x< ERROR 101 No user registered
        """)
    assert stage.services.journal.appended == []
    stage.play("""
        x.in> REGISTER TORECV carol
        x.in< REGISTERED TORECV carol
        x> SEND ALL: hello
        x< SEND ALL
        """)


def test_all_messages_together_wait_for_the_receiving_connection_no_longer_than_one(
    services: ChatFixture,
) -> None:
    """Else half a guest that sends and sends would stay for as long as it likes."""
    half = services.half()
    half.ask(Register(Side.SENDING, "carol"))
    guest = half.session._guest
    assert guest is not None
    assert 0 < guest._wait_until - time.monotonic() <= 5
    guest._wait_until = time.monotonic()

    refused = half.ask(*[Send("ALL", "hello")] * 3)
    assert codes(refused) == [ErrorCode.NOT_LOGGED_IN] * 3


def test_a_receiving_connection_alone_is_given_nothing_and_its_answers_are_passed_over(stage: Stage) -> None:
    stage.register("dave")
    stage.play("""
        x.in> REGISTER TORECV carol
        x.in< REGISTERED TORECV carol
        x.in> RECEIVED dave
        x.in> ERROR
        dave> SEND ALL: hello
        dave< SEND ALL
        dave> SEND carol: hello
        dave< ERROR 102 Unable to send
        """)


# --- receiving ---


def test_nothing_is_sent_on_the_receiving_connection(guests: Stage) -> None:
    guests.play("""
        carol.in> SEND dave: hello
        carol.in< ERROR 102 Unable to send
        """)
    assert guests.services.journal.appended == []


@pytest.mark.parametrize("name", ["carol", "carol.in"])
@pytest.mark.parametrize("answer", ["RECEIVED dave", "RECEIVED", "ERROR"])
def test_an_answer_that_nobody_waits_for_is_passed_over_and_logged(guests: Stage, name: str, answer: str) -> None:
    """To answer it would make two peers answer each other for ever."""
    with capture_logs() as log:
        guests.play(f"{name}> {answer}")

    (entry,) = log
    assert (entry["event"], entry["user"]) == ("ack ignored", "carol")


@pytest.mark.parametrize("answer", ["RECEIVED dave", "ERROR"])
def test_an_answer_on_the_sending_connection_is_none(guests: Stage, answer: str) -> None:
    guests.play(f"""
        dave> SEND carol: hello
        carol.in< FORWARD dave: hello
        carol> {answer}
        carol IDLE
        dave NOTHING
        carol.in> RECEIVED dave
        dave< SEND carol
        """)


def test_an_answer_with_another_senders_name_is_passed_over(guests: Stage) -> None:
    guests.play("""
        carol> SEND dave: hello
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED erin
        dave.in IDLE
        carol NOTHING
        dave.in> RECEIVED carol
        carol< SEND dave
        """)


# --- other dialects ---


@pytest.fixture
def alice(services: ChatFixture) -> Visitor:
    """One with an account, who is here."""
    alice = services.visitor()
    alice.ask(Login("alice", "secret"))
    return alice


def test_users_of_other_dialects_count_once_it_is_stored(guests: Stage, alice: Visitor) -> None:
    guests.play("""
        carol> SEND Alice: psst
        carol< SEND Alice
        carol> SEND ALL: hello
        dave.in< FORWARD carol: hello
        dave.in> RECEIVED carol
        carol< SEND ALL
        """)
    assert alice.heard() == [
        DirectMessage(11, 0, "carol", "Alice", "psst"),
        PublicMessage(12, 0, "carol", "hello"),
    ]


def test_a_message_to_an_account_that_is_not_here_is_stored_and_counts(guests: Stage) -> None:
    guests.play("""
        carol> SEND BOB: psst
        carol< SEND BOB
        """)
    (batch,) = guests.services.journal.appended
    assert batch.recipient == guests.services.accounts.find("bob")


def test_guests_are_given_what_users_of_other_dialects_say(guests: Stage, alice: Visitor) -> None:
    alice.ask(Say("hello"), Whisper("CAROL", "psst"))
    assert alice.heard() == [Sent(11, SentStatus.SENT), Sent(12, SentStatus.SENT, looks_public=True)]
    guests.play("""
        carol.in< FORWARD Alice: hello
        dave.in< FORWARD Alice: hello
        carol.in> RECEIVED alice
        carol.in< FORWARD Alice: psst
        dave.in> RECEIVED alice
        carol.in> RECEIVED
        """)


def test_a_guest_who_goes_before_the_message_is_stored_did_not_get_it(guests: Stage) -> None:
    """An account that is away gets it at its next login; a guest does not come back for it."""
    guests.services.journal.holds_back = True
    guests.line("carol").ask(read("SEND dave: hello"))
    eventually(lambda: guests.services.journal.appended)
    guests.line("dave").half.session.end()
    guests.services.journal.wait_for_pending()
    guests.play("""
        carol< ERROR 102 Unable to send
        dave.in< (the end)
        """)


# --- the end ---


@pytest.mark.parametrize("ends", ["carol", "carol.in"])
def test_with_the_end_of_either_connection_the_guest_has_gone(guests: Stage, ends: str) -> None:
    other = "carol" if ends == "carol.in" else "carol.in"
    guests.play(f"""
        {ends} END
        {other}< (the end)
        dave> SEND carol: hello
        dave< ERROR 102 Unable to send
        x> REGISTER TORECV carol
        x< REGISTERED TORECV carol
        """)
    assert guests.line(other).half.send_queue.hangs_up
    assert guests.services.presence.names() == ("dave",)


@pytest.mark.parametrize("ends", ["carol", "carol.in"])
def test_what_is_asked_on_the_other_connection_after_the_end_has_no_answer(guests: Stage, ends: str) -> None:
    other = guests.line("carol" if ends == "carol.in" else "carol.in")
    guests.line(ends).half.session.end()
    other.ask(read("SEND ALL: hello"), read("RECEIVED dave"), read("ERROR"))
    eventually(lambda: other.is_idle)

    assert not other.half.has_news
    assert guests.services.journal.appended == []


def test_a_stranger_who_goes_has_nothing_to_leave(stage: Stage) -> None:
    stage.play("""
        x> REGISTER TOSEND not a name
        x< ERROR 100 Malformed username
        x END
        """)
    assert stage.services.times_empty == 0


def test_the_end_of_the_receiving_connection_lets_a_sender_go_that_waits_for_answers(guests: Stage) -> None:
    """Promise: nobody waits for ever."""
    guests.line("carol").ask(read("SEND dave: hello"))
    assert guests.line("dave.in").hear() == "FORWARD carol: hello"
    guests.line("carol.in").half.session.end()
    eventually(lambda: guests.line("carol").is_idle)
    guests.line("dave.in").ask(read("RECEIVED carol"))
    guests.must_be_quiet()


def test_the_end_of_the_receiving_connection_lets_a_sender_go_that_waits_for_it(stage: Stage) -> None:
    stage.play("""
        x> REGISTER TOSEND carol
        x< REGISTERED TOSEND carol
        """)
    stage.line("x").ask(read("SEND ALL: hello"))
    guest = stage.line("x").half.session._guest
    assert guest is not None
    stage.services.services.guests.leave(stage.services.services, guest, Side.RECEIVING)
    stage.play("x< (the end)")
    assert stage.services.journal.appended == []


@pytest.mark.parametrize("side", Side)
def test_one_connection_alone_has_the_time_to_log_in(stage: Stage, side: Side) -> None:
    stage.play(f"""
        x> REGISTER {side} carol
        x< REGISTERED {side} carol
        """)
    with capture_logs() as log:
        stage.line("x").half.session.time_out()
    stage.play("x< ERROR 101 No user registered")
    assert "60 s" in log[0]["detail"]


def test_a_stranger_has_the_time_to_log_in(services: ChatFixture) -> None:
    half = services.half()
    half.session.time_out()

    assert [shown(event) for event in half.news()] == ["ERROR 101 No user registered"]


@pytest.mark.parametrize("name", ["carol", "carol.in"])
def test_who_leaves_something_unfinished_is_told_that_it_is_incomplete(guests: Stage, name: str) -> None:
    guests.line(name).half.session.time_out()
    guests.play(f"{name}< ERROR 103 Header incomplete")


# --- the server ends ---


def say_bye(stage: Stage, *names: str) -> None:
    stage.services.shut_down()
    for name in names or stage.lines:
        stage.line(name).half.session.send_bye()


def test_a_server_that_shuts_down_closes_both_connections_without_a_word(guests: Stage) -> None:
    """Promise: shutdown."""
    say_bye(guests)
    guests.play("""
        carol< (the end)
        carol.in< (the end)
        """)
    assert not guests.line("carol").half.send_queue.hangs_up, "the peer may still be told what is due"


@pytest.mark.parametrize("name", ["x", "x.in", "stranger"])
def test_a_server_that_shuts_down_closes_who_is_not_here_yet(stage: Stage, name: str) -> None:
    stage.play("""
        x> REGISTER TOSEND carol
        x< REGISTERED TOSEND carol
        x.in> REGISTER TORECV dave
        x.in< REGISTERED TORECV dave
        """)
    stage.line("stranger")
    say_bye(stage, name)
    stage.play(f"{name}< (the end)")


@pytest.mark.parametrize(("answer", "told"), [("RECEIVED carol", "SEND dave"), ("ERROR", "ERROR 102 Unable to send")])
def test_a_server_that_shuts_down_waits_for_the_answer_and_tells_the_sender(
    guests: Stage, answer: str, told: str
) -> None:
    """Promise: shutdown. What was stored is forwarded, and its sender gets its answer."""
    guests.line("carol").ask(read("SEND dave: hello"))
    assert guests.line("dave.in").hear() == "FORWARD carol: hello"
    say_bye(guests)
    assert not guests.line("carol").half.send_queue.is_finished
    assert not guests.line("dave.in").half.send_queue.is_finished
    guests.play(f"""
        dave.in> {answer}
        carol< {told}
        carol< (the end)
        carol.in< (the end)
        dave.in< (the end)
        dave< (the end)
        """)


def test_a_server_that_shuts_down_waits_no_longer_than_it_may(guests: Stage) -> None:
    """Promise: shutdown within 8 s."""
    guests.line("carol").ask(read("SEND dave: hello"))
    assert guests.line("dave.in").hear() == "FORWARD carol: hello"
    say_bye(guests)
    guests.watch()
    guests.play("""
        carol< ERROR 102 Unable to send
        carol< (the end)
        dave.in< (the end)
        """)
    eventually(lambda: all(line.half.send_queue.is_finished for line in guests.lines.values()))


def test_while_the_server_shuts_down_nothing_is_accepted(guests: Stage) -> None:
    """Promise: shutdown."""
    guests.services.shut_down()
    guests.play("""
        carol> SEND ALL: hello
        carol< ERROR 102 Unable to send
        x> REGISTER TOSEND erin
        x< REGISTERED TOSEND erin
        x.in> REGISTER TORECV erin
        x.in< ERROR 101 No user registered
        """)


def test_a_message_that_waits_for_the_receiving_connection_is_let_go_when_the_server_shuts_down(stage: Stage) -> None:
    """Promise: shutdown within 8 s."""
    stage.play("""
        x> REGISTER TOSEND carol
        x< REGISTERED TOSEND carol
        """)
    stage.line("x").ask(read("SEND ALL: hello"))
    say_bye(stage)
    stage.play("x< (the end)")


@pytest.mark.parametrize("side", Side)
def test_who_answers_and_answers_though_nobody_waits_is_disconnected(services: ChatFixture, side: Side) -> None:
    """Such answers cost their sender nothing, for nothing answers them."""
    carol = services.guest("carol")
    half = carol.sending if side is Side.SENDING else carol.receiving
    assert half.session.handle([Received("bob")] * 999)
    assert half.news() == []
    with capture_logs() as log:
        assert not half.session.handle([Received("bob")] * 2)
    assert codes(half.news()) == [ErrorCode.BAD_REQUEST]
    assert [(entry["event"], entry["reason"]) for entry in log] == [("disconnected", "unsolicited_acks")]


def test_an_answer_that_somebody_waits_for_lets_surplus_ones_be_forgotten(services: ChatFixture) -> None:
    """A simple client that answers twice is as good as any."""
    carol, dave = services.guest("carol"), services.guest("dave")
    for _ in range(4):
        carol.receiving.ask(*[Received("dave")] * 300)
        sent = in_background(lambda: dave.sending.ask(Send("carol", "hello")))
        eventually(carol.receiving.news)
        carol.receiving.ask(Received("dave"))
        must_end(sent)

    assert not carol.receiving.send_queue.is_finished


def test_who_was_given_up_sends_nothing_more(services: ChatFixture) -> None:
    """Its reader has not seen the end yet."""
    carol = services.guest("carol")
    guest = carol.sending.session._guest
    assert guest is not None
    assert guest.window is not None
    services.acked_delivery.close(guest.window)

    assert carol.sending.ask(Send("ALL", "hello")) == [NotDelivered()]
    assert services.journal.appended == []


# --- the log ---


def test_no_message_is_ever_logged(guests: Stage) -> None:
    with capture_logs() as log:
        guests.play("""
            carol> SEND nobody: pr1vate | SEND ALL:
            carol< ERROR 102 Unable to send
            carol< ERROR 102 Unable to send
            x> SEND dave: pr1vate
            x< ERROR 101 No user registered
            carol.in> SEND dave: pr1vate
            carol.in< ERROR 102 Unable to send
            carol> SEND dave: pr1vate
            dave.in< FORWARD carol: pr1vate
            dave.in> RECEIVED pr1vate
            dave.in> ERROR
            carol< ERROR 102 Unable to send
            """)

    assert len(log) >= 5
    assert list(secrets_in(log, "pr1vate")) == []


def test_each_refusal_is_one_line_with_its_reason_and_user(stage: Stage) -> None:
    with capture_logs() as log:
        stage.play("""
            x> ERROR
            x< ERROR 101 No user registered
            x> REGISTER TORECV alice
            x< ERROR 100 Malformed username
            x> REGISTER TORECV carol
            x< REGISTERED TORECV carol
            x> SEND ALL: hello
            x< ERROR 102 Unable to send
            """)

    assert [(entry["event"], entry["code"], entry["user"], entry["detail"]) for entry in log] == [
        ("request refused", "not_logged_in", None, "This connection is not registered; send REGISTER first."),
        ("request refused", "bad_username", None, "The name alice is in use, or belongs to an account."),
        ("request refused", "bad_request", "carol", "This connection is for receiving; send on the other one."),
    ]


def test_one_connection_cannot_fill_the_disk_with_the_log(services: ChatFixture) -> None:
    half = services.guest("carol").receiving
    with capture_logs() as log:
        for request in (NotReceived(), Send("ALL", "hello")) * 200:
            half.ask(request)

    assert len(log) == 101
