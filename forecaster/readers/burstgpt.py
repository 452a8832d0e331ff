"""Rows of the BurstGPT traces.

CSV with the header `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`; later
releases add `Session ID` and `Elapsed time`. Only the time stamp (seconds from midnight of the
first day, whole ones in the releases) and the two lengths are needed. A request whose
`Response tokens` are 0 failed: it is counted apart.

References
----------
https://github.com/HPMLL/BurstGPT, schema in its README; Wang et al., arXiv 2401.17644.
"""

import re

from forecaster.readers.csv_cells import CsvCells, integer
from forecaster.readers.rows import FailedRequest, Row, check_arrival, check_tokens, shown

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
ALL_COLUMNS = (
    "Timestamp",
    "Model",
    "Request tokens",
    "Response tokens",
    "Total tokens",
    "Log Type",
)
"""Columns of the first two releases, as the writer makes them."""

_SECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")


class BurstGptRows:
    """Parses one file, by the columns of its header line.

    Raises
    ------
    ValueError
        When the header lacks a column or names one twice.
    """

    def __init__(self, header: str, class_column: str | None = None) -> None:
        self._cells = CsvCells(header, COLUMNS, class_column)

    def parse(self, text: str) -> Row | FailedRequest:
        """The request in this line; a ValueError says what is wrong with it."""
        (moment, request, response), request_class = self._cells.of(text)
        arrival_s = _arrival_s(moment)
        output_tokens = integer("Response tokens", response)
        if output_tokens == 0:
            return FailedRequest(arrival_s)
        return Row(
            arrival_s,
            check_tokens("Request tokens", integer("Request tokens", request)),
            check_tokens("Response tokens", output_tokens),
            None,
            request_class,
        )

    def arrival_s(self, text: str) -> float:
        """When the row says that it arrived, whatever else is in it; a ValueError: it does not."""
        return _arrival_s(self._cells.first(text))


def _arrival_s(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"Timestamp must be a number of seconds, got {shown(text)}")
    return check_arrival("Timestamp", float(text))
