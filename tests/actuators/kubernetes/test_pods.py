"""What pods are together: replicas that serve, come or leave."""

from actuators.kubernetes.pods import judged

GROVE = "grove.io/podcliquescalinggroup"


def pod(name, *, ready=True, leaving=False, size=3):
    """A pod as Grove makes it for a Dynamo component of several nodes."""
    about = {
        "nvidia.com/dynamo-graph-deployment-name": "chat",
        "nvidia.com/dynamo-component": "decode",
    }
    variables = [{"name": "GROVE_PCSG_TEMPLATE_NUM_PODS", "value": str(size)}] if size else []
    return {
        "metadata": {
            "name": name,
            "labels": about,
            **({"deletionTimestamp": "2026-11-02T12:00:00Z"} if leaving else {}),
        },
        "spec": {"containers": [{"name": "engine", "env": variables}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def group(index, *, pods=3, **how):
    made = [
        pod(f"chat-0-decode-{index}-{i}", **({"ready": True} if i else how)) for i in range(pods)
    ]
    for one in made:
        labels = one["metadata"]["labels"]
        labels |= {GROVE: "chat-0-decode", f"{GROVE}-replica-index": str(index)}
    return made


def counts(pods, kind="DynamoGraphDeployment"):
    found = judged(pods, kind=kind)
    return found.ready, found.coming, found.leaving


def test_a_component_on_grove_counts_by_copies_of_its_scaling_group():
    assert counts([*group(0), *group(1)]) == (2, 0, 0)


def test_a_copy_waits_for_its_last_pod_and_leaves_with_its_first():
    waits, incomplete, leaves = group(1, ready=False), group(2, pods=2), group(3, leaving=True)
    assert counts([*group(0), *waits, *incomplete, *leaves]) == (1, 2, 1)


def test_a_clique_counts_its_pods_wherever_it_belongs():
    assert counts([*group(0), *group(1)], kind="PodClique") == (6, 0, 0)


def test_pods_of_one_node_are_replicas_each():
    pods = [pod("a", size=0), pod("b", size=0, ready=False), pod("c", size=0, leaving=True)]
    assert counts(pods) == (1, 1, 1)


def test_a_pod_that_has_ended_is_no_replica():
    ended = pod("a", size=0, ready=False)
    ended["status"]["phase"] = "Failed"
    assert counts([ended, pod("b", size=0)]) == (1, 0, 0)
