"""What of a pod template cannot be honoured is refused, with the field and the fix."""

import tracemalloc

import pytest

from yolofleet.api.base import MOST_PROBLEMS, InvalidSpec

SERVER = "spec.podTemplate.spec.containers[yoloserve]"
PVC = {"uri": "pvc://models/a.onnx"}


def server(**fields):
    return {"containers": [{"name": "yoloserve", **fields}]}


def other(**fields):
    return {"containers": [{"name": "side", "image": "side:1", **fields}]}


REFUSED = [
    # the server's container
    (server(image="x"), f"{SERVER}.image: use spec.runtime.image"),
    (server(resources={"limits": {"cpu": 1}}), f"{SERVER}.resources: use spec.resources"),
    (server(livenessProbe={}), f"{SERVER}.livenessProbe: is YoloFleet's"),
    (server(readinessProbe={}), f"{SERVER}.readinessProbe: is YoloFleet's"),
    (server(startupProbe={}), f"{SERVER}.startupProbe: is YoloFleet's"),
    (server(lifecycle={}), f"{SERVER}.lifecycle: is YoloFleet's"),
    (server(args=["predict"]), f"{SERVER}.args: is YoloFleet's"),
    (server(ports=[{"containerPort": 1}]), f"{SERVER}.ports: is YoloFleet's"),
    (server(terminationMessagePolicy="File"), f"{SERVER}.terminationMessagePolicy: is Yolo"),
    (
        server(env=[{"name": "YOLOSERVE_MODEL", "value": "demo://shapes"}]),
        f"{SERVER}.env[YOLOSERVE_MODEL]: use spec.model.uri",
    ),
    (
        server(env=[{"name": "YOLOSERVE_PORT", "value": "81"}]),
        f"{SERVER}.env[YOLOSERVE_PORT]: the probes and the Service need it",
    ),
    (
        server(env=[{"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "0"}]),
        f"{SERVER}.env[RAY_SERVE_ENABLE_HA_PROXY]: use spec.runtime.ray.proxy, which tells the",
    ),
    # other containers
    (
        {"containers": [{"name": "yoloserv", "env": []}]},
        "containers[yoloserv]: needs an image; to change the server's container, call it yoloserve",
    ),
    (
        {"initContainers": [{"name": "yoloserve", "image": "x"}]},
        "initContainers[yoloserve]: is the name of the server's container; rename yours",
    ),
    ({"initContainers": [{"name": "a"}]}, "initContainers[a]: needs an image"),
    (
        other(ports=[{"name": "http", "containerPort": 81}]),
        "containers[side].ports[http]: is the name of the server's port; rename yours",
    ),
    (
        other(ports=[{"containerPort": 8080}]),
        "containers[side].ports[8080]: is the server's port; use another",
    ),
    # the pod
    ({"restartPolicy": "Never"}, "spec.podTemplate.spec.restartPolicy: pods of a Deployment"),
    ({"activeDeadlineSeconds": 5}, "spec.activeDeadlineSeconds: pods of a Deployment have no"),
    ({"serviceAccount": "robot"}, "spec.serviceAccount: use serviceAccountName"),
    (
        {"terminationGracePeriodSeconds": 1},
        "spec.terminationGracePeriodSeconds: follows from spec.inference.deadline",
    ),
    ({"ephemeralContainers": []}, "spec.ephemeralContainers: no template can have any"),
    # what cannot be merged
    ({"$patch": "replace"}, "spec.podTemplate.spec.$patch: directives of patches"),
    (server(env=[{"name": "A", "$patch": "delete"}]), "env[0].$patch: directives of patches"),
    (
        {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
        "spec.volumes[1].name: 'a' is given twice",
    ),
    ({"nodeSelector": None}, "spec.nodeSelector: is null; give it a value, or remove it"),
    ({"volumes": [{"emptyDir": {}}]}, "spec.volumes[0]: every item needs a name"),
    ({"containers": {"name": "a"}}, "spec.containers: must be a list"),
    ({"topologySpreadConstraints": [{}]}, "[0]: every item needs a topologyKey"),
]


@pytest.mark.parametrize(("spec", "told"), REFUSED, ids=[told[:70] for _, told in REFUSED])
def test_what_cannot_be_honoured_is_refused(detector_with, spec, told):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(podTemplate={"spec": spec})
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"name": "x"}, "spec.podTemplate.metadata.name: only labels and annotations can be set"),
        ({"labels": ["a"]}, "metadata.labels: must map names to strings"),
        ({"labels": {"a": True}}, "metadata.labels: must map names to strings (quote"),
        ({"labels": {"yolofleet.io/revision": "mine"}}, "labels.yolofleet.io/revision: is Yolo"),
        ({"labels": {"app.kubernetes.io/instance": "x"}}, "selects the pods; remove it"),
        ({"labels": {"team": "a b"}}, "labels.team: 'a b' is no label"),
        ({"labels": {"-x": "a"}}, "labels.-x: 'a' is no label"),
    ],
)
def test_labels_that_select_and_what_is_no_label_are_refused(detector_with, metadata, told):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(podTemplate={"metadata": metadata})
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"volumes": [{"name": "model", "emptyDir": {}}]},
            "volumes[model]: is made for spec.model.uri; rename yours",
        ),
        (
            server(volumeMounts=[{"name": "x", "mountPath": "/mnt/model"}]),
            f"{SERVER}.volumeMounts[/mnt/model]: is for spec.model.uri; move yours",
        ),
    ],
)
def test_the_claim_of_a_model_is_not_to_be_replaced(detector_with, spec, told):
    assert detector_with(podTemplate={"spec": spec})
    for change in ({"model": PVC}, {"canary": {"model": PVC}}):
        with pytest.raises(InvalidSpec) as refusal:
            detector_with(podTemplate={"spec": spec}, **change)
        assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"volumes": [{"name": "api-keys", "emptyDir": {}}]},
            "volumes[api-keys]: is made for spec.access.apiKeys; rename yours",
        ),
        (
            server(env=[{"name": "YOLOSERVE_JWT_ISSUER", "value": "x"}]),
            f"{SERVER}.env[YOLOSERVE_JWT_ISSUER]: use spec.access.jwt.issuer",
        ),
        (
            server(env=[{"name": "YOLOSERVE_METRICS_OPEN", "value": "false"}]),
            f"{SERVER}.env[YOLOSERVE_METRICS_OPEN]: use spec.access.metricsOpen",
        ),
    ],
)
def test_who_may_ask_is_told_in_one_place(detector_with, spec, told):
    assert detector_with(podTemplate={"spec": spec})  # as it could be before there was spec.access
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(podTemplate={"spec": spec}, access={"apiKeys": {"secretName": "gate"}})
    assert told in str(refusal.value)


def test_the_template_of_a_canary_is_held_to_the_same(detector_with):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(canary={"podTemplate": {"spec": server(image="x")}})
    assert str(refusal.value).startswith("spec.canary.podTemplate.spec.containers[yoloserve].image")


@pytest.mark.parametrize(
    "template",
    [
        {"metadata": {"labels": {"team": "x", "a.b/c": ""}, "annotations": {"n": "any thing"}}},
        {"spec": other(ports=[{"containerPort": 9, "protocol": p} for p in ("TCP", "UDP")])},
        {"spec": server(env=[{"name": "YOLOSERVE_MAX_PIXELS", "value": "1000000"}])},
        {"spec": server(securityContext={"runAsUser": 7}, workingDir="/tmp")},
        {"spec": {"hostNetwork": True, "schedulerName": "mine", "runtimeClassName": "nvidia"}},
        {"spec": {"serviceAccountName": "robot", "automountServiceAccountToken": True}},
    ],
)
def test_everything_else_is_for_the_user_to_say(detector_with, template):
    assert detector_with(podTemplate=template)


def test_leave_to_run_code_may_come_from_the_template_unless_the_model_says_it(detector_with):
    """Detectors that had it there before there was a field go on."""
    template = {"spec": server(env=[{"name": "YOLOSERVE_ALLOW_ENGINE", "value": "true"}])}
    engine = {"uri": "pvc://models/a.engine"}
    detector_with(model=engine, podTemplate=template)
    detector_with(model=engine | {"allowCode": ["pickle"]}, podTemplate=template)
    with pytest.raises(InvalidSpec, match=r"YOLOSERVE_ALLOW_ENGINE\]: use spec.model.allowCode"):
        detector_with(model=engine | {"allowCode": ["engine"]}, podTemplate=template)


@pytest.mark.parametrize("number", [8000, 8082, 52_365, 10_002, 19_999])
@pytest.mark.parametrize(
    "spec",
    [
        {"runtime": {"engine": "ray"}},
        {"canary": {"runtime": {"engine": "ray"}, "weight": 1, "replicas": 1}},
    ],
)
def test_a_side_car_leaves_a_worker_of_ray_its_ports(detector_with, number, spec):
    beside = {"podTemplate": {"spec": other(ports=[{"containerPort": number}])}}
    with pytest.raises(InvalidSpec, match=rf"containers\[side\].ports\[{number}\]: with engine"):
        detector_with(**spec, **beside)
    assert detector_with(**beside), "a Deployment has none of them"


def nested(inner, levels):
    for _ in range(levels):
        inner = {LONG[:100]: inner}
    return inner


LONG, MANY = "a" * 20_000, 2_000
BOMBS = {
    "nulls": {LONG: [None] * MANY},
    "nulls deep down": nested([None] * 80_000, 47),
    "directives": {LONG: [{"$patch": "delete"}] * MANY},
    "below each other": {LONG: {LONG: [{LONG: None}] * 20}},
    "items without a key": {LONG: {"volumes": [{}] * MANY}},
    "items twice": {"volumes": [{"name": LONG}] * 20},
    "ports": other(name=LONG, ports=[{"containerPort": -n} for n in range(MANY)]),
    "amounts": other(
        name=LONG,
        env=[
            {"name": f"{n}", "valueFrom": {"resourceFieldRef": {"divisor": "x"}}}
            for n in range(MANY)
        ],
    ),
}


@pytest.mark.parametrize("spec", BOMBS.values(), ids=BOMBS)
def test_many_mistakes_below_a_long_name_are_few_words(detector_with, spec):
    """One message each, with the whole name in it, was gigabytes from an object of 200 kB."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidSpec) as refusal:
            detector_with(podTemplate={"spec": spec})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(refusal.value.problems) <= MOST_PROBLEMS + 1
    assert len(str(refusal.value)) < MOST_PROBLEMS * 500
    assert most < 64 << 20


def test_that_there_are_more_mistakes_is_said(detector_with):
    with pytest.raises(InvalidSpec, match=r"spec: there are more than these 100$"):
        detector_with(podTemplate={"spec": {"a": [None] * 101}})


def test_of_what_is_too_large_nothing_else_is_said(detector_with):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(podTemplate={"spec": {"a": None, "b": "x" * 600_000}})
    assert len(refusal.value.problems) == 1


def test_labels_are_quoted_by_their_beginning(detector_with):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(podTemplate={"metadata": {"labels": {f"{n}{LONG}": LONG for n in range(9)}}})
    assert len(str(refusal.value)) < 9_000
