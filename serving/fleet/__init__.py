"""The deployment as one thing: its members, what may change while it runs, who may ask for it."""
