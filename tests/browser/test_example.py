"""The example of a page of another site, docs/examples/page.html."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from integration.room import Peer
from reliability.program import Program
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from browser.browsers import Browsers
    from browser.page import Page

FOLDER: Final = Path(__file__).parents[2] / "docs/examples"


class Quiet(SimpleHTTPRequestHandler):
    """Files without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """A web site with the examples: its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=FOLDER)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_example(browsers: Browsers, site: str) -> Iterator[Callable[[int], Page]]:
    """Opens the example and fills it in for the server with this port."""

    def opened(port: int) -> Page:
        page = browsers.open(f"{site}/page.html")
        page.expect_errors("favicon.ico")
        for name, text in (("Server", f"ws://127.0.0.1:{port}/"), ("Name", "alice"), ("Password", "secret")):
            page.fill(name, text)
        page.click("button", "Log in")
        return page

    yield opened
    assert browsers.release() == []


def test_page_of_another_site_talks(tmp_path: Path, site: str, open_example: Callable[[int], Page]) -> None:
    """Promise: anything that speaks WebSocket and JSON can enter."""
    assert len((FOLDER / "page.html").read_text(encoding="utf-8").splitlines()) <= 40
    with Program(tmp_path, CHAT_WEB_ORIGINS=site) as server:
        bob = Peer(server.port)
        bob.login("bob")
        bob.say("before <b>alice</b>")
        page = open_example(server.port)
        page.until_shows("bob: before <b>alice</b>")
        page.type("textbox", "Message", "hello", Keys.ENTER)
        page.until_shows("alice: hello")
        assert bob.next("broadcast")["message"] == "hello"
        bob.ask(command="DM", to="alice", message="psst")
        page.until_shows("bob to alice: psst")
        assert server.stop() == 0
        page.until_shows("The connection has ended: the server is shutting down")
        bob.close()


def test_page_of_another_site_is_kept_out(tmp_path: Path, open_example: Callable[[int], Page]) -> None:
    """Unless the operator has named its origin."""
    with Program(tmp_path) as server:
        page = open_example(server.port)
        page.expect_errors("WebSocket connection to")
        page.until_shows("The connection has ended: lost")
        assert page.look_for("textbox", "Message") is None
