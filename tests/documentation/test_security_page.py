"""The page on security says what the code does."""

from pathlib import Path

import pytest

from planner.service.api import recognising
from planner.service.api.rights import RIGHTS
from planner.service.dashboard.rights import PAGES
from planner.service.security.access import AccessRole
from planner.service.settings import DEFAULT_REQUESTS_PER_S

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text()


@pytest.mark.parametrize("decides", [RIGHTS, PAGES], ids=["api", "pages"])
def test_the_table_of_routes_is_the_one_that_decides(decides) -> None:
    table = "| route | least role |\n|---|---|\n" + "".join(
        f"| `{route}` | {needed.value if needed else 'none: open'} |\n"
        for route, needed in decides.items()
    )
    assert table in PAGE, f"put this table into docs/security.md:\n{table}"


def test_every_role_is_explained_and_every_limit_is_the_one_that_holds() -> None:
    assert all(f"| `{role.value}` | " in PAGE for role in AccessRole)
    assert f"| {DEFAULT_REQUESTS_PER_S}, twice as many at once" in PAGE
    assert recognising.FAILURES_AT_ONCE == 10
    assert recognising.FAILURES_PER_S * 6 == 1
