"""Builds the client, and runs its two threads: the collector, and the reactor."""

from __future__ import annotations

import queue
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from chatclient.config import DEFAULT_SERVER
from chatclient.connection import Connection
from chatclient.exchange import AtOnce
from chatclient.exits import Exit
from chatclient.guest import AsGuest
from chatclient.model import Model
from chatclient.plain import PlainFace
from chatclient.reactor import EndOfInput, Input, Interrupt, Line, Reactor
from chatclient.script import ScriptError, play
from chatclient.steps import StepByStep
from chatclient.tcp import connect
from chatclient.typed import Addressing, Typing
from chatclient.udp import UdpLink
from chatprotocol.dialects import Datagram, Frames, Register, by_name, dialects_with
from chatprotocol.operations import OPS

if TYPE_CHECKING:
    from chatclient.config import Config
    from chatclient.exchange import Exchange
    from chatclient.script import Action


# What ends a client politely.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long a client that must end waits for the server's goodbye.
_GOODBYE_SECONDS = 5.0


class App:
    """One run of the client. The main thread feeds it with typed lines; the reactor uses them."""

    def __init__(self, config: Config, script: list[Action] | None) -> None:
        self._script = script
        # Whoever types has no more than a few lines in it; what the server says is read without a limit, because
        # whoever stops reading may keep the server from reading.
        self._inputs: queue.SimpleQueue[Input] = queue.SimpleQueue()
        self._face = PlainFace()
        dialect = by_name(config.dialect, dialects_with(Register(length=config.register_length)))
        open_link = UdpLink if config.dialect == Datagram.name else connect
        self._connection = Connection(partial(open_link, dialect), config.retry_seconds, self._inputs.put)
        exchange = _exchange(config)
        words = OPS[config.ops]
        self._reactor = Reactor(
            Model((config.server, config.port) if config.server else None, config.user, config.password),
            Addressing(words) if exchange.is_guest else Typing(words),
            exchange,
            self._face,
            (DEFAULT_SERVER, config.port),
            self._connection.start,
        )
        self._thread = threading.Thread(target=self._react, name="reactor")
        # The reactor has ended. To be waited for where a signal may come: a join that is interrupted may leave CPython
        # in the belief that the thread has ended.
        self._ended = threading.Event()
        self._crash: BaseException | None = None

    def run(self) -> Exit:
        """Until the server or the input ends; all threads have ended then, too."""
        # A signal that came between the thread's start and the block that ends it would leave it waiting for ever.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._thread.start()
        # Nor may one be missed that comes just before the wait for a line.
        signal.set_wakeup_fd(self._face.wakeup, warn_on_full_buffer=False)
        script_failed = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._feed()
            self._inputs.put(EndOfInput())
            self._ended.wait()
        except ScriptError as error:
            self._face.show([f"[error script] {error}"])
            # Unless the client has ended before: then that is what the script waited in vain for.
            script_failed = self._reactor.exit is None
            self._leave_now()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):  # who asks twice does not wait for the answer
                self._leave_now()
        finally:
            self._connection.close()
            self._ended.wait()
            self._thread.join()
            signal.set_wakeup_fd(-1)
            self._face.close()
        if self._crash is not None:
            raise self._crash
        assert self._reactor.exit is not None
        return Exit.SCRIPT if script_failed else self._reactor.exit

    def _leave_now(self) -> None:
        """Say goodbye, and wait for the answer only a little: the server may have stopped to listen."""
        self._inputs.put(Interrupt())
        self._ended.wait(_GOODBYE_SECONDS)

    def _feed(self) -> None:
        if self._script is not None:
            play(self._script, self._face.transcript, self._type)
            return
        for line in self._face.typed_lines():
            if not self._type(line):
                return

    def _type(self, line: str) -> bool:
        if not self._face.wait_for_room():
            return False
        self._inputs.put(Line(line, is_played=self._script is not None))
        return True

    def _react(self) -> None:
        try:
            self._reactor.begin()
            while self._reactor.exit is None:
                self._reactor.react(self._inputs.get())
        except BaseException as error:  # given to the main thread, which ends the program with it
            self._crash = error
        finally:
            self._face.end()
            self._ended.set()


def _exchange(config: Config) -> Exchange:
    """The one that goes with the dialect."""
    match config.dialect:
        case Frames.name | Datagram.name:
            return StepByStep(config.ops)
        case Register.name:
            return AsGuest()
        case _:
            return AtOnce()
