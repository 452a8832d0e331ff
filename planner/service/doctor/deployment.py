"""A spec: whether it is valid, has its profiles, and its cluster lets Poolwise do its work."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from planner.domain.errors import PoolwiseError
from planner.domain.hardware import Catalogue
from planner.domain.profile import ProfileKind
from planner.domain.spec import Spec, TargetKind
from planner.domain.wording import counted
from planner.service.doctor.database import clock_finding
from planner.service.doctor.finding import Finding, failed, good, note, skipped
from planner.service.spec.file import read_spec

DATE_STEP = timedelta(seconds=1)
"""The clock of a cluster is read from HTTP's Date header, in whole seconds."""


def look_at_spec(path: Path | None, catalogue: Catalogue) -> list[Finding]:
    """Every check of a spec and of its target."""
    if path is None:
        return [skipped("spec", "none was given (--spec): profiles and cluster are not looked at")]
    try:
        spec = read_spec(path, allow_estimates=True, catalogue=catalogue)
    except PoolwiseError as error:
        return [failed("spec", str(error), f"correct {path} (`poolwise validate --spec {path}`)")]
    return [
        good("spec", f"{path} is valid: {spec.name}, target {spec.target}"),
        *_profiles(spec),
        *_cluster(spec),
    ]


def _profiles(spec: Spec) -> list[Finding]:
    found = []
    for pool in spec.pools:
        check, profile = f"profile of {pool.shape.label}", spec.profile_of(pool.shape)
        if profile is None or profile.provenance.kind is ProfileKind.ESTIMATED:
            todo = "`poolwise profile run`, and name the file under `profiles`"
            found.append(failed(check, "none was measured: plans would rest on estimates", todo))
        elif profile.interrupted:
            todo = "`poolwise profile show` says what is missing; run it again"
            found.append(note(check, f"{profile.profile_id} is incomplete", todo))
        else:
            found.append(good(check, profile.profile_id))
    return found


def _cluster(spec: Spec) -> list[Finding]:
    if spec.target is not TargetKind.KUBERNETES:
        return [skipped("cluster", f"the target is {spec.target}")]
    from planner.service.fleet.kubernetes_target import look_at

    try:
        clock = _cluster_clock(spec)
        look = look_at(spec)
    except PoolwiseError as error:
        todo = "correct target.kubeconfig, target.context or the network; docs/kubernetes.md"
        return [failed("cluster", str(error), todo)]
    findings = [good("cluster", f"answers; {counted(len(look.pools), 'pool')} looked at"), clock]
    for pool in look.pools:
        check = f"pool {pool.pool}"
        if pool.problems:
            todo = "docs/kubernetes.md says which rights and labels are needed"
            findings.append(failed(check, " ".join(pool.problems), todo))
        else:
            findings.append(good(check, f"{pool.count} may be read and scaled"))
    findings += [failed("cluster objects", one, "docs/kubernetes.md") for one in look.problems]
    return findings


def _cluster_clock(spec: Spec) -> Finding:
    """The API server's clock; raises PoolwiseError where it cannot be asked."""
    from actuators.kubernetes.connection import connect
    from actuators.kubernetes.server_clock import server_time

    theirs = server_time(connect(spec.cluster))
    if theirs is None:
        return skipped("cluster clock", "the API server does not tell its time")
    return clock_finding("cluster clock", theirs - datetime.now(UTC), sure=DATE_STEP)
