"""A peer of IRC, over TCP or WebSocket, and dialogues with several of them.

A dialogue is a text. Each line is about one client:

    alice : NICK one            connect, and log in as a guest. After the colon: options, see ``_connect``
    alice > JOIN $room          send a line
    alice < :$alice!*@* JOIN $room
                                the next line that the client gets matches this pattern
    alice <+ PATTERN            the same for one of the next lines; those before it are skipped
    alice <<                    the lines before the next sync have all of the patterns that follow in lines with "&",
                                in this order; others may be between them
    alice & 353 ...
    alice <<<                   the same for all lines up to the end of the connection
    alice .                     sync: nothing else has come
    alice ..                    sync: whatever has come is skipped
    alice $                     the server closes the connection

A pattern is compared part by part. ``*`` stands for any characters of a part, ``...`` for any further parameters. A
pattern without a source, or without a tag, says nothing about it; ``!name`` among the tags means that there is none.
``$name`` is the nick of a client or another name of the dialogue; an unknown one takes the text that it stands for.
``$room`` and ``$room2`` are fresh channels, ``$nobody`` is a fresh nick, ``$dev`` is a fresh room, for ``#$dev`` too.
``$plain`` and ``$wrong`` are the credentials of the account that was registered last.

A client may also be one of json, which knows rooms and moderation. It has the same steps, except ``<+`` and ``<<``:

    olga : json
    olga > invite room=$dev username=$gus       send this command
    olga < invited username=$gus by=$olga       the next object, without lists of users, has this type and these members
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
from integration.room import _Peer, leave
from integration.web import WebPeer
from web_bytes import BINARY, TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Peer, Room

SERVER_NAME = "chat.local"
PASSWORD = "secret"
_SYNC = "sync"
# The value of a tag that is not there.
_NO_TAG = "\0"


def dialogues(scripts: dict[str, str], *, room: str = "shared_room") -> Callable[..., None]:
    """A test that plays each dialogue in the room of this fixture. Put it into a variable ``test_...``."""

    @pytest.mark.parametrize("script", scripts.values(), ids=scripts)
    def play(request: pytest.FixtureRequest, fresh_name: Callable[[str], str], script: str) -> None:
        Dialogue(request.getfixturevalue(room), fresh_name).play(script)

    return play


class Line(NamedTuple):
    """A line of IRC, or a pattern of one."""

    tags: dict[str, str]
    source: str
    command: str
    params: list[str]


def parse(text: str) -> Line:
    tags: dict[str, str] = {}
    source = ""
    if text.startswith("@"):
        first, _, text = text.partition(" ")
        tags = {name: value for name, _, value in (each.partition("=") for each in first[1:].split(";"))}
    if text.startswith(":"):
        source, _, text = text[1:].partition(" ")
    words, colon, last = text.partition(" :")
    command, *params = words.split()
    return Line(tags, source, command, [*params, last] if colon else params)


class IrcPeer(_Peer):
    """A peer of IRC."""

    def put(self, *lines: str) -> None:
        """Send lines."""
        self.send("".join(f"{line}\r\n" for line in lines).encode(errors="surrogateescape"))

    def line(self) -> str:
        """The next line; empty at the end."""
        if not self._read_until(lambda: b"\r\n" in self._buffer):
            assert self._buffer == b"", f"the server closed inside a line: {self._buffer!r}"
            return ""
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        assert len(line.removeprefix(b"@").partition(b" ")[2] if line.startswith(b"@") else line) <= 510, line
        return line.decode()

    def sync(self) -> list[str]:
        """All lines before the answer to a PING that is sent now."""
        self.put(f"PING {_SYNC}")
        found = []
        while (line := self.line()) and parse(line)[2:] != ("PONG", [SERVER_NAME, _SYNC]):
            found.append(line)
        assert line, f"the server closed after {found}"
        return found

    def until(self, *commands: str) -> Line:
        """The next line with one of these commands. Others are skipped."""
        seen = []
        with suppress(TimeoutError):
            while line := self.line():
                seen.append(line)
                if parse(line).command in commands:
                    return parse(line)
        raise AssertionError(f"no {' or '.join(commands)} after {seen}")

    def rest(self) -> list[str]:
        """All lines up to the end."""
        return list(iter(self.line, ""))

    def register(self, nick: str, *, caps: str = "", account: str = "", password: str = PASSWORD) -> list[str]:
        """Log in: as a guest, or as an account with SASL. Returns the lines from 001 on."""
        if caps or account:
            self.put(f"CAP REQ :{caps} {'sasl' if account else ''}")
        if account:
            self.put("AUTHENTICATE PLAIN", f"AUTHENTICATE {plain(account, password)}")
        self.put(f"NICK {nick}", f"USER {nick} 0 * :{nick} Realname")
        if caps or account:
            assert self.until("CAP").params[1] == "ACK"
            self.put("CAP END")
        first = self.until("001")
        assert first.params[0] == (account or nick)
        return self.sync()


class WebIrcPeer(IrcPeer):
    """A peer of IRC over WebSocket. Its subprotocol says whether messages are text or binary."""

    kind = TEXT

    def shake_hands(self, subprotocols: str) -> str:
        """``none``: name none. Returns the subprotocol that the server chose, or an empty text."""
        web = WebPeer.__new__(WebPeer)
        web.socket, web._buffer = self.socket, b""
        answer = web.shake_hands(Sec_WebSocket_Protocol=None if subprotocols == "none" else subprotocols)
        assert answer.status == 101, answer
        self._web = web
        chosen = answer.headers.get("sec-websocket-protocol", "")
        self.kind = BINARY if chosen.startswith("binary") else TEXT
        return chosen

    def put(self, *lines: str) -> None:
        for line in lines:
            self.send(frame(self.kind, line.encode(errors="surrogateescape")))

    def line(self) -> str:
        while True:
            first, payload = self._web.frame()
            if first in (-1, 0x88):
                return ""
            if first & 0xF in (TEXT, BINARY):
                assert first & 0xF == self.kind, "the wrong kind of message"
                assert b"\r" not in payload
                assert b"\n" not in payload
                return payload.decode()


def enter_irc(room: Room, nick: str, *, account: str = "", caps: str = "", over: str = "") -> IrcPeer:
    """A user in the lobby. The password of an account is PASSWORD; ``over``: the subprotocols of a WebSocket."""
    peer = room.connect(WebIrcPeer if over else IrcPeer)
    if isinstance(peer, WebIrcPeer):
        peer.shake_hands(over)
    peer.register(nick, caps=caps, account=account)
    peer.put("JOIN #lobby")
    peer.sync()
    return peer


def plain(account: str, password: str = PASSWORD) -> str:
    """The message of SASL PLAIN (RFC 4616) in base64."""
    return base64.b64encode(f"\0{account}\0{password}".encode()).decode()


class Dialogue:
    """The clients and the names of a dialogue."""

    def __init__(self, room: Room, fresh_name: Callable[[str], str]) -> None:
        self._room = room
        self._fresh_name = fresh_name
        self._peers: dict[str, IrcPeer] = {}
        self._json_peers: dict[str, Peer] = {}
        self._names = {"S": SERVER_NAME, "nobody": fresh_name("nobody"), "dev": fresh_name("dev")}
        self._names |= {name: f"#{fresh_name(name)}" for name in ("room", "room2")}
        self._said: list[str] = []

    def play(self, script: str) -> None:
        """Raises AssertionError with all that was said, and the line of the script that was not fulfilled."""
        steps = [line.strip() for line in script.strip().splitlines()]
        steps = [line for line in steps if line and not line.startswith("#")]
        at = 0
        while at < len(steps):
            step = steps[at]
            at += 1
            wanted = []
            while at < len(steps) and steps[at].split(maxsplit=2)[1] == "&":
                wanted.append(steps[at].split(maxsplit=2)[2])
                at += 1
            try:
                self._play_step(step, wanted)
            except (AssertionError, TimeoutError) as problem:
                said = "\n  ".join(self._said)
                raise AssertionError(f"{step}\n  failed: {problem}\n  {said}") from None

    def _play_step(self, step: str, wanted: list[str]) -> None:  # noqa: C901 -- a table of steps
        name, kind, *rest = step.split(maxsplit=2)
        text = rest[0] if rest else ""
        if name in self._json_peers:
            self._play_json(name, kind, self._fill(text))
            return
        match kind:
            case ":":
                self._connect(name, text)
            case ">":
                line = self._fill(text)
                self._said.append(f"{name} > {line}")
                self._peers[name].put(line)
            case "<":
                assert self._matches(text, self._next(name)), "the next line is another one"
            case "<+":
                while not self._matches(text, self._next(name)):
                    pass
            case "<<" | "<<<":
                lines = iter(self._sync(name) if kind == "<<" else self._peers[name].rest())
                for pattern in wanted:
                    assert any(self._matches(pattern, line) for line in lines), f"not there: {pattern}"
            case ".":
                assert self._sync(name) == [], "something has come"
            case "..":
                self._sync(name)
            case "$":
                assert self._peers[name].rest() == []
            case _:
                raise ValueError(step)

    def _play_json(self, name: str, kind: str, text: str) -> None:
        peer, (word, *members) = self._json_peers[name], text.split() or [""]
        wanted = dict(member.split("=") for member in members)
        if kind == ">":
            self._said.append(f"{name} > {text}")
            peer.ask(command=word, **wanted)
        elif kind == "<":
            while (found := json.loads(peer.line()))["type"] == "users":
                pass
            self._said.append(f"{name} < {found}")
            assert {"type": word, **wanted}.items() <= found.items(), "the next object is another one"
        elif kind in (".", ".."):
            objects = [each for each in peer.until_fence() if each["type"] != "users"]
            self._said += [f"{name} < {each}" for each in objects]
            assert kind == ".." or objects == [], "something has come"
        else:
            raise ValueError(kind)

    def _next(self, name: str) -> str:
        line = self._peers[name].line()
        self._said.append(f"{name} < {line}")
        assert line, "the server closed"
        return line

    def _sync(self, name: str) -> list[str]:
        lines = self._peers[name].sync()
        self._said += [f"{name} < {line}" for line in lines]
        return lines

    def _connect(self, name: str, options: str) -> None:
        """Options, separated by spaces:

        json: a client of json. raw: do not log in. account: log in with an account, which is registered.
        +capability: request it. nick=...: another nick. as=...: an account that exists. at=...: another address.
        over=...: the subprotocols of a WebSocket.
        """
        words = options.split()
        caps = " ".join(word[1:] for word in words if word.startswith("+"))
        values = dict(word.split("=") for word in words if "=" in word)
        nick = self._names.setdefault(name, self._fill(values["nick"]) if "nick" in values else self._fresh_name(name))
        if "json" in words:
            self._names[name] = values.get("as", nick)
            self._json_peers[name] = self._room.enter(self._names[name], rooms=True, moderation=True)
            return
        peer = self._room.connect(WebIrcPeer if "over" in values else IrcPeer, values.get("at"))
        if isinstance(peer, WebIrcPeer):
            peer.shake_hands(values["over"].replace(",", ", "))
        self._peers[name] = peer
        if "account" in words:
            leave(self._room.enter(nick))
            self._names |= {"plain": plain(nick), "wrong": plain(nick, "wrong")}
        account = values.get("as", nick if "account" in words else "")
        self._names[name] = account or nick
        if "raw" not in words:
            peer.register(nick, caps=caps, account=account)

    def _fill(self, text: str) -> str:
        """Replace known names."""
        return re.sub(r"\$(\w+)", lambda found: self._names[found[1]], text)

    def _matches(self, pattern: str, text: str) -> bool:
        """True if the line matches. Then unknown names of the pattern get their texts."""
        wanted, line = parse(pattern), parse(text)
        params = wanted.params
        if params[-1:] == ["..."]:
            params = params[:-1]
        elif len(params) != len(line.params):
            return False
        if len(params) > len(line.params) or any(name[1:] in line.tags for name in wanted.tags if name[0] == "!"):
            return False
        pairs = [(wanted.source or "*", line.source), (wanted.command, line.command)]
        pairs += zip(params, line.params, strict=False)
        pairs += [(value, line.tags.get(name, _NO_TAG)) for name, value in wanted.tags.items() if name[0] != "!"]
        found: dict[str, str] = {}
        for each, actual in pairs:
            match = re.fullmatch(self._regex(each), actual)
            if match is None or actual == _NO_TAG:
                return False
            found |= match.groupdict()
        self._names |= found
        return True

    def _regex(self, pattern: str) -> str:
        def replaced() -> Iterator[str]:
            for text, name in re.findall(r"([^$]+|\$(\w+))", pattern):
                if name:
                    yield re.escape(self._names[name]) if name in self._names else f"(?P<{name}>.+)"
                else:
                    yield ".*".join(map(re.escape, text.split("*")))

        return "".join(replaced())
