"""The `shapes` section: what it offers, what it refuses, and what every command shows of it."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from planner.domain.errors import SpecError
from planner.domain.fleet import Pool, Role, version_of
from planner.domain.model import Dtype, Quality
from planner.domain.profile import ProfileKind
from planner.service.documents import (
    fleet_document,
    fleet_from,
    plan_document,
    plan_of,
)
from planner.service.documents.replica_shape import ShapeOfReplicaDocument
from planner.service.spec.file import has_estimates, read_spec
from profiler.files import write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.examples import CONFIG, NOON, SPEC, spec_data, write_spec, write_trace
from tests.planner.service.plans import DECODE, example_fleet, example_plan
from tests.planner.service.spec.test_model_config import LLAMA_31_70B

LLAMA = {
    "apiVersion": "poolwise/v1",
    "models": [{"name": "llama", "config": LLAMA_31_70B}],
    "slos": [{"model": "llama", "ttft_s": 3, "tpot_s": 0.05, "attainment_ratio": 0.9}],
    "accelerators": [
        {"name": "h100", "per_node": 8, "inventory": 32, "usd_per_gpu_hour": {"on_demand": 3.0}}
    ],
    "shapes": [
        {
            "model": "llama",
            "weight_dtypes": ["bfloat16", "fp8", "int4"],
            "kv_dtypes": ["bfloat16", "fp8"],
            "quality": {"weights": {"fp8": "near", "int4": "lossy"}, "kv": {"fp8": "near"}},
            "min_quality": "near",
        }
    ],
    "forecast": {"window_s": 60, "horizon_windows": 1},
}


LIMITS = ("max_num_seqs", "max_num_batched_tokens", "pp")


def llama_spec(folder: Path, **shapes) -> Path:
    """The 70B spec with some fields of its search changed."""
    data = copy.deepcopy(LLAMA)
    data["shapes"][0].update(shapes)
    path = folder / "llama.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def labels(spec) -> list[str]:
    return [bounds.shape.label for bounds in spec.pools]


def refused(path: Path, **options) -> str:
    with pytest.raises(SpecError) as caught:
        read_spec(path, **options)
    return str(caught.value)


def test_what_fits_is_offered_with_labelled_estimates(tmp_path):
    spec = read_spec(llama_spec(tmp_path), allow_estimates=True)
    offered = labels(spec)
    assert "prefill:h100:tp4" in offered
    assert "decode:h100:tp2:w-fp8:kv-fp8" in offered
    assert "decode:h100:tp2" not in offered
    assert not [label for label in offered if "int4" in label]
    assert has_estimates(spec)
    for bounds in spec.pools:
        profile = spec.profile_of(bounds.shape)
        assert profile.provenance.kind is ProfileKind.ESTIMATED
        assert profile.weight_dtype == bounds.shape.weight_dtype


def test_a_search_survives_reading(tmp_path):
    (search,) = read_spec(llama_spec(tmp_path, max_num_seqs=[64]), allow_estimates=True).shapes
    assert search.roles == tuple(Role)
    assert search.tp == (1, 2, 4, 8)
    assert search.weight_dtypes == (None, Dtype.FP8, Dtype.INT4)
    assert search.kv_dtypes == (None, Dtype.FP8)
    assert search.max_num_seqs == (64,)
    assert search.min_quality is Quality.NEAR
    assert search.quality_of(replace(DECODE, weight_dtype=Dtype.INT4)) is Quality.LOSSY
    assert search.quality_of(DECODE) is Quality.REFERENCE


def test_an_estimate_with_limits_is_not_taken_for_the_shape_that_leaves_them_open(tmp_path):
    data = copy.deepcopy(LLAMA)
    narrow = {"max_num_seqs": [32], "tp": [4], "weight_dtypes": ["bfloat16"]}
    data["shapes"] = [{**data["shapes"][0], **narrow}]
    data["pools"] = [{"model": "llama", "role": "decode", "accelerator": "h100", "tp": 4}]
    path = tmp_path / "llama.yaml"
    path.write_text(yaml.safe_dump(data))
    spec = read_spec(path, allow_estimates=True)
    limits = {b.shape.label: spec.profile_of(b.shape).limits.max_num_seqs for b in spec.pools}
    assert limits["decode:h100:tp4"] == 256
    assert limits["decode:h100:tp4:seqs32"] == 32


def test_measured_shapes_are_offered_and_the_others_wait_for_a_profile(tmp_path):
    search = {"model": "tiny", "tp": [1, 2], "roles": ["prefill", "decode"]}
    spec = read_spec(write_spec(tmp_path, pools=None, shapes=[search]))
    assert labels(spec) == ["prefill:cpu:tp1", "decode:cpu:tp1"]
    assert not has_estimates(spec)


def test_a_profile_that_was_given_counts_whatever_its_kind(tmp_path):
    path = write_spec(tmp_path, pools=None, shapes=[{"model": "tiny", "tp": [1]}])
    write_profile(linear_profile(kind=ProfileKind.ESTIMATED), tmp_path / "tiny.json")
    assert labels(read_spec(path)) == [f"{role}:cpu:tp1" for role in Role]


def test_pools_keep_their_bounds_where_a_search_finds_them_too(tmp_path):
    pools = [{**SPEC["pools"][0], "max_replicas": 3}, SPEC["pools"][1]]
    spec = read_spec(write_spec(tmp_path, pools=pools, shapes=[{"model": "tiny", "tp": [1]}]))
    assert labels(spec) == ["prefill:cpu:tp1", "decode:cpu:tp1", "aggregated:cpu:tp1"]
    assert spec.pools[0].max_replicas == 3


def test_formats_of_pools_and_profiles_that_are_the_models_own_are_left_open(tmp_path):
    own = {"weight_dtype": "bfloat16", "kv_dtype": "bfloat16"}
    path = write_spec(tmp_path, pools=[{**pool, **own} for pool in SPEC["pools"]])
    stated = replace(linear_profile(), weight_dtype=Dtype.BFLOAT16, kv_dtype=Dtype.BFLOAT16)
    write_profile(stated, tmp_path / "tiny.json")
    spec = read_spec(path)
    assert labels(spec) == ["prefill:cpu:tp1", "decode:cpu:tp1"]
    assert spec.profile_of(spec.pools[0].shape) is not None


def test_a_pool_in_another_format_needs_a_profile_of_it(tmp_path):
    pools = [{**pool, "weight_dtype": "fp8"} for pool in SPEC["pools"]]
    assert "tp 1, fp8 weights, prefill; given: profile-" in refused(
        write_spec(tmp_path, pools=pools)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tp": [3]}, "tp 3 does not divide the 64 attention and 8 KV heads of llama"),
        ({"tp": [16]}, "tp 16 is more than a node has (8)"),
        ({"weight_dtypes": ["fp4"]}, "shapes[0].weight_dtypes[0]: input should be 'float32'"),
        ({"kv_dtypes": ["int8"]}, "quality does not say how good answers are with int8 kv"),
        ({"quality": {}}, "with fp8 weights: add {weights: {fp8: near}}"),
        ({"quality": {"weights": {"fp8": "fine"}}}, "'reference', 'near' or 'lossy'"),
        ({"model": "lama"}, "did you mean `llama`?"),
        ({"accelerators": ["h10"]}, "shapes[0].accelerators[0] is `h10`, unknown here"),
        ({"max_num_seqs": list(range(1, 99))}, "at most 1,000 are considered"),
        ({name: list(range(1, 2000)) for name in LIMITS}, "at most 1,000 are considered"),
        ({"tps": [1]}, "unknown field `tps` in shapes[0]"),
        (
            {"tp": [1], "weight_dtypes": ["bfloat16"]},
            "What would fit: tp 4 or tp 8 or int4 weights",
        ),
        ({"min_quality": "reference", "tp": [1]}, "no shape of llama fits"),
        ({"context_tokens": 1_048_576}, "llama takes 131,072 tokens at the most"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(tmp_path, changes, said):
    text = refused(llama_spec(tmp_path, **changes), allow_estimates=True)
    assert said in text
    assert text.startswith(str(tmp_path / "llama.yaml:"))


def test_without_profiles_both_ways_out_are_named(tmp_path):
    text = refused(llama_spec(tmp_path))
    assert "shapes[0]: none of the 30 shapes of llama that fit can be planned" in text
    assert "poolwise profile run" in text
    assert "--allow-estimates" in text


def test_an_accelerator_that_nothing_is_known_of_cannot_be_estimated(tmp_path):
    path = write_spec(tmp_path, profiles=None, pools=None, shapes=[{"model": "tiny", "tp": [1]}])
    assert "not in the catalogue" in refused(path, allow_estimates=True)


def test_a_spec_without_pools_and_shapes_cannot_serve(tmp_path):
    assert "cannot be served" in refused(write_spec(tmp_path, pools=None))


def test_memory_is_the_vendors_unless_it_is_stated(tmp_path):
    data = copy.deepcopy(LLAMA)
    path = tmp_path / "llama.yaml"
    path.write_text(yaml.safe_dump(data))
    assert read_spec(path, allow_estimates=True).accelerator("h100").memory_bytes == 80e9
    data["accelerators"][0]["memory_bytes"] = 94e9
    path.write_text(yaml.safe_dump(data))
    spec = read_spec(path, allow_estimates=True)
    assert spec.accelerator("h100").memory_bytes == 94e9
    assert "decode:h100:tp2" in labels(spec)


UNUSUAL = replace(
    DECODE,
    pp=2,
    weight_dtype=Dtype.FP8,
    kv_dtype=Dtype.FP8,
    max_num_batched_tokens=2_048,
    max_num_seqs=64,
)


def test_every_field_of_a_shape_survives_fleets_plans_and_diffs(tmp_path):
    spec = read_spec(write_spec(tmp_path))
    pools = (Pool(shape=UNUSUAL, ready=2),)
    fleet = replace(example_fleet(), pools=pools, version=version_of(pools))
    document = json.loads(fleet_document(fleet).model_dump_json())
    assert fleet_from(document, spec=spec, read_at=NOON, where="x") == fleet

    plan = example_plan()
    (window, *rest) = plan.windows
    pool = replace(window.pools[0], shape=UNUSUAL)
    plan = replace(plan, windows=(replace(window, pools=(pool, *window.pools[1:])), *rest))
    kind = type(plan_document(plan))
    assert (
        plan_of(kind.model_validate_json(plan_document(plan).model_dump_json()), where="x") == plan
    )

    step = ShapeOfReplicaDocument.of(UNUSUAL)
    assert step.shape(step.model) == UNUSUAL


def test_documents_from_before_there_were_formats_are_still_read(tmp_path):
    document = json.loads(plan_document(example_plan()).model_dump_json())
    later = ("weight_dtype", "kv_dtype", "max_num_batched_tokens", "max_num_seqs")
    for pool in document["windows"][0]["pools"]:
        for field in later:
            del pool[field]
    kind = type(plan_document(example_plan()))
    assert plan_of(kind.model_validate(document), where="x") == example_plan()


@pytest.fixture
def llama(folder):
    """The 70B spec and a trace in the folder where commands run."""
    write_trace(folder / "trace.jsonl", rate_rps=1.0)
    return llama_spec(folder, tp=[2, 4, 8])


def answer(poolwise, *options) -> dict:
    status, out, err = poolwise("shapes", "--spec", "llama.yaml", *options, "--json")
    assert status == 0, err
    return json.loads(out)


def by_label(found: dict) -> dict:
    return {one["label"]: one for one in found["shapes"]}


def test_every_candidate_is_shown_with_its_memory_and_its_verdict(poolwise, llama):
    found = answer(poolwise, "--allow-estimates")
    assert found["estimated"]
    assert len(found["shapes"]) == 3 * 3 * 3 * 2
    shapes = by_label(found)
    two, four = shapes["decode:h100:tp2"], shapes["decode:h100:tp4"]
    assert two["verdict"] == "does_not_fit"
    assert two["missing_bytes"] > 1e9
    assert four["verdict"] == "kept"
    assert four["weight_bytes"] * 4 == pytest.approx(141.1e9, rel=0.001)
    assert four["usd_per_hour"] == 12.0
    assert four["profile_kind"] == "estimated"
    assert four["longest_context_tokens"] == 131_072
    assert {c["context_tokens"]: c["requests"] for c in four["contexts"]} == {
        131_072: four["kv_tokens"] // 131_072,
        1_048_576: None,
    }
    assert shapes["decode:h100:tp8:w-int4"]["verdict"] == "ruled_out"
    assert shapes["decode:h100:tp2:w-fp8:kv-fp8"]["quality"] == "near"


def test_what_has_no_profile_is_shown_and_nothing_is_estimated_unasked(poolwise, llama):
    status, out, _ = poolwise("shapes", "--spec", "llama.yaml", "--json")
    assert status == 1
    verdicts = {one["verdict"] for one in json.loads(out)["shapes"]}
    assert verdicts == {"does_not_fit", "no_profile", "ruled_out"}


def test_a_context_is_asked_of_every_shape(poolwise, folder):
    data = copy.deepcopy(LLAMA)
    data["accelerators"][0]["memory_bytes"] = 65e9
    (folder / "llama.yaml").write_text(yaml.safe_dump(data))
    kept, still = (
        {one["label"] for one in answer(poolwise, *options)["shapes"] if one["verdict"] == "kept"}
        for options in (("--allow-estimates",), ("--allow-estimates", "--context", "131072"))
    )
    assert kept - still == {f"{role}:h100:tp2:w-fp8" for role in Role}
    assert still < kept


def test_a_trace_says_what_never_helps_and_a_plan_says_so_too(poolwise, llama):
    found = answer(poolwise, "--allow-estimates", "--trace", "trace.jsonl")
    dominated = [one for one in found["shapes"] if one["verdict"] == "dominated"]
    assert dominated
    shapes = by_label(found)
    for one in dominated:
        better = shapes[one["dominated_by"]]
        assert better["role"] == one["role"]
        assert better["accelerators"] <= one["accelerators"]
    options = ("--spec", "llama.yaml", "--trace", "trace.jsonl", "--allow-estimates", "--json")
    status, out, _ = poolwise("plan", *options)
    plan = json.loads(out)
    assert (status, plan["estimated"]) == (0, True)
    assert any("dominated by" in other["reason"] for other in plan["rejected"])
    for pool in plan["windows"][0]["pools"]:
        assert pool["weight_dtype"] in (None, "fp8")


def test_people_see_a_table_and_the_reasons(poolwise, llama):
    status, out, err = poolwise("shapes", "--spec", "llama.yaml", "--allow-estimates")
    assert status == 0
    for words in (
        "ESTIMATED profiles: rough",
        "h100:tp4:w-fp8:kv-fp8",
        "at 128K",
        "at 1M",
        "P D A",
        "bytes are missing for 1,024 tokens",
        "quality lossy is below min_quality near",
    ):
        assert words in out
    assert "--trace" in err


def test_pools_that_are_listed_are_looked_at_like_any_other(poolwise):
    status, out, _ = poolwise("shapes", "--spec", "spec.yaml", "--json")
    found = json.loads(out)
    assert status == 0
    assert [one["label"] for one in found["shapes"]] == ["prefill:cpu:tp1", "decode:cpu:tp1"]
    assert {one["weight_bytes"] for one in found["shapes"]} == {None}
    assert {one["kv_tokens"] for one in found["shapes"]} == {262_144}
    assert poolwise("shapes", "--spec", "spec.yaml")[0] == 0


def test_doubts_about_a_pool_that_is_listed_do_not_keep_it_from_plans(poolwise):
    status, out, _ = poolwise("shapes", "-s", "spec.yaml", "--context", "30000000", "--json")
    assert status == 1
    for one in json.loads(out)["shapes"]:
        assert one["reason"].endswith("listed under pools, so planned all the same")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--context", "0"), "--context 0: give 1 to"),
        (("--model", "other"), "model `other` is not in the spec"),
        (("--trace", "missing.jsonl"), "missing.jsonl"),
    ],
)
def test_bad_options_are_named(poolwise, options, said):
    status, _, err = poolwise("shapes", "--spec", "spec.yaml", *options)
    assert status == 2
    assert said in err


def test_a_model_of_a_million_tokens_is_planned_for(poolwise, folder):
    """8 layers x 2 KV heads x 64 x 2 x 2 bytes = 4,096 bytes a token: 4.3 GB for 1M tokens."""
    data = spec_data(
        models=[{"name": "tiny", "config": {**CONFIG, "max_position_embeddings": 1_048_576}}],
        accelerators=[{**SPEC["accelerators"][0], "name": "h100"}],
        profiles=None,
        pools=None,
        shapes=[{"model": "tiny", "tp": [1, 2], "context_tokens": 1_048_576}],
    )
    (folder / "long.yaml").write_text(yaml.safe_dump(data))
    status, out, _ = poolwise("shapes", "-s", "long.yaml", "--allow-estimates", "--json")
    assert status == 0
    for one in json.loads(out)["shapes"]:
        (_, million) = one["contexts"]
        assert million["requests"] == one["kv_tokens"] // 1_048_576 > 10
        assert one["longest_context_tokens"] == 1_048_576
