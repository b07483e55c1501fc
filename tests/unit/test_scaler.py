"""Who scales a detector, and what it does without what it was asked to go by."""

import re
from dataclasses import replace
from typing import Any

import pytest

from yolofleet.api.autoscaling import Autoscaling
from yolofleet.api.names import revision_name
from yolofleet.plan.defaults import GpuSeries
from yolofleet.plan.inventory import Inventory
from yolofleet.plan.keda import questions
from yolofleet.plan.selectors import Device

GPU = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "1"}}
SHARING = "nvidia.com/gpu.sharing-strategy"


def a_node(strategy: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": "n1", "labels": {SHARING: strategy} if strategy else {}},
        "spec": {},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def scaled(world: Any, *more: Any, keda: bool = True, strategy: str = "", **scaling: Any) -> Any:
    """Have a GPU detector run with four replicas, then ask for `scaling`; return the world.

    more: nodes, beside the first.
    """
    world.nodes, world.keda = [a_node(strategy), *more], keda
    world.defaults = replace(world.defaults, prometheus="http://prom:9090" if keda else "")
    world.edit(resources=GPU, replicas=4)
    world.settle()
    world.edit(replicas=None, autoscaling={"minReplicas": 1, "maxReplicas": 9, **scaling})
    world.settle()
    return world


def triggers(world: Any) -> list[str]:
    [made] = [child for (kind, _), child in world.children.items() if kind == "ScaledObject"]
    return [trigger.get("name", trigger["type"]) for trigger in made["spec"]["triggers"]]


def least(world: Any) -> int:
    [made] = [c for (kind, _), c in world.children.items() if kind == "HorizontalPodAutoscaler"]
    return int(made["spec"]["minReplicas"])


def limited(world: Any) -> tuple[str, str] | None:
    condition = world.status().condition("AutoscalingLimited")
    return condition and (condition.reason, condition.message)


def test_a_gpu_of_its_own_is_asked_for_by_keda_alone(world: Any) -> None:
    assert triggers(scaled(world, gpu=60)) == ["gpu"]
    assert world.status().autoscaling.provider == "keda"


def test_a_node_that_shares_its_gpus_counts_where_pods_may_run_alone(world: Any) -> None:
    elsewhere = a_node("time-slicing")
    elsewhere["metadata"]["name"] = "n2"
    elsewhere["spec"]["taints"] = [{"key": "dev", "effect": "NoSchedule"}]
    assert triggers(scaled(world, elsewhere, gpu=60)) == ["gpu"]
    assert limited(world)[0] != "SharedGPU"
    assert "n2" not in world.status().condition("GPUAvailable").message
    elsewhere["spec"].clear()
    world.settle()
    assert limited(world)[0] == "SharedGPU"
    assert "n2 gives one GPU to several" in world.status().condition("GPUAvailable").message


def test_what_a_replica_is_to_have_is_a_whole_number_or_keda_keeps_nobody(world: Any) -> None:
    scaled(world, load=1, inFlight=1, gpu=99)
    [made] = [child for (kind, _), child in world.children.items() if kind == "ScaledObject"]
    each = [trigger["metadata"]["threshold"] for trigger in made["spec"]["triggers"]]
    assert each == ["1", "1", "99"]


@pytest.mark.parametrize("length", [4, 36, 37, 38, 45, 48, 49, 50, 54, 55, 63])
@pytest.mark.parametrize("hashed", ["6d5f7c8b", "6d5f7c8b9", "6d5f7c8b9f"])
def test_pods_are_found_by_their_names_also_where_kubernetes_cuts_these_off(
    length: int, hashed: str
) -> None:
    def of(detector: str, digest: str) -> str:
        return f"{revision_name(detector, digest)}-{hashed}-"[:58] + "x2x4z"

    detector, other = "g" * length, f"{'g' * (length - 1)}h"
    stable, canary = "0a1b2c3d", "4e5f6a7b"
    asked = questions(
        Autoscaling(max_replicas=9, load=70),
        "shop",
        detector,
        revision_name(detector, stable),
        GpuSeries(),
    )
    every, own = re.findall(r'pod=~"([^"]+)"', next(asked).query)
    matching = [
        [bool(re.fullmatch(names, pod)) for names in (every, own)]
        for pod in (of(detector, stable), of(detector, canary), of(other, stable))
    ]
    assert matching == [[True, True], [True, False], [False, False]]


def test_gpus_are_asked_for_by_the_names_that_the_exporter_gives(world: Any) -> None:
    world.defaults = replace(world.defaults, gpu=GpuSeries("active_ratio", "util_percent"))
    scaled(world, gpu=60)
    [made] = [child for (kind, _), child in world.children.items() if kind == "ScaledObject"]
    query = made["spec"]["triggers"][0]["metadata"]["query"]
    assert set(re.findall(r"(\w+)\{", query)) == {"active_ratio", "util_percent"}
    assert "100 * active_ratio{" in query


@pytest.mark.parametrize("exporter", ["", "gpu-operator"])
def test_what_is_said_of_gpus_of_others_is_believed_of_the_exporter_alone(
    world: Any, exporter: str
) -> None:
    """Any pod could say in its /metrics how busy those of another namespace are."""
    world.defaults = replace(world.defaults, gpu=GpuSeries(exporter=exporter))
    scaled(world, gpu=60)
    [made] = [child for (kind, _), child in world.children.items() if kind == "ScaledObject"]
    query = made["spec"]["triggers"][0]["metadata"]["query"]
    said = query.count('exported_namespace="')
    assert said == query.count(f'namespace="{exporter}",exported_namespace="') == 2 * bool(exporter)
    assert query.count('{namespace="shop",pod=') == 2


def test_a_detector_that_goes_by_cpu_alone_is_as_it_was(world: Any) -> None:
    scaled(world)
    [hpa] = [c for (kind, _), c in world.children.items() if kind == "HorizontalPodAutoscaler"]
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert {k: v for k, v in hpa["spec"].items() if k != "scaleTargetRef"} == {
        "minReplicas": 1,
        "maxReplicas": 9,
        "metrics": [{"type": "Resource", "resource": cpu}],
    }
    assert world.status().autoscaling is None


@pytest.mark.parametrize("strategy", ["time-slicing", "mps"])
def test_on_gpus_that_are_shared_the_other_metrics_go_on(world: Any, strategy: str) -> None:
    scaled(world, strategy=strategy, gpu=60, load=70)
    assert triggers(world) == ["load"]
    reason, message = limited(world) or ("", "")
    assert reason == "SharedGPU"
    assert "node n1 shares its GPUs" in message


def test_on_gpus_that_are_shared_nothing_else_to_go_by_holds_what_runs(world: Any) -> None:
    scaled(world, strategy="mps", gpu=60)
    assert least(world) == 4
    assert "4 replicas are held" in (limited(world) or ("", ""))[1]


def test_gpus_without_keda_hold_what_runs_unless_there_is_more_to_go_by(world: Any) -> None:
    scaled(world, keda=False, gpu=60)
    assert least(world) == 4
    reason, message = limited(world) or ("", "")
    assert reason == "ProviderMissing"
    assert "install KEDA" in message
    scaled(world, keda=False, gpu=60, load=70)
    assert world.think().followed is not None
    assert (limited(world) or ("", ""))[0] == "ProviderMissing"


def test_a_gpu_that_is_claimed_is_ones_own_whatever_the_node_shares_beside_it(world: Any) -> None:
    published = Device("gpu.nvidia.com", "n1", "gpu-0", "n1")
    world.inventory = Inventory({"gpu.nvidia.com": ()}, (published,) * 4)
    world.nodes, world.keda = [a_node("time-slicing")], True
    world.defaults = replace(world.defaults, prometheus="http://prom:9090")
    scaling = {"minReplicas": 1, "maxReplicas": 4, "gpu": 60}
    world.edit(
        replicas=None, accelerator={"deviceClassName": "gpu.nvidia.com"}, autoscaling=scaling
    )
    world.settle()
    assert triggers(world) == ["gpu"]
    assert (limited(world) or ("", ""))[0] == "KedaSilent", "nobody plays KEDA here"


def test_a_gpu_that_nobody_shares_is_no_limit(world: Any) -> None:
    reason, _ = limited(scaled(world, strategy="none", gpu=60, load=70)) or ("", "")
    assert triggers(world) == ["load", "gpu"]
    assert reason == "KedaSilent", "nobody plays KEDA here"
