"""Takes the screens of the web page for the README, from a real run: light, dark, and on a phone."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from ops.chromium import is_installed, start_chromium
from ops.demo import TOP, await_port, end, start
from ops.picture import PASSWORD, log_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver.chrome.webdriver import WebDriver

FOLDER: Final = TOP / "docs" / "pictures"
WIDTH, HEIGHT = 1_000, 620
PHONE_WIDTH, PHONE_HEIGHT = 360, 620
SCALE = 1.25
WAIT_SECONDS = 20.0

# Four spaces before a line make it code.
TICKETS = """The tickets are in the shared folder:
    tickets/2026-12-04 out.pdf
    tickets/2026-12-07 back.pdf"""


def main() -> int:
    """Run the conversation, and take the screens of alice."""
    if not is_installed():
        sys.exit("chromium or chromedriver is missing: `make browser` installs them")
    with tempfile.TemporaryDirectory(prefix="chatroom-picture-") as name:
        folder = Path(name)
        server = start(name, "chatserver", "0", "--host", "127.0.0.1", "--data", f"{name}/data")
        try:
            port = int(await_port(server, []))
            driver = start_chromium(folder, WIDTH, HEIGHT)
            try:
                _take_pictures(driver, port)
            finally:
                driver.quit()
        finally:
            end(server)
    return 0


def _take_pictures(driver: WebDriver, port: int) -> None:
    bob, carol = (log_in(port, name) for name in ("bob", "carol"))
    bob.say("Morning! The train is late again, I'll be there at ten.")
    carol.say("Take your time. Coffee is on me ☕")
    carol.say("/me looks for the tickets")
    early = log_in(port, "alice")
    early.join("trip")
    early.close()
    bob.join("trip")
    _size(driver, WIDTH, HEIGHT)
    _enter(driver, port)
    carol.say("alice, did you see the pictures from Kyoto? So much red!")
    _until(driver, lambda: "Kyoto" in _text(driver))
    _type(driver, "I did! The third one is my favourite.")
    mia = log_in(port, "mia")
    mia.say("What did I miss?\nAnd who has the tickets?")
    slip = mia.say("oops, wrong window")
    mia.delete(slip or 0)
    bob.say(TICKETS)
    bob.say("Map and times: https://example.org/kyoto?day=2")
    bob.say("the hotel is booked", room="trip")
    bob.whisper("alice", "psst: it's carol's birthday on Friday, don't tell")
    _until(driver, lambda: "example.org" in _text(driver) and "deleted" in _text(driver))
    _until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, "nav [data-key='user:bob']"))
    driver.find_element(By.CSS_SELECTOR, "textarea").send_keys("@mia bob has them, he is at the sta")
    for scheme in ("light", "dark"):
        _prefer(driver, scheme)
        _save(driver, f"page-{scheme}.png")
    _prefer(driver, "light")
    _size(driver, PHONE_WIDTH, PHONE_HEIGHT, mobile=True)
    _save(driver, "page-phone.png")
    for user in (bob, carol, mia):
        user.close()


# --- the browser ---


def _enter(driver: WebDriver, port: int) -> None:
    driver.get(f"http://127.0.0.1:{port}/")
    _until(driver, lambda: driver.find_element(By.NAME, "username").is_displayed())
    driver.find_element(By.NAME, "username").send_keys("alice")
    driver.find_element(By.NAME, "password").send_keys(PASSWORD, Keys.ENTER)
    _until(driver, lambda: "Coffee" in _text(driver))


def _type(driver: WebDriver, text: str) -> None:
    driver.find_element(By.CSS_SELECTOR, "textarea").send_keys(text, Keys.ENTER)
    _until(driver, lambda: text in _text(driver))


def _text(driver: WebDriver) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def _until(driver: WebDriver, condition: Callable[[], Any]) -> None:
    WebDriverWait(driver, WAIT_SECONDS, 0.05).until(lambda _: condition())


def _size(driver: WebDriver, width: int, height: int, *, mobile: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": SCALE, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _prefer(driver: WebDriver, scheme: str) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _save(driver: WebDriver, name: str) -> None:
    frames = "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(arguments[0], 0)))"
    driver.execute_async_script(frames)
    picture = base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    (FOLDER / name).write_bytes(picture)
    print(f"Taken: {(FOLDER / name).relative_to(TOP)} ({len(picture) // 1000} kB)")
