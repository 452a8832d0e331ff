"""The demo's stages in their order. Reads top to bottom; everything it starts, it ends."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from actuators.actuator import carry_out
from actuators.dry_run import render_text
from actuators.local import LocalActuator
from forecaster.forecast import forecast
from forecaster.readers import TraceFormat
from forecaster.windows import arrival_cv2_of, observe_windows
from forecaster.writers import write_trace
from planner.autoscale import Decision, decide
from planner.domain.errors import InputError, ProfileError
from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import PlanStatus, Prediction
from planner.domain.profile import Profile
from planner.domain.rollout import Approval, ApprovalState, Diff, Step
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow, Workload
from planner.rollout import (
    GuardConditions,
    approve,
    begin,
    draft,
    finish,
    refused,
    reject,
    submit,
)
from planner.service.answers.engine_formats import launched_kv_bytes
from planner.service.demo.describe import (
    ACCELERATOR,
    Description,
    promise_for,
    shape_in,
    write_spec,
)
from planner.service.demo.display import Display, Stage
from planner.service.demo.measure import Traffic, answer_to
from planner.service.demo.outcome import MeasuredWindow, Outcome, RolledOut, window_when_ready
from planner.service.demo.site import MAX_MODEL_LEN, DemoModel, local_site
from planner.service.demo.traffic import (
    CACHE_BLOCK_TOKENS,
    DemoTraffic,
    RawTraffic,
    fit_to_machine,
    read_traffic,
    with_observed_reuse,
)
from planner.service.demo.verdict import judge
from planner.service.demo.wording import (
    answering,
    measured_text,
    predicted_text,
    provenance_text,
    quota_text,
)
from planner.service.settings import Settings
from planner.service.spec.file import read_spec
from planner.simulate import ReplicaGroup, Scenario, simulate
from profiler.files import read_profile
from profiler.local import Launched, LocalProfiling
from profiler.measure.session import Plan as MeasuringPlan
from profiler.measure.session import Progress
from profiler.measure.where import Range
from profiler.run import journal_for
from serving.fleet.deployment import LocalDeployment
from serving.traffic.background import BackgroundReplay
from serving.traffic.load import Replay
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.launcher import LocalSite

WINDOW_S = 60.0
HISTORY_WINDOWS = 6
"""The warm-up window is cut into so many for the forecaster."""
LONGEST_ROLLOUT_S = 240.0
DEMO_RANGE = Range(
    new_tokens=(48, 1024),
    cached_tokens=(0, 1024),
    sequences=(1, 16),
    context_tokens=(64, 1280),
    longest_tokens=MAX_MODEL_LEN,
    block_tokens=CACHE_BLOCK_TOKENS,
)
DEMO_PROFILE_S = 75.0
DEMO_HELD_OUT = 2
SLOTS = 3
QUESTION = "The capital of France is"
"""Asked of models that were trained; the tiny one answers nonsense."""

Ask = Callable[[str], bool]
"""Asks a yes-no question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFleet:
    """Replicas to begin with."""

    prefill: int = 1
    decode: int = 1

    def __post_init__(self) -> None:
        if min(self.prefill, self.decode) < 1 or self.prefill + self.decode > SLOTS:
            raise InputError(
                f"the start fleet needs at least one prefill and one decode worker, and at most "
                f"{SLOTS} together, got {self.prefill}P{self.decode}D"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """What the user asked for.

    Parameters
    ----------
    profile : Path or None
        A profile that an earlier run measured on this machine, to spare the sweep.
    """

    trace: Path | None
    profile: Path | None = None
    model: DemoModel
    start_fleet: StartFleet
    window_s: float
    out: Path
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What became of the approved diff."""

    approval: Approval
    applied: tuple[RolledOut, ...]
    during: Replay | None


@dataclass(slots=True)
class Demo:
    """One run."""

    request: DemoRequest
    settings: Settings
    display: Display
    ask: Ask

    def run(self) -> Outcome:
        """Run all stages and return what happened; `spec.yaml` and the rest lie in `out`."""
        began_at, began_s = datetime.now(UTC), time.perf_counter()
        rng = np.random.default_rng(self.request.seed)
        raw = read_traffic(self.request.trace, rng=rng)
        self._saved_profile()  # refused before anything is started
        site = local_site(self.settings, self.request.model, progress=self.display.say)
        with LocalDeployment(site, progress=self.display.say) as deployment:
            pair = self._start_fleet(deployment)
            profile = self._profile(deployment, pair)
            traffic = self._read_trace(raw, profile, rng)
            spec = self._spec(profile, traffic, site)
            sender = Traffic(deployment=deployment, writer=self._writer(site))
            before = self._warm_up(sender, traffic.workload, spec.slos[0])
            history, expected = self._forecast(before, spec)
            decision = self._plan(spec, expected, deployment)
            approval = self._approve(decision)
            rollout = self._apply(sender, traffic, decision.diff, approval, began_s)
            after, hindcast = self._compare(sender, traffic.workload, rollout, spec)
            quota, enforced = quota_text(deployment), deployment.launcher.quota_is_enforced
        return Outcome(
            began_at=began_at,
            began_at_s=began_s,
            took_s=time.perf_counter() - began_s,
            quota=quota,
            traffic=traffic,
            profile=profile,
            slo=spec.slos[0],
            window_s=self.request.window_s,
            before=before,
            history=history,
            forecast=expected,
            plan=decision.plan,
            diff=decision.diff,
            findings=decision.findings,
            approval=rollout.approval,
            applied=rollout.applied,
            during=rollout.during,
            after=after,
            hindcast=hindcast,
            verdict=judge(
                before,
                after,
                diff=decision.diff,
                planned=window_when_ready(decision.plan, decision.diff, profile),
                hindcast=hindcast,
                slo=spec.slos[0],
                quota_is_enforced=enforced,
            ),
        )

    def _writer(self, site: LocalSite) -> PromptWriter:
        return PromptWriter(words=read_words(site.model.directory), seed=self.request.seed)

    def _start_fleet(self, deployment: LocalDeployment) -> Launched:
        wanted = self.request.start_fleet
        title = f"start {wanted.prefill} prefill + {wanted.decode} decode worker, KV over NIXL"
        with self.display.stage("a", title) as stage:
            shapes = [shape_in(Role.PREFILL, self.request.model.value)] * wanted.prefill
            shapes += [shape_in(Role.DECODE, self.request.model.value)] * wanted.decode
            workers = [deployment.start(shape) for shape in shapes]
            seconds = {}
            for i, worker in enumerate(workers):
                stage.at(0.1 + i / len(workers), f"waiting for {worker.name}'s first token")
                seconds[worker.name] = deployment.await_ready(worker)
                deployment.route(worker)
                stage.say(
                    f"{worker.name} generated its first token after {seconds[worker.name]:.0f} s"
                )
            stage.say(quota_text(deployment))
            if self.request.model is DemoModel.SMOLLM2:
                answer = answer_to(deployment, QUESTION, output_tokens=24)
                text = " ".join(answer.text.split()) or answer.error
                stage.say(f"prompt on one worker, answer on the other: {QUESTION} {text}")
        return Launched(prefill=workers[0], answering=workers[wanted.prefill], starts_s=seconds)

    def _profile(self, deployment: LocalDeployment, pair: Launched) -> Profile:
        saved = self._saved_profile()
        title = "profile them: a quick sweep through the router"
        with self.display.stage("b", title if saved is None else "take a saved profile") as stage:
            profile = saved or self._measure_profile(deployment, pair, stage)
            if saved is not None:
                stage.say(f"{self.request.profile}, {provenance_text(saved)}")
            batch = profile.limits.max_num_seqs
            prefill = 512 / float(profile.prefill.at(512, 0))
            step_s = float(profile.decode_step.at(batch, 64))
            stage.say(
                f"one prefill worker reads {prefill:,.0f} tokens/s (512-token prompts); one decode "
                f"worker writes {batch / step_s:,.0f} tokens/s ({batch} answers at once, "
                f"{1000 * step_s:.0f} ms a token)"
            )
            stage.say(
                f"{counted(profile.provenance.points, 'point')}; off by "
                f"{profile.provenance.error_ratio:.0%} where nothing was fitted; start "
                f"{profile.lifecycle.start_warm_s:.0f} s, flip {profile.lifecycle.flip_s:.0f} s"
            )
        return profile

    def _measure_profile(
        self, deployment: LocalDeployment, pair: Launched, stage: Stage
    ) -> Profile:
        plan = MeasuringPlan(
            area=DEMO_RANGE,
            budget_s=DEMO_PROFILE_S,
            held_out=DEMO_HELD_OUT,
            whole_area=True,
            least_samples=1,
            step_tokens=deployment.site.flags.max_num_batched_tokens,
        )
        self.request.out.mkdir(parents=True, exist_ok=True)
        measured = self.request.out / "measured.json"
        measured.with_name(measured.name + ".journal.jsonl").unlink(missing_ok=True)
        journal = journal_for(measured, {"demo": self.request.model.value}, fresh=False)

        def tell(now: Progress) -> None:
            stage.at(now.spent_s / DEMO_PROFILE_S, now.next_text)

        return LocalProfiling(
            deployment=deployment,
            launched=pair,
            roles=tuple(Role),
            source="poolwise quick sweep, through the P/D path",
            kv_bytes_per_token=launched_kv_bytes(deployment.site.model.directory),
        ).run(plan, journal, tell=tell)

    def _saved_profile(self) -> Profile | None:
        path = self.request.profile
        if path is None:
            return None
        profile = read_profile(path)
        wanted = (self.request.model.value, ACCELERATOR)
        if (profile.model, profile.accelerator) != wanted:
            raise ProfileError(
                f"{path} describes {profile.model} on {profile.accelerator}, but the demo runs "
                f"{wanted[0]} on {wanted[1]}: leave --profile out to measure it"
            )
        return profile

    def _read_trace(
        self, raw: RawTraffic, profile: Profile, rng: np.random.Generator
    ) -> DemoTraffic:
        with self.display.stage("c", "read the traffic") as stage:
            traffic = fit_to_machine(raw, profile, slots=SLOTS, rng=rng)
            stage.say(traffic.source)
            for note in traffic.notes:
                stage.say(note)
        return traffic

    def _spec(self, profile: Profile, traffic: DemoTraffic, site: LocalSite) -> Spec:
        promise = promise_for(traffic.workload, profile)
        described = Description(
            profile=profile,
            promise=promise,
            model_directory=site.model.directory,
            slots=SLOTS,
            window_s=self.request.window_s,
            seed=self.request.seed,
        )
        self.display.say(
            f"    promise: TTFT {promise.ttft_s:g} s and {1000 * promise.tpot_s:.0f} ms a token "
            "for 90 % of requests"
        )
        # Azure's format needs no prefix blocks of a fixed size; the users' tour starts from it.
        write_trace(traffic.workload, self.request.out / "traffic.csv", TraceFormat.AZURE)
        return read_spec(write_spec(self.request.out, described))

    def _warm_up(self, sender: Traffic, workload: Workload, slo: Slo) -> MeasuredWindow:
        window = workload.between(0.0, min(self.request.window_s, workload.duration_s))
        with self.display.stage("d", "replay a warm-up window against the router") as stage:
            measured = sender.measure(window, slo, progress=answering(stage.at, window))
            stage.say(measured_text(measured))
        return measured

    def _forecast(
        self, before: MeasuredWindow, spec: Spec
    ) -> tuple[tuple[ObservedWindow, ...], Forecast]:
        with self.display.stage("e", "forecast the next windows") as stage:
            seen = before.replay.workload
            used = before.throughput
            reuse = used.cached_tokens / max(used.cached_tokens + used.computed_tokens, 1)
            real = with_observed_reuse(seen, reuse)
            history = observe_windows(real, seen.duration_s / HISTORY_WINDOWS)
            expected = forecast(
                history,
                model=spec.models[0].name,
                made_at=seen.start_at + timedelta(seconds=seen.duration_s),
                window_s=spec.forecast.window_s,
                horizon_windows=spec.forecast.horizon_windows,
                arrival_cv2=arrival_cv2_of(real),
            )
            level = spec.forecast.demand_level
            for demand in expected.windows[0].demands:
                stage.say(
                    f"{demand.request_rate_rps.median:.2f} requests/s expected, "
                    f"{demand.request_rate_rps.at(level):.2f} at the {level:.0%} quantile; "
                    f"{demand.shape.isl_mean:.0f} tokens in, {demand.shape.osl_mean:.0f} out, "
                    f"{demand.shape.reuse_ratio:.0%} of prompts cached"
                )
        return history, expected

    def _plan(self, spec: Spec, expected: Forecast, deployment: LocalDeployment) -> Decision:
        with self.display.stage("f", "plan with OR-Tools, prove in the twin") as stage:
            now = expected.made_at
            fleet = deployment.fleet()
            conditions = GuardConditions(now=now, observed_at=now, recommended_since=None)
            decision = decide(spec, expected, fleet, now=now, conditions=conditions)
            plan = decision.plan
            window = plan.windows[0]
            stage.say(
                f"{plan.status}: {window.replicas(Role.PREFILL)} prefill + "
                f"{window.replicas(Role.DECODE)} decode, {plan.usd_per_hour:.3f} USD/h "
                f"(bottleneck: {window.bottleneck}; {plan.solver.name}, "
                f"{1000 * plan.solver.wall_s:.0f} ms)"
            )
            ready = window_when_ready(plan, decision.diff, spec.profiles[0])
            stage.say(f"predicted once it is ready: {predicted_text(ready.predicted)}")
            for rejected in plan.rejected:
                stage.say(f"rejected: {rejected.name}: {rejected.reason}")
        return decision

    def _approve(self, decision: Decision) -> Approval:
        with self.display.stage("g", "the difference, and your approval") as stage:
            if decision.plan.status is PlanStatus.INFEASIBLE:
                stage.say(
                    "no fleet of this machine is expected to keep the promise; this is the best"
                )
                for relaxation in decision.plan.relaxations:
                    stage.say(f"it would help: {relaxation}")
            for line in render_text(decision.diff).splitlines():
                stage.say(line)
            for finding in decision.findings:
                if finding.verdict != "allow":
                    stage.say(f"guard {finding.guard}: {finding.verdict}: {finding.reason}")
        now = datetime.now(UTC)
        version = decision.diff.from_fleet.version
        opened = submit(
            draft(plan_id=decision.plan.plan_id, fleet_version=version, by="poolwise demo", at=now),
            by="poolwise demo",
            at=now,
            reason="made from the warm-up window",
        )
        if refused(decision.findings):
            return reject(opened, by="guards", at=now, reason="a guard refused it")
        if not decision.diff.steps:
            return approve(opened, by="poolwise demo", at=now, reason="nothing to change")
        if self.ask("Apply these steps to the running workers?"):
            return approve(opened, by=_user(), at=datetime.now(UTC), reason="asked and answered")
        return reject(opened, by=_user(), at=datetime.now(UTC), reason="answered no")

    def _apply(
        self,
        sender: Traffic,
        traffic: DemoTraffic,
        diff: Diff,
        approval: Approval,
        began_s: float,
    ) -> Rollout:
        """Move the workers while the trace goes on; wait for the last answer of that stretch."""
        if approval.state is not ApprovalState.APPROVED or not diff.steps:
            with self.display.stage("h", "apply: nothing moves") as stage:
                stage.say("the fleet is as planned" if not diff.steps else approval.reason)
            return Rollout(approval=approval, applied=(), during=None)
        start_s = self.request.window_s
        end_s = min(start_s + LONGEST_ROLLOUT_S, traffic.workload.duration_s)
        rest = traffic.workload.between(min(start_s, end_s), end_s)
        begun = begin(approval, by="poolwise demo", at=datetime.now(UTC))
        with self.display.stage("h", "apply it while traffic runs") as stage:
            running = sender.begin(rest)
            try:
                applied = self._carry_out(sender, diff, stage, running, began_s)
            finally:
                running.stop_sending()
            stage.at(1.0, "waiting for the answers under way")
            during = running.result()
            stage.say(
                f"{counted(len(during.timings), 'request')} arrived meanwhile, "
                f"{len(during.failures)} failed"
            )
        done = finish(begun, by="poolwise demo", at=datetime.now(UTC))
        return Rollout(approval=done, applied=applied, during=during)

    def _carry_out(
        self,
        sender: Traffic,
        diff: Diff,
        stage: Stage,
        running: BackgroundReplay,
        began_s: float,
    ) -> tuple[RolledOut, ...]:
        rolled: list[RolledOut] = []
        started: dict[int, float] = {}

        def tell(step: Step, event: str) -> None:
            now_s = time.perf_counter() - began_s
            text = f"{step.kind} {step.shape.label}"
            text += f" -> {step.to_shape.label}" if step.to_shape else ""
            if event == "begun":
                started[step.index] = now_s
                sent = counted(running.sent, "request")
                stage.at(step.index / len(diff.steps), f"{text} ({sent} sent)")
                return
            took_s = now_s - started[step.index]
            stage.say(f"{text}: {took_s:.1f} s")
            rolled.append(
                RolledOut(text=text, kind=step.kind, began_s=started[step.index], took_s=took_s)
            )

        carry_out(LocalActuator(sender.deployment), diff, tell=tell)
        return tuple(rolled)

    def _compare(
        self, sender: Traffic, workload: Workload, rollout: Rollout, spec: Spec
    ) -> tuple[MeasuredWindow, Prediction]:
        used_s = self.request.window_s
        if rollout.during is not None:
            used_s += rollout.during.workload.duration_s
        window_s = min(self.request.window_s, workload.duration_s)
        start_s = min(used_s, workload.duration_s - window_s)
        window = workload.between(start_s, start_s + window_s)
        slo = spec.slos[0]
        with self.display.stage("i", "replay the next window, compare with the plan") as stage:
            measured = sender.measure(window, slo, progress=answering(stage.at, window))
            stage.say(measured_text(measured))
            hindcast = _hindcast(measured, spec)
            stage.say(f"the twin, given this very traffic: {predicted_text(hindcast)}")
        return measured, hindcast


def _hindcast(measured: MeasuredWindow, spec: Spec) -> Prediction:
    """Replay the traffic that really came in the twin of the fleet that really ran."""
    used = measured.throughput
    reuse = used.cached_tokens / max(used.cached_tokens + used.computed_tokens, 1)
    groups = tuple(
        ReplicaGroup(profile=profile, role=pool.shape.role, replicas=pool.ready)
        for pool in measured.fleet.pools
        if pool.ready and (profile := spec.profile_of(pool.shape)) is not None
    )
    workload = with_observed_reuse(measured.replay.workload, reuse)
    result = simulate(Scenario(groups=groups, workload=workload))
    return result.prediction(spec.slos)


def _user() -> str:
    return os.environ.get("USER") or f"uid {os.getuid()}"
