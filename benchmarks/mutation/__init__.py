"""Mutation testing of the core: does a test fail when one operator, number or branch is altered?

    make mutate                                        # all three packages, sampled with a seed
    make mutate MUTATE_FLAGS='--package rollout --mutants 300 --seed 2'

`cases` says which tests belong to a package and which of them are left out as too slow; `mutants`
finds and samples the alterations (cosmic-ray's operators); `run` tries each in a process of its
own, which sees the altered module and otherwise this working tree, and prints what survived.
"""
