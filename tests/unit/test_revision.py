"""What makes a revision, and what does not."""

import json

import pytest

from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import canary_is_equal, canary_revision, stable_revision
from yolofleet.workloads import revision
from yolofleet.workloads.revision import identity, meaning, named, recorded

DEFAULTS = Defaults(image_cpu="serve:cpu", image_torch="serve:torch", image_gpu="serve:gpu")
V2 = {"uri": "demo://shapes-v2"}
JWT = {
    "issuer": "https://login.example.com",
    "jwksUri": "https://login.example.com/keys",
    "audiences": ["gate"],
}


def name(detector):
    return stable_revision(detector, DEFAULTS).name


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 9},
        {"traffic": {"hosts": ["gate.example.com"]}},
        {"canary": {"model": V2, "weight": 20}},
        {"suspend": True},
        {"rollout": {"analysis": {}}},
        {"rollout": {"analysis": {"golden": {"configMap": "shapes"}, "minKept": 0.5}}},
        {"access": {"metricsOpen": True, "networkPolicy": "IngressOnly", "allowFrom": []}},
        {"access": {"corsOrigins": []}},
        {"inference": {"confidence": 0.25, "agnosticNms": False}},
        {"runtime": {"backend": "auto"}},
        {"model": {"uri": "demo://shapes", "allowCode": []}},
        {
            "resources": {
                "requests": {"cpu": "0.5", "memory": "512Mi"},
                "limits": {"memory": "2048Mi"},
            }
        },
    ],
)
def test_the_same_pods_are_the_same_revision(detector_with, change):
    assert name(detector_with(**change)) == name(detector_with())


def test_what_was_stored_under_a_former_default_stays_the_same_revision(detector_with, monkeypatch):
    """As if 500ms were the new default of the deadline, and had been 2s when the field came."""

    def asked(**spec):
        return named("gate", identity(detector_with(**spec).spec))

    before = asked()
    monkeypatch.setattr(revision, "FIRST_DEFAULTS", {"inference": {"deadline": "2s"}})
    assert asked(inference={"deadline": "2s"}) == before
    assert asked(inference={"deadline": "500ms"}) != before


@pytest.mark.parametrize(
    "change",
    [
        {"model": V2},
        {"model": {"uri": "demo://shapes", "sha256": "0" * 64}},
        {"runtime": {"backend": "torch"}},
        {"inference": {"confidence": 0.3}},
        {"inference": {"agnosticNms": True}},
        {"resources": {"requests": {"cpu": "1"}}},
        {"access": {"apiKeys": {"secretName": "gate-keys"}}},
        {"access": {"jwt": JWT}},
        {"access": {"corsOrigins": ["*"]}},
        {"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
    ],
)
def test_other_pods_are_another_revision(detector_with, change):
    assert name(detector_with(**change)) != name(detector_with())


def test_the_same_origins_in_another_order_are_the_same_revision(detector_with):
    origins = ["https://a.example.com", "http://localhost:3000"]
    one, other = (
        name(detector_with(access={"corsOrigins": each})) for each in (origins, origins[::-1])
    )
    assert one == other


def test_the_same_leave_in_another_order_is_the_same_revision(detector_with):
    one, other = (
        detector_with(model={"uri": "pvc://models/a.engine", "allowCode": codes})
        for codes in (["engine", "torchscript"], ["torchscript", "engine", "engine"])
    )
    assert name(one) == name(other)


def test_a_promoted_canary_is_the_same_revision(detector_with):
    canary = canary_revision(detector_with(canary={"model": V2}), DEFAULTS)
    assert canary is not None
    assert canary.name == name(detector_with(model=V2))


def test_a_canary_inherits_the_fields_it_does_not_name(detector_with):
    detector = detector_with(
        runtime={"image": "mine:1", "backend": "onnxruntime"},
        inference={"confidence": 0.4, "iou": 0.5},
        canary={"runtime": {"backend": "openvino"}, "inference": {"iou": 0.6}},
    )
    canary = canary_revision(detector, DEFAULTS)
    assert canary is not None
    assert (canary.image, canary.runtime.backend) == ("mine:1", "openvino")
    assert (canary.inference.confidence, canary.inference.iou) == (0.4, 0.6)


def test_a_canary_equal_to_stable_is_none(detector_with):
    assert canary_revision(detector_with(canary={"runtime": {"backend": "auto"}}), DEFAULTS) is None


@pytest.mark.parametrize(
    ("change", "image"),
    [
        ({}, "serve:cpu"),
        ({"runtime": {"backend": "torch"}}, "serve:torch"),
        ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, "serve:gpu"),
        ({"resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}}, "serve:gpu"),
        ({"runtime": {"image": "mine:1"}}, "mine:1"),
    ],
)
def test_the_image_follows_from_what_is_asked_for(detector_with, change, image):
    assert stable_revision(detector_with(**change), DEFAULTS).image == image


def test_a_record_is_read_back_whole(detector_with):
    revision = stable_revision(
        detector_with(
            model={"uri": "pvc://models/a.onnx", "classes": ["a", "b"]},
            inference={"imageSize": 320, "deadline": "2s"},
            access={"jwt": JWT, "apiKeys": {"secretName": "gate-keys", "key": "list"}},
            podTemplate={"metadata": {"labels": {"team": "x"}}},
        ),
        DEFAULTS,
    )
    assert recorded("gate", revision.name, revision.record()) == revision


def test_a_record_from_before_a_part_was_known_is_the_same_revision(detector_with):
    revision = stable_revision(detector_with(), DEFAULTS)
    record = json.loads(revision.record())
    del record["whole"]["access"], record["whole"]["inference"]["agnosticNms"]
    assert recorded("gate", revision.name, json.dumps(record)) == revision


def test_a_canary_is_guarded_as_the_stable_revision_is(detector_with):
    detector = detector_with(canary={"model": V2}, access={"jwt": JWT})
    canary = canary_revision(detector, DEFAULTS)
    assert canary is not None
    assert canary.guard == stable_revision(detector, DEFAULTS).guard
    assert canary.guard.jwt is not None


@pytest.mark.parametrize("tamper", ["", "{}", "[]", "null", '{"spec": {}, "render": {}}'])
def test_a_broken_record_is_no_revision(tamper):
    assert recorded("gate", "gate-00000000", tamper) is None


def test_a_record_of_something_else_is_no_revision(detector_with):
    revision = stable_revision(detector_with(), DEFAULTS)
    record = json.loads(revision.record())
    record["spec"]["model"]["uri"] = "https://elsewhere/x.onnx"
    assert recorded("gate", revision.name, json.dumps(record)) is None


POD = {
    "containers": [
        {
            "name": "proxy",
            "image": "proxy:1",
            "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
            "env": [{"name": "CPUS", "valueFrom": {"resourceFieldRef": {"divisor": "1"}}}],
        }
    ],
    "initContainers": [
        {"name": "fetch", "image": "fetch:1", "resources": {"requests": {"cpu": "1"}}}
    ],
    "overhead": {"cpu": "250m"},
    "volumes": [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {
            "name": "scratch",
            "ephemeral": {
                "volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
            },
        },
        {
            "name": "told",
            "downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"divisor": "1k"}}]},
        },
        {
            "name": "all",
            "projected": {
                "sources": [{"downwardAPI": {"items": [{"resourceFieldRef": {"divisor": "1Mi"}}]}}]
            },
        },
    ],
}
OTHER_WORDS = {
    '"500m"': "0.5", '"1Gi"': '"1024Mi"', '"1"': '"1000m"', '"250m"': '"0.25"', '"2Gi"': 2147483648,
    '"1k"': '"1e3"', '"1Mi"': '"1048576"',
}  # fmt: skip


def in_other_words(spec, *, but=""):
    text = json.dumps(spec)
    for words, others in OTHER_WORDS.items():
        text = text if words == but else text.replace(words, str(others))
    return json.loads(text)


@pytest.mark.parametrize("words", OTHER_WORDS)
def test_the_same_amount_in_other_words_means_the_same_pods(detector_with, words):
    one = detector_with(podTemplate={"spec": POD}).spec
    written = json.dumps(POD)
    other = json.loads(written.replace(words, str(OTHER_WORDS[words])))
    assert json.dumps(other) != written
    assert meaning(one) == meaning(detector_with(podTemplate={"spec": other}).spec)
    another = json.loads(written.replace(words, '"3"'))
    assert meaning(one) != meaning(detector_with(podTemplate={"spec": another}).spec)


def test_the_same_amount_in_other_words_means_the_same_resources(detector_with):
    """1Gi and 1073741824 keep different names for the sake of what runs."""
    one = detector_with(resources={"limits": {"memory": "1Gi", "cpu": 1}}).spec
    for memory, cpu in (("1073741824", "1"), (1073741824, "1000m"), ("1024Mi", 1.0)):
        other = detector_with(resources={"limits": {"memory": memory, "cpu": cpu}}).spec
        assert meaning(one) == meaning(other)


def test_text_that_looks_like_an_amount_is_text(detector_with):
    def pods(cpus):
        env = [{"name": "CPUS", "value": cpus}]
        return detector_with(
            podTemplate={
                "metadata": {"annotations": {"cpu": cpus}},
                "spec": {"containers": [{"name": "yoloserve", "env": env}]},
            }
        ).spec

    assert meaning(pods("1000m")) != meaning(pods("1"))


def test_the_same_deadline_in_other_words_means_the_same_pods(detector_with):
    one, other = (detector_with(inference={"deadline": each}).spec for each in ("2s", "2000ms"))
    assert meaning(one) == meaning(other)


def test_a_canary_that_differs_in_words_alone_is_none(detector_with):
    detector = detector_with(
        podTemplate={"spec": POD},
        canary={"podTemplate": {"spec": in_other_words(POD)}, "weight": 10},
    )
    assert canary_is_equal(detector.spec)
    assert canary_revision(detector, DEFAULTS) is None


def test_a_new_revision_is_rendered_by_the_present_version_and_an_old_one_by_its_own(
    detector_with, monkeypatch
):
    """As `faults.later` has it, which plays an operator to come."""
    old = stable_revision(detector_with(), DEFAULTS)
    monkeypatch.setattr(revision, "RENDER_VERSION", 1000)
    assert stable_revision(detector_with(), DEFAULTS).render_version == 1000
    assert recorded("gate", old.name, old.record()) == old
