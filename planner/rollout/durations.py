"""How long one rollout step takes and what it wastes, from the profiles' lifecycle times."""

from planner.domain.errors import SpecError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.profile import LifecycleTimes
from planner.domain.rollout import StepKind
from planner.domain.spec import Spec
from planner.rollout.effects import PoolKey


def lifecycle_of(shape: ReplicaShape, spec: Spec) -> LifecycleTimes:
    """Lifecycle times of a shape; the slowest ones of its model where it has no profile.

    A fleet may hold a shape that the spec no longer plans for: it has to be drained all the same.

    Raises
    ------
    SpecError
        When no profile of the model is known.
    """
    profile = spec.profile_of(shape)
    if profile is not None:
        return profile.lifecycle
    known = [p.lifecycle for p in spec.profiles if p.model == shape.model]
    if not known:
        raise SpecError(
            f"no profile of model {shape.model} is in the spec, so nothing is known about how "
            "long its replicas take to start or drain: add one under `profiles`"
        )
    return LifecycleTimes(
        start_cold_s=max(x.start_cold_s for x in known),
        start_warm_s=max(x.start_warm_s for x in known),
        flip_s=max(x.flip_s for x in known),
        drain_s=max(x.drain_s for x in known),
    )


def start_s(shape: ReplicaShape, spec: Spec, fleet: Fleet) -> float:
    """Seconds to start one replica: warm where the model already runs on this accelerator."""
    lifecycle = lifecycle_of(shape, spec)
    warm = fleet.runs(shape.model, shape.accelerator)
    return lifecycle.start_warm_s if warm else lifecycle.start_cold_s


def expected_s(kind: StepKind, shape: ReplicaShape, spec: Spec, fleet: Fleet) -> float:
    """Expected seconds of one step; registering with the router and ending a process are free."""
    lifecycle = lifecycle_of(shape, spec)
    if kind is StepKind.START:
        return start_s(shape, spec, fleet)
    if kind is StepKind.FLIP:
        return lifecycle.flip_s
    if kind is StepKind.DRAIN:
        return lifecycle.drain_s
    return 0.0


def usd_per_hour(key: PoolKey, spec: Spec) -> float:
    """Price of one replica for one hour, USD.

    Raises
    ------
    SpecError
        When the spec does not price this accelerator under this purchase option.
    """
    name, option = key.shape.accelerator, key.purchase_option
    accelerator = next((a for a in spec.accelerators if a.name == name), None)
    offer = None if accelerator is None else accelerator.offer(option)
    if offer is None:
        raise SpecError(
            f"the fleet has {key.shape.label} as {option}, but the spec gives accelerator {name} "
            f"no {option} price: add usd_per_gpu_hour.{option} under `accelerators`"
        )
    return offer.usd_per_gpu_hour * key.shape.accelerators
