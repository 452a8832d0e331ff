"""Which shapes can run, and what is said of those that cannot."""

from dataclasses import replace

import pytest

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Dtype, Quality
from planner.domain.spec import ShapeSearch
from planner.optimize.shapes import Verdict, candidates, degrees_for, nothing_fits, shapes_of
from tests.fakes.profiles import linear_profile
from tests.planner.capacity.test_memory import LLAMA_70B, SCOUT

OFFER = Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=3.0)
H100 = Accelerator(name="h100", per_node=8, inventory=64, offers=(OFFER,), memory_bytes=80e9)
SEARCH = ShapeSearch(model="llama", roles=(Role.DECODE,), accelerators=("h100",), tp=(1, 2, 4, 8))


def looked_at(search=SEARCH, model=LLAMA_70B, accelerator=H100, measured=lambda _shape: None):
    return candidates(search, model, [accelerator], measured)


def kept(found):
    return [one.shape.label for one in found if one.is_kept]


def test_every_combination_is_a_candidate_once():
    search = replace(
        SEARCH, weight_dtypes=(None, Dtype.FP8), kv_dtypes=(None, Dtype.FP8), max_num_seqs=(64, 256)
    )
    labels = [shape.label for shape in shapes_of(search)]
    assert len(labels) == len(set(labels)) == search.count == 4 * 2 * 2 * 2
    assert "decode:h100:tp4:w-fp8:kv-fp8:seqs64" in labels


def test_what_does_not_fit_says_by_how_many_bytes():
    found = looked_at()
    assert kept(found) == ["decode:h100:tp4", "decode:h100:tp8"]
    two = found[1]
    assert two.verdict is Verdict.DOES_NOT_FIT
    assert f"{two.missing_bytes:,.0f} bytes are missing for 1,024 tokens" in two.reason


def test_a_context_that_has_to_fit_rules_smaller_shapes_out():
    search = replace(SEARCH, context_tokens=131_072, weight_dtypes=(None, Dtype.INT4))
    assert kept(looked_at(search)) == [
        "decode:h100:tp4",
        "decode:h100:tp8",
        "decode:h100:tp2:w-int4",
        "decode:h100:tp4:w-int4",
        "decode:h100:tp8:w-int4",
    ]


def test_a_million_tokens_are_refused_to_a_model_that_takes_fewer():
    search = replace(SEARCH, context_tokens=1_048_576)
    reasons = {one.reason for one in looked_at(search)}
    assert "llama takes 131,072 tokens at the most" in reasons
    longer = looked_at(replace(search, tp=(8,)), SCOUT, replace(H100, memory_bytes=141e9))
    assert [one.requests(1_048_576) for one in longer if one.is_kept] == [3]


def test_formats_below_the_least_quality_are_not_considered():
    search = replace(
        SEARCH,
        weight_dtypes=(None, Dtype.FP8, Dtype.INT4),
        weight_quality=((Dtype.FP8, Quality.NEAR), (Dtype.INT4, Quality.LOSSY)),
        kv_dtypes=(None, Dtype.FP8),
        kv_quality=((Dtype.FP8, Quality.LOSSY),),
        min_quality=Quality.NEAR,
    )
    found = looked_at(search)
    assert {one.quality for one in found if one.is_kept} == {Quality.REFERENCE, Quality.NEAR}
    worse = [one for one in found if one.shape.kv_dtype is Dtype.FP8]
    assert {one.reason for one in worse} == {"quality lossy is below min_quality near"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tp": (16,)}, "16 accelerators, but a node has 8"),
        ({"tp": (8,), "pp": (2,)}, "16 accelerators, but a node has 8"),
        ({"tp": (3,)}, "tp 3 does not divide 64 attention and 8 KV heads"),
        ({"tp": (1,), "pp": (2,)}, "vLLM issue 52913"),
    ],
)
def test_what_no_engine_runs_is_ruled_out(change, said):
    (one,) = looked_at(replace(SEARCH, **change))
    assert one.verdict is Verdict.RULED_OUT
    assert said in one.reason


def test_pipeline_stages_are_for_replicas_that_hand_nothing_over():
    search = replace(SEARCH, roles=(Role.AGGREGATED,), tp=(2,), pp=(1, 2))
    assert kept(looked_at(search)) == ["aggregated:h100:tp2:pp2"]


def test_a_measurement_overrules_the_arithmetic():
    profile = linear_profile(model="llama", accelerator="h100", kv_capacity_tokens=40_000)
    found = looked_at(measured=lambda s: profile if s.tp == 1 else None)
    assert kept(found)[0] == "decode:h100:tp1"
    assert found[0].kv_tokens == 40_000
    longer = replace(SEARCH, context_tokens=50_000)
    assert (
        "its profile holds 40,000 tokens"
        in looked_at(longer, measured=lambda _s: profile)[0].reason
    )


def test_memory_that_is_not_known_is_not_judged():
    (one,) = looked_at(replace(SEARCH, tp=(1,)), accelerator=replace(H100, memory_bytes=None))
    assert one.is_kept
    assert one.requests(1024) is None


def test_when_nothing_fits_the_closest_says_what_would():
    search = replace(SEARCH, tp=(1, 2))
    text = nothing_fits(search, LLAMA_70B, [H100], looked_at(search))
    assert text.startswith("no shape of llama fits. The closest, decode:h100:tp2: ")
    assert "bytes are missing for 1,024 tokens on each accelerator" in text
    for way in ("tp 4", "tp 8", "fp8 weights", "int4 weights"):
        assert way in text
    assert "KV cache or" not in text.partition("What would fit")[2]


def test_a_shorter_context_is_suggested_where_only_that_is_too_long():
    search = replace(SEARCH, tp=(4,), context_tokens=131_072, kv_dtypes=(None,))
    small = replace(H100, memory_bytes=50e9)
    text = nothing_fits(search, LLAMA_70B, [small], looked_at(search, accelerator=small))
    assert "a context of at most 63," in text
    assert "fp8 weights" in text


def test_when_nothing_helps_more_memory_is_said():
    one = replace(H100, memory_bytes=8e9, per_node=1)
    search = replace(SEARCH, tp=(1,), kv_dtypes=(Dtype.FP8,))
    text = nothing_fits(search, LLAMA_70B, [one], looked_at(search, accelerator=one))
    assert "more memory" in text


def test_degrees_are_powers_of_two_that_divide_the_heads():
    assert degrees_for(LLAMA_70B, 8) == (1, 2, 4, 8)
    assert degrees_for(LLAMA_70B, 6) == (1, 2, 4)
    assert degrees_for(replace(LLAMA_70B, attention_heads=28, kv_heads=4), 8) == (1, 2, 4)
    latent = replace(LLAMA_70B, attention_heads=128, kv_heads=1)
    assert degrees_for(latent, 8) == (1, 2, 4, 8)


def test_shapes_sort_whether_formats_are_stated_or_not():
    plain = ReplicaShape(role=Role.DECODE, model="m", accelerator="h100")
    stated = replace(plain, weight_dtype=Dtype.FP8, max_num_seqs=8)
    assert sorted([stated, plain]) == [plain, stated]
