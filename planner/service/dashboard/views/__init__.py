"""What pages show: pure functions from what the store and the runtime know to values."""
