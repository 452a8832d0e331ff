"""`poolwise profile run` against a server that runs: from the command to a plan, and what is
refused before anything is measured."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.service.cli.main import run
from planner.service.cli.profile_run import EPILOG
from profiler.files import read_profile
from tests.profiler.measure.imitation import MODEL, Imitation, imitated_server

OWN, JOURNAL = Path("own.json"), Path("own.json.journal.jsonl")


@pytest.fixture(scope="module")
def server() -> Iterator[Imitation]:
    with imitated_server(Imitation()) as running:
        yield running


def asked(server: Imitation, *more: str) -> tuple[str, ...]:
    return (
        *("profile", "run", "--url", f"{server.url}/v1/", "--model", MODEL, "--out", "own.json"),
        *("--role", "aggregated", "--accelerator", "gpu", "--kv-bytes-per-token", "64"),
        *("--start-s", "60", "--max-prompt", "200", "--max-batch", "4", "--max-context", "200"),
        *("--quick", "--budget-s", "10", *more),
    )


def test_profile_of_a_running_server_says_what_was_assumed(poolwise, server):
    status, out, err = poolwise(*asked(server, "--json", "--fresh"))
    assert status == 0, err
    document = json.loads(out)
    profile = read_profile(Path("own.json"))
    assert document["profile_id"] == profile.profile_id
    assert document["details"]["complete"] is True
    assert document["details"]["mixed_ratio"] > 0
    assert document["roles"] == ["aggregated"]
    assert profile.limits.kv_capacity_tokens == 8192
    notes = " ".join(profile.provenance.notes)
    assert "max_num_seqs 256 assumed" in notes
    assert "flip_s and drain_s 5 assumed" in notes
    assert "async_scheduling assumed" in notes
    assert "share most of their context" in notes
    assert "at most" in err  # progress, for people who wait


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--model", "another"), f"does not serve another: it lists {MODEL}"),
        (("--url", "http://127.0.0.1:9"), "is the server running"),
        (("--out", "nowhere/own.json"), "there is no folder"),
        (("--out", "."), "is a folder; name a file"),
        (("--target-error", "7"), "--target-error 7 must lie in 0.001..1"),
        (("--budget-s", "1"), "--budget-s 1 must lie in 10..86400 seconds"),
        (("--max-batch", "0"), "--max-batch 0 must be at least 1"),
        (("--max-prompt", "600"), "--max-prompt 600: prompt and answer have room for 600 tokens"),
        (("--role", "pair"), "give its address as --metrics-url"),
        (("--max-prompt", "1", "--max-cached", "0"), "points to measure make no table"),
        (("--max-batch", "1", "--max-context", "9"), "points to measure make no table"),
        (("--max-num-seqs", "2"), "the engine decodes 2 sequences at once"),
        (("--kv-bytes-per-token", "-5"), "--kv-bytes-per-token -5 must lie above 0"),
        (("--kv-bytes-per-token", "nan"), "--kv-bytes-per-token nan must lie above 0"),
        (("--start-s", "-1"), "--start-s -1 must lie in 0..86400 seconds"),
        (("--start-s", "nan"), "--start-s nan must lie in 0..86400 seconds"),
        (("--kv-capacity-tokens", "5"), "holds no block of 16 tokens"),
        (("--words", "missing.json"), "--words missing.json: cannot be read"),
        (("--gpus", "0,1"), "--gpus is of an engine that is launched here"),
        (("--cores", "99"), "--cores is of an engine that is launched here"),
        (("--engine-flag=--foo",), "--engine-flag is of an engine that is launched here"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_way_out(poolwise, server, more, said):
    status, out, err = poolwise(*asked(server, *more))
    assert status in (1, 2)
    assert said in " ".join(err.split())
    assert "Traceback" not in out + err


def test_server_with_a_key_is_measured_and_perturbed(poolwise, monkeypatch):
    with imitated_server(Imitation(key="secret")) as locked:
        status, _, err = poolwise(*asked(locked, "--fresh"))
        assert status == 1
        assert "HTTP 401: give the right key" in " ".join(err.split())
        assert poolwise(*perturbing(locked))[0] == 1
        monkeypatch.setenv("POOLWISE_PROFILE_API_KEY", "secret")
        status, out, err = poolwise(*asked(locked, "--fresh"))
        assert status == 0, err
        assert "secret" not in out + err + Path("own.json").read_text()
        # Far too short for a result: that it is answered at all is the point.
        status, _, err = poolwise(*perturbing(locked, "--phase-s", "0.1"))
        assert "give longer phases" in " ".join(err.split())


@pytest.mark.parametrize("option", ["--url", "--metrics-url"])
@pytest.mark.parametrize("address", ["http://[::1", "ftp://127.0.0.1", "http://"])
def test_what_is_no_address_is_refused(poolwise, server, option, address):
    status, out, err = poolwise(*asked(server, option, address))
    assert status == 2
    assert "is no address of a server" in " ".join(err.split())
    assert "Traceback" not in out + err


def interrupted(journal: Path) -> int:
    """Take the end of a finished run away, and its last sample; return how many are left.

    One only: on a machine that others use a run has hardly more than its tables need.
    """
    lines = journal.read_text().splitlines(keepends=True)
    samples = [line for line in lines if line.startswith('{"kind"')]
    dropped = {samples[-1], *(x for x in lines if x.startswith('{"finished_at"'))}
    journal.write_text("".join(line for line in lines if line not in dropped))
    return len(samples) - 1


@pytest.mark.parametrize("written", ["{}", "{}/", "{}/metrics", "{}/v1/"])
def test_address_of_metrics_may_be_written_as_people_copy_it(poolwise, server, written):
    status, _, err = poolwise(
        *asked(server, "--metrics-url", written.format(server.url), "--max-prompt", "600")
    )
    assert status == 2
    assert "prompt and answer have room for 600 tokens" in " ".join(err.split())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A server that runs, and the folder of a profile that was measured on it."""
    folder = tmp_path_factory.mktemp("measured")
    with imitated_server(Imitation()) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLWISE_STATE_DIR", str(folder / "state"))
        assert run([*asked(engine), "--out", str(folder / "own.json")]) == 0
        yield engine, folder


@pytest.fixture
def engine(poolwise, measured):
    """That server; the profile and its journal lie in the test's own folder."""
    running, folder = measured
    for file in (OWN, JOURNAL):
        shutil.copy(folder / file, file)
    return running


def test_finished_run_is_neither_relabelled_nor_mixed_with_another_engine(
    poolwise, engine, monkeypatch
):
    """What was measured on one version is of that version, and of that day."""
    first, requests = OWN.read_text(), engine.asked

    monkeypatch.setattr(engine, "version_told", "9.9.9")
    monkeypatch.setattr(engine, "started_at", 2000.0)
    monkeypatch.setattr(engine, "slowness", 3.0)
    status, _, err = poolwise(*asked(engine))
    assert (status, "--fresh measures anew" in " ".join(err.split())) == (2, True)
    assert OWN.read_text() == first

    OWN.unlink()
    assert poolwise(*asked(engine))[0] == 0
    assert OWN.read_text() == first
    assert engine.asked == requests

    interrupted(JOURNAL)
    status, _, err = poolwise(*asked(engine))
    assert status == 2
    assert "engine version 0.0-imitated then, 9.9.9 now" in " ".join(err.split())


def test_samples_are_a_profile_when_the_server_is_gone(poolwise, engine):
    gone = Imitation(url="http://127.0.0.1:9")
    JOURNAL.write_text(JOURNAL.read_text().replace(engine.url, gone.url))
    OWN.unlink()
    left = interrupted(JOURNAL)
    status, _, err = poolwise(*asked(gone))
    assert status == 1
    assert "kept as a profile marked INCOMPLETE: own.json" in " ".join(err.split())
    profile = read_profile(OWN)
    assert profile.details.complete is False
    assert profile.details.samples == left
    assert any(n.startswith("INCOMPLETE: the run broke off") for n in profile.provenance.notes)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [("--kv-bytes-per-token", "give --kv-bytes-per-token"), ("--start-s", "give --start-s")],
)
def test_what_the_server_does_not_tell_is_asked_for(poolwise, server, left_out, said):
    line = list(asked(server))
    at = line.index(left_out)
    requests = server.asked
    status, _, err = poolwise(*line[:at], *line[at + 2 :])
    assert (status, said in err) == (2, True)
    assert server.asked == requests  # before anything is measured


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpus", "one", "--accelerator", "h100"), "give indices as in 0,1,2"),
        (("--gpus", "0"), "give --accelerator"),
        (("--gpus", ",", "--accelerator", "h100"), "give indices as in 0,1,2"),
        (("--gpus=-1", "--accelerator", "h100"), "give indices as in 0,1,2"),
        (("--gpus", "0,0", "--accelerator", "h100"), "each GPU once"),
        (("--gpus", "0", "--accelerator", "h100"), "--role pair at --tp 1 takes 2 GPUs"),
        (("--gpus", "0,1,2", "--accelerator", "h100", "--tp", "2"), "at --tp 2 takes 4 GPUs"),
        (("--url", "http://127.0.0.1:9"), "give --accelerator"),
        (("--tp", "2"), "--tp 2 needs as many GPUs"),
        (("--kv-capacity-tokens", "9"), "--kv-capacity-tokens goes with --url"),
        (("--kv-bytes-per-token", "9"), "--kv-bytes-per-token goes with --url"),
        (("--start-s", "9"), "--start-s goes with --url"),
        (("--machine", "mine"), "--machine goes with --url"),
        (("--words", "words.json"), "--words goes with --url"),
    ],
)
def test_what_would_be_ignored_or_assumed_is_refused(poolwise, options, said):
    status, _, err = poolwise("profile", "run", "--out", "x.json", *options)
    assert (status, said in " ".join(err.split())) == (2, True)


def test_examples_of_the_help_have_all_that_is_asked_for(poolwise):
    line = EPILOG.split("poolwise ")[2].split("\n")[0].split()
    status, _, err = poolwise(*line, "--url", "http://127.0.0.1:9")
    assert status == 1
    assert "is the server running" in " ".join(err.split())


def test_unknown_model_to_launch_is_refused(poolwise):
    status, _, err = poolwise("profile", "run", "--out", "x.json", "--model", "gpt-none")
    assert status in (1, 2)
    assert "neither a folder with a config.json nor one of tiny, smollm2" in " ".join(err.split())


def test_journal_of_another_run_is_not_mixed_in(poolwise, engine):
    interrupted(JOURNAL)
    status, _, err = poolwise(*asked(engine, "--tp", "2"))
    assert status == 2
    assert "holds measurements of something else (tp 1 then, 2 now)" in " ".join(err.split())


def perturbing(server: Imitation, *more: str) -> tuple[str, ...]:
    return (
        *("profile", "perturb", "tiny.json", "--url", server.url, "--model", MODEL),
        *("--phase-s", "3", "--phases", "1", "--extra", "0.02", *more),
    )


def test_perturbing_tells_what_each_kind_of_load_did(poolwise, server):
    status, out, err = poolwise(*perturbing(server, "--json"))
    assert status == 0, err
    found = json.loads(out)
    assert [r["kind"] for r in found["responses"]] == ["prefill", "decode", "requests"]
    assert found["bottleneck"] in (None, "prefill", "decode", "requests")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--extra", "2"), "--extra 2 must lie above 0 and be at most 1"),
        (("--phase-s", "0"), "--phase-s 0 must lie above 0"),
        (("--model", "another"), "does not serve another"),
        (("--url", "http://[::1"), "is no address of a server"),
        (("--url", "http://127.0.0.1:9"), "is the server running"),
    ],
)
def test_perturbing_what_is_not_there_is_refused(poolwise, server, more, said):
    status, out, err = poolwise(*perturbing(server, *more))
    assert status in (1, 2)
    assert said in " ".join(err.split())
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--engine-flag=--max-num-seqs=8",), "give it as --max-num-seqs"),
        (("--engine-flag=--kv-cache-dtype=nvfp4",), "a format whose bytes are not known here"),
        (("--start-timeout-s", "1"), "--start-timeout-s 1 must lie in 10..86400 seconds"),
    ],
)
def test_options_of_an_engine_that_its_profile_would_not_know_of_start_nothing(
    poolwise, more, said
):
    status, out, err = poolwise("profile", "run", "--out", "own.json", *more)
    assert (status, out) == (2, "")
    assert said in err
