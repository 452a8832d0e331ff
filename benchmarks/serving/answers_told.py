"""What is said of greedy answers by several ways: how many are equal, and where others part. Pure.

The first way is the reference. Asked of each way: answers equal to it, or parting from it only
where the two likeliest tokens are no further apart than where runs of one engine part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.serving.near_ties import Answer, Difference, Parting, is_within, parting, partings

LISTED = 20
"""Of what repeated runs differ in, so many prompts are listed, the clearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The prompts, with their lengths in tokens."""

    prompts: tuple[str, ...]
    input_tokens: tuple[int, ...]


@dataclass(slots=True)
class Told:
    """Answers in order of the prompts; None where there was none.

    Parameters
    ----------
    ways : dict
        By way; the first is what all are compared with.
    streamed : dict
        By way: texts of the prompts that were asked for as streams too.
    repeats : list
        Runs of one engine.
    """

    ways: dict[str, list[Answer | None]] = field(default_factory=dict)
    streamed: dict[str, list[str | None]] = field(default_factory=dict)
    repeats: list[list[Answer | None]] = field(default_factory=list)


def told(found: Told, asked: Asked) -> list[str]:
    """Lines of Markdown: each way, each difference of one, and what runs of one engine do."""
    reference = next(iter(found.ways.values()))
    by_way = {way: parting(reference, answers) for way, answers in found.ways.items()}
    among_runs = partings(found.repeats)
    noise_gap = max((run.largest_gap for run in among_runs), default=0.0)
    return [
        *_ways(found, by_way, noise_gap),
        "",
        *_differences(by_way, among_runs, asked),
        "",
        *_runs(among_runs, noise_gap, asked),
    ]


def _ways(found: Told, by_way: dict[str, Parting], noise_gap: float) -> Iterator[str]:
    yield (
        "| way | answered by both | equal | streams equal | largest gap where they part | equal, "
        f"or parting at most at {noise_gap:.4f} as runs of one engine do |"
    )
    yield "|---|---|---|---|---|---|"
    streams = next(iter(found.streamed.values()), [])
    for way, parted in by_way.items():
        texts = found.streamed.get(way)
        same = "-" if texts is None else f"{_equal(streams, texts)} of {len(texts)}"
        met = "yes" if is_within(parted, noise_gap) else "NO"
        counts = f"{parted.compared} of {parted.asked} | {parted.equal}"
        yield f"| {way} | {counts} | {same} | {parted.largest_gap:.4f} | {met} |"


def _equal(some: list[str | None], others: list[str | None]) -> int:
    return sum(a == b and a is not None for a, b in zip(some, others, strict=True))


def _differences(
    by_way: dict[str, Parting], among_runs: tuple[Parting, ...], asked: Asked
) -> Iterator[str]:
    """Every answer by a way that differs."""
    if not any(parted.differences for parted in by_way.values()):
        yield "No way differs."
        return
    yield (
        "| way | prompt | input tokens | first differing token of the answer (from 0) | gap of "
        "the two likeliest there, reference | by this way | the same prompt in runs of one engine |"
    )
    yield "|---|---|---|---|---|---|---|"
    for way, parted in by_way.items():
        for one in parted.differences:
            again = [same for run in among_runs if (same := run.of(one.prompt)) is not None]
            clearest = max(again, key=lambda same: same.clearest, default=None)
            yield f"| {way} | {_cells(one, asked)} | {_of_runs(clearest)} |"


def _runs(among_runs: tuple[Parting, ...], noise_gap: float, asked: Asked) -> Iterator[str]:
    """What runs of one engine differ in."""
    apart: dict[int, Difference] = {}
    for run in among_runs:
        for one in run.differences:
            if one.prompt not in apart or one.clearest > apart[one.prompt].clearest:
                apart[one.prompt] = one
    yield (
        f"Runs of one engine, every two of them: {len(apart)} prompts are not always answered "
        f"alike, with a gap of at most {noise_gap:.4f} where they part."
    )
    if apart:
        yield ""
        yield (
            f"| prompt (the {min(LISTED, len(apart))} clearest) | input tokens | first differing "
            "token | gap, one run | the other |"
        )
        yield "|---|---|---|---|---|"
    for one in sorted(apart.values(), key=lambda one: -one.clearest)[:LISTED]:
        yield f"| {_cells(one, asked)} |"


def _cells(one: Difference, asked: Asked) -> str:
    gaps = f"{_gap(one.reference_gap)} | {_gap(one.gap)}"
    return f"{one.prompt} | {asked.input_tokens[one.prompt]} | {one.position} | {gaps}"


def _of_runs(one: Difference | None) -> str:
    return "always equal" if one is None else f"part at {one.position}, gap {one.clearest:.4f}"


def _gap(gap: float | None) -> str:
    return "ended" if gap is None else f"{gap:.4f}"
