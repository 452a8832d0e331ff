"""Workers per role over time, as the rollout's steps changed them."""

import html

import plotly.graph_objects as go

from planner.domain.fleet import Fleet, Role
from planner.rollout import after
from planner.service.demo.outcome import Outcome
from planner.service.reports.page import AGGREGATED, DECODE, PREFILL, Key, titled
from planner.service.reports.phases import span_of

_ROLE_COLOURS = {Role.PREFILL: PREFILL, Role.DECODE: DECODE, Role.AGGREGATED: AGGREGATED}
_ROLE_DASHES = {Role.PREFILL: "solid", Role.DECODE: "dash", Role.AGGREGATED: "dot"}


def draw_replicas(figure: go.Figure, outcome: Outcome, *, row: int) -> None:
    """Draw the workers that take traffic, one stepped line per role."""
    moments = _fleets_over_time(outcome)
    highest = 1
    for role in roles_of(outcome):
        counts = [_ready(fleet, role) for _, fleet, _ in moments]
        highest = max(highest, *counts)
        figure.add_trace(
            go.Scatter(
                x=[round(x, 3) for x, _, _ in moments],
                y=counts,
                text=[text for _, _, text in moments],
                mode="lines",
                name=role.value,
                line={
                    "color": _ROLE_COLOURS[role],
                    "width": 3,
                    "shape": "hv",
                    "dash": _ROLE_DASHES[role],
                },
                hovertemplate=f"%{{y}} {role} ready<br>%{{text}}",
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(range=[0, highest + 0.4], dtick=max(1, highest // 4), row=row, col=1)
    titled(figure, row, "<b>Workers that take traffic</b>")


def _fleets_over_time(outcome: Outcome) -> list[tuple[float, Fleet, str]]:
    """Instant (seconds since the demo began), fleet from then on, and what led to it."""
    start_s, end_s = span_of(outcome)
    moments = [(start_s, outcome.before.fleet, "at the start")]
    steps = outcome.diff.steps
    for i, rolled in enumerate(outcome.applied):
        fleet = after(outcome.diff.from_fleet, steps[: i + 1], at=outcome.diff.from_fleet.read_at)
        moments.append((rolled.began_s + rolled.took_s, fleet, html.escape(rolled.text)))
    moments.append((end_s, outcome.after.fleet, "at the end"))
    return moments


def _ready(fleet: Fleet, role: Role) -> int:
    return sum(p.ready for p in fleet.pools if p.shape.role == role)


def roles_of(outcome: Outcome) -> list[Role]:
    """Roles that had a worker at any time."""
    fleets = [fleet for _, fleet, _ in _fleets_over_time(outcome)]
    return [r for r in Role if any(_ready(f, r) for f in fleets)]


def replica_keys(outcome: Outcome) -> list[Key]:
    """The legend's entries for the roles."""
    marks = {Role.PREFILL: "line", Role.DECODE: "dash", Role.AGGREGATED: "dash"}
    return [
        Key(text=f"{role} workers", colour=_ROLE_COLOURS[role], mark=marks[role])
        for role in roles_of(outcome)
    ]
