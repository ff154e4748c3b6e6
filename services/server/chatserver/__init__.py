"""The chat server: rooms, several wire formats."""

__version__ = "0.1.0"
