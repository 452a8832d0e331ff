"""The service, measured: load, crashes, and a month of its store."""
