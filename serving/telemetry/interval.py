"""From two looks at a target to what it did in between: rates, quantiles, and what it holds."""

from dataclasses import dataclass

from serving.telemetry.histogram import Histogram
from serving.telemetry.legs import TwoLegs
from serving.telemetry.names import SOURCES
from serving.telemetry.page import Page
from serving.telemetry.quantities import Kind, Quantity
from serving.telemetry.signals import (
    Activity,
    HardwareSignals,
    Judged,
    Latency,
    Signal,
    Source,
    TransferSignals,
)

_CLASS = "request_class"
_SAME_START_S = 0.5
"""Start times of one process differ by rounding only."""

ONE_LOOK = "it was looked at once: rates need two looks"


@dataclass(frozen=True, slots=True)
class Interval:
    """Two looks at one target.

    Parameters
    ----------
    earlier : Page or None
        None: it was looked at once only; gauges are known, rates are not.
    """

    source: Source
    earlier: Page | None
    later: Page

    @property
    def restarted(self) -> bool:
        """Whether its process was started anew in between.

        By its start time where it tells it, else by a counter that went back.
        """
        if self.earlier is None:
            return False
        before_s, after_s = self.earlier.started_at_s, self.later.started_at_s
        if before_s is not None and after_s is not None:
            return abs(after_s - before_s) > _SAME_START_S
        return any(self._went_back(quantity) for quantity in Quantity)

    @property
    def seconds(self) -> float | None:
        """Over which rates are taken: since the restart, when there was one and its time is known.

        None with one look only.
        """
        if self.earlier is None:
            return None
        whole_s = self.later.at_s - self.earlier.at_s
        started_s = self.later.started_at_s
        if self.restarted and started_s is not None:
            since_s = self.later.at_s - started_s
            return since_s if 0 < since_s <= whole_s else whole_s
        return whole_s

    def activity(self) -> Activity:
        """Everything the two looks tell."""
        prompts, answers = (
            self._lengths(Quantity.PROMPT_TOKENS),
            self._lengths(Quantity.ANSWER_TOKENS),
        )
        usage = self.held(Quantity.KV_USAGE_RATIO)
        return Activity(
            running=self.held(Quantity.RUNNING),
            waiting=self.held(Quantity.WAITING),
            waiting_for_kv=self.held(Quantity.WAITING_FOR_KV),
            kv_usage_ratio=usage,
            kv_usage_most_ratio=usage,
            kv_capacity_tokens=self.held(Quantity.KV_CAPACITY_TOKENS),
            requests_per_s=self.rate(Quantity.REQUESTS),
            failed_per_s=self.rate(Quantity.FAILED),
            preemptions_per_s=self.rate(Quantity.PREEMPTIONS),
            input_tokens_per_s=self.rate(Quantity.INPUT_TOKENS),
            output_tokens_per_s=self.rate(Quantity.OUTPUT_TOKENS),
            computed_tokens_per_s=self.rate(Quantity.COMPUTED_TOKENS),
            cached_tokens_per_s=self.rate(Quantity.CACHED_TOKENS),
            transferred_tokens_per_s=self.rate(Quantity.TRANSFERRED_TOKENS),
            prefix_hit_ratio=self._hit_ratio(),
            external_hit_ratio=self.share(Quantity.EXTERNAL_HITS, Quantity.EXTERNAL_LOOKUPS),
            ttft=self.latency(Quantity.TTFT_S),
            itl=self.latency(Quantity.ITL_S),
            tpot=self.latency(Quantity.TPOT_S),
            e2e=self.latency(Quantity.E2E_S),
            queueing=self.latency(Quantity.QUEUEING_S),
            prefilling=self.latency(Quantity.PREFILLING_S),
            decoding=self.latency(Quantity.DECODING_S),
            step_tokens=self._mean(Quantity.STEP_TOKENS),
            isl=self._mean(Quantity.PROMPT_TOKENS),
            osl=self._mean(Quantity.ANSWER_TOKENS),
            prompt_lengths=prompts,
            answer_lengths=answers,
            judged=self._judged(),
            transfer=TransferSignals(
                latency=self.latency(Quantity.TRANSFER_S),
                transfers_per_s=self.rate(Quantity.TRANSFERS),
                bytes_per_s=self.rate(Quantity.TRANSFER_BYTES),
                failed_per_s=self.rate(Quantity.TRANSFERS_FAILED),
                expired_per_s=self.rate(Quantity.TRANSFERS_EXPIRED),
            ),
            hardware=HardwareSignals(
                accelerator_ratio=self.held(Quantity.ACCELERATOR_RATIO),
                memory_used_ratio=self.held(Quantity.MEMORY_USED_RATIO),
                memory_bandwidth_ratio=self.held(Quantity.MEMORY_BANDWIDTH_RATIO),
                tensor_ratio=self.held(Quantity.TENSOR_RATIO),
                power_w=self.held(Quantity.POWER_W),
            ),
        )

    def held(self, quantity: Quantity) -> Signal:
        """A gauge at the end of the interval."""
        found = self.later.value(self.source, quantity)
        if found is None:
            return Signal.lacking(self._why_not(quantity))
        return Signal(value=found.value, metric=found.metric)

    def rate(self, quantity: Quantity) -> Signal:
        """Growth of a counter per second."""
        return self._per_s(self._growth(quantity))

    def _per_s(self, grown: Signal) -> Signal:
        if grown.value is None:
            return grown
        seconds = self.seconds
        if seconds is None or seconds <= 0:
            return Signal.lacking("the two looks have the same time")
        return Signal(value=grown.value / seconds, metric=grown.metric)

    def share(self, part: Quantity, whole: Quantity) -> Signal:
        """Growth of one counter as a share of another's."""
        above, below = self._growth(part), self._growth(whole)
        if above.value is None or below.value is None:
            return above if above.value is None else below
        if below.value <= 0:
            return Signal.lacking("nothing was looked up in the interval")
        return Signal(value=min(above.value / below.value, 1.0), metric=above.metric)

    def latency(self, quantity: Quantity) -> Latency:
        """Quantiles of a histogram's growth."""
        grown = self._histogram(quantity)
        if isinstance(grown, str):
            lacking = Signal.lacking(grown)
            return Latency(
                p50_s=lacking, p95_s=lacking, p99_s=lacking, mean_s=lacking, count=lacking
            )
        return latency_of(grown, metric=self._metric(quantity))

    def _growth(self, quantity: Quantity) -> Signal:
        """How much a counter grew; one that came up in between grew from nothing."""
        found = self.later.value(self.source, quantity)
        if found is None:
            return Signal.lacking(self._why_not(quantity))
        if self.earlier is None:
            return Signal.lacking(ONE_LOOK)
        before = None if self.restarted else self.earlier.value(self.source, quantity)
        grown = found.value - (before.value if before else 0.0)
        if grown < 0:
            return Signal.lacking(f"{found.metric} went back, though its process did not end")
        return Signal(value=grown, metric=found.metric)

    def _histogram(self, quantity: Quantity) -> Histogram | str:
        """How much a histogram grew, or why that is not known."""
        found = self.later.histogram(self.source, quantity)
        if found is None:
            return self._why_not(quantity)
        if self.earlier is None:
            return ONE_LOOK
        before = None if self.restarted else self.earlier.histogram(self.source, quantity)
        grown = found.histogram - before.histogram if before else found.histogram
        if grown.went_back:
            return f"{found.metric} went back, though its process did not end"
        return grown

    def _metric(self, quantity: Quantity) -> str:
        found = self.later.histogram(self.source, quantity)
        return found.metric if found else ""

    def _lengths(self, quantity: Quantity) -> Histogram | None:
        grown = self._histogram(quantity)
        return None if isinstance(grown, str) else grown

    def _mean(self, quantity: Quantity) -> Signal:
        grown = self._histogram(quantity)
        if isinstance(grown, str):
            return Signal.lacking(grown)
        return mean_of(grown, metric=self._metric(quantity))

    def _judged(self) -> tuple[Judged, ...]:
        """Of every class that requests were judged in."""
        found = []
        for name in self.later.label_values(self.source, Quantity.JUDGED, _CLASS):
            earlier = self.earlier.narrowed(_CLASS, name) if self.earlier else None
            own = Interval(self.source, earlier, self.later.narrowed(_CLASS, name))
            judged, met = own._growth(Quantity.JUDGED), own._growth(Quantity.MET)
            found.append(
                Judged(
                    request_class=name,
                    judged_per_s=self._per_s(judged),
                    met_per_s=self._per_s(met),
                )
            )
        return tuple(found)

    def _hit_ratio(self) -> Signal:
        """Of the interval where hits are counted, else the source's own average."""
        if self.later.value(self.source, Quantity.HITS) is not None:
            return self.share(Quantity.HITS, Quantity.LOOKUPS)
        return self.held(Quantity.HIT_RATIO)

    def _went_back(self, quantity: Quantity) -> bool:
        if self.earlier is None:
            return False
        if quantity.kind is Kind.COUNTER:
            before = self.earlier.value(self.source, quantity)
            after = self.later.value(self.source, quantity)
            return before is not None and after is not None and after.value < before.value
        if quantity.kind is Kind.HISTOGRAM:
            old = self.earlier.histogram(self.source, quantity)
            new = self.later.histogram(self.source, quantity)
            return (
                old is not None and new is not None and (new.histogram.count < old.histogram.count)
            )
        return False

    def _why_not(self, quantity: Quantity) -> str:
        ways = SOURCES[self.source].names.get(quantity)
        if not ways:
            return f"{self.source} does not tell it"
        name = ways[0].of[0].name
        older = ", ".join(way.of[0].name for way in ways[1:3])
        return f"its page has no {name}" + (f", nor {older}" if older else "")


def latency_of(grown: Histogram | TwoLegs, *, metric: str) -> Latency:
    """Quantiles of the values in a histogram, or of the sums of two legs."""
    return Latency(
        p50_s=_quantile(grown, 0.50, metric),
        p95_s=_quantile(grown, 0.95, metric),
        p99_s=_quantile(grown, 0.99, metric),
        mean_s=mean_of(grown, metric=metric),
        count=Signal(value=grown.count, metric=metric),
        histogram=grown if isinstance(grown, Histogram) else None,
        legs=grown if isinstance(grown, TwoLegs) else None,
    )


def mean_of(grown: Histogram | TwoLegs, *, metric: str) -> Signal:
    """The mean of the values in a histogram, exact."""
    if grown.mean is None:
        return Signal.lacking(NOTHING)
    return Signal(value=grown.mean, metric=metric)


NOTHING = "nothing was observed in the interval"


def _quantile(grown: Histogram | TwoLegs, level: float, metric: str) -> Signal:
    found = grown.quantile(level)
    if found is None:
        return Signal.lacking(NOTHING)
    return Signal(value=found.value, low=found.low, high=found.high, metric=metric)
