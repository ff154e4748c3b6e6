"""The web page: its files, which the protocol websocket serves."""
