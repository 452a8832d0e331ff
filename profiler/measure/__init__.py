"""Measure a running engine: what to measure next, how, and what came out, kept as it comes."""
