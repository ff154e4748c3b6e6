"""Firefox for the tests of the page. Debian has no geckodriver, so selenium speaks Firefox's own Marionette protocol.

Marionette is JSON over TCP: ``LENGTH:[0, id, command, parameters]``, and the answer ``LENGTH:[1, id, error, value]``.
Its commands are those of WebDriver, so a table of names is all that selenium needs. Scripts in the context "chrome" may
do what the DevTools protocol does for chromium: read the console, clear the storage, prefer a colour scheme.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from browser.page import Page
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.options import ArgOptions
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.remote.webdriver import WebDriver

from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    from pathlib import Path

FIREFOX: Final = shutil.which("firefox-esr") or shutil.which("firefox")
_START_SECONDS: Final = 60.0
_FLAGS: Final = ("--headless", "--marionette", "--remote-allow-system-access", "--no-remote")
_PREFERENCES: Final = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "intl.accept_languages": "en-GB",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.server": "",
}
# Selenium's name, Marionette's, and what selenium puts into the address of WebDriver.
_COMMANDS: Final = {
    Command.NEW_SESSION: "WebDriver:NewSession",
    Command.QUIT: "Marionette:Quit",
    Command.GET: "WebDriver:Navigate",
    Command.REFRESH: "WebDriver:Refresh",
    Command.GO_BACK: "WebDriver:Back",
    Command.GET_CURRENT_URL: "WebDriver:GetCurrentURL",
    Command.GET_TITLE: "WebDriver:GetTitle",
    Command.CLOSE: "WebDriver:CloseWindow",
    Command.NEW_WINDOW: "WebDriver:NewWindow",
    Command.SWITCH_TO_WINDOW: "WebDriver:SwitchToWindow",
    Command.W3C_GET_CURRENT_WINDOW_HANDLE: "WebDriver:GetWindowHandle",
    Command.W3C_GET_WINDOW_HANDLES: "WebDriver:GetWindowHandles",
    Command.SET_WINDOW_RECT: "WebDriver:SetWindowRect",
    Command.GET_WINDOW_RECT: "WebDriver:GetWindowRect",
    Command.W3C_EXECUTE_SCRIPT: "WebDriver:ExecuteScript",
    Command.W3C_EXECUTE_SCRIPT_ASYNC: "WebDriver:ExecuteAsyncScript",
    Command.W3C_ACTIONS: "WebDriver:PerformActions",
    Command.W3C_CLEAR_ACTIONS: "WebDriver:ReleaseActions",
    Command.W3C_GET_ACTIVE_ELEMENT: "WebDriver:GetActiveElement",
    Command.FIND_ELEMENT: "WebDriver:FindElement",
    Command.FIND_ELEMENTS: "WebDriver:FindElements",
    Command.FIND_CHILD_ELEMENT: "WebDriver:FindElement",
    Command.FIND_CHILD_ELEMENTS: "WebDriver:FindElements",
    Command.CLICK_ELEMENT: "WebDriver:ElementClick",
    Command.CLEAR_ELEMENT: "WebDriver:ElementClear",
    Command.SEND_KEYS_TO_ELEMENT: "WebDriver:ElementSendKeys",
    Command.GET_ELEMENT_TEXT: "WebDriver:GetElementText",
    Command.GET_ELEMENT_ATTRIBUTE: "WebDriver:GetElementAttribute",
    Command.GET_ELEMENT_PROPERTY: "WebDriver:GetElementProperty",
    Command.GET_ELEMENT_ARIA_LABEL: "WebDriver:GetComputedLabel",
    Command.GET_ELEMENT_ARIA_ROLE: "WebDriver:GetComputedRole",
    Command.SET_TIMEOUTS: "WebDriver:SetTimeouts",
    Command.SCREENSHOT: "WebDriver:TakeScreenshot",
    Command.DELETE_ALL_COOKIES: "WebDriver:DeleteAllCookies",
    "SetContext": "Marionette:SetContext",
    "SetPermission": "WebDriver:SetPermission",
}
# The console of pages: errors, warnings, and reports of the Content-Security-Policy.
_CONSOLE: Final = """
const messages = Services.console.getMessageArray();
Services.console.reset();
return messages.filter((each) => each instanceof Ci.nsIScriptError && each.innerWindowID)
  .map((each) => `${each.category}: ${each.errorMessage} ${each.sourceName}:${each.lineNumber}`);
"""
# A window is at least 450 px wide; the element of the tab is not. Kinds of pointer: 1 is coarse.
_RESIZE: Final = """
const [width, height, pointers] = arguments;
browser.style.cssText = `flex: none; width: ${width}px; height: ${height}px`;
for (const name of ["primary", "all"]) {
  if (pointers) Services.prefs.setIntPref(`ui.${name}PointerCapabilities`, pointers);
  else Services.prefs.clearUserPref(`ui.${name}PointerCapabilities`);
}
"""
_PREFER: Final = """
browser.browsingContext.prefersColorSchemeOverride = arguments[0];
Services.prefs.setIntPref("ui.prefersReducedMotion", 1);
"""
_RESET: Final = """
browser.style.cssText = "";
browser.browsingContext.prefersColorSchemeOverride = "none";
for (const name of ["ui.prefersReducedMotion", "ui.primaryPointerCapabilities", "ui.allPointerCapabilities"]) {
  Services.prefs.clearUserPref(name);
}
"""
_HAS_BARE_VALUE: Final = {"WebDriver:FindElements", "WebDriver:GetWindowHandles", "WebDriver:NewSession"}


class _Marionette(RemoteConnection):
    """Selenium's commands over Marionette."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(client_config=ClientConfig(f"http://127.0.0.1:{port}"))
        self._process = process
        give_up_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), _START_SECONDS)
                break
            except ConnectionRefusedError:
                assert process.poll() is None, "Firefox has ended"
                assert time.monotonic() < give_up_at, "Firefox does not start"
                time.sleep(0.05)
        self._socket.settimeout(2 * _START_SECONDS)
        self._reader = self._socket.makefile("rb")
        self._read()  # the greeting
        self._last_id = 0

    def execute(self, command: str, params: dict[str, Any]) -> dict[str, Any]:
        name = _COMMANDS[command]
        params = {key: value for key, value in params.items() if key != "sessionId"}
        if name == "WebDriver:NewSession":
            params = params["capabilities"]["alwaysMatch"]
        elif command in {Command.FIND_CHILD_ELEMENT, Command.FIND_CHILD_ELEMENTS}:
            params["element"] = params.pop("id")
        elif name == "WebDriver:TakeScreenshot":
            params = {"full": False}
        elif name == "Marionette:Quit":
            params = {"flags": ["eForceQuit"]}
        self._last_id += 1
        data = json.dumps([0, self._last_id, name, params]).encode()
        self._socket.sendall(b"%d:%b" % (len(data), data))
        _, _, error, value = self._read()
        if name == "Marionette:Quit":
            self._process.wait(_START_SECONDS)
            self.close()
        if error is not None:
            return {"status": 500, "value": json.dumps({"value": error})}
        bare = name in _HAS_BARE_VALUE or not isinstance(value, dict) or "value" not in value
        return {"value": value if bare else value["value"]}

    def close(self) -> None:
        self._reader.close()
        self._socket.close()
        super().close()

    def _read(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            byte = self._reader.read(1)
            assert byte, "Firefox has closed the connection"
            size += byte
        return json.loads(self._reader.read(int(size[:-1])))


class Firefox(WebDriver):
    """A browser without a window, driven through Marionette."""

    def run_privileged(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript with the rights of the browser itself; ``browser`` is its element of the tab."""
        self.execute("SetContext", {"value": "chrome"})
        try:
            return self.execute_script(f"const browser = window.gBrowser.selectedBrowser;{script}", *arguments)
        finally:
            self.execute("SetContext", {"value": "content"})


def is_installed() -> bool:
    return FIREFOX is not None


def start_firefox(folder: Path, width: int, height: int) -> Firefox:
    """Start a browser that keeps all its files in the folder. ``quit()`` ends all its processes."""
    assert FIREFOX is not None, "firefox is missing: Debian's package is firefox-esr"
    with bind_free_port() as reserved:
        port = int(reserved.getsockname()[1])
    profile = folder / "profile"
    profile.mkdir()
    preferences = {**_PREFERENCES, "marionette.port": port}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC"}
    with (folder / "firefox.log").open("wb") as log:
        process = subprocess.Popen(
            [FIREFOX, *_FLAGS, "--profile", str(profile)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        driver = Firefox(command_executor=_Marionette(port, process), options=_Options())
    except BaseException:
        process.kill()
        process.wait()
        raise
    driver.set_window_rect(0, 0, width, height)
    return driver


class _Options(ArgOptions):
    @property
    def default_capabilities(self) -> dict[str, str]:
        return {}

    def to_capabilities(self) -> dict[str, Any]:
        return {"acceptInsecureCerts": True}


class FirefoxPage(Page):
    """The page in Firefox. A test that needs the DevTools protocol itself is skipped."""

    driver: Firefox

    def console(self) -> list[str]:
        return [str(each) for each in self.driver.run_privileged(_CONSOLE)]

    def forget(self) -> None:
        self.run("try { localStorage.clear(); sessionStorage.clear(); } catch {}")
        self.driver.get("about:blank")
        self.driver.run_privileged(_RESET)

    def command(self, method: str, **_: Any) -> Any:
        pytest.skip(f"only chromium has {method}")

    def reload(self) -> None:
        with suppress(WebDriverException):  # without a server, Firefox shows a page of its own
            self.driver.refresh()

    def resize(self, width: int, height: int, *, is_mobile: bool = False) -> None:
        self.driver.run_privileged(_RESIZE, width, height, 1 if is_mobile else None)
        self.wait_for("requestAnimationFrame(() => requestAnimationFrame(() => done(0)))")

    def use_scheme(self, scheme: str) -> None:
        self.driver.run_privileged(_PREFER, scheme)
