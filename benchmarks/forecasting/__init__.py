"""The forecaster on real series, beside others."""
