"""Sessions of browsers: a token in a cookie that no script reads, and forms that prove their page.

The cookie holds the token itself. So a session is good exactly as long as its token, at every
process that serves the same database, and nothing more has to be kept, revoked or rotated.
"""

import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256

SESSION = "poolwise_session"
"""Holds the token; HttpOnly, SameSite=Strict, sent to pages only."""
FORM = "poolwise_form"
"""Holds a random text that forms are tied to, also before anybody has logged in."""
FIELD = "form_token"
"""The field of every form that proves that one of our own pages sent it."""
LASTS_S = 12 * 3600
"""A browser that was logged in longer ago is asked for its token again, seconds."""
MOST_CHARACTERS = 512
"""Longer cookies are none of ours."""


def token_in(cookies: Mapping[str, str]) -> str:
    """The token of a session; empty: there is none."""
    token = cookies.get(SESSION, "").strip()
    return token if len(token) <= MOST_CHARACTERS else ""


def new_form_secret() -> str:
    """A text for the cookie that forms are tied to."""
    return secrets.token_urlsafe(24)


def form_token(cookies: Mapping[str, str]) -> str:
    """What a form must hold that is sent with these cookies.

    It follows from the session's token and a random cookie: a page of another origin knows
    neither, so that it cannot make a form that is taken.
    """
    told = f"poolwise form\n{cookies.get(FORM, '')}\n{token_in(cookies)}"
    return sha256(told.encode()).hexdigest()


def is_own_form(given: str, cookies: Mapping[str, str]) -> bool:
    """Whether a form was made for the browser that sends it."""
    if not cookies.get(FORM):
        return False
    return hmac.compare_digest(given.encode(), form_token(cookies).encode())


def comes_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another origin makes it send this.

    Newer ones say so in `Sec-Fetch-Site`, others in `Origin`; who says neither is no browser.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")
