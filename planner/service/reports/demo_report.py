"""The demo's report: one HTML page that needs nothing else, not even a network."""

from collections.abc import Mapping

from planner.service.demo.outcome import Outcome
from planner.service.reports.comparison import comparison_figure, comparison_table
from planner.service.reports.decision import (
    binding_table,
    guards_table,
    plan_facts,
    pools_table,
    rejected_table,
    steps_table,
    windows_table,
)
from planner.service.reports.demand import forecast_facts, forecast_figure
from planner.service.reports.headline import answer, key_figures, reasons
from planner.service.reports.lengths import (
    answer_lengths_figure,
    is_disaggregated,
    prompt_lengths_figure,
    proof,
    proof_table,
    traffic_facts,
)
from planner.service.reports.page import rendered
from planner.service.reports.quantities import duration, sentence
from planner.service.reports.speed import (
    decode_figure,
    prefill_figure,
    provenance_facts,
    speed_facts,
)
from planner.service.reports.timeline import timeline

TEMPLATE = "demo_report.html.j2"


def demo_report(outcome: Outcome) -> str:
    """Write the report of one demo run.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; about 5 MB,
        nearly all of it plotly.js.
    """
    return rendered(TEMPLATE, **_values(outcome))


def _values(outcome: Outcome) -> Mapping[str, object]:
    """All that the template shows, under its names there."""
    return {
        "answer": answer(outcome),
        "reasons": reasons(outcome),
        "key_figures": key_figures(outcome),
        "began": f"{outcome.began_at:%Y-%m-%d %H:%M %Z}",
        "took": duration(outcome.took_s),
        "model": outcome.profile.model,
        "timeline": timeline(outcome),
        "late": duration(_latest_s(outcome)),
        "comparison_table": comparison_table(outcome),
        "comparison_figure": comparison_figure(outcome),
        "forecast_figure": forecast_figure(outcome),
        "forecast_facts": forecast_facts(outcome),
        "plan_facts": plan_facts(outcome),
        "relaxations": tuple(sentence(r) for r in outcome.plan.relaxations),
        "windows_table": windows_table(outcome.plan),
        "pools_table": pools_table(outcome.plan),
        "steps_table": steps_table(outcome),
        "decision_tables": (
            rejected_table(outcome.plan),
            binding_table(outcome.plan),
            guards_table(outcome),
        ),
        "speed_figures": (prefill_figure(outcome.profile), decode_figure(outcome.profile)),
        "speed_facts": speed_facts(outcome.profile),
        "provenance_facts": provenance_facts(outcome),
        "traffic_facts": traffic_facts(outcome.traffic),
        "notes": tuple(sentence(n) for n in outcome.traffic.notes),
        "length_figures": (
            prompt_lengths_figure(outcome.traffic),
            answer_lengths_figure(outcome.traffic),
        ),
        "proof": proof(outcome),
        "proof_table": proof_table(outcome),
        "is_disaggregated": is_disaggregated(outcome),
    }


def _latest_s(outcome: Outcome) -> float:
    replays = [outcome.before.replay, outcome.after.replay]
    if outcome.during is not None:
        replays.append(outcome.during)
    return max(r.late_s for r in replays)
