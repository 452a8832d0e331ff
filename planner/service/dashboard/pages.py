"""Fills templates and sends them: with the session's name, its rights and its form token."""

from collections.abc import Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

from planner.service.api.problems import Problem
from planner.service.dashboard import assets
from planner.service.dashboard.rights import OF_PAGES, PREFIX, may
from planner.service.security import sessions
from planner.service.security.access import Principal

PAGE_HEADERS = {"Referrer-Policy": "same-origin"}
"""Browsers that name no origin in a form's request name none to us either."""
SAID = {
    "approved": "Approved.",
    "rejected": "Rejected.",
    "applied": "Applied.",
    "applying": "The fleet is being moved.",
    "rolled_back": "Rolled back.",
    "rolling_back": "The fleet is being put back.",
    "planned": "A plan was made.",
    "paused": "Paused.",
    "resumed": "Resumed.",
    "mode": "The loop's mode was changed.",
    "cancelled": "Cancelled.",
}
"""What a page says after a form was sent to it; the address names one of them."""


HEADINGS = {
    403: "You may not do that",
    404: "There is nothing here",
    405: "There is nothing here",
    409: "Not as things stand",
    412: "It has changed since you looked",
    422: "That cannot be read",
    429: "Too many requests",
    500: "Something went wrong here",
    503: "Not now",
}
ADVICE = {
    403: "Nothing was changed.",
    404: "It may have been retired, or the address is wrong.",
    409: "Nothing was changed. Go back and look at how things stand now.",
    412: "Nothing was changed. Go back, load the page anew, and decide by what it says then.",
    429: "Nothing was changed. Wait a little.",
    500: "The log of the server has the whole of it.",
    503: "Nothing was changed. It recovers by itself: try again in some seconds.",
}


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of the dashboard, and of the reports for what both show alike."""
    found = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("planner.service.dashboard", "templates"),
                PackageLoader("planner.service.reports", "."),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["marked"] = marked
    found.globals["asset"] = partial(assets.address, prefix=PREFIX)
    found.globals["root"] = PREFIX
    return found


def marked(text: str) -> Markup:
    """A sentence with what stands in backticks set as code."""
    parts = [str(escape(part)) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one is left over: it stands for itself
        return escape(text)
    # Every part is escaped already.
    return Markup(  # noqa: S704
        "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))
    )


def known_principal(request: Request) -> Principal | None:
    """Who asks, where `AccessControl` has found out; None: nobody had to say."""
    found: object = getattr(request.state, "principal", None)
    return found if isinstance(found, Principal) else None


def page(
    request: Request,
    template: str,
    values: Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A page, or a part of one.

    Parameters
    ----------
    values : mapping
        Besides them a template has `me`, `may`, `form_token`, `said`.
    """
    cookies = dict(request.cookies)
    fresh = not cookies.get(sessions.FORM)
    if fresh:
        cookies[sessions.FORM] = sessions.new_form_secret()
    principal = known_principal(request)
    text = (
        environment()
        .get_template(template)
        .render(
            **values,
            me=principal,
            may=partial(may, principal),
            form_field=sessions.FIELD,
            form_token=sessions.form_token(cookies),
            said=SAID.get(request.query_params.get("said", ""), ""),
        )
    )
    response = HTMLResponse(text, status_code=status, headers={**PAGE_HEADERS, **(headers or {})})
    if fresh:
        set_cookie(request, response, sessions.FORM, cookies[sessions.FORM])
    return response


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Give a browser a cookie that goes to the dashboard only; an empty one takes it away."""
    response.set_cookie(
        name,
        value,
        max_age=sessions.LASTS_S if value else 0,
        path=PREFIX,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def see(path: str, *, said: str = "") -> Response:
    """Send the browser to another page of the dashboard, which may say what was done."""
    query = f"?said={said}" if said else ""
    return RedirectResponse(f"{PREFIX}{path}{query}", status_code=303)


def own_path(text: str) -> str:
    """The page that a login leads back to, below the prefix; `/` where it is none of ours."""
    parts = urlsplit(text)
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or text.startswith("//"):
        return "/"
    if "\\" in text or any(ord(sign) < 33 for sign in text):
        return "/"
    if OF_PAGES.right_to("GET", PREFIX + parts.path) is None:
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")


def problem_page(
    request: Request, problem: Problem, headers: Mapping[str, str] | None = None
) -> Response:
    """The page that says what went wrong and what to do.

    Who has no session is sent to log in first, and comes back afterwards.
    """
    kept = {k: v for k, v in (headers or {}).items() if k.lower() != "www-authenticate"}
    if problem.status == 401:
        return _to_log_in(request)
    return page(
        request,
        "problem.html.j2",
        {
            "problem": problem,
            "phrase": HTTPStatus(problem.status).phrase,
            "heading": HEADINGS.get(problem.status, "That did not work"),
            "advice": ADVICE.get(problem.status, "Go back and look at what was sent."),
        },
        status=problem.status,
        headers=kept,
    )


def _to_log_in(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    if request.headers.get("hx-request"):
        # A part of a page that is open for longer than its session: the page is to say so.
        return Response(status_code=401, headers={"HX-Refresh": "true"})
    if request.method != "GET":
        return RedirectResponse(f"{PREFIX}/login", status_code=303)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link in a mail or a chat: browsers keep a strict cookie back, until our own page asks.
        return page(request, "again.html.j2", {"again": request.url.path + query})
    path = request.url.path.removeprefix(PREFIX) or "/"
    ended = "&ended=1" if sessions.token_in(request.cookies) else ""
    address = f"{PREFIX}/login?next={quote(path + query, safe='/')}{ended}"
    return RedirectResponse(address, status_code=303)
