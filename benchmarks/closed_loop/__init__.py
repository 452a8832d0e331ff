"""The closed loop: autoscaling policies over whole traces, in NVIDIA's simulator and in our twin.

    make bench-closed-loop                                # every policy on every workload
    make bench-closed-loop BENCH_FLAGS=--quick            # one workload, one setting
    python -m benchmarks.closed_loop.compare --help       # one workload, one policy, one setting

Every policy sees what a real observer sees (`planner.simulate.policy.Observation`) and says how
many prefill and decode replicas there should be (`Targets`). NVIDIA's simulator runs in an
interpreter of its own (`.dynamo/`); the policy stays in this one and is asked over a pipe.
`POOLWISE_DATA` names the folder with the public traces.

`settings` says what is served on what, `workloads` what arrives. `production` is Poolwise's own
policy, through the code that runs in production; `reactive` the rules of others; the simplest ones
and schedules made with the workload known are the product's (`planner.autoscale.backtest`).
`mocker` and `in_twin` run a policy, `judging` counts what became of the requests, `kept` keeps
results by what they depend on, and `compare` makes the table of `docs/closed-loop.md`.
"""
