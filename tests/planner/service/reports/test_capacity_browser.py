"""A capacity report in a real browser: desktop and phone, light and dark, and on paper."""

import pytest

from planner.service.reports.capacity_page import capacity_page
from tests.planner.service.reports.capacity_reports import small_report

pytestmark = pytest.mark.browser

DRAWN = "document.querySelectorAll('.plot .main-svg').length > 0"
PATIENCE_MS = 240_000


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "r.html"
    path.write_text(capacity_page(small_report()), encoding="utf-8")
    return path


def opened(chromium, path, *, width, scheme):
    """The page, drawn; what it complained of, and what it asked of others."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    return page, complaints, [url for url in asked if url != path.as_uri()]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), (1024, "light"), (768, "dark"), (375, "light"), (375, "dark")],
)
def test_the_page_draws_every_plot_and_fits_and_asks_nobody(chromium, page_file, width, scheme):
    page, complaints, asked = opened(chromium, page_file, width=width, scheme=scheme)
    plots = page.locator(".plot").count()
    assert page.locator(".plot:has(.main-svg)").count() == plots > 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (complaints, asked) == ([], [])
    page.close()


def test_on_paper_every_plot_is_as_wide_as_the_paper_and_all_is_unfolded(chromium, page_file):
    page, complaints, _ = opened(chromium, page_file, width=1280, scheme="dark")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")
    assert complaints == []
    page.close()
