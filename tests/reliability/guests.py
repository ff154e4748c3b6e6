"""Guests who talk without a pause, and confirm what they hear."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from integration.room import Guest, sent

if TYPE_CHECKING:
    from collections.abc import Callable


class HearingGuest(Guest):
    """A guest with a thread that confirms whatever comes, until the server closes or :meth:`leave`."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        # Sender and text of all that was forwarded.
        self.heard: list[tuple[str, str]] = []
        self._listening = threading.Thread(target=self._listen, name=f"{name} listens")

    def come_in(self) -> None:
        super().come_in()
        self.listen()

    def listen(self) -> None:
        """From now on. Both connections are registered."""
        self._listening.start()

    def join(self) -> None:
        """Wait until the connection for receiving has ended."""
        if self._listening.ident is not None:
            self._listening.join()

    def _listen(self) -> None:
        with suppress(ConnectionError):
            while section := self.receiving.section():
                header, _, body = section.partition(b"\n\n")
                words = header.split()
                assert words[0] == b"FORWARD", section
                self.heard.append((words[1].decode(), body.decode()))
                self.confirm(words[1].decode())


class TalkingGuest(HearingGuest):
    """One who says the next thing as soon as the last one is answered, to each of ``receivers`` in turn."""

    def __init__(self, port: int, name: str, receivers: list[str], note: Callable[[], None]) -> None:
        """``note`` is called with each answer, by a thread of this guest."""
        super().__init__(port, name)
        self.said: list[tuple[str, str]] = []
        # Of what was said: to whom and what, where the answer was that it has come; and how much was answered.
        self.confirmed: list[tuple[str, str]] = []
        self.answers = 0
        self._receivers = receivers
        self._note = note
        self._talking = threading.Thread(target=self._talk, name=f"{name} talks")

    def talk(self) -> None:
        """From now on, until the server closes."""
        self._talking.start()

    def join(self) -> None:
        """Wait until both connections have ended."""
        super().join()
        self._talking.join()

    def _talk(self) -> None:
        with suppress(ConnectionError):
            while True:
                to = self._receivers[len(self.said) % len(self._receivers)]
                text = f"{self.name} says {len(self.said)}"
                self.said.append((to, text))
                answer = self.say(to, text)
                if not answer:
                    return
                self.answers += 1
                if answer == sent(to):
                    self.confirmed.append((to, text))
                self._note()
