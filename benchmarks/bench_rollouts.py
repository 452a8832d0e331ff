"""How many random rollouts keep their promises in the twin: attainment on the way, predicted dips.

    python -m benchmarks.bench_rollouts --cases 400 --seed 1

The same walks as `tests/planner/rollout/test_on_the_way.py`, many more of them, one line for each
that does not hold.
"""

import argparse
import random
import sys
from collections import Counter

from planner.domain.fleet import ReplicaShape
from planner.domain.spec import Spec
from tests.planner.rollout.cases import D_A100, P_A100, P_TP2, A, D, P, spec
from tests.planner.rollout.walks import Walk, walk, whole_pairs

PATHS = ({A: 1}, {A: 2}, {P: 1, D: 1}, {P: 2, D: 1}, {P: 1, D: 2}, {P_A100: 1, D: 1})
MORE = (P, D, A, P_A100, D_A100, P_TP2)
NOISE_RATIO = 0.02


def main() -> None:
    """Walk, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    held: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    for number in range(arguments.cases):
        before, wanted = _fleet(rng), _fleet(rng)
        load_ratio, can_flip = rng.choice([0.5, 0.7, 0.85]), rng.random() < 0.5
        for name, settings in (("room", spec(h100=99, a100=99)), ("tight", _tight(before, wanted))):
            seen = walk(
                before, wanted, settings, load_ratio=load_ratio, seed=number, can_flip=can_flip
            )
            kind = "tight, dips" if name == "tight" and seen.dip.depth_ratio > 0 else name
            cases[kind] += 1
            if _holds(seen):
                held[kind] += 1
            else:
                sys.stdout.write(_line(kind, before, wanted, load_ratio, seen) + "\n")
    for name, count in sorted(cases.items()):
        sys.stdout.write(f"{name}: {held[name]} of {count} hold\n")


def _holds(seen: Walk) -> bool:
    return seen.finished and seen.as_predicted(NOISE_RATIO)


def _fleet(rng: random.Random) -> dict[ReplicaShape, int]:
    counts = {s: rng.randint(0, 3) for s in rng.sample(MORE, rng.randint(0, 3))}
    return whole_pairs(counts | rng.choice(PATHS))


def _tight(before: dict[ReplicaShape, int], wanted: dict[ReplicaShape, int]) -> Spec:
    used = {
        name: max(
            sum(n * s.accelerators for s, n in counts.items() if s.accelerator == name)
            for counts in (before, wanted)
        )
        for name in ("h100", "a100")
    }
    return spec(**used)


def _line(
    name: str,
    before: dict[ReplicaShape, int],
    wanted: dict[ReplicaShape, int],
    load_ratio: float,
    seen: Walk,
) -> str:
    def said(counts: dict[ReplicaShape, int]) -> str:
        return " ".join(f"{n}x{s.label}" for s, n in counts.items())

    kinds = Counter(str(s.kind) for s in seen.change.steps)
    return (
        f"{name}: {said(before)} -> {said(wanted)} at {load_ratio}: lost {seen.lost_ratio:.3f} of "
        f"{seen.ends_ratio:.3f}, predicted {seen.predicted.low_ratio:.3f} to "
        f"{seen.predicted.high_ratio:.3f}, depth {seen.dip.depth_ratio:.2f}, "
        f"finished {seen.finished}, {dict(kinds)}"
    )


if __name__ == "__main__":
    main()
