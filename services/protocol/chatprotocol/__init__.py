"""What a client can ask, what a server can say, and the bytes of every dialect: pure, no input or output."""
