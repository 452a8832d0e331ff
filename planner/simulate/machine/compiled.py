"""How the machine's functions are compiled."""

import importlib
import pkgutil
import zlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
from numba.core.dispatcher import Dispatcher
from numba.core.types import Integer, Type, int64, unliteral

P = ParamSpec("P")
R = TypeVar("R")

without_compiler = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call, once.

    The loop allocates nothing, so reference counts (`_nrt`) only cost time: without them it is
    three times faster. With numpy's error model divisions are not checked for zero, which saves
    a third of the time to compile; no divisor here can be 0. Only other compiled functions call
    these, so they need no entry from Python.
    """
    decorator = numba.njit(  # type: ignore[call-overload]  # numba's stubs leave these out
        _nrt=False,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        no_rewrites=True,
    )
    return cast("Callable[P, R]", _with_plain_arguments(decorator(function)))


def compiled_into_caller(function: Callable[P, R]) -> Callable[P, R]:
    """The same for a function that is called from one place only: it becomes a part of its caller.

    What stands alone is optimized alone, and once more in every function above it; without these
    the machine compiles in four fifths of the time (`docs/accuracy.md`).
    """
    decorator = numba.njit(  # type: ignore[call-overload]  # as above
        inline="always", _nrt=False, error_model="numpy", no_rewrites=True
    )
    return cast("Callable[P, R]", decorator(function))


def _with_plain_arguments(dispatcher: Dispatcher) -> Dispatcher:
    """Take every integer argument as a 64-bit one.

    Left alone, numba compiles a function anew for each literal (`0`, `NOBODY`) and each width of
    integer that it is called with; that would be half of all compiling.
    """
    if without_compiler:
        return dispatcher
    resolve = dispatcher.get_call_template

    def get_call_template(arguments: tuple[Type, ...], keywords: dict[str, Type]) -> object:
        plain = (unliteral(a) for a in arguments)
        return resolve([int64 if isinstance(a, Integer) else a for a in plain], keywords)

    dispatcher.get_call_template = get_call_template  # type: ignore[method-assign, assignment]
    return dispatcher


def compiled_and_kept(function: Callable[P, R]) -> Callable[P, R]:
    """The same, with the machine code kept on disk; for what Python calls.

    Other threads go on meanwhile: a server answers while it simulates.

    Numba looks at the function's own file only to see whether the code is stale. A function that
    closes over `fingerprint_of_sources` is compiled again whenever any of the sources changed.
    """
    decorator = numba.njit(  # type: ignore[call-overload]  # as above
        cache=True, nogil=True, _nrt=False, error_model="numpy"
    )
    return cast("Callable[P, R]", decorator(function))


def fingerprint_of_sources() -> int:
    """A number that changes when any source file of the machine does."""
    package = "planner.simulate.machine"
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    total = zlib.crc32(pkgutil.get_data("planner.simulate", "state.py") or b"")
    for name in sorted(module.name for module in modules):
        total = zlib.crc32(pkgutil.get_data(package, f"{name}.py") or b"", total)
    return total
