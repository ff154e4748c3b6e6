"""The benchmark: a load, the servers that bear it, and what is made of the figures."""
