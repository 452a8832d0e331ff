"""From a printed row to its equation and its code: the constraint function that it is named after.

The equation is the first line of the function's docstring.
"""

from planner.optimize.constraints import CONSTRAINTS, Constraint


def equation_of(row: str) -> str:
    """The equation of a row such as `meet_demand[0]`, from its function's docstring."""
    return (_function(row).__doc__ or "").partition("\n")[0].strip()


def code_of(row: str) -> str:
    """The file of a row's function, from the top of the repository."""
    return _file(_function(row))


def equations_table() -> str:
    """Every constraint, linked to its code, with its equation and what it means, in Markdown."""
    lines = ["| row | equation | |", "|---|---|---|"]
    for function in CONSTRAINTS:
        equation, _, rest = (function.__doc__ or "").partition("\n\n")
        meaning = " ".join(rest.partition("\n\n")[0].split())
        link = f"[`{function.__name__}`](../{_file(function)})"
        lines.append(f"| {link} | `{' '.join(equation.split())}` | {meaning} |")
    return "\n".join(lines)


def _function(row: str) -> Constraint:
    name = row.partition("[")[0]
    return next(c for c in CONSTRAINTS if c.__name__ == name)


def _file(function: Constraint) -> str:
    return f"{function.__module__.replace('.', '/')}.py"
