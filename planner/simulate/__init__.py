"""The digital twin: an event-driven replay of a deployment under a workload."""
