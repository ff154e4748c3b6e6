"""Builds the client, and runs its two threads: the collector, and the reactor."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from chatclient.cli.config import DEFAULT_SERVER, FrontendKind
from chatclient.cli.controller import Controller, EndOfInput, Interrupt
from chatclient.cli.exits import Exit
from chatclient.cli.input import Addressing, InputParser
from chatclient.cli.script import ScriptError, play
from chatclient.cli.signals import ENDING
from chatclient.client import ChatClient
from chatclient.notices import ErrorNotice
from chatclient.ui import jsonlines, view
from chatclient.ui.plain import PlainFrontend
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.wire.json import Json

if TYPE_CHECKING:
    from chatclient.cli.config import Config
    from chatclient.cli.script import Action
    from chatclient.client_protocol import ClientProtocol
    from chatclient.ui.terminal import TerminalFrontend


# How long a client that must end waits for the server's goodbye.
_GOODBYE_SECONDS = 5.0
# How long an interrupted client waits for somebody to take its output.
_OUTPUT_SECONDS = 1.0


class App:
    """One run of the client. The main thread feeds it with typed lines; the reactor uses them."""

    def __init__(self, config: Config, script: list[Action] | None) -> None:
        self._script = script
        self._client = ChatClient(
            config.server or DEFAULT_SERVER,
            config.port,
            dialect=config.protocol,
            ops=config.ops,
            register_length=config.register_length,
            retry_seconds=config.retry_seconds,
            silence_seconds=config.silence_seconds,
        )
        session = self._client.session
        if not config.server:
            session.model.server = None
        session.model.username, session.model.password = config.user or "", config.password
        parser = _parser(config, session.client_protocol)
        self._frontend = _frontend(config, parser)
        self._controller = Controller(
            session, parser, self._frontend, (DEFAULT_SERVER, config.port), self._client.start
        )
        self._thread = threading.Thread(target=self._react, name="controller")
        # The reactor has ended. To be waited for where a signal may come: a join that is interrupted may leave CPython
        # in the belief that the thread has ended.
        self._ended = threading.Event()
        self._crash: BaseException | None = None

    def run(self) -> Exit:
        """Until the server or the input ends; all threads have ended then, too."""
        # A signal that came between the thread's start and the block that ends it would leave it waiting for ever.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        self._thread.start()
        # Nor may one be missed that comes just before the wait for a line.
        signal.set_wakeup_fd(self._frontend.wakeup, warn_on_full_buffer=False)
        script_failed = is_interrupted = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            self._run_frontend()
            self._client.inject(EndOfInput())
            self._ended.wait()
        except ScriptError as error:
            self._frontend.display([ErrorNotice("script", str(error))])
            # Unless the client has ended before: then that is what the script waited in vain for.
            script_failed = self._controller.exit is None
            self._leave_now()
        except KeyboardInterrupt:
            is_interrupted = True
            with suppress(KeyboardInterrupt):  # who asks twice does not wait for the answer
                self._leave_now()
        finally:
            self._wait_for_end(is_interrupted=is_interrupted)
            self._thread.join()
            signal.set_wakeup_fd(-1)
            self._frontend.close()
        if self._crash is not None:
            raise self._crash
        assert self._controller.exit is not None
        return Exit.SCRIPT if script_failed else self._controller.exit

    def _leave_now(self) -> None:
        """Say goodbye, and wait for the answer only a little: the server may have stopped to listen."""
        self._client.inject(Interrupt())
        self._ended.wait(_GOODBYE_SECONDS)

    def _wait_for_end(self, *, is_interrupted: bool) -> None:
        """Of the reactor. If it can't end, because nobody takes its output, an interrupt ends the process."""
        try:
            if not is_interrupted:
                self._client.inject(Interrupt())  # for a reactor that goes on: this thread has failed
                self._client.hang_up()
                self._ended.wait()
                return
        except KeyboardInterrupt:
            pass
        if isinstance(self._frontend, PlainFrontend):
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # all that follows ends soon
        self._client.inject(Interrupt())
        self._client.hang_up()
        if not self._ended.wait(_OUTPUT_SECONDS):
            if isinstance(self._frontend, PlainFrontend):
                self._frontend.close()
            print("chatclient: nobody reads the output; the rest of it is lost.", file=sys.stderr)
            sys.stderr.flush()
            os._exit(Exit.LOST)  # the interpreter's own end would wait for the reactor

    def _run_frontend(self) -> None:
        """Whoever types has no more than a few lines under way.

        What the server says is limited as well: see inbox.py.
        """
        if self._script is None:
            self._frontend.run(self._client.inject)
        else:
            assert isinstance(self._frontend, PlainFrontend)
            play(self._script, self._frontend.transcript, self._frontend.typist(self._client.inject, is_played=True))

    def _react(self) -> None:
        try:
            self._controller.begin()
            while self._controller.exit is None:
                self._controller.react(self._client.receive())
        except BaseException as error:  # given to the main thread, which ends the program with it
            self._crash = error
        finally:
            self._frontend.end()
            self._ended.set()


def _parser(config: Config, client_protocol: ClientProtocol) -> InputParser:
    talks = config.frontend is FrontendKind.TERMINAL
    if client_protocol.is_guest:
        return Addressing(KEYWORD_SETS[config.ops], talks=talks)
    return InputParser(KEYWORD_SETS[config.ops], talks=talks, is_json=config.protocol == Json.name)


def _frontend(config: Config, parser: InputParser) -> PlainFrontend | TerminalFrontend:
    match config.frontend:
        case FrontendKind.TERMINAL:
            # What only people need takes time to load.
            from chatclient.ui.terminal import TerminalFrontend  # noqa: PLC0415

            return TerminalFrontend(parser, config.protocol, is_quiet=config.is_quiet, shows_joins=config.shows_joins)
        case FrontendKind.JSON:
            return PlainFrontend(jsonlines.lines)
        case _:
            return PlainFrontend(view.lines)
