"""The chat room server: many clients, many dialects, one room."""

__version__ = "0.1.0"
