"""What cannot run is told in a condition and an Event, and takes no traffic from what serves."""

import asyncio

import pytest

from demo_cluster import pictures
from demo_cluster.detector import condition, told
from demo_cluster.errors import KubectlFailed, NotYet
from demo_cluster.load import Load, wait_until_served
from demo_cluster.waiting import eventually

REQUESTS = 25
WRONG_DIGEST = "0" * 64


def fleet_of(routed):
    return {"steady": {"replicas": 1, "traffic": routed("steady")}}


@pytest.fixture(scope="module")
def steady(fleet, target, images):
    """A detector that serves; every test leaves it as it was."""
    detector = fleet["steady"]
    detector.wait_ready()
    wait_until_served(target("steady"), [images[0].data], within_s=300)
    yield detector
    detector.leave()


@pytest.fixture
def serves_as_before(steady, target, images, weights):
    """Check at the end of the test that one revision has all the traffic and answers it."""
    before = steady.raw()["status"]["stable"]["revision"]
    yield
    assert weights("steady")[before] == 100
    with Load(target("steady"), [image.data for image in images], callers=2) as load:
        load.wait_for(REQUESTS, within_s=300)
    summary = load.summary()
    assert summary.failures == {}
    assert set(summary.revisions) == {before}
    assert condition(steady.raw(), "Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("canary", "reason", "words"),
    [
        (
            {"model": {"uri": "demo://shapes-v2", "sha256": WRONG_DIGEST}},
            "DigestMismatch",
            WRONG_DIGEST[:12],
        ),
        pytest.param(
            {"model": {"uri": "file:///models/none.onnx"}},
            "ModelNotFound",
            "none.onnx",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            {"model": {"uri": "demo://shapes-v2", "classes": ["cat", "dog"]}},
            "ClassesDiffer",
            "cat",
            marks=pytest.mark.nightly,
        ),
        ({"runtime": {"image": "registry.invalid/none:1"}}, "ImagePullFailed", "registry.invalid"),
        (
            {"podTemplate": {"spec": {"nodeSelector": {"there-is": "no-such-node"}}}},
            "Unschedulable",
            "no node fits",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_canary_that_cannot_run_gets_no_traffic_and_says_why(
    steady, serves_as_before, events, canary, reason, words
):
    steady.patch({"canary": {**canary, "weight": 50}})
    try:

        def look():
            found = condition(steady.acted_on(), "CanaryHealthy")
            if (found.get("status"), found.get("reason")) != ("False", reason):
                raise NotYet(told(found))
            return found

        found = eventually(f"CanaryHealthy=False {reason}", look, within_s=300, hint=steady.hint())
        assert words in found["message"]
        assert events("steady", reason)["type"] == "Warning"
        assert steady.raw()["status"]["canary"]["weight"] == 0
    finally:
        steady.patch({"canary": None})


def test_a_new_model_with_another_digest_leaves_the_old_one_serving(
    steady, serves_as_before, events
):
    steady.patch({"model": {"uri": "demo://shapes-v2", "sha256": WRONG_DIGEST}})
    try:

        def look():
            found = condition(steady.acted_on(), "Progressing")
            if found.get("reason") != "DigestMismatch":
                raise NotYet(told(found))
            return found

        found = eventually("Progressing to say it", look, within_s=300, hint=steady.hint())
        assert "keeps serving" in found["message"]
        assert events("steady", "DigestMismatch")["type"] == "Warning"
    finally:
        steady.patch({"model": {"uri": "demo://shapes", "sha256": None}})


def test_a_wrong_field_is_refused_at_apply_with_its_name_and_the_fix(steady, serves_as_before):
    with pytest.raises(KubectlFailed, match=r"spec\.canary\.weight.*less than or equal to 100"):
        steady.patch({"canary": {"model": {"uri": "demo://shapes-v2"}, "weight": 101}})
    with pytest.raises(
        KubectlFailed, match=r"spec\.model\.uri \(ftp://models/gate\.onnx\): the scheme must be"
    ):
        steady.patch({"model": {"uri": "ftp://models/gate.onnx"}})


def test_a_host_that_another_detector_has_is_refused_at_apply(steady, serves_as_before, make):
    """By the operator itself, which the API server asks through the chart's webhook."""
    taken = steady.raw()["spec"]["traffic"]
    with pytest.raises(KubectlFailed, match=rf"spec\.traffic\.hosts: {taken['hosts'][0]} .*steady"):
        make("greedy", traffic=taken)


def test_without_a_gpu_in_the_cluster_no_pod_is_made_and_the_numbers_are_told(make, events):
    limits = {"memory": "1Gi", "nvidia.com/gpu": 1}
    detector = make("yard", resources={"requests": {"cpu": "50m"}, "limits": limits})
    found = detector.wait_for("GPUAvailable", "False")
    assert "0 nodes offer it" in found["message"]
    assert "nvidia.com/gpu" in found["message"]
    assert events("yard", found["reason"])["type"] == "Warning"
    assert detector.pods() == []
    detector.leave()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"this is no picture", 415, "unsupported_media_type"),
        (b"\xff\xd8\xff\xe0 cut short", 400, "invalid_image"),
        (b"\xff\xd8" + bytes(33 * 2**20), 413, "too_large"),
    ],
    ids=["no image", "damaged", "too large"],
)
def test_a_body_that_is_no_picture_is_refused_with_a_code(steady, target, body, status, code):
    refused = pictures.Picture("bad", body, [])
    with pytest.raises(NotYet, match=f"HTTP {status}.*{code}"):
        asyncio.run(pictures.detect(target("steady"), refused))
    # Of what serves: pods of the canaries above, which could not start, may still be leaving.
    assert steady.restarts(steady.raw()["status"]["stable"]["revision"]) == 0
