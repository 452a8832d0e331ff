"""What to have when the load cannot be seen for long."""

from planner.domain.fleet import Fleet
from planner.domain.guards import Fallback, GuardSettings


def fallback(fleet: Fleet, settings: GuardSettings, *, failures: int) -> dict[str, int] | None:
    """Replicas by pool label to go to after so many failures in a row; None: hold what there is.

    Holding is also what happens before there were enough of them, and for pools that
    `fallback_pools` does not name.

    References
    ----------
    KEDA `fallback`: static, currentReplicas, currentReplicasIfHigher, currentReplicasIfLower.
    """
    if failures < settings.fallback_after or settings.fallback is Fallback.CURRENT:
        return None
    replicas = {}
    for pin in settings.fallback_pools:
        now = sum(p.replicas for p in fleet.pools if p.shape.label == pin.pool)
        replicas[pin.pool] = {
            Fallback.STATIC: pin.replicas,
            Fallback.HIGHER: max(now, pin.replicas),
            Fallback.LOWER: min(now, pin.replicas),
        }[settings.fallback]
    return replicas
