"""Requests, events and wire protocols, shared by server and client. Pure: no input or output."""
