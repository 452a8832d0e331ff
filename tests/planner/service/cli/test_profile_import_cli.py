"""`poolwise profile import` and `export`: every origin, what is said, what is refused."""

import json

import numpy as np
import pytest

from profiler.files import read_profile
from tests.planner.service.examples import CONFIG, write_spec
from tests.profiler.imports.examples import (
    DISTSERVE,
    DISTSERVE_KV,
    aiperf_summary,
    guidellm_benchmark,
    guidellm_report,
    prompt_s,
    splitwise_row,
    step_s,
    vllm_result,
    write_dynamo,
    write_json,
    write_splitwise,
)

PREFILL = "new_tokens,cached_tokens,seconds\n128,0,0.02\n4096,0,0.4\n"
DECODE = "sequences,context_tokens,seconds\n1,512,0.01\n64,512,0.03\n"
SPLITWISE = (
    "--from splitwise perf_model.csv --model llama2-70b --accelerator a100-80gb --tp 8 --out p.json"
)
ORIGINS = {
    "vllm-bench": "--from vllm-bench bench --accelerator h100",
    "guidellm": "--from guidellm benchmarks.json --accelerator h100",
    "aiperf": "--from aiperf artifacts --accelerator h100",
    "dynamo": "--from dynamo dynamo --model tiny --accelerator h100 --tp 2",
    "splitwise": SPLITWISE.removesuffix(" --out p.json"),
    "distserve": "--from distserve fits.json --model facebook/opt-13b --tp 2",
    "csv": "--from csv decode.csv prefill.csv --model tiny --accelerator h100",
}


@pytest.fixture
def sources(folder):
    """One source of every origin in the folder, and a config."""
    for n in (1, 8, 32):
        write_json(folder / "bench" / f"c{n}.json", vllm_result(concurrency=n))
        summary = aiperf_summary(concurrency=n)
        write_json(folder / "artifacts" / f"c{n}" / "profile_export_aiperf.json", summary)
    benchmarks = [guidellm_benchmark(streams=n) for n in (1, 8, 32)]
    write_json(folder / "benchmarks.json", guidellm_report(*benchmarks))
    write_dynamo(folder / "dynamo")
    rows = [splitwise_row(prompt=n) for n in (128, 512, 4096)]
    rows += [splitwise_row(batch=n) for n in (2, 64)]
    write_splitwise(folder / "perf_model.csv", *rows)
    write_json(folder / "fits.json", DISTSERVE)
    (folder / "max_num_tokens.csv").write_text(DISTSERVE_KV)
    (folder / "prefill.csv").write_text(PREFILL)
    (folder / "decode.csv").write_text(DECODE)
    write_json(folder / "config.json", CONFIG)
    return folder


def imported(poolwise, words):
    status, out, err = poolwise("profile", "import", *words.split())
    assert (status, out) == (0, ""), err
    return err


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_origin_makes_a_profile_that_is_read_back(poolwise, sources, origin):
    said = imported(poolwise, f"{ORIGINS[origin]} --out p.json")
    profile = read_profile(sources / "p.json")
    assert profile.provenance.kind == "imported"
    assert said.startswith(f"profile {profile.profile_id} from {origin}: p.json, IMPORTED ")
    assert all(f"  - {note}" in said for note in profile.provenance.notes)
    status, out, _ = poolwise("profile", "show", "p.json")
    assert status == 0
    assert "imported" in out


def test_options_and_the_config_replace_assumptions(poolwise, sources):
    said = imported(
        poolwise,
        f"{ORIGINS['vllm-bench']} --config config.json --kv-capacity-tokens 90000 --role decode "
        "--name chat --start-up-s 20 --transfer-gb-per-s 5 --max-num-seqs 16 --out p.json",
    )
    profile = read_profile(sources / "p.json")
    assert (profile.model, profile.roles) == ("chat", ("decode",))
    assert profile.limits.kv_capacity_tokens == 90_000
    assert profile.limits.kv_bytes_per_token == 2 * 8 * 2 * 64 * 2
    assert profile.limits.max_num_seqs == 16
    assert profile.lifecycle.start_cold_s == 20
    assert profile.transfer.bandwidth_bytes_per_s == 5e9
    assert "KV cache of" not in said


def test_a_known_accelerator_and_the_config_give_the_kv_cache(poolwise, sources):
    said = imported(poolwise, f"{ORIGINS['guidellm']} --config config.json --out p.json")
    assert "tokens, by arithmetic" in said


def test_json_prints_the_profile_and_nothing_else(poolwise, sources):
    status, out, err = poolwise("profile", "import", *SPLITWISE.split(), "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document == json.loads((sources / "p.json").read_text())
    assert document["prefill"]["seconds"][1][0] == pytest.approx(prompt_s(512))
    assert document["decode_step"]["seconds"][-1][0] == pytest.approx(step_s(64))


def test_a_plan_is_made_with_an_imported_profile(poolwise, sources):
    imported(poolwise, f"{ORIGINS['csv']} --kv-capacity-tokens 100000 --out tiny.json")
    profile = (sources / "tiny.json").read_text()
    slos = [{"model": "tiny", "ttft_s": 2, "tpot_s": 0.1, "attainment_ratio": 0.9}]
    pools = [
        {"model": "tiny", "role": role, "accelerator": "h100"} for role in ("prefill", "decode")
    ]
    prices = {"on_demand": 1.0}
    accelerators = [{"name": "h100", "per_node": 8, "inventory": 16, "usd_per_gpu_hour": prices}]
    write_spec(sources, slos=slos, pools=pools, accelerators=accelerators)
    (sources / "tiny.json").write_text(profile)
    status, out, err = poolwise("plan", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    assert status == 0, err
    plan = json.loads(out)
    assert plan["status"] in ("optimal", "feasible")
    assert {p["role"] for p in plan["windows"][0]["pools"]} == {"prefill", "decode"}


BAD = [
    ("--from csv prefill.csv decode.csv --model m --out p.json", "--accelerator: give its name"),
    ("--from csv prefill.csv decode.csv --accelerator a --out p.json", "--model: name the model"),
    ("--from csv prefill.csv --model m --accelerator a --out p.json", "no table with columns seq"),
    ("--from vllm-bench --accelerator a --out p.json", "needs the result files"),
    ("--from vllm-bench bench/c32.json --accelerator a --out p.json", "no run without load"),
    ("--from vllm-bench benchmarks.json --accelerator a --out p.json", "no completed"),
    ("--from guidellm bench/c1.json --accelerator a --out p.json", "metadata: is missing"),
    ("--from aiperf bench/c1.json --accelerator a --out p.json", "schema_version: None"),
    ("--from guidellm benchmarks.json --model x --accelerator a --out p.json", "source is of tiny"),
    ("--from dynamo bench --model m --accelerator a --out p.json", "neither selected_prefill"),
    ("--from dynamo --model m --accelerator a --out p.json", "takes one file or folder, 0"),
    ("--from distserve perf_model.csv --model m --out p.json", "perf_model.csv:1: not JSON"),
    ("--from distserve fits.json --model m --out p.json", "no fit of m"),
    (SPLITWISE.replace("--tp 8", "--tp 4"), "nothing of llama2-70b on a100-80gb, tp 4"),
    (SPLITWISE.replace("a100-80gb", "h100-80gb-pcap"), "was scaled from h100-80gb, not measured"),
    (SPLITWISE.replace("perf_model", "gone"), "gone.csv: no such file"),
    (SPLITWISE.replace("p.json", "perf_model.csv"), "is given for something else"),
    (SPLITWISE.replace("p.json", "bench"), "is a folder; name a file"),
    (SPLITWISE + " --kv-bytes-per-token nan", "kv_bytes_per_token must be finite"),
    (SPLITWISE + " --memory-gb -80", "memory_bytes must be finite and above 0"),
    (SPLITWISE + " --start-up-s inf", "start_up_s must be finite"),
    (SPLITWISE + " --config prefill.csv", "--config prefill.csv"),
    ("--from csv prefill.csv decode.csv --system x --out p.json", "--system: csv has no machines"),
    ("--from aiconfigurator f.json --model m --accelerator h100 --out p.json", "FILE: not for"),
]


@pytest.mark.parametrize(("words", "said"), BAD)
def test_bad_input_is_one_message_exit_2_and_no_file(poolwise, sources, words, said):
    before = (sources / "perf_model.csv").read_text()
    status, out, err = poolwise("profile", "import", *words.split())
    assert (status, out) == (2, "")
    assert err.startswith("poolwise: ")
    assert said in err
    assert not (sources / "p.json").exists()
    assert (sources / "perf_model.csv").read_text() == before
    assert not list(sources.glob(".*"))


def test_an_unknown_origin_is_told_what_there_is(poolwise, sources):
    status, _, err = poolwise("profile", "import", "--from", "tensorrt", "--out", "p.json")
    assert status == 2
    assert "splitwise" in err


def test_a_mixture_of_experts_without_counted_parameters_is_told_the_way_out(poolwise, sources):
    write_json(sources / "moe.json", CONFIG | {"num_experts": 8})
    words = f"{ORIGINS['vllm-bench']} --config moe.json --out p.json"
    status, _, err = poolwise("profile", "import", *words.split())
    assert status == 2
    assert "leave it out and give --kv-bytes-per-token" in err


def test_a_profile_goes_to_dynamo_and_comes_back(poolwise, sources):
    imported(poolwise, f"{ORIGINS['dynamo']} --out p.json")
    status, out, err = poolwise(
        "profile", "export", "p.json", "--to", "dynamo", "--out", "new", "--json"
    )
    assert (status, err) == (0, "")
    written = json.loads(out)
    assert written["files"] == [
        f"new/selected_{role}_interpolation/raw_data.npz" for role in ("prefill", "decode")
    ]
    assert written["target"] == "dynamo"
    imported(
        poolwise, f"{ORIGINS['dynamo'].replace(' dynamo --model', ' new --model')} --out q.json"
    )
    first, second = read_profile(sources / "p.json"), read_profile(sources / "q.json")
    # Three lengths are too few for Dynamo's planner: others lie between them.
    again = second.prefill.at(first.prefill.x, 0.0)
    assert again == pytest.approx(first.prefill.seconds[:, 0])
    assert second.decode_step.x == pytest.approx(first.decode_step.x)
    fits = np.outer(first.decode_step.x, first.decode_step.y) <= 24_000
    assert second.decode_step.seconds[fits] == pytest.approx(first.decode_step.seconds[fits])


def test_an_export_replaces_nothing_unasked(poolwise, sources):
    command = ["profile", "export", "tiny.json", "--to", "dynamo", "--out", "dynamo"]
    before = (sources / "dynamo/selected_prefill_interpolation/raw_data.npz").read_bytes()
    status, _, err = poolwise(*command)
    assert status == 2
    assert "exists; replace it with --force" in err
    assert (sources / "dynamo/selected_prefill_interpolation/raw_data.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gone.json --to dynamo --out new", "no such profile file"),
        ("bench/c1.json --to dynamo --out new", "not a profile of this version"),
        ("p.json --to dynamo --out config.json", "is no folder"),
    ],
)
def test_a_bad_export_is_one_message_and_exit_2(poolwise, sources, words, said):
    imported(poolwise, SPLITWISE)
    status, out, err = poolwise("profile", "export", *words.split())
    assert (status, out) == (2, "")
    assert said in err
    assert not (sources / "new").exists()


def test_splitwise_s_public_table_makes_a_plan(poolwise, sources, poolwise_data):
    table = poolwise_data / "profiles/splitwise-sim/perf_model.csv"
    imported(poolwise, SPLITWISE.replace("perf_model.csv", str(table)))
    config = CONFIG | {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 28672,
    }
    pools = [
        {"model": "llama2-70b", "role": role, "accelerator": "a100-80gb", "tp": 8}
        for role in ("prefill", "decode")
    ]
    prices = {"on_demand": 2.21}
    write_spec(
        sources,
        models=[{"name": "llama2-70b", "config": config}],
        slos=[{"model": "llama2-70b", "ttft_s": 2, "tpot_s": 0.1, "attainment_ratio": 0.9}],
        accelerators=[
            {"name": "a100-80gb", "per_node": 8, "inventory": 80, "usd_per_gpu_hour": prices}
        ],
        pools=pools,
        profiles=["p.json"],
    )
    status, out, err = poolwise("plan", "-s", "spec.yaml", "-t", "trace.jsonl", "--json")
    assert status == 0, err
    plan = json.loads(out)
    assert {pool["accelerator"] for pool in plan["windows"][0]["pools"]} == {"a100-80gb"}
    assert plan["usd_per_hour"] > 0
