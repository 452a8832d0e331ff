"""Traces in, expected request shapes out."""
