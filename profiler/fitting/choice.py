"""Which form describes the measurements best, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import MeasurementError
from profiler.fitting.forms import (
    Corrected,
    Fitted,
    Floats,
    Form,
    Interpolated,
    PhysicalPrompt,
    PhysicalStep,
    Scatter,
)
from profiler.samples import Kind, Samples

PREFERENCE = 0.9
"""A later form is taken when its error is below so much of an earlier one's: the physical form
comes first, because it says why, and holds between the points."""
BOOTSTRAPS = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """The form that was chosen, fitted to all points.

    Parameters
    ----------
    form : str
    fitted : Fitted
    left_out_errors : (points,) float
        Predicted over measured, minus 1, of each point by a fit without it; NaN where the other
        points do not determine the form.
    spreads : tuple of Fitted
        Fits that leave out one point each, and the other forms: what they say of a place that was
        not measured differs by about the error there.
    """

    form: str
    fitted: Fitted
    left_out_errors: Floats
    spreads: tuple[Fitted, ...]

    def seconds(self, x: Floats, y: Floats) -> Floats:
        """(points,) predicted seconds."""
        return self.fitted.seconds(x, y)

    def doubt(self, x: Floats, y: Floats) -> Floats:
        """(points,) how far the fits are apart there, a ratio: half the range of logarithms.

        Infinite where there is no other fit: points that just determine a form do not test it.
        """
        if not self.spreads:
            return np.full(np.shape(x), np.inf)
        all_fits = np.stack([np.log(f.seconds(x, y)) for f in (self.fitted, *self.spreads)])
        return np.asarray((all_fits.max(axis=0) - all_fits.min(axis=0)) / 2)


def choose(points: Scatter, forms: Sequence[Form]) -> Choice:
    """The form with the smallest error at points left out one by one.

    Parameters
    ----------
    forms : sequence of Form
        In order of preference.

    Raises
    ------
    MeasurementError
        When there are too few points for any form.
    """
    usable = [f for f in forms if len(points) >= f.least_points]
    if not usable:
        least = min(f.least_points for f in forms)
        raise MeasurementError(
            f"{len(points)} points were measured, but a table needs at least {least}: let it "
            "measure longer (--budget-s), or less (--max-prompt, --max-batch, --max-context)"
        )
    best: tuple[Form, Floats, tuple[Fitted, ...]] | None = None
    best_error = np.inf
    for form in usable:
        errors, fits = _leave_one_out(points, form)
        known = np.abs(errors[np.isfinite(errors)])
        error = float(np.sqrt(np.mean(np.minimum(known, 1.0) ** 2))) if len(known) else np.inf
        if best is None or error < PREFERENCE * best_error:
            best, best_error = (form, errors, fits), error
    assert best is not None
    chosen, errors, fits = best
    others = tuple(f.fit(points) for f in usable if f is not chosen)
    return Choice(
        form=chosen.name,
        fitted=chosen.fit(points),
        left_out_errors=errors,
        spreads=(*fits, *others),
    )


def _leave_one_out(points: Scatter, form: Form) -> tuple[Floats, tuple[Fitted, ...]]:
    errors, fits = np.full(len(points), np.nan), []
    if len(points) <= form.least_points:
        return errors, ()
    for i in range(len(points)):
        fitted = form.fit(points.without(i))
        fits.append(fitted)
        predicted = fitted.seconds(points.x[i : i + 1], points.y[i : i + 1])[0]
        errors[i] = predicted / points.seconds[i] - 1
    return errors, tuple(fits)


def error_interval(
    errors: Floats, *, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float, float]:
    """Median and 90th percentile of absolute errors, and the median's interval by bootstrap.

    Returns
    -------
    tuple of float
        (median, p90, low, high), ratios; all NaN without any error.
    """
    size: NDArray[np.float64] = np.abs(errors[np.isfinite(errors)])
    if len(size) == 0:
        return (float("nan"),) * 4
    rng = np.random.default_rng(seed)
    drawn = np.median(rng.choice(size, size=(BOOTSTRAPS, len(size))), axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(size)), float(np.quantile(size, 0.9)), float(low), float(high)


def forms_of(kind: Kind, *, step_tokens: int) -> tuple[Form, ...]:
    """The forms that a table may take, in order of preference."""
    physical: Form = (
        PhysicalStep() if kind is Kind.DECODE else PhysicalPrompt(step_tokens=step_tokens)
    )
    return (physical, Corrected(physical=physical), Interpolated())


def fitted(samples: Samples, kind: Kind, *, step_tokens: int) -> Choice:
    """The best form of a table so far.

    Raises
    ------
    MeasurementError
        With too few points.
    """
    return choose(samples.scatter(kind), forms_of(kind, step_tokens=step_tokens))
