"""From a printed row to its equation: the first line of its constraint's docstring."""

from planner.optimize.constraints import CONSTRAINTS


def equation_of(row: str) -> str:
    """The equation of a row such as `meet_demand[0]`, from its function's docstring."""
    name = row.partition("[")[0]
    function = next(c for c in CONSTRAINTS if c.__name__ == name)
    return (function.__doc__ or "").partition("\n")[0].strip()


def equations_table() -> str:
    """Every constraint with its equation, what it means and where it is, in Markdown."""
    lines = ["| row | equation | |", "|---|---|---|"]
    for function in CONSTRAINTS:
        equation, _, rest = (function.__doc__ or "").partition("\n\n")
        meaning = " ".join(rest.partition("\n\n")[0].split())
        lines.append(f"| `{function.__name__}` | `{' '.join(equation.split())}` | {meaning} |")
    return "\n".join(lines)
