"""Poolwise's own policy with the settings that make its curve."""

from dataclasses import dataclass

from benchmarks.closed_loop.settings import Setting
from benchmarks.closed_loop.workloads import START_AT
from planner.domain.guards import GuardSettings
from planner.domain.spec import ForecastSettings, LoopSettings, Spec
from planner.domain.workload import Workload
from planner.service.answers.autoscaling import OwnPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The settings of the spec that an owner would choose.

    Parameters
    ----------
    attainment_ratio : float
        What is promised.
    demand_level : float or None
        Quantile of the forecast to plan for; None: `choose_level`.
    window_s : float or None
        Of the forecast, and between slow ticks; None: half a start-up time, a minute at the most.
        A longer one would tell of a change when the help against it could have been there.
    fast_interval_s : float
    patience_s : float or None
        `guards.scale_down_stabilization_s`; None: the start-up time. What idles for so long costs
        as much as it would to start it anew, so whatever comes, at most twice the least is paid.
    """

    attainment_ratio: float = 0.99
    demand_level: float | None = 0.9
    window_s: float | None = None
    fast_interval_s: float = 5.0
    patience_s: float | None = None

    def spec(self, setting: Setting) -> Spec:
        """The deployment's spec: windows reach as far as two starts, four at the least."""
        window_s = min(60.0, setting.start_s / 2) if self.window_s is None else self.window_s
        windows = max(4, int(-(-2 * setting.start_s // window_s)))
        patience_s = setting.start_s if self.patience_s is None else self.patience_s
        return setting.spec(
            attainment_ratio=self.attainment_ratio,
            guards=GuardSettings(scale_down_stabilization_s=patience_s),
            forecast=ForecastSettings(
                window_s=window_s,
                horizon_windows=windows,
                demand_level=self.demand_level or 0.9,
                choose_level=self.demand_level is None,
            ),
            loop=LoopSettings(slow_interval_s=window_s, fast_interval_s=self.fast_interval_s),
        )


def production(
    setting: Setting, tuning: Tuning, *, warm_s: float, before: Workload | None = None
) -> OwnPolicy:
    """The policy as the service runs it."""
    return OwnPolicy(
        tuning.spec(setting), setting.pair, start_at=START_AT, warm_s=warm_s, before=before
    )
