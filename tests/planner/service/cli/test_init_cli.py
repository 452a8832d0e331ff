"""`poolwise init`: a first spec that works as it stands, and overwrites nothing."""

import json
import os
import pty
import subprocess
import sys

import pytest

from planner.domain.spec import TargetKind
from planner.service.spec.file import read_spec
from profiler.files import write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.examples import CONFIG

LLAMA_8B = {
    **CONFIG,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
H100 = ("--accelerator", "h100", "--usd-per-gpu-hour", "2.5")


@pytest.fixture
def models(folder):
    for name, config in (("llama-8b", LLAMA_8B), ("llama-70b", LLAMA_70B)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


def test_a_first_spec_plans_as_it_stands(poolwise, models):
    status, out, err = poolwise("init", "new.yaml", "--config", "llama-8b", *H100)
    assert (status, "poolwise plan --spec new.yaml" in out, "ESTIMATES" in err) == (0, True, True)
    assert (models / "new.yaml").read_text().count("\n#") > 10
    status, out, _ = poolwise(
        "plan", "--spec", "new.yaml", "--trace", "trace.jsonl", "--allow-estimates", "--json"
    )
    assert status == 0
    assert {p["role"] for p in json.loads(out)["windows"][0]["pools"]} == {"prefill", "decode"}


def test_replicas_are_as_large_as_the_model_needs(poolwise, models):
    for name in ("llama-8b", "llama-70b"):
        assert poolwise("init", f"{name}.yaml", "--config", name, *H100)[0] == 0
    small, large = (
        read_spec(models / f"{name}.yaml", allow_estimates=True)
        for name in ("llama-8b", "llama-70b")
    )
    assert {p.shape.tp for p in small.pools} == {1}
    assert {p.shape.tp for p in large.pools} == {4}  # 141 GB of weights, 72 GB usable in each
    assert (large.name, large.models[0].name) == ("llama-70b", "llama-70b")
    status, _, err = poolwise("init", "x.yaml", "--config", "llama-70b", *H100, "--per-node", "2")
    assert (status, "does not fit into a node of 2 h100" in err) == (2, True)
    assert not (models / "x.yaml").exists()


def test_an_existing_file_stays_as_it_is(poolwise, models):
    before = (models / "spec.yaml").read_text()
    status, _, err = poolwise("init", "--config", "llama-8b", *H100)
    assert (status, "spec.yaml exists, and nothing is overwritten" in err) == (2, True)
    assert (models / "spec.yaml").read_text() == before


@pytest.mark.parametrize("target", list(TargetKind))
def test_every_target_is_valid_at_once(poolwise, models, target):
    status, out, _ = poolwise(
        "init", "t.yaml", "--config", "llama-8b", *H100, "--target", target, "--json"
    )
    assert (status, json.loads(out)["estimates"]) == (0, True)
    assert read_spec(models / "t.yaml", allow_estimates=True).target is target


def test_measured_profiles_need_no_estimates(poolwise, models):
    write_profile(linear_profile(model="tiny", accelerator="h100"), models / "p.json")
    (models / "tiny.config").write_text(json.dumps(CONFIG))
    given = ("--config", "tiny.config", "--model", "tiny", "--profile", "p.json")
    status, out, err = poolwise("init", "m.yaml", *given, *H100)
    assert (status, "--allow-estimates" in out, err) == (0, False, "")
    assert read_spec(models / "m.yaml").profiles[0].accelerator == "h100"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "give --config"),
        (("--config", "nowhere", *H100), "does not exist"),
        (("--config", "llama-8b"), "give --accelerator"),
        (("--config", "llama-8b", "--accelerator", "h100"), "listed"),
        (("--config", "llama-8b", "--accelerator", "h1000", *H100[2:]), "did you mean `h100`"),
        (("--config", "llama-8b", *H100, "--ttft-s", "2000"), "ttft_s"),
        (("--config", "llama-8b", *H100, "--tp", "3"), "tp 3"),
        (("--config", "llama-8b", *H100, "--name", "Shop!"), "name"),
        (("--config", "llama-8b", *H100, "--profile", "none.json"), "none.json"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(poolwise, models, given, told):
    status, _, err = poolwise("init", "bad.yaml", *given)
    assert (status, told in err) == (2, True), err
    assert not (models / "bad.yaml").exists()


def test_on_a_terminal_what_is_missing_is_asked_for(models):
    near, far = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "planner.service.cli.main", "init", "asked.yaml"],
        stdin=far,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(near, b"llama-8b\nh100\n2.25\n")
    _, err = process.communicate()
    os.close(near)
    os.close(far)
    assert process.returncode == 0, err
    assert "listed" in err
    spec = read_spec(models / "asked.yaml", allow_estimates=True)
    assert spec.accelerator("h100").offers[0].usd_per_gpu_hour == 2.25
