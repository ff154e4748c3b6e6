"""The page without a mouse, with a screen reader, on a phone, in both colour schemes."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

from integration.room import Peer
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser.page import Page
    from reliability.program import Program
    from selenium.webdriver.remote.webelement import WebElement

_AXE: Final = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
# The items of the menu of each button, and the dialogs that they open. A button without a menu opens a dialog.
DIALOGS: Final = {
    "Find or make a room": [("", "Rooms")],
    "Write to a user": [("", "Write to a user")],
    "Your account and settings": [
        *(("Sessions", "Sessions"), ("Change password", "Change password")),
        *(("Ignored users", "Ignored users"), ("Help", "Help")),
    ],
}
SCHEMES: Final = ("dark", "light")
ROOM_DIALOGS: Final = {
    "Change topic": "Topic",
    "Invite a user": "Invite to #ROOM",
    "Change modes": "Modes of #ROOM",
    "Bans and mutes of this room": "Bans and mutes",
    "Leave the room": "Leave #ROOM?",
}
# WebKit takes the text in a field for a part of the label around it: "Name alice".
_LABELS_AROUND_FIELDS: Final = """
const around = document.querySelectorAll("label :is(input:not([type=checkbox]), select, textarea)");
return [...around].map(({ name }) => name);
"""
_RUN_AXE: Final = """
const [rules] = arguments;
axe.run(document.querySelector("dialog") ?? document, { reporter: "v2", ...(rules && { runOnly: rules }) }).then(
  ({ violations }) => done(violations.map(({ id, help, nodes }) => ({
    id, help, nodes: nodes.slice(0, 5).map((each) => `${each.html.slice(0, 200)}: ${each.failureSummary}`),
  }))),
  (error) => done([{ id: "axe", help: String(error), nodes: [] }]),
);
"""


def assert_accessible(page: Page, what: str, *schemes: str) -> None:
    """axe-core finds nothing, with its default rules: WCAG 2.1 A and AA, and best practices.

    Without ``schemes`` in both colour schemes. In the second one only the contrast is another.
    """
    assert page.run(_LABELS_AROUND_FIELDS) == [], what
    page.run(f"if (!window.axe) {{ {_AXE} }}")
    rules = None
    for scheme in schemes or SCHEMES:
        page.use_scheme(scheme)
        found = page.wait_for(_RUN_AXE, rules)
        assert found == [], f"{what} ({scheme}): {json.dumps(found, indent=2)}"
        rules = ["color-contrast"]


def assert_dialog_accessible(page: Page, menu: str, item: str, dialog: str, *schemes: str) -> None:
    """axe-core finds nothing in the open menu (if it has a name here), and in the dialog that its item opens."""
    if item:
        page.find("menuitem", item)
        if menu:
            assert_accessible(page, f"the menu {menu}", *schemes)
        page.click("menuitem", item)
    page.find("dialog", dialog)
    page.until(lambda: "Loading" not in page.text(), "it is loaded")
    assert_accessible(page, dialog, *schemes)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.look_for("dialog", dialog) is None, "it is closed")


def test_axe_finds_nothing(server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]) -> None:
    """Labels, roles and contrast: of the form, the room, its messages, the menus and the dialogs."""
    page = open_page(server.port)
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
    for button, items in DIALOGS.items():
        for number, (item, dialog) in enumerate(items):
            page.click("button", button)
            assert_dialog_accessible(page, button if number == 0 else "", item, dialog)
    page.type("searchbox", "Search", "look", Keys.ENTER)
    page.until(lambda: page.run("return !document.querySelector('#results').hidden"), "there are results")
    assert_accessible(page, "search")
    bob.close()


def test_axe_finds_nothing_in_moderation(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """The menus of a room, of a user and of a message, their dialogs, notices and errors, for an operator.

    The colour schemes take turns: each kind of dialog is examined in both.
    """
    page = open_page(server.port)
    name, room, bob_name = (fresh_name(each) for each in ("alice", "room", "bob"))
    page.log_in(name)
    assert server.administer("operator", name).returncode == 0
    page.send(f"/join {room}")
    page.until_shows(f"#{room}")
    page.send("/modes key sesame")
    page.until_shows("key sesame")
    bob = Peer(server.port)
    bob.login(bob_name)
    bob.ask(command="join", room=room, key="sesame")
    bob.next("joined")
    page.send(f"/mute {bob_name} 7d spam")
    page.until_shows("spam")
    page.send("hello")
    page.until_sent()
    page.send("/nosuch")
    page.until_shows("There is no /nosuch")
    assert_accessible(page, "notices and an error", "light")
    page.find("textbox", "Message").clear()
    page.type("textbox", "Message", "@", Keys.TAB)
    assert_accessible(page, "a completion", "light")
    page.find("textbox", "Message").clear()
    for number, (item, dialog) in enumerate(ROOM_DIALOGS.items()):
        scheme = SCHEMES[number % 2]
        page.click("button", "About this conversation")
        assert_dialog_accessible(page, "room" if number == 0 else "", item, dialog.replace("ROOM", room), scheme)
    for number, item in enumerate(("Report…", "Mute…", "Kick…", "Ban…")):
        scheme = SCHEMES[number % 2]
        page.click("button", bob_name, page.find("list", "Online"))
        assert_dialog_accessible(page, "user" if number == 0 else "", item, item.removesuffix("…"), scheme)
    page.click("textbox", "Message")
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("data-id"), "a message has the focus")
    page.press(Keys.ENTER)
    assert_dialog_accessible(page, "message", "Delete…", "Delete this message?", "light")
    for item, dialog in (("Bans and mutes", "Bans and mutes"), ("Acts of operators", "Acts of operators")):
        page.click("button", "Your account and settings")
        assert_dialog_accessible(page, "", item, dialog, "light")
    page.click("button", "Find or make a room")
    page.click("button", "Make a room", page.find("dialog", "Rooms"))
    assert_dialog_accessible(page, "", "", "Make a room", "light")
    page.click("button", "Make a room", page.find("dialog", "Rooms"))
    page.type("textbox", "Name", fresh_name("other"), Keys.ENTER, within=page.find("dialog", "Make a room"))
    page.until(lambda: page.focused() == "Message", "the text box takes what is typed")
    page.send(f"/part {room}")
    page.until(lambda: room not in page.text(), "the room is left")
    enter_room_with_key(page, room, "sesame")
    bob.close()


def enter_room_with_key(page: Page, room: str, key: str) -> None:
    """The page asks for the key, and says so if it is wrong. After the dialog the user can type on."""
    page.send(f"/join {room}")
    page.type("textbox", "Key of the room", "open", Keys.ENTER)
    page.until_shows("This is not the key.")
    assert_dialog_accessible(page, "", "", f"#{room} needs a key", "light")
    page.send(f"/join {room} open")
    page.type("textbox", "Key of the room", key, Keys.ENTER)
    page.until(lambda: page.look_for("dialog", f"#{room} needs a key") is None, "the room is entered")
    page.until_shows(f"#{room}")
    page.send("the text box takes what is typed")
    page.until_last("the text box takes what is typed")


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
    page.press("again", Keys.ENTER)
    page.until(lambda: page.texts()[-1:] == ["again"], "the second one is shown")
    bob.ask(command="DM", to=name, message="psst")
    bob.next("sent")
    page.until(lambda: any(bob_name in each for each in page.conversations()), "bob's conversation is there")
    page.chord(Keys.ALT, Keys.ARROW_DOWN)
    page.until_last("psst")
    page.press("what is it?", Keys.ENTER)
    assert bob.next("direct")["message"] == "what is it?"
    page.chord(Keys.ALT, Keys.ARROW_UP)
    page.until_last("again")
    page.press(Keys.ARROW_UP)
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("data-id"), "a message has the focus")
    sender, time, text = page.focused().split()  # the sender stands above the message before it only
    assert (sender, text) == (name, "again")
    assert re.fullmatch(r"\d\d:\d\d", time)
    page.press(Keys.ENTER)
    page.until(lambda: page.look_for("menuitem", "Copy text"), "it has a menu")
    page.press(Keys.ESCAPE)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.focused() == "Message", "the composer has the focus again")
    bob.close()


def test_only_new_messages_are_read_aloud(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """The log is a live region, except while older messages come into it, also if they are drawn late."""
    bob = Peer(own_server.port)
    bob.login("bob")
    for number in range(120):
        bob.say(f"old {number}")
    page = open_page(own_server.port)
    page.find("form", "Log in")
    page.run(
        "window.live = []; const log = document.getElementById('log'), frame = requestAnimationFrame;"
        "window.requestAnimationFrame = (draw) => setTimeout(() => frame(draw), 1500);"
        "new MutationObserver((changes) => { if (changes.some((each) => each.addedNodes.length))"
        " window.live.push(log.getAttribute('aria-live')); }).observe(log, { childList: true });"
    )
    page.log_in("alice")
    page.until_newest(120)
    log = page.find("log", "Messages")
    page.until(lambda: log.get_attribute("aria-live") == "polite", "new messages are read aloud")
    page.run("arguments[0].scrollTop = 0", log)
    page.until(lambda: [each.id for each in page.messages()[:1]] == [1], "the oldest message is shown")
    assert {*page.run("return window.live")} == {"off"}
    page.until(lambda: log.get_attribute("aria-live") == "polite", "new messages are read aloud again")
    bob.close()


def tap(page: Page, element: WebElement) -> None:
    """Touch the middle of an element."""
    box = element.rect
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    page.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    page.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_phone_needs_no_sideways_scrolling(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """On the narrowest one. A message has its menu for fingers as well."""
    width = 320
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
    bob.login("W" * 32)
    bob.say("https://example.org/" + "long" * 60)
    bob.say("W" * 500)
    bob.say("```\n" + "code " * 60 + "\n```")
    page.until(lambda: any("code" in each for each in page.texts()[-1:]), "all is shown")
    assert_fits("room")
    page.click("button", "Conversations")
    page.until(lambda: page.look_for("button", "Lobby"), "the conversations are shown")
    assert_fits("conversations")
    assert_accessible(page, "conversations on a phone", "light")
    page.press(Keys.ESCAPE)
    page.click("button", "Online")
    assert_fits("online")
    assert_accessible(page, "users online on a phone", "light")
    page.press(Keys.ESCAPE)
    page.command("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=1)
    tap(page, page.run("return [...document.querySelectorAll('[role=log] [data-id]')].at(-1)"))
    tap(page, page.find("button", "Actions for this message"))
    page.find("menuitem", "Copy text")
    page.press(Keys.ESCAPE)
    page.command("Emulation.setTouchEmulationEnabled", enabled=False)
    page.send("from a phone")
    while bob.next("broadcast")["message"] != "from a phone":
        pass
    bob.close()


def test_large_letters_leave_room_for_the_messages(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """The browser's setting for letters of twice the size: columns give way as on a smaller screen."""
    page = open_page(server.port)
    page.command("Page.setFontSizes", fontSizes={"standard": 32, "fixed": 26})
    page.log_in(fresh_name("alice"))
    width = page.run("return document.getElementById('log').clientWidth")
    page.command("Page.setFontSizes", fontSizes={"standard": 16, "fixed": 13})
    assert width > 600


def test_keyboard_of_a_phone_covers_nothing(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """Safari shows the keyboard over the page: only the visual viewport gets smaller. What is used stays above it."""
    height = 260
    page = open_page(server.port)
    page.resize(390, 640, is_mobile=True)
    page.find("form", "Log in")
    page.run(
        "Object.defineProperty(visualViewport, 'height', { value: arguments[0] });"
        "visualViewport.dispatchEvent(new Event('resize'));",
        height,
    )
    bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    assert page.run(bottom, "#login") <= height
    page.log_in(fresh_name("alice"))
    assert page.run(bottom, "#composer") <= height
    page.send("/password")
    page.find("dialog", "Change password")
    assert page.focused() == "Old password"
    assert page.run(bottom, "dialog") <= height
    assert page.run("return document.querySelector('dialog').getBoundingClientRect().top") >= 0
