"""Output of the command line program: plain lines, JSON lines, and a terminal."""
