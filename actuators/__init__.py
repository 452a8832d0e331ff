"""Apply rollout steps to a dry run, to local processes, to Kubernetes."""
