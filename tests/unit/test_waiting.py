"""Nothing waits for ever untold: pods that cannot start, and an autoscaler that cannot scale."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from yolofleet.api.names import REVISION_LABEL
from yolofleet.cluster import kinds
from yolofleet.cluster.cache import Cache
from yolofleet.cluster.complaints import Complaints
from yolofleet.runtime.client import Listing
from yolofleet.runtime.errors import Forbidden
from yolofleet.runtime.kind import EVENT
from yolofleet.workloads.failures import (
    Complaint,
    failures_by_revision,
    next_look_at,
    pod_failure,
)

BEGUN = datetime(2030, 1, 1, tzinfo=UTC)


def after(**time):
    return BEGUN + timedelta(**time)


def a_pod(state=None, volumes=()):
    told = {"state": state or {"waiting": {"reason": "ContainerCreating"}}, "ready": False}
    conditions = [
        {"type": kind, "status": status, "lastTransitionTime": BEGUN.isoformat()}
        for kind, status in (("PodScheduled", "True"), ("Ready", "False"))
    ]
    return {
        "metadata": {
            "name": "p",
            "namespace": "shop",
            "uid": "u",
            "labels": {REVISION_LABEL: "gate-1"},
        },
        "spec": {"volumes": list(volumes)},
        "status": {
            "conditions": conditions,
            "containerStatuses": [{"name": "yoloserve", "image": "serve:1", **told}],
        },
    }


SETUP = 'MountVolume.SetUp failed for volume "{}" : {}'


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            SETUP.format("api-keys", 'secret "nope" not found'),
            "volume api-keys cannot be mounted: Secret nope is not in namespace shop; create"
            " what is missing, or change spec.access.apiKeys",
        ),
        (
            SETUP.format("c", 'configmap "nope" not found'),
            "ConfigMap nope is not in namespace shop; create what is missing, or change"
            " spec.podTemplate.spec.volumes",
        ),
        (
            SETUP.format("all", '[secret "a" not found, configmap "b" not found]'),
            "Secret a, ConfigMap b are not in namespace shop",
        ),
        (
            SETUP.format("api-keys", "references non-existent secret key: keys"),
            "has no key keys; add it, or change spec.access.apiKeys",
        ),
        (SETUP.format("nfs", "mount failed: exit status 32"), "mount failed: exit status 32"),
    ],
)
def test_what_a_pod_lacks_to_start_is_told_in_plain_words(message, words):
    said = Complaint("FailedMount", message)
    failure = pod_failure(a_pod(), after(seconds=20), said)
    assert failure is not None
    assert failure.reason == "MountFailed"
    assert words in failure.message
    assert (failure.lasting, failure.since) == (False, BEGUN)  # it may be made in a moment
    assert pod_failure(a_pod(), after(minutes=1), said).lasting


def test_a_claim_that_is_missing_is_told_with_its_field():
    pod = a_pod(volumes=[{"name": "model", "persistentVolumeClaim": {"claimName": "models"}}])
    told = '0/1 nodes are available: persistentvolumeclaim "models" not found.'
    condition = {"type": "PodScheduled", "status": "False", "message": told}
    pod["status"] = {"conditions": [condition | {"lastTransitionTime": BEGUN.isoformat()}]}
    failure = pod_failure(pod, BEGUN)
    assert failure is not None
    assert failure.reason == "Unschedulable"
    assert "PersistentVolumeClaim models is not in namespace shop" in failure.message


def test_a_pod_that_no_node_takes_is_missed_also_when_nobody_says_since_when():
    pod = a_pod()
    pod["metadata"]["creationTimestamp"] = BEGUN.isoformat()
    pod["status"] = {"conditions": [{"type": "PodScheduled", "status": "False"}]}
    told = [pod_failure(pod, after(seconds=seconds)) for seconds in (59, 60)]
    assert [(each.reason, each.lasting) for each in told] == [
        ("Unschedulable", False),
        ("Unschedulable", True),
    ]


def test_a_pod_that_starts_as_long_as_others_is_not_asked_about():
    assert pod_failure(a_pod(), after(minutes=5)) is None  # a large image is pulled
    assert next_look_at([a_pod()], BEGUN) == timedelta(seconds=20)
    assert next_look_at([a_pod()], after(seconds=30)) == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (a_pod(), "container yoloserve waits (ContainerCreating)"),
        (a_pod({"running": {}}), "container yoloserve runs and is not ready"),
        (
            {"metadata": {"name": "p", "creationTimestamp": BEGUN.isoformat()}, "status": {}},
            "check spec.podTemplate.spec.schedulerName",
        ),
    ],
)
def test_a_pod_that_is_not_ready_for_ten_minutes_is_told_whatever_it_is_at(pod, words):
    assert pod_failure(pod, after(minutes=9)) is None
    failure = pod_failure(pod, after(minutes=10))
    assert failure is not None
    assert (failure.reason, failure.lasting) == ("ProgressDeadlineExceeded", True)
    assert words in failure.message


def test_a_pod_that_its_node_gave_up_says_why_until_another_is_there():
    words = "Pod was rejected: Allocate failed: devices unavailable for nvidia.com/gpu"
    given_up = a_pod()
    given_up["metadata"]["creationTimestamp"] = BEGUN.isoformat()
    given_up["status"] = {
        "phase": "Failed", "reason": "UnexpectedAdmissionError", "message": words
    }  # fmt: skip
    [failure] = failures_by_revision([given_up], {}, after(minutes=11)).values()
    assert (failure.reason, failure.lasting) == ("StartFailed", True)
    assert failure.message == f"a node gave a pod up: UnexpectedAdmissionError: {words}"
    younger = a_pod({"running": {}})
    younger["metadata"] = younger["metadata"] | {"creationTimestamp": after(minutes=1).isoformat()}
    assert not failures_by_revision([younger, given_up], {}, after(minutes=5))


def test_the_deadline_of_a_deployment_is_read_back(world):
    world.broken = {"demo://shapes"}
    world.settle(2)
    [(name, deployment)] = world.deployments().items()
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    deployment["status"]["conditions"] = [late]
    world.reconcile()
    told = world.status().condition("Progressing")
    assert (told.status, told.reason) == ("False", "ProgressDeadlineExceeded")
    assert f"kubectl describe pod -l {REVISION_LABEL}={name}" in told.message
    assert world.status().condition("Stalled").status == "True"


class Events:
    """A client that lists the Events of one pod."""

    def __init__(self, *items, error=None):
        self.items, self.error, self.asked = items, error, []

    async def list(self, kind, keep, *, namespace, fields):
        assert kind is EVENT
        self.asked.append((namespace, fields))
        if self.error:
            raise self.error
        return Listing([keep(item) for item in self.items], 1)


def an_event(message, at, reason="FailedMount"):
    return {"reason": reason, "message": message, "lastTimestamp": at}


def test_a_pod_that_is_stuck_is_asked_about_once_a_while():
    lacks = an_event(SETUP.format("c", 'configmap "c" not found'), "2030-01-01T00:00:01Z")
    vague = an_event("timed out waiting for the condition", "2030-01-01T00:00:09Z")
    seconds, client = [0.0], Events(lacks, vague)
    complaints = Complaints(client, clock=lambda: seconds[0])

    def about(pod, now):
        return asyncio.run(complaints.about([pod], now))

    assert about(a_pod(), after(seconds=19)) == {}
    assert client.asked == []
    for _ in range(3):  # the cause is told, though something vaguer is younger
        assert about(a_pod(), after(seconds=20))["u"].message == lacks["message"]
    assert client.asked == [("shop", "involvedObject.uid=u,type=Warning")]
    seconds[0] += 60
    about(a_pod(), after(seconds=80))
    assert len(client.asked) == 2


def test_without_the_right_to_read_events_nothing_fails():
    client = Events(error=Forbidden("events is forbidden"))
    assert asyncio.run(Complaints(client).about([a_pod()], after(minutes=1))) == {}


def autoscaler(*conditions):
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "gate-1", "namespace": "shop", "uid": "h", "resourceVersion": "7"},
        "spec": {"maxReplicas": 2},
        "status": {"conditions": list(conditions)},
    }


def condition(kind, status, reason, message="", since=BEGUN):
    told = {"type": kind, "status": status, "reason": reason, "message": message}
    return told | {"lastTransitionTime": since.isoformat()}


def limited_by(world, *conditions):
    """Reconcile with an autoscaler that says so; return what is said of it."""
    [key] = [key for key in world.children if key[0] == "HorizontalPodAutoscaler"]
    world.children[key]["status"] = autoscaler(*conditions)["status"]
    world.reconcile()
    return world.status().condition("AutoscalingLimited")


NO_METRICS = condition(
    "ScalingActive",
    "False",
    "FailedGetResourceMetric",
    "unable to fetch metrics from resource metrics API: the server could not find the requested"
    " resource (get pods.metrics.k8s.io)",
)
NO_REQUEST = condition(
    "ScalingActive",
    "False",
    "FailedGetResourceMetric",
    "missing request for cpu in container sidecar of Pod gate-1-5d4f-x2x9q",
)


@pytest.mark.parametrize(
    ("told", "reason", "words"),
    [
        (NO_METRICS, "FailedGetResourceMetric", "install metrics-server"),
        (NO_REQUEST, "FailedGetResourceMetric", "of a pod; set resources.requests.cpu"),
        (condition("AbleToScale", "False", "FailedGetScale", "no"), "FailedGetScale", "no effect"),
        (
            condition("ScalingLimited", "True", "TooManyReplicas"),
            "TooManyReplicas",
            "spec.autoscaling.maxReplicas (2)",
        ),
    ],
)
def test_an_autoscaler_that_cannot_scale_is_told_once_it_has_lasted(world, told, reason, words):
    world.edit(replicas=None, autoscaling={"minReplicas": 1, "maxReplicas": 2, "cpu": 70})
    world.settle()
    world.now = BEGUN + timedelta(seconds=59)
    assert limited_by(world, told) is None
    world.now += timedelta(seconds=1)
    limited = limited_by(world, told)
    assert (limited.status, limited.reason) == ("True", reason)
    assert words in limited.message
    assert "x2x9q" not in limited.message  # another pod each time would be another status
    assert world.status().condition("Released").status == "True"
    assert limited_by(world) is None


def test_an_autoscaler_without_metrics_still_obeys_the_floor_and_it_is_said_so(world):
    world.edit(replicas=None, autoscaling={"minReplicas": 1, "maxReplicas": 2, "load": 70})
    world.settle()
    world.now = BEGUN + timedelta(seconds=60)
    limited = limited_by(world, NO_METRICS)
    assert limited.message.startswith("replicas go up with the load, never down: unable to fetch")
    assert "install metrics-server" in limited.message


@pytest.mark.parametrize(
    "told",
    [
        condition("ScalingActive", "False", "ScalingDisabled"),
        condition("ScalingLimited", "True", "TooFewReplicas"),
        condition("ScalingLimited", "False", "DesiredWithinRange"),
    ],
)
def test_an_autoscaler_at_rest_is_no_limit(world, told):
    world.edit(replicas=None, autoscaling={"minReplicas": 1, "maxReplicas": 2, "cpu": 70})
    world.settle()
    assert limited_by(world, told) is None


def test_what_an_autoscaler_measures_wakes_nobody_and_what_it_cannot_does():
    cache, version = Cache(), iter(range(10, 20))

    def woken(*conditions, **status):
        manifest = autoscaler(*conditions)
        manifest["metadata"] |= {
            "resourceVersion": str(next(version)),
            "labels": {"yolofleet.io/detector": "gate"},
        }
        manifest["status"] |= status
        return cache.put(kinds.HPA, manifest)

    active = condition("ScalingActive", "True", "ValidMetricFound")
    assert woken(active)
    assert woken(active, currentMetrics=[1]) is None
    assert woken(NO_METRICS) == "shop/gate"
    assert woken(NO_METRICS | {"message": "other words"}) is None
