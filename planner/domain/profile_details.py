"""How a profile was measured, and what was seen beside its tables: for whoever must trust it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFit:
    """How a time table was made of measured points, and how far off it is.

    Parameters
    ----------
    form : str
        physical, corrected (a physical form times a smooth correction) or interpolated.
    coefficients : tuple of (str, float)
        Of the physical form, seconds per unit of its terms.
    points : int
        Measured points that it was fitted to.
    held_out_points : int
        Points that were used for nothing but the error.
    median_error_ratio, p90_error_ratio : float or None
        Absolute relative error at held-out points; where there are none (0), at fitted points,
        each left out once; None where the others do not determine the form.
    median_error_interval : (float, float) or None
        95 % interval of that median, by bootstrap over the points.
    noise_ratio : float
        Standard deviation of one sample over its value: what repeating a measurement changes.
    """

    form: str
    coefficients: tuple[tuple[str, float], ...] = ()
    points: int
    held_out_points: int
    median_error_ratio: float | None
    p90_error_ratio: float | None
    median_error_interval: tuple[float, float] | None
    noise_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """One start of a replica, from its command to its first token, seconds.

    Parameters
    ----------
    total_s : float
    load_s, compile_s, warm_up_s : float or None
        Reading weights; compiling; sizing the KV cache, capturing graphs and warming up. As the
        engine's log says; None where it does not. The rest is Python and its imports.
    """

    total_s: float
    load_s: float | None = None
    compile_s: float | None = None
    warm_up_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDetails:
    """What a measured profile knows beside its tables. None: not measured.

    Parameters
    ----------
    mixed_ratio : float or None
        What a prompt costs the answers that the same engine is writing, over what it takes alone.
    mixed_stall_s : float or None
        The longest gap in such an answer, mean over the measured points, seconds.
    loaded_transfer_ratio : float or None
        KV transfer while four prompts arrive at once, over an idle path's.
    direct_prefill_ratio : float or None
        Prefill through the P/D path over prefill asked directly, in time.
    prefill_tokens_per_s, decode_tokens_per_s : float or None
        At saturation: the best over prompt lengths, and with the largest batch.
    prefix_cache_hit_ratio : float or None
        Share of a repeated prompt that was found in the cache.
    kv_bytes_per_token : float or None
        As counted by transfers.
    start_cold, start_warm : StartUp or None
    drain_s : float or None
        Beyond the last answer, seconds.
    memory_bytes, power_w : float or None
        Of one replica while it was loaded; of several the most.
    samples, disturbed_samples : int
        Measurements; those set aside because the machine was not itself.
    complete : bool
        False: the run was interrupted, and this is what it had.
    facts : tuple of (str, str)
        What the engine and the machine say of themselves: version, flags, device, driver.
    """

    prefill: TableFit
    decode_step: TableFit
    mixed_ratio: float | None = None
    mixed_stall_s: float | None = None
    loaded_transfer_ratio: float | None = None
    direct_prefill_ratio: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    prefix_cache_hit_ratio: float | None = None
    kv_bytes_per_token: float | None = None
    start_cold: StartUp | None = None
    start_warm: StartUp | None = None
    drain_s: float | None = None
    memory_bytes: float | None = None
    power_w: float | None = None
    samples: int
    disturbed_samples: int
    complete: bool
    facts: tuple[tuple[str, str], ...] = ()
