"""Steer worker counts on a Kubernetes cluster."""
