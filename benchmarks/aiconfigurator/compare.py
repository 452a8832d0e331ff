"""The tables of `docs/optimizer.md`, section 3: Poolwise beside NVIDIA's aiconfigurator.

    make bench-aiconfigurator        (python -m benchmarks.aiconfigurator.compare [--without-twin])

1. Its question, its estimates, its formulas (`formulas.py`; no arrivals, no queues): the most
   tokens/s of 32 GPUs. Operating points come from imported profiles; every worker is then put to
   aiconfigurator's own estimator, whose figures are the ones shown.
2. The same tokens/s as its best plan on H100, at least cost, over prices of an H200: what it can
   deploy (one type), what its search can say (one type in each role), what Poolwise plans.
3. The fleets of 1 in Poolwise's twin with Poisson arrivals, the profiles' times uncorrected, and
   what Poolwise itself plans for these arrivals.

No figure was measured on a GPU by us. Exit status 1: a plan is worse than aiconfigurator's.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.aiconfigurator import ours, poisson, theirs
from benchmarks.aiconfigurator.ours import Confirmed
from benchmarks.aiconfigurator.question import (
    ACCELERATORS,
    QUESTIONS,
    Fleet,
    Question,
    Rated,
    served_rps,
)
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import Role
from planner.domain.profile import Profile

PRICE_RATIOS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0)
"""Of an H200 hour to an H100 hour, which counts 1."""
PLENTY, SHORT = 64, 16
"""Of each type in section 2."""
MORE_THAN_HOLDS = 1.5
"""Times the highest rate of section 1: what plans of section 3 are asked for, to serve the most."""

say = partial(print, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fleet of section 1."""

    who: str
    fleet: Fleet
    rps: float
    ttft_s: float
    tpot_s: float


def row_of(who: str, fleet: Fleet, workers: Sequence[Rated]) -> Row:
    """The fleet by these ratings of its workers; latencies are the longest."""
    by_worker = {r.worker: r for r in workers}
    parts = [(count, by_worker[worker]) for count, worker in fleet.parts]
    return Row(
        who=who,
        fleet=fleet,
        rps=served_rps(parts),
        ttft_s=max(r.ttft_s for _, r in parts),
        tpot_s=max(r.tpot_s for _, r in parts),
    )


def throughput(
    question: Question, names: Sequence[str], confirmed: Sequence[Confirmed]
) -> list[Row]:
    """Section 1 for one model on these types: theirs, one shape a role, the plan."""
    own = [c for c in confirmed if c.by_profile.worker.accelerator in names]
    by_theirs = [c.by_theirs for c in own]
    rows = [
        Row(
            who=f"aiconfigurator, {'aggregated' if found.mode == 'agg' else 'disaggregated'}",
            fleet=found.fleet,
            rps=found.rps,
            ttft_s=found.ttft_s,
            tpot_s=found.tpot_s,
        )
        for found in theirs.search(question, names[0], names[-1])
    ]
    alike = ours.most_alike(by_theirs, question.gpus)
    solved = ours.most([c.by_profile for c in own], gpus=question.gpus)
    if alike is not None:
        rows.append(row_of("one shape a role, any numbers", alike, by_theirs))
    if solved is not None:
        rows.append(row_of("plan", solved.fleet, by_theirs))
    return rows


def say_throughput(question: Question, names: Sequence[str], rows: Sequence[Row]) -> bool:
    """Print the rows; whether the plan is at least theirs and keeps both objectives."""
    best = max((r.rps for r in rows if r.who.startswith("aiconfigurator")), default=0.0)
    for row in rows:
        say(
            f"| {question.model_path.rpartition('/')[2]} | {' + '.join(names)} | {row.who} "
            f"| {row.fleet.text} | {row.rps * question.osl / question.gpus:.1f} "
            f"| {row.rps / best - 1:+.1%} | {row.ttft_s:.2f} s | {1e3 * row.tpot_s:.1f} ms |"
        )
    plan = rows[-1]
    kept = plan.ttft_s < question.ttft_s and plan.tpot_s < question.tpot_s
    return plan.who == "plan" and plan.rps >= best and kept and plan.fleet.gpus <= question.gpus


def say_agreement(confirmed: Sequence[Confirmed]) -> None:
    """How far rates from imported profiles are from the estimator's."""
    for role in Role:
        off = [
            c.by_profile.rps / c.by_theirs.rps - 1
            for c in confirmed
            if c.by_profile.worker.role is role
        ]
        say(
            f"{role}: {len(off)} workers, requests/s by profile {min(off):+.1%} to {max(off):+.1%} "
            f"of aiconfigurator's, median {np.median(np.abs(off)):.1%}"
        )


def say_prices(question: Question, confirmed: Sequence[Confirmed], demand_rps: float) -> bool:
    """Section 2 for one model; whether no plan costs more than what is alike in each role."""
    rated = [c.by_theirs for c in confirmed]
    never_worse = True
    tokens_per_hour = demand_rps * question.osl * 3600 / 1e6
    for each in (PLENTY, SHORT):
        inventory = dict.fromkeys(ACCELERATORS, each)
        for ratio in PRICE_RATIOS:
            prices = {"h100": 1.0, "h200": ratio}
            alike = [
                ours.cheapest_alike(
                    rated, demand_rps, inventory=inventory, usd_per_gpu_hour=prices, types=types
                )
                for types in (1, 2)
            ]
            plan = ours.cheapest(rated, demand_rps, inventory=inventory, usd_per_gpu_hour=prices)
            if plan is None:
                continue
            usd = plan.fleet.usd_per_hour(prices)
            cells = []
            for fleet in alike:
                if fleet is None:
                    cells.append("none")
                    continue
                other = fleet.usd_per_hour(prices)
                never_worse &= usd <= other + 1e-6
                cells.append(f"{other:.1f} (plan {usd / other - 1:+.0%})")
            say(
                f"| {question.model_path.rpartition('/')[2]}, {each} of each | {ratio:.1f} "
                f"| {' | '.join(cells)} | {usd:.1f} | {usd / tokens_per_hour:.3f} "
                f"| {plan.fleet.text} |"
            )
    return never_worse


def say_twin(
    question: Question, accelerator: str, rows: Sequence[Row], profiles: Sequence[Profile]
) -> None:
    """Section 3 for one model on one type."""
    own = [p for p in profiles if p.accelerator == accelerator]
    most_rps = MORE_THAN_HOLDS * max(r.rps for r in rows)
    cases = [(r.who, r.fleet, r.rps) for r in rows]
    for one_shape in (False, True):
        made = poisson.planned(question, own, demand_rps=most_rps, one_shape_per_role=one_shape)
        window = made.windows[0]
        served = window.request_rate_rps - window.shortfall_rps
        who = "planned for Poisson" + (", one shape a role" if one_shape else "")
        cases.append((who, poisson.fleet_of(made), served))
    for who, fleet, claimed in cases:
        share = poisson.attained(question, fleet, own, claimed)
        held = poisson.held_rps(question, fleet, own, most_rps=most_rps)
        say(
            f"| {question.model_path.rpartition('/')[2]} | {accelerator} | {who} | {fleet.text} "
            f"| {claimed:.1f}/s | {share:.1%} | {held:.1f}/s "
            f"| {held * question.osl / question.gpus:.0f} |"
        )


def compare(*, twin: bool) -> bool:
    """Print everything; whether every claim holds."""
    say(f"aiconfigurator {theirs.require()}\n")
    found: dict[Question, tuple[list[Profile], list[Confirmed]]] = {}
    rows: dict[tuple[Question, str], list[Row]] = {}
    holds = True
    say("| model | GPUs | by | fleet | tokens/s/GPU | against its best | TTFT | TPOT |")
    say("|---|---|---|---|---|---|---|---|")
    for question in QUESTIONS:
        profiles = ours.profiles_of(question, ACCELERATORS)
        confirmed = ours.confirmed_workers(question, profiles)
        found[question] = profiles, confirmed
        for names in (("h100",), ("h200",), ("h100", "h200")):
            made = throughput(question, names, confirmed)
            holds &= say_throughput(question, names, made)
            rows[question, "+".join(names)] = made
    say()
    say_agreement([c for _, confirmed in found.values() for c in confirmed])
    say("\n| model, inventory | H200 / H100 price | one type | one type a role | plan "
        "| USD per M tokens | fleet of the plan |")  # fmt: skip
    say("|---|---|---|---|---|---|---|")
    for question, (_, confirmed) in found.items():
        best = max(r.rps for r in rows[question, "h100"] if r.who.startswith("aiconfigurator"))
        holds &= say_prices(question, confirmed, best)
    if twin:
        say("\n| model | GPUs | by | fleet | at | in time | 95 % in time up to | tokens/s/GPU |")
        say("|---|---|---|---|---|---|---|---|")
        for question, (profiles, _) in found.items():
            for name in ACCELERATORS:
                say_twin(question, name, rows[question, name], profiles)
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--without-twin", action="store_true", help="sections 1 and 2 only")
    arguments = parser.parse_args()
    try:
        return 0 if compare(twin=not arguments.without_twin) else 1
    except PoolwiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
