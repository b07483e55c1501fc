"""What pods get so that their revision can be judged, and who may reach it."""

import json
from dataclasses import replace

import pytest

from yolofleet.api.base import InvalidSpec
from yolofleet.api.names import RENDER_ANNOTATION
from yolofleet.plan.defaults import OperatorPods
from yolofleet.plan.revisions import stable_revision
from yolofleet.workloads.judged import evidence_port
from yolofleet.workloads.revision import recorded

EXCLUDED = "traffic.sidecar.istio.io/excludeInboundPorts"
OPERATOR = OperatorPods("fleet", {"app.kubernetes.io/name": "yolofleet", "component": "operator"})
SIDECAR = {"name": "side", "image": "side:1", "ports": [{"containerPort": 8081}]}
CONFIG_MAP = {"analysis": {"golden": {"configMap": "known"}}}
VOLUME = {"analysis": {"golden": {"volume": "pictures"}}}
PICTURES = {"spec": {"volumes": [{"name": "pictures", "persistentVolumeClaim": {}}]}}


def one(world, kind, name=""):
    found = (m for m in world.think().desired if m["kind"] == kind)
    return next(m for m in found if name in m["metadata"]["name"])


def template(world, revision=""):
    return one(world, "Deployment", revision)["spec"]["template"]


def server(world, revision=""):
    return template(world, revision)["spec"]["containers"][0]


def told(world, revision=""):
    return {entry["name"]: entry["value"] for entry in server(world, revision)["env"]}


def mounts(world, revision=""):
    return {m["mountPath"]: m["name"] for m in server(world, revision)["volumeMounts"]}


def volume(world, name):
    return next(v for v in template(world)["spec"]["volumes"] if v["name"] == name)


def rules(world):
    """The peers by the ports that they may connect to."""
    ingress = one(world, "NetworkPolicy")["spec"]["ingress"]
    return {tuple(p["port"] for p in rule["ports"]): rule.get("from") for rule in ingress}


def test_pods_tell_their_evidence_on_a_port_that_no_service_or_monitor_leads_to(world):
    world.monitors = True
    assert {p["name"]: p["containerPort"] for p in server(world)["ports"]} == {
        "http": 8080,
        "evidence": 8081,
    }
    assert told(world)["YOLOSERVE_EVIDENCE_PORT"] == "8081"
    others = [m for m in world.think().desired if m["kind"] not in ("Deployment", "NetworkPolicy")]
    assert "8081" not in json.dumps(others)
    assert "evidence" not in json.dumps(others)


def test_a_sidecar_leaves_the_evidence_alone_and_the_ports_that_the_user_named(world):
    assert template(world)["metadata"]["annotations"][EXCLUDED] == "8081"
    for theirs, expected in (("9000", "9000,8081"), ("8081, 9000", "8081,9000"), ("", "8081")):
        world.edit(podTemplate={"metadata": {"annotations": {EXCLUDED: theirs}}})
        assert template(world)["metadata"]["annotations"][EXCLUDED] == expected


@pytest.mark.parametrize(
    "spec",
    [{"hostNetwork": True}, {"containers": [SIDECAR]}, {"initContainers": [SIDECAR]}],
    ids=lambda spec: next(iter(spec)),
)
def test_there_is_no_evidence_where_its_port_is_the_nodes_or_another_containers(world, spec):
    world.edit(podTemplate={"spec": spec})
    assert "YOLOSERVE_EVIDENCE_PORT" not in told(world)
    assert [port["name"] for port in server(world)["ports"]] == ["http"]
    assert EXCLUDED not in template(world)["metadata"]["annotations"]
    assert evidence_port(stable_revision(world.detector(), world.defaults)) is None


def test_the_evidence_is_open_to_the_operator_alone(world):
    world.mesh, world.defaults = False, replace(world.defaults, operator=OPERATOR)
    for access in ({}, {"allowFrom": [{"namespaceSelector": {}}]}):
        world.edit(access=access)
        [peer] = rules(world)[8081,]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "fleet"}
        assert peer["podSelector"]["matchLabels"] == OPERATOR.labels
        assert all(8081 not in ports for ports in rules(world) if ports != (8081,))


def test_an_operator_that_does_not_know_its_own_pods_opens_the_evidence_to_nobody(world):
    world.mesh = False
    assert list(rules(world)) == [(8080,)]


def test_what_others_have_on_that_port_is_open_as_before(world):
    world.mesh, world.defaults = False, replace(world.defaults, operator=OPERATOR)
    world.edit(podTemplate={"spec": {"containers": [SIDECAR]}})
    assert list(rules(world)) == [(8080, 8081)]


def test_the_live_configuration_is_a_folder_that_need_not_be_there(world):
    folder = told(world)["YOLOSERVE_LIVE_DIR"]
    name = mounts(world)[folder]
    assert volume(world, name)["configMap"] == {"name": "gate-live", "optional": True}
    assert not any("subPath" in mount for mount in server(world)["volumeMounts"])
    assert told(world)["YOLOSERVE_NAMESPACE"] == "shop"


@pytest.mark.parametrize("use", ["shadow", "frames"])
def test_a_key_comes_from_the_users_secret_and_holds_up_no_pod(world, use):
    world.edit(access={f"{use}Key": {"secretName": "gate-secret", "key": "word"}})
    folder, _, file = told(world)[f"YOLOSERVE_{use.upper()}_KEY_FILE"].rpartition("/")
    secret = volume(world, mounts(world)[folder])["secret"]
    assert (secret["secretName"], secret["optional"]) == ("gate-secret", True)
    assert secret["items"] == [{"key": "word", "path": file}]
    assert secret["defaultMode"] == 0o440


@pytest.mark.parametrize("key", ["shadowKey", "framesKey"])
def test_a_key_is_another_revision_and_none_is_the_same_as_ever(detector_with, world, key):
    def name(**access):
        return stable_revision(detector_with(access=access), world.defaults).name

    assert name() == stable_revision(detector_with(), world.defaults).name
    assert name(**{key: {"secretName": "a"}}) != name()
    assert name(**{key: {"secretName": "a"}}) != name(**{key: {"secretName": "b"}})


def test_to_keep_pictures_or_log_more_is_no_other_revision(detector_with, world):
    plain = stable_revision(detector_with(), world.defaults)
    keeping = detector_with(logLevel="debug", rollout={"analysis": {"keepFrames": True}})
    assert stable_revision(keeping, world.defaults) == plain


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"volumes": [{"name": "yoloserve-live", "emptyDir": {}}]}, "spec.canary.shadow"),
        (
            {
                "containers": [
                    {"name": "yoloserve", "volumeMounts": [{"mountPath": "/etc/yoloserve"}]}
                ]
            },
            "own folder",
        ),
        (
            {"containers": [{"name": "yoloserve", "env": [{"name": "YOLOSERVE_LIVE_DIR"}]}]},
            "spec.canary.shadow",
        ),
    ],
)
def test_a_pod_template_cannot_take_the_place_of_any_of_it(detector_with, spec, expected):
    with pytest.raises(InvalidSpec, match=expected):
        detector_with(podTemplate={"spec": spec})


@pytest.mark.parametrize("rollout", [CONFIG_MAP, VOLUME])
def test_a_revision_made_with_a_golden_set_has_it_mounted_and_recorded(world, rollout):
    world.edit(rollout=rollout, podTemplate=PICTURES)
    name = mounts(world)[told(world)["YOLOSERVE_GOLDEN_DIR"]]
    if rollout is VOLUME:
        assert name == "pictures"
    else:
        assert volume(world, name)["configMap"] == {"name": "known", "optional": True}
    revision = stable_revision(world.detector(), world.defaults)
    assert recorded("gate", revision.name, revision.record()) == revision
    assert revision.golden is not None


@pytest.mark.parametrize("mesh", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"rollout": {"analysis": {}}},
        {"rollout": CONFIG_MAP},
        {"rollout": {"analysis": {"minKept": 0.5, "interval": "30s"}}},
    ],
)
def test_to_ask_for_judging_restarts_nothing_and_makes_no_revision(world, mesh, change):
    world.mesh = mesh
    world.settle()
    before = {name: d["spec"]["template"] for name, d in world.deployments().items()}
    world.edit(**change)
    world.settle()
    world.edit(rollout=None)
    world.settle()
    assert {name: d["spec"]["template"] for name, d in world.deployments().items()} == before


def test_the_next_revision_has_the_golden_set_and_keeps_it_when_the_spec_names_another(world):
    world.settle()
    [old] = world.deployments()
    world.edit(rollout={"analysis": {**CONFIG_MAP["analysis"], "mode": "DryRun"}})
    world.settle()
    world.edit(model={"uri": "https://m/b.onnx"})
    world.settle()
    new = world.status().stable.revision
    assert "YOLOSERVE_GOLDEN_DIR" not in told(world, old)
    pods = template(world, new)
    assert "YOLOSERVE_GOLDEN_DIR" in told(world, new)
    world.edit(rollout={"analysis": {"golden": {"configMap": "other"}, "mode": "DryRun"}})
    world.settle()
    assert (world.status().stable.revision, template(world, new)) == (new, pods)
    world.edit(model={"uri": "demo://shapes"})  # a roll-back makes no other pods either
    world.settle()
    assert world.status().stable.revision == old
    assert "YOLOSERVE_GOLDEN_DIR" not in told(world, old)


def test_pods_of_an_earlier_render_version_get_none_of_it_and_their_policy_stays(world):
    """What runs when the operator is upgraded: even the NetworkPolicy is not written."""
    world.defaults = replace(world.defaults, operator=OPERATOR)
    world.settle()
    [deployment] = world.deployments().values()
    record = json.loads(deployment["metadata"]["annotations"][RENDER_ANNOTATION])
    record["render"]["version"] = 3
    deployment["metadata"]["annotations"][RENDER_ANNOTATION] = json.dumps(record)
    del world.children["ControllerRevision", deployment["metadata"]["name"]]
    assert (8081,) not in rules(world)
    assert "yoloserve/live" not in json.dumps(template(world))
    world.edit(inference={"confidence": 0.5})
    world.settle(1)
    assert (8081,) in rules(world)


def test_own_pods_reach_own_pods_whatever_the_policy_restricts(world):
    """By this the shadow gets from pods of the stable revision to those of the canary."""
    world.mesh = False
    own = {"podSelector": {"matchLabels": {"yolofleet.io/detector": "gate"}}}
    world.edit(access={"allowFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]})
    assert own in rules(world)[8080,]
    assert {"to": [own]} in one(world, "NetworkPolicy")["spec"]["egress"]
