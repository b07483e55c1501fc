"""Whatever happens to a detector under load, no request fails; the proxies retry none.

Pictures keep coming through the ingress while it is released, rolled back, and while the operator,
its pods and the API server are killed. All weights and replicas are logged each 100 ms.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo_cluster import release
from demo_cluster.detector import Detector, condition, told
from demo_cluster.errors import KubectlFailed, NotYet
from demo_cluster.kube import DETECTORS, Manifest, Watch
from demo_cluster.load import Load, Summary, wait_until_served
from demo_cluster.sampler import Sampler, broken_promises
from demo_cluster.waiting import eventually

REPLICAS = 2
V1, V2 = {"uri": "demo://shapes"}, {"uri": "demo://shapes-v2"}
STEPS = [{"weight": 20, "hold": "3s"}, {"weight": 60, "hold": "3s"}]
DRAIN_S = 9.0  # what is installed, less the moments between two looks


@dataclass
class Busy:
    """A detector under load."""

    detector: Detector
    load: Load
    sampler: Sampler
    operator: Any
    leader: Any

    def during(self, act: Callable[[], None]) -> Summary:
        """Return what became of the requests during `act` and a moment after it."""
        mark = self.load.answered
        act()
        self.load.wait_for(100, within_s=300)
        return self.load.summary(since=mark)

    def release(self, model: dict[str, str]) -> None:
        self.detector.patch({"model": model})
        self.detector.wait_released(model["uri"])

    def stable(self) -> str:
        return str(self.detector.raw()["status"]["stable"]["revision"])

    def stable_pods(self) -> dict[str, str]:
        """Return the pods of the stable revision that are there to stay: uid and name."""
        pods = self.detector.pods(self.stable())
        return {p["metadata"]["uid"]: p["metadata"]["name"] for p in pods if _stays(p)}

    def whole_again(self) -> None:
        def ready() -> None:
            stable = self.detector.acted_on()["status"]["stable"]
            if stable["ready"] < REPLICAS:
                raise NotYet(f"{stable['ready']} of {REPLICAS} are ready")

        eventually("all replicas", ready, within_s=300)


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {"busy": {"replicas": REPLICAS, "traffic": {**routed("busy"), "retries": 0}}}


@pytest.fixture(scope="module")
def busy(fleet, target, images, leader, operator_kubectl) -> Iterator[Busy]:
    detector = fleet["busy"]
    detector.wait_ready()
    data = [image.data for image in images]
    wait_until_served(target("busy"), data, within_s=300)
    sampler = Sampler(detector.kubectl.namespace, "busy")
    with sampler, Load(target("busy"), data) as load:
        yield Busy(detector, load, sampler, operator_kubectl, leader)
    detector.leave()


def nothing_failed(summary: Summary) -> None:
    assert summary.failures == {}
    assert summary.requests > 100


def test_a_promotion(busy):
    def promote() -> None:
        busy.detector.patch({"canary": {"model": V2, "weight": 10}})
        busy.detector.wait_weight(10)
        busy.detector.patch({"canary": {"weight": 50}})
        busy.detector.wait_weight(50)
        busy.detector.patch({"model": V2, "canary": None})
        busy.detector.wait_released(V2["uri"])

    nothing_failed(busy.during(promote))


def test_a_roll_back(busy):
    nothing_failed(busy.during(lambda: busy.release(V1)))


def test_a_release_in_steps_that_goes_its_way_alone(busy):
    stepped = {"strategy": "Canary", "steps": STEPS, "maxSurge": 1}
    model = {"uri": "demo://shapes-v2", "classes": []}

    def walk() -> None:
        confidence = {"confidence": 0.3}  # another revision, which was never released
        busy.detector.patch({"rollout": stepped, "model": model, "inference": confidence})
        busy.detector.wait_released(V2["uri"])

    nothing_failed(busy.during(walk))
    busy.detector.patch({"rollout": None})


def test_a_promotion_goes_on_when_the_operator_is_killed(busy):
    """Its pods are the canary's and those that it still has to start."""

    def kill() -> None:
        busy.detector.patch({"canary": {"model": V1, "weight": 50}})
        canary = busy.detector.wait_weight(50)["revision"]
        before = release.uids(busy.detector, canary)
        with busy.detector.kubectl.watched(DETECTORS, busy.detector.name) as watch:
            busy.detector.patch(release.promoted(busy.detector.raw()["spec"]))
            eventually(
                "the promotion to begin", lambda: under_way(watch), within_s=300, every_s=0.1
            )
        killed = busy.leader.kill()
        busy.detector.wait_released(V1["uri"])
        assert busy.stable() == canary
        assert before
        assert before <= release.uids(busy.detector, canary)
        assert busy.leader.successor(killed) != killed

    nothing_failed(busy.during(kill))


def under_way(watch: Watch) -> None:
    """Look at all that was ever said since the watch began: it may have been said for a moment."""
    first, *later = watch.versions
    for raw in later:
        generation = raw["metadata"]["generation"]
        acted_on = raw["status"]["observedGeneration"] == generation
        is_new = acted_on and generation > first["metadata"]["generation"]
        if is_new and condition(raw, "Progressing")["reason"] == "RollingOut":
            return
    raise NotYet(told(condition(watch.versions[-1], "Progressing")))


@pytest.mark.nightly
def test_the_leader_changes_in_mid_release(busy):
    busy.detector.wait_settled()

    def change() -> None:
        before = busy.leader.identity()
        busy.detector.patch({"model": V2})
        busy.operator.run("delete", "pod", before.rsplit("_", 1)[0], "--wait=false")
        busy.detector.wait_released(V2["uri"])
        assert busy.leader.successor(before)

    nothing_failed(busy.during(change))
    busy.detector.wait_settled()


def test_pods_are_evicted_as_a_drain_does(busy):
    busy.whole_again()
    pods = busy.stable_pods()
    assert len(pods) == REPLICAS

    def drain() -> None:
        for pod in pods.values():
            eventually(f"the budget to let {pod} go", lambda: _evict(busy, pod), within_s=300)  # noqa: B023
        busy.whole_again()

    nothing_failed(busy.during(drain))
    assert not busy.stable_pods().keys() & pods.keys()


@pytest.mark.nightly
def test_a_pod_is_deleted(busy):
    busy.whole_again()
    pod = next(iter(busy.stable_pods().values()))

    def delete() -> None:
        busy.detector.kubectl.run("delete", "pod", pod, "--wait=false")
        busy.load.wait_for(200, within_s=300)
        busy.whole_again()

    nothing_failed(busy.during(delete))


@pytest.mark.nightly
def test_the_api_server_is_restarted(busy):
    before = busy.stable_pods()
    after: dict[str, str] = {}

    def restart() -> None:
        kill = "kill -9 $(pgrep -x kube-apiserver)"
        name = busy.detector.pods()[0]["spec"]["nodeName"]
        subprocess.run(["docker", "exec", name, "sh", "-c", kill], check=True, timeout=60)

        def answers() -> None:
            try:
                busy.operator.run("get", "--raw", "/readyz")
            except KubectlFailed as error:
                raise NotYet(str(error)) from None

        eventually("the API server to be back", answers, within_s=300)
        after.update(busy.stable_pods())
        busy.detector.patch({"model": V1})
        busy.detector.wait_released(V1["uri"])

    nothing_failed(busy.during(restart))
    assert before == after, "a pod went because the API server did"


def test_of_all_requests_none_failed_and_no_container_restarted(busy, capsys):
    whole = busy.load.summary()
    seconds = busy.sampler.samples[-1].at - busy.sampler.samples[0].at
    rate = whole.requests / seconds
    told = (
        f"under load: {whole.requests} requests in {seconds:.0f} s, {rate:.0f} per second,"
        f" {whole.failed} failed, p50 {whole.p50_ms:.0f} ms, p99 {whole.p99_ms:.0f} ms"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert whole.failures == {}
    assert busy.detector.restarts() == 0


def test_the_log_of_weights_and_replicas_breaks_no_promise(busy):
    assert len(busy.sampler.samples) > 100
    assert not list(broken_promises(busy.sampler.samples, full=REPLICAS, drain_s=DRAIN_S))


def _stays(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _evict(busy: Busy, pod: str) -> None:
    namespace = busy.detector.kubectl.namespace
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    try:
        busy.detector.kubectl.run(
            "create", "--raw", path, "--filename=-", stdin=json.dumps(eviction)
        )
    except KubectlFailed as error:
        if "(NotFound)" not in str(error):  # evicted, and the answer to that was lost
            raise NotYet(str(error)) from None
