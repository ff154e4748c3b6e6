"""The chat room client, for people, pipes, scripts and programs."""

from chatclient.client import ChatClient, ChatError, LostError, RefusedError

__all__ = ["ChatClient", "ChatError", "LostError", "RefusedError"]
__version__ = "0.1.0"
