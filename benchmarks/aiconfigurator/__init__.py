"""Poolwise's optimizer beside NVIDIA's aiconfigurator, on aiconfigurator's own estimates."""
