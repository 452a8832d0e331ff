"""Tables in different units, or in another than seconds: told by what no engine does."""

from planner.domain.errors import ProfileError
from planner.domain.profile import TimeTable

SLOWEST_STEP_S = 1.0
"""Nobody serves an engine whose fastest decode step takes longer; in milliseconds nearly all do."""
FEWEST_TOKENS = 64
SLOWER_RATIO = 2.0
"""Computing a prompt at once is never so much slower than writing as many tokens one by one."""
FASTER_RATIO = 0.3
"""A prompt reads all weights once, as a decode step does: it is never so much faster."""


def check_units(prefill: TimeTable, decode_step: TimeTable, *, source: str) -> None:
    """Refuse tables whose times cannot be those of one engine in seconds.

    Raises
    ------
    ProfileError
    """
    step_s = float(decode_step.seconds.min())
    if step_s > SLOWEST_STEP_S:
        raise ProfileError(
            f"{source}: the fastest decode step takes {step_s:g} s: is it in milliseconds? "
            "Divide by 1000"
        )
    for tokens, seconds in zip(prefill.x, prefill.seconds[:, 0], strict=True):
        if tokens >= FEWEST_TOKENS and seconds > SLOWER_RATIO * tokens * step_s:
            raise ProfileError(
                f"{source}: a prompt of {tokens:g} tokens takes {seconds:g} s, longer than writing "
                f"as many tokens one by one ({step_s:g} s each): are prompts in milliseconds?"
            )
    longest_s = float(prefill.seconds.max())
    if longest_s < FASTER_RATIO * step_s:
        raise ProfileError(
            f"{source}: no prompt takes longer than {longest_s:g} s, a decode step {step_s:g} s at "
            "the least: are both in the same unit? A prompt reads the same weights as a step"
        )
