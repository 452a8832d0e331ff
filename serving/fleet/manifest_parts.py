"""What several manifests have in common."""

Json = dict[str, object]


def probe(path: str, port: str, *, period_s: int, failures: int) -> Json:
    """A question by HTTP whether a container is alive or ready."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
