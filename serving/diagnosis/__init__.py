"""What a running deployment is short of, from its metrics over an interval.

`watched` holds the input, `pool` what a role's workers did together, `finding` the answer; one
module of judges for each kind of shortage, and `conclude` chooses between them: all pure. Only
`watching` looks at live targets.
"""
