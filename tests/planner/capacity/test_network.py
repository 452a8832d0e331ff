"""Shared links: the closed form against the twin, and what it names."""

import math
from dataclasses import replace

import numpy as np
import pytest

from planner.capacity.deployment import predict
from planner.capacity.network import network_between
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from planner.domain.topology import Distance, LinkClass, Place, Topology
from planner.simulate import ReplicaGroup, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape, poisson_workload

FAST_PREFILL = linear_profile(prefill_token_s=1e-6, prefill_base_s=1e-6)
SENDERS = (Place(rack=0, node=0), Place(rack=0, node=1))
RECEIVERS = (Place(rack=0, node=2), Place(rack=1, node=3))
KV_BYTES = 1000 * FAST_PREFILL.limits.kv_bytes_per_token


def topology(*, flow: float = 4e7, link: float = 1.2e8) -> Topology:
    each = LinkClass(base_s=0.001, flow_bytes_per_s=flow, link_bytes_per_s=link, source="tests")
    return Topology(links=dict.fromkeys(Distance, each))


def far_apart(rack: int) -> tuple[Place, ...]:
    """Four nodes of one rack: only the links between racks are shared by many transfers."""
    return tuple(Place(rack=rack, node=4 * rack + i) for i in range(4))


def transfers_in_the_twin(rate_rps: float, links: Topology) -> np.ndarray:
    groups = tuple(
        ReplicaGroup(profile=FAST_PREFILL, role=role, replicas=4, places=far_apart(rack))
        for rack, role in enumerate((Role.PREFILL, Role.DECODE))
    )
    workload = poisson_workload(
        requests=20_000, rate_rps=rate_rps, isl=1000, osl=2, lengths="constant", seed=4
    )
    result = simulate(Scenario(groups=groups, workload=workload, topology=links))
    return result.decode_started_s - result.prompt_done_s


def test_transfers_go_over_the_distances_that_the_replicas_are_apart() -> None:
    network = network_between(topology(), SENDERS, RECEIVERS)
    assert network.share == {Distance.SAME_RACK: 0.5, Distance.CROSS_RACK: 0.5}


def test_links_saturate_when_the_bytes_of_all_transfers_fill_them() -> None:
    network = network_between(topology(), SENDERS, RECEIVERS)
    # One rack sends all that crosses: half of the transfers over one link.
    assert network.saturation_rps(KV_BYTES) == pytest.approx(1.2e8 / (0.5 * KV_BYTES))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_transfer_takes_as_long_as_in_the_twin(load: float) -> None:
    links = topology()
    network = network_between(links, far_apart(0), far_apart(1))
    rate_rps = load * network.saturation_rps(KV_BYTES)
    formula_s = float(network.moving(np.array([KV_BYTES]), KV_BYTES, rate_rps)[0])
    # In the twin also: the rest of the decode step in progress, 10 ms at the most.
    assert formula_s == pytest.approx(float(transfers_in_the_twin(rate_rps, links).mean()), rel=0.1)


def pools(replicas: int = 2) -> list[PoolLoad]:
    return [
        PoolLoad(profile=FAST_PREFILL, role=role, replicas=replicas)
        for role in (Role.PREFILL, Role.DECODE)
    ]


def test_full_links_are_named_as_network() -> None:
    network = network_between(topology(), SENDERS, RECEIVERS)
    slo = Slo(model="tiny", ttft_s=1.0, tpot_s=0.05)
    said = predict(
        pools(), point_shape(isl=1000.0, osl=2.0), slo,
        request_rate_rps=0.9 * network.saturation_rps(KV_BYTES), network=network,
    )  # fmt: skip
    assert said.bottleneck is Bottleneck.NETWORK
    assert said.network_ratio == pytest.approx(0.9)


def test_overloaded_links_make_requests_miss() -> None:
    network = network_between(topology(), SENDERS, RECEIVERS)
    slo = Slo(model="tiny", ttft_s=0.5, tpot_s=0.05)
    rate_rps = 1.5 * network.saturation_rps(KV_BYTES)
    shape = point_shape(isl=1000.0, osl=2.0)
    over = predict(pools(), shape, slo, request_rate_rps=rate_rps, network=network)
    alone = predict(pools(), shape, slo, request_rate_rps=rate_rps)
    assert over.prediction.attainment_ratio < 0.1 < alone.prediction.attainment_ratio


def test_a_network_needs_both_ends() -> None:
    with pytest.raises(ValueError, match="a prefill and a decode"):
        network_between(topology(), (), RECEIVERS)


def test_wider_links_never_slow_a_transfer() -> None:
    slow = network_between(topology(), SENDERS, RECEIVERS)
    wide = network_between(topology(link=2.4e8), SENDERS, RECEIVERS)
    kv_bytes = np.array([KV_BYTES / 2, KV_BYTES])
    rate_rps = 0.7 * slow.saturation_rps(KV_BYTES)
    assert np.all(
        wide.moving(kv_bytes, KV_BYTES, rate_rps) <= slow.moving(kv_bytes, KV_BYTES, rate_rps)
    )
    assert math.isinf(replace(slow, stages=()).saturation_rps(KV_BYTES))
