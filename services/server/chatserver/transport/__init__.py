"""Bytes and sockets: who is connected, and what is due to each. It does not know what chat is."""
