"""Browsers for the tests of a worker: one process each, a new tab for each page.

A driver is expensive (most of a second, and 200 MB), so the browsers of a worker are shared by its tests. A page begins
in a new tab, and when it ends, its origin's storage is cleared.

CHAT_TEST_BROWSER selects the engine: chromium, or ``firefox`` or ``webkit``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from browser import firefox, webkit
from browser.page import Page

from ops import chromium

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WIDTH, HEIGHT = 1_100, 760


class Engine(NamedTuple):
    """A kind of browser. ``start(folder, width, height)`` returns its driver."""

    is_installed: Callable[[], bool]
    start: Callable[[Path, int, int], Any]
    page: type[Page]


_CHROMIUM: Final = Engine(chromium.is_installed, chromium.start_chromium, Page)
_ENGINES: Final = {
    "firefox": Engine(firefox.is_installed, firefox.start_firefox, firefox.FirefoxPage),
    "webkit": Engine(webkit.is_installed, webkit.start_webkit, webkit.WebKitPage),
}
ENGINE: Final = _ENGINES.get(os.environ.get("CHAT_TEST_BROWSER", ""), _CHROMIUM)


class Browser:
    """One process with a profile of its own. It has at most one page at a time."""

    def __init__(self, folder: Path) -> None:
        self._driver = ENGINE.start(folder, WIDTH, HEIGHT)
        self._driver.set_script_timeout(60)
        self._page: Page | None = None

    @property
    def is_free(self) -> bool:
        return self._page is None

    def open(self, url: str) -> Page:
        """Open the page in a new tab; the old one is closed."""
        [old] = self._driver.window_handles
        self._driver.switch_to.window(old)  # Firefox forgets a tab that shows an error of its own
        self._driver.switch_to.new_window("tab")
        new = self._driver.current_window_handle
        self._driver.switch_to.window(old)
        self._driver.close()
        self._driver.switch_to.window(new)
        self._page = ENGINE.page(self._driver, url)
        return self._page

    def release(self) -> list[str]:
        """End the page. Returns its unexpected errors."""
        page, self._page = self._page, None
        if page is None:
            return []
        try:
            return page.unexpected_errors()
        finally:
            page.forget()

    def close(self) -> None:
        """End all processes."""
        self._driver.quit()


class Browsers:
    """The browsers of a worker. They start when they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._browsers: list[Browser] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for browser in self._browsers:
            with suppress(Exception):
                browser.close()

    def open(self, url: str) -> Page:
        """Open a page in a browser that has none."""
        browser = next((each for each in self._browsers if each.is_free), None)
        if browser is None:
            folder = self._folder / f"browser{len(self._browsers)}"
            folder.mkdir()
            browser = Browser(folder)
            self._browsers.append(browser)
        return browser.open(url)

    def release(self) -> list[str]:
        """End all pages. Returns their unexpected errors."""
        return [error for each in self._browsers for error in each.release()]
