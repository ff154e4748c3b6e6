"""The command ``chatclient``: settings, signals, exit code."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from chatclient.cli.app import App
from chatclient.cli.config import ConfigError, load_config, read_text
from chatclient.cli.exits import Exit
from chatclient.cli.script import ScriptError, parse_script
from chatclient.cli.signals import heed_signals
from chatprotocol.encoding import DOTENV_MAX_BYTES, decode_text
from chatprotocol.settings import unknown_settings


def main() -> int:
    """Run the client to its end; returns one of the exit codes."""
    heed_signals()
    try:
        environment = {**_read_dotenv(), **os.environ}
        config = load_config(sys.argv[1:], environment)
        script = parse_script(read_text(config.script, "script")) if config.script else None
    except ConfigError as error:
        return _report_error(str(error))
    except ScriptError as error:
        return _report_error(f"The script can't be played; {error}.")
    for name, similar in unknown_settings(environment):
        hint = f"; did you mean {similar}?" if similar else "."
        print(f"chatclient: the variable {name} is no setting and is ignored{hint}", file=sys.stderr)
    if sys.stdout is None:  # the program was started with its output closed
        return Exit.LOST
    # What others write can hold any letter, the terminal may know few.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return App(config, script).run()
    except OSError as error:
        # Nobody reads it, as with | head, or it can't be written. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"chatclient: can't write the output: {error.strerror or error}", file=sys.stderr)
        return Exit.LOST
    except KeyboardInterrupt:
        return Exit.OK


def _read_dotenv() -> dict[str, str | None]:
    """The variables of the file .env in the current folder, if there is one that can be used."""
    path = Path(".env")
    try:
        if not path.exists():
            return {}
        # A pipe would be waited for, and what is too large is no file of settings.
        if not path.is_file() or path.stat().st_size > DOTENV_MAX_BYTES:
            return _pass_over(f"it is not a file of at most {DOTENV_MAX_BYTES:,} bytes")
        text = decode_text(path.read_bytes())
    except OSError as error:
        return _pass_over(f"it can't be read: {error.strerror}")
    except UnicodeDecodeError:
        return _pass_over("it is not text in UTF-8")
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            return _pass_over(f"line {binding.original.line} is not NAME=VALUE")
    return dotenv_values(stream=io.StringIO(text))


def _pass_over(why: str) -> dict[str, str | None]:
    """The client is started in any folder, and the .env there may be another program's."""
    print(f"chatclient: The file .env in this folder is not used; {why}.", file=sys.stderr)
    return {}


def _report_error(problem: str) -> int:
    print(f"chatclient: {problem}", file=sys.stderr)
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())
