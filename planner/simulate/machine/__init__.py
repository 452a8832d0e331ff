"""The twin's compiled machine: arrays in, arrays out; no I/O, no randomness.

`loop` has the main loop, `steps` one worker's steps, `cache` its KV blocks, `routing` the choice
of workers, `links` the moves of KV caches between them, `lifecycle` what happens to workers.
"""
