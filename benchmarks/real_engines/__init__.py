"""Real vLLM engines on processors, under a kernel quota, against the twin."""
