"""The page without a mouse, with a screen reader, on a phone, in both colour schemes."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Final

import pytest
from integration.room import Peer
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser.page import Page
    from reliability.program import Program

_AXE: Final = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
_RUN_AXE: Final = """
axe.run({ reporter: "v2" }).then(
  ({ violations }) => done(violations.map(({ id, help, nodes }) => ({
    id, help, nodes: nodes.slice(0, 5).map((each) => `${each.html.slice(0, 200)}: ${each.failureSummary}`),
  }))),
  (error) => done([{ id: "axe", help: String(error), nodes: [] }]),
);
"""


def assert_accessible(page: Page, what: str) -> None:
    """axe-core finds nothing, with its default rules: WCAG 2.1 A and AA, and best practices."""
    page.run(f"if (!window.axe) {{ {_AXE} }}")
    found = page.wait_for(_RUN_AXE)
    assert found == [], f"{what}: {json.dumps(found, indent=2)}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str], scheme: str
) -> None:
    """Labels, roles and contrast: of the form, the room, its messages, the menus and the dialogs."""
    page = open_page(server.port)
    page.use_scheme(scheme)
    page.find("form", "Log in")
    assert_accessible(page, "log in")
    name = fresh_name("alice")
    page.log_in(name)
    bob = Peer(server.port)
    bob_name = fresh_name("bob")
    bob.login(bob_name)
    bob.say(f"{name}, look at https://example.org/ and\n```\nsome code\n```\nplease")
    bob.say("/me waves")
    bob.ask(command="DM", to=name, message="psst")
    bob.next("sent")
    page.send("hello")
    page.send("/me waves back")
    page.until(lambda: any(bob_name in each for each in page.conversations()), "bob's conversation is there")
    page.until_sent()
    assert_accessible(page, "room")
    for button, item, dialog in (
        ("Find or make a room", None, "Rooms"),
        ("Write to a user", None, "Write to a user"),
        ("Your account and settings", "Sessions", "Sessions"),
        ("Your account and settings", "Change password", "Change password"),
        ("Your account and settings", "Ignored users", "Ignored users"),
        ("Your account and settings", "Help", "Help"),
    ):
        page.click("button", button)
        if item is not None:
            page.find("menuitem", item)
            assert_accessible(page, button)
            page.click("menuitem", item)
        page.find("dialog", dialog)
        page.until(lambda: "Loading" not in page.text(), "it is loaded")
        assert_accessible(page, dialog)
        page.press(Keys.ESCAPE)
        page.until(lambda dialog=dialog: page.look_for("dialog", dialog) is None, "it is closed")
    page.find("searchbox", "Search").send_keys("look", Keys.ENTER)
    page.until(lambda: page.run("return !document.querySelector('#results').hidden"), "there are results")
    assert_accessible(page, "search")
    bob.close()


def test_page_is_used_with_the_keyboard_only(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """Log in, write, change the conversation, and write there."""
    name = fresh_name("alice")
    bob = Peer(server.port)
    bob_name = fresh_name("bob")
    bob.login(bob_name)
    page = open_page(server.port)
    page.until(lambda: page.focused() == "Name", "the form has the focus")
    page.press(name, Keys.TAB, "secret", Keys.ENTER)
    page.until(lambda: page.focused() == "Password again", "the name is new")
    page.press("secret", Keys.ENTER)
    page.until(lambda: page.focused() == "Message", "the composer has the focus")
    page.press("hello", Keys.ENTER)
    assert bob.next("broadcast")["message"] == "hello"
    bob.ask(command="DM", to=name, message="psst")
    bob.next("sent")
    page.until(lambda: any(bob_name in each for each in page.conversations()), "bob's conversation is there")
    page.chord(Keys.ALT, Keys.ARROW_DOWN)
    page.until_last("psst")
    page.press("what is it?", Keys.ENTER)
    assert bob.next("direct")["message"] == "what is it?"
    page.chord(Keys.ALT, Keys.ARROW_UP)
    page.until_last("hello")
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("data-id"), "a message has the focus")
    page.press(Keys.ENTER)
    page.until(lambda: page.look_for("menuitem", "Copy text"), "it has a menu")
    page.press(Keys.ESCAPE)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.focused() == "Message", "the composer has the focus again")
    bob.close()


def test_only_new_messages_are_read_aloud(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """The log is a live region, except while older messages come into it."""
    bob = Peer(own_server.port)
    bob.login("bob")
    for number in range(120):
        bob.say(f"old {number}")
    page = open_page(own_server.port)
    page.log_in("alice")
    log = page.find("log", "Messages")
    page.until(lambda: log.get_attribute("aria-live") == "polite", "new messages are read aloud")
    page.run(
        "window.live = []; const log = arguments[0];"
        "new MutationObserver((changes) => { if (changes.some((each) => each.addedNodes.length))"
        " window.live.push(log.getAttribute('aria-live')); }).observe(log, { childList: true });"
        "log.scrollTop = 0;",
        log,
    )
    page.until(lambda: page.messages()[0].id == 1, "the oldest message is shown")
    assert {*page.run("return window.live")} == {"off"}
    page.until(lambda: log.get_attribute("aria-live") == "polite", "new messages are read aloud again")
    bob.close()


@pytest.mark.parametrize("width", [320, 390])
def test_phone_needs_no_sideways_scrolling(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str], width: int
) -> None:
    page = open_page(server.port)
    page.resize(width, 640, is_mobile=True)
    page.reload()
    page.find("form", "Log in")

    def assert_fits(what: str) -> None:
        sizes = page.run(
            "const wide = [...document.querySelectorAll('body *')].filter((each) => each.checkVisibility() &&"
            " each.getBoundingClientRect().right > innerWidth + 1 && !each.closest('.block, #sidebar, #members'));"
            "const { scrollWidth } = document.documentElement;"
            "return [scrollWidth, innerWidth, wide.map((each) => each.outerHTML.slice(0, 100))]"
        )
        assert sizes[0] <= width, f"{what}: {sizes}"
        assert sizes[1] == width, f"{what}: {sizes}"
        assert sizes[2] == [], what

    assert_fits("log in")
    name = fresh_name("alice")
    page.log_in(name)
    bob = Peer(server.port)
    bob.login("W" * 31 + str(width)[0])
    bob.say("https://example.org/" + "long" * 60)
    bob.say("W" * 500)
    bob.say("```\n" + "code " * 60 + "\n```")
    page.until(lambda: "code" in page.texts()[-1], "all is shown")
    assert_fits("room")
    page.click("button", "Conversations")
    page.until(lambda: page.look_for("button", "Lobby"), "the conversations are shown")
    assert_fits("conversations")
    page.press(Keys.ESCAPE)
    page.click("button", "Online")
    assert_fits("online")
    page.press(Keys.ESCAPE)
    page.send("from a phone")
    while bob.next("broadcast")["message"] != "from a phone":
        pass
    bob.close()
