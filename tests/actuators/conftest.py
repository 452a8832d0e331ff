"""Deployments of stub engines, as in the tests of serving."""

from tests.serving.conftest import stub_site

__all__ = ["stub_site"]
