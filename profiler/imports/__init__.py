"""Profiles from what other programs measured or know: one module per origin.

A module turns a foreign file into `planner.domain.profile.Profile` values: units converted at the
line that reads them, rows refused with the reason, and whatever the source does not know taken
from the caller or assumed; `Provenance.notes` says all of it.
"""
