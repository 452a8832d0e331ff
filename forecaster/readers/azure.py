"""Rows of the Azure LLM inference traces, 2023 and 2024.

CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`; further columns and any order of
columns are accepted. A time stamp without zone is UTC (2023 has none, 2024 writes `+00:00`);
digits below a microsecond are cut.
"""

from datetime import UTC, datetime

from forecaster.readers.csv_cells import CsvCells, integer
from forecaster.readers.rows import Row, check_arrival, check_tokens, shown

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AzureRows:
    """Parses one file, by the columns of its header line.

    Raises
    ------
    ValueError
        When the header lacks a column or names one twice.
    """

    def __init__(self, header: str, class_column: str | None = None) -> None:
        self._cells = CsvCells(header, COLUMNS, class_column)

    def parse(self, text: str) -> Row:
        """The request in this line; a ValueError says what is wrong with it."""
        (moment, context, generated), request_class = self._cells.of(text)
        return Row(
            _arrival_s(moment),
            check_tokens("ContextTokens", integer("ContextTokens", context)),
            check_tokens("GeneratedTokens", integer("GeneratedTokens", generated)),
            None,
            request_class,
        )

    def arrival_s(self, text: str) -> float:
        """When the row says that it arrived, whatever else is in it; a ValueError: it does not."""
        return _arrival_s(self._cells.first(text))


def _arrival_s(text: str) -> float:
    return check_arrival("TIMESTAMP", _seconds(text))


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"TIMESTAMP must look like 2023-11-16 18:15:46.6805900, got {shown(text)}"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()
