"""A long history, and a busy room: the page stays quick and small."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from integration.room import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from browser.page import Page
    from reliability.program import Program

# Bounds of the issue: the main thread in one step, and what a window of a history of any length may need.
STEP_MAX_MS: Final = 50
ROWS_MAX: Final = 400
HEAP_MAX_BYTES: Final = 40_000_000

# Scrolls up by a screen at a time, until the log begins. A step ends when a frame was drawn after it, and after new
# messages if it needs them. The main thread's time of a step is that of its tasks: of the scroll and of the frame.
_SCROLL: Final = """
const log = document.querySelector("[role=log]");
const long = [];
const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((each) => each.duration)));
observer.observe({ type: "longtask" });
const frame = () => new Promise((go) => requestAnimationFrame(() => {
  const began = performance.now();
  const channel = new MessageChannel();
  channel.port1.onmessage = () => go(performance.now() - began);
  channel.port2.postMessage(0);
}));
(async () => {
  const steps = [], seen = new Set();
  let rows = 0, still = 0;
  const note = () => {
    const shown = log.querySelectorAll("[data-id]");
    rows = Math.max(rows, shown.length);
    const before = seen.size;
    for (const row of shown) seen.add(row.dataset.id);
    return seen.size > before;
  };
  note();
  while (still < 300) {
    const began = performance.now();
    log.scrollTop -= log.clientHeight;
    const scrolled = performance.now() - began;
    steps.push(scrolled + await frame());
    still = note() || log.scrollTop > 0 ? 0 : still + 1;
    if (still > 5 && log.textContent.includes("This is the beginning")) break;
  }
  done({ steps, long, rows, seen: seen.size });
})();
"""


def fill(port: int, count: int) -> None:
    """Store messages of several kinds in the lobby."""
    writer = Peer(port)
    writer.login("writer")
    kinds = (
        "a short one",
        "a text that is long enough to be broken into several lines on most screens. " * 4,
        "two\nlines",
    )
    for first in range(1, count + 1, 500):
        numbers = range(first, min(first + 500, count + 1))
        lines = [f'{{"command":"PM","message":"{number} {kinds[number % 3]}"}}\n' for number in numbers]
        writer.send("".join(lines).replace("\nlines", "\\nlines").encode())
        for _ in numbers:
            writer.next("sent")
    writer.close()


def heap_bytes(page: Page) -> int:
    page.command("HeapProfiler.collectGarbage")
    return int(page.command("Runtime.getHeapUsage")["usedSize"])


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.long)])
def test_history_is_scrolled_to_its_beginning(
    own_server: Program, open_page: Callable[[int], Page], count: int
) -> None:
    """Promise: smooth, and in bounded memory."""
    fill(own_server.port, count)
    page = open_page(own_server.port)
    page.log_in("alice")
    page.until(lambda: page.messages() and page.messages()[-1].id == count, "the newest message is shown")
    before_bytes = heap_bytes(page)
    page.driver.set_script_timeout(110)
    found: dict[str, Any] = page.wait_for(_SCROLL)
    assert found["seen"] == count, "each message was shown on the way"
    assert page.messages()[0].id == 1
    assert found["rows"] <= ROWS_MAX
    assert heap_bytes(page) - before_bytes < HEAP_MAX_BYTES
    # Nineteen steps of twenty: a busy machine may stop the browser in any of them.
    assert statistics.quantiles(found["steps"], n=20)[-1] < STEP_MAX_MS
    assert len(found["long"]) <= len(found["steps"]) / 20
    page.click("button", "Jump to the newest")
    page.until(lambda: page.messages()[-1].id == count, "the newest message is shown again")


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_no_keystroke_is_lost_in_a_busy_room(
    own_server: Program, open_page: Callable[[int], Page], seconds: int
) -> None:
    """50 messages a second arrive while somebody types."""
    page = open_page(own_server.port)
    page.log_in("alice")
    box = page.find("textbox", "Message")
    bob = Peer(own_server.port)
    bob.login("bob")
    is_over = threading.Event()

    def talk() -> None:
        for number in range(50 * seconds):
            bob.ask(command="PM", message=f"message {number}, and a few words more")
            is_over.wait(0.02)

    talker = threading.Thread(target=talk)
    talker.start()
    typed = ""
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            key = "the quick brown fox "[len(typed) % 20]
            box.send_keys(key)
            typed += key
    finally:
        is_over.set()
        talker.join()
    assert box.get_property("value") == typed
    assert len(typed) > 10 * seconds
    page.until_last(f"message {50 * seconds - 1}, and a few words more")
    assert len(page.messages()) <= ROWS_MAX
    bob.close()


def test_new_messages_do_not_move_what_is_read(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """The reader of older messages sees that there are newer ones, and jumps to them."""
    fill(own_server.port, 200)
    page = open_page(own_server.port)
    page.log_in("alice")
    page.until(lambda: page.messages() and page.messages()[-1].id == 200, "the newest message is shown")
    place = "const row = document.querySelector('[role=log] [data-id=\"120\"]');"
    page.run(f"{place} row.scrollIntoView({{ block: 'center' }})")
    top = f"{place} return row && Math.round(row.getBoundingClientRect().top)"
    page.until(lambda: page.run(top) is not None, "message 120 is shown")
    page.until(lambda: page.look_for("button", "Jump to the newest"), "there is a way back")
    before = page.run(top)
    bob = Peer(own_server.port)
    bob.login("bob")
    for number in range(5):
        bob.say(f"new {number}")
    page.click("button", "5 new messages") if page.run(top) == before else pytest.fail("the text has moved")
    page.until_last("new 4")
    bob.close()
