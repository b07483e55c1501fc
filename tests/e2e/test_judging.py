"""A revision that sees nothing is called off by itself, before anybody has had an answer of it."""

from collections.abc import Callable
from typing import Any

from demo_cluster.judged import call_off, synced
from demo_cluster.kube import Manifest
from demo_cluster.load import Load, wait_until_served


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    rollout = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "10s"}], "analysis": {}}
    traffic = {**routed("judged"), "retries": 0}
    return {"judged": {"replicas": 1, "traffic": traffic, "rollout": rollout}}


def test_a_blind_revision_is_called_off_in_the_dark(fleet: Any, target: Any, images: Any) -> None:
    """Pods pair their answers and tell; the operator reads, judges and takes it back."""
    detector = fleet["judged"]
    detector.wait_ready()
    data = [image.data for image in images]
    wait_until_served(target("judged"), data, within_s=300)
    with synced(detector), Load(target("judged"), data) as load:
        called_off = call_off(detector, load)
        load.wait_for(50, within_s=300)
        summary = load.summary(since=0)
    assert called_off.check in ("kept", "keptByClass", "keptBySize", "seesNothing")
    assert "kubectl" in called_off.message
    assert summary.failures == {}
    assert called_off.revision not in summary.revisions, "not one answer of it"
    detector.leave()
