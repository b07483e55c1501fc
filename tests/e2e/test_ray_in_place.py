"""A detector on Ray that changes in place and loses parts, with a Redis; `make test-all` alone.

Each test brings about what it starts from, whatever became of those before it.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from cluster import redis
from demo_cluster import pictures, ray, ray_pods
from demo_cluster.detector import Detector, condition, told
from demo_cluster.errors import NotYet
from demo_cluster.forwarding import forwarded
from demo_cluster.installation import Installation
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Load, Target, wait_until_served
from demo_cluster.waiting import eventually

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

Kill = Callable[[Kubectl, str], None]

STATED, CANARY = ray.example()
RESOURCES = STATED["spec"]["resources"]
HEAD = CANARY["runtime"]["ray"]["head"]
STARTS_S = ray.PATIENCE_S
REQUESTS = 200


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {}  # it wants KubeRay to be there first


@dataclass
class OnRay:
    """A detector whose only revision is on Ray."""

    detector: Detector
    target: Target
    data: list[bytes]

    @property
    def kubectl(self) -> Kubectl:
        return self.detector.kubectl

    @property
    def revision(self) -> str:
        return str(self.detector.raw()["status"]["stable"]["revision"])

    def head(self) -> str:
        return ray_pods.head(self.kubectl, self.revision)

    def workers(self) -> dict[str, str]:
        return ray_pods.workers(self.detector, self.revision)

    def replicas(self) -> set[tuple[str, str]]:
        return ray_pods.replicas(self.detector, self.revision)

    def with_replicas(self, count: int) -> None:
        self.detector.patch({"autoscaling": None, "replicas": count})
        self.whole(count)

    def whole(self, count: int) -> None:
        """Wait until there are so many replicas, no fewer and no more."""

        def look() -> None:
            raw = self.detector.acted_on()
            stable, there = raw["status"]["stable"], len(self.workers())
            if (stable["ready"], stable["desired"], there) != (count, count, count):
                raise NotYet(f"{stable}; {there} workers; {told(condition(raw, 'Ready'))}")

        eventually(f"{count} replicas", look, within_s=STARTS_S, hint=self.detector.hint())

    def keys(self) -> list[str]:
        """Return what Ray keeps in the Redis."""
        scan = ("exec", f"deployment/{redis.NAME}", "--", "redis-cli", "--scan")
        return self.kubectl.run(*scan).split()


@pytest.fixture(scope="module")
def pier(
    with_ray: Installation, make: Any, kubectl: Kubectl, routed: Any, target: Any, images: Any
) -> Iterator[OnRay]:
    """One on Ray, with one replica, whose cluster is remembered by a Redis with a password."""
    redis.install(kubectl.namespace, secrets.token_hex(16))
    password = {"secretName": redis.NAME, "key": "password"}
    remembered = {"redis": {"address": redis.ADDRESS, "password": password}}
    runtime = {"engine": "ray", "ray": {"head": HEAD} | remembered}
    detector = make("pier", runtime=runtime, resources=RESOURCES, traffic=routed("pier"))
    detector.wait_for("Ready", within_s=STARTS_S)
    data = [image.data for image in images]
    wait_until_served(target("pier"), data, within_s=300)
    yield OnRay(detector, target("pier"), data)
    detector.delete()
    gone(kubectl)


def gone(kubectl: Kubectl) -> None:
    """Wait until no Ray cluster is left, nor the job that clears the Redis of it."""

    def look() -> None:
        if left := kubectl.list("rayservices,rayclusters"):
            raise NotYet(", ".join(f"{each['kind']}/{each['metadata']['name']}" for each in left))

    eventually("Ray's clusters to go", look, within_s=600)


def test_pictures_through_the_ingress(pier: OnRay, images: Any) -> None:
    answers = [asyncio.run(pictures.detect(pier.target, image)) for image in images]
    assert {answer["model"]["revision"] for answer in answers} == {pier.revision}
    objects = sum(len(image.objects) for image in images)
    found = [
        pictures.found(image.objects, answer["detections"])
        for image, answer in zip(images, answers, strict=True)
    ]
    assert sum(found) >= 0.7 * objects


def test_the_head_has_no_limit_of_cpu(pier: OnRay) -> None:
    pod = pier.kubectl.find("pod", pier.head())
    assert pod
    limits = {c["name"]: c["resources"].get("limits", {}) for c in pod["spec"]["containers"]}
    assert limits.keys() == {"ray-head", "autoscaler"}
    assert not any("cpu" in each for each in limits.values())


def test_a_job_without_the_token_is_refused(pier: OnRay) -> None:
    [service] = [
        name
        for each in pier.kubectl.list("services", "ray.io/node-type=head")
        if (name := each["metadata"]["name"]) == f"{pier.revision}-head-svc"
    ]

    async def post(url: str) -> int:
        job = {"entrypoint": "id"}
        async with aiohttp.ClientSession() as session, session.post(url, json=job) as answer:
            return answer.status

    with forwarded(pier.kubectl, service, port=8265) as dashboard:
        assert asyncio.run(post(f"{dashboard.url}/api/jobs/")) == 401


def test_the_number_of_replicas_changes_in_place(pier: OnRay) -> None:
    pier.with_replicas(1)
    revision, workers, replicas = pier.revision, pier.workers(), pier.replicas()
    assert len(replicas) == 1
    pier.with_replicas(2)
    assert pier.revision == revision
    assert workers.items() < pier.workers().items()
    assert replicas < pier.replicas()
    assert len(pier.replicas()) == 2


def test_a_killed_worker_is_replaced_and_the_other_one_has_the_requests(
    pier: OnRay, kill: Kill
) -> None:
    pier.with_replicas(2)
    killed = min(pier.workers())
    with Load(pier.target, pier.data, per_second=5) as load:
        load.wait_for(20, within_s=120)
        kill(pier.kubectl, killed)

        def seen() -> None:
            if killed in pier.workers():
                raise NotYet(f"{killed} is there")

        eventually("KubeRay to see it", seen, within_s=120, every_s=0.1)
        mark = load.answered
        pier.whole(2)
        load.wait_for(REQUESTS, within_s=300)
        assert load.summary(since=mark).failures == {}


def test_with_a_redis_workers_go_on_without_their_head(pier: OnRay, kill: Kill) -> None:
    pier.with_replicas(1)
    lost, workers, replicas = pier.head(), pier.workers(), pier.replicas()
    with Load(pier.target, pier.data, per_second=5) as load:
        load.wait_for(20, within_s=120)
        kill(pier.kubectl, lost)

        def another() -> None:
            if (now := pier.head()) == lost:
                raise NotYet(f"{now} is there")
            pod = pier.kubectl.find("pod", now) or {}
            if condition(pod, "Ready").get("status") != "True":
                raise NotYet(f"{now} is not ready")

        eventually("another head", another, within_s=STARTS_S)
        pier.whole(1)
        load.wait_for(REQUESTS, within_s=300)
        assert load.summary().failures == {}
    assert (pier.workers(), pier.replicas()) == (workers, replicas)


def test_replicas_follow_the_load_and_go_when_it_goes(pier: OnRay) -> None:
    pier.with_replicas(1)
    replicas = pier.replicas()
    scaling = {"minReplicas": 1, "maxReplicas": 2, "inFlight": 1}
    with Load(pier.target, pier.data, callers=8) as load:
        pier.detector.patch({"replicas": None, "autoscaling": scaling})
        pier.whole(2)
        assert replicas < pier.replicas()
        assert load.summary().failures == {}
    pier.whole(1)


def test_nothing_of_a_cluster_that_was_deleted_is_left_in_the_redis(pier: OnRay) -> None:
    assert pier.keys()
    pier.detector.delete()
    gone(pier.kubectl)
    assert pier.keys() == []


def test_what_cannot_start_says_why_and_is_made_anew(
    with_ray: Installation, make: Any, kubectl: Kubectl
) -> None:
    model = {"uri": "demo://shapes", "sha256": "0" * 64}
    runtime = {"engine": "ray", "ray": {"head": HEAD}}
    detector = make("quay", model=model, runtime=runtime, resources=RESOURCES)

    def look() -> Manifest:
        raw = detector.acted_on()
        found = condition(raw, "Progressing")
        if found.get("reason") != "DeployFailed" or not raw["status"].get("remade"):
            raise NotYet(f"{told(found)}; {raw['status'].get('remade')}")
        return found

    failed = eventually("it to be made anew", look, within_s=STARTS_S, hint=detector.hint())
    assert "digest" in failed["message"]
    assert "Traceback" not in failed["message"]
    detector.delete()
    gone(kubectl)
