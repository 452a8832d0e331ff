"""The vocabulary of Poolwise. Imports nothing of ours outside this package.

Glossary
--------
accelerator
    A GPU type, or a CPU slot on machines without one (`hardware`).
attainment
    Share of all arrivals that met every objective of their class (`slo`).
bucket
    A cell of request lengths. Never a request class.
candidate
    A replica shape that a spec's `shapes` asks for (`planner.optimize.shapes`).
catalogue
    Accelerators with their vendors' figures and dated list prices (`hardware.Catalogue`).
cell
    Replicas behind one router, between which KV caches move fast (`topology.Cell`).
clamp
    A guard's cut of what is wanted, with its reason (`planner.rollout.guards`).
demand
    Expected arrivals of one request class in one window (`forecast`).
diff, step
    Ordered actions from a fleet to a plan (`rollout`).
dip
    Capacity below that of the worse of both end fleets while a diff runs (`planner.rollout.dip`).
fleet, pool, replica
    All pools; identical replicas; one engine (`fleet`).
goodput
    Rate of requests that met every objective.
isl, osl
    Prompt and answer length of a shape (mean or quantile of many requests), tokens.
input_tokens, output_tokens
    Prompt and answer length of one request, tokens.
itl
    Gap between two tokens of an answer, seconds.
placement
    Which cell each replica stands in (`placement`); what has its other half elsewhere crosses.
plan
    Pools per window, with prediction, cost and reasons (`plan`).
profile
    What one replica was measured to do (`profile`).
quality
    How good answers are with a number format, by its user's label (`model.Quality`).
request class
    Who is promised what: the SLO class of a request.
role
    prefill, decode or aggregated.
shape
    Joint distribution of request lengths (`workload.Shape`); of a replica, everything that
    changes its speed (`fleet.ReplicaShape`).
slot
    On a machine without accelerators: a fixed share of its processor time, planned like one.
standby
    A worker that has generated a token and takes no traffic: no replica of a pool yet.
tpot
    (e2e - ttft) / (output_tokens - 1) of one request, seconds.
ttft
    Time to first token, seconds.
twin
    The simulation of a deployment (`planner.simulate`).
window
    [start_at, start_at + window_s).
"""
