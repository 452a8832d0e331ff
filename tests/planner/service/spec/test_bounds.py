"""Bounds that exclude each other are told by `poolwise validate`, each with both places."""

import re

import pytest

from planner.domain.errors import SpecError
from planner.service.spec.file import read_spec
from tests.planner.service.examples import SPEC, write_spec

MODEL = {"model": "tiny", "accelerator": "cpu"}


def pools(prefill=None, decode=None):
    return {
        "pools": [
            {**MODEL, "role": "prefill", **(prefill or {})},
            {**MODEL, "role": "decode", **(decode or {})},
        ]
    }


def pins(*counts, pool="decode:cpu:tp1", field="pins"):
    listed = {field: [{"pool": pool, "replicas": n} for n in counts]}
    return {"guards": listed | ({"fallback": "static"} if field == "fallback_pools" else {})}


def cpu(**changes):
    return {"accelerators": [{**SPEC["accelerators"][0], **changes}]}


TWO_DECODES = {
    "pools": [
        {**MODEL, "role": "prefill"},
        {**MODEL, "role": "decode", "min_replicas": 1, "max_replicas": 2},
        {**MODEL, "role": "decode", "tp": 2, "min_replicas": 1, "max_replicas": 2},
    ],
}
RESERVED = {"reserved": 1.0, "reserved_count": 2}

CASES = {
    "a pool pinned twice": (
        pins(2, 3),
        "guards.pins[1] gives decode:cpu:tp1 3 replicas, but guards.pins[0] (line N) gives it 2",
    ),
    "a pool with two fallbacks": (
        pins(2, 3, field="fallback_pools"),
        "guards.fallback_pools[1] gives decode:cpu:tp1 3 replicas, but guards.fallback_pools[0]",
    ),
    "a pin above its pool": (
        pins(5) | pools(decode={"max_replicas": 4}),
        "guards.pins[0].replicas gives decode:cpu:tp1 5 replicas, but pools[1].max_replicas "
        "(line N) allows at most 4",
    ),
    "a pin below its pool": (
        pins(1) | pools(decode={"min_replicas": 2}),
        "but pools[1].min_replicas (line N) keeps at least 2",
    ),
    "a pin above the inventory": (
        pins(17),
        "which take 17 cpu, but accelerators[0].inventory (line N) has 16",
    ),
    "a pin above all accelerators": (
        {"guards": pins(5)["guards"] | {"max_accelerators": 4}},
        "which take 5 accelerators, but guards.max_accelerators (line N) allows 4",
    ),
    "pins above their role": (
        {"guards": pins(5)["guards"] | {"decode": {"max_replicas": 4}}},
        "makes 5 replicas of decode in all, but guards.decode.max_replicas (line N) allows 4",
    ),
    "pins below their role": (
        {"guards": pins(1)["guards"] | {"decode": {"min_replicas": 2}}},
        "makes 1 replica of decode in all, but guards.decode.min_replicas (line N) keeps",
    ),
    "a role above its pool": (
        {"guards": {"decode": {"min_replicas": 3}}} | pools(decode={"max_replicas": 2}),
        "guards.decode.min_replicas keeps at least 3 replicas of decode, but "
        "pools[1].max_replicas (line N) allows at most 2",
    ),
    "a role above its pools": (
        {"guards": {"decode": {"min_replicas": 5}}} | TWO_DECODES,
        "pools[1].max_replicas (line N) and the role's other pools allow 4 in all",
    ),
    "a role below its pools": (
        {"guards": {"decode": {"max_replicas": 1}}} | TWO_DECODES,
        "guards.decode.max_replicas allows at most 1 replica of decode, but "
        "pools[1].min_replicas (line N) and the role's other pools keep 2 in all",
    ),
    "a pool above the inventory": (
        pools(decode={"min_replicas": 9, "tp": 2}),
        "pools[1].min_replicas keeps at least 9 replicas, which take 18 cpu, but "
        "accelerators[0].inventory (line N) has 16",
    ),
    "pools above the inventory": (
        pools({"min_replicas": 8}, {"min_replicas": 9}),
        "which and what other pools keep take 17 cpu",
    ),
    "a pool above the reservation": (
        pools(decode={"min_replicas": 3}) | cpu(usd_per_gpu_hour=RESERVED),
        "which take 3 cpu, but accelerators[0].inventory (line N) has 2",
    ),
    "a role above the inventory": (
        {"guards": {"decode": {"min_replicas": 17}}},
        "guards.decode.min_replicas and all other minima take at least 17 accelerators, but "
        "accelerators[0].inventory (line N) and all other accelerators have 16",
    ),
    "a pool above all accelerators": (
        pools(decode={"min_replicas": 5}) | {"guards": {"max_accelerators": 4}},
        "pools[1].min_replicas and all other minima take at least 5 accelerators, but "
        "guards.max_accelerators (line N) allows 4",
    ),
    "minima above the budget": (
        pools({"min_replicas": 2}, {"min_replicas": 3}) | {"budget": {"usd_per_hour": 4.5}},
        "take at least 5 USD/h, but budget.usd_per_hour (line N) allows 4.5",
    ),
    "minima above the power": (
        pools(decode={"min_replicas": 3}) | {"budget": {"power_w": 500}} | cpu(power_w=200),
        "take at least 600 W, but budget.power_w (line N) allows 500",
    ),
    "a ratio that decode's minimum forbids": (
        pools({"max_replicas": 1}, {"min_replicas": 4})
        | {"planning": {"min_prefill_per_decode": 0.5}},
        "planning.min_prefill_per_decode asks for 0.5 prefill replicas per decode replica, but "
        "pools[1].min_replicas (line N) keeps at least 4 of decode, and prefill may have 1",
    ),
    "a ratio that prefill's minimum forbids": (
        pools({"min_replicas": 4}, {"max_replicas": 1})
        | {"planning": {"max_prefill_per_decode": 2.0}},
        "keeps at least 4 of prefill, and decode may have 1",
    ),
    "zero and a minimum": (
        pools(decode={"min_replicas": 1}) | {"guards": {"scale_to_zero": True}},
        "guards.scale_to_zero lets all roles go to zero, but pools[1].min_replicas (line N) keeps",
    ),
    "one shape and two that are kept": (
        TWO_DECODES | {"planning": {"one_shape_per_role": True}},
        "pools[2].min_replicas keeps at least 1 replica of decode, and "
        "planning.one_shape_per_role allows one shape, but pools[1].min_replicas (line N)",
    ),
    "no person and two": (
        {"approval": {"auto_below_replicas": 5, "two_persons_from_replicas": 3}},
        "approval.two_persons_from_replicas asks two persons from 3 on, but "
        "approval.auto_below_replicas (line N) asks none below 5",
    ),
}


def told(tmp_path, changes):
    path = write_spec(tmp_path, **changes)
    try:
        read_spec(path, complete=False)
    except SpecError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("case", CASES)
def test_bounds_that_exclude_each_other_are_told_with_both_places(tmp_path, case):
    changes, said = CASES[case]
    lines = told(tmp_path, changes)
    plain = [_without_numbers_of_lines(line) for line in lines]
    (found,) = [line for line in plain if said in line]
    assert found.startswith("spec.yaml:N: ")
    assert found.endswith(": change one of them")


def _without_numbers_of_lines(line):
    return re.sub(r"line \d+", "line N", re.sub(r"^.*spec\.yaml:\d+", "spec.yaml:N", line))


FITTING = {
    "pins at the bounds": pins(4) | pools(decode={"min_replicas": 4, "max_replicas": 4}),
    "roles as their pools": {"guards": {"decode": {"min_replicas": 4, "max_replicas": 2 + 2}}}
    | TWO_DECODES,
    "all of the inventory": pools({"min_replicas": 8}, {"min_replicas": 8})
    | {"guards": {"max_accelerators": 16}, "budget": {"usd_per_hour": 16.0}},
    "the ratio that minima make": pools({"max_replicas": 2}, {"min_replicas": 4})
    | {"planning": {"min_prefill_per_decode": 0.5}},
    "one person less": {"approval": {"auto_below_replicas": 3, "two_persons_from_replicas": 3}},
}


@pytest.mark.parametrize("case", FITTING)
def test_bounds_that_just_fit_are_accepted(tmp_path, case):
    assert told(tmp_path, FITTING[case]) == []
