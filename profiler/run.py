"""Measure a server and make its profile: the run from the first request to the fitted tables."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import OperationError, PoolwiseError
from planner.domain.profile import Profile
from profiler.fitting.profile import Setting, marked_incomplete, profile_of_samples
from profiler.measure.journal import Journal, open_journal
from profiler.measure.probe import Probe, ReadCounters
from profiler.measure.requests import PATIENCE_S, Sender
from profiler.measure.session import Plan, Session, Tell, enough_to_fit
from profiler.measure.words import learn_words
from serving.load import LoadClient
from serving.prompts import PromptWriter

REQUEST_TIMEOUT_S = 600.0
"""A prompt of 100,000 tokens on a slow engine takes minutes."""


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


def measure(
    target: Target,
    plan: Plan,
    journal: Journal,
    *,
    tell: Tell = lambda _progress: None,
    beside: Callable[[Probe], Awaitable[None]] | None = None,
) -> bool:
    """Run a session in a loop of its own; return whether the stated error was reached.

    Parameters
    ----------
    beside : callable or None
        More to measure with the same probe, after the tables.

    Raises
    ------
    MeasurementError
    """

    async def run() -> bool:
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
            reached = await Session(
                probe=probe, journal=journal, plan=plan, tell=tell, identity=target.identity
            ).run()
            if beside is not None:
                await beside(probe)
            return reached
        finally:
            await client.close()

    return asyncio.run(run())


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
        yield
    except (OperationError, KeyboardInterrupt, SystemExit) as error:
        if enough_to_fit(journal, plan):
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            broken = marked_incomplete(setting, f"the run broke off: {why}")
            with contextlib.suppress(PoolwiseError):  # the first error is the one to tell
                keep(profile_of_samples(journal.samples, broken))
        raise


def journal_for(out: Path, subject: dict[str, str], *, fresh: bool) -> Journal:
    """The journal that belongs to a profile's file; `fresh` moves an old one aside."""
    path = out.with_name(out.name + ".journal.jsonl")
    if fresh and path.exists():
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}"))
    return open_journal(path, subject, began_at=datetime.now(UTC))


def finished(journal: Journal, setting: Setting, *, reached: bool, target_ratio: float) -> Profile:
    """The profile of a run that came to its end."""
    notes = list(dict.fromkeys([*setting.notes, *journal.notes]))
    if not reached:
        notes.append(
            f"the budget ended before every place of the tables was sure to {target_ratio:.0%}"
        )
    return profile_of_samples(journal.samples, replace(setting, notes=tuple(notes)))
