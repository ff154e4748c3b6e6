"""Accounts and messages on the disk. All SQL of the server is in this package."""
