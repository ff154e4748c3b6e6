"""Apply each break to a copy of the project, and check that its tests fail."""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mutants.breaks import BREAKS, Break

REPOSITORY = Path(__file__).resolve().parents[2]
# Limits of one test, and of all tests of one break. A break may make a test wait forever; it then fails at its limit.
# A break usually takes ten seconds; a busy machine needs more.
TEST_SECONDS = 60
BREAK_SECONDS = 300
# The table of docs/testing.md, which --table writes.
DOCUMENT = REPOSITORY / "docs" / "testing.md"
TABLE = re.compile(r"^\| promise \|.*\n(?:\|.*\n)*", re.MULTILINE)
# A broken thread may never end, so the process does not wait for its threads.
RUN_PYTEST = "import os, pytest, sys; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"
# pytest's exit code if tests have failed.
FAILED = 1


class Outcome(NamedTuple):
    """The result of one break. ``problem`` is empty if all its tests have failed."""

    broken: Break
    problem: str
    seconds: float


class Copy:
    """A copy of all tracked files, in which breaks are applied and taken back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, names):
            if (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, folder / name)

    def try_break(self, broken: Break) -> Outcome:
        """Apply a break, run its tests, and take it back."""
        began = time.monotonic()
        path = self._folder / "services" / broken.file
        original = path.read_text(encoding="utf-8")
        try:
            self._write(path, mutated(broken, original))
            code, output = self.run_tests(broken.tests, BREAK_SECONDS, *rows_of(broken))
        except ValueError as error:
            return Outcome(broken, str(error), 0.0)
        finally:
            self._write(path, original)
        failed = re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", output, re.MULTILINE)
        passed = [test for test in broken.tests if not any(each.startswith(test) for each in failed)]
        problem = f"not noticed by {', '.join(passed)}" if passed else ""
        if passed and code not in (0, FAILED):
            print(output)
        return Outcome(broken, problem, time.monotonic() - began)

    def run_tests(self, tests: tuple[str, ...], seconds: float, *options: str) -> tuple[int | None, str]:
        """Run these tests. Returns pytest's exit code, or None after the time limit, and its output."""
        command = [sys.executable, "-c", RUN_PYTEST, "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
        command += [f"--timeout={TEST_SECONDS}", *options, *(f"tests/{test}" for test in tests)]
        packages = [str(self._folder / "services" / name) for name in ("protocol", "server", "client")]
        # The copy comes before the installed packages, also in the programs that the tests start.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages), "CHAT_TEST_STACK": "process"}
        environment.pop("CHAT_TEST_LONG", None)
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output
        return process.returncode, output

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Write a source file, and remove its bytecode: Python compares whole seconds and the size only."""
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()


def rows_of(broken: Break) -> tuple[str, ...]:
    """Options of pytest that select the rows of the tests."""
    return () if broken.needs_long_rows else ("-m", "not long")


def mutated(broken: Break, text: str) -> str:
    """The text with the break. Raises ValueError if the break does not fit the text."""
    for old, new in broken.changes:
        if text.count(old) != 1:
            raise ValueError(f"out of date: {old!r} occurs {text.count(old)} times")
        text = text.replace(old, new)
    return text


def table() -> str:
    """The promises and their tests, as a table of docs/testing.md."""
    rows = ["| promise | tests |", "| --- | --- |"]
    for promise in dict.fromkeys(broken.promise for broken in BREAKS):
        tests = dict.fromkeys(test for broken in BREAKS if broken.promise == promise for test in broken.tests)
        rows.append(f"| {promise} | {', '.join(f'`{test}`' for test in tests)} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Returns 0 if all breaks were noticed, 1 if one survived or does not fit, 2 if a test fails without a break."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="breaks that are tried at a time")
    parser.add_argument("-k", "--keyword", default="", help="try only breaks whose promise or file contains this")
    parser.add_argument("--table", action="store_true", help="only write the table of docs/testing.md")
    arguments = parser.parse_args()
    if arguments.table:
        DOCUMENT.write_text(TABLE.sub(lambda _: table(), DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    breaks = [each for each in BREAKS if arguments.keyword.lower() in f"{each.promise} {each.file}".lower()]
    # The tests of all breaks that have the same options.
    tests: dict[tuple[str, ...], dict[str, None]] = {}
    for broken in breaks:
        tests.setdefault(rows_of(broken), {}).update(dict.fromkeys(broken.tests))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(Copy(Path(folder) / str(number)))

        print(f"{len(breaks)} breaks; the tests without a break first", flush=True)
        copy = copies.get()
        for rows, names in tests.items():
            code, output = copy.run_tests(tuple(names), len(breaks) * BREAK_SECONDS, f"-n{arguments.jobs}", *rows)
            if code != 0:
                print(output)
                return 2
        copies.put(copy)

        def try_one(broken: Break) -> Outcome:
            copy = copies.get()
            try:
                outcome = copy.try_break(broken)
            finally:
                copies.put(copy)
            print(f"{outcome.seconds:5.1f} s  {broken.promise}", flush=True)
            if outcome.problem:
                print(f"         NOT NOTICED, {broken.file}: {outcome.problem}", flush=True)
            return outcome

        with ThreadPoolExecutor(arguments.jobs) as threads:
            outcomes = list(threads.map(try_one, breaks))
    unnoticed = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{len(outcomes) - unnoticed} of {len(outcomes)} breaks were noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
