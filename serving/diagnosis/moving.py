"""Shortages between prefill and decode: moving one KV cache, and the links that all share."""

from dataclasses import dataclass

from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from serving.diagnosis.finding import Evidence, Judgement, Suspicion, Unit, Unjudged
from serving.diagnosis.pool import Pool
from serving.diagnosis.watched import Yardsticks

SLOWED_RATIO = 2.0
"""A transfer that takes twice as long as alone shares its way with another, in the mean."""
FULL_LINK_RATIO = 0.8
LEAST_TRANSFERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What was moved.

    Parameters
    ----------
    mean_s : float
        One transfer.
    wait_s : float
        From the request's arrival at decode until its cache is there, by Little's law over the
        requests that wait for one; at least `mean_s`.
    noticed_s : float
        Of it: until the step that is running ends. Engines look for arrived caches between steps,
        so a worker that writes many answers sees them a step later, however fast the way is.
    per_s, bytes_per_s : float
    prefill_s : float or None
        Computing the same prompt.
    alone_s : float or None
        One transfer on an idle way, by the profile; else the fastest twentieth that was seen.
    alone_is_known : bool
    failed_per_s : float
        Failed, or expired before they were fetched.
    """

    mean_s: float
    wait_s: float
    noticed_s: float
    per_s: float
    bytes_per_s: float
    prefill_s: float | None
    alone_s: float | None
    alone_is_known: bool
    failed_per_s: float

    @property
    def moving_s(self) -> float:
        """What the way takes of the wait."""
        return max(self.wait_s - self.noticed_s, 0.0)

    @property
    def under_way(self) -> float:
        """Transfers at the same time, mean."""
        return self.per_s * self.mean_s


def moves_of(
    decode: Pool, prefill: Pool | None, yardsticks: Yardsticks, seconds: float
) -> Moves | None:
    """What decode workers fetched; None where too little."""
    transfer_s = decode.mean_s(lambda w: w.signals.activity.transfer.latency)
    per_s = decode.rate(lambda w: w.signals.activity.transfer.transfers_per_s)
    if transfer_s is None or per_s is None or per_s * seconds < LEAST_TRANSFERS:
        return None
    itl_s = decode.mean_s(lambda w: w.signals.activity.itl)
    moved = decode.rate(lambda w: w.signals.activity.transfer.bytes_per_s) or 0.0
    failed = decode.rate(lambda w: w.signals.activity.transfer.failed_per_s) or 0.0
    expired = 0.0
    if prefill is not None:
        expired = prefill.rate(lambda w: w.signals.activity.transfer.expired_per_s) or 0.0
    profile = yardsticks.profiles.get(Role.DECODE)
    times = decode.times(lambda w: w.signals.activity.transfer.latency)
    fastest = None if times is None else times.quantile(0.05)
    alone_s = None if fastest is None else fastest.value
    if profile is not None:
        alone_s = float(profile.transfer.seconds(moved / per_s))
    return Moves(
        mean_s=transfer_s,
        wait_s=max(decode.waiting_for_kv / per_s, transfer_s),
        noticed_s=min(decode.running / len(decode.workers), 1.0) * (itl_s or 0.0),
        per_s=per_s,
        bytes_per_s=moved,
        prefill_s=(
            None if prefill is None else prefill.mean_s(lambda w: w.signals.activity.prefilling)
        ),
        alone_s=alone_s,
        alone_is_known=profile is not None,
        failed_per_s=failed + expired,
    )


def judge_transfer(moves: Moves | None, yardsticks: Yardsticks) -> Judgement:
    """Whether moving one KV cache takes longer than computing it."""
    if moves is None or moves.prefill_s is None:
        return _untold(Bottleneck.CACHE_TRANSFER)
    evidence = [
        Evidence(
            what="wait for a KV cache at decode",
            value=moves.wait_s,
            unit=Unit.SECONDS,
            against="to compute the prompt",
            bound=moves.prefill_s,
        ),
        Evidence(what="the transfer itself", value=moves.mean_s, unit=Unit.SECONDS),
        Evidence(
            what="of both, until a step of other answers ends",
            value=min(moves.noticed_s, moves.wait_s),
            unit=Unit.SECONDS,
        ),
        Evidence(what="KV caches moved", value=moves.per_s, unit=Unit.PER_S),
    ]
    if moves.failed_per_s > 0:
        evidence.append(
            Evidence(what="transfers failed or expired", value=moves.failed_per_s, unit=Unit.PER_S)
        )
    lost_s = moves.moving_s
    ratio = min(lost_s / max(moves.prefill_s, 1e-6), lost_s / yardsticks.matters_s)
    return Suspicion(
        bottleneck=Bottleneck.CACHE_TRANSFER,
        role=None,
        pressure_ratio=ratio,
        is_short=ratio >= 1.0,
        held_up_requests=lost_s * moves.per_s,
        evidence=tuple(evidence),
        action=(
            "use a faster transport (shared memory, RDMA), keep prefill and decode of a request in "
            "one cell, or send short prompts straight to decode, which computes them itself"
        ),
    )


def judge_network(moves: Moves | None, yardsticks: Yardsticks) -> Judgement:
    """Whether transfers slow each other down on the links that they share."""
    link = yardsticks.link_bytes_per_s
    if moves is None:
        return _untold(Bottleneck.NETWORK)
    if link is None and moves.alone_s is None:
        return Unjudged(
            bottleneck=Bottleneck.NETWORK,
            role=None,
            reason="needs the link's bandwidth, or a profile's transfer time, to compare with",
        )
    evidence = [
        Evidence(what="KV caches under way at once", value=moves.under_way, unit=Unit.REQUESTS)
    ]
    pressures = []
    if link is not None:
        pressures.append(moves.bytes_per_s / link / FULL_LINK_RATIO)
        evidence.append(
            Evidence(
                what="bytes moved",
                value=moves.bytes_per_s,
                unit=Unit.BYTES_PER_S,
                against="that the link carries",
                bound=link,
            )
        )
    alone_s = moves.alone_s
    if alone_s is not None:
        slowed = moves.mean_s / max(alone_s, 1e-6) / SLOWED_RATIO
        lost = max(moves.mean_s - alone_s, 0.0) / yardsticks.matters_s
        pressures.append(min(slowed, lost) if moves.under_way >= 1.0 else 0.0)
        evidence.append(
            Evidence(
                what="one transfer",
                value=moves.mean_s,
                unit=Unit.SECONDS,
                against="on an idle way" if moves.alone_is_known else "of the fastest seen",
                bound=alone_s,
            )
        )
    lost_s = moves.mean_s - min(alone_s if alone_s is not None else 0.0, moves.mean_s)
    return Suspicion(
        bottleneck=Bottleneck.NETWORK,
        role=None,
        pressure_ratio=max(pressures),
        is_short=max(pressures) >= 1.0,
        held_up_requests=lost_s * moves.per_s,
        evidence=tuple(evidence),
        action=(
            "spread prefill and decode over more links (cells, nodes), or move fewer bytes: fp8 KV "
            "caches, prompts that decode computes itself"
        ),
        inferred=link is None and not moves.alone_is_known,
    )


def _untold(bottleneck: Bottleneck) -> Unjudged:
    return Unjudged(
        bottleneck=bottleneck,
        role=None,
        reason=f"fewer than {LEAST_TRANSFERS} KV caches were moved",
    )
