"""A bot of the package irc, with SASL, for ``running_bot`` of irc_clients.py.

Arguments: host, port, account, password, and the certificate that it trusts.
"""

import ssl
import sys
from functools import partial
from typing import Any

from irc.bot import SingleServerIRCBot
from irc.connection import Factory

host, port, account, password, certificate = sys.argv[1:]


heard: list[str] = []


class Bot(SingleServerIRCBot):
    def on_welcome(self, connection: Any, _: Any) -> None:
        connection.join("#lobby")

    def on_join(self, connection: Any, event: Any) -> None:
        if event.source.nick == connection.get_nickname():
            connection.privmsg(event.target, "ready")

    def on_pubmsg(self, connection: Any, event: Any) -> None:
        word, _, rest = event.arguments[0].partition(" ")
        if word == "echo":
            connection.privmsg(event.target, rest)
        elif word == "speak":
            connection.privmsg(event.target, f"says {account}")
        elif word == "says":
            heard.append(rest)
        elif word == "what":
            connection.privmsg(event.target, " ".join(heard))


context = ssl.create_default_context(cafile=certificate)
wrapper = partial(context.wrap_socket, server_hostname=host)
servers = [(host, int(port), password)]
Bot(servers, account, account, sasl_login=account, connect_factory=Factory(wrapper=wrapper)).start()
