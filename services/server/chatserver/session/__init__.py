"""What a connection may ask, and in which order."""
