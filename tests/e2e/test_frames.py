"""Clients of frames and datagram, with both keyword sets, beside other clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from .harness.programs import Client
    from .harness.stack import Stack


class Keywords(NamedTuple):
    """The keywords of two operations, and the flags of a client that uses them."""

    public: str
    direct: str
    flags: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return f"operation ({self.public}, {self.direct}, CH, EX)"


FRAMES = Keywords("PM", "DM", ("--dialect", "frames"))
DATAGRAM = Keywords("BM", "PM", ("--dialect", "datagram", "--ops", "bm-pm"))


@pytest.fixture(params=[FRAMES, DATAGRAM], ids=["frames pm-dm", "datagram bm-pm"])
def words(request: pytest.FixtureRequest) -> Keywords:
    keywords: Keywords = request.param
    return keywords


def join(stack: Stack, words: Keywords, name: str) -> Client:
    """A client that was asked for its first operation."""
    client = stack.client(name, *words.flags)
    client.expect_question(words.prompt)
    return client


def whisper(client: Client, words: Keywords, recipient: str, text: str) -> str:
    """Send a direct message, step by step; returns the printed list of online users."""
    client.type(words.direct)
    online = client.expect("[users ").string
    client.expect_next("[ask] recipient")
    client.type(recipient)
    client.expect_next(f"[ask] message for {recipient}")
    client.type(text)
    client.expect_sent()
    client.expect_next(f"[ask] {words.prompt}")
    return online


def test_message_arrives_at_each_prompt(stack: Stack, words: Keywords) -> None:
    """A json client writes to alice between the steps of her operations, which continue at their step."""
    stack.start_server()
    alice = join(stack, words, "alice")
    bob = stack.client("bob")
    carol = join(stack, words, "carol")

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
    alice.expect_next("[ask] message for all users")
    interrupt("at the public message")
    alice.type("to all of you")
    alice.expect_next("[sent #")
    bob.expect("alice: to all of you")
    carol.expect_next("alice: to all of you")
    bob.assert_never("at last")


def test_all_wire_formats_and_keyword_sets_share_a_room(stack: Stack) -> None:
    """Public and direct messages in all directions; joins and leaves in the wire format that has them (json)."""
    stack.start_server()
    json = stack.client("json")
    classic = stack.client("classic", "--ops", "bm-pm")
    frames = join(stack, FRAMES, "frames")
    datagram = join(stack, DATAGRAM, "datagram")
    clients = (json, classic, frames, datagram)
    for other in clients[1:]:
        json.expect_online(other.name)

    for speaker, keyword in zip(clients, ("PM", "BM", "PM", "BM"), strict=True):
        speaker.type(f"{keyword} hello from {speaker.name}")
        speaker.expect_sent()
        for listener in clients:
            if listener is not speaker:
                listener.expect(f"{speaker.name}: hello from {speaker.name}")
    assert whisper(frames, FRAMES, "json", "psst json") == "[users 4] classic datagram frames json"
    json.expect("frames -> json: psst json")
    json.type("DM datagram psst datagram")
    datagram.expect("json -> datagram: psst datagram")
    whisper(datagram, DATAGRAM, "classic", "psst classic")
    classic.expect("datagram -> classic: psst classic")
    classic.type("PM frames psst frames", "DM frames not with these keywords")
    frames.expect("classic -> frames: psst frames")
    classic.expect("[error usage] DM is no operation")

    frames.leave()
    json.expect("[left] frames")
    stack.fence(json, datagram)
    for client in clients:
        client.assert_once("psst")


def test_client_reconnects_without_loss_or_repetition(stack: Stack, words: Keywords) -> None:
    """These wire formats can't resume: the client looks for missed messages in the history, and repeats no message."""
    server = stack.start_server()
    alice, bob = join(stack, words, "alice"), stack.client("bob")
    bob.say("before the restart")
    alice.expect_next("bob: before the restart")
    alice.type(words.public)
    alice.expect_next("[ask] message for all users")
    assert server.stop() == 0
    alice.expect("[lost]")
    alice.type("said while the server was away")
    server.start()
    alice.expect("[back] alice")
    alice.expect_sent()
    bob.expect("alice: said while the server was away")
    stack.fence(bob, alice)
    alice.assert_once("before the restart")
    bob.assert_once("was away")
