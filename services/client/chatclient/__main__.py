"""The command ``chatclient``: settings, signals, exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from chatclient.app import App
from chatclient.config import ConfigError, load_config, read_text
from chatclient.exits import Exit
from chatclient.script import ScriptError, parse_script
from chatprotocol.settings import unknown_settings


def main() -> int:
    """Run the client to its end; returns one of the exit codes."""
    # SIGTERM is as polite as Ctrl-C: as process 1 of a container it would do nothing otherwise.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # So is the end of a terminal, unless somebody wants to outlive it (nohup).
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        environment = {**_read_dotenv(), **os.environ}
        config = load_config(sys.argv[1:], environment)
        script = parse_script(read_text(config.script, "script")) if config.script else None
    except ConfigError as error:
        return _complain(str(error))
    except ScriptError as error:
        return _complain(f"The script can't be played; {error}.")
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
    """The variables of the file .env in the current folder, if there is one."""
    try:
        text = Path(".env").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file .env can't be read: {error}.") from error
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise ConfigError(f"Line {binding.original.line} of the file .env is not NAME=VALUE.")
    return dotenv_values(stream=io.StringIO(text))


def _complain(problem: str) -> int:
    print(f"chatclient: {problem}", file=sys.stderr)
    return Exit.USAGE


if __name__ == "__main__":
    sys.exit(main())
