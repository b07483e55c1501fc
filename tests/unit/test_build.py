"""The objects that a detector has: their names, their order, and the facts that matter."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yolofleet.plan.revision import Revision
from yolofleet.resources import render
from yolofleet.resources.build import build

TEMPLATES = Path(render.__file__).parent / "templates"


def objects(world):
    return build(world.detector(), world.decide())


def one(world, kind):
    return next(m for m in objects(world) if m["kind"] == kind)


def container(world):
    return one(world, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def environment(world):
    return {entry["name"]: entry["value"] for entry in container(world)["env"]}


def test_a_detector_has_these_objects_in_this_order(world):
    world.settle()
    stable = world.status().stable.revision
    assert [(m["kind"], m["metadata"]["name"]) for m in objects(world)] == [
        ("Deployment", stable),
        ("Service", stable),
        ("DestinationRule", stable),
        ("Service", "gate"),
        ("VirtualService", "gate"),
        ("PodDisruptionBudget", "gate"),
    ]


def test_every_child_is_owned_labelled_and_in_its_namespace(world):
    for manifest in objects(world):
        meta = manifest["metadata"]
        assert meta["namespace"] == "shop"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "yolofleet"
        [owner] = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
            "u-1",
            True,
            True,
        )


def test_pods_carry_the_labels_they_are_selected_by(world):
    spec = one(world, "Deployment")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_pods_are_restricted(world):
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    own = pod["containers"][0]["securityContext"]
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_pods_live_longer_than_they_drain(world):
    pod = one(world, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > int(environment(world)["YOLOSERVE_DRAIN_SECONDS"])


def test_the_server_is_told_what_the_spec_says(world):
    world.edit(
        model={"uri": "pvc://models/gate/v7.onnx", "sha256": "a" * 64, "classes": ["on", "0755"]},
        inference={"profile": "throughput", "imageSize": 320, "deadline": "2s", "confidence": 0.4},
        runtime={"backend": "onnxruntime"},
    )
    told = environment(world)
    assert told["YOLOSERVE_MODEL"] == "file:///mnt/model/gate/v7.onnx"
    assert told["YOLOSERVE_SHA256"] == "a" * 64
    assert told["YOLOSERVE_CLASSES"] == '["on", "0755"]'
    assert told["YOLOSERVE_PROFILE"] == "throughput"
    assert told["YOLOSERVE_IMAGE_SIZE"] == "320"
    assert told["YOLOSERVE_DEADLINE_MS"] == "2000"
    assert told["YOLOSERVE_CONFIDENCE"] == "0.4"
    assert told["YOLOSERVE_BACKEND"] == "onnxruntime"
    assert told["YOLOSERVE_REVISION"] == one(world, "Deployment")["metadata"]["name"]
    claim = {"claimName": "models", "readOnly": True}
    volumes = one(world, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "model", "persistentVolumeClaim": claim} in volumes


def test_a_pod_template_is_merged_by_name_and_breaks_nothing(world):
    world.edit(
        podTemplate={
            "metadata": {"labels": {"team": "x", "yolofleet.io/revision": "mine"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 9}],
                "containers": [
                    {"name": "yoloserve", "env": [{"name": "TZ", "value": "UTC"}]},
                    {"name": "sidecar", "image": "side:1"},
                ],
                "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}],
            },
        }
    )
    template = one(world, "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "x"
    assert template["metadata"]["labels"]["yolofleet.io/revision"].startswith("gate-")
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert template["spec"]["tolerations"][0]["tolerationSeconds"] == 9
    assert [c["name"] for c in template["spec"]["containers"]] == ["yoloserve", "sidecar"]
    assert environment(world)["TZ"] == "UTC"
    assert "YOLOSERVE_MODEL" in environment(world)
    assert template["spec"]["volumes"] == [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}]


def test_without_hosts_the_virtual_service_is_a_delegate(world):
    route = one(world, "VirtualService")["spec"]
    assert "hosts" not in route
    assert "gateways" not in route
    world.edit(traffic={"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]})
    route = one(world, "VirtualService")["spec"]
    assert route["hosts"] == ["gate.example.com"]
    assert route["gateways"] == ["istio-system/public"]


def test_a_single_replica_has_no_disruption_budget(world):
    world.edit(replicas=1)
    assert "PodDisruptionBudget" not in [m["kind"] for m in objects(world)]


def test_every_port_says_its_protocol(world):
    """List keys of server-side apply must be complete."""
    for manifest in objects(world):
        for port in manifest["spec"].get("ports", []):
            assert port["protocol"] == "TCP"
    assert container(world)["ports"][0]["protocol"] == "TCP"


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.j2")), ids=lambda p: p.stem)
def test_templates_have_holes_and_no_logic(template):
    assert "{%" not in template.read_text()


def test_an_unset_hole_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        render.render("service.yaml.j2", name="x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)  # fmt: skip


def without_none(value):
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


@given(json_values)
@example(1e-05)
@example("on")
@example("hole: namespace")
def test_a_hole_gives_what_it_was_given(value):
    holes = {"namespace": "n", "labels": {}, "owner": {}, "selector": {"key": value}}
    made = render.render("service.yaml.j2", name="x", **holes)
    assert made["spec"]["selector"] == without_none({"key": value})


def test_the_caller_may_change_what_was_rendered(world):
    first = one(world, "Deployment")
    first["spec"].clear()
    assert one(world, "Deployment")["spec"]


def test_the_record_on_the_deployment_fits_an_annotation(world):
    world.edit(model={"uri": "demo://shapes", "classes": [f"class {n}" for n in range(1000)]})
    annotation = one(world, "Deployment")["metadata"]["annotations"]["yolofleet.io/render"]
    assert len(annotation) < 200_000
    assert re.search('"render"', annotation)
    assert isinstance(world.decide().revisions[0].revision, Revision)
