"""Builds the client and runs it."""

import time
from typing import TYPE_CHECKING

from chatclient.cli.config import DEFAULT_SERVER, Config, FrontendKind
from chatclient.cli.controller import Controller
from chatclient.cli.exits import Exit
from chatclient.cli.input import GuestInputParser, InputParser
from chatclient.cli.script import ScriptPlayer, ScriptStep
from chatclient.model import Model
from chatclient.opening import new_session
from chatclient.ui import jsonlines, view
from chatclient.ui.plain import PlainFrontend, StandardInput
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.wire import JSON_DIALECTS
from chatprotocol.wire.register import Register

if TYPE_CHECKING:
    from chatclient.ui.terminal import TerminalFrontend


def run(config: Config, script: list[ScriptStep] | None) -> Exit:
    """Run the client in the main thread. Returns its exit code."""
    model = Model(config.servers, config.user, config.password)
    model.invitation, model.token = config.invitation, config.token
    parser = _parser(config)
    frontend = _frontend(config, parser, script)
    session = new_session(
        model,
        dialect=config.protocol,
        ops=config.ops,
        register_length=config.register_length,
        retry_seconds=config.retry_seconds,
        silence_seconds=config.silence_seconds,
        tls=config.tls,
        resends_limited=not frontend.is_person,
        tells_unavailable=frontend.is_person,
    )
    controller = Controller(session, parser, frontend, (DEFAULT_SERVER, config.port), time.monotonic)
    try:
        return frontend.run(controller, session.inbox)
    finally:
        session.close()


def _parser(config: Config) -> InputParser:
    sends_plain_lines = config.frontend is FrontendKind.TERMINAL
    if config.protocol == Register.name:
        return GuestInputParser(KEYWORD_SETS[config.ops], sends_plain_lines=sends_plain_lines)
    return InputParser(
        KEYWORD_SETS[config.ops], sends_plain_lines=sends_plain_lines, is_json=config.protocol in JSON_DIALECTS
    )


def _frontend(
    config: Config, parser: InputParser, script: list[ScriptStep] | None
) -> "PlainFrontend | TerminalFrontend":
    if config.frontend is FrontendKind.TERMINAL:
        # Imported here because prompt_toolkit loads slowly, and pipes and programs don't need it.
        from chatclient.ui.terminal import TerminalFrontend  # noqa: PLC0415

        return TerminalFrontend(parser, config.protocol, is_quiet=config.is_quiet, shows_joins=config.shows_joins)
    is_json = config.frontend is FrontendKind.JSON
    source = StandardInput() if script is None else ScriptPlayer(script)
    return PlainFrontend(jsonlines.lines if is_json else view.lines, source, is_for_programs=is_json)
