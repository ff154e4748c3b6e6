"""Connections to the server over TCP and UDP."""
