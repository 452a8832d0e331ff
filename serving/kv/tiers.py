"""KV tiers below the device's cache, as vLLM's configuration. Pure.

A tier keeps blocks that the device's cache evicted. In a disaggregated deployment a worker has two
connectors, the one that moves caches from prefill to decode and the tier's; vLLM's MultiConnector
holds both, asks them in turn for a prompt's blocks and saves to all.

Connector names and keys of `kv_connector_extra_config` are those of vLLM 0.32's sources
(`vllm/distributed/kv_transfer/kv_connector/`, `vllm/v1/kv_offload/`, `vllm/distributed/
mooncake_store.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from planner.domain.errors import EngineError, InputError

Json = str | int | float | bool | list["Json"] | dict[str, "Json"]

GIB = 2**30


class TierKind(StrEnum):
    """Where evicted blocks go.

    host: main memory of the worker's node (vLLM's OffloadingConnector). disk: main memory, and a
    folder below it, which workers may share (TieringOffloadingSpec). lmcache: LMCache inside the
    worker. lmcache_server: one LMCache server for all workers of a node. mooncake_store: memory of
    many nodes as one pool.
    """

    HOST = "host"
    DISK = "disk"
    LMCACHE = "lmcache"
    LMCACHE_SERVER = "lmcache_server"
    MOONCAKE_STORE = "mooncake_store"


class Mover(StrEnum):
    """What moves a KV cache from prefill to decode."""

    NIXL = "NixlConnector"
    MOONCAKE = "MooncakeConnector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One tier as a user asks for it.

    Parameters
    ----------
    host_bytes : int
        Main memory that it may take, per worker (mooncake_store: that the worker gives to the
        pool).
    folder : str or None
        disk: where blocks are written.
    server : str or None
        lmcache_server: `HOST:PORT`; mooncake_store: its master, `HOST:PORT`.
    metadata_server : str or None
        mooncake_store: URL of its metadata server.
    """

    kind: TierKind
    host_bytes: int = 8 * GIB
    folder: str | None = None
    server: str | None = None
    metadata_server: str | None = None

    def __post_init__(self) -> None:
        if self.host_bytes < 1:
            raise ValueError(f"host_bytes must be at least 1, got {self.host_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSite:
    """What decides whether a connector can work.

    Parameters
    ----------
    has_accelerator : bool
    packages : frozenset of str or None
        Top-level modules that the engine's environment has; None: not looked.
    tp : int
        Tensor-parallel degree of one worker.
    """

    has_accelerator: bool
    packages: frozenset[str] | None = None
    tp: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFlags:
    """What a worker is started with.

    Parameters
    ----------
    transfer_config : str
        For `--kv-transfer-config`, JSON.
    flags : tuple of str
        Further options.
    environment : mapping of str to str
    files : mapping of str to str
        Contents of files that variables of the environment name, by the variable.
    remarks : tuple of str
        What is not proven, and what else has to run.
    """

    transfer_config: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def tier_flags(
    site: EngineSite, *, mover: Mover | None = Mover.NIXL, tier: Tier | None = None
) -> TierFlags:
    """What a worker needs for a mover, a tier, or both.

    Raises
    ------
    InputError
        When the tier lacks something that it needs to be told.
    EngineError
        When this site cannot run it, with the reason.
    """
    if mover is None and tier is None:
        raise InputError("neither a mover nor a tier is asked for: leave the KV transfer out")
    made: list[TierFlags] = []
    if mover is not None:
        made.append(_mover(mover, site))
    if tier is not None:
        made.append(_TIERS[tier.kind](tier, site))
    if len(made) == 1:
        return made[0]
    children: list[Json] = [json.loads(m.transfer_config) for m in made]
    return TierFlags(
        transfer_config=_connector("MultiConnector", {"connectors": children}),
        flags=tuple(f for m in made for f in m.flags),
        environment={k: v for m in made for k, v in m.environment.items()},
        files={k: v for m in made for k, v in m.files.items()},
        remarks=tuple(r for m in made for r in m.remarks),
    )


def _connector(name: str, extra: dict[str, Json], **more: Json) -> str:
    """One connector's JSON. A KV cache that does not load fails its request, never recomputes."""
    config: dict[str, Json] = {"kv_connector": name, "kv_role": "kv_both"}
    config |= {"kv_load_failure_policy": "fail", **more}
    if extra:
        config["kv_connector_extra_config"] = extra
    return json.dumps(config)


def _mover(mover: Mover, site: EngineSite) -> TierFlags:
    on_cpu: dict[str, Json] = {} if site.has_accelerator else {"kv_buffer_device": "cpu"}
    if mover is Mover.NIXL:
        _need_package("nixl", "nixl", site)
        extra: dict[str, Json] = {} if site.has_accelerator else {"num_threads": 1}
        return TierFlags(transfer_config=_connector(mover, extra, **on_cpu))
    _need_package("mooncake", "mooncake-transfer-engine", site)
    remarks = ["each prefill worker needs its own VLLM_MOONCAKE_BOOTSTRAP_PORT"]
    extra = {}
    if not site.has_accelerator:
        extra = {"mooncake_protocol": "tcp"}
        remarks.append("without an accelerator it needs Poolwise's engine plugin (`make engine`)")
    return TierFlags(transfer_config=_connector(mover, extra, **on_cpu), remarks=tuple(remarks))


def _host(tier: Tier, site: EngineSite) -> TierFlags:
    _need_accelerator(
        "OffloadingConnector", "copies blocks between an accelerator's memory and the host's", site
    )
    extra: dict[str, Json] = {"cpu_bytes_to_use": tier.host_bytes * site.tp}
    return TierFlags(transfer_config=_connector("OffloadingConnector", extra), remarks=_UNMEASURED)


def _disk(tier: Tier, site: EngineSite) -> TierFlags:
    folder = tier.folder
    if not folder:
        raise InputError("tier disk: name the folder that blocks are written to")
    _need_accelerator(
        "OffloadingConnector", "copies blocks between an accelerator's memory and the host's", site
    )
    second: dict[str, Json] = {"type": "fs", "root_dir": folder}
    extra: dict[str, Json] = {
        "spec_name": "TieringOffloadingSpec",
        "cpu_bytes_to_use": tier.host_bytes * site.tp,
        "secondary_tiers": [second],
    }
    return TierFlags(transfer_config=_connector("OffloadingConnector", extra), remarks=_UNMEASURED)


def _lmcache(tier: Tier, site: EngineSite) -> TierFlags:
    _need_accelerator("LMCacheConnectorV1", "has no connector for a KV cache in main memory", site)
    _need_package("lmcache", "lmcache", site)
    return TierFlags(
        transfer_config=_connector("LMCacheConnectorV1", {}),
        flags=_NO_HYBRID,
        environment={
            "LMCACHE_LOCAL_CPU": "True",
            "LMCACHE_MAX_LOCAL_CPU_SIZE": f"{tier.host_bytes / GIB:g}",
        },
        remarks=_UNMEASURED,
    )


def _lmcache_server(tier: Tier, site: EngineSite) -> TierFlags:
    host, port = _server(tier)
    _need_accelerator("LMCacheMPConnector", "could not be brought to work on a CPU engine", site)
    _need_package("lmcache", "lmcache", site)
    extra: dict[str, Json] = {"lmcache.mp.host": f"tcp://{host}", "lmcache.mp.port": port}
    return TierFlags(
        transfer_config=_connector("LMCacheMPConnector", extra),
        flags=_NO_HYBRID,
        remarks=(f"an LMCache server has to run on {host}:{port}", *_UNMEASURED),
    )


def _mooncake_store(tier: Tier, site: EngineSite) -> TierFlags:
    host, port = _server(tier)
    _need_package("mooncake", "mooncake-transfer-engine", site)
    if not tier.metadata_server:
        raise InputError(
            "tier mooncake_store: name its metadata server, as http://HOST:PORT/metadata"
        )
    store: dict[str, Json] = {
        "metadata_server": tier.metadata_server,
        "master_server_address": f"{host}:{port}",
        "protocol": "rdma" if site.has_accelerator else "tcp",
        "device_name": "",
        "mode": "embedded",
        "global_segment_size": tier.host_bytes,
    }
    return TierFlags(
        transfer_config=_connector("MooncakeStoreConnector", {"load_async": True}),
        files={"MOONCAKE_CONFIG_PATH": json.dumps(store, indent=2)},
        remarks=(f"a mooncake_master has to run on {host}:{port}", *_UNMEASURED),
    )


_UNMEASURED = ("its effect was never measured by Poolwise: it has had no machine that runs it",)
_NO_HYBRID = ("--disable-hybrid-kv-cache-manager",)
"""LMCache's connectors know one group of blocks only (they lack vLLM's `SupportsHMA`)."""
_TIERS = {
    TierKind.HOST: _host,
    TierKind.DISK: _disk,
    TierKind.LMCACHE: _lmcache,
    TierKind.LMCACHE_SERVER: _lmcache_server,
    TierKind.MOONCAKE_STORE: _mooncake_store,
}


def _need_accelerator(connector: str, why: str, site: EngineSite) -> None:
    if not site.has_accelerator:
        raise EngineError(
            f"vLLM's {connector} {why}, so it is refused without an accelerator (vLLM 0.32); leave "
            "the tier out here, or enlarge the cache itself (kv_cache_gib)"
        )


def _need_package(module: str, package: str, site: EngineSite) -> None:
    if site.packages is not None and module not in site.packages:
        raise EngineError(
            f"the engine's environment has no {package}: install it there (pip install {package})"
        )


def _server(tier: Tier) -> tuple[str, int]:
    host, _, port = (tier.server or "").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            f"tier {tier.kind}: name its server as HOST:PORT, got {tier.server or 'nothing'}"
        )
    return host, int(port)
