"""The twin against NVIDIA's simulator: Dynamo's mocker, replaying the same traces.

    make bench-dynamo                                  # installs it and compares, ~40 minutes
    python -m benchmarks.dynamo.compare --trace azure  # one trace
    python -m benchmarks.dynamo.compare --quick        # the first requests only, ~2 minutes

Both simulators get the same requests, the same timing tables and the same static fleets. Their
side runs in an interpreter of its own (`.dynamo/`, see `requirements.txt`) on one processor; the
twin then runs in this one on the same processor. `POOLWISE_DATA` names the folder with the public
traces.

`cases` says what is compared and what can be turned off, `timing` makes one set of tables
readable for both, `ours` and `theirs` run a case, `run_theirs` is what the other interpreter
executes, `compare` prints the table.
"""
