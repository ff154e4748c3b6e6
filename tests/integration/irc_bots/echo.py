"""A plugin of sopel: it tells that it is in a channel, and repeats what follows "echo"."""

from typing import Any

from sopel import plugin


@plugin.event("JOIN")
@plugin.rule(".*")
def tell(bot: Any, trigger: Any) -> None:
    if trigger.nick == bot.nick:
        bot.say("ready")


@plugin.rule("echo (.*)")
def echo(bot: Any, trigger: Any) -> None:
    bot.say(trigger.group(1))
