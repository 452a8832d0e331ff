"""The dashboard: pages for people, over the same code that the REST API runs."""
