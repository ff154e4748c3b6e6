"""Users that talk without a pause: guests of register and of irc, and users of datagram.

Each sends its next message as soon as an earlier one is confirmed, to its recipients in turn: all, carol, and another
talker. No text is sent twice.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from integration.irc import IrcPeer, parse
from integration.room import c, d, sent
from reliability.crowd import DEADLINE_SECONDS, Crowd, UdpMember
from reliability.guests import AckingGuest
from reliability.history import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Talker:
    """One user and its messages."""

    def __init__(self, name: str, other: str, prefix: str) -> None:
        self.name = name
        self.said: list[Content] = []
        # In order.
        self.confirmed: list[Content] = []
        # Sender and text of each message of others, in order.
        self.heard: list[tuple[str, str]] = []
        # Messages whose id the server has told.
        self.ids: dict[int, Content] = {}
        self._prefix = prefix
        self._recipients = (None, "carol", other)

    def next_content(self) -> Content:
        recipient = self._recipients[len(self.said) % len(self._recipients)]
        self.said.append(Content(self.name, recipient, f"{self._prefix}{self.name} says {len(self.said)}"))
        return self.said[-1]


class _TalkingGuest(Talker):
    def __init__(self, port: int, name: str, other: str, prefix: str, note: Callable[[], None]) -> None:
        """``note`` is called after each answer, by a thread of this guest."""
        super().__init__(name, other, prefix)
        self.guest = AckingGuest(port, name)
        self.heard = self.guest.heard
        self.thread = threading.Thread(target=self._talk, name=f"{name} talks")
        self._note = note

    def _talk(self) -> None:
        with suppress(ConnectionError):
            while True:
                content = self.next_content()
                to = content.recipient or "ALL"
                answer = self.guest.say(to, content.text)
                if not answer:
                    return
                if answer == sent(to):
                    self.confirmed.append(content)
                self._note()


class GuestTalkers:
    """Guests, with two threads each. Leaving the context closes their connections."""

    def __init__(self, port: int, names: Sequence[str], prefix: str = "") -> None:
        self._answers = threading.Semaphore(0)
        self.members = [
            _TalkingGuest(port, name, names[number - 1], prefix, self._answers.release)
            for number, name in enumerate(names)
        ]

    def __enter__(self) -> Self:
        for member in self.members:
            member.guest.register()
        for member in self.members:
            member.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.guest.stop()
            if member.thread.ident is not None:
                member.thread.join()

    def wait_for_confirmations(self, count: int) -> None:
        for _ in range(count):
            assert self._answers.acquire(timeout=DEADLINE_SECONDS), f"waited in vain for {count} confirmations"

    def wait_for_end(self) -> None:
        """Wait until the server has closed all connections."""
        for member in self.members:
            member.guest.join()
            member.thread.join()


class _UdpTalker(Talker):
    # Unconfirmed messages.
    WINDOW = 4

    def __init__(self, member: UdpMember, other: str, prefix: str) -> None:
        super().__init__(member.name, other, prefix)
        self._member = member
        self._confirmed_id = self._heard_id = 0
        member.react = self._react
        for _ in range(self.WINDOW):
            self._say_next()

    def _say_next(self) -> None:
        content = self.next_content()
        recipient = content.recipient
        self._member.send((c("PM") if recipient is None else c("DM") + c(recipient)) + d(content.text))

    def _react(self, frame: str) -> None:
        if confirmed := re.fullmatch(r"C (?:SENT|STORED) (\d+)", frame):
            assert int(confirmed[1]) > self._confirmed_id, "confirmations are in order"
            self._confirmed_id = int(confirmed[1])
            self.confirmed.append(self.said[len(self.confirmed)])
            self.ids[self._confirmed_id] = self.confirmed[-1]
            self._say_next()
        elif message := re.match(r"D (PUBLIC|DIRECT) (\w+) (\d+) \d+\n", frame):
            content = Content(message[2], None if message[1] == "PUBLIC" else self.name, frame[message.end() :])
            assert int(message[3]) > self._heard_id, "messages come once, in order"
            self._heard_id = int(message[3])
            self.heard.append((content.sender, content.text))
            self.ids[self._heard_id] = content


class UdpTalkers:
    """Users of datagram, with one thread. The interface of GuestTalkers."""

    def __init__(self, port: int, names: Sequence[str], prefix: str = "") -> None:
        self.members: list[_UdpTalker] = []
        self._port, self._names, self._prefix = port, names, prefix
        self._crowd = Crowd()

    def __enter__(self) -> Self:
        self._crowd.__enter__()
        members = self._crowd.enter_udp(self._port, self._names)
        with self._crowd.changed:  # no reaction before all have begun
            self.members += [
                _UdpTalker(member, self._names[number - 1], self._prefix) for number, member in enumerate(members)
            ]
        return self

    def __exit__(self, *_: object) -> None:
        self._crowd.__exit__()

    def wait_for_confirmations(self, count: int) -> None:
        self._crowd.wait_until(
            lambda: sum(len(member.confirmed) for member in self.members) >= count, f"{count} confirmations"
        )

    def wait_for_end(self) -> None:
        for member in self._crowd.udp_members:
            member.command("PING")  # a peer that only waits would not notice a kill
        self._crowd.wait_until_all_are_over()


class _IrcTalker(Talker):
    # Unconfirmed messages.
    WINDOW = 4

    def __init__(self, port: int, name: str, other: str, prefix: str, note: Callable[[], None]) -> None:
        """``note`` is called after each confirmation, by the thread of this guest."""
        super().__init__(name, other, prefix)
        self.peer = IrcPeer(port)
        self.thread = threading.Thread(target=self._talk, name=f"{name} talks")
        self._note = note

    def register(self) -> None:
        self.peer.register(self.name, caps="batch echo-message labeled-response message-tags server-time")
        self.peer.put("JOIN #lobby")
        self.peer.sync()

    def _talk(self) -> None:
        with suppress(ConnectionError):
            for _ in range(self.WINDOW):
                self._say_next()
            while line := self._next_line():
                self._hear(line)

    def _next_line(self) -> str:
        with suppress(AssertionError):  # the server was killed inside a line
            return self.peer.line()
        return ""

    def _say_next(self) -> None:
        content = self.next_content()
        self.peer.put(f"@label={len(self.said) - 1} PRIVMSG {content.recipient or '#lobby'} :{content.text}")

    def _hear(self, text: str) -> None:
        line = parse(text)
        if line.command != "PRIVMSG":
            return
        sender, (target, said) = line.source.partition("!")[0], line.params
        content = Content(sender, None if target == "#lobby" else target, said)
        self.ids[int(line.tags["msgid"])] = content
        if sender == self.name:
            # With the wrong label, the content is confirmed that was not.
            self.confirmed.append(self.said[int(line.tags["label"])])
            self._note()
            self._say_next()
        else:
            self.heard.append((sender, said))


class IrcTalkers:
    """Guests of irc, with a thread each. The interface of GuestTalkers."""

    def __init__(self, port: int, names: Sequence[str], prefix: str = "") -> None:
        self._answers = threading.Semaphore(0)
        self.members = [
            _IrcTalker(port, name, names[number - 1], prefix, self._answers.release)
            for number, name in enumerate(names)
        ]

    def __enter__(self) -> Self:
        for member in self.members:
            member.register()
        for member in self.members:
            member.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            with suppress(OSError):
                member.peer.socket.shutdown(socket.SHUT_RDWR)
            if member.thread.ident is not None:
                member.thread.join()
            member.peer.close()

    def wait_for_confirmations(self, count: int) -> None:
        for _ in range(count):
            assert self._answers.acquire(timeout=DEADLINE_SECONDS), f"waited in vain for {count} confirmations"

    def wait_for_end(self) -> None:
        """Wait until the server has closed all connections."""
        for member in self.members:
            member.thread.join()
