"""Clients of all wire formats in one room, with both keyword sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
