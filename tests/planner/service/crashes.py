"""`poolwise serve` killed (-9) at any moment of a tick, an approval or an apply, and what is left.

Each round has a cluster and a deployment of its own in one store: a real server process is killed,
another one is started on what it left, and the store and the cluster are compared with what had
been acknowledged. `Facts` says what is wrong, in sentences.
"""

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from planner.domain.rollout import ApprovalState
from planner.service.store import Store, open_store
from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation
from tests.planner.service.examples import history, write_spec
from tests.planner.service.served import hand_in_busy

SETTINGS = {
    "POOLWISE_LEASE_DURATION_S": "6",
    "POOLWISE_RENEW_DEADLINE_S": "4",
    "POOLWISE_LEASE_RETRY_S": "0.2",
    "POOLWISE_ANSWER_WITHIN_S": "600",  # on a busy machine a plan is to be no job
}
LOAD = {"requests": 1000, "isl": 1200, "osl": 80}
OBJECTS = [{"role": role, "kind": "Deployment", "name": role} for role in ("prefill", "decode")]
PATIENCE_S = 1_200.0
"""A busy machine may add to anything."""
ONLY_TOO_MANY = "scale_down_stabilization: "
"""How a decision to wait with fewer begins: a slow machine's windows may have asked for more."""
PHASES = ("tick", "approve", "apply")
_LONGEST_S = {"tick": 6.0, "approve": 0.15, "apply": 2.5}
"""Kills are spread over so long after the phase began; it takes about so long."""
_LEGAL = {
    "pending": {"approved", "rejected", "expired", "superseded"},
    "approved": {"applying", "rejected", "expired", "superseded"},
    "applying": {"applied", "failed"},
    "failed": {"applying", "rolling_back"},
}


def _serve(spec: str, printed: str, log: str, environ: dict[str, str]) -> None:
    """What the process does; its standard output is a file."""
    os.environ.update(environ)
    for number, path in ((1, printed), (2, log)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
    from planner.service.server import ServeOptions, run

    run(ServeOptions(specs=(Path(spec),), port=0, insecure_local=True, as_json=True))


def _context() -> Any:
    """Processes that begin with everything imported: a start costs a fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["planner.service.server", "planner.service.fleet.kubernetes_target"]
    )
    return context


@dataclass
class Server:
    """A process that serves, and how to talk to it."""

    process: BaseProcess
    url: str = ""

    def ask(self, verb: str, path: str, body: object = None) -> httpx.Response:
        return httpx.request(verb, self.url + path, json=body, timeout=PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)


@contextmanager
def serving(folder: Path, environ: dict[str, str]) -> Iterator[Server]:
    """A server on the folder's spec, killed at the end."""
    printed, log = folder / f"printed-{time.monotonic_ns()}", folder / "log"
    arguments = (str(folder / "spec.yaml"), str(printed), str(log), {**SETTINGS, **environ})
    process = _context().Process(target=_serve, args=arguments)
    process.start()
    server = Server(process)
    try:
        facts = awaited(lambda: printed.exists() and printed.read_text().endswith("\n"), process)
        assert facts, log.read_text()[-3000:]
        server.url = json.loads(printed.read_text())["url"]
        yield server
    finally:
        server.kill()


def awaited(check: Callable[[], object], process: BaseProcess | None = None) -> object:
    """What `check` gives once it is true; the last of it when it is not, or the process died."""
    until = time.monotonic() + PATIENCE_S
    found: object = None
    while time.monotonic() < until and (process is None or process.is_alive()):
        with suppress(httpx.HTTPError):
            found = check()
        if found:
            return found
        time.sleep(0.05)
    return found


@dataclass
class Round:
    """One kill: where, when, and what was acknowledged before it.

    Parameters
    ----------
    acknowledged : dict
        States that the server has answered with, by plan.
    """

    number: int
    phase: str
    after_s: float
    folder: Path
    cluster: FakeCluster
    environ: dict[str, str]
    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    killed_in: str = ""

    @property
    def name(self) -> str:
        return f"shop-{self.number}"

    def counts(self) -> dict[str, int]:
        return {o["name"]: self._object(o["name"])["spec"]["replicas"] for o in OBJECTS}

    def changes(self) -> int:
        """How often a count was changed in the cluster."""
        return sum(self._object(o["name"])["metadata"]["generation"] - 1 for o in OBJECTS)

    def _object(self, name: str) -> dict[str, Any]:
        return self.cluster.get("deployments", name)

    def ask_and_note(self, server: Server, path: str) -> None:
        """A request that may never be answered; what is answered counts."""
        with suppress(httpx.HTTPError):
            answer = server.ask("POST", path)
            if answer.status_code == 200:
                told = answer.json()
                self.acknowledged.setdefault(told["plan_id"], set()).add(told["approval"]["state"])
            elif answer.status_code >= 500 and answer.status_code != 503:
                self.wrong.append(f"{path} answered {answer.status_code}: {answer.text}")


def run_round(number: int, folder: Path, environ: dict[str, str], chance: random.Random) -> Round:
    """Kill one server, start another, and let the fleet get where it was to go."""
    phase = PHASES[number % len(PHASES)]
    after_s = chance.uniform(0.0, _LONGEST_S[phase])
    folder.mkdir(parents=True)
    with FakeCluster() as cluster:
        for one in OBJECTS:
            cluster.load(deployment(one["name"], 1))
        simulation = ControllerSimulation(cluster, startup_s=10.0, drain_s=5.0)
        simulation.step()
        simulation.step(60.0)
        this = Round(number, phase, after_s, folder, cluster, environ)
        target = {
            "kind": "kubernetes",
            "kubeconfig": str(cluster.kubeconfig(folder / "config")),
            "objects": OBJECTS,
        }
        loop = {"mode": "approve", "slow_interval_s": 3600, "solver_time_limit_s": 5.0}
        if phase == "tick":
            loop |= {"mode": "auto", "slow_interval_s": 1}
        write_spec(folder, name=this.name, target=target, loop=loop)
        with simulation.running(every_s=0.1, speed=20.0):
            (_tick if phase == "tick" else _ask)(this)
        return this


def _tick(this: Round) -> None:
    with serving(this.folder, this.environ) as server:
        hand_in_busy(server.url, this.name)
        time.sleep(this.after_s)
        server.kill()
    with store_of(this) as store:
        this.killed_in = _where(store, this.name)
    with serving(this.folder, this.environ) as server:

        def settled() -> bool:
            hand_in_busy(server.url, this.name)  # else the observations would grow stale
            newest = server.ask("GET", f"/v1/deployments/{this.name}/decisions?limit=1").json()
            return any(
                d["outcome"] == "unchanged" or d["reason"].startswith(ONLY_TOO_MANY)
                for d in newest["decisions"]
            )

        if not awaited(settled):
            this.wrong.append(f"the fleet did not reach the plan: it is {this.counts()}")
        if sum(this.counts().values()) <= len(OBJECTS):
            this.wrong.append(f"the fleet did not grow: {this.counts()}")


def _ask(this: Round) -> None:
    with serving(this.folder, this.environ) as server:
        plan: dict[str, Any] = {}

        def planned_so_far() -> bool:
            answer = server.ask("POST", "/v1/plans", {"history": history(**LOAD)})
            plan.update(answer.json() if answer.status_code == 201 else {})
            return bool(plan)

        assert awaited(planned_so_far), "no plan was made"
        plan_id = plan["plan_id"]
        this.acknowledged[plan_id] = {"pending"}
        path = f"/v1/plans/{plan_id}"
        if this.phase == "apply":
            this.ask_and_note(server, f"{path}/approve")
        asking = threading.Thread(target=this.ask_and_note, args=(server, f"{path}/{this.phase}"))
        asking.start()
        time.sleep(this.after_s)
        server.kill()
        asking.join()
    with store_of(this) as store:
        this.killed_in = _where(store, this.name)
    planned = {pool["role"]: pool["replicas"] for pool in plan["windows"][0]["pools"]}
    with serving(this.folder, this.environ) as server:

        def applied() -> bool:
            for what in ("approve", "apply"):
                this.ask_and_note(server, f"{path}/{what}")
            told = server.ask("GET", path).json()
            return bool(told["approval"]["state"] == "applied")

        if not awaited(applied):
            told = server.ask("GET", path).json()["approval"]
            this.wrong.append(f"the plan is {told['state']}, not applied: {told['reason']}")
        if this.counts() != planned:
            this.wrong.append(f"the fleet is {this.counts()}, planned was {planned}")


def _where(store: Store, name: str) -> str:
    """In which state the newest plan of a deployment was left."""
    found = store.plans(name, limit=1)
    return f"{found[0].approval.state}" if found else "no plan yet"


@contextmanager
def store_of(this: Round) -> Iterator[Store]:
    store = open_store(this.environ["POOLWISE_DATABASE_URL"])
    try:
        yield store
    finally:
        store.close()


def check(this: Round) -> list[str]:
    """What is wrong with what a round has left; nothing, where all is well."""
    wrong = list(this.wrong)
    with store_of(this) as store:
        steps = 0
        for record in store.plans(this.name, limit=1_000):
            wrong += _check_plan(store, record.plan.plan_id, this)
            steps += len(store.steps(record.plan.plan_id))
        known = {record.plan.plan_id for record in store.plans(this.name, limit=1_000)}
    wrong += [f"{plan_id} was lost" for plan_id in this.acknowledged.keys() - known]
    grown = sum(this.counts().values()) - len(OBJECTS)
    if this.changes() != grown:
        wrong.append(f"{grown} replicas more by {this.changes()} changes: one was done twice")
    if steps < grown:
        wrong.append(f"{grown} replicas were started by {steps} steps that the store knows")
    return wrong


def _check_plan(store: Store, plan_id: str, this: Round) -> list[str]:
    states = [approval.state.value for approval in store.approvals(plan_id)]
    wrong = [
        f"{plan_id} was {state} by an answer, the store has {states}"
        for state in this.acknowledged.get(plan_id, set()) - set(states)
    ]
    wrong += [
        f"{plan_id} went from {before} to {after}: {states}"
        for before, after in pairwise(states)
        if after not in _LEGAL.get(before, set())
    ]
    wrong += [
        f"{plan_id} was {once} {states.count(once)} times"
        for once in (ApprovalState.APPROVED.value, ApprovalState.APPLIED.value)
        if states.count(once) > 1
    ]
    lines = Counter(
        entry.action
        for entry in store.audit(limit=1_000_000)
        if entry.subject == plan_id and entry.action.startswith("plan.")
    )
    stepped = lines.pop("plan.step", 0)
    if stepped != len(store.steps(plan_id)):
        wrong.append(f"{plan_id}: {len(store.steps(plan_id))} steps, {stepped} lines of audit")
    orders = sum(count for action, count in lines.items() if action.startswith("plan.order_"))
    if lines.total() - orders != len(states):
        wrong.append(f"{plan_id}: {len(states)} states, but lines of audit {dict(lines)}")
    return wrong
