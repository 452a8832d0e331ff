"""The catalogue of accelerators: shipped, overridden, and what is refused."""

import csv
from datetime import date

import pytest
import yaml

from planner.domain.errors import CatalogueError
from planner.domain.hardware import PurchaseOption
from planner.service.spec.catalogue import catalogue_document, read_catalogue
from planner.service.spec.file import read_spec
from tests.planner.service.examples import spec_data, write_spec

SHIPPED = read_catalogue()
OURS = {"name": "tpu-x", "memory_bytes": 32e9, "source": "our rack"}
PRICE = {
    "usd_per_gpu_hour": 1.5,
    "provider": "us",
    "product": "rack",
    "listed_on": "2026-11-01",
    "source": "contract 7",
}


def written(folder, *entries, **top):
    path = folder / "ours.yaml"
    document = {"schema_version": "poolwise/accelerators/v1", "accelerators": list(entries), **top}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.mark.parametrize("entry", SHIPPED.entries, ids=lambda entry: entry.name)
def test_every_shipped_entry_names_its_sources_and_is_plausible(entry):
    assert entry.source
    assert 16e9 <= entry.memory_bytes <= 1e12
    bandwidth, bf16, fp8 = (
        entry.memory_bandwidth_bytes_per_s,
        entry.bf16_flop_per_s,
        entry.fp8_flop_per_s,
    )
    assert bandwidth is None or 1e11 < bandwidth < 2e13
    # A roofline's ridge lies at some tens to some hundreds of operations a byte.
    assert bandwidth is None or bf16 is None or 20 < bf16 / bandwidth < 500
    assert bf16 is None or fp8 is None or fp8 == pytest.approx(2 * bf16, rel=0.02)
    assert all(p.listed_on >= date(2026, 1, 1) and p.source for p in entry.prices)
    assert entry.power_w is None or 50 < entry.power_w < 2000


@pytest.mark.parametrize(
    ("name", "tb_per_s", "bf16_tflop_per_s", "fp8_tflop_per_s"),
    [
        ("a100", 2.039, 312, None),
        ("a10", 0.6, 125, None),
        ("l4", 0.3, 242 / 2, 485 / 2),
        ("l40s", 0.864, 362.05, 733),
        ("h100", 3.35, 1979 / 2, 3958 / 2),
        ("h100-pcie", 2.0, 1513 / 2, 3026 / 2),
        ("h100-nvl", 3.9, 1671 / 2, 3341 / 2),
        ("h200", 4.8, 1979 / 2, 3958 / 2),
        ("gh200", 4.0, 990, 1979),
        ("b200", 64 / 8, 36e3 / 8 / 2, 72e3 / 8 / 2),
        ("mi300x", 5.3, 1307.4, 2614.9),
        ("mi325x", 6.0, 1307.4, 2614.9),
    ],
)
def test_peaks_are_those_that_vendors_documents_are_quoted_with(
    name, tb_per_s, bf16_tflop_per_s, fp8_tflop_per_s
):
    """As printed there; figures with sparsity are halved, those of eight GPUs divided by them."""
    entry = SHIPPED.find(name)
    assert entry.memory_bandwidth_bytes_per_s == pytest.approx(1e12 * tb_per_s, rel=0.002)
    assert entry.bf16_flop_per_s == pytest.approx(1e12 * bf16_tflop_per_s, rel=0.002)
    fp8 = None if fp8_tflop_per_s is None else pytest.approx(1e12 * fp8_tflop_per_s, rel=0.003)
    assert entry.fp8_flop_per_s == fp8
    assert "checked 2026-" in entry.source or "datasheet" in entry.source


def test_server_card_has_the_servers_memory_bandwidth_not_the_workstations():
    assert SHIPPED.find("rtx-pro-6000").memory_bandwidth_bytes_per_s == 1.597e12


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("h100", "h100"),
        ("H100-SXM5-80GB", "h100"),
        ("nvidia_h100_sxm", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("RTX4090", "rtx-4090"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
    ],
)
def test_accelerators_are_known_by_their_usual_names(name, found):
    assert SHIPPED.find(name).name == found


def test_every_listed_price_of_the_public_table_is_in_the_catalogue(poolwise_data):
    path = poolwise_data / "profiles/silybench/gpu_prices_2026-09-25.csv"
    with path.open() as file:
        listed = {(r["provider"], float(r["usd_per_gpu_hour"])) for r in csv.DictReader(file)}
    known = {(p.provider, p.usd_per_gpu_hour) for e in SHIPPED.entries for p in e.prices}
    assert listed <= known


def test_a_processor_slot_is_no_accelerator_of_the_catalogue():
    assert SHIPPED.find("cpu-slot") is None


def test_the_typical_price_is_the_middle_of_those_listed_that_way():
    h100 = SHIPPED.find("h100")
    listed = sorted(
        p.usd_per_gpu_hour for p in h100.prices if p.purchase_option is PurchaseOption.ON_DEMAND
    )
    assert h100.typical_price().usd_per_gpu_hour == listed[(len(listed) - 1) // 2]
    assert h100.typical_price(PurchaseOption.SPOT).provider == "gcp"
    assert h100.typical_price(PurchaseOption.RESERVED) is None


def test_what_is_printed_is_read_again(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump(catalogue_document(SHIPPED).model_dump(mode="json")))
    again = read_catalogue(path)
    assert [e.name for e in again.entries] == [e.name for e in SHIPPED.entries]
    assert again.find("h200").prices == SHIPPED.find("h200").prices


def test_a_file_of_ones_own_adds_and_overrides(tmp_path):
    changed = {"name": "h100", "power_w": 650, "source": "nvidia-smi", "prices": [PRICE]}
    known = read_catalogue(written(tmp_path, OURS, changed))
    assert known.find("tpu-x").memory_bytes == 32e9
    h100 = known.find("h100")
    assert (h100.power_w, h100.memory_bytes) == (650, 80e9)
    assert [p.usd_per_gpu_hour for p in h100.prices] == [1.5]
    assert h100.source.startswith("nvidia-smi; what it leaves open: NVIDIA H100")
    assert read_catalogue().find("h100").power_w == 700


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{**OURS, "memory_gb": 32}], r"ours\.yaml:\d+: .*memory_gb"),
        ([{k: v for k, v in OURS.items() if k != "source"}], r"ours\.yaml:\d+: .*source"),
        ([{"name": "tpu-x", "source": "x"}], r"ours\.yaml:3: tpu-x is new, so it needs memory_byt"),
        ([{**OURS, "bf16_flop_per_s": -1}], r"ours\.yaml:6: .*bf16_flop_per_s"),
        ([{**OURS, "name": "TPU X"}], r"ours\.yaml:3: .*name"),
        ([OURS, OURS], "tpu-x is given twice"),
        ([{**OURS, "aliases": ["h100"]}], "h100 is given twice"),
        ([{**OURS, "prices": [{**PRICE, "usd_per_gpu_hour": 0}]}], "usd_per_gpu_hour"),
        ([{**OURS, "prices": [{**PRICE, "listed_on": "soon"}]}], "listed_on"),
    ],
)
def test_a_bad_entry_is_refused_with_file_and_line(tmp_path, entries, said):
    with pytest.raises(CatalogueError, match=said):
        read_catalogue(written(tmp_path, *entries))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "YAML mapping"),
        ("[", "not YAML"),
        ("accelerators: []", "begins with `schema_version: poolwise/accelerators/v1`"),
        ("schema_version: poolwise/accelerators/v1\naccelerators: []", "accelerators"),
        ("schema_version: poolwise/accelerators/v9\naccelerators: []", ":1: "),
    ],
)
def test_what_is_no_catalogue_is_refused(tmp_path, text, said):
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    with pytest.raises(CatalogueError, match=said):
        read_catalogue(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(CatalogueError, match=r"no such file; `poolwise accelerators --json`"):
        read_catalogue(tmp_path / "none.yaml")


def test_prices_of_the_catalogue_never_reach_a_spec(tmp_path):
    (accelerator,) = spec_data()["accelerators"]
    spec = read_spec(
        write_spec(tmp_path), catalogue=read_catalogue(written(tmp_path, {**OURS, "name": "cpu"}))
    )
    known = spec.accelerator("cpu")
    assert known.memory_bytes == accelerator.get("memory_bytes", 32e9)
    stated = set(accelerator["usd_per_gpu_hour"].values())
    assert {offer.usd_per_gpu_hour for offer in known.offers} == stated
