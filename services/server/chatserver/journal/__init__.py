"""The journal: the one order of everything that all servers must agree on. It knows no session and no hub."""
