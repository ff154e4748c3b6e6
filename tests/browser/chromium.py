"""Chromium without a window, driven by selenium: one process for each browser, a new tab for each page.

A driver is expensive (most of a second, and 200 MB), so the browsers of a worker are shared by its tests. A page begins
in a new tab, and when it ends, its origin's storage is cleared.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from browser.page import Page
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
CHROMEDRIVER: Final = shutil.which("chromedriver")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # root, and containers, have none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--enable-precise-memory-info",
    "--js-flags=--expose-gc",
    "--lang=en-GB",
)
WIDTH, HEIGHT = 1_100, 760


class Browser:
    """One process of chromium with a profile of its own. It has at most one page at a time."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        assert CHROMEDRIVER is not None
        options = Options()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # Without an own HOME, chromium writes crash reports and caches into the user's.
        environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
        self._driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER, env=environment))
        self._driver.set_script_timeout(60)
        self._page: Page | None = None

    @property
    def is_free(self) -> bool:
        return self._page is None

    def open(self, url: str) -> Page:
        """Open the page in a new tab; the old one is closed."""
        old = self._driver.current_window_handle
        self._driver.switch_to.new_window("tab")
        new = self._driver.current_window_handle
        self._driver.switch_to.window(old)
        self._driver.close()
        self._driver.switch_to.window(new)
        self._driver.get_log("browser")  # what the old tab has left
        self._page = Page(self._driver, url)
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
