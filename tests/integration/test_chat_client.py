"""The client for programs, ChatClient, against the real server; and the example bot that is built on it."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from integration.desk import StandIn, at, broadcast, refusal, serves
from integration.room import DEADLINE_SECONDS, wait_for

from chatclient import ChatClient, ChatError, LostError, RefusedError, UsageError
from chatclient.notices import ConnectionLost, Dropped, Reconnected
from chatprotocol.events import (
    AccountKind,
    DirectMessage,
    Forwarded,
    PublicMessage,
    Refused,
    Users,
    Welcome,
)
from chatprotocol.requests import AskUsers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Peer, Room

    # Somebody who is in the room with a ChatClient.
    Enter = Callable[..., ChatClient]

EXAMPLE = Path(__file__).parents[2] / "docs/examples/echo_bot.py"
# Those with accounts, ids and a history.
ACCOUNT_PROTOCOLS = ["json", "frames", "datagram"]
PROTOCOLS = [*ACCOUNT_PROTOCOLS, "register"]


class Switch:
    """A relay before a server, which can be cut, and which can lose what the server answers."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.loses_answers = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, name="switch")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for end in pair:
                end.close()

    def cut(self) -> None:
        """End all connections; who comes again is carried again, answers and all."""
        self.loses_answers = False
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):  # it has ended before
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), DEADLINE_SECONDS)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._pairs.append((client, server))
            for ends, is_answer in (((client, server), False), ((server, client), True)):
                thread = threading.Thread(target=self._carry, args=(*ends, is_answer), name="switch carrier")
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not (is_answer and self.loses_answers):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def collectors() -> list[str]:
    """The threads of clients that run."""
    return [thread.name for thread in threading.enumerate() if thread.name == "receiver"]


@pytest.fixture
def enter(room: Room) -> Iterator[Enter]:
    """Lets somebody into the room, and closes all of them after the test. No thread of theirs may be left."""
    with ExitStack() as clients:

        def enter(name: str, protocol: str = "json", port: int | None = None, **settings: Any) -> ChatClient:
            client = ChatClient("127.0.0.1", port or room.server.port, dialect=protocol, **settings)
            clients.enter_context(client)
            client.login(name, "" if protocol == "register" else "secret")
            return client

        yield enter
    assert collectors() == []


@pytest.fixture
def switch(room: Room) -> Iterator[Switch]:
    """A way to the room that can break."""
    with Switch(room.server.port) as switch:
        yield switch


def next_of(client: ChatClient, *kinds: type) -> Any:
    """The next that happens of these kinds; others are passed over."""
    for event in client.events(DEADLINE_SECONDS):
        if isinstance(event, kinds):
            return event
    pytest.fail(f"it never came: {kinds}")


def texts(client: ChatClient, last: str) -> list[str]:
    """The texts of all messages that come up to this one."""
    found = [next_of(client, PublicMessage, DirectMessage, Forwarded).text]
    while found[-1] != last:
        found.append(next_of(client, PublicMessage, DirectMessage, Forwarded).text)
    return found


@contextmanager
def meanwhile(what: Callable[[], object]) -> Iterator[queue.SimpleQueue[object]]:
    """Do it in another thread; what it returns, or the error, is in the queue, and the thread has ended after that."""
    outcome: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(what())
        except ChatError as error:
            outcome.put(error)

    thread = threading.Thread(target=run, name="meanwhile")
    thread.start()
    yield outcome
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


# --- to come in ---


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_a_name_is_registered_by_its_first_login_and_known_by_the_next(room: Room, protocol: str) -> None:
    for account in (AccountKind.NEW, AccountKind.EXISTING):
        with ChatClient("127.0.0.1", room.server.port, dialect=protocol) as client:
            welcome = client.login("alice", "secret")
            assert isinstance(welcome, Welcome)
            assert (welcome.account, welcome.username) == (account, "alice")


def test_a_guest_comes_in_without_a_password(enter: Enter) -> None:
    assert enter("alice", "register").session.model.username == "alice"


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_a_wrong_password_is_refused(enter: Enter, room: Room, protocol: str) -> None:
    enter("alice", protocol)
    with ChatClient("127.0.0.1", room.server.port, dialect=protocol) as client:
        with pytest.raises(RefusedError, match="password") as refused:
            client.login("alice", "wrong")
        assert refused.value.code == "wrong_password"


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_a_name_with_a_password_needs_it(enter: Enter, room: Room, protocol: str) -> None:
    enter("alice", protocol)
    with ChatClient("127.0.0.1", room.server.port, dialect=protocol) as client, pytest.raises(RefusedError) as refused:
        client.login("alice")
    assert refused.value.code == "wrong_password"


def test_a_guests_name_that_is_taken_is_refused(enter: Enter, room: Room) -> None:
    enter("alice", "register")
    with (
        ChatClient("127.0.0.1", room.server.port, dialect="register") as client,
        pytest.raises(RefusedError, match="taken") as refused,
    ):
        client.login("alice")
    assert refused.value.code == "bad_username"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["", "not a name", "ALL", "a\nb", "b\u00f6b", "x" * 33])
def test_what_can_be_no_name_is_refused_and_another_one_can_be_tried(room: Room, protocol: str, name: str) -> None:
    with ChatClient("127.0.0.1", room.server.port, dialect=protocol) as client:
        with pytest.raises(RefusedError) as refused:
            client.login(name, "secret")
        assert refused.value.code == "bad_username"
        assert client.login("alice", "" if protocol == "register" else "secret").username == "alice"


def test_a_server_that_is_not_there_is_lost_at_once(room: Room) -> None:
    room.stop()
    client = ChatClient("127.0.0.1", room.server.port)
    with pytest.raises(LostError, match="can't reach"):
        client.connect()
    client.close()
    assert collectors() == []


def test_a_server_that_was_not_there_can_be_tried_again(open_room: Callable[..., Room]) -> None:
    room = open_room()
    room.stop()
    client = ChatClient("127.0.0.1", room.server.port)
    with pytest.raises(LostError):
        client.connect()
    open_room(port=room.server.port)
    with client:
        assert client.login("alice", "secret").username == "alice"


# --- to say and to hear ---


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_what_is_said_is_heard_by_the_others_with_the_id_that_its_writer_got(enter: Enter, protocol: str) -> None:
    alice, bob = enter("alice", protocol), enter("bob")
    message_id = alice.say("hello everybody")
    heard = next_of(bob, PublicMessage)
    assert (heard.id, heard.sender, heard.text) == (message_id, "alice", "hello everybody")

    bob.say("hello alice")
    heard = next_of(alice, PublicMessage)
    assert (heard.sender, heard.text) == ("bob", "hello alice")


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_a_whisper_is_heard_by_one_and_kept_for_who_is_away(enter: Enter, protocol: str) -> None:
    alice, bob, eve = enter("alice", protocol), enter("bob", protocol), enter("eve", protocol)
    message_id = alice.whisper("bob", "psst")
    heard = next_of(bob, DirectMessage)
    assert (heard.id, heard.sender, heard.recipient, heard.text) == (message_id, "alice", "bob", "psst")

    bob.close()
    assert alice.whisper("bob", "while you were away") == message_id + 1
    alice.say("the end")
    assert texts(eve, "the end") == ["the end"]
    assert texts(enter("bob", protocol), "while you were away") == ["while you were away"]


def test_guests_hear_each_other_and_a_message_has_been_delivered_when_it_is_said(enter: Enter) -> None:
    alice, bob = enter("alice", "register"), enter("bob", "register")
    with meanwhile(lambda: [next_of(bob, Forwarded), next_of(bob, Forwarded)]) as heard:
        assert alice.say("hello") is None
        assert alice.whisper("bob", "psst") is None
    assert heard.get() == [Forwarded("alice", "hello"), Forwarded("alice", "psst")]


def test_a_guest_is_told_that_a_message_was_not_delivered(enter: Enter) -> None:
    with pytest.raises(RefusedError) as refused:
        enter("alice", "register").whisper("nobody", "hello")
    assert refused.value.code == "not_delivered"


TEXTS = [
    "Gr\u00fc\u00dfe \u65e5\u672c\u8a9e",
    "one\ntwo\n",
    "  blanks  ",
    "\x1b[2J\x9b",
    "x" * 8_192,
    '{"a":"b"}',
    "PM",
    "EX",
    "a\u2028b",
]


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_every_text_arrives_as_it_was_said(enter: Enter, protocol: str) -> None:
    alice, bob = enter("alice", protocol), enter("bob", protocol)
    for text in TEXTS:
        alice.say(text)
        alice.whisper("bob", text)

    assert [next_of(bob, PublicMessage, DirectMessage).text for _ in range(2 * len(TEXTS))] == [
        text for text in TEXTS for _ in range(2)
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("text", "code"), [("", "empty_message"), (" \n\t", "empty_message"), ("x" * 8_193, "too_long"), ("\udce9", None)]
)
def test_a_text_that_can_be_no_message_is_refused_and_the_client_goes_on(
    enter: Enter, protocol: str, text: str, code: str | None
) -> None:
    alice = enter("alice", protocol)
    for post in (lambda: alice.say(text), lambda: alice.whisper("alice", text)):
        with pytest.raises(RefusedError) as refused:
            post()
        assert code is None or refused.value.code == code
    assert not alice.session.model.unconfirmed
    alice.say("still here")


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
@pytest.mark.parametrize("name", ["nobody", "not a name", "a\nb", "", "ALL", "x" * 100, "b\u00f6b"])
def test_who_writes_to_nobody_is_refused_and_the_client_goes_on(enter: Enter, protocol: str, name: str) -> None:
    alice = enter("alice", protocol)
    with pytest.raises(RefusedError) as refused:
        alice.whisper(name, "hello")
    assert refused.value.code in ("unknown_user", "bad_username", "bad_request")
    message_id = alice.say("still here")
    assert [(message.id, message.text) for message in alice.history()] == [(message_id, "still here")]


@pytest.mark.parametrize("name", ["not a name", "a\nb", "", "bob\nContent-length: 1\n\nx", "b\u00f6b"])
def test_a_guests_recipient_can_not_break_the_wire(enter: Enter, name: str) -> None:
    alice = enter("alice", "register")
    with pytest.raises(RefusedError):
        alice.whisper(name, "hello")
    assert alice.say("still here") is None


@pytest.mark.parametrize("protocol", ["frames", "datagram"])
def test_the_tradition_of_words_makes_no_difference_to_a_program(enter: Enter, protocol: str) -> None:
    alice, bob = enter("alice", protocol, ops="bm-pm"), enter("bob", protocol)
    alice.say("to all")
    alice.whisper("bob", "to bob")

    assert isinstance(next_of(bob, PublicMessage, DirectMessage), PublicMessage)
    assert isinstance(next_of(bob, PublicMessage, DirectMessage), DirectMessage)


# --- to ask ---


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_who_is_online_can_be_asked(enter: Enter, protocol: str) -> None:
    alice = enter("alice", protocol)
    assert alice.users() == ("alice",)
    bob = enter("bob", protocol)
    assert sorted(alice.users()) == ["alice", "bob"]
    bob.close()
    wait_for(lambda: alice.users() == ("alice",), "bob is gone")


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_history_is_what_the_user_may_see_oldest_first(enter: Enter, protocol: str) -> None:
    alice, bob, eve = (enter(name, protocol) for name in ("alice", "bob", "eve"))
    assert alice.history() == ()
    alice.say("one")
    alice.whisper("bob", "two")
    bob.say("three")

    assert [message.text for message in alice.history()] == ["one", "two", "three"]
    assert [message.text for message in eve.history()] == ["one", "three"]
    assert [message.text for message in alice.history(limit=2)] == ["two", "three"]
    for limit in (0, -1, 501):
        with pytest.raises(RefusedError):
            alice.history(limit=limit)
    assert [message.text for message in alice.history(limit=1)] == ["three"]


def test_history_can_be_read_backwards_in_json(enter: Enter) -> None:
    alice = enter("alice")
    ids = [alice.say(f"{number}") for number in range(5)]

    assert [message.text for message in alice.history(limit=2, before=ids[3])] == ["1", "2"]
    assert alice.history(before=ids[0]) == ()


@pytest.mark.parametrize("protocol", ["frames", "datagram"])
def test_a_dialect_that_can_not_read_backwards_says_so(enter: Enter, protocol: str) -> None:
    with pytest.raises(RefusedError):
        enter("alice", protocol).history(before=5)


def test_search_finds_what_the_user_may_see(enter: Enter) -> None:
    alice, bob, eve = enter("alice"), enter("bob"), enter("eve")
    first = alice.say("Caf\u00e9 at noon?")
    alice.whisper("bob", "the secret caf\u00e9")
    bob.say("tea is better")

    assert [message.text for message in bob.search("cafe")] == ["Caf\u00e9 at noon?", "the secret caf\u00e9"]
    assert [message.id for message in eve.search("caf*")] == [first]
    assert [message.text for message in bob.search("cafe", limit=1)] == ["the secret caf\u00e9"]
    assert [message.id for message in bob.search("cafe", before=first + 1)] == [first]
    assert bob.search("nothing") == ()
    with pytest.raises(RefusedError) as refused:
        bob.search("")
    assert refused.value.code == "bad_request"


@pytest.mark.parametrize("protocol", ["frames", "datagram", "register"])
def test_a_dialect_without_a_word_for_a_search_says_so(enter: Enter, protocol: str) -> None:
    with pytest.raises(RefusedError) as refused:
        enter("alice", protocol).search("x")
    assert refused.value.code == "unknown_command"


@pytest.mark.parametrize("ask", [ChatClient.users, ChatClient.history])
def test_a_guest_can_ask_for_nothing(enter: Enter, ask: Callable[[ChatClient], object]) -> None:
    with pytest.raises(RefusedError) as refused:
        ask(enter("alice", "register"))
    assert refused.value.code == "unknown_command"


# --- events ---


@pytest.mark.parametrize("protocol", ACCOUNT_PROTOCOLS)
def test_what_comes_while_something_is_asked_is_read_later_and_in_order(enter: Enter, protocol: str) -> None:
    alice, bob = enter("alice", protocol), enter("bob")
    said = [f"{number}" for number in range(20)]
    for text in said:
        bob.say(text)
        assert "alice" in alice.users()

    assert texts(alice, said[-1]) == said


def test_of_too_much_that_comes_while_something_is_asked_the_oldest_is_dropped_and_told(enter_at: Enter) -> None:
    """16 MiB are kept."""
    sent = range(10, 2_200)
    flood = [broadcast(number, "bob", "x" * 8_192) for number in sent]
    with StandIn(lambda request: [*flood * (request["command"] == "CH"), *serves(request)]) as server:
        alice = enter_at("alice", "json", server.port)
        alice.history()
        dropped, *kept = alice.events(0.0)
        alice.close()
    assert dropped == Dropped(len(sent) - len(kept))
    assert 16_000_000 < 8_192 * len(kept) < 16 * 1024 * 1024
    assert [message.id for message in kept] == [*sent][-len(kept) :]


def test_events_end_when_nothing_happens_for_so_long(enter: Enter) -> None:
    alice = enter("alice")

    assert list(alice.events(timeout_seconds=0.05)) == []
    assert list(alice.events(timeout_seconds=0)) == []


def test_events_can_be_read_again_after_they_have_ended(enter: Enter) -> None:
    alice, bob = enter("alice"), enter("bob")
    list(alice.events(timeout_seconds=0))
    bob.say("one")
    assert texts(alice, "one") == ["one"]
    bob.say("two")
    assert texts(alice, "two") == ["two"]


def test_who_comes_and_goes_is_an_event(enter: Enter) -> None:
    alice = enter("alice")
    bob = enter("bob")
    while not (event := next_of(alice, Users)).joined:
        pass
    assert event.joined == ("bob",)
    bob.close()
    while not (event := next_of(alice, Users)).left:
        pass
    assert event.left == ("bob",)


def test_what_another_thread_injects_is_read_in_its_turn(enter: Enter) -> None:
    alice = enter("alice")
    things = [object() for _ in range(3)]
    with meanwhile(lambda: [alice.inject(thing) for thing in things]):
        assert [next_of(alice, object) for _ in things] == things


def test_what_is_injected_does_not_disturb_a_question(enter: Enter) -> None:
    alice = enter("alice")
    thing = object()
    alice.inject(thing)
    assert alice.users() == ("alice",)
    assert alice.say("hello") == 1

    assert next_of(alice, object) is thing


# --- to go ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_closes_is_gone_and_may_close_again(enter: Enter, room: Room, protocol: str) -> None:
    alice, bob = enter("alice", protocol), enter("bob")
    alice.close()
    alice.close()
    wait_for(lambda: bob.users() == ("bob",), "alice is gone")
    assert not room.has_crashed


def test_events_end_when_the_client_is_closed_while_they_are_read(enter: Enter) -> None:
    alice, bob = enter("alice"), enter("bob")
    for number in range(3):
        bob.say(f"{number}")
    for event in alice.events(DEADLINE_SECONDS):
        if isinstance(event, PublicMessage):
            alice.close()


def test_an_error_in_the_block_closes_the_client(room: Room) -> None:
    def fail() -> None:
        with ChatClient("127.0.0.1", room.server.port) as client:
            client.login("alice", "secret")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    room.wait_for_connections(0)
    assert collectors() == []


def test_who_never_came_in_can_be_closed(room: Room) -> None:
    ChatClient("127.0.0.1", room.server.port).close()
    with ChatClient("127.0.0.1", room.server.port):
        pass
    room.wait_for_connections(0)


def test_without_a_limit_of_silence_a_server_may_be_silent(enter: Enter) -> None:
    alice = enter("alice", silence_seconds=0)
    assert list(alice.events(0.05)) == []
    assert alice.say("still here") == 1


# --- what makes no sense ---

WRONG_ORDER: list[tuple[str, Callable[[ChatClient], object]]] = [
    ("not connected", lambda client: client.login("alice", "secret")),
    ("login", lambda client: client.say("hello")),
    ("login", lambda client: client.whisper("alice", "hello")),
    ("login", lambda client: client.users()),
    ("login", lambda client: client.history()),
    ("login", lambda client: client.search("hello")),
    ("login", lambda client: next(client.events())),
]


@pytest.mark.parametrize(("match", "call"), WRONG_ORDER)
def test_what_comes_before_its_time_or_after_the_end_is_a_fault_of_the_program(
    match: str, call: Callable[[ChatClient], object]
) -> None:
    client = ChatClient()
    with pytest.raises(UsageError, match=match):
        call(client)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        call(client)
    with pytest.raises(UsageError, match="closed"):
        client.connect()


def test_what_is_done_twice_is_a_fault_of_the_program(enter: Enter) -> None:
    alice = enter("alice")
    with pytest.raises(UsageError, match="connected before"):
        alice.connect()
    with pytest.raises(UsageError, match="another ChatClient"):
        alice.login("alice", "secret")
    assert alice.say("still here") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_login_that_the_server_refused_ends_a_clients_use(enter: Enter, room: Room, protocol: str) -> None:
    enter("alice", protocol)
    with ChatClient("127.0.0.1", room.server.port, dialect=protocol) as client:
        with pytest.raises(RefusedError):
            client.login("alice", "wrong")
        for call in (lambda: client.login("alice", "secret"), lambda: client.say("x"), lambda: next(client.events())):
            with pytest.raises(UsageError):
                call()


WRONG_ARGUMENTS: list[tuple[str, Callable[[ChatClient], object]]] = [
    ("text is of the type NoneType", lambda client: client.say(None)),  # type: ignore[arg-type]
    ("text is of the type bytes; it must be str; decode", lambda client: client.say(b"x")),  # type: ignore[arg-type]
    ("text is of the type int", lambda client: client.whisper("alice", 1)),  # type: ignore[arg-type]
    ("to is of the type NoneType", lambda client: client.whisper(None, "x")),  # type: ignore[arg-type]
    ("limit is '5'", lambda client: client.history("5")),  # type: ignore[arg-type]
    ("limit is True", lambda client: client.history(True)),
    ("limit is 1000", lambda client: client.history(10**30)),
    ("limit is an int that is too long", lambda client: client.history(10**5_000)),
    ("before is 1.5", lambda client: client.history(before=1.5)),  # type: ignore[arg-type]
    ("words is of the type list", lambda client: client.search(["x"])),  # type: ignore[arg-type]
    ("limit is None", lambda client: client.search("x", None)),  # type: ignore[arg-type]
    ("timeout_seconds is -1", lambda client: next(client.events(-1))),
    ("timeout_seconds is nan", lambda client: next(client.events(float("nan")))),
    ("timeout_seconds is inf", lambda client: next(client.events(float("inf")))),
    ("timeout_seconds is '1'", lambda client: next(client.events("1"))),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_argument_is_a_fault_of_the_program_and_the_client_goes_on(enter: Enter, protocol: str) -> None:
    alice = enter("alice", protocol)
    for match, call in WRONG_ARGUMENTS:
        with pytest.raises(UsageError, match=match):
            call(alice)
    alice.say("still here")


@pytest.mark.parametrize(("username", "password"), [(None, "secret"), (b"alice", "secret"), ("alice", b"secret")])
def test_a_login_of_the_wrong_types_shows_no_password(room: Room, username: Any, password: Any) -> None:
    with ChatClient("127.0.0.1", room.server.port) as client:
        with pytest.raises(UsageError, match="it must be str") as error:
            client.login(username, password)
        assert "secret" not in str(error.value)
        assert client.login("alice", "secret").username == "alice"


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("port is '9999'", {"port": "9999"}),
        ("port is 70000; it must be a whole number .int. from 1 to 65535", {"port": 70_000}),
        ("port is 0", {"port": 0}),
        ("port is True", {"port": True}),
        ("host is of the type NoneType", {"host": None}),
        ("'a b' is not a host name", {"host": "a b"}),
        ("dialect is 'morse'; it must be one of 'json', 'frames'", {"dialect": "morse"}),
        ("dialect is None", {"dialect": None}),
        ("ops is 'xm'", {"ops": "xm"}),
        ("register_length is \\['bytes'\\]", {"register_length": ["bytes"]}),
        ("retry_seconds is None", {"retry_seconds": None}),
        ("retry_seconds is -1", {"retry_seconds": -1}),
        ("silence_seconds is nan", {"silence_seconds": float("nan")}),
    ],
)
def test_a_client_that_can_not_be_is_a_fault_of_the_program(match: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=match):
        ChatClient(**arguments)


# --- a lost connection ---


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_a_lost_connection_is_taken_up_again_and_what_was_missed_comes_once(
    enter: Enter, switch: Switch, protocol: str
) -> None:
    """Promise: once. In frames it is looked for in the history."""
    alice, bob = enter("alice", protocol, switch.port), enter("bob")
    bob.say("before")
    assert texts(alice, "before") == ["before"]
    switch.server_port, port = 1, switch.server_port  # where nobody listens
    switch.cut()
    assert next_of(alice, ConnectionLost, Reconnected) == ConnectionLost("the server closed the connection")
    for text in ("one", "two"):
        bob.say(text)
    bob.whisper("alice", "three")
    switch.server_port = port

    assert next_of(alice, Reconnected, PublicMessage).username == "alice"
    bob.say("four")
    assert texts(alice, "four") == ["one", "two", "three", "four"]
    assert sorted(alice.users()) == ["alice", "bob"]


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_what_was_being_said_when_the_connection_was_lost_is_stored_once(
    enter: Enter, switch: Switch, protocol: str
) -> None:
    """Promise: once, though the confirmation was lost."""
    alice, bob = enter("alice", protocol, switch.port), enter("bob")
    alice.say("before")
    if protocol == "json":  # in frames a message takes two steps, and the first one is answered
        switch.loses_answers = True
    with meanwhile(lambda: alice.say("under way")) as outcome:
        assert texts(bob, "under way") == ["before", "under way"]
        switch.cut()
        message_id = outcome.get(timeout=DEADLINE_SECONDS)

    assert [(message.id, message.text) for message in bob.history()][1:] == [(message_id, "under way")]


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_what_is_said_while_the_connection_is_lost_waits_for_it(enter: Enter, switch: Switch, protocol: str) -> None:
    alice, bob = enter("alice", protocol, switch.port), enter("bob")
    switch.server_port, port = 1, switch.server_port
    switch.cut()
    with meanwhile(lambda: (alice.say("hello"), alice.users())) as outcome:
        next_of(bob, Users)
        while alice.session.is_ready:
            list(bob.events(0.01))
        switch.server_port = port
        message_id, users = outcome.get(timeout=DEADLINE_SECONDS)  # type: ignore[misc]

    assert texts(bob, "hello") == ["hello"]
    assert [message.id for message in bob.history()] == [message_id]
    assert sorted(users) == ["alice", "bob"]
    # Each try in between was accepted and dropped; the loss is told once.
    assert isinstance(next_of(alice, ConnectionLost, Reconnected), ConnectionLost)
    assert isinstance(next_of(alice, ConnectionLost, Reconnected), Reconnected)


def test_history_that_was_asked_for_comes_after_the_return(enter_at: Enter) -> None:
    """It is asked for once on each connection."""
    with StandIn(at("CH", None), at("CH", None), serves) as server:
        alice = enter_at("alice", "json", server.port)
        with meanwhile(alice.history) as outcome:
            (message,) = outcome.get(timeout=DEADLINE_SECONDS)  # type: ignore[misc]
        assert alice.users() == ("alice",)
        alice.close()
    assert message.text == "of before"
    assert len(server.asked_for("CH")) == 3


@pytest.mark.parametrize("protocol", ["json", "frames", "register"])
def test_a_question_is_asked_again_on_the_new_connection(enter: Enter, switch: Switch, protocol: str) -> None:
    alice = enter("alice", protocol, switch.port)
    if protocol == "register":  # which has no questions
        switch.cut()
        assert isinstance(next_of(alice, Reconnected), Reconnected)
        assert alice.say("hello") is None
        return
    switch.loses_answers = True
    with meanwhile(alice.users) as outcome:
        wait_for(lambda: alice.session.client_protocol.is_busy, "it was asked")
        switch.cut()
        assert outcome.get(timeout=DEADLINE_SECONDS) == ("alice",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_started_again_is_found_again(
    open_room: Callable[..., Room], protocol: str, enter_at: Enter
) -> None:
    room = open_room()
    port = room.server.port
    alice = enter_at("alice", protocol, port)
    room.stop()
    assert isinstance(next_of(alice, ConnectionLost), ConnectionLost)
    again = open_room(port=port)

    assert next_of(alice, Reconnected).username == "alice"
    alice.say("hello again")
    if protocol != "register":
        assert alice.history()[-1].text == "hello again"
    alice.close()
    assert not again.has_crashed


@pytest.fixture
def enter_at() -> Iterator[Enter]:
    """The same as enter, at a port that is given."""
    with ExitStack() as clients:

        def enter(name: str, protocol: str, port: int, **settings: Any) -> ChatClient:
            client = ChatClient("127.0.0.1", port, dialect=protocol, **settings)
            clients.enter_context(client)
            client.login(name, "" if protocol == "register" else "secret")
            return client

        yield enter


ASKING: list[Callable[[ChatClient], object]] = [
    lambda client: client.say("x"),
    lambda client: client.whisper("alice", "x"),
    lambda client: client.users(),
    lambda client: client.history(),
    lambda client: list(client.events()),
]


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_a_connection_that_is_lost_for_good_is_an_error_of_whatever_is_asked(
    enter: Enter, room: Room, protocol: str
) -> None:
    alice = enter("alice", protocol, retry_seconds=0.1)
    room.stop()
    happened = []
    with pytest.raises(LostError):
        happened += alice.events()
    for ask in ASKING:
        with pytest.raises(LostError):
            ask(alice)
    alice.close()


def test_what_happened_before_the_connection_was_lost_for_good_can_still_be_read(enter: Enter, room: Room) -> None:
    alice, bob = enter("alice", retry_seconds=0.0), enter("bob", retry_seconds=0.0)
    bob.say("last words")
    room.stop()
    happened = []

    def read() -> None:
        for event in alice.events(DEADLINE_SECONDS):
            happened.append(event)  # noqa: PERF402 - the end is an error

    with pytest.raises(LostError):
        read()
    assert [event.text for event in happened if isinstance(event, PublicMessage)] == ["last words"]
    assert isinstance(happened[-1], ConnectionLost)


def test_a_message_of_which_nobody_knows_whether_it_was_delivered_is_not_sent_again(
    enter: Enter, switch: Switch, room: Room
) -> None:
    """A guest has no nonces."""
    alice, bob = enter("alice", "register", switch.port), room.enter_guest("bob")
    switch.loses_answers = True
    with meanwhile(lambda: alice.say("hello")) as outcome:
        assert bob.take() == ("alice", "hello")
        switch.cut()
        assert isinstance(outcome.get(timeout=DEADLINE_SECONDS), LostError)
    with meanwhile(lambda: alice.whisper("bob", "psst")):
        assert bob.take() == ("alice", "psst")


def test_who_closes_while_the_connection_is_lost_does_not_wait(enter: Enter, switch: Switch) -> None:
    alice = enter("alice", port=switch.port, retry_seconds=1_000_000.0)
    switch.server_port = 1
    switch.cut()
    next_of(alice, ConnectionLost)
    alice.close()


def test_a_message_that_the_server_puts_off_as_it_stops_is_said_once(enter_at: Enter) -> None:
    """What is refused for a moment is still the client's: a program that said it again would say it twice."""

    def stops(request: dict[str, Any]) -> list[dict[str, Any] | None]:
        return [refusal("shutting_down", request["nonce"]), None] if request["command"] == "PM" else serves(request)

    with StandIn(stops, serves) as server:
        alice = enter_at("alice", "json", server.port)
        assert alice.say("pay 100") == 8
        assert not alice.session.model.unconfirmed
        nonces = [request["nonce"] for request in server.asked_for("PM")]
        alice.close()
    assert len(nonces) == 2
    assert len(set(nonces)) == 1


@pytest.mark.parametrize("code", ["too_many_attempts", "shutting_down", "internal", "rate_limited"])
def test_a_return_that_is_refused_for_a_while_is_tried_again(enter_at: Enter, code: str) -> None:
    with StandIn(at("users", None), *[at("login", refusal(code))] * 2, serves) as server:
        alice = enter_at("alice", "json", server.port)
        alice.session.request(AskUsers())
        next_of(alice, ConnectionLost)
        with meanwhile(lambda: alice.say("hello")) as outcome:
            assert outcome.get(timeout=DEADLINE_SECONDS) == 8
        alice.close()
    assert len(server.asked_for("login")) == 4
    assert len(server.asked_for("PM")) == 1


def test_what_was_asked_for_comes_though_the_return_is_refused_for_a_while(enter_at: Enter) -> None:
    """That refusal is no answer to it."""
    with StandIn(at("users", None), *[at("login", refusal("too_many_attempts"))] * 2, serves) as server:
        alice = enter_at("alice", "json", server.port)
        with meanwhile(alice.users) as outcome:
            assert outcome.get(timeout=DEADLINE_SECONDS) == ("alice",)
        happened = [each for each in alice.events(0.0) if isinstance(each, ConnectionLost | Reconnected | Refused)]
        alice.close()
    assert [type(each) for each in happened] == [ConnectionLost, Refused, Refused, Reconnected]


@pytest.mark.parametrize("code", ["wrong_password", "bad_username"])
def test_a_return_that_is_refused_for_good_is_the_end(enter_at: Enter, code: str) -> None:
    with StandIn(at("users", None), at("login", refusal(code)), serves) as server:
        alice = enter_at("alice", "json", server.port)
        for ask in (alice.users, alice.users, lambda: alice.say("x")):
            with meanwhile(ask) as outcome:
                error = outcome.get(timeout=DEADLINE_SECONDS)
            assert isinstance(error, RefusedError)
            assert error.code == code
        alice.close()
    assert len(server.asked) == 2


def test_a_guest_whose_name_is_taken_meanwhile_gets_it_back_when_it_is_free(
    enter: Enter, switch: Switch, room: Room
) -> None:
    """The server may not know yet that the connection before was lost."""
    alice = enter("alice", "register", switch.port)
    switch.server_port, port = 1, switch.server_port
    switch.cut()
    assert isinstance(next_of(alice, ConnectionLost), ConnectionLost)
    room.wait_for_connections(0)
    other = room.enter_guest("alice")
    switch.server_port = port
    assert next_of(alice, Refused, Reconnected).code == "bad_username"
    other.close()
    assert next_of(alice, Reconnected).username == "alice"
    assert alice.say("hello again") is None


# --- the example ---


class Bot:
    """The example, as a process."""

    def __init__(self, port: int, name: str, password: str = "secret") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), "127.0.0.1", str(port), name],
            env={**os.environ, "CHAT_PASSWORD": password},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def ends(self) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, output.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def online(peer: Peer) -> list[str]:
    peer.ask(command="users")
    return next(answer["users"] for answer in peer.until_fence() if answer.get("users"))


@pytest.fixture
def bot(room: Room) -> Iterator[Bot]:
    """One that is in the room."""
    bot = Bot(room.server.port, "Echo")
    try:
        watcher = room.enter("watcher")
        wait_for(lambda: "Echo" in online(watcher), "it is in")
        yield bot
    finally:
        bot.close()


def test_the_example_answers_who_calls_it_and_who_writes_to_it(enter: Enter, bot: Bot) -> None:
    alice = enter("alice")
    alice.say("hello everybody")
    alice.say("echo: are you there?")
    assert texts(alice, "alice: are you there?") == ["alice: are you there?"]
    alice.say("ECHO:")
    assert texts(alice, "alice: yes?") == ["alice: yes?"]
    alice.whisper("echo", "psst")
    heard = next_of(alice, PublicMessage, DirectMessage)
    assert (type(heard), heard.sender, heard.text) == (DirectMessage, "Echo", "You wrote: psst")
    bot.process.send_signal(signal.SIGINT)
    assert bot.ends() == (0, "")


def test_the_example_outlives_a_message_that_it_can_not_answer(enter: Enter, bot: Bot) -> None:
    alice = enter("alice")
    alice.whisper("Echo", "x" * 8_192)
    alice.whisper("Echo", "psst")

    assert texts(alice, "You wrote: psst") == ["You wrote: psst"]
    assert bot.process.poll() is None


def test_the_example_is_about_twenty_lines_and_says_how_to_start_it() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 24
    assert "python docs/examples/echo_bot.py HOST PORT NAME" in text
