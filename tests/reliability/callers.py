"""Callers: many users of datagram, all of which one thread looks after: that of the test."""

from __future__ import annotations

import re
import selectors
import time
from typing import TYPE_CHECKING, Self

from integration.room import DatagramPeer, c, d
from reliability.crowd import DEADLINE_SECONDS
from reliability.history import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# So often it is looked what each has to send again.
_TICK_SECONDS = 0.05


class Caller(DatagramPeer):
    """One of them. What comes is collected in ``seen``, in order, and ``react`` is called with it, if it is set."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port)
        self.name = name
        self.seen: list[str] = []
        self.react: Callable[[Caller, str], None] | None = None

    def go_on(self) -> None:
        """A turn, and what follows from it."""
        self.turn()
        while frames := self.arrived():  # to react may be to hear more
            for frame in frames:
                self.seen.append(frame)
                if self.react is not None:
                    self.react(self, frame)

    def of(self, *words: str) -> list[str]:
        """What was seen that begins like this."""
        return [frame for frame in self.seen if frame.startswith(words)]


class Callers:
    """All of them. Nothing is sent or acknowledged but while somebody waits here.

    Leaving the context closes their sockets.
    """

    def __init__(self) -> None:
        self.members: list[Caller] = []
        self._selector = selectors.DefaultSelector()
        self._look_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for member in self.members:
            member.close()

    def enter(self, port: int, names: Iterable[str]) -> list[Caller]:
        """Log in one for each name; returns when all are welcome."""
        callers = []
        for name in names:
            caller = Caller(port, name)
            callers.append(caller)
            self.members.append(caller)
            self._selector.register(caller.socket, selectors.EVENT_READ, caller)
            caller.command(name)
            caller.command("secret")
        self.wait_until(lambda: all(each.of("C WELCOME") or each.is_over for each in callers), "everybody's welcome")
        for caller in callers:
            assert caller.of("C WELCOME"), f"the server sent {caller.name} away: {caller.seen}"
        return callers

    def vanish(self, callers: Iterable[Caller]) -> None:
        """Without a word."""
        for caller in list(callers):
            self._selector.unregister(caller.socket)
            self.members.remove(caller)
            caller.close()

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Go on until something is true; fail when it takes too long."""
        give_up_at = time.monotonic() + seconds
        self.go_on(0.0)
        while not holds():
            assert time.monotonic() < give_up_at, f"waited {seconds:g} s in vain for {what}"
            self.go_on(_TICK_SECONDS)

    def go_on(self, patience_seconds: float) -> None:
        """Wait for something to come, but no longer than this; then whoever has something to do does it."""
        for key, _ in self._selector.select(patience_seconds):
            key.data.go_on()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _TICK_SECONDS
            for member in self.members:
                if now >= member.look_at():
                    member.go_on()


class UdpSession:
    """Somebody who says the next thing as soon as the last ones are confirmed, to each of ``recipients`` in turn.

    Of what it says only ``WINDOW`` messages are not confirmed at a time. None stands for everybody.
    """

    WINDOW = 4

    def __init__(self, caller: Caller, recipients: list[str | None]) -> None:
        self.caller = caller
        self.said: list[Content] = []
        # By id: what was confirmed, in the order of what was said, and what others said.
        self.confirmed: dict[int, Content] = {}
        self.heard: dict[int, Content] = {}
        self._recipients = recipients
        caller.react = self._react
        for _ in range(self.WINDOW):
            self._say_next()

    def _say_next(self) -> None:
        recipient = self._recipients[len(self.said) % len(self._recipients)]
        content = Content(self.caller.name, recipient, f"{self.caller.name} says {len(self.said)}")
        self.said.append(content)
        if recipient is None:
            self.caller.send(c("PM") + d(content.text))
        else:
            self.caller.send(c("DM") + c(recipient) + d(content.text))

    def _react(self, _: Caller, frame: str) -> None:
        confirmed = re.fullmatch(r"C (?:SENT|STORED) (\d+)", frame)
        if confirmed is not None:
            message_id = int(confirmed[1])
            assert message_id > max(self.confirmed, default=0), "confirmations come in the order of the messages"
            self.confirmed[message_id] = self.said[len(self.confirmed)]
            self._say_next()
        elif frame.startswith("D "):
            header, _, text = frame.partition("\n")
            _, kind, sender, number, _ = header.split(" ")
            assert int(number) > max(self.heard, default=0), "once, and in order"
            self.heard[int(number)] = Content(sender, None if kind == "PUBLIC" else self.caller.name, text)
