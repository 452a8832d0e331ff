"""The spec: everything wrong is named with its line and what to do, all at once."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.errors import SpecError
from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.domain.profile import ProfileKind
from planner.domain.spec import LoopMode, TargetKind
from planner.service.spec.document import spec_schema
from planner.service.spec.file import has_estimates, read_spec, spec_of
from profiler.files import profile_document, write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.examples import CONFIG, SPEC, spec_data, write_spec


def refused(folder: Path, **changes) -> str:
    with pytest.raises(SpecError) as caught:
        read_spec(write_spec(folder, **changes))
    return str(caught.value)


def line_of(folder: Path, text: str) -> str:
    lines = (folder / "spec.yaml").read_text().splitlines()
    return f"spec.yaml:{next(i for i, line in enumerate(lines, 1) if text in line)}:"


def test_a_good_spec_is_read_with_its_defaults(tmp_path):
    spec = read_spec(write_spec(tmp_path))
    assert (spec.name, spec.target) == ("shop", TargetKind.DRY_RUN)
    assert spec.models[0].layers == 8
    assert spec.slos[0].ttft_s == 0.5
    assert spec.accelerators[0].offers[0].purchase_option is PurchaseOption.ON_DEMAND
    assert [b.shape.role for b in spec.pools] == [Role.PREFILL, Role.DECODE]
    assert spec.profile_of(spec.pools[0].shape) is not None
    assert spec.loop.mode is LoopMode.APPROVE
    assert spec.forecast.demand_level == 0.9


def test_a_promise_that_nothing_judges_is_refused_with_what_to_use_instead(tmp_path):
    slo = {"model": "llama-3.1-8b", "ttft_s": 1.0, "tpot_s": 0.05, "itl_p99_s": 0.005}
    said = refused(tmp_path, slos=[slo])
    assert "itl_p99_s is not judged by plan or twin" in said
    assert "tpot_s" in said


def test_profiles_may_be_trusted_as_far_as_they_say(tmp_path):
    planning = read_spec(write_spec(tmp_path, planning={"profile_error_ratio": "profile"})).planning
    assert planning.own_profile_error
    planning = read_spec(write_spec(tmp_path, planning={"profile_error_ratio": 0.2})).planning
    assert (planning.own_profile_error, planning.profile_error_ratio) == (False, 0.2)
    for wrong in ("own", -1, True):
        said = refused(tmp_path, planning={"profile_error_ratio": wrong})
        assert "give a ratio from 0 to 10, or profile" in said


def test_links_are_between_accelerators_of_the_spec(tmp_path):
    links = [{"prefill": spec_data()["accelerators"][0]["name"], "bytes_per_s": 1e9}]
    (link,) = read_spec(
        write_spec(tmp_path, planning={"transfer_links": links})
    ).planning.transfer_links
    assert (link.decode, link.bytes_per_s) == (None, 1e9)
    wrong = [{"decode": "elsewhere", "bytes_per_s": 1e9}]
    said = refused(tmp_path, planning={"transfer_links": wrong})
    assert "planning.transfer_links[0].decode is `elsewhere`" in said


def test_reserved_accelerators_are_counted_and_priced(tmp_path):
    def accelerators(**price):
        data = spec_data()["accelerators"]
        return [{**data[0], "inventory": 8, "usd_per_gpu_hour": {"on_demand": 2.0, **price}}]

    read = read_spec(
        write_spec(tmp_path, accelerators=accelerators(reserved=1.5, reserved_count=4))
    )
    offer = read.accelerators[0].offer(PurchaseOption.RESERVED)
    assert (offer.reserved_count, offer.is_prepaid) == (4, True)
    assert read.accelerators[0].offer(PurchaseOption.ON_DEMAND).reserved_count is None
    said = refused(tmp_path, accelerators=accelerators(spot_interruptions_per_hour=0.2))
    assert "spot_interruptions_per_hour needs the price of a spot one" in said
    said = refused(tmp_path, accelerators=accelerators(reserved_count=4))
    assert "give reserved, too" in said
    said = refused(tmp_path, accelerators=accelerators(reserved=1.5, reserved_count=9))
    assert "above inventory 8" in said
    said = refused(tmp_path, accelerators=accelerators(reserved=1.5, reserved_count=True))
    assert "reserved_count" in said
    assert "true and false are no numbers" in said


def test_routing_by_length_needs_buckets(tmp_path):
    by_length = {"routes_by": ["uncached_input_tokens"]}
    assert read_spec(write_spec(tmp_path, target=by_length)).routing.bucket_limits
    said = refused(tmp_path, target={**by_length, "uncached_input_buckets": []})
    assert "take uncached_input_tokens out of routes_by" in said
    said = refused(tmp_path, target={**by_length, "uncached_input_buckets": [True, 8]})
    assert "true and false are no numbers" in said


def test_every_section_is_read(tmp_path):
    spec = read_spec(
        write_spec(
            tmp_path,
            budget={"usd_per_hour": 9, "power_w": 800.5},
            target={"kind": "dry_run"},
            loop={"mode": "advise", "slow_interval_s": 30, "seed": 4},
            guards={"max_disrupted_replicas": 2, "stale_observation_s": 99},
            approval={"auto_below_replicas": 1, "expires_s": 60},
        )
    )
    assert (spec.budget.usd_per_hour, spec.budget.power_w) == (9.0, 800.5)
    assert (spec.loop.mode, spec.loop.seed) == (LoopMode.ADVISE, 4)
    assert spec.guards.max_disrupted_replicas == 2
    assert spec.approval.expires_s == 60


LAUNCH = {
    "name": "launch",
    "start_at": "2026-11-02T12:00:00Z",
    "end_at": "2026-11-02T14:00:00Z",
    "rate_ratio": 2.0,
}


def test_events_are_read_with_their_instants(tmp_path):
    of_gold = {**LAUNCH, "request_class": "gold"}
    spec = read_spec(write_spec(tmp_path, forecast={"events": [LAUNCH, of_gold]}))
    first, second = spec.forecast.events
    assert (first.name, first.rate_ratio, first.request_class) == ("launch", 2.0, None)
    assert (first.end_at - first.start_at).total_seconds() == 7200
    assert second.request_class == "gold"


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        ({"start_at": "2026-11-02T12:00:00"}, "start_at", "timezone"),
        ({"start_at": "noon"}, "start_at", "events[0].start_at"),
        ({"end_at": "2026-11-02T11:00:00Z"}, "- name: launch", "must be after start_at"),
        ({"end_at": "2926-11-02T11:00:00Z"}, "end_at", "between 1970 and 2200"),
        ({"rate_ratio": -1}, "rate_ratio", "greater than or equal to 0"),
        ({"rate_ratio": 5000}, "rate_ratio", "less than or equal to 1000"),
        ({"rate_ratio": float("nan")}, "rate_ratio", "finite number"),
        ({"rate_rato": 3}, "rate_rato", "did you mean `rate_ratio`?"),
    ],
)
def test_an_event_that_cannot_be_is_named_with_its_line(tmp_path, change, line, said):
    text = refused(tmp_path, forecast={"events": [{**LAUNCH, **change}]})
    assert said in text
    assert line_of(tmp_path, line) in text


def test_an_event_of_a_class_without_promise_is_refused(tmp_path):
    gold = {"model": "tiny", "request_class": "gold", "ttft_s": 0.5, "tpot_s": 0.05}
    event = {**LAUNCH, "request_class": "god"}
    text = refused(tmp_path, slos=[gold], forecast={"events": [event]})
    assert "forecast.events[0].request_class is `god`, unknown here" in text
    assert "did you mean `gold`?" in text
    assert line_of(tmp_path, "request_class: god") in text


def test_config_and_profiles_are_found_beside_the_spec_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.json").write_text(json.dumps(CONFIG))
    path = write_spec(tmp_path, models=[{"name": "tiny", "config": "models/config.json"}])
    monkeypatch.chdir("/")
    assert read_spec(path).models == read_spec(write_spec(tmp_path)).models


def test_the_id_follows_the_content_not_the_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = (read_spec(write_spec(tmp_path / name)) for name in "ab")
    assert a.spec_id == b.spec_id
    dearer = [{**SPEC["accelerators"][0], "usd_per_gpu_hour": {"on_demand": 2.0}}]
    assert read_spec(write_spec(tmp_path / "a", accelerators=dearer)).spec_id != b.spec_id


def test_an_objective_in_milliseconds_is_refused_with_the_line_and_the_right_value(tmp_path):
    text = refused(tmp_path, slos=[{"model": "tiny", "ttft_s": 500, "tpot_s": 0.05}])
    assert line_of(tmp_path, "ttft_s") in text
    assert "not milliseconds" in text
    assert "0.5" in text


def test_a_field_named_in_milliseconds_is_refused_once_with_the_field_to_use(tmp_path):
    text = refused(tmp_path, slos=[{"model": "tiny", "ttft_ms": 500, "tpot_s": 0.05}])
    assert line_of(tmp_path, "ttft_ms") in text
    assert "write `ttft_s` and divide the value by 1000" in text
    assert len(text.splitlines()) == 1


def test_an_unknown_field_suggests_the_nearest(tmp_path):
    accelerator = {**SPEC["accelerators"][0], "inventry": 4}
    text = refused(tmp_path, accelerators=[accelerator])
    assert "unknown field `inventry` in accelerators[0]; did you mean `inventory`?" in text
    assert line_of(tmp_path, "inventry") in text


def test_an_unknown_section_is_refused(tmp_path):
    assert "unknown field `slo`; did you mean `slos`?" in refused(tmp_path, slo=[])


def test_a_misspelt_required_field_is_one_problem(tmp_path):
    pools = [{"model": "tiny", "rol": "prefill", "accelerator": "cpu"}, SPEC["pools"][1]]
    text = refused(tmp_path, pools=pools)
    assert len(text.splitlines()) == 1
    assert "did you mean `role`?" in text


def test_several_problems_are_reported_together_in_the_order_of_lines(tmp_path):
    text = refused(
        tmp_path,
        slos=[{"model": "tny", "ttft_s": 900, "tpot_s": 0.05}],
        pools=[
            {"model": "tiny", "role": "prefill", "accelerator": "gpu"},
            {"model": "tiny", "role": "decode", "accelerator": "cpu", "tp": 16},
        ],
    )
    for part in ("ttft_s is 900", "`tny`", "did you mean `tiny`?", "`gpu`", "tp is 16"):
        assert part in text
    numbers = [int(line.split(":")[1]) for line in text.splitlines()]
    assert numbers == sorted(numbers)


def test_a_missing_profile_is_refused_with_both_ways_out(tmp_path):
    text = refused(tmp_path, profiles=[])
    assert "poolwise profile run" in text
    assert "--allow-estimates" in text
    assert "pools[0]" in text
    assert "pools[1]" in text


def test_a_profile_of_another_shape_is_named_where_it_does_not_fit(tmp_path):
    pools = [{**pool, "tp": 2} for pool in SPEC["pools"]]
    assert "given: profile-" in refused(tmp_path, pools=pools)


def test_estimates_fill_in_where_allowed_and_are_labelled(tmp_path):
    llama = {**CONFIG, "max_position_embeddings": 8192}
    path = write_spec(
        tmp_path,
        models=[{"name": "tiny", "config": llama}],
        accelerators=[{**SPEC["accelerators"][0], "name": "h100"}],
        pools=[{**pool, "accelerator": "h100"} for pool in SPEC["pools"]],
        profiles=None,
    )
    spec = read_spec(path, allow_estimates=True)
    assert has_estimates(spec)
    kinds = {spec.profile_of(b.shape).provenance.kind for b in spec.pools}
    assert kinds == {ProfileKind.ESTIMATED}
    with pytest.raises(SpecError, match="no profile"):
        read_spec(path)


def test_an_estimate_for_an_unknown_accelerator_is_refused_at_its_line(tmp_path):
    path = write_spec(tmp_path, profiles=None)
    with pytest.raises(SpecError, match=r"spec\.yaml:\d+: pools\[0\].*not in the catalogue"):
        read_spec(path, allow_estimates=True)


def test_a_profile_file_that_is_not_there_is_named_with_its_line(tmp_path):
    text = refused(tmp_path, profiles=["tiny.json", "gone.json"])
    assert line_of(tmp_path, "gone.json") in text
    assert "no such profile file" in text


def test_a_config_that_is_not_there_is_named_with_its_line(tmp_path):
    text = refused(tmp_path, models=[{"name": "tiny", "config": "gone.json"}])
    assert "gone.json does not exist" in text
    assert "spec.yaml:" in text


def test_a_mixture_of_experts_must_state_its_parameters(tmp_path):
    moe = {**CONFIG, "num_local_experts": 8}
    assert "state `parameters`" in refused(tmp_path, models=[{"name": "tiny", "config": moe}])
    stated = {"name": "tiny", "config": moe, "parameters": 47_000, "active_parameters": 13_000}
    model = read_spec(write_spec(tmp_path, models=[stated])).models[0]
    assert (model.parameters, model.active_parameters) == (47_000, 13_000)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"apiVersion": "poolwise/v2"}, "apiVersion must be poolwise/v1"),
        ({"apiVersion": None}, "apiVersion is missing"),
        ({"models": []}, "models"),
        ({"name": "My Shop"}, "name"),
        ({"pools": SPEC["pools"][:1]}, "no decode pool"),
        ({"pools": SPEC["pools"][1:]}, "no prefill pool"),
        ({"pools": [*SPEC["pools"], SPEC["pools"][0]]}, "twice"),
        ({"slos": [{"model": "tiny", "ttft_s": 0.5, "tpot_s": 0}]}, "tpot_s must be above 0"),
        (
            {"slos": [{"model": "tiny", "ttft_s": 1, "tpot_s": 1, "attainment_ratio": 95}]},
            "attainment_ratio must lie between 0 and 1",
        ),
        ({"budget": {"usd_per_hour": -1}}, "budget.usd_per_hour"),
        ({"budget": {"usd_per_hour": float("nan")}}, "budget.usd_per_hour"),
        ({"pools": [{**SPEC["pools"][0], "min_replicas": 3, "max_replicas": 2}]}, "below"),
        ({"accelerators": [{**SPEC["accelerators"][0], "usd_per_gpu_hour": {}}]}, "no price"),
        ({"accelerators": [{**SPEC["accelerators"][0], "per_node": 0}]}, "per_node"),
        ({"target": {"kind": "slurm"}}, "'dry_run', 'local', 'kubernetes' or 'metrics'"),
        ({"loop": {"mode": "yolo"}}, "loop.mode"),
        ({"forecast": {"horizon_windows": 2.5}}, "horizon_windows"),
        ({"slos": "fast please"}, "slos: input should be a list, got 'fast please'"),
        ({"slos": ["fast"]}, "slos[0]: input should be a mapping (`name: value` lines)"),
        ({"name": True}, "name: input should be text, got true"),
    ],
)
def test_impossible_values_are_refused(tmp_path, changes, said):
    assert said in refused(tmp_path, **changes)


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path):
    path = write_spec(tmp_path)
    path.write_text(path.read_text() + "name: again\n")
    with pytest.raises(SpecError, match=r"`name` is given twice \(first in line 2\)"):
        read_spec(path)


@pytest.mark.parametrize(
    "text",
    ["", "- a list", "just words", "a: [", "a: *nowhere", "{a: 1", "\ta: 1", "a: !!python/x 1"],
)
def test_what_is_no_yaml_mapping_is_refused(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"spec\.yaml"):
        read_spec(path)


def test_an_alias_bomb_is_refused_quickly(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 12):
        bomb += f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]\n"
    path = tmp_path / "spec.yaml"
    path.write_text(bomb)
    with pytest.raises(SpecError, match="values"):
        read_spec(path)


def test_a_missing_spec_says_what_to_look_at(tmp_path):
    with pytest.raises(SpecError, match=r"no such file.*validate --schema"):
        read_spec(tmp_path / "none.yaml")


def test_a_spec_from_outside_may_hold_everything_inline_but_names_no_file():
    profile = profile_document(linear_profile()).model_dump(mode="json", exclude={"profile_id"})
    spec = spec_of(spec_data(profiles=[profile]), where="spec")
    assert spec.profile_of(spec.pools[0].shape) is not None
    with pytest.raises(SpecError, match="a spec in a request may not"):
        spec_of(spec_data(), where="spec")
    with pytest.raises(SpecError, match="a spec in a request may not"):
        spec_of(
            spec_data(profiles=[profile], models=[{"name": "tiny", "config": "/etc/passwd"}]),
            where="spec",
        )


def test_the_published_schema_accepts_the_example_and_refuses_an_unknown_field():
    schema = spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(SPEC, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**SPEC, "slo": []}, schema)


def described(schema: dict) -> list[str]:
    missing = []
    for name, part in {**schema["$defs"], "spec": schema}.items():
        for field, facts in part.get("properties", {}).items():
            if "description" not in facts:
                missing.append(f"{name}.{field}")
    return missing


def test_every_field_of_the_schema_is_described():
    assert described(spec_schema()) == []


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def answer(path: Path) -> str:
    try:
        return read_spec(path).spec_id
    except SpecError as error:
        return str(error)


@given(section=st.sampled_from(sorted(SPEC)), value=junk)
@settings(max_examples=80, deadline=None)
def test_any_junk_in_a_section_is_read_or_refused_as_a_spec_error(tmp_path_factory, section, value):
    path = write_spec(tmp_path_factory.mktemp("spec"), **{section: value})
    assert answer(path).startswith(("spec-", str(path)))


def test_a_model_folder_may_stand_for_its_config(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG))
    path = write_spec(tmp_path, models=[{"name": "tiny", "config": "m"}])
    assert read_spec(path).models[0].head_size == 64


def test_specs_in_yaml_with_anchors_and_dates_are_read(tmp_path):
    write_profile(linear_profile(), tmp_path / "tiny.json")
    data = yaml.safe_dump(spec_data(pools=None), sort_keys=False)
    data += (
        "pools:\n  - &pool {model: tiny, role: prefill, accelerator: cpu}\n"
        "  - {<<: *pool, role: decode}\n"
    )
    (tmp_path / "spec.yaml").write_text(data)
    assert len(read_spec(tmp_path / "spec.yaml").pools) == 2
