"""The web page in a browser, as its user and as a screen reader knows it: by roles, names and texts."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from integration.room import DEADLINE_SECONDS
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

_POLL_SECONDS = 0.02
# The page changed between the search for an element and its use. The browser has done nothing: it can be tried again.
_CHANGED_MEANWHILE = (ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException)
# The elements that can have each role.
_CANDIDATES: Final = {
    "button": "button, [role=button]",
    "checkbox": "input[type=checkbox]",
    "dialog": "dialog, [role=dialog]",
    "form": "form",
    "list": "ul, ol, [role=list], [role=listbox]",
    "log": "[role=log]",
    "menuitem": "[role=menuitem]",
    "navigation": "nav, [role=navigation]",
    "searchbox": "input[type=search]",
    "status": "[role=status]",
    "textbox": "input:not([type=checkbox]):not([type=search]), textarea",
}
# One call for all of them: a question about each element takes longer than all else.
_VISIBLE: Final = """
const [within, candidates] = arguments;
return [...(within ?? document).querySelectorAll(candidates)].filter((each) =>
  each.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && each.getClientRects().length > 0);
"""
# A frame begins with the events of scrolling, also of what the page has scrolled itself.
_SLOW_FRAMES: Final = """
const soon = requestAnimationFrame;
requestAnimationFrame = (draw) => setTimeout(() => soon((time) => {
  document.querySelector("[role=log]").dispatchEvent(new Event("scroll"));
  draw(time);
}), %d);
"""
_MESSAGES: Final = """
return [...document.querySelectorAll("[role=log] [data-id], [role=log] [data-nonce]")].map((row) => ({
  id: Number(row.dataset.id) || null,
  sender: row.dataset.from,
  text: row.querySelector(".text")?.textContent ?? "",
  state: row.classList.contains("pending") ? "pending" : row.classList.contains("failed") ? "failed" : "sent",
}));
"""


class Shown(NamedTuple):
    """A message in the log. ``id`` is None until it is confirmed."""

    id: int | None
    sender: str
    text: str
    state: str


class Page:
    """One tab. Every wait has a deadline."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        self.url = url
        self._expected: list[str] = []
        self.console()  # what the tab before it has left
        driver.get(url)

    # --- errors ---

    def expect_errors(self, *parts: str) -> None:
        """Errors of the console with one of these texts are no faults of the page."""
        self._expected += parts

    def unexpected_errors(self) -> list[str]:
        """Errors and warnings of the console, and reports of the Content-Security-Policy, since the page was opened."""
        return [each for each in self.console() if not any(part in each for part in self._expected)]

    def console(self) -> list[str]:
        """The errors and warnings of the console since the last call."""
        entries = self.driver.get_log("browser")
        return [str(each["message"]) for each in entries if each["level"] in ("SEVERE", "WARNING")]

    def forget(self) -> None:
        """Leave the page, clear all that it has stored, and restore the size and the colours of the window."""
        self.driver.get("about:blank")
        self.command("Storage.clearDataForOrigin", origin=self.url.rstrip("/"), storageTypes="all")
        self.command("Network.clearBrowserCookies")
        self.command("Emulation.clearDeviceMetricsOverride")
        self.command("Emulation.setEmulatedMedia", features=[])

    # --- the browser ---

    def command(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(method, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript that ends with ``done(result)``; returns the result."""
        body = f"const done = arguments[arguments.length - 1];\n{script}"
        return self.driver.execute_async_script(body, *arguments)

    def resize(self, width: int, height: int, *, is_mobile: bool = False) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_mobile
        )

    def use_scheme(self, scheme: str) -> None:
        """Prefer ``light`` or ``dark``. Nothing moves, so that colours are not measured on the way."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        features += [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.command("Emulation.setEmulatedMedia", features=features)

    @contextmanager
    def slow_frames(self, ms: int) -> Iterator[None]:
        """Documents that are opened meanwhile draw late by this time."""
        added = self.command("Page.addScriptToEvaluateOnNewDocument", source=_SLOW_FRAMES % ms)
        try:
            yield
        finally:
            self.command("Page.removeScriptToEvaluateOnNewDocument", **added)

    def reload(self) -> None:
        self.driver.refresh()

    # --- elements ---

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll until the condition holds; returns its value."""
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                if value := condition():
                    return value
            except _CHANGED_MEANWHILE:
                pass
            if time.monotonic() > give_up_at:
                raise AssertionError(f"waited in vain until {what}; the page shows:\n{self.text()}")
            time.sleep(_POLL_SECONDS)

    def look_for(self, role: str, name: str, within: WebElement | None = None) -> WebElement | None:
        """The visible element of this role with this accessible name, or one that begins so; None if there is none."""
        visible = self.run(_VISIBLE, within, _CANDIDATES[role])
        return next((each for each in visible if _has_name(each, name)), None)

    def find(self, role: str, name: str, within: WebElement | None = None) -> WebElement:
        """Wait for this element."""
        found: WebElement = self.until(lambda: self.look_for(role, name, within), f"there is the {role} {name!r}")
        return found

    def click(self, role: str, name: str, within: WebElement | None = None) -> None:
        self._use(role, name, within, lambda element: element.click())

    def type(self, role: str, name: str, *keys: str, within: WebElement | None = None) -> None:
        """Press keys with the focus in this element, once."""
        self._use(role, name, within, lambda element: element.send_keys(*keys))

    def fill(self, name: str, text: str, within: WebElement | None = None) -> None:
        """Replace the text of a field."""

        def replace(field: WebElement) -> None:
            field.clear()
            field.send_keys(text)

        self._use("textbox", name, within, replace)

    def _use(self, role: str, name: str, within: WebElement | None, act: Callable[[WebElement], object]) -> None:
        """Find the element and do this with it; again, if the page changed between the two."""

        def is_done() -> bool:
            act(self.find(role, name, within))
            return True

        self.until(is_done, f"the {role} {name!r} can be used")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, modifier: str, key: str) -> None:
        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def focused(self) -> str:
        """The accessible name of the element with the focus."""
        return str(self.driver.switch_to.active_element.accessible_name)

    def text(self) -> str:
        """All visible text."""
        return str(self.run("return document.body.innerText"))

    def until_shows(self, *texts: str) -> None:
        self.until(lambda: all(text in self.text() for text in texts), f"it shows {texts}")

    # --- the chat ---

    def log_in(self, name: str, password: str = "secret", *, stays: bool = False) -> None:
        """Fill in the form, twice the password if the name is new, and wait for the room."""
        self.fill_in(name, password, stays=stays)
        self.click("button", "Log in")

        def is_in() -> bool:
            if self.look_for("textbox", "Message") is not None:
                return True
            again = self.look_for("textbox", "Password again")
            if again is not None and not again.get_property("value"):
                again.send_keys(password, Keys.ENTER)
            return False

        self.until(is_in, f"{name} is logged in")
        self.until(lambda: "Connected" in self.status(), "it is connected")

    def fill_in(self, name: str, password: str, *, stays: bool = False) -> None:
        form = self.find("form", "Log in")
        self.fill("Name", name, form)
        self.fill("Password", password, form)
        if stays:
            self.click("checkbox", "Stay logged in", form)

    def send(self, text: str) -> None:
        """Type a message of one line into the composer, and send it."""
        self.type("textbox", "Message", text, Keys.ENTER)

    def until_typed(self, text: str) -> None:
        """Wait until the composer has this text."""
        self.until(lambda: self.find("textbox", "Message").get_property("value") == text, f"{text!r} is typed")

    def status(self) -> str:
        """The state of the connection, as it is read aloud."""
        return str(
            self.run(
                "return [...document.querySelectorAll('[role=status]')].filter((each) => each.checkVisibility())"
                ".map((each) => each.textContent).join(' ')"
            )
        )

    def messages(self) -> list[Shown]:
        """The messages in the log, oldest first: those of its window."""
        return [Shown(**each) for each in self.run(_MESSAGES)]

    def texts(self) -> list[str]:
        return [each.text for each in self.messages()]

    def until_texts(self, *texts: str) -> None:
        """Wait until the log has these messages and no others."""
        self.until(lambda: self.texts() == [*texts], f"the log has {json.dumps(texts)[:200]}")

    def until_last(self, text: str) -> Shown:
        """Wait until this is the newest message."""
        found: Shown = self.until(
            lambda: next((each for each in self.messages()[-1:] if each.text == text), None), f"{text!r} is the newest"
        )
        return found

    def until_newest(self, number: int) -> None:
        """Wait until the newest message is the one with this id."""
        self.until(lambda: [each.id for each in self.messages()[-1:]] == [number], f"message {number} is the newest")

    def until_sent(self) -> None:
        """Wait until all messages in the log are confirmed."""
        self.until(lambda: {each.state for each in self.messages()} <= {"sent"}, "all is confirmed")

    def conversations(self) -> list[str]:
        """The names in the list of conversations, as they are read aloud."""
        return [name for name, _ in self._conversation_rows()]

    def open_conversation(self, which: str | int) -> None:
        """``which`` is a word of what is read aloud, or a place in the list."""

        def has_clicked() -> bool:
            for place, (name, row) in enumerate(self._conversation_rows()):
                if which == place or which in name.split():
                    row.click()
                    return True
            return False

        self.until(has_clicked, f"the conversation {which!r} can be opened")

    def online(self) -> list[str]:
        """The users online."""
        rows = self._rows("list", "Online", "li", lambda row: row.text)
        return [text.removesuffix("(you)").strip() for text, _ in rows]

    def _conversation_rows(self) -> list[tuple[str, WebElement]]:
        return self._rows("navigation", "Conversations", "li button, li a", lambda row: row.accessible_name)

    def _rows(
        self, role: str, name: str, selector: str, read: Callable[[WebElement], str]
    ) -> list[tuple[str, WebElement]]:
        """What is read in each row of a list, and the row. All again, if the page draws the list meanwhile."""
        found: list[tuple[str, WebElement]] = []

        def has_read() -> bool:
            rows = self.find(role, name).find_elements("css selector", selector)
            found[:] = [(read(row), row) for row in rows]
            return True

        self.until(has_read, f"the rows of {name!r} can be read")
        return found


def _has_name(element: WebElement, name: str) -> bool:
    """True if the accessible name is this one. Remarks in it come after a space: "Lobby 3 unread"."""
    found = " ".join(str(element.accessible_name).split())
    return found == name or found.removeprefix("# ") == name or found.split(" ")[0] == name
