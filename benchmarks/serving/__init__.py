"""The running deployment under load, one module a part; `python -m benchmarks.bench_serving`."""
