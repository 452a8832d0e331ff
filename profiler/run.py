"""Measure a server and make its profile: the run from the first request to the fitted tables."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from planner.domain.errors import OperationError, PoolwiseError, ProfileError
from planner.domain.profile import Profile
from profiler.fitting.profile import Setting, marked_incomplete, profile_of_samples
from profiler.interruption import run_until_asked_to_end
from profiler.measure.budget import Budget
from profiler.measure.journal import Journal, open_journal, read_journal
from profiler.measure.probe import Probe, ReadCounters
from profiler.measure.requests import PATIENCE_S, Sender
from profiler.measure.session import Plan, Session, Tell, enough_to_fit
from profiler.measure.words import learn_words
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter

REQUEST_TIMEOUT_S = 600.0
"""A prompt of 100,000 tokens on a slow engine takes minutes."""

LONG_AGO = timedelta(hours=1)
"""A profile whose samples are further apart says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where measuring requests go.

    Parameters
    ----------
    url : str
        Of a server or a P/D router, without /v1.
    words : tuple of str or None
        Single-token words of its tokenizer; None: found out by asking.
    block_tokens : int
        Prefixes are cached in whole blocks of so many tokens.
    counters : ReadCounters or None
        Of the engine that writes the answers.
    identity : callable
        Changes when the engine restarts.
    """

    url: str
    model: str
    words: tuple[str, ...] | None = None
    block_tokens: int
    counters: ReadCounters | None = None
    identity: Callable[[], str | None] = lambda: None
    api_key: str | None = None
    patience_s: float = PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    reached : bool
        Whether no place of the tables is in doubt by more than was stated.
    spent_s : float
        Engine starts and outages excluded, seconds.
    """

    reached: bool
    spent_s: float


Beside = Callable[[Probe, Budget], Awaitable[None]]
"""Measures more with the same probe, after the tables, within the same budget."""


def measure(
    target: Target,
    plan: Plan,
    journal: Journal,
    *,
    tell: Tell = lambda _progress: None,
    beside: Beside | None = None,
    kept_back: Callable[[float, float], float] = lambda _ttft_s, _gap_s: 0.0,
) -> Outcome:
    """Run a session in a loop of its own.

    Parameters
    ----------
    kept_back : callable
        Takes TTFT and gap of a short request; returns what is measured after the tables, seconds.

    Raises
    ------
    MeasurementError
    """

    async def run() -> Outcome:
        client = LoadClient(
            url=target.url, model=target.model, timeout_s=REQUEST_TIMEOUT_S, api_key=target.api_key
        )
        sender = Sender(client=client, patience_s=target.patience_s, note=journal.note)
        try:
            words = target.words or await learn_words(sender)
            probe = Probe(
                sender=sender,
                writer=PromptWriter(words=words, seed=time.time_ns() % 2**31),
                block_tokens=target.block_tokens,
                counters=target.counters,
            )
            session = Session(
                probe=probe,
                journal=journal,
                plan=plan,
                tell=tell,
                identity=target.identity,
                kept_back=kept_back,
            )
            reached = await session.run()
            if beside is not None:
                await beside(probe, session.budget)
            return Outcome(reached=reached, spent_s=session.budget.spent_s)
        finally:
            await client.close()

    return run_until_asked_to_end(run())


@contextlib.contextmanager
def breaking_off(
    journal: Journal, plan: Plan, setting: Setting, keep: Callable[[Profile], None]
) -> Iterator[None]:
    """Make a profile, marked incomplete, of what a run had when it broke off; then let it go on.

    Parameters
    ----------
    setting : Setting
        As far as it was known at the beginning: a dead engine tells nothing more.
    keep : callable
        Takes the incomplete profile.
    """
    try:
        journal.keep_setting(setting)
        yield
    except (OperationError, KeyboardInterrupt, SystemExit) as error:
        if enough_to_fit(journal, plan):
            _keep_broken(journal, setting, error, keep)
        raise


@contextlib.contextmanager
def salvaging(
    out: Path, subject: dict[str, str], keep: Callable[[Profile], None]
) -> Iterator[None]:
    """What an earlier run left is a profile, also when its engine does not even start to answer.

    Parameters
    ----------
    subject : dict of str to str
        What was asked for: as far as it is known without an engine.
    keep : callable
        Takes the incomplete profile.
    """
    try:
        yield
    except OperationError as error:
        with contextlib.suppress(ProfileError):  # the first error is the one to tell
            journal = read_journal(journal_path(out))
            if (
                journal is not None
                and journal.setting is not None
                and journal.finished_at is None
                and journal.subject.items() >= subject.items()
            ):
                _keep_broken(journal, journal.setting, error, keep)
        raise


def _keep_broken(
    journal: Journal, setting: Setting, error: BaseException, keep: Callable[[Profile], None]
) -> None:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    broken = marked_incomplete(_as_measured(setting, journal), f"the run broke off: {why}")
    with contextlib.suppress(PoolwiseError):  # the first error is the one to tell
        keep(profile_of_samples(journal.samples, broken))


def finished_before(out: Path, subject: dict[str, str]) -> Profile | None:
    """The profile of a finished run once more, where its file is gone; None: none was finished.

    Raises
    ------
    ProfileError
        When its file is there: what is measured now is another measurement.
    """
    journal = read_journal(journal_path(out))
    if journal is None or journal.finished_at is None:
        return None
    if out.exists() or journal.setting is None or not journal.subject.items() >= subject.items():
        raise ProfileError(
            f"{journal.path} is of a run that was finished at "
            f"{journal.finished_at:%Y-%m-%d %H:%M} UTC, and {out} is its profile: --fresh "
            "measures anew and moves the journal aside"
        )
    return profile_of_samples(journal.samples, journal.setting)


def journal_path(out: Path) -> Path:
    """Where the journal of a profile's file lies."""
    return out.with_name(out.name + ".journal.jsonl")


def journal_for(out: Path, subject: dict[str, str], *, fresh: bool) -> Journal:
    """The journal that belongs to a profile's file; `fresh` moves an old one aside."""
    path = journal_path(out)
    if fresh and path.exists():
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}"))
    return open_journal(path, subject, began_at=datetime.now(UTC))


def finished(journal: Journal, setting: Setting, plan: Plan, outcome: Outcome) -> Profile:
    """The profile of a run that came to its end, and with it the journal."""
    setting = _as_measured(setting, journal)
    taken = journal.samples.taken
    notes = [
        *setting.notes,
        f"measured in {outcome.spent_s:,.0f} s of at most {plan.budget_s:,.0f}, engine starts "
        f"excluded: {len({s.point for s in taken})} points, {len(taken)} samples; a full grid of "
        f"that spacing has {plan.area.exhaustive_points} points",
    ]
    if not outcome.reached:
        notes.append(
            f"the budget ended before every place of the tables was sure to {plan.target_ratio:.0%}"
        )
    setting = replace(setting, notes=tuple(notes))
    profile = profile_of_samples(journal.samples, setting)
    journal.keep_setting(setting)
    journal.finish(datetime.now(UTC))
    return profile


def _as_measured(setting: Setting, journal: Journal) -> Setting:
    """With the instant of the last sample, and what the journal notes."""
    notes = dict.fromkeys([*setting.notes, *journal.notes])
    taken = [s.measured_at for s in journal.samples.taken]
    if taken and max(taken) - min(taken) > LONG_AGO:
        notes[f"measured in several runs, the first at {min(taken):%Y-%m-%d %H:%M} UTC"] = None
    return replace(
        setting,
        notes=tuple(notes),
        measured_at=max(taken, default=setting.measured_at),
    )
