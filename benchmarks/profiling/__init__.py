"""How good the profiler is, on real CPU engines under quotas (`benchmarks/bench_profiler.py`)."""
