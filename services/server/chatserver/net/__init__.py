"""Sockets, bytes and the threads that move them. This package imports nothing from chatserver.chat."""
