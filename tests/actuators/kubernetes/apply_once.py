"""A process of its own that carries out the matrix's diff once: it is killed on the way."""

import sys
import time

from actuators.actuator import carry_out
from actuators.kubernetes.actuator import KubernetesActuator
from actuators.kubernetes.connection import connect
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, OPTION, PAIR, PREFILL
from tests.actuators.kubernetes.towards import GOAL, towards


def main() -> None:
    target = ClusterTarget(kubeconfig=sys.argv[1], progress_deadline_s=60.0)
    actuator = KubernetesActuator(
        api=connect(target),
        cluster=target,
        shapes=[(PREFILL, OPTION), (DECODE, OPTION)],
        objects=PAIR,
        clock=time.monotonic,
        poll_s=0.05,
    )
    carry_out(actuator, towards(actuator.read_fleet(), GOAL))


if __name__ == "__main__":
    main()
