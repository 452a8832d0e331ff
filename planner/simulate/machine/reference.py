"""The whole state behind one pointer.

Numba passes a tuple by value: thirty arrays are more than two hundred arguments of every
function, which makes compiling and calling slow. `by_reference` puts the tuple on the stack once;
functions get its address and read there what they need. The code looks the same for both:
`twin.workers` are the workers.

This extends numba the way its manual tells: a type, how it is laid out, how it is read.
https://numba.readthedocs.io/en/stable/extending/low-level.html
"""

import zlib
from collections.abc import Callable
from typing import cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.base import BaseContext
from numba.core.datamodel import models
from numba.core.datamodel.manager import DataModelManager
from numba.core.extending import infer_getattr, intrinsic, lower_getattr_generic, register_model
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import AttributeTemplate, Signature

from planner.simulate.machine.compiled import without_compiler
from planner.simulate.state import Twin


class Reference(types.Type):
    """The address of a named tuple."""

    def __init__(self, to: types.NamedTuple) -> None:
        self.to = to
        # Names of types go into the name of every function: a short one compiles faster.
        super().__init__(name=f"Reference<{zlib.crc32(to.name.encode())}>")


@register_model(Reference)
class _Layout(models.PrimitiveModel):
    def __init__(self, manager: DataModelManager, reference: Reference) -> None:
        struct = manager.lookup(reference.to).get_value_type()
        super().__init__(manager, reference, struct.as_pointer())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = Reference

    def generic_resolve(self, reference: Reference, name: str) -> types.Type:
        return reference.to.types[reference.to.fields.index(name)]


@lower_getattr_generic(Reference)
def _read(
    _context: BaseContext, builder: ir.IRBuilder, reference: Reference, at: ir.Value, name: str
) -> ir.Value:
    return builder.load(cgutils.gep_inbounds(builder, at, 0, reference.to.fields.index(name)))


@intrinsic
def _address(
    _context: TypingContext, value: types.NamedTuple
) -> tuple[Signature, Callable[..., ir.Value]]:
    def generate(
        _context: BaseContext, builder: ir.IRBuilder, _signature: Signature, args: list[ir.Value]
    ) -> ir.Value:
        return cgutils.alloca_once_value(builder, args[0])

    return Reference(value)(value), generate


def _itself(value: Twin) -> Twin:
    """For plain Python: names are references already."""
    return value


by_reference: Callable[[Twin], Twin] = (
    _itself if without_compiler else cast("Callable[[Twin], Twin]", _address)
)
