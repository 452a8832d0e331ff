"""What time the API server has, by the Date of an answer (RFC 9110), in whole seconds."""

from datetime import datetime
from email.utils import parsedate_to_datetime

from kubernetes.client import ApiClient, VersionApi

from actuators.kubernetes.client import Asked, ask

_ASKED = Asked(doing="read the version of the cluster", writes=False)
_TIMEOUT_S = 10


def server_time(api: ApiClient) -> datetime | None:
    """The instant of its answer, with a time zone; None where it tells none.

    Raises
    ------
    ClusterError
        When it cannot be asked.
    """
    reader = VersionApi(api)
    _, _, headers = ask(
        lambda: reader.get_code_with_http_info(_request_timeout=_TIMEOUT_S), _ASKED, tries=1
    )
    told = headers.get("Date")
    try:
        return parsedate_to_datetime(told) if told else None
    except ValueError:
        return None
