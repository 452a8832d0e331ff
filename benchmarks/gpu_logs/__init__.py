"""Logs of real engines on GPUs: fit a step-time model on a third of them, predict the rest."""
