"""Which parts of a running deployment a command looks at: named by hand, or by its own file."""

from collections.abc import Sequence
from pathlib import Path

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from serving.endpoints import read_endpoints
from serving.telemetry.signals import TargetKind
from serving.telemetry.targets import Target, metrics_page, targets_of


def live_targets(workers: Sequence[str], router: str | None, state_dir: Path) -> tuple[Target, ...]:
    """The targets that were named, else those of the deployment in the state directory.

    Parameters
    ----------
    workers : sequence of str
        `ROLE=URL` each.
    router : str or None
        Its metrics page.

    Raises
    ------
    InputError
        When a worker is written otherwise, or given twice.
    EngineError
        When none is named and no deployment runs from the state directory.
    """
    if not workers:
        if router is not None:
            raise InputError("--router is given without --worker: name the workers too")
        return targets_of(read_endpoints(state_dir))
    named = [_worker(text, number) for number, text in enumerate(workers)]
    if len({t.url for t in named}) < len(named):
        raise InputError("--worker: a URL is given twice")
    if router is not None:
        url = _url(router, "--router")
        page = url if url.endswith("/metrics") else metrics_page(url)
        named.append(Target(name="router", url=url, metrics_url=page, kind=TargetKind.ROUTER))
    return tuple(named)


def _worker(text: str, number: int) -> Target:
    role, separator, url = text.partition("=")
    try:
        known = Role(role)
    except ValueError:
        separator = ""
        known = Role.AGGREGATED
    if not separator:
        roles = ", ".join(Role)
        raise InputError(
            f"--worker {text}: write it as ROLE=URL, as prefill=http://10.0.0.7:8000; roles are "
            f"{roles}"
        )
    url = _url(url, "--worker").removesuffix("/metrics")
    return Target(
        name=f"{known}-{number + 1}",
        url=url,
        metrics_url=metrics_page(url),
        kind=TargetKind.ENGINE,
        role=known,
    )


def _url(text: str, option: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise InputError(f"{option} {text}: write the address as http://HOST:PORT")
    return text.rstrip("/")
