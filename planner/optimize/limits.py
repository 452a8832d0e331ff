"""Every limit that a user can set, as it stands in a problem, and how it may give way.

One list for all that asks about limits: what to relax (`relax`), what a small change is worth
(`shadow`), and the test that no constraint with a limit in it is forgotten.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from planner.domain.fleet import ReplicaShape
from planner.domain.spec import Spec
from planner.optimize.inputs import AcceleratorLimit, Option, RatioBounds, ReplicaBounds
from planner.optimize.links import carried_bytes_per_s
from planner.optimize.problem import Problem, spot_options
from planner.optimize.solution import Solution, usd_per_hour
from planner.optimize.usage import moved_bytes_per_s, prefill_per_decode, spot_share, watts

MOST_MORE = 256
"""More accelerators of a type than so many are not asked for."""

InProblem = Callable[[Problem, float], Problem]
InSpec = Callable[[Spec, float], Spec]
Used = Callable[[Problem, Solution, int], float]
Text = Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit or promise of the spec that may give way.

    Parameters
    ----------
    field : str
        Where it stands in the spec, as in `budget.power_w`; with whose it is where there are many.
    constraints : tuple of str
        The constraint functions whose rows it is in; empty for promises.
    now, loosest : float
        Its value and the one beyond which it is not moved; infinite: none at all.
    text : function of a value
        The change as a sentence's part.
    in_problem, in_spec : function or None
        The problem, or the spec it is made from, with another value; one of them.
    used : function of (problem, solution, window) or None
        What of it a fleet takes: then that is enough.
    whole : bool
        Counts replicas or accelerators.
    step : float or None
        A small change that is worth a price of its own; None: it has none.
    last : bool
        It is moved after others, as it goes no further than these allow.
    """

    field: str
    constraints: tuple[str, ...]
    now: float
    loosest: float
    text: Text
    in_problem: InProblem | None = None
    in_spec: InSpec | None = None
    used: Used | None = None
    whole: bool = False
    step: float | None = None
    last: bool = False

    @property
    def is_promise(self) -> bool:
        """Whether it is part of what was promised, not of what may be had."""
        return not self.constraints


def limits_of(problem: Problem, spec: Spec) -> tuple[Limit, ...]:
    """All limits that are set."""
    return (
        *_of_accelerators(problem),
        *_of_nodes(problem, spec),
        *_of_reserved(problem),
        *_of_budget(problem),
        *_of_power(problem),
        *_of_transfers(problem),
        *_of_links(problem),
        *_of_spot(problem),
        *_of_ratio(problem),
        *_of_shapes(problem),
        *_of_counts(problem),
        *_of_changes(problem),
    )


def _of_accelerators(problem: Problem) -> Iterator[Limit]:
    for limit in problem.accelerators:
        if problem.on(limit.name):

            def with_inventory(
                of: Problem, value: float, name: str = limit.name, now: int = limit.inventory
            ) -> Problem:
                return replace(
                    of,
                    accelerators=tuple(
                        replace(a, inventory=a.inventory + round(value) - now)
                        if a.name == name
                        else a
                        for a in of.accelerators
                    ),
                )

            def text(value: float, name: str = limit.name, now: int = limit.inventory) -> str:
                held = problem.held(name).removeprefix("; ")
                return f"{round(value) - now} more {name}" + (f" ({held})" if held else "")

            yield Limit(
                field=f"accelerators.{limit.name}.inventory",
                constraints=("keep_inventory", "fit_nodes", "fill_nodes"),
                now=limit.inventory,
                loosest=limit.inventory + MOST_MORE,
                text=text,
                in_problem=with_inventory,
                whole=True,
                step=1.0,
            )


def _of_nodes(problem: Problem, spec: Spec) -> Iterator[Limit]:
    """Larger nodes: the spec's, since footprints follow from them."""
    for limit in problem.accelerators:
        sizes = [problem.options[o].shape.accelerators for o in problem.on(limit.name)]
        known = any(a.name == limit.name for a in spec.accelerators)
        if not known or not sizes or max(sizes) == 1:
            continue

        def with_nodes(of: Spec, value: float, name: str = limit.name) -> Spec:
            return replace(
                of,
                accelerators=tuple(
                    replace(a, per_node=round(value)) if a.name == name else a
                    for a in of.accelerators
                ),
            )

        yield Limit(
            field=f"accelerators.{limit.name}.per_node",
            constraints=("fit_nodes", "fill_nodes"),
            now=limit.per_node,
            loosest=max(limit.inventory, 2 * limit.per_node, 2 * max(sizes)),
            text=_instead(f"per_node of {limit.name}", limit.per_node),
            in_spec=with_nodes,
            whole=True,
        )


def _of_reserved(problem: Problem) -> Iterator[Limit]:
    """More reserved accelerators, which are paid whether used or not."""
    for limit in problem.accelerators:
        if not any(problem.options[o].prepaid for o in problem.on(limit.name)):
            continue

        def with_reserved(of: Problem, value: float, name: str = limit.name) -> Problem:
            now = next(a for a in of.accelerators if a.name == name)
            more = min(round(value) - now.reserved, _affordable(of, now.reserved_usd_per_hour))
            return replace(
                of,
                accelerators=tuple(
                    replace(a, reserved=a.reserved + more) if a is now else a
                    for a in of.accelerators
                ),
                reserved_usd_per_hour=of.reserved_usd_per_hour + more * now.reserved_usd_per_hour,
            )

        yield Limit(
            field=f"accelerators.{limit.name}.usd_per_gpu_hour.reserved_count",
            constraints=("keep_reserved",),
            now=limit.reserved,
            loosest=limit.reserved + MOST_MORE,
            text=_instead(f"reserved_count of {limit.name}", limit.reserved),
            in_problem=with_reserved,
            whole=True,
            step=_reserved_step(problem, limit),
            last=True,
        )


def _reserved_step(problem: Problem, limit: AcceleratorLimit) -> float | None:
    """One more where inventory and budget have room for it, else one less; None: there is none."""
    there = limit.reserved < limit.inventory
    if there and _affordable(problem, limit.reserved_usd_per_hour) > 0:
        return 1.0
    return -1.0 if limit.reserved else None


def _affordable(problem: Problem, usd_per_hour: float) -> int:
    """How many more the budget pays for in every window, at a price each; `MOST_MORE` at most."""
    left = [
        limit - problem.reserved_usd_per_hour_in(t)
        for t in problem.window_indices
        if (limit := problem.usd_per_hour_limit_in(t)) is not None
    ]
    if usd_per_hour <= 0 or not left:
        return MOST_MORE
    return min(max(math.floor(min(left) / usd_per_hour + 1e-9), 0), MOST_MORE)


def _tenth(now: float, each: Iterable[float]) -> float | None:
    """A tenth of a budget; of none the least that any replica takes of it, None: nothing does."""
    return 0.1 * now or min((taken for taken in each if taken > 0), default=None)


def _of_budget(problem: Problem) -> Iterator[Limit]:
    now = problem.usd_per_hour_limit
    if now is not None:
        yield Limit(
            field="budget.usd_per_hour",
            constraints=("keep_budget",),
            now=now,
            loosest=math.inf,
            text=lambda value: f"a budget of {value:.2f} USD/h instead of {now:.2f}",
            in_problem=lambda of, value: replace(of, usd_per_hour_limit=_unless_free(value)),
            used=lambda of, found, t: (
                usd_per_hour(of, found.replicas, t)
                + (of.others[t].usd_per_hour if of.others else 0.0)
            ),
            step=_tenth(now, (o.usd_per_hour for o in problem.options)),
        )


def _of_power(problem: Problem) -> Iterator[Limit]:
    now = problem.power_w_limit
    if now is not None:
        yield Limit(
            field="budget.power_w",
            constraints=("keep_power",),
            now=now,
            loosest=math.inf,
            text=lambda value: f"budget.power_w {value:,.0f} W instead of {now:,.0f}",
            in_problem=lambda of, value: replace(of, power_w_limit=_unless_free(value)),
            used=lambda of, found, t: (
                watts(of, found, t) + (of.others[t].power_w if of.others else 0.0)
            ),
            step=_tenth(now, (o.power_w for o in problem.options)),
        )


def _of_transfers(problem: Problem) -> Iterator[Limit]:
    now = problem.transfer_bytes_per_s_limit
    if now is not None and problem.kv_bytes is not None:
        name = "planning.transfer_bytes_per_s"
        yield Limit(
            field=name,
            constraints=("keep_transfers",),
            now=now,
            loosest=math.inf,
            text=lambda value: f"{name} {value:.4g} instead of {now:.4g}",
            # Without a limit streams are planned without flows: a wide one keeps the model's kind.
            in_problem=lambda of, value: replace(
                of, transfer_bytes_per_s_limit=min(value, _WIDE * now)
            ),
            used=moved_bytes_per_s,
            step=0.1 * now,
        )


def _of_links(problem: Problem) -> Iterator[Limit]:
    for place, link in enumerate(problem.links if problem.kv_bytes is not None else ()):
        now = link.bytes_per_s

        def with_link(of: Problem, value: float, place: int = place, now: float = now) -> Problem:
            links = list(of.links)
            links[place] = replace(links[place], bytes_per_s=min(value, _WIDE * now))
            return replace(of, links=tuple(links))

        def carried(of: Problem, found: Solution, t: int, place: int = place) -> float:
            return carried_bytes_per_s(of, found.moved_rps, t)[place]

        yield Limit(
            field=f"planning.transfer_links.{place} ({link.label})",
            constraints=("keep_links",),
            now=now,
            loosest=math.inf,
            text=_instead(f"planning.transfer_links {link.label}", now),
            in_problem=with_link,
            used=carried,
            step=0.1 * now,
        )


_WIDE = 1e6
"""A limit so many times as wide is none."""


def _of_spot(problem: Problem) -> Iterator[Limit]:
    now = problem.spot_share_limit
    if now is not None and spot_options(problem, tuple(problem.option_indices)):
        yield Limit(
            field="planning.spot_share_limit",
            constraints=("limit_spot",),
            now=now,
            loosest=1.0,
            text=lambda value: f"planning.spot_share_limit {value:.4g} instead of {now:.4g}",
            in_problem=lambda of, value: replace(of, spot_share_limit=value),
            used=spot_share,
            step=0.1,
        )


def _of_ratio(problem: Problem) -> Iterator[Limit]:
    for bounds in problem.ratios:
        for kind, now, loosest in (
            ("min", bounds.min_ratio, 0.0),
            ("max", bounds.max_ratio, math.inf),
        ):
            if now is None:
                continue

            def with_ratio(
                of: Problem, value: float, kind: str = kind, model: str = bounds.model
            ) -> Problem:
                def changed(b: RatioBounds) -> RatioBounds:
                    if b.model != model:
                        return b
                    if kind == "min":
                        return replace(b, min_ratio=value or None)
                    return replace(b, max_ratio=_unless_free(value))

                return replace(of, ratios=tuple(changed(b) for b in of.ratios))

            name = f"planning.{kind}_prefill_per_decode"
            yield Limit(
                field=name,
                constraints=("keep_ratio",),
                now=now,
                loosest=loosest,
                text=_instead(name, now),
                in_problem=with_ratio,
                used=prefill_per_decode,
                step=(-0.1 if kind == "min" else 0.1) * now,
            )


def _of_shapes(problem: Problem) -> Iterator[Limit]:
    if problem.one_shape_per_role:
        yield Limit(
            field="planning.one_shape_per_role",
            constraints=("keep_one_shape",),
            now=1.0,
            loosest=2.0,
            text=lambda _: "planning.one_shape_per_role false: shapes mixed in a role",
            in_problem=lambda of, value: replace(of, one_shape_per_role=value < _MIXED),
            whole=True,
            step=1.0,
        )


_MIXED = 2.0
"""Stands for: not all alike."""


def _of_counts(problem: Problem) -> Iterator[Limit]:
    for bounds in problem.bounds:
        label, low, high = bounds.shape.label, bounds.min_replicas, bounds.max_replicas
        if high is not None:
            yield Limit(
                field=f"max_replicas of {label}",
                constraints=("keep_max_replicas",),
                now=high,
                loosest=high + MOST_MORE,
                text=_instead("max_replicas", high, of=label),
                in_problem=_with_bounds(bounds, "max_replicas"),
                whole=True,
                step=1.0,
            )
        if low:
            yield Limit(
                field=f"min_replicas of {label}",
                constraints=("keep_min_replicas",),
                now=low,
                loosest=0.0,
                text=_instead("min_replicas", low, of=label),
                in_problem=_with_bounds(bounds, "min_replicas"),
                whole=True,
                step=-1.0,
            )


def _with_bounds(bounds: ReplicaBounds, name: str) -> InProblem:
    def with_bounds(of: Problem, value: float) -> Problem:
        return replace(
            of,
            bounds=tuple(
                replace(
                    b,
                    min_replicas=round(value) if name == "min_replicas" else b.min_replicas,
                    max_replicas=round(value) if name == "max_replicas" else b.max_replicas,
                )
                if b.shape == bounds.shape
                else b
                for b in of.bounds
            ),
        )

    return with_bounds


def _of_changes(problem: Problem) -> Iterator[Limit]:
    """Ramp, disruption and up-time, of all purchase options of a shape together."""
    for shape in dict.fromkeys(o.shape for o in problem.options):
        of = problem.of_shape(shape)
        option, label = problem.options[of[0]], shape.label
        for name, now in (("max_starts", option.max_starts), ("max_stops", option.max_stops)):
            if now is not None:
                yield Limit(
                    field=f"{name} of {label}",
                    constraints=("limit_starts" if name == "max_starts" else "limit_stops",),
                    now=now,
                    loosest=now + MOST_MORE,
                    text=_instead(name, now, of=label),
                    in_problem=_with_options(shape, name),
                    whole=True,
                    step=1.0,
                )
        up_s = max(problem.options[o].min_up_s for o in of)
        if up_s > 0:
            yield Limit(
                field=f"min_up_s of {label}",
                constraints=("keep_up_time",),
                now=up_s,
                loosest=0.0,
                text=_instead("min_up_s (or the billing increment)", up_s, of=label),
                in_problem=_with_options(shape, "min_up_s"),
            )


def _with_options(shape: ReplicaShape, name: str) -> InProblem:
    def changed(option: Option, value: float) -> Option:
        if option.shape != shape:
            return option
        if name == "min_up_s":
            return replace(option, min_up_s=min(option.min_up_s, value))
        if name == "max_starts":
            return replace(option, max_starts=round(value))
        return replace(option, max_stops=round(value))

    return lambda of, value: replace(of, options=tuple(changed(o, value) for o in of.options))


def _unless_free(value: float) -> float | None:
    return None if math.isinf(value) else value


def _instead(name: str, now: float, *, of: str = "") -> Text:
    whose = f" for {of}" if of else ""
    return lambda value: f"{name} {value:.4g} instead of {now:.4g}{whose}"


NO_LIMIT: Mapping[str, str] = {
    "meet_demand": "the rate (`promises_of`)",
    "decode_what_is_prefilled": "follows from the rate",
    "keep_within_capacity": "capacities follow from the objectives (`promises_of`)",
    "carry_plain_demand": "the rate and the objectives (`promises_of`)",
    "have_one_count": "a definition",
    "read_the_table": "a definition",
    "exhaust_the_table_first": "a definition",
    "order_in_time": "start-up times are measured, not set",
    "use_what_is_there": "start-up times are measured, not set",
    "count_changes": "a definition",
    "move_what_is_prefilled": "follows from the rate and the links",
    "decode_what_is_moved": "follows from the rate and the links",
    "flip_what_is_ready": "what is not ready cannot change its role",
    "keep_one_format": "no engine reads another format's KV cache",
    "scale_both_pools": "half a pair answers nothing",
    "keep_a_path": "something has to answer",
}
"""Constraints that have no limit of the spec in them, and why."""
