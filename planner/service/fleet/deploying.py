"""Run a local deployment in the foreground, steered from other terminals through its socket."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from actuators.local import LocalActuator
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.placement import Placement
from planner.domain.topology import Cell
from planner.domain.wording import agreed, counted
from planner.rollout import PoolKey, place, site_of
from planner.service.answers.planning import sole_model
from planner.service.demo.signals import ending_on_signals
from planner.service.demo.site import find_model
from planner.service.fleet.gate import GateOptions, check_access
from planner.service.fleet.local_target import StepCommands
from planner.service.listening import listening
from planner.service.settings import Settings, read_settings
from planner.service.spec.catalogue import read_catalogue
from planner.service.spec.file import read_spec
from serving.fleet.caretaker import Caretaker
from serving.fleet.changes import Changes
from serving.fleet.commands import Commands
from serving.fleet.companion import Companion
from serving.fleet.control import ControlClient, ControlServer
from serving.fleet.deployment import LocalDeployment, RouterSettings
from serving.fleet.kubernetes import KubernetesDescription, render
from serving.fleet.kubernetes_gate import GateDescription
from serving.routers import RouterKind
from serving.routers.policies import USUAL, Policies
from serving.workers.engine import EngineFlags
from serving.workers.gpu_memory import check_gpus
from serving.workers.launcher import EVERYTHING, LocalSite, Worker
from serving.workers.processes import check_port

Say = Callable[[str], None]
LARGEST_PORT = 65_535
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
POLL_S = 0.2
GATE_CLOSES_S = 3.0
"""After its drain a gate breaks off what is left, and writes its last records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asked for.

    Parameters
    ----------
    prefill, decode, aggregated, standby : int
        Workers to begin with, spread over the cells.
    cells : int
        So many cells, where `spec` names none.
    cores : float
        Processor share of a worker on a machine without GPUs, cores; 0: no limit.
    port : int or None
        Of the first cell's router.
    ready_timeout_s : float
        A worker has its first token by then, or is given up.
    gate : GateOptions or None
        None: no gate.
    """

    model: str
    name: str | None
    prefill: int
    decode: int
    aggregated: int
    standby: int
    router: RouterKind
    cells: int
    spec: Path | None
    accelerator: str
    tp: int
    gpus: tuple[int, ...]
    cores: float
    flags: EngineFlags
    kv_events: bool
    port: int | None
    ready_timeout_s: float = 300.0
    gate: GateOptions | None = None
    policies: Policies = USUAL

    def __post_init__(self) -> None:
        _check_counts(self.prefill, self.decode, self.aggregated)
        if self.policies != USUAL and self.router is not RouterKind.SMG:
            raise InputError(
                f"--router {self.router} chooses workers by its own policy: take --router smg, or "
                "leave --prefill-policy and --decode-policy out"
            )
        if self.is_mixed and self.router is not RouterKind.SMG:
            raise InputError(
                f"--router {self.router} sends nothing to aggregated workers beside prefill and "
                "decode ones: take --router smg"
            )

    @property
    def is_mixed(self) -> bool:
        """Whether a router has to tell aggregated workers from the others."""
        return bool(self.aggregated and (self.prefill or self.router is RouterKind.SMG))

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of the workers that take traffic, in the order in which they are started."""
        pair = (Role.PREFILL,) * self.prefill + (Role.DECODE,) * self.decode
        return pair + (Role.AGGREGATED,) * self.aggregated


def _check_counts(prefill: int, decode: int, aggregated: int) -> None:
    if not aggregated and not (prefill and decode):
        raise InputError(
            "a deployment needs at least one prefill and one decode worker, or an aggregated one, "
            f"got --prefill {prefill} --decode {decode} --aggregated {aggregated}"
        )
    if bool(prefill) != bool(decode):
        raise InputError("prefill and decode workers go together: give at least one of each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What is to be written as manifests; see `KubernetesDescription`.

    Parameters
    ----------
    gate_image : str or None
        Of the gate; None: no gate.
    """

    out: Path
    prefix: str
    namespace: str
    model: str
    name: str | None
    prefill: int
    decode: int
    aggregated: int
    spec: Path | None
    tp: int
    flags: EngineFlags
    engine_image: str
    router_image: str
    claim: str | None
    gate_image: str | None = None

    def __post_init__(self) -> None:
        _check_counts(self.prefill, self.decode, self.aggregated)
        for option, value in (("--prefix", self.prefix), ("--namespace", self.namespace)):
            if not _DNS_LABEL.fullmatch(value):
                raise InputError(
                    f"{option} {value}: take lower-case letters, digits and dashes inside, 30 at "
                    "the most"
                )


def write_manifests(asked: Rendered) -> tuple[str, ...]:
    """Write a deployment as Kubernetes manifests; names of the files.

    Raises
    ------
    InputError
        When the folder cannot be written, or the spec cannot be read.
    """
    cells = () if asked.spec is None else read_spec(asked.spec).cells
    served = asked.name or asked.model.rstrip("/").rpartition("/")[2]
    files = render(
        KubernetesDescription(
            name=asked.prefix,
            namespace=asked.namespace,
            model=asked.model,
            served_name=served,
            replicas={
                Role.PREFILL: asked.prefill,
                Role.DECODE: asked.decode,
                Role.AGGREGATED: asked.aggregated,
            },
            shape=ReplicaShape(role=Role.PREFILL, model=served, accelerator="nvidia", tp=asked.tp),
            flags=asked.flags,
            cells=cells or (EVERYTHING,),
            engine_image=asked.engine_image,
            router_image=asked.router_image,
            model_claim=asked.claim,
            gate=(
                None
                if asked.gate_image is None
                else GateDescription(
                    image=asked.gate_image,
                    spec_config=f"{asked.prefix}-spec",
                    keys_secret=f"{asked.prefix}-gate-keys",
                    model=served,
                )
            ),
        )
    )
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            draft = asked.out / f"{name}.part"
            draft.write_text(text)
            draft.replace(asked.out / name)
    except OSError as error:
        raise InputError(f"--out {asked.out}: cannot be written: {error.strerror}") from error
    return tuple(sorted(files))


def bring_up(asked: Asked, environment: Mapping[str, str], say: Say) -> None:
    """Run the deployment until somebody ends it.

    Raises
    ------
    InputError, OperationError
        When it does not come up; whatever was started has ended then.
    """
    check_gpus(asked.gpus)
    if asked.gate is not None:  # before engines load for minutes
        check_access(asked.gate)
        check_port(asked.gate.port, whose="the gate (--gate-port)")
        if asked.gate.port == asked.port:
            raise InputError(f"--port and --gate-port are both {asked.port}: choose two")
    settings = read_settings(environment)
    say = _whoever_listens(say)
    site = deployment_site(asked, settings, say)
    _check_router_ports(asked, [cell.name for cell in site.cells])
    if asked.gate is not None:
        _check_model(asked.gate, site.model.name, settings)
    routing = RouterSettings(
        kind=asked.router, mixed=asked.is_mixed, port=asked.port, policies=asked.policies
    )
    deployment = LocalDeployment(site, progress=say, routing=routing)
    shape = ReplicaShape(
        role=Role.PREFILL, model=site.model.name, accelerator=asked.accelerator, tp=asked.tp
    )
    changes = Changes(deployment, shape)
    with ending_on_signals(), deployment:
        first_workers(changes, asked, say)
        caretaker = Caretaker(deployment, say)
        commands = Commands(changes, caretaker)
        steps = StepCommands(commands, LocalActuator(deployment))
        control = ControlServer(site.state_dir, steps.answer)
        with caretaker, control, gate(deployment, asked.gate):
            for router in deployment.endpoints().routers:
                say(f"cell {router.cell} answers at {router.url}/v1")
            say(
                "steer it with `poolwise deployment list|add|remove|flip|replace|down`; Ctrl-C ends"
            )
            while not commands.ended.wait(POLL_S):
                pass
        say("ending")


def _whoever_listens(say: Say) -> Say:
    """The same, but for a terminal or pipe that is gone: the deployment goes on without it."""

    def told(line: str) -> None:
        with suppress(OSError):
            say(line)

    return told


def _check_router_ports(asked: Asked, cells: Sequence[str]) -> None:
    """Refuse a first port after which not every cell's router finds its own.

    Raises
    ------
    InputError
    """
    if asked.port is None:
        return
    last = asked.port + len(cells) - 1
    if last > LARGEST_PORT:
        raise InputError(
            f"--port {asked.port}: the routers of {counted(len(cells), 'cell')} take the ports "
            f"up to {last}, "
            f"but there is none above {LARGEST_PORT}: choose a smaller one"
        )
    if asked.gate is not None and asked.port < asked.gate.port <= last:
        raise InputError(
            f"--gate-port {asked.gate.port} is the port of the router of cell "
            f"{cells[asked.gate.port - asked.port]}, since --port is {asked.port}: choose another"
        )


def _check_model(options: GateOptions, served: str, settings: Settings) -> None:
    known = read_catalogue(settings.catalogue.path)
    spec = read_spec(options.spec, allow_estimates=options.allow_estimates, catalogue=known)
    model = sole_model(spec, options.model)
    if model != served:
        raise InputError(
            f"--gate lets requests for {model} through, the model of {options.spec}, but {served} "
            f"would be served: add --name {model}, or give the spec of {served}"
        )


@contextmanager
def gate(deployment: LocalDeployment, options: GateOptions | None) -> Iterator[Companion | None]:
    """The gate before a deployment, where one was asked for; started again when it dies.

    Its socket is held here, so that nobody is turned away meanwhile.

    Raises
    ------
    EngineError
        When it does not come up.
    """
    if options is None:
        yield None
        return
    with listening(options.host, options.port) as listener:
        url = f"http://{options.host}:{listener.getsockname()[1]}"
        line = [sys.executable, "-m", "planner.service.cli.main", "gate", "run"]
        line += ["--spec", str(options.spec), "--listen-fd", str(listener.fileno())]
        line += ["--anonymous"] * options.anonymous + ["--no-admission"] * (not options.admission)
        line += ["--no-direct"] * (not options.direct)
        line += ["--drain-s", str(options.drain_s)]
        beside = Companion(
            name="gate",
            line=line,
            state_dir=deployment.site.state_dir,
            environment=_where_to_look(deployment.site),
            is_up=lambda: _answers(url),
            listener=listener,
            progress=deployment.progress,
            given_up=lambda: deployment.tell_gate(None),
            grace_s=options.drain_s + GATE_CLOSES_S,
        )
        with beside:
            deployment.tell_gate(url)
            deployment.progress(f"the gate answers at {url}/v1")
            yield beside
        deployment.tell_gate(None)


def _where_to_look(site: LocalSite) -> Mapping[str, str]:
    """The environment of a gate that follows this deployment."""
    return {**os.environ, "POOLWISE_STATE_DIR": str(site.published_in)}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def deployment_site(asked: Asked, settings: Settings, say: Say) -> LocalSite:
    """Engine, model, flags and cells of a deployment.

    Raises
    ------
    InputError, EngineError
        When there is no such model or engine, or the spec cannot be read.
    """
    engine, model = find_model(asked.model, settings, name=asked.name, progress=say)
    return LocalSite(
        engine=engine,
        model=model,
        flags=asked.flags,
        state_dir=state_dir_of(settings),
        endpoints_dir=settings.storage.state_dir,
        cores_per_replica=asked.cores or None,
        gpus=asked.gpus,
        cells=_cells(asked),
        kv_events=asked.kv_events,
        ready_timeout_s=asked.ready_timeout_s,
    )


def state_dir_of(settings: Settings) -> Path:
    """Where the local deployment of these settings keeps its state."""
    return settings.storage.state_dir / "local"


def client_of(environment: Mapping[str, str], say: Say) -> ControlClient:
    """A client of the deployment that runs from this environment's state directory."""
    return ControlClient(state_dir_of(read_settings(environment)), say)


def first_workers(changes: Changes, asked: Asked, say: Say) -> None:
    """Start the first workers at the same time, and route each that generated a token.

    Raises
    ------
    OperationError
        For the first worker that does not come up.
    """
    deployment, shape = changes.deployment, changes.shape
    first = first_placement(asked, deployment.site, shape)
    if first.crossing_ratio > 0:
        say(
            f"{first.crossing_ratio:.0%} of the capacity stands in cells without its other half: "
            "give cells room for pairs, or another number of workers"
        )
    homes = {
        role: [r.cell for r in first.replicas for _ in range(r.replicas) if r.shape.role is role]
        for role in Role
    }
    workers = [
        deployment.start(replace(shape, role=role), homes[role].pop(0) or None)
        for role in asked.roles
    ]
    spare = replace(shape, role=Role.DECODE if asked.decode else Role.AGGREGATED)
    workers += [
        deployment.start(spare, deployment.emptiest(), spare=True) for _ in range(asked.standby)
    ]
    say(
        f"{counted(len(workers), 'worker')} {agreed(len(workers), 'is', 'are')} starting, with "
        f"logs in {deployment.site.state_dir / 'logs'}"
    )

    def prove(worker: Worker) -> None:
        seconds = deployment.await_ready(worker)
        standby = worker in workers[len(asked.roles) :]
        (deployment.keep_as_standby if standby else deployment.route)(worker)
        how = "is on standby" if standby else f"takes traffic in cell {worker.cell}"
        say(f"{worker.name} generated a token after {seconds:.0f} s and {how}")

    with ThreadPoolExecutor(max_workers=len(workers)) as pool:
        coming = [pool.submit(prove, worker) for worker in workers]
        try:
            for future in coming:
                future.result()
        except BaseException:
            deployment.launcher.stop_all()  # those that wait are told, instead of waited for
            raise


def first_placement(asked: Asked, site: LocalSite, shape: ReplicaShape) -> Placement:
    """Which of the first workers stands in which cell."""
    roles = Counter(asked.roles)
    wanted = {
        PoolKey(replace(shape, role=role), PurchaseOption.ON_DEMAND): count
        for role, count in roles.items()
    }
    cells = site_of(site.cells, len(site.gpus))
    return place(wanted, dict.fromkeys(wanted, 1.0), cells, {})


def _cells(asked: Asked) -> tuple[Cell, ...]:
    if asked.spec is not None:
        named = read_spec(asked.spec).cells
        if named and asked.cells > 1:
            raise InputError(f"{asked.spec} names cells already: leave --cells out")
        if named:
            return named
    if asked.cells == 1:
        return (EVERYTHING,)
    return tuple(Cell(name=f"cell-{i}") for i in range(asked.cells))
