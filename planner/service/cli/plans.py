"""`poolwise plans, approve, reject, apply, rollback`: a server's plans and their way."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.rollout import ApprovalState
from planner.service.cli import output
from planner.service.cli.options import JsonOption
from planner.service.cli.server_options import (
    SERVER_EPILOG,
    ReasonOption,
    ServerOption,
    TokenFileOption,
    print_answer,
    talking,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

EPILOG = (
    "Examples:\n\npoolwise plans --state pending\n\npoolwise plans plan-1a2b3c4d5e6f\n\n"
    + SERVER_EPILOG
)
APPLY_EPILOG = (
    "The server answers when the rollout is over. Ctrl-C here, or the end of --wait, does not stop "
    "it: look at it with `poolwise plans ID`.\n\n" + SERVER_EPILOG
)
IdArgument = Annotated[str, typer.Argument(help="The plan's id.", metavar="ID")]
WaitOption = Annotated[
    float,
    typer.Option("--wait", help="Seconds to wait for the end of the rollout.", min=1, max=86_400),
]


def plans(
    plan_id: Annotated[
        str | None, typer.Argument(help="Show this one, with its steps.", metavar="ID")
    ] = None,
    *,
    state: Annotated[
        list[ApprovalState] | None, typer.Option("--state", help="Only in this; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=200)] = 20,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Only of this one.", metavar="NAME")
    ] = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show a server's plans, newest first, or one of them."""
    with talking(server, token_file) as client:
        if plan_id is not None:
            one = client.get("v1", "plans", plan_id)
            history = client.get("v1", "plans", plan_id, "approvals")
            _show_whole(one, history, as_json=json)
            return
        query: dict[str, str | int | list[str]] = {"limit": limit}
        if state:
            query["state"] = [one.value for one in state]
        if deployment is not None:
            query["deployment"] = deployment
        answer = client.get("v1", "plans", **query)
    if json:
        print_answer(answer)
        return
    from planner.service.cli.plan_answers import PlanAnswer

    listed = answer.get("plans")
    found = [PlanAnswer.model_validate(one) for one in (listed if isinstance(listed, list) else [])]
    if not found:
        output.note("no plan is stored" + (" in that state" if state else ""))
        return
    output.print_table(
        "",
        ("plan", "deployment", "made", "state", "by", "steps", "USD/h"),
        [
            (
                one.plan_id,
                one.deployment,
                one.created_at[:19],
                one.approval.state,
                one.approval.changed_by,
                str(len(one.diff.steps)),
                f"{one.usd_per_hour:,.2f}",
            )
            for one in found
        ],
        numbers_from=5,
        unbroken=("plan",),
    )


def approve(
    plan_id: IdArgument,
    *,
    reason: ReasonOption = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Allow a pending plan; the next tick, or `poolwise apply`, carries it out."""
    _decide(plan_id, "approve", reason, server, token_file, as_json=json)


def reject(
    plan_id: IdArgument,
    *,
    reason: ReasonOption = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Forbid a pending plan, or one that is approved, as long as it is not being applied."""
    _decide(plan_id, "reject", reason, server, token_file, as_json=json)


def apply(
    plan_id: IdArgument,
    *,
    wait: WaitOption = 600.0,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Bring the fleet to an approved plan; once, however often it is asked."""
    _move(plan_id, "apply", wait, server, token_file, as_json=json)


def rollback(
    plan_id: IdArgument,
    *,
    wait: WaitOption = 600.0,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    json: JsonOption = False,
) -> None:
    """Put the fleet back to what it was before a plan."""
    _move(plan_id, "rollback", wait, server, token_file, as_json=json)


def _decide(
    plan_id: str,
    verb: str,
    reason: str,
    server: str | None,
    token_file: Path | None,
    *,
    as_json: bool,
) -> None:
    with talking(server, token_file) as client:
        answer = client.send("POST", "v1", "plans", plan_id, verb, body={"reason": reason})
    _show_state(answer, as_json=as_json)


def _move(
    plan_id: str,
    verb: str,
    wait_s: float,
    server: str | None,
    token_file: Path | None,
    *,
    as_json: bool,
) -> None:
    with talking(server, token_file) as client, output.working(f"{verb} {plan_id}"):
        answer = client.send("POST", "v1", "plans", plan_id, verb, patience_s=wait_s)
    _show_state(answer, as_json=as_json)


def _show_state(answer: "Mapping[str, JsonValue]", *, as_json: bool) -> None:
    if as_json:
        print_answer(answer)
        return
    from planner.service.cli.plan_answers import PlanAnswer

    plan = PlanAnswer.model_validate(answer)
    approval = plan.approval
    lacking = approval.needed - len(approval.approvers)
    more = ""
    if approval.state == ApprovalState.PENDING:
        more = f"; {lacking} more to say yes"
    elif approval.state in [state.value for state in ApprovalState if state.moves]:
        more = "; the leader is still at it"
    said = f" ({approval.reason})" if approval.reason else ""
    typer.echo(f"{plan.plan_id} is {approval.state}, by {approval.changed_by}{said}{more}")


def _show_whole(
    one: "Mapping[str, JsonValue]", history: "Mapping[str, JsonValue]", *, as_json: bool
) -> None:
    if as_json:
        print_answer({**one, "history": dict(history)})
        return
    from planner.service.cli.plan_answers import PlanAnswer

    plan = PlanAnswer.model_validate(one)
    typer.echo(
        f"{plan.plan_id} of {plan.deployment}, {plan.status}, {plan.usd_per_hour:,.2f} USD/h"
    )
    output.print_lines(
        "Steps",
        [
            f"{step.index + 1}. {step.kind} {step.shape.label}"
            + (f" to {step.to_shape.label}" if step.to_shape else "")
            + (f": {step.reason}" if step.reason else "")
            for step in plan.diff.steps
        ],
    )
    told = [f"{f.guard}: {f.verdict}, {f.reason}" for f in plan.findings if f.verdict != "allow"]
    output.print_lines("Guards", told)
    output.print_lines("What became of it", _events(history))


def _events(history: "Mapping[str, JsonValue]") -> list[str]:
    """States and begun steps, in the order in which they came."""
    from planner.service.cli.plan_answers import ApprovalAnswer

    states, begun = history.get("approvals"), history.get("steps")
    events = []
    for one in states if isinstance(states, list) else []:
        approval = ApprovalAnswer.model_validate(one)
        said = f": {approval.reason}" if approval.reason else ""
        text = f"{approval.state} by {approval.changed_by}{said}"
        events.append((approval.changed_at, text))
    events += [
        (str(step.get("begun_at")), f"{step.get('what')} begun")
        for step in (begun if isinstance(begun, list) else [])
        if isinstance(step, dict)
    ]
    return [f"{at[:19]} {text}" for at, text in sorted(events, key=lambda event: event[0])]
