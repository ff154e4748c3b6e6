"""The chat room client, for people, pipes and scripts."""

__version__ = "0.1.0"
