"""The REST API."""

from planner.service.api.app import create_app
from planner.service.api.service import Service

__all__ = ["Service", "create_app"]
