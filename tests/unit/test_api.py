"""The typed API: names, quantities, durations, what parsing refuses, and the generated files."""

import re
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api import crd, generate, names
from yolofleet.api.base import InvalidSpec, seconds
from yolofleet.api.detector import Detector
from yolofleet.api.status import Draining, Status, read_status
from yolofleet.runtime import quantity

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("0.5", "500m"), (0.5, "500m"), (1, "1"), ("1000m", "1"), ("2Gi", "2Gi"),
        ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1e3", "1k"), ("0", "0"), ("100M", "100M"),
    ],
)  # fmt: skip
def test_equal_amounts_are_spelled_alike(written, canonical):
    assert quantity.canonical(written) == canonical


@pytest.mark.parametrize(
    "alike",
    [
        (1, "1", 1.0, "1.0", "1000m", "1e0", "+1", "1000000u", ".001k"),
        ("500m", 0.5, "0.5", ".5", "5e-1", "500000u"),
        ("1Gi", "1024Mi", "1073741824", 1073741824, "1048576Ki", "1073741824000m"),
        ("0.5Gi", "512Mi"),
        (1000, "1k", "1e3", "1E3", "1000.", 1e3),
        ("0", 0, "0.0", "0Gi", "0e5"),
        ("1n", "0.1n", "1e-50", 1e-12),  # what is finer than a quantity is rounded up
    ],
)
def test_equal_amounts_compare_equal_in_any_words(alike):
    assert len({quantity.spelled(words) for words in alike}) == 1


@pytest.mark.parametrize("wrong", ["", "1 Gi", "1GB", "1e", "a", True, None, [1], "1e400", "0x1"])
def test_what_is_no_amount_is_told(wrong):
    """1e400 ended in an error that nobody had thought of."""
    with pytest.raises(ValueError, match="quantity"):
        quantity.canonical(wrong)


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_spelling_keeps_the_amount_and_is_stable(number, suffix):
    once = quantity.canonical(f"{number}{suffix}")
    assert quantity.amount(once) == quantity.amount(f"{number}{suffix}")
    assert quantity.canonical(once) == once


@pytest.mark.parametrize(("text", "value"), [("500ms", 0.5), ("2s", 2), ("1m", 60), ("1h", 3600)])
def test_durations_are_read_in_seconds(text, value):
    assert seconds(text) == value


@given(st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True))
def test_a_revision_name_is_a_label_and_tells_detectors_apart(detector):
    name = names.revision_name(detector, "0123456789abcdef")
    assert len(name) <= 63
    assert name.endswith("-01234567")
    assert names.revision_name(detector + "x", "0123456789abcdef") != name


def test_parsing_gives_the_defaults(detector_with):
    spec = detector_with().spec
    assert spec.inference.confidence == 0.25
    assert spec.resources.requests == {"cpu": "500m", "memory": "512Mi"}
    assert spec.canary is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {}}, "spec.model.uri: Field required"),
        ({"replicas": -1}, "spec.replicas: Input should be greater than or equal to 0 (is -1)"),
        ({"inference": {"deadline": "soon"}}, "'soon' is not a duration; write it as 500ms"),
        ({"inference": {"deadline": "999999999999h"}}, "is too long; give at most 87600h"),
        ({"resources": {"limits": {"cpu": "many"}}}, "'many' is not a quantity"),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "yoloserve", "image": "x"}]}}},
            "spec.podTemplate.spec.containers[yoloserve].image: use spec.runtime.image",
        ),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "yoloserve", "command": ["x"]}]}}},
            "spec.podTemplate.spec.containers[yoloserve].command: is YoloFleet's, as its probes",
        ),
        (
            {"podTemplate": {"spec": {"containers": [{"image": "x"}]}}},
            "spec.podTemplate.spec.containers[0]: every item needs a name",
        ),
        (
            {"podTemplate": {"spec": {"affinity": reduce(lambda a, _: {"a": a}, range(49), 1)}}},
            "spec.podTemplate: is nested in more than 50 levels",
        ),
        (
            {"podTemplate": {"metadata": {"labels": None}}},
            "spec.podTemplate.metadata.labels: must map names to strings",
        ),
        (
            {"podTemplate": {"metadata": {"annotations": {"a": 1}}}},
            "spec.podTemplate.metadata.annotations: must map names to strings",
        ),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "yoloserve", "env": None}]}}},
            "spec.podTemplate.spec.containers[0].env: is null",
        ),
        (
            {"podTemplate": {"spec": {"volumes": [{"name": {"a": 1}}]}}},
            "spec.podTemplate.spec.volumes[0]: every item needs a name",
        ),
        (
            {"podTemplate": {"spec": {"volumes": {"a": 1}}}},
            "spec.podTemplate.spec.volumes: must be a list",
        ),
        (
            {
                "podTemplate": {
                    "spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1GB"}}]}
                }
            },
            "spec.podTemplate.spec.volumes[shm].emptyDir.sizeLimit: '1GB' is not a quantity",
        ),
        ({"resources": {"limits": {"cpu": "1e400"}}}, "'1e400' is more than a quantity can be"),
        (
            {"rollout": {"analysis": {"golden": {"volume": "known"}}}},
            "spec.rollout.analysis.golden.volume: spec.podTemplate.spec.volumes has none of the"
            " name known; add it there, or name a configMap",
        ),
        (
            {"rollout": {"analysis": {"interval": "soon"}}},
            "spec.rollout.analysis.interval: Value error, 'soon' is not a duration",
        ),
    ],
)
def test_what_admission_let_through_and_nobody_can_serve_is_refused(detector_with, change, told):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(**change)
    assert told in str(refusal.value)


def test_unknown_fields_of_a_newer_version_are_ignored(detector_with):
    assert isinstance(detector_with(inventedLater={"a": 1}), Detector)


@pytest.mark.parametrize("path", sorted(generate.files()))
def test_generated_files_are_fresh(path):
    assert (ROOT / path).read_text() == generate.files()[path], "run `make generate`"


@pytest.mark.parametrize(("fraction", "kept"), [(0, "08:30:05Z"), (1, "08:30:06Z")])
def test_what_has_to_last_is_not_stored_as_begun_earlier(fraction, kept):
    """Stored in whole seconds, a drain of one second could be over after a tenth of it."""
    since = datetime(2030, 1, 1, 8, 30, 5, fraction, UTC)
    assert (
        Draining(revision="gate-1", since=since).model_dump(mode="json")["since"]
        == f"2030-01-01T{kept}"
    )


def test_a_status_whose_analysis_nobody_can_read_loses_nothing_else():
    """Else a later version's would make this one forget which revision is the stable one."""
    told = {"stable": {"revision": "gate-1"}, "analysis": {"checks": "of another shape"}}
    status = read_status({"status": told})
    assert (status.stable.revision, status.analysis) == ("gate-1", None)
    assert read_status({"status": {"stable": "odd"}}) == Status()


def test_every_field_teaches():
    def silent(node, path):
        if path and "description" not in node and path[-1] not in ("items", "value"):
            yield ".".join(path)
        for name, sub in node.get("properties", {}).items():
            yield from silent(sub, (*path, name))
        for name in ("items", "additionalProperties"):
            if isinstance(node.get(name), dict):
                yield from silent(node[name], (*path, "items"))

    schema = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        assert list(silent(schema["properties"][part], (part,))) == []


def test_nothing_is_filled_in_within_the_lists_of_a_spec():
    """Who applies them whole, as Argo CD does, would see a difference for ever."""

    def filled(node, path):
        if "default" in node and "[]" in path:
            yield path
        for name, sub in node.get("properties", {}).items():
            yield from filled(sub, f"{path}.{name}")
        if "items" in node:
            yield from filled(node["items"], f"{path}[]")

    schema = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert list(filled(schema["properties"]["spec"], "spec")) == []


def test_every_column_shows_a_field_that_exists():
    schema = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name, _, path, _ in crd.COLUMNS:
        node = schema
        for step in path.strip(".").split("."):
            if step.startswith("conditions["):
                break
            if step == "metadata":
                break
            assert step in node["properties"], name
            node = node["properties"][step]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"runtime": {"backend": "cuda"}}, "spec.canary.runtime.backend"),
        ({"runtime": {"image": 7}}, "spec.canary.runtime.image"),
        ({"inference": {"confidence": 7}}, "spec.canary.inference.confidence"),
        ({"inference": {"deadline": "soon"}}, "spec.canary.inference.deadline"),
        ({"inference": {"imageSize": "big"}}, "spec.canary.inference.imageSize"),
        ({"podTemplate": {"spec": 7}}, "spec.canary.podTemplate.spec"),
    ],
)
def test_what_is_wrong_in_a_canary_is_said_when_it_is_parsed(detector_with, part, field):
    """An older CRD, or a field that a webhook added, lets it through: `decide` must not raise."""
    with pytest.raises(InvalidSpec, match=re.escape(field)):
        detector_with(canary={"weight": 10, **part})


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:s3cret@store/a.onnx?X-Amz-Signature=abc", "https://store/a.onnx"),
        ("oci://registry/gate@sha256:12#gate.onnx", "oci://registry/gate@sha256:12#gate.onnx"),
        ("https://me:s3/cret@store/a.onnx", "https://store/a.onnx"),
        ("https://me:s3 cret@store/a.onnx", "https://store/a.onnx"),
        ("https://me:cret@sha256:8443/a.onnx", "https://sha256:8443/a.onnx"),
        ("s3://KEY:se/cret@bucket/a.onnx", "s3://bucket/a.onnx"),
        ("oci://me:cret@reg:5000/g:v1", "oci://reg:5000/g:v1"),
        *(
            (whole, whole)
            for whole in (
                "https://nexus.shop.svc:8081/repository/npm/@vision/gate/gate-1.0.onnx",
                "https://models.shop:8443/gate@v7/best.onnx",
                "https://minio:9000/models/gate@2026-01-02T03:04/a.onnx",
                "https://[2001:db8::7]/gate@7/a.onnx",
                "https://[2001:db8::7]:8443/gate@7/a.onnx",
                "oci://registry:5000/gate@sha512:12#gate.onnx",
                "oci://registry/gate:v7@sha512:12",
                "pvc://models/a:b@c/gate.onnx",
                "s3://bucket/cam:1@gate.onnx",
                "file:///models/2026-01-01T10:00@a.onnx",
            )
        ),
    ],
)
def test_an_address_is_shown_without_credentials_or_a_signature(detector_with, uri, shown):
    assert detector_with(model={"uri": uri}).spec.model.shown == shown
