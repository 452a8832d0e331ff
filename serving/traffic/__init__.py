"""Requests of our own to a running engine, timed token by token."""
