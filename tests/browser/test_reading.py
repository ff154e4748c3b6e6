"""A long history, and a busy room: the page stays quick and small."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

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
# Programs that share the processor's caches make some steps slower, so the best of several scrolls counts.
SCROLLS_MAX: Final = 3

# Scrolls up by a screen, and ends when a frame was drawn after it. With older messages on the way it waits for them.
_SCROLL: Final = """
const log = document.querySelector("[role=log]");
const frame = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
(async () => {
  log.scrollTop -= log.clientHeight;
  await frame();
  const ids = [...log.querySelectorAll("[data-id]")].map((row) => Number(row.dataset.id));
  for (let frames = 0; log.scrollTop === 0 && ids[0] > 1 && frames < 500; frames++) await frame();
  done(ids);
})();
"""
_TO_END: Final = """
const { scrollHeight, scrollTop, clientHeight } = document.querySelector("[role=log]");
return scrollHeight - scrollTop - clientHeight;
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


def thread_ms(page: Page) -> float:
    """The processor time of the main thread so far: unlike the time on the clock, it does not depend on other tests."""
    metrics = page.command("Performance.getMetrics")["metrics"]
    return 1_000 * float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_history_is_scrolled_to_its_beginning(
    own_server: Program, open_page: Callable[[int], Page], count: int
) -> None:
    """Promise: smooth, and in bounded memory."""
    fill(own_server.port, count)
    page = open_page(own_server.port)
    page.log_in("alice")
    page.until_newest(count)
    before_bytes = heap_bytes(page)
    longest_ms: list[float] = []
    while not longest_ms or (longest_ms[-1] >= STEP_MAX_MS and len(longest_ms) < SCROLLS_MAX):
        steps = scroll_to_the_beginning(page, count)
        print(f"the longest steps took {[round(each) for each in sorted(steps)[-3:]]} ms")
        longest_ms.append(sorted(steps)[-2])  # one may have had to compile, or to collect garbage
        assert heap_bytes(page) - before_bytes < HEAP_MAX_BYTES
        page.click("button", "Jump to the newest")
        page.until_newest(count)
    assert longest_ms[-1] < STEP_MAX_MS, longest_ms


def scroll_to_the_beginning(page: Page, count: int) -> list[float]:
    """Scroll up by screens, and see all messages. Returns the processor time of each step, in milliseconds."""
    page.command("Performance.enable", timeDomain="threadTicks")
    seen: set[int] = set()
    steps: list[float] = []
    while 1 not in seen:
        before_ms = thread_ms(page)
        shown: list[int] = page.wait_for(_SCROLL)
        steps.append(thread_ms(page) - before_ms)
        assert len(shown) <= ROWS_MAX
        assert not seen or max(shown) >= min(seen) - 1, "no message was left out"
        seen |= {*shown}
    page.command("Performance.disable")
    assert len(seen) == count
    return steps


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_no_keystroke_is_lost_in_a_busy_room(
    own_server: Program, open_page: Callable[[int], Page], seconds: int
) -> None:
    """50 messages a second arrive while the user types."""
    page = open_page(own_server.port)
    page.log_in("alice")
    box = page.find("textbox", "Message")
    bob = Peer(own_server.port)
    bob.login("bob")
    is_over = threading.Event()

    said: list[str] = []

    def talk() -> None:
        while not is_over.wait(0.02):
            said.append(f"message {len(said)}, and a few words more")
            bob.ask(command="PM", message=said[-1])

    talker = threading.Thread(target=talk)
    talker.start()
    typed = ""
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds or len(typed) < 10 * seconds:  # longer beside other programs
            key = "the quick brown fox "[len(typed) % 20]
            box.send_keys(key)
            typed += key
    finally:
        is_over.set()
        talker.join()
    assert box.get_property("value") == typed
    page.until_last(said[-1])
    assert len(page.messages()) <= ROWS_MAX
    bob.close()


@pytest.mark.parametrize("frame_ms", [0, 200])
def test_conversation_opens_at_the_oldest_unread_message(
    own_server: Program, open_page: Callable[[int], Page], frame_ms: int
) -> None:
    """Also if more messages are unread than the page loads at once: then it says so. Also if it is drawn late."""
    fill(own_server.port, 20)
    page = open_page(own_server.port)
    page.log_in("alice", stays=True)
    page.until_newest(20)
    page.driver.get("about:blank")
    fill(own_server.port, 250)
    with page.slow_frames(frame_ms) if frame_ms else nullcontext():
        page.driver.get(page.url)
    seen = """
      const log = document.querySelector("[role=log]"), rule = log.querySelector(".rule.new");
      const place = rule?.getBoundingClientRect(), { top, bottom } = log.getBoundingClientRect();
      return rule && place.top >= top && place.bottom <= bottom && Number(rule.nextElementSibling.dataset.id);
    """
    assert page.until(lambda: page.run(seen), "the line New is shown") == 21
    page.click("button", "200+ new messages")
    page.until_newest(270)


def test_new_messages_do_not_move_what_is_read(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """The reader of older messages sees that there are newer ones, and jumps to them."""
    fill(own_server.port, 200)
    page = open_page(own_server.port)
    page.log_in("alice")
    page.until_newest(200)
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
    for width, height in ((320, 568), (568, 320)):
        page.resize(width, height, is_mobile=True)
        page.wait_for("requestAnimationFrame(() => requestAnimationFrame(() => done(0)))")
    page.until(lambda: page.run(_TO_END) < 2, "another size of the window does not move it from the end")
    assert page.look_for("button", "Jump to the newest") is None
    bob.close()
