"""Who may do what: tokens, roles, rate limits, TLS, and secrets kept out of sight."""
