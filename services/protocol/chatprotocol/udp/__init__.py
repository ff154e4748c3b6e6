"""Packets, retransmission and the handshake over UDP, shared by the server, the client and the benchmark."""
