"""What a real KubeRay said of RayServices, and what is made of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from yolofleet.workloads import ray_service

RECORDED = yaml.safe_load(Path(__file__).with_name("ray_statuses.yaml").read_text())
CREATED = "2026-11-29T23:20:00Z"
NOW = datetime(2026, 11, 29, 23, 21, tzinfo=UTC)


def pod(name: str, ready: str):
    return {
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


READY, UNREADY = pod("a", "True"), pod("b", "False")


@pytest.fixture
def read(world):
    """Return how a recorded status is read, of a revision with these workers."""

    def made(what, workers, **spec):
        world.edit(runtime={"engine": "ray"}, **spec)
        world.reconcile()
        [service] = [each for (kind, _), each in world.children.items() if kind == "RayService"]
        times = {"creationTimestamp": CREATED, "generation": RECORDED[what]["generation"]}
        told = {"metadata": service["metadata"] | times, "status": RECORDED[what]["status"]}
        return ray_service.read(service | told, workers, NOW)

    return made


@pytest.mark.parametrize(
    ("what", "workers", "ready", "settled", "reason"),
    [
        ("just made", [], 0, False, None),
        ("starts", [UNREADY], 0, True, None),
        ("runs, not counted yet", [READY], 0, True, None),
        ("serves", [READY], 1, True, None),
        ("one more is asked for", [READY, UNREADY], 1, True, None),
        ("a worker was killed", [READY], 1, True, None),
        ("its health check failed", [READY, UNREADY], 1, False, "Unhealthy"),
        ("the head is lost, there is a Redis", [READY], 1, False, "HeadLost"),
        ("another head, the same workers", [READY], 1, True, None),
        ("the head is lost, there is no Redis", [READY], 1, False, "HeadLost"),
        ("its workers went with it", [UNREADY], 0, False, None),
        ("no replica starts", [UNREADY], 0, False, "DeployFailed"),
    ],
)
def test_what_was_recorded_is_read_as_it_was(read, what, workers, ready, settled, reason):
    found = read(what, workers, replicas=2)
    said = found.failure.reason if found.failure else None
    assert (found.ready, found.settled, said) == (ready, settled, reason)
    assert (found.hopeless is not None) == (reason == "DeployFailed"), "then it is made anew"


def test_why_no_replica_starts_is_the_last_line_of_what_ray_says(read):
    message = read("no replica starts", [UNREADY]).failure.message
    assert message.startswith("Ray cannot start it: yoloserve.errors.DigestMismatch: ")


def test_the_workers_tell_what_the_autoscaler_went_to_and_the_status_does_not(read):
    what = "its autoscaler took one away"
    left = RECORDED[what]["status"]["activeServiceStatus"]["rayClusterStatus"]
    assert left["desiredWorkerReplicas"] == 2, "as KubeRay left it"
    scaling = {"minReplicas": 1, "maxReplicas": 2, "inFlight": 1}
    found = read(what, [READY], autoscaling=scaling, replicas=None)
    assert (found.ready, found.replicas) == (1, 1)


def test_every_record_is_read():
    used = {"its autoscaler took one away"} | {
        mark.args[1][number][0]
        for mark in test_what_was_recorded_is_read_as_it_was.pytestmark
        for number in range(len(mark.args[1]))
    }
    assert used == RECORDED.keys()
