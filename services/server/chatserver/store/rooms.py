"""Rooms and their members."""

from __future__ import annotations

from typing import Final

# Conversations that every database has. All users are in the lobby; all direct messages are one conversation.
LOBBY_ID: Final = 0
DIRECT_ID: Final = 1
