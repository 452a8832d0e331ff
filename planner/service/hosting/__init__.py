"""The deployments of one process: which they are, how one is opened, added and retired."""
