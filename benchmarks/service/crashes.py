"""kill -9 at random moments of tick, approve and apply, on SQLite and PostgreSQL."""

import random
from collections import Counter
from pathlib import Path

from benchmarks.service.result import Result, Say
from tests.planner.service.crashes import PHASES, Round, check, run_round
from tests.postgres import running_postgres

SEED = 9


def run(folder: Path, say: Say, *, kills: float) -> Result:
    with running_postgres() as server:
        urls = {
            "SQLite": f"sqlite:///{folder / 'poolwise.db'}",
            "PostgreSQL": server.new_database(),
        }
        done: list[tuple[str, Round, list[str]]] = []
        for number in range(int(kills) // len(urls)):
            for name, url in urls.items():
                environ = {
                    "POOLWISE_DATABASE_URL": url,
                    "POOLWISE_STATE_DIR": str(folder / "state"),
                }
                chance = random.Random(f"{SEED} {name} {number}")
                this = run_round(number, folder / name / str(number), environ, chance)
                wrong = check(this)
                done.append((name, this, wrong))
                say(f"{name} {number} {this.phase} after {this.after_s:.2f} s: plan was "
                    f"{this.killed_in}; {'; '.join(wrong) or 'well'}")  # fmt: skip
    return Result(text=_told(done), holds=not any(wrong for _, _, wrong in done))


def _told(done: list[tuple[str, Round, list[str]]]) -> str:
    lines = ["| database | killed in a | kills | the plan was then | wrong (asked: none) |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name in dict.fromkeys(name for name, _, _ in done):
        for phase in PHASES:
            these = [(r, w) for n, r, w in done if n == name and r.phase == phase]
            states = Counter(r.killed_in for r, _ in these)
            told = ", ".join(f"{state} {count}x" for state, count in states.most_common())
            wrong = sum(bool(w) for _, w in these)
            lines.append(f"| {name} | {phase} | {len(these)} | {told} | {wrong} |")
    lines += [f"{name} {r.number}: {one}" for name, r, wrong in done for one in wrong]
    return "\n".join(lines)
