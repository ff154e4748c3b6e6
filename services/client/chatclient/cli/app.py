"""Builds the client and runs it: the main thread reads the input, the controller thread handles it."""

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
from chatclient.cli.input import GuestInputParser, InputParser
from chatclient.cli.script import ScriptError, play
from chatclient.cli.signals import ENDING_SIGNALS, wait_interruptibly
from chatclient.client import ChatClient
from chatclient.notices import ErrorNotice
from chatclient.ui import jsonlines, view
from chatclient.ui.plain import PlainFrontend
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.wire.json import Json

if TYPE_CHECKING:
    from chatclient.cli.config import Config
    from chatclient.cli.script import ScriptStep
    from chatclient.client_protocol import ClientProtocol
    from chatclient.ui.terminal import TerminalFrontend


# Timeout of the server's goodbye after an interrupt.
_GOODBYE_SECONDS = 5.0
# Timeout of a blocked output after an interrupt.
_OUTPUT_SECONDS = 1.0


class App:
    """One run of the client. The main thread queues typed lines; the controller thread handles them."""

    def __init__(self, config: Config, script: list[ScriptStep] | None) -> None:
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
        self._thread = threading.Thread(target=self._run_controller, name="controller")
        # Set when the controller thread ends. While a signal may arrive, the main thread waits for this event and not
        # in join(): after an interrupted join(), CPython may treat a running thread as ended.
        self._ended = threading.Event()
        self._crash: BaseException | None = None

    def run(self) -> Exit:
        """Run until the client and the controller thread have ended."""
        # A signal between the thread's start and the try block would leave the thread running forever.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        self._thread.start()
        # A signal just before the wait for a line must end that wait.
        signal.set_wakeup_fd(self._frontend.wakeup, warn_on_full_buffer=False)
        script_failed = is_interrupted = False
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
            self._run_frontend()
            self._client.inject(EndOfInput())
            wait_interruptibly(self._ended.wait)
        except ScriptError as error:
            self._frontend.display([ErrorNotice("script", str(error))])
            # If the client ended first, its exit code explains the failure.
            script_failed = self._controller.exit is None
            self._say_goodbye()
        except KeyboardInterrupt:
            is_interrupted = True
            with suppress(KeyboardInterrupt):  # a second interrupt ends the wait for the goodbye
                self._say_goodbye()
        finally:
            self._wait_for_end(is_interrupted=is_interrupted)
            self._thread.join()
            signal.set_wakeup_fd(-1)
            self._frontend.close()
        if self._crash is not None:
            raise self._crash
        assert self._controller.exit is not None
        return Exit.SCRIPT if script_failed else self._controller.exit

    def _say_goodbye(self) -> None:
        """Say goodbye, and wait briefly for the answer: the server may have stopped reading."""
        self._client.inject(Interrupt())
        self._ended.wait(_GOODBYE_SECONDS)

    def _wait_for_end(self, *, is_interrupted: bool) -> None:
        """Wait for the controller thread. If its output is blocked, an interrupt ends the process."""
        try:
            if not is_interrupted:
                self._client.inject(Interrupt())  # ends the controller if this thread has failed
                self._client.hang_up()
                wait_interruptibly(self._ended.wait)
                return
        except KeyboardInterrupt:
            pass
        if isinstance(self._frontend, PlainFrontend):
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # no step below takes long
        self._client.inject(Interrupt())
        self._client.hang_up()
        if not self._ended.wait(_OUTPUT_SECONDS):
            if isinstance(self._frontend, PlainFrontend):
                self._frontend.close()
            print("chatclient: the output is not read; the rest of it is lost.", file=sys.stderr)
            sys.stderr.flush()
            os._exit(Exit.LOST)  # a normal exit would wait for the controller thread

    def _run_frontend(self) -> None:
        """Read the input to its end. The frontend limits the queued lines, and the Inbox the received events."""
        if self._script is None:
            self._frontend.run(self._client.inject)
        else:
            assert isinstance(self._frontend, PlainFrontend)
            play(
                self._script,
                self._frontend.transcript,
                self._frontend.line_typer(self._client.inject, is_from_script=True),
            )

    def _run_controller(self) -> None:
        try:
            self._controller.begin()
            while self._controller.exit is None:
                self._controller.react(self._client.receive())
        except BaseException as error:  # the main thread raises it again
            self._crash = error
        finally:
            self._frontend.end()
            self._ended.set()


def _parser(config: Config, client_protocol: ClientProtocol) -> InputParser:
    sends_plain_lines = config.frontend is FrontendKind.TERMINAL
    if client_protocol.is_guest:
        return GuestInputParser(KEYWORD_SETS[config.ops], sends_plain_lines=sends_plain_lines)
    return InputParser(
        KEYWORD_SETS[config.ops], sends_plain_lines=sends_plain_lines, is_json=config.protocol == Json.name
    )


def _frontend(config: Config, parser: InputParser) -> PlainFrontend | TerminalFrontend:
    match config.frontend:
        case FrontendKind.TERMINAL:
            # Imported here because prompt_toolkit loads slowly.
            from chatclient.ui.terminal import TerminalFrontend  # noqa: PLC0415

            return TerminalFrontend(parser, config.protocol, is_quiet=config.is_quiet, shows_joins=config.shows_joins)
        case FrontendKind.JSON:
            return PlainFrontend(jsonlines.lines)
        case _:
            return PlainFrontend(view.lines)
