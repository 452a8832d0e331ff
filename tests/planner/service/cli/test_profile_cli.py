"""`poolwise profile show, compare, check` and `poolwise accelerators`."""

import json
from dataclasses import replace

import pytest
import yaml

from profiler.files import write_profile
from tests.fakes.profiles import linear_profile
from tests.planner.service.reports.reading import read_page
from tests.profiler.live.test_drift import loaded
from tests.serving.metrics import page, served_pages

CONFIG = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 2048,
    "vocab_size": 8192,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def profile(poolwise, folder):
    """A command on profiles, in a folder with `a.json` and `b.json`, 1.5 times as fast."""
    noted = linear_profile(accelerator="h100")
    source = replace(noted.provenance, notes=("row 7 was refused",), error_ratio=0.05)
    write_profile(replace(noted, provenance=source), folder / "a.json")
    write_profile(linear_profile(accelerator="h200", speed=1.5), folder / "b.json")
    (folder / "config.json").write_text(json.dumps(CONFIG))

    def command(*arguments):
        return poolwise("profile", *arguments)

    return command


def test_show_tells_the_notes(profile):
    status, out, _ = profile("show", "a.json")
    assert status == 0
    assert "row 7 was refused" in out


def test_transfers_are_not_overwritten_by_the_profile_that_is_made_of_them(profile, folder):
    measured = "kv_bytes,seconds\n1000000,0.001\n100000000,0.05\n"
    (folder / "t.csv").write_text(measured)
    link = ("link", "a.json", "t.csv", "--class", "cross_rack", "--source", "us", "--force")
    status, _, err = profile(*link, "--out", "t.csv")
    assert (status, "t.csv is given for something else" in err) == (2, True)
    assert (folder / "t.csv").read_text() == measured
    assert profile(*link, "--out", "c.json")[0] == 0


def test_the_page_draws_roofs_where_both_are_known(profile, folder):
    status, _, err = profile("show", "a.json", "--html", "a.html", "--config", "config.json")
    assert (status, err.strip()) == (0, "plots: a.html")
    found = read_page((folder / "a.html").read_text())
    assert found.misnested == found.open_tags == []
    assert set(found.scripts) == {f"plot-{n}" for n in (
        "roofline-prefill", "roofline-decode", "prefill", "decode",
    )}  # fmt: skip
    assert "compute roof, 0 cached tokens" in found.visible
    for words in ("Row 7 was refused", "bound by", "NVIDIA H100 SXM 80 GB", "5.0%"):
        assert words in found.visible
    for name, script in found.scripts.items():
        dashed = [t for t in json.loads(script)["data"] if t["line"].get("dash") == "dash"]
        assert len(dashed) == (3 if "roofline" in name else 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the model's config.json with --config"),
        (("--config", "config.json", "--catalogue", "slow.yaml"), "he catalogue lacks the FLOP/s"),
    ],
)
def test_the_page_says_why_there_is_no_roof(profile, folder, arguments, said):
    slow = linear_profile(accelerator="slow")
    write_profile(slow if "--catalogue" in arguments else linear_profile(accelerator="h100"),
                  folder / "c.json")  # fmt: skip
    entry = {"name": "slow", "memory_bytes": 8e9, "source": "label"}
    (folder / "slow.yaml").write_text(
        yaml.safe_dump({"schema_version": "poolwise/accelerators/v1", "accelerators": [entry]})
    )
    assert profile("show", "c.json", "--html", "c.html", *arguments)[0] == 0
    text = (folder / "c.html").read_text()
    assert said in read_page(text).visible
    assert "compute roof," not in text


def test_a_config_of_another_model_is_doubted(profile, folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 80}))
    profile("show", "a.json", "--html", "a.html", "--config", "config.json")
    assert "is it this model's?" in read_page((folder / "a.html").read_text()).visible


def test_a_page_never_replaces_the_profile(profile, folder):
    status, _, err = profile("show", "a.json", "--html", "a.json")
    assert (status, "is given for something else" in err) == (2, True)


def test_two_accelerators_are_compared_per_usd(profile):
    status, out, _ = profile("compare", "a.json", "b.json", "--price", "h100=2", "--json")
    assert status == 0
    found = json.loads(out)
    decode = next(r for r in found["compared"] if r["quantity"] == "decode_tokens_per_s")
    assert decode["at"] == 0.05
    assert decode["tokens_per_usd"][0] == pytest.approx(decode["values"][0] * 1800)
    assert decode["ratios_low"][1] < decode["ratios"][1] < decode["ratios_high"][1]
    given, listed = found["profiles"]
    assert (given["usd_per_gpu_hour"], given["price_source"]) == (2.0, "as given")
    assert listed["price_listed_on"] == "2026-09-25"
    assert "https://" in listed["price_source"]
    assert found["agreement"] == []


def test_a_price_from_the_catalogue_is_said_with_its_day(profile):
    status, out, _ = profile("compare", "a.json", "b.json")
    assert status == 0
    assert "B: listed on 2026-09-25 by" in out
    assert "Million tokens per USD" in out


def test_profiles_of_one_replica_are_asked_to_agree(profile, folder):
    write_profile(linear_profile(accelerator="h100", speed=1.2), folder / "c.json")
    _, out, _ = profile("compare", "a.json", "c.json")
    assert "MORE than the 5.0% that their errors explain" in out
    write_profile(linear_profile(accelerator="h100", speed=1.01), folder / "c.json")
    _, out, _ = profile("compare", "a.json", "c.json")
    assert "within the 5.0% that their errors explain" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.json",), "give two profiles at least"),
        (("a.json", "none.json"), "none.json"),
        (("a.json", "b.json", "--price", "h100"), "write it as NAME=USD"),
        (("a.json", "b.json", "--price", "h100=-1"), "a number of USD above 0"),
        (("a.json", "b.json", "--price", "b200=1"), "no profile is of it"),
        (("a.json", "b.json", "--price", "h100=1", "--price", "h100=2"), "a price already"),
        (("a.json", "b.json", "--itl", "50000"), "in seconds"),
        (("a.json", "b.json", "--catalogue", "a.json"), "schema_version"),
    ],
)
def test_bad_input_to_compare_is_one_message(profile, arguments, said):
    status, out, err = profile("compare", *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_accelerators_are_listed_with_their_sources(poolwise):
    status, out, _ = poolwise("accelerators")
    assert status == 0
    assert "h100-pcie" in out
    found = json.loads(poolwise("accelerators", "--json")[1])
    assert all(entry["source"] for entry in found["accelerators"])


def test_the_setting_names_a_catalogue_of_ones_own(poolwise, folder, monkeypatch):
    entry = {"name": "ours", "memory_bytes": 8e9, "source": "label"}
    (folder / "ours.yaml").write_text(
        yaml.safe_dump({"schema_version": "poolwise/accelerators/v1", "accelerators": [entry]})
    )
    monkeypatch.setenv("POOLWISE_CATALOGUE", str(folder / "ours.yaml"))
    assert "ours" in poolwise("accelerators")[1]
    monkeypatch.setenv("POOLWISE_CATALOGUE", str(folder / "none.yaml"))
    status, _, err = poolwise("plan", "--spec", "spec.yaml", "--trace", "trace.jsonl")
    assert (status, "none.yaml: no such file" in err) == (2, True)


LOOKS = 12
QUICK = ("--interval", "0.05", "--for", str(0.05 * LOOKS))


def in_real_time(**changes):
    """Pages of a worker under load: as much of it for every look as 2.5 s bring."""
    return [page(one) for one in loaded(LOOKS, seconds=0.05 * 50, **changes)]


@pytest.mark.parametrize(("slower", "verdict", "expected"), [(1.0, "ok", 0), (2.0, "drifted", 1)])
def test_a_live_worker_is_checked_over_http(profile, slower, verdict, expected):
    with served_pages(in_real_time(slower=slower, computed=0.0)) as url:
        status, out, _ = profile("check", "a.json", "--url", f"{url}/metrics", *QUICK, "--json")
    found = json.loads(out)
    assert (found["verdict"], status) == (verdict, expected)
    (itl,) = [d for d in found["drifts"] if d["quantity"] == "itl_s"]
    assert itl["ratio"] == pytest.approx(slower, rel=0.1)


def test_the_history_says_since_when(profile, folder):
    pages = [p for slower in (1.0, 2.0, 2.0) for p in in_real_time(slower=slower, computed=0.0)]
    said = []
    with served_pages(pages) as url:
        for _ in range(3):
            arguments = ("--url", url, *QUICK, "--history", "h.jsonl", "--json")
            said.append(json.loads(profile("check", "a.json", *arguments)[1]))
    assert [json.loads(line) for line in (folder / "h.jsonl").read_text().splitlines()] == said
    assert [one["verdict"] for one in said] == ["ok", "drifted", "drifted"]
    assert said[0]["drifted_since"] is None
    assert said[1]["drifted_since"] == said[2]["drifted_since"] == said[1]["checked_at"]


def test_a_restart_while_watching_is_said(profile):
    first = in_real_time(computed=0.0)[: LOOKS // 2]
    second = [p.replace("1000.0", "2000.0") for p in in_real_time(computed=0.0)]
    with served_pages([*first, *second]) as url:
        status, out, _ = profile("check", "a.json", "--url", url, *QUICK)
    assert status == 0
    assert "was restarted 1 times while watching" in out


def test_an_idle_worker_is_not_called_fine(profile):
    with served_pages(in_real_time()[:1]) as url:
        status, out, _ = profile("check", "a.json", "--url", url, *QUICK)
    assert status == 0
    assert "NOT ENOUGH TRAFFIC" in out
    assert "no request was served while watching" in out


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([503], "does not answer"),
        (["<!DOCTYPE html><html></html>"], "is it a vLLM worker"),
        (["# TYPE up gauge\nup 1\n"], "is it a vLLM worker"),
    ],
)
def test_what_is_no_worker_is_said(profile, pages, said):
    with served_pages(pages) as url:
        status, _, err = profile("check", "a.json", "--url", url, *QUICK)
    assert (status, said in err) == (1, True)


def test_a_worker_that_is_down_is_said(profile):
    with served_pages(["x"]) as url:
        pass
    status, _, err = profile("check", "a.json", "--url", url, *QUICK)
    assert (status, "does not answer" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "localhost:8000"), "write it as http://"),
        (("--url", "http://h", "--url", "http://h/metrics"), "given twice"),
        (("--url", "http://h", "--interval", "0"), "--interval 0"),
        (("--url", "http://h", "--for", "1", "--interval", "1"), "four times --interval"),
        (("--url", "http://h", "--tolerance", "-1"), "--tolerance"),
        (("--url", "http://h", "--history", "spec.yaml"), "spec.yaml:1: not JSON"),
        (("--url", "http://h", "--history", "no/such/h.jsonl"), "the folder does not exist"),
    ],
)
def test_bad_input_to_check_is_one_message(profile, arguments, said):
    status, out, err = profile("check", "a.json", *arguments)
    assert (status, out) == (2, "")
    assert said in err
