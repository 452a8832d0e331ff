"""The price of plans for replicas that may be slower than profiled."""

from planner.domain.plan import RejectedAlternative
from planner.domain.spec import Spec
from planner.optimize.explain import NOT_IN_TIME, unserved_text
from planner.optimize.problem import Problem
from planner.optimize.relax import Rebuild
from planner.optimize.solution import Solution, mean_usd_per_hour
from planner.optimize.solve import attempt

_TRUSTING = "trusting the profiles"


def trusting_the_profiles(
    spec: Spec, rebuild: Rebuild, chosen: Problem, solution: Solution
) -> tuple[RejectedAlternative, ...]:
    """The price of robustness: what the fleet would cost if replicas were as fast as profiled.

    Parameters
    ----------
    rebuild : function of a spec
        With the discounts that the chosen fleet was proven with: both are as sure.
    """
    errors = sorted({spec.error_ratio_of(o.shape) for o in chosen.options})
    if not errors or errors[-1] <= 0:
        return ()
    trusting = rebuild(spec.trusting)
    found = attempt(trusting)
    if found is None:
        late = RejectedAlternative(name=_TRUSTING, reason=NOT_IN_TIME, usd_per_hour=None)
        return (late,)
    if not found.feasible:
        return ()
    usd = mean_usd_per_hour(trusting, found.replicas)
    more = mean_usd_per_hour(chosen, solution.replicas) - usd
    reason = (
        f"{usd:.2f} USD/h; {more:.2f} more is the price of replicas that may be "
        f"{' to '.join(f'{e:.0%}' for e in dict.fromkeys((errors[0], errors[-1])))} slower than "
        "profiled"
    )
    for whose, left in (
        ("it", unserved_text(trusting, found)),
        ("the plan", unserved_text(chosen, solution)),
    ):
        reason += f"; {whose} {left}" if left else ""
    return (RejectedAlternative(name=_TRUSTING, reason=reason, usd_per_hour=usd),)
