"""Conversations in the page, with clients of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.room import FramesPeer, Peer
from integration.terminals import Terminals
from selenium.webdriver.common.keys import Keys

from ops.window import ENTER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from browser.page import Page
    from reliability.program import Program


def test_browsers_a_terminal_and_a_frames_client_share_a_room(
    own_server: Program, open_page: Callable[[int], Page], tmp_path: Path
) -> None:
    """Promise: all users are in the same rooms, and all see one order."""
    port = own_server.port
    alice, bob = open_page(port), open_page(port)
    alice.log_in("alice")
    bob.log_in("bob")
    fred = FramesPeer(port)
    fred.login("fred")
    with Terminals(port, tmp_path) as terminals:
        tina = terminals.log_in("tina")
        alice.until(lambda: sorted(alice.online()) == ["alice", "bob", "fred", "tina"], "all are online")
        said = ["from a browser", "from another one", "from frames", "from a terminal"]
        alice.send(said[0])
        bob.until_last(said[0])
        bob.send(said[1])
        tina.until_shows(f"bob │ {said[1]}")
        fred.say(said[2])
        alice.until_last(said[2])
        tina.type(said[3], ENTER)
        for page in (alice, bob):
            page.until_texts(*said)
            page.until_sent()
        assert [each.sender for each in alice.messages()] == ["alice", "bob", "fred", "tina"]
        assert [each.id for each in alice.messages()] == [each.id for each in bob.messages()]
        tina.until_shows(f"alice │ {said[0]}", f"fred │ {said[2]}")
    alice.until(lambda: "tina" not in alice.online(), "tina is gone")
    fred.close()


def test_tab_completes_names_and_leaves_an_empty_box(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """Those who spoke come first, as in the terminal client. The choice is read aloud, and Escape restores the text."""
    page = open_page(server.port)
    page.log_in(fresh_name("alice"))
    names = [fresh_name("xbob") for _ in range(2)]
    bobs = [Peer(server.port) for _ in names]
    for bob, name in zip(bobs, names, strict=True):
        bob.login(name)
    for bob in bobs:
        bob.say("hello")
    box = page.find("textbox", "Message")
    page.until(lambda: {*names} <= {*page.online()} and page.texts()[-2:] == ["hello"] * 2, "both are online and spoke")
    box.send_keys("XB", Keys.TAB)
    assert box.get_property("value") == f"{names[1]}: "
    assert page.run("return document.querySelector('#composer [aria-live]').textContent").startswith(
        f"{names[1]}, 1 of 2."
    )
    page.press(Keys.TAB)
    assert box.get_property("value") == f"{names[0]}: "
    page.chord(Keys.SHIFT, Keys.TAB)
    page.press("psst ", names[0][:-1], Keys.TAB, Keys.ESCAPE)
    assert box.get_property("value") == f"{names[1]}: psst {names[0][:-1]}"
    assert page.focused() == "Message"
    page.press(Keys.TAB)
    assert page.focused() != "Message"
    box.clear()
    box.send_keys("/deo", Keys.TAB)
    assert box.get_property("value") == "/deop "
    box.clear()
    box.send_keys(Keys.TAB)
    assert page.focused() == "Send"
    for bob in bobs:
        bob.close()


def test_enter_of_an_input_method_sends_nothing(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """Enter chooses a word of Japanese or Chinese. Safari sends the key after the composition, with the number 229."""
    page = open_page(server.port)
    page.log_in(fresh_name("alice"))
    box = page.find("textbox", "Message")
    box.send_keys("nihon")
    press = """
      const event = new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...arguments[0] });
      document.getElementById("message").dispatchEvent(event);
      return event.defaultPrevented;
    """
    assert [page.run(press, members) for members in ({"isComposing": True}, {"keyCode": 229}, {})] == [
        False,
        False,
        True,
    ]
    page.until_last("nihon")


def test_error_about_a_line_ends_with_the_next_action(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    page = open_page(server.port)
    page.log_in(fresh_name("alice"))
    for again in ("/help me", "hello"):
        page.send("/nosuch")
        page.until_shows("There is no /nosuch")
        page.find("textbox", "Message").clear()
        page.send(again)
        page.until(lambda: "There is no /nosuch" not in page.text(), "the error is gone")
        page.find("textbox", "Message").clear()
    page.until_last("hello")


def test_message_is_shown_at_once_and_becomes_solid_when_it_is_confirmed(
    own_server: Program, open_page: Callable[[int], Page]
) -> None:
    alice = open_page(own_server.port)
    alice.log_in("alice")
    own_server.suspend()
    alice.send("is anybody there?")
    assert alice.until_last("is anybody there?")[2:] == ("is anybody there?", "pending")
    own_server.resume()
    alice.until_sent()
    assert alice.messages()[-1].id == 1


def test_room_and_draft_outlive_a_reload_and_a_removal(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """The address names the conversation. What was typed in a room that is lost stays until it is dismissed."""
    name, room = fresh_name("alice"), fresh_name("draftroom")
    page = open_page(server.port)
    page.log_in(name, stays=True)
    owner = Peer(server.port)
    owner.login(fresh_name("owner"))
    owner.ask(command="join", room=room)
    owner.next("joined")
    title = "return document.getElementById('title').textContent"
    page.send(f"/join {room}")
    page.until(lambda: page.run(title) == f"#{room}", "the room is open")
    page.type("textbox", "Message", "half a sentence")
    page.reload()
    page.until(lambda: page.run(title) == f"#{room}", "the same room is open")
    page.until_typed("half a sentence")
    page.open_conversation("Lobby")
    page.driver.back()
    page.until(lambda: page.run(title) == f"#{room}", "back is the room")
    owner.ask(command="kick", room=room, username=name)
    page.until(lambda: page.run(title) == "Lobby", "the room is lost")
    page.until_shows("What you typed there:\nhalf a sentence")
    page.reload()
    page.until_shows("What you typed there:\nhalf a sentence")
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as without https
    page.click("button", "Copy")
    page.click("textbox", "Message")
    page.chord(Keys.CONTROL, "v")
    page.until_typed("half a sentence")
    page.click("button", "Dismiss")
    page.until(lambda: "What you typed" not in page.text(), "the notice is gone")
    assert room not in page.run("return JSON.stringify({ ...sessionStorage })")
    owner.close()


def test_messages_are_copied_with_senders_and_files_are_refused(
    server: Program, open_page: Callable[[int], Page], fresh_name: Callable[[str], str]
) -> None:
    """A browser would copy the times alone, open a dropped file in place of the page, and print the lists as well."""
    name = fresh_name("alice")
    page = open_page(server.port)
    page.log_in(name)
    for text in ("first", "/me waves"):
        page.send(text)
    page.until(lambda: page.texts()[-2:] == ["first", f"* {name} waves"], "both are shown")
    copied = page.run("""
      const rows = [...document.querySelectorAll("[role=log] [data-from]")].slice(-2);
      getSelection().setBaseAndExtent(rows[0], 0, rows[1], rows[1].childNodes.length);
      const event = new ClipboardEvent("copy", { clipboardData: new DataTransfer(), bubbles: true, cancelable: true });
      rows[1].dispatchEvent(event);
      return event.clipboardData.getData("text/plain").replace(/[0-9]{2}:[0-9]{2}/g, "TIME");
    """)
    assert copied == f"[TIME] {name}: first\n[TIME] * {name} waves"
    page.command("Emulation.setEmulatedMedia", media="print")
    page.until(lambda: "first" in page.text() and page.look_for("navigation", "Conversations") is None, "is on paper")
    page.command("Emulation.setEmulatedMedia", media="")
    for kind in ("new DragEvent('drop', { dataTransfer: data", "new ClipboardEvent('paste', { clipboardData: data"):
        page.run(f"""
          const data = new DataTransfer();
          data.items.add(new File(["x"], "x.png", {{ type: "image/png" }}));
          document.getElementById("message").dispatchEvent({kind}, bubbles: true, cancelable: true }}));
        """)
        page.until_shows("Files and pictures can't be sent")
        page.click("button", "Dismiss")
        page.until(lambda: "can't be sent" not in page.text(), "the notice is gone")
