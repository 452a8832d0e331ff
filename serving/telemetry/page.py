"""One look at a target: its samples, whatever their spelling, and what they mean."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import EngineError
from serving.telemetry.histogram import Histogram
from serving.telemetry.names import SOURCES, dcgm, wanted_names
from serving.telemetry.quantities import Kind, Metric, Quantity, Series, spelled_alike
from serving.telemetry.signals import Source

_STARTED = spelled_alike("process_start_time_seconds")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its name as written, its labels and its value."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Found:
    """A value, and the metric it was read from as that page spells it."""

    value: float
    metric: str


@dataclass(frozen=True, slots=True)
class FoundHistogram:
    """A histogram, and the metric it was read from as that page spells it."""

    histogram: Histogram
    metric: str


@dataclass(frozen=True, slots=True)
class Page:
    """Samples of one target at one instant.

    Parameters
    ----------
    at_s : float
        Of the samples, seconds since 1970.
    samples : dict
        By the spelling of `spelled_alike`; values that are no number are left out.
    """

    at_s: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Iterable[Sample], *, at_s: float) -> "Page":
        """From samples of any spelling."""
        by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            if not math.isnan(sample.value) and not _is_blank(sample):
                by_name.setdefault(spelled_alike(sample.name), []).append(sample)
        return cls(at_s, by_name)

    @classmethod
    def parse(cls, text: str, *, at_s: float, source: str) -> "Page":
        """From Prometheus' text format; samples that carry their own time set the page's.

        Where a page has any series that is read, the others are not parsed: they are most of it.

        Raises
        ------
        EngineError
            When it is none, naming `source`.
        """
        samples, newest_s = [], None
        try:
            for family in text_string_to_metric_families(_wanted_lines(text) or text):
                for sample in family.samples:
                    samples.append(Sample(sample.name, sample.labels, sample.value))
                    if sample.timestamp is not None:
                        newest_s = max(newest_s or 0.0, float(sample.timestamp))
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise EngineError(
                f"{source} answers, but not with metrics in Prometheus' text format: is this the "
                "address of a /metrics page?"
            ) from error
        return cls.of(samples, at_s=at_s if newest_s is None else min(newest_s, at_s))

    @property
    def started_at_s(self) -> float | None:
        """When its process was started, where it says so; seconds since 1970."""
        found = self.samples.get(_STARTED)
        return found[0].value if found else None

    def sources(self) -> tuple[Source, ...]:
        """Whose metrics are on it."""
        return tuple(
            source
            for source, table in SOURCES.items()
            if any(name.startswith(table.prefixes) for name in self.samples)
        )

    def model(self, source: Source) -> str | None:
        """The model that it serves, where its labels tell."""
        table = SOURCES[source]
        for name, samples in self.samples.items():
            if name.startswith(table.prefixes):
                for label in table.model_labels:
                    for sample in samples:
                        if sample.labels.get(label):
                            return sample.labels[label]
        return None

    def narrowed(self, label: str, value: str) -> "Page":
        """Only the samples with this value of a label."""
        return Page.of(
            (s for own in self.samples.values() for s in own if s.labels.get(label) == value),
            at_s=self.at_s,
        )

    def of_rank(self, rank: int) -> "Page":
        """What one data-parallel rank of an engine says, and what is said of all together."""
        own = str(rank)
        return Page.of(
            (s for of in self.samples.values() for s in of if s.labels.get("engine", own) == own),
            at_s=self.at_s,
        )

    def label_values(self, source: Source, quantity: Quantity, label: str) -> tuple[str, ...]:
        """Values of a label on a quantity's samples, sorted."""
        return tuple(
            sorted(
                {
                    sample.labels[label]
                    for metric in SOURCES[source].names.get(quantity, ())
                    for series in metric.of
                    for sample in self.samples.get(series.key, ())
                    if label in sample.labels
                }
            )
        )

    def value(self, source: Source, quantity: Quantity) -> Found | None:
        """A gauge or counter of a source; None: not on the page."""
        mean = quantity.kind is Kind.RATIO
        for metric in SOURCES[source].names.get(quantity, ()):
            found = self._value(metric, mean=mean)
            if found is not None:
                return found
        return None

    def histogram(self, source: Source, quantity: Quantity) -> FoundHistogram | None:
        """A histogram of a source; None: not on the page."""
        for metric in SOURCES[source].names.get(quantity, ()):
            found = self._histogram(metric.of[0], metric.scale)
            if found is not None:
                return found
        return None

    def _value(self, metric: Metric, *, mean: bool) -> Found | None:
        parts = [x for series in metric.of if (x := self._sum(series, metric, mean=mean))]
        factors = [self._sum(series, None, mean=mean) for series in metric.times]
        divisors = [self._sum(series, None, mean=mean) for series in metric.over]
        if not parts or None in factors or None in divisors:
            return None
        value = metric.scale * sum(part.value for part in parts)
        for factor in factors:
            value *= factor.value if factor else 1.0
        if divisors:
            below = sum(divisor.value for divisor in divisors if divisor)
            if below <= 0:
                return None
            value /= below
        return Found(value, parts[0].metric)

    def _sum(self, series: Series, metric: Metric | None, *, mean: bool) -> Found | None:
        """Sum (or mean) over the samples of a series; None when the page has none of its name.

        A name that is there without the wanted labels counts nothing: exporters leave out what
        never happened.
        """
        samples = self.samples.get(series.key)
        if not samples:
            return None
        labels = metric.labels if metric else ()
        values = [
            _product(sample.labels, labels) if labels else sample.value
            for sample in samples
            if series.holds(sample.labels)
        ]
        if any(value is None for value in values):
            return None
        total = sum(value for value in values if value is not None)
        if mean:
            return Found(total / len(values), samples[0].name) if values else None
        return Found(total, samples[0].name)

    def _histogram(self, series: Series, scale: float) -> FoundHistogram | None:
        stem = series.name.replace(":", "_")  # a histogram may itself be called x_total
        buckets = self.samples.get(f"{stem}_bucket")
        counts, sums = (
            self._sum(Series(f"{stem}_{end}", series.where, series.unless), None, mean=False)
            for end in _ENDS
        )
        if not buckets or counts is None or sums is None:
            return None
        try:
            cumulative = _cumulative(buckets, series, scale)
        except (KeyError, ValueError):
            return None
        histogram = Histogram.of(cumulative, count=counts.value, total=sums.value * scale)
        return FoundHistogram(histogram, buckets[0].name.removesuffix("_bucket"))


def _is_blank(sample: Sample) -> bool:
    """Whether it only marks that a GPU does not have this value."""
    return sample.name.startswith(dcgm.PREFIXES) and sample.value >= dcgm.BLANK


_WANTED = frozenset(spelled_alike(name) for name in wanted_names()) | {_STARTED}
_NAME_ENDS = re.compile(r"[{ \t]")


def _wanted_lines(text: str) -> str:
    """The lines of series that some table reads; empty where there is none."""
    lines = [
        line
        for line in text.splitlines(keepends=True)
        if spelled_alike(_NAME_ENDS.split(line, maxsplit=1)[0]) in _WANTED
    ]
    return "".join(lines)


_ENDS = ("count", "sum")


def _cumulative(buckets: Iterable[Sample], series: Series, scale: float) -> dict[float, float]:
    """Values at or below each bucket's end, over all series that know this end."""
    by_series: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    for sample in buckets:
        if series.holds(sample.labels):
            rest = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            by_series.setdefault(rest, {})[float(sample.labels["le"]) * scale] = sample.value
    if not by_series:
        raise ValueError("no bucket is one of the series")
    common = set.intersection(*(set(ends) for ends in by_series.values()))
    return {end: sum(ends[end] for ends in by_series.values()) for end in common}


def _product(labels: Mapping[str, str], wanted: tuple[str, ...]) -> float | None:
    """Product of labels that are numbers; None when one is not."""
    try:
        return math.prod(float(labels[label]) for label in wanted)
    except (KeyError, ValueError):
        return None
