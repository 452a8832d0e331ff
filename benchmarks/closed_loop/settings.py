"""What is served on what: the engine's times, the objectives, and how long a start takes."""

from dataclasses import dataclass, replace

from benchmarks.dynamo.cases import ENGINE, TIMING
from benchmarks.dynamo.timing import Engine, Timing, profile_of
from planner.autoscale.backtest import ROLES, PoolPair
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.guards import GuardSettings
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.profile import Profile, ProfileKind
from planner.domain.slo import Slo
from planner.domain.spec import (
    Balancing,
    ForecastSettings,
    LoopMode,
    LoopSettings,
    PoolBounds,
    Routing,
    Spec,
)

MOST_REPLICAS = 24
"""Of each role, for every policy."""

QWEN = Model(
    name="qwen3-32b",
    layers=64,
    kv_heads=8,
    head_size=128,
    parameters=32_800_000_000,
    active_parameters=32_800_000_000,
    max_context_tokens=131_072,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One deployment.

    Parameters
    ----------
    tp : int
        Accelerators of one replica.
    ttft_s, tpot_s : float
        Objectives, seconds.
    start_s : float
        From ordering a replica until it serves, seconds.
    """

    name: str
    model: Model
    accelerator: str
    tp: int
    timing: Timing
    engine: Engine
    ttft_s: float
    tpot_s: float
    start_s: float
    usd_per_gpu_hour: float

    def slo(self, attainment_ratio: float = 0.99) -> Slo:
        """The objectives, promised to this share of requests."""
        return Slo(
            model=self.model.name,
            ttft_s=self.ttft_s,
            tpot_s=self.tpot_s,
            attainment_ratio=attainment_ratio,
        )

    def shape(self, role: Role) -> ReplicaShape:
        """The replicas of a role."""
        return ReplicaShape(
            role=role, model=self.model.name, accelerator=self.accelerator, tp=self.tp
        )

    def profile(self, role: Role) -> Profile:
        """What one of them does."""
        own = profile_of(self.timing, self.engine, role)
        times = replace(own.lifecycle, start_cold_s=self.start_s, start_warm_s=self.start_s)
        return replace(
            own,
            profile_id=f"{self.name}-{role}",
            model=self.model.name,
            accelerator=self.accelerator,
            tp=self.tp,
            lifecycle=times,
            # Of the simulators that is true: their times are this formula.
            provenance=replace(own.provenance, kind=ProfileKind.MEASURED),
        )

    @property
    def pair(self) -> PoolPair:
        """The two pools, as policies see them."""
        prefill, decode = ROLES
        return PoolPair(
            shapes=(self.shape(prefill), self.shape(decode)),
            profiles=(self.profile(prefill), self.profile(decode)),
            most_replicas=(MOST_REPLICAS, MOST_REPLICAS),
            usd_per_gpu_hour=(self.usd_per_gpu_hour, self.usd_per_gpu_hour),
            slo=self.slo(),
        )

    def spec(
        self,
        *,
        attainment_ratio: float,
        forecast: ForecastSettings,
        loop: LoopSettings,
        guards: GuardSettings,
    ) -> Spec:
        """The deployment as its owner would describe it."""
        offer = Offer(
            purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=self.usd_per_gpu_hour
        )
        bounds = (
            PoolBounds(shape=self.shape(r), min_replicas=1, max_replicas=MOST_REPLICAS)
            for r in ROLES
        )
        return Spec(
            spec_id="closed-loop",
            name="closed-loop",
            models=(self.model,),
            slos=(self.slo(attainment_ratio),),
            accelerators=(
                Accelerator(
                    name=self.accelerator,
                    per_node=8,
                    inventory=2 * MOST_REPLICAS * self.tp,
                    offers=(offer,),
                ),
            ),
            profiles=tuple(self.profile(r) for r in ROLES),
            pools=tuple(bounds),
            routing=Routing(balancing=Balancing.ROUND_ROBIN),
            forecast=forecast,
            loop=replace(loop, mode=LoopMode.AUTO),
            guards=guards,
        )


def _qwen_on_h100(start_s: float) -> Setting:
    return Setting(
        name=f"Qwen3-32B TP2 H100, start-up {start_s:g} s",
        model=QWEN,
        accelerator="h100",
        tp=2,
        timing=TIMING,
        engine=ENGINE,
        ttft_s=1.0,
        tpot_s=0.04,
        start_s=start_s,
        usd_per_gpu_hour=3.0,
    )


SETTINGS = {"qwen-60": _qwen_on_h100(60.0), "qwen-300": _qwen_on_h100(300.0)}
"""Times are formulas of the size of Qwen3-32B on two H100 (`benchmarks.dynamo.cases.TIMING`):
16,000 prompt tokens/s, as llm-d measured (15,965); 12 ms to read the weights, 39 ns a token of
context. The same for both simulators and for all policies that use a profile."""
