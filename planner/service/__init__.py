"""Composition root: settings, store, loop, API, reports and CLI."""
