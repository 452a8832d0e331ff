"""DistServe's placements: which parallelism serves most requests per GPU.

A placement is one prefill and one decode instance, each of some tensor (tp) and pipeline (pp)
parallel degree, within one node of A100; the best one sustains most requests/s per GPU while 90 %
meet TTFT and TPOT. Each instance is a replica of ours (`distserve_fits`), its rate that of
`planner.capacity`, and the optimizer picks the pair: for every number of GPUs, most goodput.

The objectives are table 1 of the paper (version 3), for OPT-66B with ShareGPT version 1's, too; the
placements its table 3. The README of their simulator adds a search with 4 GPUs. OPT-175B is left
out: nobody published a fit of its times.

Where ours differ: their published simulator has decode otherwise (`Fits.decode_as_prefill`), and
its search ends at `RESOLUTION_RPS`.

References
----------
Zhong et al., *DistServe*, OSDI 2024, arXiv 2401.09670; LLMServe/DistServe (Apache-2.0).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.published.distserve_fits import (
    GPUS_PER_NODE,
    Fits,
    Load,
    Parallel,
    read_fits,
    shape_of,
)
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.slo import Slo
from planner.domain.spec import Objective
from planner.optimize import Problem, optimize
from planner.optimize.inputs import (
    AcceleratorLimit,
    Option,
    PlanningWindow,
    PoolCapacity,
    ReplicaBounds,
    Stream,
)
from profiler.imports.distserve import ACCELERATOR, LARGE, SMALL
from profiler.imports.distserve import PUBLISHED_AT as START

ATTAINMENT_RATIO = 0.9
NODES = 4
"""Of 8 GPUs: their testbed (section 6.1)."""
SIMULATED_GPUS = 4
"""`--ngpu-per-node` of their simulator."""
RESOLUTION_RPS = 0.25
"""Per GPU: their search halves an interval until it is no wider (`--esp` of its README)."""
MORE_THAN_SERVED_RPS = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A prefill and a decode instance."""

    prefill: Parallel
    decode: Parallel

    @property
    def gpus(self) -> int:
        """GPUs of both."""
        return self.prefill.gpus + self.decode.gpus

    @property
    def label(self) -> str:
        """Prefill tp,pp + decode tp,pp."""
        prefill, decode = self.prefill, self.decode
        return f"{prefill.tp},{prefill.pp} + {decode.tp},{decode.pp}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A published row.

    Parameters
    ----------
    gpus : int
        Of a node: a pair has to fit into one.
    published_rps_per_gpu : float or None
        Goodput, where it is published as a number.
    """

    model: str
    dataset: str
    ttft_s: float
    tpot_s: float
    gpus: int
    published: Placement
    published_rps_per_gpu: float | None = None

    @property
    def load(self) -> Load:
        """What is asked of every instance."""
        slo = Slo(
            model=self.model,
            ttft_s=self.ttft_s,
            tpot_s=self.tpot_s,
            attainment_ratio=ATTAINMENT_RATIO,
        )
        return Load(shape=shape_of(self.dataset), slo=slo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A placement and what it sustains, requests/s."""

    placement: Placement
    rps: float

    @property
    def rps_per_gpu(self) -> float:
        """Goodput per GPU."""
        return self.rps / self.placement.gpus


def _placement(prefill_tp: int, prefill_pp: int, decode_tp: int, decode_pp: int) -> Placement:
    return Placement(
        prefill=Parallel(tp=prefill_tp, pp=prefill_pp),
        decode=Parallel(tp=decode_tp, pp=decode_pp),
    )


def cases(data: Path) -> tuple[Case, ...]:
    """The published rows of models that have a fit; placements and goodput from `data`."""
    path = data / "profiles/published-results/distserve_placements.json"
    content = json.loads(path.read_text())
    simulated = content["simulator_expected"]
    best = simulated["best"]
    readme = Case(
        model=SMALL,
        dataset="ShareGPT",
        ttft_s=0.2,
        tpot_s=0.1,
        gpus=SIMULATED_GPUS,
        published=_placement(
            best["tp_prefill"], best["pp_prefill"], best["tp_decode"], best["pp_decode"]
        ),
        published_rps_per_gpu=simulated["best_per_gpu_rate_rps"],
    )
    used = content["placements_used"]
    small, large = _placement(*used["opt-13b"]), _placement(*used["opt-66b"])
    rows = (
        (SMALL, "ShareGPT", 0.25, 0.1, SIMULATED_GPUS, small),
        (SMALL, "ShareGPT", 0.25, 0.1, GPUS_PER_NODE, small),
        (LARGE, "ShareGPT", 2.5, 0.15, GPUS_PER_NODE, large),
        (LARGE, "ShareGPT", 0.4, 0.1, GPUS_PER_NODE, large),
        (LARGE, "HumanEval", 0.125, 0.2, GPUS_PER_NODE, large),
        (LARGE, "LongBench", 15.0, 0.15, GPUS_PER_NODE, large),
    )
    paper = (
        Case(
            model=model, dataset=name, ttft_s=ttft_s, tpot_s=tpot_s, gpus=gpus, published=placement
        )
        for model, name, ttft_s, tpot_s, gpus, placement in rows
    )
    return readme, *paper


def problem_of(
    fits: Fits, load: Load, *, gpus: int, nodes: int = 1, most: int | None = 1
) -> Problem:
    """Which instances of which degrees to run on `gpus` GPUs of each node, for most goodput.

    Parameters
    ----------
    most : int or None
        Instances of a shape at the most; 1 asks for one pair, as DistServe's search does.
    """
    options, tables = [], []
    for role in (Role.PREFILL, Role.DECODE):
        for instance in fits.instances():
            if instance.gpus >= gpus or not load.admits(role, instance):
                continue
            count = nodes * (gpus // instance.gpus) if most is None else most
            rates = [fits.rps(role, instance, n, load) for n in range(1, count + 1)]
            tables.append(PoolCapacity(counts_rps=np.maximum.accumulate([0.0, *rates])))
            footprint = instance.gpus if nodes == 1 else 1 << (instance.gpus - 1).bit_length()
            options.append(_option(fits.model, role, instance, footprint))
    return Problem(
        streams=(Stream(model=fits.model),),
        options=tuple(options),
        windows=(PlanningWindow(start_at=START, window_s=3600.0),),
        demand_rps=np.array([[MORE_THAN_SERVED_RPS]]),
        capacity={(o, 0): table for o, table in enumerate(tables)},
        work=np.ones((1, len(options))),
        accelerators=(AcceleratorLimit(name=ACCELERATOR, inventory=nodes * gpus, per_node=gpus),),
        bounds=tuple(ReplicaBounds(shape=o.shape, max_replicas=most) for o in options),
        ordered_at=START,
        one_shape_per_role=most is not None,
        objective=Objective.GOODPUT,
    )


def _option(model: str, role: Role, instance: Parallel, footprint: int) -> Option:
    """A GPU hour costs 1, so that of equal goodput the fewest GPUs are taken."""
    return Option(
        shape=ReplicaShape(
            role=role, model=model, accelerator=ACCELERATOR, tp=instance.tp, pp=instance.pp
        ),
        purchase_option=PurchaseOption.ON_DEMAND,
        usd_per_hour=float(instance.gpus),
        footprint=footprint,
    )


def best_pair(fits: Fits, load: Load, *, gpus: int) -> Found | None:
    """The pair of most requests/s per GPU within a node, by one solve per number of GPUs."""
    found = []
    for most in range(2, gpus + 1):
        problem = problem_of(fits, load, gpus=most)
        if not all(problem.in_role(role) for role in (Role.PREFILL, Role.DECODE)):
            continue
        solution = optimize(problem)
        by_role = {
            problem.options[o].shape.role: problem.options[o].shape
            for o in problem.option_indices
            if solution.replicas[o, 0]
        }
        if len(by_role) == 2:
            prefill, decode = by_role[Role.PREFILL], by_role[Role.DECODE]
            placement = _placement(prefill.tp, prefill.pp, decode.tp, decode.pp)
            rps = MORE_THAN_SERVED_RPS - float(solution.shortfall_rps[0])
            found.append(Found(placement=placement, rps=rps))
    return max(found, key=lambda f: f.rps_per_gpu, default=None)


def pair_rps(fits: Fits, load: Load, placement: Placement) -> Found:
    """What our model says of a given placement."""
    return Found(
        placement=placement,
        rps=min(
            fits.rps(Role.PREFILL, placement.prefill, 1, load),
            fits.rps(Role.DECODE, placement.decode, 1, load),
        ),
    )


def best_as_simulated(fits: Fits, load: Load, *, gpus: int) -> Found | None:
    """The best pair with decode as DistServe's simulator has it."""
    theirs = replace(fits, decode_as_prefill=True)
    found = [best_pair(theirs, replace(load, decode_timed_at=tp), gpus=gpus) for tp in fits.times]
    return max((f for f in found if f), key=lambda f: f.rps_per_gpu, default=None)


def fleet_rps_per_gpu(fits: Fits, load: Load) -> float:
    """Of the whole testbed, any number of instances of any shapes: what Poolwise would run."""
    solution = optimize(problem_of(fits, load, gpus=GPUS_PER_NODE, nodes=NODES, most=None))
    served = MORE_THAN_SERVED_RPS - float(solution.shortfall_rps[0])
    return served / (GPUS_PER_NODE * NODES)


def table(data: Path) -> Iterator[str]:
    """Lines for people: published and found pairs, requests/s per GPU by our model."""
    yield (
        "| model, lengths | TTFT, TPOT s | node | published | requests/s per GPU | found "
        "| requests/s per GPU | decode as simulated | any fleet of 32 |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for case in cases(data):
        fits, load = read_fits(data, case.model), case.load
        given = pair_rps(fits, load, case.published)
        per_gpu = f"{given.rps_per_gpu:.2f}"
        if case.published_rps_per_gpu is not None:
            per_gpu += f" (published {case.published_rps_per_gpu:.2f})"
        found = best_pair(fits, load, gpus=case.gpus)
        simulated = best_as_simulated(fits, load, gpus=case.gpus)
        cells = [
            f"{case.model.rpartition('/')[2]}, {case.dataset}",
            f"{case.ttft_s:g}, {case.tpot_s:g}",
            str(case.gpus),
            case.published.label,
            per_gpu,
            "none" if found is None else found.placement.label,
            "" if found is None else f"{found.rps_per_gpu:.2f}",
            "none" if simulated is None else _named(simulated),
            f"{fleet_rps_per_gpu(fits, load):.2f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _named(found: Found) -> str:
    return f"{found.placement.label}: {found.rps_per_gpu:.2f}"
