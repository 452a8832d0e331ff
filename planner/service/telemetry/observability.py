"""Settings of what the service watches, logs, traces and tells: see `planner.service.settings`."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from planner.domain.errors import InputError
from planner.service.environment import number

WATCH_INTERVAL_S = 15.0
LONGEST_S = 3600.0
DEPLOYMENT = "$deployment"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Whose metrics `poolwise serve` reads.

    Parameters
    ----------
    targets : tuple of str
        `ROLE=URL`, `KIND=URL`, `gate=URL` or `hardware=URL` each; empty: the Prometheus server,
        or the deployment that runs from the state directory. `NAME/` before it says of which of
        several deployments the part is.
    interval_s : float
        Over which rates and quantiles are taken, seconds; 0: nothing is watched.
    prometheus_url : str or None
        Read through this server instead.
    prometheus_selector : str
        Which of its series, as in PromQL; `$deployment` in it stands for a deployment's name.
    """

    targets: tuple[str, ...] = ()
    interval_s: float = WATCH_INTERVAL_S
    prometheus_url: str | None = None
    prometheus_selector: str = ""

    def check_several(self) -> None:
        """Refuse, for a server of several deployments, what does not say which it is of.

        Raises
        ------
        InputError
            The load of one deployment would be taken for that of all.
        """
        for text in self.targets:
            if "/" not in text.partition("=")[0]:
                raise InputError(
                    f"POOLWISE_WATCH: of which deployment is {text}? With several, write "
                    "NAME/ROLE=URL"
                )
        if self.prometheus_url and DEPLOYMENT not in self.prometheus_selector:
            raise InputError(
                "POOLWISE_PROMETHEUS_SELECTOR: with several deployments it must say which series "
                f"are whose: put {DEPLOYMENT} where the name stands, as in "
                f'namespace="{DEPLOYMENT}"'
            )

    def of(self, deployment: str, *, alone: bool) -> "WatchSettings":
        """What concerns one deployment; nothing, where that is not said and it is not alone."""
        pairs = [(text.partition("="), text) for text in self.targets]
        own = [
            text.partition("/")[2]
            for (head, _, _), text in pairs
            if "/" in head and head.partition("/")[0] == deployment
        ]
        common = [text for (head, _, _), text in pairs if alone and "/" not in head]
        told = alone or DEPLOYMENT in self.prometheus_selector
        return replace(
            self,
            targets=(*common, *own),
            prometheus_url=self.prometheus_url if told else None,
            prometheus_selector=self.prometheus_selector.replace(DEPLOYMENT, deployment),
        )


class LogFormat(StrEnum):
    """How a line of the log is written."""

    KEY_VALUE = "key-value"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationSettings:
    """Who is told, and how.

    Parameters
    ----------
    webhook_url, slack_url : str or None
        None: nobody is told that way.
    webhook_secret : str or None
        Signs what the webhook gets.
    repeat_s : float
        The same event is not told again for so long, seconds.
    burn_ratio : float
        An error budget that is used up so many times as fast as promised is told.
    """

    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    slack_url: str | None = field(default=None, repr=False)
    repeat_s: float = 3600.0
    burn_ratio: float = 14.4


def read_watch(environ: Mapping[str, str]) -> WatchSettings:
    """What is watched; raises InputError where it is not readable."""
    watched = environ.get("POOLWISE_WATCH", "")
    try:
        targets = tuple(shlex.split(watched.replace(",", " ")))
    except ValueError as error:
        raise InputError(
            f"POOLWISE_WATCH cannot be read ({str(error).lower()}): {watched!r}; give parts as in "
            "gate=http://10.0.0.7:8766, with spaces between them"
        ) from error
    return WatchSettings(
        targets=targets,
        interval_s=number(environ, "POOLWISE_WATCH_INTERVAL_S", WATCH_INTERVAL_S, most=LONGEST_S),
        prometheus_url=environ.get("POOLWISE_PROMETHEUS_URL", "").strip() or None,
        prometheus_selector=environ.get("POOLWISE_PROMETHEUS_SELECTOR", "").strip(),
    )


def read_log_format(environ: Mapping[str, str]) -> LogFormat:
    """How lines are written; raises InputError for an unknown way."""
    given = environ.get("POOLWISE_LOG_FORMAT", "").strip() or LogFormat.KEY_VALUE
    try:
        return LogFormat(given)
    except ValueError as error:
        known = ", ".join(LogFormat)
        raise InputError(f"POOLWISE_LOG_FORMAT must be one of {known}, got {given!r}") from error


def read_notifications(environ: Mapping[str, str]) -> NotificationSettings:
    """Who is told.

    Raises
    ------
    InputError
        When an address is none, a file cannot be read, or a webhook has no secret.
    """
    webhook = _secret(environ, "POOLWISE_WEBHOOK_URL")
    slack = _secret(environ, "POOLWISE_SLACK_URL")
    secret = _secret(environ, "POOLWISE_WEBHOOK_SECRET")
    for name, url in (("POOLWISE_WEBHOOK_URL", webhook), ("POOLWISE_SLACK_URL", slack)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise InputError(f"{name} is no address: it begins with http:// or https://")
    if webhook is not None and secret is None:
        raise InputError(
            "POOLWISE_WEBHOOK_URL needs POOLWISE_WEBHOOK_SECRET (or POOLWISE_WEBHOOK_SECRET_FILE): "
            "what is sent is signed with it"
        )
    return NotificationSettings(
        webhook_url=webhook,
        webhook_secret=secret,
        slack_url=slack,
        repeat_s=number(environ, "POOLWISE_NOTIFY_REPEAT_S", 3600.0, most=7 * 86_400.0),
        burn_ratio=number(environ, "POOLWISE_NOTIFY_BURN_RATIO", 14.4, most=1e6),
    )


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    """A variable's value, or the content of the file that NAME_FILE names; never shown."""
    given, path = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
    if given and path:
        raise InputError(f"{name} and {name}_FILE are both set: set one")
    if not path:
        return given or None
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{name}_FILE {path} cannot be read: {error}") from error
    if not text:
        raise InputError(f"{name}_FILE {path} is empty")
    return text
