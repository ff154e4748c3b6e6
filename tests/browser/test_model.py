"""The page's model in the browser, without its view: dialogues, random losses, and a real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis.strategies import integers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from browser.browsers import Browsers
    from reliability.program import Program

_HERE: Final = Path(__file__).parent
_SCENARIOS: Final = re.findall(
    r"^  async (\w+)\((?:modules|{.*)\)", (_HERE / "model_scenarios.js").read_text(), re.MULTILINE
)
_MODULES: Final = """
const [{ Chat }, { Storage }, { Connection }, { explain }, { completions }] = await Promise.all(
  ["chat", "storage", "connection", "explain", "completion"].map((name) => import(`/${name}.js`)),
);
"""

_Run: TypeAlias = "Callable[..., Any]"


def _source(name: str) -> str:
    """A script of this folder, for the body of a function: the page's policy allows no modules from elsewhere."""
    text = (_HERE / name).read_text()
    return re.sub(r"^(import .*|export (?=\w))", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def run(browsers: Browsers, server: Program) -> Iterator[_Run]:
    """Run JavaScript of this folder on a page of the server; arguments follow. Returns its result."""
    page = browsers.open(f"http://127.0.0.1:{server.port}/chat.js")
    page.driver.get(page.url)

    def run(files: tuple[str, ...], body: str, *arguments: object) -> Any:
        code = "\n".join(map(_source, files))
        return page.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1], given = [...arguments];"
            f"(async () => {{ {_MODULES} {code} {body} }})().then(done, (error) => done(String(error.stack)));",
            *arguments,
        )

    yield run
    browsers.release()


@pytest.mark.parametrize("name", _SCENARIOS)
def test_scenario(run: _Run, name: str) -> None:
    """The promise that model_scenarios.js names."""
    body = "await SCENARIOS[given[0]]({ Chat, Storage, Connection, explain, completions }); return '';"
    assert run(("fake_server.js", "model_scenarios.js"), body, name) == ""


@given(seed=integers(0, 2**31 - 1), steps=integers(0, 400))
@example(seed=23585, steps=350)  # a message that was held back is in the window and in the tail
def test_random_losses(run: _Run, seed: int, steps: int) -> None:
    """After any failure: each message is shown exactly once, in order, and each typed one is stored once."""
    body = "return run({ Chat, Storage }, given[0], given[1]);"
    assert run(("fake_server.js", "model_random.js"), body, seed, steps) == ""


_REAL = """
const open = (handlers) => new Connection(`ws://${location.host}/`, handlers);
const store = () => new MemoryStore();
const page = (name, isNew = true) => {
  const chat = new Chat({ open, storage: new Storage({ local: store(), session: store() }) });
  return chat.logIn({ username: name, password: "wonderland", isNew }).then(() => chat);
};
const until = async (condition) => {
  while (!condition()) await new Promise((go) => setTimeout(go, 10));
};
const texts = (chat, key) => (chat.conversations.get(key)?.messages ?? []).map((each) => `${each.from}: ${each.text}`);
"""


def test_real_server(run: _Run, fresh_name: Callable[[str], str]) -> None:
    """Two users on the real server: the lobby, a room, direct messages, history, search and moderation."""
    body = """
      const [a, b] = await Promise.all([page(given[0]), page(given[1])]);
      await a.send("lobby", "hello all");
      await until(() => texts(b, "lobby").length === 1);
      const room = await a.join(`room-${given[0]}`);
      await b.join(`room-${given[0]}`);
      for (let number = 0; number < 12; number++) await a.send(room, `m${number}`);
      await until(() => texts(b, room).length === 12);
      await b.run(room, `@${given[0]} psst`);
      await until(() => a.unread.isMeant);
      const late = await page(given[1], false);
      await Promise.all([late.open(room), late.open(`user:${given[0]}`)]);
      const shown = [texts(late, room).length, texts(late, `user:${given[0]}`)];
      const found = await late.search(room, "m7");
      await a.setTopic(room, "a topic");
      await a.kick(room, given[1], "enough");
      await until(() => !b.conversations.has(room));
      await a.logIn({ username: given[0], password: "wonderland", remember: "test" });
      const token = await a.tokens();
      await a.logOut();
      return [shown, found.messages.map((each) => each.text), token.map((each) => each.label), a.state];
    """
    alice, bob = fresh_name("alice"), fresh_name("bob")
    expected = [[12, [f"{bob}: psst"]], ["m7"], ["test"], "out"]
    assert run(("fake_server.js",), _REAL + body, alice, bob) == expected
