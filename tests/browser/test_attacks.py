"""Texts of other users and of servers do not control the page: no script runs, and nothing breaks out of its line."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import pytest
from integration.fake_server import broadcast, welcome
from integration.room import Peer
from integration.test_terminal_attacks import ATTACKS as CONTROL
from integration.test_terminal_attacks import FAKES, LONG, ZALGO
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve

from chatserver.web.pages import read_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from browser.page import Page
    from reliability.program import Program
    from websockets.http11 import Request

# Each one sets window.owned if a script of it runs.
MARKUP: Final = {
    "script": "<script>owned=1</script>",
    "script in upper case": "</ScRiPt><SCRIPT>owned=1</SCRIPT>",
    "handler of an image": "<img src=x onerror=owned=1>",
    "handler of svg": "<svg/onload=owned=1><svg><animate onbegin=owned=1 attributeName=x dur=1s>",
    "end of an attribute": "\"'><img src=x onerror=owned=1>",
    "handler in an attribute": "\" onmouseover=owned=1 autofocus onfocus=owned=1 x=\"' onclick=owned=1 '",
    "frame": "<iframe srcdoc='<script>parent.owned=1</script>'></iframe><object data='data:text/html,x'></object>",
    "style": "<style>*{display:none!important}</style><link rel=stylesheet href=data:text/css,*%7Bdisplay:none%7D>",
    "base and refresh": "<base href=//evil.example/><meta http-equiv=refresh content='0;url=//evil.example'>",
    "form": "</textarea></form><form action=//evil.example><input name=password autofocus><button>Log in",
    "mutation": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=owned=1&gt;">',
    "template": "<template><img src=x onerror=owned=1></template>{{constructor.constructor('owned=1')()}}${owned=1}",
    "entities": "&lt;script&gt;owned=1&lt;/script&gt;&#60;img src=x onerror=owned=1&#62;",
    "broken tags": "<<script>script>owned=1<</script>/script><img\x0bsrc=x\x0conerror=owned=1//",
    "comment": "<!--><img src=x onerror=owned=1>--><![CDATA[<img src=x onerror=owned=1>]]>",
    "ids of the page": "<p id=log><p id=message><p name=getElementById>",
}
LINKS: Final = {
    "javascript": "javascript:owned=1 JaVaScRiPt:owned=1 java\tscript:owned=1 javascript://https://x/%0aowned=1",
    "data": "data:text/html,<script>opener.owned=1</script> data:text/html;base64,PHNjcmlwdD5vd25lZD0xPC9zY3JpcHQ+",
    "other schemes": "vbscript:owned=1 file:///etc/passwd blob:https://x/1 view-source:https://x about:blank ws://x",
    "quotes": "https://example.org/\"onmouseover=\"owned=1 https://example.org/'onclick='owned=1 https://x.example/`x`",
    "brackets": "https://example.org/<script>owned=1</script> <https://example.org/><img src=x onerror=owned=1>",
    "user of a url": "https://bank.example@evil.example/ https://bank.example:pw@evil.example/ http://a:b@c",
    "markdown": "[click](javascript:owned=1) ![x](https://evil.example/x.png) [a]: javascript:owned=1",
    "bidi": "https://example.org/\u202egpj.exe https://example.org/\u2066x\u2069 https://\u202eelpmaxe.org/",
    "controls": "https://exam\0ple.org/ https://example.org/\x1b[2J java\0script:owned=1 \x01javascript:owned=1",
    "malformed": "https:// http://[::1 https://%zz/ http://256.256.256.256.256/ https://a b/ http://.",
    "long": "https://example.org/" + "a" * 4_000,
    "code": "```\njavascript:owned=1 https://example.org/in-code <img src=x onerror=owned=1>\n```",
}
TEXTS: Final = [*MARKUP.values(), *LINKS.values(), *CONTROL.values(), *FAKES.values(), ZALGO, LONG, "x\n" * 3_000]
# The longest name, of the widest letter.
HUGE: Final = "W" * 32

# What the page may be after any text: what has changed since the script ran first, and what is not in its place.
_LOOK: Final = """
const faults = [];
const check = (holds, what) => { if (!holds && faults.length < 20) faults.push(what); };
const active = "script, style, link, meta, base, iframe, frame, object, embed, img, video, audio, math, template, form";
const count = [...document.querySelectorAll(active)].map((each) => each.outerHTML.slice(0, 80)).sort().join("\\n");
window.active ??= count;
check(window.active === count, `active elements: ${count}`);
check(window.owned === undefined, "a script ran");
for (const each of document.querySelectorAll("*")) {
  for (const { name } of each.attributes) check(!name.startsWith("on"), `${each.outerHTML.slice(0, 99)}: ${name}`);
}
// Spaces at the end of a line hang over its end, unseen. Code may be wider than its box, which scrolls.
function* boxesOfWords(text) {
  const nodes = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (nodes.nextNode()) {
    if (nodes.currentNode.parentElement.closest("code, pre")) continue;
    for (const word of [...nodes.currentNode.data.matchAll(/\\S+/g)].slice(0, 300)) {
      range.setStart(nodes.currentNode, word.index);
      range.setEnd(nodes.currentNode, word.index + word[0].length);
      yield* range.getClientRects();
    }
  }
}
const log = document.querySelector("[role=log]");
const RAW = /[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\u200b\\u2060\\ufeff]/;
const ALLOWED = new Set(["A", "BDI", "BR", "CODE", "PRE", "SPAN"]);
const { left, right } = log.getBoundingClientRect();
check(log.scrollWidth <= log.clientWidth, "the log is wider than its box");
check(document.documentElement.scrollWidth <= innerWidth, "the page is wider than the window");
let lowest = -Infinity;
for (const row of log.children) {
  const box = row.getBoundingClientRect();
  const what = row.textContent.slice(0, 60);
  check(box.top >= lowest - 1, `it covers the row above: ${what}`);
  check(box.left >= left - 1 && box.right <= right + 1, `it is beside the log: ${what}`);
  lowest = box.bottom;
  if (!row.matches("[data-id], [data-nonce]")) continue;
  const text = row.querySelector(".text");
  const within = text.closest(".clipped") ?? text;
  const bounds = within.getBoundingClientRect();
  check(bounds.top >= box.top - 1 && bounds.bottom <= box.bottom + 1, `it is higher than its row: ${what}`);
  for (const each of within === text ? boxesOfWords(text) : []) {
    const fitsAcross = each.left >= box.left - 1 && each.right <= box.right + 1;
    check(fitsAcross && each.top >= box.top - 3 && each.bottom <= box.bottom + 3, `it is outside of its row: ${what}`);
  }
  for (const each of text.querySelectorAll("*")) check(ALLOWED.has(each.tagName), `${each.tagName} in ${what}`);
  check(!RAW.test(row.textContent), `raw: ${what}`);
  check(!/\\p{M}{5}/u.test(row.textContent), `marks: ${what}`);
}
for (const each of log.querySelectorAll("a")) {
  const url = new URL(each.href);
  check(["http:", "https:"].includes(url.protocol) && !url.username && !url.password, `link ${each.href}`);
  check(each.target === "_blank" && each.relList.contains("noopener"), `target of ${each.href}`);
}
for (const { name } of performance.getEntriesByType("resource")) {
  check(name.startsWith(location.origin), `it has loaded ${name}`);
}
return faults;
"""


def assert_harmless(page: Page) -> None:
    """No script ran, and every row is in its place, in all of the log."""
    assert page.run(_LOOK) == []
    seen: set[str] = set()
    while True:  # from the end to the beginning
        rows = {str(each.id or each.text) for each in page.messages()}
        assert page.run(_LOOK) == []
        if rows <= seen and page.run("return document.querySelector('[role=log]').scrollTop") < 1:
            break
        seen |= rows
        page.wait_for(
            "const log = document.querySelector('[role=log]'); log.scrollTop -= log.clientHeight;"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)));"
        )


def open_all(page: Page) -> None:
    """Unfold long texts, and move the pointer over everything that could react."""
    page.run(
        "for (const each of document.querySelectorAll('[role=log] button.link')) each.click();"
        "for (const each of document.querySelectorAll('[role=log] *'))"
        " for (const kind of ['mouseover', 'focus', 'load', 'error']) each.dispatchEvent(new Event(kind));"
    )


def send_attacks(peer: Peer, **members: str) -> None:
    for number, text in enumerate(TEXTS):
        peer.ask(message=f"{number} {text}", **members)
    for _ in TEXTS:
        peer.next("sent")
    peer.ask(message="that was all", **members)
    peer.next("sent")


def test_no_text_takes_long(server: Program, open_page: Callable[[int], Page]) -> None:
    """The window of a conversation has 1,000 messages. A text that a pattern reads in cubic time took 200 ms."""
    page = open_page(server.port)
    for text in ("https://x" + "." * 2_700 + "x" + ")" * 5_400, "https://x" + "([{.)" * 1_600, "https://x " * 800):
        script = (
            "import('./text.js').then(({ textNodes }) => { const took = [];"
            "for (let i = 0; i < 20; i++) {"
            " const begin = performance.now(); textNodes(arguments[0]); took.push(performance.now() - begin); }"
            "done(Math.min(...took)); });"
        )
        assert page.wait_for(script, text) < 75


@pytest.mark.parametrize(("width", "is_live"), [(1_100, True), (320, False)], ids=["wide-live", "narrow-history"])
def test_texts_of_users_do_not_control_the_page(
    own_server: Program, open_page: Callable[[int], Page], is_live: bool, width: int
) -> None:
    """Promise: links with http or https are links, and nothing else is markup."""
    bob = Peer(own_server.port)
    bob.login(HUGE)
    setup = Peer(own_server.port)
    setup.login("alice")
    setup.close()
    page = open_page(own_server.port)
    page.resize(width, 700)

    def attack() -> None:
        send_attacks(bob, command="PM")
        send_attacks(bob, command="DM", to="alice")

    if not is_live:
        attack()
    page.log_in("alice")
    page.run(_LOOK)
    if is_live:
        attack()
    page.until_last("that was all")
    open_all(page)
    assert_harmless(page)
    if width > 1_000:
        page.open_conversation(HUGE)
        page.until_last("that was all")
        open_all(page)
        assert_harmless(page)
        page.send("still here")
        while bob.next("direct", "broadcast")["message"] != "still here":
            pass
    bob.close()


def test_topics_and_reasons_of_users_do_not_control_the_page(
    own_server: Program, open_page: Callable[[int], Page]
) -> None:
    """They are in headings, notices and lists."""
    bob = Peer(own_server.port)
    bob.login("bob", rooms=True)
    page = open_page(own_server.port)
    page.log_in("alice")
    page.run(_LOOK)
    bob.ask(command="join", room="A.-_" + "W" * 28)
    room = bob.next("joined")["room"]
    page.send(f"/join {room}")
    page.until(lambda: room in page.run("return document.querySelector('h1#title, #title').textContent"), "it is open")
    lines = [each for each in [*MARKUP.values(), *LINKS.values()] if each.isprintable() and len(each) <= 256]
    for number, line in enumerate(lines):
        bob.ask(command="topic", room=room, topic=line)
        bob.next("topic")
        if number % 5 == 0:
            bob.ask(command="kick", room=room, username="alice", reason=line)
            bob.next("kicked")
            page.until(lambda: room not in " ".join(page.conversations()), "alice is out")
            page.send(f"/join {room}")
            page.until(lambda: room in " ".join(page.conversations()), "alice is back")
        assert page.run(_LOOK) == []
    page.click("button", "Find or make a room")
    page.until(lambda: "member" in page.find("dialog", "Rooms").text, "the rooms are listed")
    assert page.run(_LOOK.replace(", form", "")) == [] or page.run("return window.owned") is None
    bob.close()


# --- a hostile server ---

EVIL: Final = [
    "<img src=x onerror=owned=1>\"'onmouseover=owned=1//",
    "".join(CONTROL.values()) + ZALGO + "\u202e",
    "javascript:owned=1",
    "W" * 3_000,
    "__proto__",
]


def answers_with(evil: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a server that has this text in every member."""
    messages = [broadcast(1, evil, evil), broadcast(2, "bob", evil)]
    messages += [broadcast(3, evil, evil, type="direct", to="alice")]
    match request:
        case {"command": "login"}:
            room = {"room": evil, "topic": evil, "last_id": 3}
            hello = welcome("alice", evil, last_id=3) | {"rooms": [room], "history_id": "0123456789abcdef"}
            hello["token"] = evil
            return [
                hello,
                {"type": "users", "users": ["alice", evil], "joined": [evil], "left": [f"{evil}2"]},
                broadcast(4, evil, evil),
                broadcast(5, "bob", evil, type="direct", to=evil),
                broadcast(6, evil, evil, type="direct", to="alice"),
                broadcast(7, evil, evil, room=evil),
                {"type": "topic", "room": evil, "topic": evil, "by": evil},
                {"type": "invited", "room": evil, "username": "alice", "by": evil},
                {"type": "kicked", "username": evil, "by": evil, "reason": evil},
                {"type": "role", "room": evil, "username": evil, "role": evil, "by": evil},
                {"type": "banned", "username": evil, "by": evil, "until": evil, "reason": evil},
                {"type": "deleted", "id": 1, "by": evil},
                {"type": "sent", "id": 8, "status": evil, "nonce": evil},
                {"type": "error", "code": evil, "message": evil},
                {"type": evil},
                broadcast(9, "bob", "that was all"),
            ]
        case {"command": "CH"}:
            return [{"type": "history", "messages": messages}]
        case {"command": "search", "words": words}:
            return [{"type": "found", "words": words, "messages": messages, "upto": 9}]
        case {"command": "conversations"}:
            return [{"type": "conversations", "conversations": [{"username": evil, "last_id": 3}]}]
        case {"command": "ignored"}:
            return [{"type": "ignored", "users": [f"{evil}3"]}]
        case {"command": "users"}:
            return [{"type": "users", "users": ["alice", evil], "joined": [], "left": []}]
        case {"command": "ping"}:
            return [{"type": "pong"}]
        case _:
            return [{"type": "error", "code": evil, "message": evil}]


@contextmanager
def hostile_server(evil: str) -> Iterator[int]:
    """The page's own files, and a server that answers so; its port."""
    pages = read_pages()

    def process(_: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        found = pages.get(request.path)
        if found is None:
            return Response(HTTPStatus.NOT_FOUND, "Not Found", Headers(Content_Length="0"))
        headers = Headers({"Content-Type": found.content_type, "Content-Length": str(len(found.body))})
        return Response(HTTPStatus.OK, "OK", headers, found.body)

    def handle(connection: ServerConnection) -> None:
        try:
            for line in connection:
                for answer in answers_with(evil, json.loads(line)):
                    connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass

    with serve(handle, "127.0.0.1", 0, process_request=process, subprotocols=["chat.json"]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("evil", EVIL, ids=["markup", "control characters", "link", "huge", "prototype"])
def test_names_and_errors_of_a_server_do_not_control_the_page(open_page: Callable[[int], Page], evil: str) -> None:
    """Promise: no member of any answer is markup, in whichever place it is shown."""
    with hostile_server(evil) as port:
        page = open_page(port)
        page.expect_errors("ERR_CONNECTION_REFUSED")  # after the test
        page.find("form", "Log in")
        page.run(_LOOK)
        page.fill_in("alice", "secret")
        page.press("\ue007")
        page.until_last("that was all")
        page.run("window.active = undefined;")
        page.run(_LOOK)
        open_all(page)
        assert_harmless(page)
        for number in range(len(page.conversations())):
            page.open_conversation(number)
            page.wait_for("requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)));")
            open_all(page)
            assert page.run(_LOOK) == []
        assert page.run("return ({}).owned === undefined && ({}).messages === undefined")
