"""Profiles: what replicas were measured to do, and how far from it they are seen to be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from planner.capacity.calibration import Calibration
from planner.domain.calibration import Leg
from planner.domain.profile import Profile
from planner.service.api.profiles import ProfileSummary
from planner.service.dashboard.views.charts import Axes, Chart, Line, Rule, drawn
from planner.service.documents.calibration import ComparisonDocument
from planner.service.reports.quantities import MISSING, data, duration, share
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns

NOTABLE = 0.1
"""Replicas that need so much longer or shorter than profiled are worth a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftView:
    """How one leg of a profile is seen to differ.

    Parameters
    ----------
    factor : float
        Times the profile's seconds.
    tone : str
        `good`: as profiled; `waits`: another; `bad`: as far as corrections may go.
    """

    deployment: str
    leg: str
    factor: float
    tone: str
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileLine:
    """A profile in the list."""

    profile_id: str
    name: str
    roles: str
    kind: str
    kind_tone: str
    source: str
    measured_at: datetime
    error: str
    in_use: bool
    drifts: tuple[DriftView, ...]


def profile_line(
    summary: ProfileSummary, *, in_use: bool, drifts: Sequence[DriftView]
) -> ProfileLine:
    """A profile in the list."""
    degrees = f"tp{summary.tp}" + (f" pp{summary.pp}" if summary.pp > 1 else "")
    degrees += f" dp{summary.dp}" if summary.dp > 1 else ""
    return ProfileLine(
        profile_id=summary.profile_id,
        name=f"{summary.model} on {summary.accelerator}, {degrees}",
        roles=", ".join(role.value for role in summary.roles),
        kind=summary.kind.value,
        kind_tone="waits" if summary.kind.value == "estimated" else "",
        source=summary.source,
        measured_at=summary.measured_at,
        error=share(summary.error_ratio),
        in_use=in_use,
        drifts=tuple(drifts),
    )


def drifts_of(
    calibrations: Mapping[str, Sequence[Calibration]], profile_id: str
) -> tuple[DriftView, ...]:
    """What is known of a profile, by deployment and leg."""
    return tuple(
        _drift(deployment, one)
        for deployment, known in calibrations.items()
        for one in known
        if one.correction.profile_id == profile_id
    )


def _drift(deployment: str, one: Calibration) -> DriftView:
    correction = one.correction
    off = abs(correction.factor - 1.0) >= NOTABLE
    what = "prompts" if correction.leg is Leg.PREFILL else "decode steps"
    told = (
        f"{what} last {correction.factor:.2f} times as long as profiled"
        if correction.factor != 1
        else f"{what} last as long as profiled"
    )
    bound = ", the most that corrections allow: profile again" if correction.at_bound else ""
    return DriftView(
        deployment=deployment,
        leg=correction.leg.value,
        factor=correction.factor,
        tone="bad" if correction.at_bound else "waits" if off else "good",
        told=f"{told}{bound} ({one.watch.readings} readings)",
    )


def profile_facts(profile: Profile) -> tuple[Fact, ...]:
    """What a profile says of one replica."""
    source, limits, life = profile.provenance, profile.limits, profile.lifecycle
    capacity = limits.kv_capacity_tokens
    facts = [
        ("Where from", f"{source.kind.value}: {source.source}"),
        ("Measured", f"{source.measured_at:%Y-%m-%d %H:%M} UTC on {source.machine or MISSING}"),
        ("Engine", source.engine or MISSING),
        ("Points, error", f"{source.points:,}, {share(source.error_ratio)} at points held out"),
        ("KV cache", f"{capacity:,} tokens, {data(capacity * limits.kv_bytes_per_token)}"),
        ("Most sequences, tokens a step",
         f"{limits.max_num_seqs:,}, {limits.max_num_batched_tokens:,}"),
        ("Longest request", f"{limits.max_model_len:,} tokens"),
        ("Start, cold and warm", f"{duration(life.start_cold_s)}, {duration(life.start_warm_s)}"),
        ("Change of role, drain", f"{duration(life.flip_s)}, {duration(life.drain_s)}"),
    ]  # fmt: skip
    return tuple(Fact(term=term, value=value) for term, value in facts)


def speed_table(profile: Profile) -> Table:
    """Prompt and step times at a few of the measured points."""
    rows = []
    for title, table, what in (
        ("prompt", profile.prefill, "new tokens, nothing cached"),
        ("decode step", profile.decode_step, "sequences, short contexts"),
    ):
        picked = range(0, len(table.x), max(1, len(table.x) // 6))
        rows += [
            cells(title, f"{table.x[i]:,.0f} {what}", duration(float(table.seconds[i, 0])))
            for i in picked
        ]
    return Table(
        caption="How long it takes",
        columns=(*text_columns("What", "Of"), *number_columns("Time")),
        rows=tuple(rows),
    )


def drift_chart(comparisons: Sequence[ComparisonDocument]) -> Chart | None:
    """Seen over profiled times of prompts and of decode steps; None: too few are known."""
    ordered = sorted(comparisons, key=lambda one: one.compared_at)
    if len(ordered) < 2:
        return None
    begun, ended = ordered[0].compared_at, ordered[-1].compared_at
    axes = Axes(
        start_at=begun,
        end_at=max(ended, begun + timedelta(seconds=1)),
        written=lambda value: f"{value:.2g} x",
        least_top=2.0,
    )
    lines = [
        Line(
            name=name,
            look=look,
            points=tuple((one.compared_at, one.implied.get(leg)) for one in ordered),
        )
        for leg, name, look in (
            (Leg.PREFILL, "prompts", "observed"),
            (Leg.DECODE, "decode steps", "second"),
        )
    ]
    return drawn(
        "drift",
        "Times the profile's seconds",
        axes,
        summary="1 x is as profiled; above it replicas are slower.",
        lines=lines,
        rules=[Rule(name="as profiled", value=1.0)],
    )
