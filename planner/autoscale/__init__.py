"""The slow and the fast scaling decision. Pure; the same code in production and replay."""
