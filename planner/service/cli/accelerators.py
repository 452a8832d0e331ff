"""`poolwise accelerators`: what is known of accelerators, and what they were listed for."""

from typing import TYPE_CHECKING

from planner.service.cli import output
from planner.service.cli.catalogue_option import CatalogueOption, known_accelerators
from planner.service.cli.options import JsonOption

if TYPE_CHECKING:
    from planner.domain.hardware import AcceleratorFacts

EPILOG = (
    "Examples:\n\npoolwise accelerators\n\n"
    "poolwise accelerators --catalogue ours.yaml --json\n\n"
    "What --json prints is a catalogue file, too. Specs never take a price from it."
)


def accelerators(*, catalogue: CatalogueOption = None, json: JsonOption = False) -> None:
    """List accelerators: memory, peaks without sparsity, links, power, dated list prices.

    Sources of every figure and price are in the JSON. A dash: no page was found that says it.
    """
    from planner.service.spec.catalogue import catalogue_document

    known = known_accelerators(catalogue)
    if json:
        output.print_json(catalogue_document(known))
        return
    output.print_table(
        "Accelerators: dense peaks of one, link to the others of its node in one direction",
        _COLUMNS,
        [_row(entry) for entry in known.entries],
        unbroken=_COLUMNS,
    )
    output.note(
        "USD/h: the middle of the on-demand prices that providers listed, with its day; --json "
        "names every provider and page"
    )


_COLUMNS = (
    "name", "GB", "TB/s", "BF16 TFLOP/s", "FP8 TFLOP/s", "link", "GB/s", "W", "node", "USD/h", "on",
)  # fmt: skip


def _row(entry: "AcceleratorFacts") -> list[str]:
    price = entry.typical_price()
    return [
        entry.name,
        _scaled(entry.memory_bytes, 1e9),
        _scaled(entry.memory_bandwidth_bytes_per_s, 1e12),
        _scaled(entry.bf16_flop_per_s, 1e12),
        _scaled(entry.fp8_flop_per_s, 1e12),
        "-" if entry.link is None else entry.link.value.replace("_", " "),
        _scaled(entry.link_bandwidth_bytes_per_s, 1e9),
        _scaled(entry.power_w, 1),
        "-" if entry.accelerators_per_node is None else str(entry.accelerators_per_node),
        *(("-", "-") if price is None else (f"{price.usd_per_gpu_hour:.2f}", f"{price.listed_on}")),
    ]


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:,.4g}"
