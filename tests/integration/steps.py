"""Steps of the dialogue of typed frames, and what is refused of them wherever it is spoken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.room import typed_frame

if TYPE_CHECKING:
    from integration.room import FramesPeer

FRAME_MAX = 65_536


def c(text: str) -> bytes:
    return typed_frame(b"C", text.encode())


def d(text: str) -> bytes:
    return typed_frame(b"D", text.encode())


def without_sentences(frames: list[str]) -> list[str]:
    """Of what is for people the code is enough."""
    return [" ".join(text.split(" ")[:3]) if text.startswith("C ERROR ") else text for text in frames]


def leave(peer: FramesPeer) -> None:
    """Once the goodbye has come, the seat is free."""
    peer.command("EX")
    assert peer.rest() == ["C BYE"]


# What is sent, and what comes. The connection lives on after each of them, and an operation is due.
REFUSED: dict[str, tuple[bytes, list[str]]] = {
    "D where an operation is due": (d("hello"), ["C ERROR bad_request"]),
    "C where a text is due": (c("PM") + c("hello"), ["C READY", "C ERROR bad_request"]),
    "D where a recipient is due": (c("DM") + d("hello"), ["C ONLINE alice bob carol", "C ERROR bad_request"]),
    "C where a direct text is due": (
        c("DM") + c("bob") + c("hello"),
        ["C ONLINE alice bob carol", "C ERROR bad_request"],
    ),
    "an unknown operation": (c("SHUTDOWN"), ["C ERROR unknown_command"]),
    "an operation of the other tradition": (c("BM"), ["C ERROR unknown_command"]),
    "an operation with its text": (c("PM hello"), ["C ERROR unknown_command"]),
    "an empty command": (c(""), ["C ERROR unknown_command"]),
    "history of nothing": (c("CH 0"), ["C ERROR bad_request"]),
    "history without end": (c("CH 501"), ["C ERROR bad_request"]),
    "an empty message": (c("PM") + d(""), ["C READY", "C ERROR empty_message"]),
    "a message of white space": (c("PM") + d(" \n\t "), ["C READY", "C ERROR empty_message"]),
    "a message over the limit": (c("PM") + d("é" * 4_097), ["C READY", "C ERROR too_long"]),
    "a message of the longest frame": (c("PM") + d("x" * (FRAME_MAX - 5)), ["C READY", "C ERROR too_long"]),
    "an empty direct message": (
        c("DM") + c("bob") + d(""),
        ["C ONLINE alice bob carol", "C ERROR empty_message"],
    ),
    "a message to nobody": (c("DM") + c("nobody") + d("x"), ["C ONLINE alice bob carol", "C NOUSER nobody"]),
    "a command that is not UTF-8": (typed_frame(b"C", b"P\xff"), ["C ERROR bad_request"]),
    "a message that is not UTF-8": (c("PM") + typed_frame(b"D", b"\xff\xfe"), ["C READY", "C ERROR bad_request"]),
    "half a surrogate": (c("PM") + typed_frame(b"D", b"\xed\xa0\x80"), ["C READY", "C ERROR bad_request"]),
    "a cut letter": (c("PM") + typed_frame(b"D", "é".encode()[:1]), ["C READY", "C ERROR bad_request"]),
}

# The same before the login: a name is due.
REFUSED_OUTSIDE: dict[str, tuple[bytes, list[str]]] = {
    "a public message": (c("PM") + d("x"), ["C ERROR not_logged_in"] * 2),
    "a direct message": (c("DM"), ["C ERROR not_logged_in"]),
    "the other tradition": (c("BM"), ["C ERROR not_logged_in"]),
    "history": (c("CH"), ["C ERROR not_logged_in"]),
    "no name": (c(""), ["C ERROR bad_username"]),
    "a name of other letters": (c("алиса"), ["C ERROR bad_username"]),
    "a name with an escape": (c("\x1b[2J"), ["C ERROR bad_username"]),
    "a name over the limit": (c("a" * 33), ["C ERROR bad_username"]),
    "a reserved name": (c("aLL"), ["C ERROR bad_username"]),
    "a name that is not UTF-8": (typed_frame(b"C", b"\xff"), ["C ERROR bad_request"]),
    "a tradition that is none": (c("bob dm-pm"), ["C ERROR bad_request"]),
}

# A password is due.
REFUSED_ASKED: dict[str, tuple[bytes, list[str]]] = {
    "an empty password": (c(""), ["C ERROR bad_request"]),
    "a password over the limit": (c("p" * 1_025), ["C ERROR too_long"]),
    "a password that is not UTF-8": (typed_frame(b"C", b"\xff"), ["C ERROR bad_request"]),
    "a password in a D frame": (d("secret"), ["C ERROR bad_request"]),
}
