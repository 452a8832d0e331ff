"""Rows of the Azure LLM inference traces.

CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`; further columns and any order of
columns are accepted. A time stamp without zone is UTC; digits below a microsecond are cut.
"""

from datetime import UTC, datetime

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

    def __init__(self, header: str) -> None:
        names = [name.strip() for name in header.split(",")]
        for column in COLUMNS:
            if names.count(column) != 1:
                problem = "lacks" if column not in names else "repeats"
                raise ValueError(
                    f"the header {problem} the column {column}; it must hold {','.join(COLUMNS)}"
                )
        self._width = len(names)
        self._time, self._input, self._output = (names.index(column) for column in COLUMNS)

    def parse(self, text: str) -> Row:
        """The request in this line; a ValueError says what is wrong with it."""
        cells = text.split(",")
        if len(cells) != self._width:
            raise ValueError(f"{len(cells)} columns instead of {self._width}")
        return Row(
            check_arrival("TIMESTAMP", _seconds(cells[self._time].strip())),
            check_tokens("ContextTokens", _integer("ContextTokens", cells[self._input].strip())),
            check_tokens(
                "GeneratedTokens", _integer("GeneratedTokens", cells[self._output].strip())
            ),
            None,
        )


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


def _integer(column: str, text: str) -> int:
    digits = text.removeprefix("-")
    # int() alone would also take "1_000", " 7" and other scripts' digits
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40:
        raise ValueError(f"{column} must be an integer, got {shown(text)}")
    return int(text)
