"""A bot that answers: in the room whoever calls it by its name, and in private whoever writes to it.

Start it with: CHAT_PASSWORD=secret python docs/examples/echo_bot.py HOST PORT NAME; Ctrl-C ends it.
"""

import os
import sys

from chatclient import ChatClient
from chatprotocol.events import DirectMessage, PublicMessage

host, port, name = sys.argv[1:]
with ChatClient(host, int(port)) as client:
    me = client.login(name, os.environ["CHAT_PASSWORD"]).username
    for event in client.events():
        match event:
            case PublicMessage(sender=sender, text=text) if sender != me and text.lower().startswith(f"{me.lower()}:"):
                client.say(f"{sender}: {text[len(me) + 1 :].strip() or 'yes?'}")
            case DirectMessage(sender=sender, text=text) if sender != me:
                client.whisper(sender, text)
