"""From a Deployment to Ray and back under load, under a real KubeRay; `make test-all` alone.

Each test brings about what it starts from, whatever became of those before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from demo_cluster import ray, release
from demo_cluster.detector import Detector
from demo_cluster.installation import Installation
from demo_cluster.judged import kept_by, synced
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Load, Summary, wait_until_served
from demo_cluster.ray_pods import head

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

Kill = Callable[[Kubectl, str], None]

STATED, CANARY = ray.example()
RESOURCES = STATED["spec"]["resources"]
STARTS_S = ray.PATIENCE_S
REQUESTS = 200


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {}  # they want KubeRay to be there first


@dataclass
class Crossing:
    """A detector under load that goes from one engine to the other."""

    detector: Detector
    load: Load
    on_deployments: str

    def stable(self) -> str:
        return str(self.detector.raw()["status"]["stable"]["revision"])

    def with_canary(self, weight: int) -> str:
        """Have it on a Deployment with a canary on Ray; return the canary's revision."""
        self.back()
        self.detector.patch({"canary": {**CANARY, "weight": weight}})
        self.detector.wait_for("CanaryHealthy", within_s=STARTS_S)
        return str(self.detector.wait_weight(weight)["revision"])

    def promote(self) -> None:
        revision = str(self.detector.raw()["status"]["canary"]["revision"])
        self.release(release.promoted(self.detector.raw()["spec"]), revision)

    def back(self) -> None:
        """Have it on a Deployment alone."""
        deployment = {"engine": "deployment", "ray": None}
        change = {"runtime": deployment, "canary": None, "rollout": None}
        self.release(change, self.on_deployments)

    def release(self, change: Manifest, to: str) -> None:
        ray.released(self.detector, change, to, self.load)
        self.detector.wait_settled(within_s=STARTS_S)

    def during(self, act: Callable[[], Any]) -> Summary:
        """Return what became of the requests during `act` and a moment after it."""
        mark = self.load.answered
        act()
        self.load.wait_for(REQUESTS, within_s=300)
        return self.load.summary(since=mark)


def nothing_failed(summary: Summary) -> None:
    assert summary.failures == {}
    assert summary.requests >= REQUESTS


@pytest.fixture(scope="module")
def crossing(
    with_ray: Installation, make: Any, routed: Any, target: Any, images: Any
) -> Iterator[Crossing]:
    """One on a Deployment, asked at half of what the slower of the two engines carries."""
    detector = make("yard", resources=RESOURCES, traffic={**routed("yard"), "retries": 0})
    detector.wait_ready()
    data = [image.data for image in images]
    wait_until_served(target("yard"), data, within_s=300)
    rate = ray.measured(detector, target("yard"), data, CANARY)
    with Load(target("yard"), data, per_second=rate.asked) as load:
        stable = detector.raw()["status"]["stable"]["revision"]
        yield Crossing(detector, load, str(stable))
    detector.delete()


def test_a_canary_on_ray_starts_and_has_its_share(crossing: Crossing) -> None:
    def start() -> None:
        canary = crossing.with_canary(10)
        mark = crossing.load.answered
        crossing.load.wait_for(3 * REQUESTS, within_s=300)
        release.check_share(crossing.load.summary(since=mark), canary, 10)

    nothing_failed(crossing.during(start))


def test_a_promotion_from_a_deployment_to_ray(crossing: Crossing) -> None:
    canary = crossing.with_canary(10)
    workers = release.uids(crossing.detector, canary)
    nothing_failed(crossing.during(crossing.promote))
    assert crossing.stable() == canary
    assert workers == release.uids(crossing.detector, canary)


def test_back_from_ray_to_a_deployment(crossing: Crossing) -> None:
    crossing.with_canary(10)
    crossing.promote()
    nothing_failed(crossing.during(crossing.back))


def test_without_a_redis_a_lost_head_leaves_the_requests_to_who_is_alive(
    crossing: Crossing, kill: Kill
) -> None:
    canary = crossing.with_canary(50)
    lost = head(crossing.detector.kubectl, canary)
    kill(crossing.detector.kubectl, lost)
    crossing.detector.wait_weight(0, within_s=STARTS_S)
    crossing.load.wait_answered_by(crossing.on_deployments, within_s=STARTS_S)

    def back() -> None:
        crossing.detector.wait_weight(50, within_s=STARTS_S)
        assert head(crossing.detector.kubectl, canary) != lost
        crossing.load.wait_for(REQUESTS, within_s=300)

    assert crossing.during(back).failures == {}
    assert crossing.stable() == crossing.on_deployments


def test_a_canary_of_either_engine_is_shown_copies_and_answers_what_matches(
    crossing: Crossing, target: Any, images: Any
) -> None:
    """Pods of one engine pair what they answer with what pods of the other one do."""
    looks_on = {"rollout": {"analysis": {"mode": "DryRun"}}}

    def judged(canary: str) -> None:
        assert kept_by(crossing.detector, canary, within_s=STARTS_S) > 0.99
        data = [image.data for image in images]
        with Load(target("yard"), data, headers={"x-canary": "always"}, per_second=2) as asked:
            asked.wait_for(20, within_s=300)
            assert set(asked.summary(since=0).revisions) == {canary}

    with synced(crossing.detector):
        canary = crossing.with_canary(10)
        crossing.detector.patch(looks_on)
        judged(canary)
        crossing.detector.patch({"rollout": None})
        crossing.promote()
        other = {**CANARY, "runtime": {"engine": "deployment", "ray": None}}
        crossing.detector.patch({"canary": other, **looks_on})
        judged(str(crossing.detector.wait_weight(10, within_s=STARTS_S)["revision"]))
    crossing.back()
