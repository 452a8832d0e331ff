"""The disaggregated vLLM deployment: engine processes, router, load, telemetry."""
