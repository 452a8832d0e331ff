"""Work on many futures at once: processes of this machine, or a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from importlib.util import find_spec

from planner.domain.errors import InputError
from planner.simulate.futures import FutureRun, OrderedMap, one_by_one

MOST_JOBS = 1_024


class Backend(StrEnum):
    """Where the work is done."""

    LOKY = "loky"
    RAY = "ray"


def ordered_map(jobs: int = 1, backend: Backend = Backend.LOKY) -> OrderedMap:
    """A map over `jobs` processes; its results do not depend on how many there are.

    Parameters
    ----------
    jobs : int
        Processes at once; 0: as many as there are processors (Ray: in the cluster). One process
        of this machine is this one.
    backend : Backend
        `ray` joins the cluster that `RAY_ADDRESS` names, or starts one on this machine. Its
        workers need Poolwise installed.

    Raises
    ------
    InputError
        When `jobs` is out of range or Ray is not installed.
    """
    if not 0 <= jobs <= MOST_JOBS:
        raise InputError(f"jobs must lie between 0 (all processors) and {MOST_JOBS}, got {jobs}")
    if backend is Backend.RAY:
        _register_ray()
    elif jobs == 1:
        return one_by_one

    def spread(function: Callable[[int], FutureRun], items: Iterable[int]) -> Iterator[FutureRun]:
        from joblib import Parallel, delayed, parallel_config

        tasks = (delayed(function)(i) for i in items)
        with parallel_config(backend=backend.value, n_jobs=jobs or -1):
            # Ray's backend hands results over all at once: progress comes look by look.
            yield from Parallel(return_as="list" if backend is Backend.RAY else "generator")(tasks)

    return spread


def _register_ray() -> None:
    if find_spec("ray") is None:
        raise InputError(
            "backend ray needs Ray, which is not installed: `pip install poolwise[ray]`, or use "
            "backend loky (processes of this machine)"
        )
    from ray.util.joblib import register_ray

    register_ray()
