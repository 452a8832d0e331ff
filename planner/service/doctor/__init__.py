"""What stands in the way on this machine, looked for without changing anything."""
