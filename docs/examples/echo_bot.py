"""A bot that answers public messages that begin with its name, and all direct messages to it.

Start it with: CHAT_PASSWORD=secret python docs/examples/echo_bot.py HOST PORT NAME (Ctrl-C ends it)
"""

import os
import sys
from contextlib import suppress

from chatclient import ChatClient, ChatError, DirectMessage, PublicMessage, RefusedError

host, port, name = sys.argv[1:] if len(sys.argv) == 4 and "CHAT_PASSWORD" in os.environ else sys.exit(__doc__)
try:
    with suppress(KeyboardInterrupt), ChatClient(host, int(port)) as client:
        me = client.login(name, os.environ["CHAT_PASSWORD"]).username
        for event in client.events():
            with suppress(RefusedError):  # an answer may exceed the length limit of a message
                if isinstance(event, DirectMessage) and event.sender != me:
                    client.whisper(event.sender, f"You wrote: {event.text}")
                elif isinstance(event, PublicMessage) and event.text.lower().startswith(f"{me.lower()}:"):
                    client.say(f"{event.sender}: {event.text[len(me) + 1 :].strip() or 'yes?'}")
except ChatError as error:  # a wrong password, or a server that can't be reached
    sys.exit(f"{name}: {error}")
