"""One engine as a supervised process: its flags, its start, its end."""
