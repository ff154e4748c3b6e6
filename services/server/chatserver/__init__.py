"""The chat server: one room, several wire formats."""

__version__ = "0.1.0"
