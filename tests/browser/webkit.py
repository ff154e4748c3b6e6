"""WebKit, the engine of Safari, for the tests of the page: WebKitGTK's MiniBrowser. It needs a display, as of Xvfb."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from browser.page import Page
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.webkitgtk.options import Options
from selenium.webdriver.webkitgtk.service import Service

WEBKIT_DRIVER: Final = shutil.which("WebKitWebDriver")
WIDTH_MIN: Final = 450
_SIZE: Final = "return [outerWidth, outerHeight, innerWidth, innerHeight]"
_CONSOLE_ERRORS: Final = ("CONSOLE JS ERROR", "CONSOLE SECURITY ERROR", "CONSOLE NETWORK ERROR", "CONSOLE JS WARN")


def is_installed() -> bool:
    return WEBKIT_DRIVER is not None and "DISPLAY" in os.environ


class WebKit(WebDriver):
    """A window of MiniBrowser. ``log`` has the messages of its console."""

    def __init__(self, service: Service, options: Options, log: Path) -> None:
        self.log = log
        self._service = service
        service.start()
        config = ClientConfig(service.service_url)
        super().__init__(command_executor=RemoteConnection(client_config=config), options=options)

    def quit(self) -> None:
        try:
            super().quit()
        finally:
            self._service.stop()


def start_webkit(folder: Path, width: int, height: int) -> WebKit:
    """Start a browser that keeps all its files in the folder. ``quit()`` ends all its processes."""
    assert WEBKIT_DRIVER is not None, "WebKitWebDriver is missing: Debian's package is webkit2gtk-driver"
    options = Options()
    options.binary_location = str(next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")))
    options.add_argument("--automation")
    options.add_argument("--enable-write-console-messages-to-stdout=true")
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
    log = folder / "webkit.log"
    driver = WebKit(Service(WEBKIT_DRIVER, log_output=str(log), env=environment), options, log)
    driver.set_script_timeout(60)
    driver.set_window_rect(0, 0, width, height)
    return driver


class WebKitPage(Page):
    """The page in WebKit. A test that needs the DevTools protocol itself is skipped."""

    driver: WebKit
    _begins_at = 0

    def console(self) -> list[str]:
        with self.driver.log.open("rb") as log:
            log.seek(self._begins_at)
            text = log.read()
        self._begins_at += len(text)
        return [each for each in text.decode(errors="replace").splitlines() if each.startswith(_CONSOLE_ERRORS)]

    def forget(self) -> None:
        self.run("try { localStorage.clear(); sessionStorage.clear(); } catch {}")
        self.driver.get("about:blank")
        self.resize(1_100, 660)

    def command(self, method: str, **_: Any) -> Any:
        pytest.skip(f"only chromium has {method}")

    def resize(self, width: int, height: int, *, is_mobile: bool = False) -> None:  # noqa: ARG002 - WebKit has no other kind of pointer
        if width < WIDTH_MIN:
            pytest.skip(f"a window of WebKit is at least {WIDTH_MIN} px wide")
        outer_width, outer_height, inner_width, inner_height = self.run(_SIZE)
        self.driver.set_window_rect(0, 0, width + outer_width - inner_width, height + outer_height - inner_height)
        self.until(lambda: self.run("return innerWidth") == width, f"the window is {width} px wide")

    def use_scheme(self, scheme: str) -> None:
        """WebKit has no command for it. The style sheet depends on the scheme in its colours only."""
        self.run("document.documentElement.style.colorScheme = arguments[0]", scheme)
