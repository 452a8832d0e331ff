"""The description of a synthetic trace, as YAML: `poolwise trace synthesize --spec`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from forecaster.pace_profiles import DailySine, HourlyFactors, Profile
from forecaster.sessions import Sessions
from forecaster.synthesize import (
    MOST_REQUESTS,
    HistogramLengths,
    Lengths,
    LognormalLengths,
    TraceDescription,
)
from planner.domain.errors import SpecError
from planner.domain.forecast import Quantiles
from planner.domain.slo import DEFAULT_CLASS
from planner.service.documents.document import Document, Instant
from planner.service.spec.problems import form_problems
from planner.service.spec.yaml_source import YamlSource, parse_yaml, read_yaml

WHAT = "a trace description"
HINT = "`poolwise trace synthesize --example` prints one"

Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Length = Annotated[float, Field(ge=1, le=1e7)]
Weight = Annotated[float, Field(ge=0, le=1e15)]
Level = Annotated[float, Field(ge=0, le=1)]
DurationSeconds = Annotated[float, Field(gt=0, le=10 * 366 * 86_400)]
Factor = Annotated[float, Field(ge=0, le=1e6)]


class LengthsPart(Document):
    """Lengths in one of three forms: two percentiles, a table of quantiles, a histogram."""

    p50: Length | None = Field(default=None, description="median, tokens (lognormal)")
    p99: Length | None = Field(default=None, description="99th percentile, tokens")
    levels: list[Level] | None = Field(default=None, min_length=2, description="increasing, 0..1")
    values: list[Length] | None = Field(
        default=None, min_length=2, description="tokens at these levels"
    )
    tokens: list[Tokens] | None = Field(default=None, min_length=1, description="increasing")
    weight: list[Weight] | None = Field(
        default=None, min_length=1, description="how often each occurs"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        self.lengths()
        return self

    def lengths(self) -> Lengths:
        """The lengths; ValueError when the form is not complete, or more than one."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given == {"p50", "p99"} and self.p50 is not None and self.p99 is not None:
            return LognormalLengths(p50=self.p50, p99=self.p99)
        if given == {"levels", "values"} and self.levels and self.values:
            return Quantiles(levels=tuple(self.levels), values=tuple(self.values))
        if given == {"tokens", "weight"} and self.tokens and self.weight:
            return HistogramLengths(tokens=tuple(self.tokens), weight=tuple(self.weight))
        raise ValueError("give p50 and p99, or levels and values, or tokens and weight")


class DailyPart(Document):
    """How the rate changes over the day, in the time zone of `start_at`."""

    hourly: list[Factor] | None = Field(
        default=None, description="24 factors from midnight on; only their ratios count"
    )
    peak_hour: float | None = Field(default=None, ge=0, le=24, description="busiest hour (sine)")
    peak_to_trough: float | None = Field(
        default=None, ge=1, le=1e6, description="busiest over quietest rate (sine)"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        self.profile()
        return self

    def profile(self) -> Profile:
        """The profile; ValueError when the form is not complete, or both are given."""
        sine = (self.peak_hour, self.peak_to_trough)
        if self.hourly is not None and sine == (None, None):
            return HourlyFactors(factors=tuple(self.hourly))
        if self.hourly is None and self.peak_hour is not None and self.peak_to_trough is not None:
            return DailySine(peak_hour=self.peak_hour, peak_to_trough=self.peak_to_trough)
        raise ValueError("give hourly, or peak_hour and peak_to_trough")


class ThinkTimePart(Document):
    """Time from one request of a session to its next (lognormal)."""

    p50: float = Field(gt=0, le=1e7, description="median, seconds")
    p99: float = Field(gt=0, le=1e7, description="99th percentile, seconds")


class SessionsPart(Document):
    """Conversations: each prompt holds the one before, its answer and new tokens."""

    turns: float = Field(ge=1, le=10_000, description="mean requests of a session (geometric)")
    growth: LengthsPart = Field(description="tokens that a turn adds besides the answer before")
    think_time_s: ThinkTimePart
    system_prompt_tokens: int = Field(
        default=0, ge=0, le=10_000_000, description="leading tokens that all sessions share"
    )
    most_input_tokens: int = Field(
        default=131_072, ge=1, le=10_000_000, description="a longer session begins anew"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self.sessions()
        return self

    def sessions(self) -> Sessions:
        """The sessions; ValueError when fields do not go together."""
        return Sessions(
            turns=self.turns,
            growth=self.growth.lengths(),
            think_time_p50_s=self.think_time_s.p50,
            think_time_p99_s=self.think_time_s.p99,
            system_prompt_tokens=self.system_prompt_tokens,
            most_input_tokens=self.most_input_tokens,
        )


class ClassPart(Document):
    """The traffic of one request class."""

    request_class: str = Field(default=DEFAULT_CLASS, min_length=1, max_length=200)
    request_rate_rps: float = Field(
        gt=0, le=1e6, description="mean requests/s; with `daily` the mean over a day"
    )
    arrival_cv: float = Field(
        default=1.0,
        ge=0,
        le=50,
        description="variation of the gaps between arrivals (with sessions: between their "
        "beginnings); 1: Poisson, 0: a fixed pace",
    )
    daily: DailyPart | None = None
    isl: LengthsPart = Field(description="prompts; with sessions the first one of each")
    osl: LengthsPart = Field(description="answers")
    length_correlation: float = Field(
        default=0.0, ge=-1, le=1, description="rank correlation of prompt and answer"
    )
    reuse_ratio: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of prompt tokens that earlier prompts had; follows from sessions",
    )
    sessions: SessionsPart | None = None


class TraceDescriptionDocument(Document):
    """A synthetic trace."""

    name: str = Field(default="synthetic", min_length=1, max_length=200)
    start_at: Instant | None = Field(default=None, description="instant of the trace's start")
    duration_s: DurationSeconds = Field(description="seconds")
    block_tokens: int = Field(
        default=512, ge=1, le=100_000, description="prefix blocks; Mooncake's files have 512"
    )
    classes: list[ClassPart] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [part.request_class for part in self.classes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"classes: request_class `{twice}` is given twice")
        expected = sum(part.request_rate_rps for part in self.classes) * self.duration_s
        if expected > MOST_REQUESTS:
            raise ValueError(
                f"about {expected:,.0f} requests are more than {MOST_REQUESTS:,}: lower "
                "duration_s or request_rate_rps"
            )
        for index, part in enumerate(self.classes):
            try:
                self._description(part)
            except ValueError as error:
                raise ValueError(f"classes[{index}]: {error}") from error
        return self

    def descriptions(self) -> tuple[TraceDescription, ...]:
        """One description for each class."""
        return tuple(self._description(part) for part in self.classes)

    def _description(self, part: ClassPart) -> TraceDescription:
        return TraceDescription(
            name=self.name,
            source="given",
            request_rate_rps=part.request_rate_rps,
            duration_s=self.duration_s,
            isl=part.isl.lengths(),
            osl=part.osl.lengths(),
            length_correlation=part.length_correlation,
            arrival_cv=part.arrival_cv,
            profile=None if part.daily is None else part.daily.profile(),
            reuse_ratio=part.reuse_ratio,
            sessions=None if part.sessions is None else part.sessions.sessions(),
            block_tokens=self.block_tokens,
            request_class=part.request_class,
        )


def read_trace_description(path: Path) -> TraceDescriptionDocument:
    """The description in a YAML file.

    Raises
    ------
    SpecError
        With a line per problem: where, which field, what is wrong.
    """
    return _checked(read_yaml(path, what=WHAT, hint=HINT))


def parse_trace_description(text: str, *, where: str) -> TraceDescriptionDocument:
    """The description in a YAML text; see `read_trace_description`."""
    return _checked(parse_yaml(text, where=where, what=WHAT))


def _checked(source: YamlSource) -> TraceDescriptionDocument:
    try:
        return TraceDescriptionDocument.model_validate(source.data)
    except ValidationError as error:
        problems = form_problems(error, source, TraceDescriptionDocument)
        raise SpecError("\n".join(problems)) from error


EXAMPLE = """\
# A synthetic trace: poolwise trace synthesize --spec this-file.yaml trace.jsonl
name: two-classes
start_at: 2026-01-05T00:00:00Z   # default: 1970-01-01; its time zone is that of the daily profile
duration_s: 86400
classes:
  - request_class: chat
    request_rate_rps: 0.5        # mean over the day
    arrival_cv: 1.5              # between sessions here; 1: Poisson, 0: a fixed pace
    daily: {peak_hour: 15, peak_to_trough: 4}      # or hourly: [24 factors]
    isl: {p50: 300, p99: 4000}   # first prompts without the system prompt, tokens
    osl: {p50: 250, p99: 1500}
    sessions:
      turns: 4                   # mean requests of a conversation
      growth: {p50: 60, p99: 800}                  # what a turn adds besides the answer before
      think_time_s: {p50: 40, p99: 600}            # from request to request
      system_prompt_tokens: 1200
      most_input_tokens: 32768   # a longer conversation begins anew
  - request_class: batch
    request_rate_rps: 0.1
    arrival_cv: 4
    isl: {levels: [0, 0.5, 0.9, 0.99, 1], values: [200, 3000, 12000, 30000, 60000]}
    osl: {tokens: [8, 16, 400], weight: [70, 20, 10]}      # a histogram
    length_correlation: 0.3      # rank correlation of prompt and answer
    reuse_ratio: 0.2             # share of prompt tokens that an unbounded prefix cache would save
"""
