"""Pods that do not serve, told in plain words."""

import json
from datetime import UTC, datetime

import orjson
import pytest

from yolofleet.workloads.failures import pod_failure

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def pod(**container):
    return {
        "metadata": {"name": "p", "labels": {}},
        "status": {"containerStatuses": [{"name": "yoloserve", "image": "serve:1", **container}]},
    }


def ended(code, message="", reason="Error"):
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


TOLD = json.dumps({"reason": "DigestMismatch", "message": "model has 12, spec wants 34"})


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}},
            "ImagePullFailed",
            "image serve:1: not found",
        ),
        (
            {"state": {"waiting": {"reason": "InvalidImageName"}}},
            "ImagePullFailed",
            "InvalidImageName",
        ),
        (
            {
                "state": {
                    "waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}
                }
            },
            "ContainerConfigRefused",
            "no secret",
        ),
        ({"state": ended(78, TOLD)}, "DigestMismatch", "model has 12, spec wants 34"),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(78, TOLD)},
            "DigestMismatch",
            "model has 12",
        ),
        ({"state": ended(78, "not json")}, "Crashed", "the server refused to start: not json"),
        ({"state": ended(137, reason="OOMKilled")}, "OutOfMemory", "resources.limits.memory"),
        (
            {"name": "sidecar", "state": ended(137, reason="OOMKilled")},
            "OutOfMemory",
            "container sidecar was killed for memory; raise its limit in spec.podTemplate.spec",
        ),
        ({"lastState": ended(1, "Traceback: boom")}, "Crashed", "code 1 (Error): Traceback: boom"),
    ],
)
def test_what_keeps_a_container_from_serving(container, reason, words):
    failure = pod_failure(pod(**container), NOW)
    assert failure is not None
    assert failure.reason == reason
    assert words in failure.message


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('{"reason": "Settled", "message": "all is well"}', "refused to start: all is well"),
        ('{"reason": "AwaitingApproval", "message": "approve"}', "refused to start: approve"),
        ('{"reason": "two words", "message": "m"}', "refused to start: m"),
        ('{"reason": "", "message": "m"}', "refused to start: m"),
        (r'{"reason": "Odd", "message": "\ud800"}', "refused to start: "),  # no Unicode
        ("[]", "refused to start: []"),
    ],
)
def test_a_server_has_no_word_of_the_operators_and_none_that_cannot_be_written(said, words):
    failure = pod_failure(pod(state=ended(78, said)), NOW)
    assert failure is not None
    assert failure.reason == "Crashed"
    assert words in failure.message
    orjson.dumps(failure.message)


def test_what_a_pod_says_is_one_plain_line():
    said = orjson.dumps({"reason": "Odd", "message": "a\x1b[31m\n\n b\u202e\u2066c\x00"}).decode()
    failure = pod_failure(pod(state=ended(78, said)), NOW)
    assert failure is not None
    assert (failure.reason, failure.message) == ("Odd", "a[31m bc")
    crashed = pod_failure(pod(state=ended(1, "Traceback:\n\x1b[1mboom")), NOW)
    assert crashed is not None
    assert crashed.message.endswith(": Traceback: [1mboom")
    refused = {"waiting": {"reason": "ErrImagePull", "message": "401:\n\x1b[1mby the registry"}}
    unpulled = pod_failure(pod(state=refused), NOW)
    assert unpulled is not None
    assert "401: [1mby the registry" in unpulled.message


@pytest.mark.parametrize(
    "container",
    [
        {"ready": True, "lastState": ended(1)},
        {"state": {"waiting": {"reason": "ContainerCreating"}}},
        {"state": {"running": {}}, "ready": False},
        {"state": ended(0, reason="Completed")},
    ],
)
def test_a_pod_that_serves_or_starts_is_no_failure(container):
    assert pod_failure(pod(**container), NOW) is None


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("2 Insufficient cpu.", " Add a node, or lower spec.resources.requests"),
        ("2 Insufficient memory", ". Add a node, or lower spec.resources.requests"),
        (
            "1 Insufficient cpu, 1 node(s) had untolerated taint {team: vision}.",
            " Add a node, or lower spec.resources.requests, or tolerate the taint in"
            " spec.podTemplate.spec.tolerations",
        ),
        (
            "2 node(s) didn't match Pod's node affinity/selector.",
            " Add a node, or change nodeSelector or affinity in spec.podTemplate.spec",
        ),
        ("1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.", ""),
        ("1 node(s) had volume node affinity conflict.", ""),
        ("1 Insufficient nvidia.com/gpu.", ""),  # GPUAvailable says what to do
    ],
)
def test_a_pod_that_no_node_fits_says_the_schedulers_words_and_what_helps(words, fix):
    unscheduled = {"type": "PodScheduled", "status": "False", "message": words}
    failure = pod_failure({"metadata": {}, "status": {"conditions": [unscheduled]}}, NOW)
    assert failure is not None
    assert failure.reason == "Unschedulable"
    assert failure.message == f"no node fits: {words}{fix}"


def test_the_failure_of_a_revision_reaches_the_condition_and_the_news(world):
    world.reconcile()
    [name] = world.deployments()
    failing = pod(state=ended(78, TOLD))
    failing["metadata"]["labels"]["yolofleet.io/revision"] = name
    world.pods = [failing]
    world.reconcile()
    ready, progressing = (world.status().condition(c) for c in ("Ready", "Progressing"))
    assert (ready.status, ready.reason) == ("False", "DigestMismatch")
    assert progressing.message == f"{name}: model has 12, spec wants 34"


def test_pods_that_nobody_may_make_are_told_in_constant_words(world):
    world.reconcile()
    [(name, deployment)] = world.deployments().items()
    for suffix in ("aaaaa", "bbbbb"):  # the ReplicaSet tries again, each time with another name
        told = f'pods "{name}-{suffix}" is forbidden: minimum cpu usage per Container is 64'
        refused = {"type": "ReplicaFailure", "status": "True", "message": told}
        deployment["status"] = {"conditions": [refused]}
        failure = world.observed().revisions[name].failure
        assert failure is not None
        assert failure.reason == "PodsRefused"
        assert failure.message == (
            "no pod can be made: pods are forbidden: minimum cpu usage per Container is 64"
        )
