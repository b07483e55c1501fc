"""A revision that sees nothing is called off by itself, before anybody has had an answer of it."""

from collections.abc import Callable
from typing import Any

from demo_cluster.detector import condition, told
from demo_cluster.errors import NotYet
from demo_cluster.kube import Manifest
from demo_cluster.load import Load, wait_until_served
from demo_cluster.waiting import eventually

BLIND = 0.98  # the confidence below which it says nothing: next to all


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    rollout = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "10s"}], "analysis": {}}
    traffic = {**routed("judged"), "retries": 0}
    return {"judged": {"replicas": 1, "traffic": traffic, "rollout": rollout}}


def test_a_blind_revision_is_called_off_in_the_dark(fleet: Any, target: Any, images: Any) -> None:
    """Pods pair their answers and tell; the operator reads, judges and takes it back."""
    detector = fleet["judged"]
    detector.wait_ready()
    stable = detector.raw()["status"]["stable"]["revision"]
    data = [image.data for image in images]
    wait_until_served(target("judged"), data, within_s=120)

    def called_off() -> Manifest:
        raw: Manifest = detector.acted_on()
        found = condition(raw, "Progressing")
        if found.get("reason") != "AnalysisFailed" or found["status"] != "False":
            raise NotYet(f"{told(found)}; {told(condition(raw, 'Analysed'))}")
        return raw

    with Load(target("judged"), data) as load:
        detector.patch({"inference": {"confidence": BLIND}})
        raw = eventually("it is called off", called_off, within_s=300)
        load.wait_for(50, within_s=60)
        summary = load.summary(since=0)
    [failed] = raw["status"]["analysis"]["failed"]
    assert failed["check"] in ("kept", "keptByClass", "keptBySize", "seesNothing")
    assert "kubectl" in condition(raw, "Progressing")["message"]
    assert raw["status"]["stable"]["revision"] == stable
    assert summary.failures == {}
    assert set(summary.revisions) == {stable}, "not one answer of it"
    detector.leave()
