"""KV tiers as vLLM's configuration."""

import json
import os
import re
from pathlib import Path

import pytest

from planner.domain.errors import EngineError, InputError
from serving.kv.tiers import EngineSite, Mover, Tier, TierKind, tier_flags

GPU, CPU = EngineSite(has_accelerator=True, tp=2), EngineSite(has_accelerator=False)
TIERS = {
    TierKind.HOST: Tier(kind=TierKind.HOST),
    TierKind.DISK: Tier(kind=TierKind.DISK, folder="/var/kv"),
    TierKind.LMCACHE: Tier(kind=TierKind.LMCACHE),
    TierKind.LMCACHE_SERVER: Tier(kind=TierKind.LMCACHE_SERVER, server="10.0.0.1:5555"),
    TierKind.MOONCAKE_STORE: Tier(
        kind=TierKind.MOONCAKE_STORE,
        server="10.0.0.1:50051",
        metadata_server="http://m:8080/metadata",
    ),
}


def names_in(config: dict) -> list[str]:
    children = config.get("kv_connector_extra_config", {}).get("connectors", [])
    return [config["kv_connector"], *(c["kv_connector"] for c in children)]


@pytest.mark.parametrize("kind", list(TierKind))
def test_a_tier_beside_a_mover_is_two_connectors_in_one(kind: TierKind) -> None:
    flags = tier_flags(GPU, tier=TIERS[kind])
    config = json.loads(flags.transfer_config)
    assert names_in(config)[:2] == ["MultiConnector", "NixlConnector"]
    assert len(names_in(config)) == 3
    for child in config["kv_connector_extra_config"]["connectors"]:
        assert child["kv_role"] == "kv_both"
        assert "engine_id" not in child  # MultiConnector passes its own
    assert any("never measured" in r for r in flags.remarks)


def test_sizes_are_given_as_vllm_counts_them() -> None:
    config = json.loads(tier_flags(GPU, mover=None, tier=TIERS[TierKind.HOST]).transfer_config)
    assert config["kv_connector"] == "OffloadingConnector"
    assert config["kv_connector_extra_config"]["cpu_bytes_to_use"] == 2 * 8 * 2**30
    lmcache = tier_flags(GPU, tier=TIERS[TierKind.LMCACHE])
    assert lmcache.environment["LMCACHE_MAX_LOCAL_CPU_SIZE"] == "8"
    assert "--disable-hybrid-kv-cache-manager" in lmcache.flags
    store = tier_flags(GPU, tier=TIERS[TierKind.MOONCAKE_STORE])
    assert json.loads(store.files["MOONCAKE_CONFIG_PATH"])["global_segment_size"] == 8 * 2**30


@pytest.mark.parametrize(
    "kind", [TierKind.HOST, TierKind.DISK, TierKind.LMCACHE, TierKind.LMCACHE_SERVER]
)
def test_what_a_cpu_engine_cannot_run_is_refused_with_the_reason(kind: TierKind) -> None:
    with pytest.raises(EngineError, match="without an accelerator"):
        tier_flags(CPU, tier=TIERS[kind])


@pytest.mark.parametrize(
    "tier",
    [
        Tier(kind=TierKind.DISK),
        Tier(kind=TierKind.LMCACHE_SERVER),
        Tier(kind=TierKind.LMCACHE_SERVER, server="10.0.0.1"),
        Tier(kind=TierKind.MOONCAKE_STORE, server="10.0.0.1:1"),
    ],
)
def test_what_a_tier_was_not_told_is_asked_for(tier: Tier) -> None:
    with pytest.raises(InputError, match=r"name (the|its)"):
        tier_flags(GPU, tier=tier)


def test_a_package_that_the_engine_lacks_is_named() -> None:
    bare = EngineSite(has_accelerator=False, packages=frozenset({"vllm", "nixl"}))
    with pytest.raises(EngineError, match="mooncake-transfer-engine"):
        tier_flags(bare, mover=Mover.MOONCAKE)
    config = json.loads(tier_flags(bare).transfer_config)
    assert (config["kv_connector"], config["kv_buffer_device"]) == ("NixlConnector", "cpu")


def test_neither_mover_nor_tier_is_no_configuration() -> None:
    with pytest.raises(InputError):
        tier_flags(GPU, mover=None)


def _vllm_folder() -> Path:
    python = os.environ.get("POOLWISE_ENGINE_PYTHON")
    found = (
        list(Path(python).parent.parent.glob("lib/python3*/site-packages/vllm")) if python else []
    )
    if not found:
        pytest.skip("no engine environment (POOLWISE_ENGINE_PYTHON): vLLM's sources are not here")
    return found[0]


@pytest.mark.parametrize("kind", list(TierKind))
def test_connectors_and_their_keys_are_vllms_own(kind: TierKind) -> None:
    folder = _vllm_folder()
    connectors = folder / "distributed/kv_transfer/kv_connector"
    registered = set(
        re.findall(r'register_connector\(\s*"(\w+)"', (connectors / "factory.py").read_text())
    )
    config = json.loads(tier_flags(GPU, tier=TIERS[kind]).transfer_config)
    assert set(names_in(config)) <= registered
    sources = "".join(
        p.read_text() for f in (connectors, folder / "v1/kv_offload") for p in f.rglob("*.py")
    )
    for child in config["kv_connector_extra_config"]["connectors"]:
        for key in child.get("kv_connector_extra_config", {}):
            assert f'"{key}"' in sources
