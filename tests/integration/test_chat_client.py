"""The class ChatClient against the real server, and the example bot that uses it."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from integration.fake_server import FakeServer, broadcast, serve
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS, wait_for

from chatclient import ChatClient, ChatError, LostError, RefusedError, UsageError
from chatclient.notices import ConnectionLost, Dropped, Reconnected
from chatprotocol.events import AccountKind, DirectMessage, PublicMessage, Users
from chatprotocol.wire.base import Forwarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Room

    # Logs in: name, protocol, port, settings of ChatClient.
    Enter = Callable[..., ChatClient]
    Name = Callable[[str], str]

EXAMPLE = Path(__file__).parents[2] / "docs/examples/echo_bot.py"
# The protocols with accounts, ids and a history; those over TCP; and all.
ACCOUNT_PROTOCOLS = pytest.mark.parametrize("protocol", ["json", "websocket", "frames", "datagram", "irc"])
TCP_PROTOCOLS = pytest.mark.parametrize("protocol", ["json", "websocket", "frames", "irc"])
PROTOCOLS = pytest.mark.parametrize("protocol", ["json", "websocket", "frames", "datagram", "register", "irc"])


def receivers() -> list[threading.Thread]:
    """The threads of clients that are not closed."""
    return [thread for thread in threading.enumerate() if thread.name == "receiver"]


@pytest.fixture
def enter() -> Iterator[Enter]:
    """Logs in, and closes all clients after the test. None of their threads may be left."""
    with ExitStack() as clients:

        def enter(port: int, name: str, protocol: str = "json", **settings: Any) -> ChatClient:
            client = clients.enter_context(ChatClient("127.0.0.1", port, dialect=protocol, **settings))
            client.login(name, "" if protocol == "register" else "secret")
            return client

        yield enter
    wait_for(lambda: receivers() == [], "the end of the threads")


@pytest.fixture
def port(shared_room: Room) -> int:
    return shared_room.server.port


@pytest.fixture
def proxy(shared_room: Room) -> Iterator[TcpProxy]:
    with TcpProxy(shared_room.server.port) as proxy:
        yield proxy


def next_of(client: ChatClient, *kinds: type) -> Any:
    """The next event of these types."""
    for event in client.events(DEADLINE_SECONDS):
        if isinstance(event, kinds):
            return event
    pytest.fail(f"it never came: {kinds}")


def texts(client: ChatClient, last: str) -> list[str]:
    """The texts of all messages up to this one."""
    found = [next_of(client, PublicMessage, DirectMessage).text]
    while found[-1] != last:
        found.append(next_of(client, PublicMessage, DirectMessage).text)
    return found


@contextmanager
def meanwhile(call: Callable[[], object]) -> Iterator[queue.SimpleQueue[Any]]:
    """Call it in another thread. Its result, or its ChatError, is in the queue."""
    outcome: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(call())
        except ChatError as error_of_call:
            outcome.put(error_of_call)

    thread = threading.Thread(target=run, name="meanwhile")
    thread.start()
    yield outcome
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


# --- login ---


@ACCOUNT_PROTOCOLS
def test_login_registers_a_name_and_then_needs_its_password(port: int, fresh_name: Name, protocol: str) -> None:
    """A client that was rejected can't be used any more."""
    name = fresh_name("alice")
    for kind in (AccountKind.NEW, AccountKind.EXISTING):
        with ChatClient("127.0.0.1", port, dialect=protocol) as client:
            welcome = client.login(name, "secret")
            assert (welcome.account, welcome.username) == (kind, name)
    for password in ("wrong", ""):
        with ChatClient("127.0.0.1", port, dialect=protocol) as client:
            with pytest.raises(RefusedError, match="password") as refused:
                client.login(name, password)
            assert refused.value.code == "wrong_password"
            for call in (lambda: client.login(name, "secret"), lambda: client.say("x"), lambda: next(client.events())):
                with pytest.raises(UsageError):
                    call()


def test_name_of_a_guest_must_be_free_and_valid(port: int, enter: Enter, fresh_name: Name) -> None:
    """An invalid name is refused before anything is sent, and another one can be tried."""
    name = fresh_name("gina")
    enter(port, name, "register")
    with ChatClient("127.0.0.1", port, dialect="register") as client:
        for invalid in ("", "a\nb", "ALL", "x" * 33):
            with pytest.raises(RefusedError) as refused:
                client.login(invalid)
            assert refused.value.code == "bad_username"
        with pytest.raises(RefusedError, match="taken") as refused:
            client.login(name)
        assert refused.value.code == "bad_username"


def test_server_that_is_down_is_an_error_and_can_be_tried_again(open_room: Callable[..., Room], kept_port: int) -> None:
    client = ChatClient("127.0.0.1", kept_port)
    with pytest.raises(LostError, match="can't reach"):
        client.connect()
    open_room(port=kept_port)
    with client:
        assert client.login("alice", "secret").username == "alice"
    wait_for(lambda: receivers() == [], "the end of the thread")


# --- messages ---


@ACCOUNT_PROTOCOLS
def test_messages_arrive_unchanged_with_their_ids(port: int, enter: Enter, fresh_name: Name, protocol: str) -> None:
    """Promise: public to all others, direct to one, who gets it later if offline."""
    names = [fresh_name(name) for name in ("alice", "bob", "eve")]
    alice, bob, eve = (enter(port, name, protocol) for name in names)
    said = [
        "Gr\u00fc\u00dfe \u65e5\u672c\u8a9e",
        "one\ntwo\n",
        "  blanks  ",
        "\x1b[2J\x9b",
        "x" * 8_192,
        "EX",
        "a\u2028b",
    ]
    if protocol == "irc":  # line breaks at the end have no line
        said.remove("one\ntwo\n")
    for text in said:
        public_id, direct_id = alice.say(text), alice.whisper(names[1], text)
        public, direct = (next_of(bob, PublicMessage, DirectMessage) for _ in range(2))
        assert (public.id, public.sender, public.text) == (public_id, names[0], text)
        assert (direct.id, direct.sender, direct.recipient, direct.text) == (direct_id, names[0], names[1], text)
    bob.close()
    alice.whisper(names[1], "while you were away")
    alice.say("the end")
    assert texts(eve, "the end") == [*said, "the end"]
    back = enter(port, names[1], protocol)
    assert texts(back, "while you were away")[-1] == "while you were away"
    back.say("I am back")
    assert texts(alice, "I am back") == ["I am back"]


def test_message_of_a_guest_was_delivered_when_the_call_returns(room: Room, enter: Enter) -> None:
    port = room.server.port
    alice, bob = enter(port, "alice", "register"), enter(port, "bob", "register")
    with meanwhile(lambda: [next_of(bob, Forwarded), next_of(bob, Forwarded)]) as heard:
        assert alice.say("hello") is None
        assert alice.whisper("bob", "psst") is None
    assert heard.get() == [Forwarded("alice", "hello"), Forwarded("alice", "psst")]
    with pytest.raises(RefusedError) as refused:
        alice.whisper("nobody", "hello")
    assert refused.value.code == "not_delivered"


@PROTOCOLS
def test_invalid_texts_and_recipients_are_refused(room: Room, enter: Enter, protocol: str) -> None:
    """None of them breaks the connection."""
    alice = enter(room.server.port, "alice", protocol)
    for text, code in (("", "empty_message"), (" \n\t", "empty_message"), ("x" * 8_193, "too_long"), ("\udce9", None)):
        for send in (lambda text=text: alice.say(text), lambda text=text: alice.whisper("alice", text)):  # type: ignore[misc]
            with pytest.raises(RefusedError) as refused:
                send()
            assert code in (None, refused.value.code)
    codes = {"unknown_user", "bad_username", "bad_request", "not_delivered"}
    for name in ("nobody", "not a name", "bob\nContent-length: 1\n\nx", "", "ALL", "b\u00f6b"):
        if (name, protocol) != ("ALL", "register"):
            with pytest.raises(RefusedError) as refused:
                alice.whisper(name, "hello")
            assert refused.value.code in codes
    alice.say("still here")
    if protocol != "register":
        assert [message.text for message in alice.history()] == ["still here"]


# --- queries ---


@ACCOUNT_PROTOCOLS
def test_users_and_history_are_what_the_user_may_see(room: Room, enter: Enter, protocol: str) -> None:
    alice, bob, eve = (enter(room.server.port, name, protocol) for name in ("alice", "bob", "eve"))
    assert sorted(alice.users()) == ["alice", "bob", "eve"]
    assert alice.history() == ()
    alice.say("one")
    alice.whisper("bob", "two")
    bob.say("three")
    # In irc each conversation has a history of its own.
    whole = ["one", "three"] if protocol == "irc" else ["one", "two", "three"]
    assert [message.text for message in alice.history()] == whole
    assert [message.text for message in eve.history()] == ["one", "three"]
    assert [message.text for message in alice.history(limit=2)] == whole[-2:]
    for limit in (0, 501):
        with pytest.raises(RefusedError):
            alice.history(limit=limit)
    bob.close()
    wait_for(lambda: sorted(alice.users()) == ["alice", "eve"], "bob is gone")


def test_json_searches_and_reads_history_backwards(room: Room, enter: Enter) -> None:
    """The other protocols have no request for that, and a guest none at all."""
    alice, bob, eve = (enter(room.server.port, name) for name in ("alice", "bob", "eve"))
    first = alice.say("Caf\u00e9 at noon?")
    assert first is not None
    alice.whisper("bob", "the secret caf\u00e9")
    bob.say("tea is better")
    assert [message.text for message in bob.search("cafe")] == ["Caf\u00e9 at noon?", "the secret caf\u00e9"]
    assert [message.id for message in eve.search("caf*")] == [first]
    assert [message.text for message in bob.search("cafe", limit=1)] == ["the secret caf\u00e9"]
    assert [message.id for message in bob.search("cafe", before=first + 1)] == [first]
    assert [message.id for message in bob.history(before=first + 1)] == [first]
    alice.whisper("bob", "and a second one")
    assert [message.text for message in bob.history(limit=1, after=first)] == ["the secret caf\u00e9"]
    assert [message.text for message in bob.history(with_user="Alice")] == ["the secret caf\u00e9", "and a second one"]
    assert [message.text for message in bob.search("caf*", with_user="alice")] == ["the secret caf\u00e9"]
    assert bob.history(with_user="eve") == bob.search("caf*", with_user="eve") == ()
    assert [(each.username, each.last_id) for each in bob.conversations()] == [("alice", first + 3)]
    assert eve.conversations() == ()
    for call in (lambda: bob.history(before=1, after=1), lambda: bob.search("x", room="dev", with_user="eve")):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(RefusedError, match="word"):
        bob.search("")
    frames, guest = enter(room.server.port, "fred", "frames"), enter(room.server.port, "gina", "register")
    impossible = [lambda: frames.history(before=5), lambda: frames.search("x"), lambda: guest.search("x")]
    for call in (*impossible, frames.conversations, lambda: frames.history(after=5), guest.users, guest.history):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.code in ("bad_request", "unknown_command")


# --- events ---


def test_events_during_a_query_are_read_later_in_order(port: int, enter: Enter, fresh_name: Name) -> None:
    """Objects that another thread injects are returned in the same way."""
    name = fresh_name("alice")
    alice, bob = enter(port, name), enter(port, fresh_name("bob"))
    thing = SimpleNamespace()
    alice.inject(thing)
    said = [f"{number}" for number in range(20)]
    for text in said:
        bob.say(text)
        assert name in alice.users()
    assert next_of(alice, SimpleNamespace) is thing
    assert texts(alice, said[-1]) == said
    with meanwhile(lambda: alice.inject(thing)):
        assert next_of(alice, SimpleNamespace) is thing


def test_events_during_a_query_are_limited_to_16_mib(enter: Enter) -> None:
    """The oldest are dropped, and Dropped has their number."""
    sent = range(10, 2_200)
    flood = [broadcast(number, "bob", "x" * 8_192) for number in sent]
    with FakeServer(lambda request: [*flood * (request["command"] == "CH"), *serve(request)]) as server:
        alice = enter(server.port, "alice")
        alice.history()
        dropped, *kept = alice.events(0.0)
        alice.close()
    assert dropped == Dropped(len(sent) - len(kept))
    assert 16_000_000 < 8_192 * len(kept) < 16 * 1024 * 1024
    assert [message.id for message in kept] == [*sent][-len(kept) :]


def test_events_end_at_the_timeout_and_can_be_read_again(room: Room, enter: Enter) -> None:
    """Joins and leaves are events."""
    alice = enter(room.server.port, "alice", silence_seconds=0)
    assert list(alice.events(timeout_seconds=0.05)) == []
    assert list(alice.events(timeout_seconds=0)) == []
    bob = enter(room.server.port, "bob")
    assert next_of(alice, Users).joined == ("bob",)
    bob.close()
    assert next_of(alice, Users).left == ("bob",)


# --- closing ---


@PROTOCOLS
def test_closed_client_has_left(port: int, enter: Enter, fresh_name: Name, protocol: str) -> None:
    """It can be closed again, before a login, and while events are read."""
    name = fresh_name("alice")
    alice, bob = enter(port, name, protocol), enter(port, fresh_name("bob"))
    assert name in bob.users()
    alice.close()
    alice.close()
    wait_for(lambda: name not in bob.users(), "alice is gone")
    ChatClient("127.0.0.1", port, dialect=protocol).close()
    for _ in range(3):
        bob.inject("event")
    for event in bob.events(DEADLINE_SECONDS):
        if event == "event":
            bob.close()


def test_error_in_the_with_block_closes_the_client(room: Room) -> None:
    def fail() -> None:
        with ChatClient("127.0.0.1", room.server.port) as client:
            client.login("alice", "secret")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    room.wait_for_connections(0)
    wait_for(lambda: receivers() == [], "the end of the thread")


# --- misuse ---


def test_call_out_of_order_is_a_usage_error(port: int, enter: Enter, fresh_name: Name) -> None:
    calls: list[tuple[str, Callable[[ChatClient], object]]] = [
        ("not connected", lambda client: client.login("alice", "secret")),
        ("login", lambda client: client.say("hello")),
        ("login", lambda client: client.users()),
        ("login", lambda client: next(client.events())),
    ]
    client = ChatClient()
    for match, call in calls:
        with pytest.raises(UsageError, match=match):
            call(client)
    client.close()
    for _, call in [*calls, ("", ChatClient.connect)]:
        with pytest.raises(UsageError, match="closed"):
            call(client)
    alice = enter(port, fresh_name("alice"))
    with pytest.raises(UsageError, match="connected before"):
        alice.connect()
    with pytest.raises(UsageError, match="another ChatClient"):
        alice.login("alice", "secret")
    alice.say("still here")


def test_argument_of_the_wrong_type_is_a_usage_error(port: int, enter: Enter, fresh_name: Name) -> None:
    """It names the argument and its value, but no password, and the client can be used on."""
    alice: Any = enter(port, fresh_name("alice"))
    calls: list[tuple[str, Callable[[], object]]] = [
        ("text is of the type NoneType", lambda: alice.say(None)),
        ("text is of the type bytes; it must be str; decode", lambda: alice.say(b"x")),
        ("to is of the type NoneType", lambda: alice.whisper(None, "x")),
        ("limit is '5'", lambda: alice.history("5")),
        ("limit is True", lambda: alice.history(True)),
        ("limit is an int that is too long", lambda: alice.history(10**5_000)),
        ("before is 1.5", lambda: alice.history(before=1.5)),
        ("words is of the type list", lambda: alice.search(["x"])),
        ("timeout_seconds is -1", lambda: next(alice.events(-1))),
        ("timeout_seconds is nan", lambda: next(alice.events(float("nan")))),
        ("port is '9999'", lambda: ChatClient(port="9999")),  # type: ignore[arg-type]
        ("port is 70000; it must be a whole number .int. from 1 to 65535", lambda: ChatClient(port=70_000)),
        ("The port is 'b'", lambda: ChatClient("a b")),
        ("dialect is 'morse'; it must be one of 'json', 'websocket', 'frames'", lambda: ChatClient(dialect="morse")),
        ("ops is 'xm'", lambda: ChatClient(ops="xm")),
        ("register_length is \\['bytes'\\]", lambda: ChatClient(register_length=["bytes"])),  # type: ignore[arg-type]
        ("retry_seconds is -1", lambda: ChatClient(retry_seconds=-1)),
    ]
    for match, call in calls:
        with pytest.raises(UsageError, match=match):
            call()
    alice.say("still here")
    with ChatClient("127.0.0.1", port) as client:
        for username, password in ((None, "secret"), ("alice", b"secret")):
            with pytest.raises(UsageError, match="it must be str") as wrong:
                client.login(username, password)  # type: ignore[arg-type]
            assert "secret" not in str(wrong.value)
        client.login(fresh_name("alice"), "secret")


# --- a lost connection ---


@TCP_PROTOCOLS
def test_missed_messages_follow_the_reconnect_once(room: Room, enter: Enter, protocol: str) -> None:
    """Promise: once. A message that is sent without a connection waits for it."""
    with TcpProxy(room.server.port) as proxy:
        alice, bob = enter(proxy.port, "alice", protocol), enter(room.server.port, "bob")
        bob.say("before")
        assert texts(alice, "before") == ["before"]
        proxy.cut()
        assert next_of(alice, ConnectionLost, Reconnected) == ConnectionLost("the server closed the connection")
        bob.say("one")
        bob.whisper("alice", "two")
        with meanwhile(lambda: (alice.say("hello"), alice.users())) as outcome:
            proxy.mend()
            message_id, users = outcome.get(timeout=DEADLINE_SECONDS)
        assert next_of(alice, ConnectionLost, Reconnected, PublicMessage).username == "alice"
        bob.say("three")
        assert texts(alice, "three") == ["one", "two", "three"]
        assert sorted(users) == ["alice", "bob"]
        assert [message.id for message in bob.history() if message.text == "hello"] == [message_id]
        alice.close()


@TCP_PROTOCOLS
def test_unconfirmed_message_is_stored_once(room: Room, enter: Enter, protocol: str) -> None:
    """Promise: once, though the confirmation was lost."""
    with TcpProxy(room.server.port) as proxy:
        alice, bob = enter(proxy.port, "alice", protocol), enter(room.server.port, "bob")
        alice.say("before")
        # In frames a message takes two steps, and the first one is answered.
        proxy.loses_answers = protocol == "json"
        with meanwhile(lambda: alice.say("under way")) as outcome:
            assert texts(bob, "under way") == ["before", "under way"]
            proxy.cut()
            proxy.mend()
            message_id = outcome.get(timeout=DEADLINE_SECONDS)
        assert [(message.id, message.text) for message in bob.history()][1:] == [(message_id, "under way")]
        alice.close()


def test_guest_message_without_an_answer_is_not_sent_again(room: Room, enter: Enter) -> None:
    """Guests have no nonces, so it is not known whether it was delivered."""
    with TcpProxy(room.server.port) as proxy:
        alice, bob = enter(proxy.port, "alice", "register"), room.enter_guest("bob")
        proxy.loses_answers = True
        with meanwhile(lambda: alice.say("hello")) as outcome:
            assert bob.take() == ("alice", "hello")
            proxy.cut()
            proxy.mend()
            assert isinstance(outcome.get(timeout=DEADLINE_SECONDS), LostError)
        with meanwhile(lambda: alice.whisper("bob", "psst")):
            assert bob.take() == ("alice", "psst")
        alice.close()


@PROTOCOLS
def test_client_returns_to_a_restarted_server(
    open_room: Callable[..., Room], kept_port: int, enter: Enter, protocol: str
) -> None:
    room = open_room(port=kept_port)
    alice = enter(kept_port, "alice", protocol)
    room.stop()
    assert isinstance(next_of(alice, ConnectionLost), ConnectionLost)
    open_room(port=kept_port)
    assert next_of(alice, Reconnected).username == "alice"
    alice.say("hello again")
    alice.close()


@TCP_PROTOCOLS
def test_client_that_gives_up_raises_lost_error(open_room: Callable[..., Room], enter: Enter, protocol: str) -> None:
    """From every call, after the events before."""
    room = open_room()
    alice, bob = (enter(room.server.port, name, protocol, retry_seconds=0.1) for name in ("alice", "bob"))
    bob.say("last words")
    room.stop()
    happened: list[Any] = []
    with pytest.raises(LostError):
        happened += alice.events(DEADLINE_SECONDS)
    assert [event.text for event in happened if isinstance(event, PublicMessage)] == ["last words"]
    assert isinstance(happened[-1], ConnectionLost)
    for call in (lambda: alice.say("x"), alice.users, alice.history, lambda: list(alice.events())):
        with pytest.raises(LostError):
            call()


def test_close_does_not_wait_for_a_lost_connection(proxy: TcpProxy, enter: Enter, fresh_name: Name) -> None:
    alice = enter(proxy.port, fresh_name("alice"), retry_seconds=1_000_000.0)
    proxy.cut()
    next_of(alice, ConnectionLost)
    alice.close()


# --- the example ---


def test_example_bot_says_why_it_can_not_start(room: Room, enter: Enter) -> None:
    """One line; without a password its usage."""
    enter(room.server.port, "taken")
    words = [sys.executable, str(EXAMPLE), "127.0.0.1", str(room.server.port), "taken"]
    environment = {name: value for name, value in os.environ.items() if name != "CHAT_PASSWORD"}
    for variables, expected in (
        ({}, "Start it with: "),
        ({"CHAT_PASSWORD": "wrong"}, "taken: That is not the password"),
    ):
        bot = subprocess.run(words, env=environment | variables, capture_output=True, text=True, check=False)
        assert bot.returncode == 1
        assert expected in bot.stderr
        assert "Traceback" not in bot.stderr


def test_example_bot_answers_and_outlives_what_it_can_not_answer(room: Room, enter: Enter) -> None:
    """About twenty lines, with their usage."""
    source = EXAMPLE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 24
    assert "python docs/examples/echo_bot.py HOST PORT NAME" in source
    alice = enter(room.server.port, "alice")
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), "127.0.0.1", str(room.server.port), "Echo"],
        env={**os.environ, "CHAT_PASSWORD": "secret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as bot:
        try:
            wait_for(lambda: "Echo" in alice.users(), "it has logged in")
            alice.say("hello everybody")
            alice.say("echo: are you there?")
            assert texts(alice, "alice: are you there?") == ["alice: are you there?"]
            alice.say("ECHO:")
            assert texts(alice, "alice: yes?") == ["alice: yes?"]
            alice.whisper("Echo", "x" * 8_192)
            alice.whisper("echo", "psst")
            assert next_of(alice, PublicMessage, DirectMessage).text == "You wrote: psst"
            bot.send_signal(signal.SIGINT)
            output, _ = bot.communicate(timeout=DEADLINE_SECONDS)
            assert (bot.returncode, output) == (0, b"")
        finally:
            bot.kill()
