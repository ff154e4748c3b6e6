"""Packets, retransmission and the handshake over UDP, for the server, the client and the benchmark."""
