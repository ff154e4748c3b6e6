"""Accounts and messages on the disk. All SQL lives here."""
