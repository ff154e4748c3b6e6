"""Story 12: clients of the dialects frames and datagram, in both traditions of words, beside others in one room."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from .harness.stack import password_of, together

if TYPE_CHECKING:
    from .harness.actors import Client
    from .harness.stack import Stack


class Tradition(NamedTuple):
    """How the operations are called, and the flags of a client that calls them so."""

    public: str
    direct: str
    flags: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return f"operation ({self.public}, {self.direct}, CH, EX)"


TRADITIONS = {
    "pm-dm": Tradition("PM", "DM", ("--dialect", "frames")),
    "bm-pm": Tradition("BM", "PM", ("--dialect", "frames", "--ops", "bm-pm")),
    "pm-dm over UDP": Tradition("PM", "DM", ("--dialect", "datagram")),
    "bm-pm over UDP": Tradition("BM", "PM", ("--udp", "--ops", "bm-pm")),
}


@pytest.fixture(params=TRADITIONS.values(), ids=TRADITIONS)
def words(request: pytest.FixtureRequest) -> Tradition:
    """Each story is told in both traditions, over TCP and over UDP."""
    tradition: Tradition = request.param
    return tradition


def come_in(stack: Stack, words: Tradition, name: str) -> Client:
    """A client that was asked for its first operation."""
    client = stack.client(name, *words.flags)
    client.asked(words.prompt)
    return client


def say(client: Client, words: Tradition, text: str) -> None:
    """A public message, step by step."""
    client.type(words.public)
    client.expect_next("[ask] message for everybody")
    client.type(text)
    client.expect_next("[sent #")
    client.expect_next(f"[ask] {words.prompt}")


def whisper(client: Client, words: Tradition, recipient: str, text: str) -> str:
    """A direct message, step by step; returns the list of those online that was shown."""
    client.type(words.direct)
    online = client.expect("[users ").string
    client.expect_next("[ask] recipient")
    client.type(recipient)
    client.expect_next(f"[ask] message for {recipient}")
    client.type(text)
    client.expect_sent()
    client.expect_next(f"[ask] {words.prompt}")
    return online


def test_many_register_at_the_same_time_and_none_blocks_another(stack: Stack, words: Tradition) -> None:
    """Some stand at the password prompt while others come in and talk; then they come in as well."""
    stack.start_server()
    names = [f"user{number}" for number in range(6)]
    slow = together(lambda name: stack.start_client(f"slow{name}", *words.flags), names)
    for client in slow:
        client.transcript.expect_somewhere("[ask] password new")
    quick = together(lambda name: come_in(stack, words, name), names)
    for client in quick:
        client.type(words.public)
        client.expect_next("[ask] message for everybody")

    # All of them stand at a prompt, and the last one goes on first.
    for speaker in reversed(quick):
        speaker.type(f"hello from {speaker.name}")
        speaker.expect("[sent #")
        for listener in quick:
            if listener is not speaker:
                listener.expect(f"{speaker.name}: hello from {speaker.name}")

    together(lambda client: client.log_in(password_of(client.name), account="new"), slow)
    for client in [*quick, *slow]:
        client.leave()


def test_a_direct_message_reaches_a_client_that_stands_at_a_prompt(stack: Stack, words: Tradition) -> None:
    """At each prompt of alice's dialogue bob writes to her, from another dialect; the dialogue goes on where it was."""
    stack.start_server()
    alice = come_in(stack, words, "alice")
    bob = stack.client("bob")
    carol = come_in(stack, words, "carol")

    def interrupt(text: str) -> None:
        bob.type(f"DM alice {text}")
        bob.expect_sent()
        alice.expect_next(f"bob -> alice: {text}")

    interrupt("at the operation")
    alice.type(words.direct)
    alice.expect_next("[users 3] alice bob carol")
    alice.expect_next("[ask] recipient")
    interrupt("at the recipient")
    alice.type("carol")
    alice.expect_next("[ask] message for carol")
    interrupt("at the message")
    alice.type("at last")
    alice.expect_next("[sent #")
    alice.expect_next(f"[ask] {words.prompt}")
    carol.expect_next("alice -> carol: at last")
    alice.type(words.public)
    alice.expect_next("[ask] message for everybody")
    interrupt("at the public message")
    alice.type("to all of you")
    alice.expect_next("[sent #")
    bob.expect("alice: to all of you")
    carol.expect_next("alice: to all of you")
    bob.never_saw("at last")


def test_the_history_survives_leaving_coming_back_and_a_restart(stack: Stack, words: Tradition) -> None:
    """Each sees what was public and what was said to or by them; the same with a client of another dialect."""
    server = stack.start_server()
    alice, bob = come_in(stack, words, "alice"), come_in(stack, words, "bob")
    say(alice, words, "one")
    whisper(alice, words, "bob", "two")
    bob.expect("alice -> bob: two")
    bob.leave()
    say(alice, words, "three")
    alice.type(f"{words.direct} bob four")
    alice.expect_next("[stored #")
    alice.leave()
    server.expect("[INFO] alice left")
    server.expect("[INFO] Waiting for connection on port")
    assert server.stop() == 0
    server.start()

    bob = come_in(stack, words, "bob")
    bob.expect("alice -> bob: four")
    check_history(bob, ["alice: one", "alice -> bob: two", "alice: three", "alice -> bob: four"])
    check_history(stack.client("carol"), ["alice: one", "alice: three"])
    # Whom her own direct messages were for is the one thing that this dialect does not tell.
    alice = come_in(stack, words, "alice")
    check_history(alice, ["alice: one", "alice -> ?: two", "alice: three", "alice -> ?: four"])


def check_history(client: Client, lines: list[str]) -> None:
    client.type("CH")
    client.expect(f"[history {len(lines)}]")
    for line in lines:
        assert client.expect_next("[history #").string.endswith(f"] {line}")


def test_both_traditions_and_other_dialects_sit_in_one_room(stack: Stack) -> None:
    """Public and direct messages in all directions; who comes and goes is told where the dialect tells it."""
    stack.start_server()
    json = stack.client("json")
    frames = come_in(stack, TRADITIONS["pm-dm"], "frames")
    classic = come_in(stack, TRADITIONS["bm-pm"], "classic")
    datagram = come_in(stack, TRADITIONS["pm-dm over UDP"], "datagram")
    everybody = (json, frames, classic, datagram)
    for other in everybody[1:]:
        json.expect(f"[joined] {other.name}")

    for speaker, command in ((json, "PM"), (frames, "PM"), (classic, "BM"), (datagram, "PM")):
        speaker.type(f"{command} hello from {speaker.name}")
        speaker.expect_sent()
        for listener in everybody:
            if listener is not speaker:
                listener.expect(f"{speaker.name}: hello from {speaker.name}")
    assert whisper(frames, TRADITIONS["pm-dm"], "json", "psst json") == "[users 4] classic datagram frames json"
    json.expect("frames -> json: psst json")
    whisper(classic, TRADITIONS["bm-pm"], "frames", "psst frames")
    frames.expect("classic -> frames: psst frames")
    json.type("DM datagram psst datagram")
    datagram.expect("json -> datagram: psst datagram")
    whisper(datagram, TRADITIONS["pm-dm over UDP"], "classic", "psst classic")
    classic.expect("datagram -> classic: psst classic")

    frames.leave()
    json.expect("[left] frames")
    stack.fence(json, classic, datagram)
    for client in everybody:
        client.saw_once("psst")


def test_the_server_goes_away_and_comes_back_under_a_client(stack: Stack, words: Tradition) -> None:
    """The dialect has no word for it: the client finds what it missed in the history, and sends nothing twice."""
    server = stack.start_server()
    alice, bob = come_in(stack, words, "alice"), stack.client("bob")
    bob.say("before the restart")
    alice.expect_next("bob: before the restart")
    alice.type(words.public)
    alice.expect_next("[ask] message for everybody")
    assert server.stop() == 0
    alice.expect("[lost]")
    alice.type("said to a server that is not there")
    server.start()
    alice.expect("[back] alice")
    alice.expect_sent()
    bob.expect("alice: said to a server that is not there")
    stack.fence(bob, alice)
    alice.saw_once("before the restart")
    bob.saw_once("not there")


def test_a_wrong_password_is_asked_for_again_three_times(stack: Stack, words: Tradition) -> None:
    """Three tries and exit code 3, as in every dialect."""
    stack.start_server()
    come_in(stack, words, "alice").leave()
    intruder = stack.start_client("alice", *words.flags)
    intruder.asked("password existing")
    for guess in ("wrong", "Wrong", "right?"):
        intruder.type(guess)
        intruder.expect("[error wrong_password]")
    assert intruder.wait_exit() == 3
    intruder.never_saw("[welcome")


def test_the_username_is_asked_for_where_none_is_given(stack: Stack, words: Tradition) -> None:
    """A name that can't be is told, and asked for again."""
    stack.start_server()
    nameless = stack.start_nameless_client(*words.flags)
    nameless.asked("username")
    nameless.type("not a name")
    nameless.expect_next("[error bad_username]")
    nameless.asked("username")
    nameless.type("alice")
    nameless.asked("password new")
    nameless.type("secret")
    nameless.expect_next("[welcome new] alice")
    nameless.leave()
