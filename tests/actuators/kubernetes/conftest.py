"""A spec with one accelerator, for what a stock-out does to plans."""

import pytest

from planner.domain.spec import Spec
from planner.service.spec.file import read_spec
from tests.planner.service.examples import write_spec


@pytest.fixture
def example_spec(tmp_path):
    def make(accelerator: str, inventory: int) -> Spec:
        from dataclasses import replace

        spec = read_spec(write_spec(tmp_path))
        one = replace(spec.accelerators[0], name=accelerator, inventory=inventory)
        return replace(spec, accelerators=(one,))

    return make
