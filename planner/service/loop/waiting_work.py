"""Waiting work from live signals, for the fast tick: what engines hold, in tokens."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from planner.autoscale.backlog import Backlog, Line
from planner.domain.fleet import Role
from planner.service.deployment import Deployment
from planner.service.live.observing import in_system
from serving.telemetry.signals import Activity, DeploymentSignals


@dataclass(slots=True)
class WaitingWork:
    """Makes a backlog of every reading, and keeps it where this process leads.

    Engines tell how many requests wait, not how long their prompts are: those are taken to be as
    long as the ones that ended lately. Where somebody hands a backlog in, what is seen is not kept.

    Parameters
    ----------
    leading : callable
        The deployment, None where another process leads.
    """

    leading: Callable[[], Deployment | None]
    _lengths: tuple[float, float] | None = None
    _before: DeploymentSignals | None = None
    _kept: Backlog | None = None
    _line: Line = field(default_factory=Line)

    def take(self, signals: DeploymentSignals) -> None:
        """One reading more. Raises StoreError where it cannot be kept."""
        deployment = self.leading()
        before, self._before = self._before, signals
        self._lengths = _mean_lengths(signals) or self._lengths
        if deployment is None or self._lengths is None:
            return
        found = _backlog(signals, before, self._lengths, model=deployment.model)
        if found is None:
            return
        were = self._line.take(found.observed_at, found.decoding_sequences)
        found = replace(found, sequences_before=were)
        store, name = deployment.store, deployment.spec.name
        newest = store.backlog(name, deployment.model)
        limit_s = deployment.spec.guards.stale_observation_s
        if newest is not None and newest != self._kept:
            age_s = (found.observed_at - newest.observed_at).total_seconds()
            if age_s <= limit_s:
                return  # handed in, and still of now
        store.put_backlog(name, found)
        self._kept = found


def _backlog(
    signals: DeploymentSignals,
    before: DeploymentSignals | None,
    lengths: tuple[float, float],
    *,
    model: str,
) -> Backlog | None:
    """What waits now; None where the engines of a role do not tell."""
    prefill, decode = _of(signals, Role.PREFILL), _of(signals, Role.DECODE)
    if prefill is None or decode is None:
        return None
    waiting, running, queued = (
        prefill.waiting.value,
        decode.running.value,
        decode.waiting.value,
    )
    if waiting is None or running is None or queued is None:
        return None
    prompt, answer = lengths
    computed_ratio = 1.0 - (signals.prefix_hit_ratio.value or 0.0)
    rate_rps = _arriving_rps(signals, before)
    return Backlog(
        model=model,
        observed_at=signals.looked_at,
        waiting_prompt_tokens=round(waiting * prompt * computed_ratio),
        decoding_sequences=round(running + queued),
        context_tokens=prompt + answer / 2,
        request_rate_rps=rate_rps,
        input_tokens_per_s=None if rate_rps is None else rate_rps * prompt,
    )


def _arriving_rps(signals: DeploymentSignals, before: DeploymentSignals | None) -> float | None:
    """What ended and the growth of what is there, a second; None: one of both is not known."""
    ended, there = signals.requests_per_s.value, in_system(signals)
    was_there = None if before is None else in_system(before)
    if before is None or ended is None or there is None or was_there is None:
        return None
    seconds = (signals.looked_at - before.looked_at).total_seconds()
    return max(ended + (there - was_there) / seconds, 0.0) if seconds > 0 else None


def _mean_lengths(signals: DeploymentSignals) -> tuple[float, float] | None:
    """Mean prompt and answer of what ended in this reading, tokens; None: nothing did."""
    prefill, decode = _of(signals, Role.PREFILL), _of(signals, Role.DECODE)
    if prefill is None or decode is None:
        return None
    prompts, prefilled = prefill.input_tokens_per_s.value, prefill.requests_per_s.value
    answers, answered = decode.output_tokens_per_s.value, decode.requests_per_s.value
    if not prefilled or not answered or prompts is None or answers is None:
        return None
    return prompts / prefilled, answers / answered


def _of(signals: DeploymentSignals, role: Role) -> Activity | None:
    return next((r.activity for r in signals.roles if r.role is role and r.answering), None)
