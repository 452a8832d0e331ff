"""What is seen of a running deployment: signals, load, status, diagnosis."""
