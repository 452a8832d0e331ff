"""Measure real engines and keep what they were measured to do."""
