"""Starts chromium without a window, driven by selenium and the system's chromedriver. Nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM: Final = shutil.which("chromium")
CHROMEDRIVER: Final = shutil.which("chromedriver")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # it needs a user other than root, and namespaces, which containers lack
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--enable-precise-memory-info",
    "--lang=en-GB",
)


def is_installed() -> bool:
    """True if there is a chromium and its driver; `make browser` installs them."""
    return CHROMIUM is not None and CHROMEDRIVER is not None


def start_chromium(folder: Path, width: int, height: int) -> webdriver.Chrome:
    """Start a browser that keeps all its files in the folder. ``quit()`` ends all its processes."""
    assert CHROMIUM is not None, "chromium is missing: `make browser` installs it"
    assert CHROMEDRIVER is not None, "chromedriver is missing: `make browser` installs it"
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Chromium writes crash reports and caches into HOME.
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER, env=environment))
