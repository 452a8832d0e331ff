"""Which of the router's policies suits the traffic: a recommendation with its figures. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.fleet import Role
from serving.kv.reuse import LEAST_BLOCKS, ReusePotential
from serving.kv.view import KvSnapshot, WorkerKv
from serving.routers.policies import RouterPolicy

LEAST_GAIN = 0.05
"""Share of prompt tokens that routing by cache must save before it is worth uneven load."""
UNEVEN_RATIO = 0.2
HIGH_USAGE_RATIO = 0.8
"""smg leaves workers above it out of routing by itself (`--worker-overload-token-usage`)."""
MANY_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAdvice:
    """What to set for the workers of a role.

    Parameters
    ----------
    option : str
        The router's option with its value.
    reasons : tuple of str
        With figures.
    saved_ratio : float or None
        Share of prompt tokens that need not be computed, beyond what blind routing finds; None:
        not known, or nothing to do with this role.
    """

    role: Role
    policy: RouterPolicy
    option: str
    reasons: tuple[str, ...]
    saved_ratio: float | None = None


def recommend_policies(snapshot: KvSnapshot) -> tuple[PolicyAdvice, ...]:
    """A policy for each role that has workers.

    References
    ----------
    Mitzenmacher, How Useful Is Old Information? (2000): with many workers and load figures that
    are seconds old, the least loaded one draws everybody; the better of two random ones does not.
    """
    advice = []
    for role in Role:
        workers = snapshot.of_role(role)
        if not workers:
            continue
        if role is Role.DECODE:
            policy, reasons = _by_load(workers)
            saved = None
        else:
            policy, reasons, saved = _for_prompts(workers, snapshot.reuse_so_far)
        option = "--policy" if role is Role.AGGREGATED else f"--{role}-policy"
        advice.append(
            PolicyAdvice(
                role=role,
                policy=policy,
                option=f"{option} {policy}",
                reasons=reasons,
                saved_ratio=saved,
            )
        )
    return tuple(advice)


def _for_prompts(
    workers: Sequence[WorkerKv], reuse: ReusePotential | None
) -> tuple[RouterPolicy, tuple[str, ...], float | None]:
    if len(workers) == 1:
        return (
            RouterPolicy.LEAST_LOAD,
            ("one worker: every policy sends it everything",),
            None,
        )
    policy, by_load = _by_load(workers)
    if reuse is None or reuse.blocks < LEAST_BLOCKS:
        seen = 0 if reuse is None else reuse.blocks
        unknown = (
            f"what prompts share is not known yet: {seen} blocks of prompts were seen, "
            f"{LEAST_BLOCKS} are needed"
        )
        return policy, (unknown, *by_load), None
    saved = reuse.cache_aware_ratio - reuse.blind_ratio
    figures = (
        f"of prompt tokens {reuse.cache_aware_ratio:.0%} lie in a cache when requests go where "
        f"most of theirs is, {reuse.blind_ratio:.0%} when they go anywhere, "
        f"{reuse.infinite_ratio:.0%} in a cache without bounds"
    )
    if saved < LEAST_GAIN:
        why = f"routing by cache would save {max(saved, 0.0):.0%} of prompt tokens: not worth it"
        return policy, (figures, why, *by_load), saved
    why = f"routing by cache saves {saved:.0%} of prompt tokens"
    return RouterPolicy.CACHE_AWARE, (figures, why), saved


def _by_load(workers: Sequence[WorkerKv]) -> tuple[RouterPolicy, tuple[str, ...]]:
    usage = [w.usage_ratio for w in workers if w.usage_ratio is not None]
    if not usage:
        return RouterPolicy.LEAST_LOAD, ("KV pressure is not known: the metrics do not answer",)
    most, spread = max(usage), max(usage) - min(usage)
    pressure = f"KV caches are in use to {min(usage):.0%}-{most:.0%}"
    if most >= HIGH_USAGE_RATIO or spread >= UNEVEN_RATIO:
        return (
            RouterPolicy.LEAST_LOAD,
            (f"{pressure}: least_load weighs KV pressure, the others count requests",),
        )
    if len(workers) >= MANY_WORKERS:
        return (
            RouterPolicy.POWER_OF_TWO,
            (
                f"{pressure}, and {len(workers)} workers are many: with load figures that are "
                "seconds old the least loaded one would draw every request; smg takes it only "
                "where it knows two workers at its start, which no router of `deployment up` does",
            ),
        )
    return (
        RouterPolicy.LEAST_LOAD,
        (f"{pressure}: even, and {len(workers)} workers are few enough to compare them all",),
    )
