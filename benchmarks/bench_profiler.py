"""How good the profiler is, through real CPU engines under a kernel quota (root, cgroups).

    python -m benchmarks.bench_profiler                          # everything, about 50 minutes
    python -m benchmarks.bench_profiler --only repeats points    # one 1P1D deployment
    python -m benchmarks.bench_profiler --only roles             # under 5 minutes
    python -m benchmarks.bench_profiler --only client many aggregated

* repeats: the same pair profiled twice in full, and once quickly;
* points: 50 unseen (input, output, concurrency) points against the first profile in the twin;
* roles: prefill-only, decode-only and aggregated of the same engine in turns, and TTFT through the
  P/D path as the sum of prefill, transfer and first decode step;
* alone, client, many: our client beside `vllm bench serve`, with one request at a time, several,
  200 streams at once;
* paced: both clients on a server whose times are known, a few and 200 streams at once: what they
  differ by when the engine cannot;
* aggregated: a profile of one worker that does both, mixed steps too, beside the pair's.

Nothing here runs on a GPU.
"""

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.profiling import client, paced, points, repeats, roles
from benchmarks.profiling.engines import AREA, LONGEST, Engines, Say, engines
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.service.answers.engine_formats import launched_kv_bytes
from planner.service.answers.profiling import FULL_S, QUICK_S
from profiler.files import read_profile, write_profile
from profiler.local import Launched, LocalProfiling
from profiler.measure.session import Plan
from profiler.run import journal_for
from profiler.samples import Kind

PAIR = (Role.PREFILL, Role.DECODE)
ALONE = client.Loop(requests=16, rate_rps=None, input_tokens=96, output_tokens=32, rounds=4)
# Its rate is only where the search for one begins (`client.out_of_step`).
SEVERAL = client.Loop(requests=40, rate_rps=0.8, input_tokens=96, output_tokens=32, rounds=4)
MANY = client.Loop(requests=200, rate_rps=20.0, input_tokens=16, output_tokens=64, rounds=2)
PACED = client.Loop(requests=300, rate_rps=10.0, input_tokens=96, output_tokens=32, rounds=2)
PACED_MANY = client.Loop(requests=200, rate_rps=100.0, input_tokens=16, output_tokens=64, rounds=2)
PARTS = ("repeats", "points", "roles", "alone", "client", "many", "paced", "aggregated")


def main() -> None:
    """Run the parts that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks-out/profiler"))
    parser.add_argument("--full-s", type=float, default=FULL_S, help="a full profile, seconds")
    asked = parser.parse_args()
    folder: Path = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def say(text: str) -> None:
        load = os.getloadavg()[0]
        print(f"[{time.monotonic() - began:6.0f} s, load {load:.1f}] {text}", flush=True)

    if {"repeats", "points", "roles"} & set(asked.only):
        with engines(PAIR, folder, say) as now:
            _of_a_pair(now, asked, folder, say)
    if {"alone", "client", "aggregated"} & set(asked.only):
        with engines((Role.AGGREGATED,), folder, say) as now:
            if "alone" in asked.only:
                _section(say, "alone", client.table(*client.side_by_side(now, ALONE, folder, say)))
            if "client" in asked.only:
                loop = client.out_of_step(now, SEVERAL, say)
                _section(say, "client", client.table(*client.side_by_side(now, loop, folder, say)))
            if "aggregated" in asked.only:
                _section(say, "aggregated", _aggregated(now, folder, say))
    if "many" in asked.only:
        with engines((Role.AGGREGATED,), folder, say, sequences=256) as now:
            _section(say, "many", client.table(*client.side_by_side(now, MANY, folder, say)))

    for name, loop in (("paced", PACED), ("paced, 200 streams", PACED_MANY)):
        if "paced" in asked.only:
            with paced.paced(folder, say, requests=loop.requests) as server:
                ours, theirs = client.side_by_side(server, loop, folder, say)
                truth = server.written(loop.output_tokens)
            _section(say, name, client.table_with_truth(ours, theirs, truth))


def _of_a_pair(now: Engines, asked: argparse.Namespace, folder: Path, say: Say) -> None:
    first = folder / "full-1.json"
    if "repeats" in asked.only:
        profiles = [
            _profile(now, folder / f"full-{i}.json", asked.full_s, PAIR, say) for i in (1, 2)
        ]
        quick = _profile(now, folder / "quick.json", QUICK_S, PAIR, say, quick=True)
        names = ("full-1", "full-2", "quick")
        one, two, three = (
            repeats.baseline_of(folder / f"{name}.json.journal.jsonl") for name in names
        )
        full = repeats.agreement(*profiles, baselines=(one, two))
        _section(say, "two full profiles", repeats.table(full))
        hurried = repeats.agreement(quick, profiles[0], baselines=(three, one))
        _section(say, "quick and full", repeats.table(hurried))
    if "points" in asked.only:
        loads = points.drawn()
        real = asyncio.run(points.measured(now, loads, repeats=points.REPEATS))
        kept = [
            {"load": asdict(x), "real": [asdict(f) for f in r]}
            for x, r in zip(loads, real, strict=True)
        ]
        (folder / "points.json").write_text(json.dumps(kept))
        found = points.judged(read_profile(first), loads, real, PAIR)
        _section(say, "50 unseen points", points.table(found) + "\n\n" + points.worst(found))
    if "roles" in asked.only:
        _section(say, "roles, and parts of TTFT", roles.of_pair(now, folder, say))


def _profile(
    now: Engines,
    out: Path,
    budget_s: float,
    roles: tuple[Role, ...],
    say: Say,
    *,
    quick: bool = False,
) -> Profile:
    """Measure anew, keep the file, and say how it went."""
    out.with_name(out.name + ".journal.jsonl").unlink(missing_ok=True)
    kinds = (Kind.PREFILL, Kind.DECODE)
    plan = Plan(
        area=AREA,
        kinds=kinds if len(roles) > 1 else (*kinds, Kind.MIXED),
        budget_s=budget_s,
        held_out=3 if quick else 6,
        least_samples=1 if quick else 2,
        step_tokens=LONGEST,
    )
    pair = len(now.workers) > 1
    began = time.monotonic()
    profile = LocalProfiling(
        deployment=now.deployment,
        launched=Launched(
            answering=now.workers[-1],
            prefill=now.workers[0] if pair else None,
            starts_s=now.starts_s,
        ),
        roles=roles,
        source="benchmarks.bench_profiler",
        kv_bytes_per_token=launched_kv_bytes(now.deployment.site.model.directory),
    ).run(plan, journal_for(out, {"bench": out.name}, fresh=False))
    write_profile(profile, out)
    assert profile.details is not None
    say(
        f"{out.name}: {time.monotonic() - began:.0f} s, {profile.details.samples} samples of "
        f"{profile.provenance.points} points, {plan.held_out} more a table held out (a full grid: "
        f"{AREA.exhaustive_points} points), {profile.details.disturbed_samples} set aside; "
        f"{'; '.join(profile.provenance.notes) or 'no notes'}"
    )
    for name, fit in (
        ("prefill", profile.details.prefill),
        ("decode", profile.details.decode_step),
    ):
        say(f"  {name}: {fit}")
    return profile


def _aggregated(now: Engines, folder: Path, say: Say) -> str:
    """One worker that does both beside the pair: tables of the same engine, and mixed steps."""
    profile = _profile(now, folder / "aggregated.json", 240.0, (Role.AGGREGATED,), say)
    assert profile.details is not None
    lines = [
        f"A prompt costs the answers beside it {profile.details.mixed_ratio:.0%} of what it takes "
        f"alone; their longest gap is {1e3 * (profile.details.mixed_stall_s or 0):,.0f} ms."
    ]
    if (folder / "full-1.json").exists():
        pair = read_profile(folder / "full-1.json")
        lines += ["", repeats.table(repeats.agreement(profile, pair))]
    return "\n".join(lines)


def _section(say: Say, title: str, text: str) -> None:
    say(f"{title}:\n\n{text}\n")


if __name__ == "__main__":
    main()
