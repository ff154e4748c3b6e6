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
    """Run the client. Returns its exit code."""
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
    # Messages may contain characters that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return App(config, script).run()
    except OSError as error:
        # The reader is gone (| head), or writing failed. Without this, Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"chatclient: can't write the output: {error.strerror or error}", file=sys.stderr)
        return Exit.LOST
    except KeyboardInterrupt:
        return Exit.OK


def _read_dotenv() -> dict[str, str | None]:
    """The variables of .env in the current directory, if it exists and is valid."""
    path = Path(".env")
    try:
        if not path.exists():
            return {}
        # A pipe would block, and a large file is not a settings file.
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
    """Warn and ignore the file: the client runs in any directory, and .env may belong to another program."""
    print(f"chatclient: The file .env in this folder is not used; {why}.", file=sys.stderr)
    return {}


def _report_error(problem: str) -> int:
    print(f"chatclient: {problem}", file=sys.stderr)
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())
