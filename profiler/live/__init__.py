"""A profile held against live engines: what they serve, and whether they drifted."""
