"""Sockets, bytes and the threads that move them. This package does not know what a chat is."""
