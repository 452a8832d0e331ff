"""llm-inferno's sample instances (llm-d's variant autoscaler): servers, accelerators, capacities.

Their queue: a replica of batch N is an M/M/1 queue with state-dependent service, at most 10 N
waiting. With n requests in the batch a token takes T(n) = a + n (b c + g m), c = (in + out) /
(out + 1) computed and m = in + out / 2 remembered tokens; a prompt T(n) + (b + g) in, each of `out`
tokens T(n) + b + g m. The rate of a replica is the highest at which mean ITL and TTFT keep the
class's objectives.

References
----------
llm-d/llm-d-workload-variant-autoscaler, pkg/analyzer; data of llm-inferno (Apache-2.0).
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.optimize import Problem
from planner.optimize.inputs import (
    AcceleratorLimit,
    Option,
    PlanningWindow,
    PoolCapacity,
    SolverSettings,
    Stream,
)

QUEUE_RATIO = 10
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """How a replica answers requests of one shape; milliseconds.

    Parameters
    ----------
    alpha, beta, gamma : float
        Of T(n), in their names and unit.
    """

    alpha: float
    beta: float
    gamma: float
    batch: int
    isl: float
    osl: float

    def step_ms(self, n: float) -> float:
        """T(n)."""
        computed = (self.isl + self.osl) / (self.osl + 1)
        return self.alpha + n * (self.beta * computed + self.gamma * self._remembered)

    @property
    def _remembered(self) -> float:
        return self.isl + self.osl / 2

    def prompt_ms(self, n: float) -> float:
        """Of one prompt."""
        return self.step_ms(n) + (self.beta + self.gamma) * self.isl

    def token_ms(self, n: float) -> float:
        """Of one token of an answer."""
        return self.step_ms(n) + self.beta + self.gamma * self._remembered

    def service_ms(self, n: float) -> float:
        """From admission to the last token."""
        return self.prompt_ms(n) + self.osl * self.token_ms(n)

    def means_ms(self, rate_per_ms: float) -> tuple[float, float]:
        """Mean TTFT and ITL at an arrival rate."""
        most = self.batch * (1 + QUEUE_RATIO)
        n = np.minimum(np.arange(1, most + 1), self.batch)
        served = n / np.array([self.service_ms(float(x)) for x in n])
        weights = np.concatenate([[0.0], np.cumsum(np.log(rate_per_ms) - np.log(served))])
        share = np.exp(weights - weights.max())
        share /= share.sum()
        through = rate_per_ms * (1 - share[-1])
        present = np.arange(most + 1)
        in_service = float(share @ np.minimum(present, self.batch))
        waiting_ms = (float(share @ present) - in_service) / through
        idle_ms = self.service_ms(0)
        busy = (in_service / through - idle_ms) / (self.service_ms(1) - idle_ms)
        busy = min(max(busy, 0.0), float(self.batch))
        token_ms = self.token_ms(busy)
        return waiting_ms + self.prompt_ms(busy) + token_ms, token_ms

    def sustained_rps(self, ttft_ms: float, itl_ms: float) -> float:
        """The highest rate at which both means keep their objectives; 0 where none does."""
        low, high = 0.0, self.batch / self.service_ms(float(self.batch))
        for _ in range(60):
            middle = (low + high) / 2
            ttft, itl = self.means_ms(middle)
            low, high = (middle, high) if ttft <= ttft_ms and itl <= itl_ms else (low, middle)
        return 1e3 * low


def read_instance(folder: Path, *, one_shape_per_role: bool) -> Problem:
    """One of their instances as a problem of one window: a model per server."""

    def content(name: str) -> dict[str, list[dict[str, object]]]:
        return dict(json.loads((folder / f"{name}-data.json").read_text()))

    accelerators = {str(a["name"]): a for a in content("accelerator")["accelerators"]}
    targets = {
        (c["name"], t["model"]): (
            float(t.get("slo-ttft", math.inf)),
            float(t.get("slo-itl", math.inf)),
        )
        for c in json.loads((folder / "serviceclass-data.json").read_text())["serviceClasses"]
        for t in c["modelTargets"]
    }
    measured = json.loads((folder / "model-data.json").read_text())["models"]
    servers = json.loads((folder / "server-data.json").read_text())["servers"]
    options, rates, streams, demands = [], [], [], []
    for server in servers:
        load = server["currentAlloc"]["load"]
        isl, osl = float(load["AvgInTokens"]), float(load["AvgOutTokens"])
        streams.append(Stream(model=server["name"], request_class=""))
        demands.append([float(load["arrivalRate"]) / 60])
        for row in (m for m in measured if m["name"] == server["model"]):
            accelerator = accelerators[row["acc"]]
            each = int(accelerator["multiplicity"])
            replica = Replica(
                alpha=row["perfParms"]["alpha"],
                beta=row["perfParms"]["beta"],
                gamma=row["perfParms"]["gamma"],
                batch=max(int(row["maxBatchSize"] * row["atTokens"] / osl), 1),
                isl=isl,
                osl=osl,
            )
            rate = replica.sustained_rps(*targets[server["class"], server["model"]])
            if rate <= 0:
                continue
            options.append(
                Option(
                    shape=ReplicaShape(
                        role=Role.AGGREGATED,
                        model=server["name"],
                        accelerator=str(accelerator["type"]),
                        tp=each,
                        dp=int(row["accCount"]),
                    ),
                    purchase_option=PurchaseOption.ON_DEMAND,
                    usd_per_hour=float(row["accCount"]) * float(accelerator["cost"]),
                    footprint=1,
                )
            )
            rates.append(rate)
    work = np.array(
        [[1.0 if o.shape.model == s.model else math.inf for o in options] for s in streams]
    )
    return Problem(
        streams=tuple(streams),
        options=tuple(options),
        windows=(PlanningWindow(start_at=START, window_s=3600.0),),
        demand_rps=np.array(demands),
        capacity={(o, 0): PoolCapacity.linear(rate) for o, rate in enumerate(rates)},
        work=work,
        accelerators=tuple(
            AcceleratorLimit(
                name=str(c["type"]), inventory=int(c["count"]), per_node=int(c["count"])
            )
            for c in json.loads((folder / "capacity-data.json").read_text())["count"]
        ),
        ordered_at=START,
        one_shape_per_role=one_shape_per_role,
        solver=SolverSettings(exact_work=120.0, gap_ratio=0.0, time_limit_s=120.0),
    )
