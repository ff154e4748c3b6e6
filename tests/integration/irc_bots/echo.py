"""A plugin of sopel, for ``running_bot`` of irc_clients.py. It hears in the thread that reads, so in order."""

from typing import Any, Final

from sopel import plugin

_heard: Final[list[str]] = []


@plugin.event("JOIN")
@plugin.rule(".*")
def tell(bot: Any, trigger: Any) -> None:
    if trigger.nick == bot.nick:
        bot.say("ready")


@plugin.rule("echo (.*)")
def echo(bot: Any, trigger: Any) -> None:
    bot.say(trigger.group(1))


@plugin.rule("speak$")
def speak(bot: Any, _: Any) -> None:
    bot.say(f"says {bot.nick}")


@plugin.rule(r"says (\w+)$")
@plugin.thread(False)
def hear(_: Any, trigger: Any) -> None:
    _heard.append(trigger.group(1))


@plugin.rule("what was said")
@plugin.thread(False)
def recite(bot: Any, _: Any) -> None:
    bot.say(" ".join(_heard))
