"""The chat room client, for people, pipes, scripts and programs. What programs need is here: see docs/bots.md."""

from chatclient.client import ChatClient
from chatclient.errors import ChatError, LostError, RefusedError, UsageError
from chatclient.exchange import Gap, Outcome, Unsettled
from chatclient.notices import Back, Cut, Dropped
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Forwarded,
    Found,
    History,
    Online,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.requests import Say, Whisper

__all__ = [
    "AccountKind",
    "Back",
    "Bye",
    "ChatClient",
    "ChatError",
    "Cut",
    "DirectMessage",
    "Dropped",
    "Forwarded",
    "Found",
    "Gap",
    "History",
    "LostError",
    "Online",
    "Outcome",
    "PublicMessage",
    "Refused",
    "RefusedError",
    "Say",
    "Sent",
    "SentStatus",
    "Unsettled",
    "UsageError",
    "Users",
    "Welcome",
    "Whisper",
]
__version__ = "0.1.0"
