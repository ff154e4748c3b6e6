"""Builds the client, and runs its two threads: the collector, and the reactor."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from chatclient.connection import Connection
from chatclient.exits import Exit
from chatclient.model import Model
from chatclient.plain import PlainFace
from chatclient.reactor import EndOfInput, Input, Interrupt, Line, Reactor
from chatclient.script import ScriptError, play
from chatclient.typed import OPS
from chatprotocol.dialects import by_name

if TYPE_CHECKING:
    from chatclient.config import Config
    from chatclient.script import Action


class App:
    """One run of the client. The main thread feeds it with typed lines; the reactor uses them."""

    def __init__(self, config: Config, script: list[Action] | None) -> None:
        self._script = script
        # Whoever types has no more than a few lines in it; what the server says is read without a limit, because
        # whoever stops reading may keep the server from reading.
        self._inputs: queue.SimpleQueue[Input] = queue.SimpleQueue()
        self._face = PlainFace()
        self._connection = Connection(
            (config.server, config.port), by_name(config.dialect), config.retry_seconds, self._inputs.put
        )
        model = Model(config.user, config.password)
        self._reactor = Reactor(model, OPS[config.ops], self._face, self._connection.send)
        self._thread = threading.Thread(target=self._react, name="reactor")
        self._crash: BaseException | None = None

    def run(self) -> Exit:
        """Until the server or the input ends; all threads have ended then, too."""
        self._thread.start()
        self._connection.start()
        script_failed = False
        try:
            self._feed()
        except ScriptError as error:
            self._face.show([f"[error script] {error}"])
            script_failed = True
        except KeyboardInterrupt:
            self._inputs.put(Interrupt())
        finally:
            self._inputs.put(EndOfInput())
            self._join()
        if self._crash is not None:
            raise self._crash
        return Exit.SCRIPT if script_failed else self._reactor.exit or Exit.OK

    def _join(self) -> None:
        """A second Ctrl-C does not wait for the server's goodbye."""
        try:
            self._thread.join()
        finally:
            self._connection.close()
            self._thread.join()
            self._face.close()

    def _feed(self) -> None:
        if self._script is not None:
            play(self._script, self._face.transcript, self._play_line)
            return
        for line in self._face.typed_lines():
            if not self._type(line):
                return

    def _play_line(self, line: str) -> bool:
        """A line of a script is shown as well: nobody sees it being typed."""
        self._face.show([f"> {line}"])
        return self._type(line)

    def _type(self, line: str) -> bool:
        if not self._face.wait_for_room():
            return False
        self._inputs.put(Line(line))
        return True

    def _react(self) -> None:
        try:
            while self._reactor.exit is None:
                self._reactor.react(self._inputs.get())
        except BaseException as error:  # given to the main thread, which ends the program with it
            self._crash = error
        finally:
            self._face.end()
