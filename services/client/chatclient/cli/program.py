"""The command ``chatclient`` after its imports: settings, signals, exit code."""

import os
import resource
import sys

from chatclient.cli import app
from chatclient.cli.config import load_config, read_text
from chatclient.cli.exits import Exit
from chatclient.cli.script import ScriptError, parse_script
from chatclient.cli.signals import install_signal_handlers
from chatprotocol.settings import ConfigError, read_dotenv, unknown_settings


def run() -> int:
    """Run the client. Returns its exit code."""
    try:
        return _run()
    except KeyboardInterrupt:  # before the client handles it: a file of the settings may be a pipe, and never end
        return Exit.OK


def _run() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # a core dump would have the password in it
    install_signal_handlers()
    try:
        environment = _read_environment()
        config = load_config(sys.argv[1:], environment)
        script = parse_script(read_text(config.script, "script")) if config.script else None
    except ConfigError as error:
        return _report_error(str(error))
    except ScriptError as error:
        return _report_error(f"The script can't be played; {error}.")
    for name, similar in unknown_settings(environment):
        hint = f"; did you mean {similar}?" if similar else "."
        print(f"chatclient: the variable {name} is not a setting, and is ignored{hint}", file=sys.stderr)
    if sys.stdout is None:  # the program was started with its output closed
        return Exit.LOST
    # Messages may contain characters that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return app.run(config, script)
    except OSError as error:
        # The reader is gone (| head), or writing failed. Without this, Python would report the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"chatclient: can't write the output: {error.strerror or error}", file=sys.stderr)
        return Exit.LOST


def _read_environment() -> dict[str, str | None]:
    """The environment variables, and those of .env in the current directory that are not set.

    A bad .env is ignored with a warning: the client runs in any directory, and the file may belong to another program.
    """
    try:
        return {**read_dotenv(), **os.environ}
    except ValueError as error:
        print(f"chatclient: The file .env in this folder is not used; {error}.", file=sys.stderr)
        return dict(os.environ)


def _report_error(problem: str) -> int:
    print(f"chatclient: {problem}", file=sys.stderr)
    return Exit.USAGE
