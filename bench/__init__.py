"""The benchmark: the servers, the load, and the tables and pictures of the results."""
