"""The chat client, for people, pipes, scripts and programs. This module is the API for programs: see docs/bots.md."""

from chatclient.client import ChatClient
from chatclient.errors import ChatError, LostError, RefusedError, UsageError
from chatclient.notices import ConnectionLost, Dropped, Reconnected
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
from chatprotocol.wire.base import DeliveryUnknown, Outcome, PossibleGap

__all__ = [
    "AccountKind",
    "Bye",
    "ChatClient",
    "ChatError",
    "ConnectionLost",
    "DeliveryUnknown",
    "DirectMessage",
    "Dropped",
    "Forwarded",
    "Found",
    "History",
    "LostError",
    "Online",
    "Outcome",
    "PossibleGap",
    "PublicMessage",
    "Reconnected",
    "Refused",
    "RefusedError",
    "Say",
    "Sent",
    "SentStatus",
    "UsageError",
    "Users",
    "Welcome",
    "Whisper",
]
__version__ = "0.1.0"
