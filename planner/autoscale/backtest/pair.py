"""What is steered: the prefill and the decode pool of one model, and what requests are promised."""

from dataclasses import dataclass

from planner.domain.errors import SpecError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.spec import PoolBounds, Spec
from planner.optimize.loads import strictest_slo

ROLES = (Role.PREFILL, Role.DECODE)
"""In the order of groups and counts everywhere in this package."""

MOST_REPLICAS = 64
"""Of a role whose bounds and inventory name no number that is smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPair:
    """One prefill and one decode pool.

    Parameters
    ----------
    shapes, profiles : (prefill, decode)
    most_replicas : (prefill, decode) int
        Which every policy is cut to.
    usd_per_gpu_hour : (prefill, decode) float
    slo : Slo
        The strictest that is promised to a class of the model.
    """

    shapes: tuple[ReplicaShape, ReplicaShape]
    profiles: tuple[Profile, Profile]
    most_replicas: tuple[int, int]
    usd_per_gpu_hour: tuple[float, float]
    slo: Slo

    @classmethod
    def of(cls, spec: Spec, model: str) -> "PoolPair":
        """The spec's two pools of a model.

        Raises
        ------
        SpecError
            When the model has other pools than one of each role, or one has no profile.
        """
        prefill, decode = (_only(spec, model, role) for role in ROLES)
        shapes = prefill.shape, decode.shape
        return cls(
            shapes=shapes,
            profiles=(_profile(spec, shapes[0]), _profile(spec, shapes[1])),
            most_replicas=(_most(spec, prefill), _most(spec, decode)),
            usd_per_gpu_hour=(_price(spec, shapes[0]), _price(spec, shapes[1])),
            slo=strictest_slo(spec, model, ()),
        )

    @property
    def model(self) -> str:
        """Whose pools they are."""
        return self.shapes[0].model

    @property
    def start_s(self) -> float:
        """From ordering a replica until it serves, the slower role's, seconds."""
        return max(p.lifecycle.start_cold_s for p in self.profiles)

    @property
    def kv_capacity_tokens(self) -> int:
        """Of one decode replica."""
        return self.profiles[1].limits.kv_capacity_tokens


def _only(spec: Spec, model: str, role: Role) -> PoolBounds:
    own = [b for b in spec.pools if b.shape.model == model]
    found = [b for b in own if b.shape.role is role]
    if len(found) != 1 or len(own) != len(ROLES):
        labels = ", ".join(b.shape.label for b in own) or "none"
        raise SpecError(
            f"policies are compared on one prefill and one decode pool, but `pools` of {model} "
            f"are: {labels}; give a spec with one of each"
        )
    return found[0]


def _profile(spec: Spec, shape: ReplicaShape) -> Profile:
    profile = spec.profile_of(shape)
    if profile is None:
        raise SpecError(f"no profile describes {shape.label}: add one under `profiles`")
    return profile


def _most(spec: Spec, bounds: PoolBounds) -> int:
    inventory = spec.accelerator(bounds.shape.accelerator).inventory // bounds.shape.accelerators
    asked = MOST_REPLICAS if bounds.max_replicas is None else bounds.max_replicas
    return max(1, min(asked, inventory))


def _price(spec: Spec, shape: ReplicaShape) -> float:
    return min(o.usd_per_gpu_hour for o in spec.accelerator(shape.accelerator).offers)
