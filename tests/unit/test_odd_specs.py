"""Whatever stands in the free-form fields of a spec is refused in words, or can be acted on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.api.base import InvalidSpec
from yolofleet.plan import powers

WORDS = ("web", "yoloserve", "YOLOSERVE_URL_HOSTS", "http", "80", "1Gi", "https://[a", "Always")
FIELDS = (
    *("name", "image", "ports", "env", "volumes", "resources", "limits", "cpu", "nvidia.com/gpu"),
    *("value", "valueFrom", "secretKeyRef", "labels", "tolerations", "emptyDir", "sizeLimit"),
)
leaves = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=4)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=6,
)


def items(key: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    of = {key: st.integers(0, 70_000) | st.sampled_from(WORDS)}
    return st.lists(st.fixed_dictionaries(of, optional=optional), max_size=2) | anything


containers = items(
    "name",
    image=anything,
    ports=items("containerPort", protocol=anything, name=anything, hostPort=anything),
    env=items("name", value=anything, valueFrom=anything),
    volumeMounts=items("mountPath", name=anything),
    resources=anything,
    securityContext=anything,
    restartPolicy=anything,
)
pods = st.fixed_dictionaries(
    {},
    optional={
        "containers": containers,
        "initContainers": containers,
        "volumes": items("name", secret=anything, emptyDir=anything),
        **dict.fromkeys(("tolerations", "affinity", "securityContext", "hostAliases"), anything),
        **dict.fromkeys(("overhead", "resources", "serviceAccountName", "hostNetwork"), anything),
        "topologySpreadConstraints": anything,
        "imagePullSecrets": items("name"),
    },
)
templates = st.fixed_dictionaries({}, optional={"spec": pods, "metadata": anything})
uris = st.text("[]:@/%?#℀a\t", max_size=8).flatmap(
    lambda rest: st.sampled_from([f"{scheme}://{rest}" for scheme in ("https", "s3", "pvc")])
)
amounts = st.dictionaries(st.sampled_from(("cpu", "a/b", "nvidia.com/gpu")), leaves, max_size=2)
parts: dict[str, st.SearchStrategy[Any]] = {
    "model": st.fixed_dictionaries({"uri": uris}),
    "podTemplate": templates,
    "resources": st.fixed_dictionaries({"limits": amounts, "requests": amounts}),
}
specs = st.fixed_dictionaries(
    {},
    optional=parts
    | {
        "canary": st.fixed_dictionaries({"weight": st.just(10)}, optional=parts),
        "autoscaling": st.fixed_dictionaries({"maxReplicas": st.just(3), "behavior": anything}),
        "access": st.just({"networkPolicy": "Restricted"}),
    },
)


@given(spec=specs)
def test_a_spec_is_refused_in_words_or_thought_through(new_world: Any, spec: Any) -> None:
    world = new_world()
    world.reconcile()
    world.edit(**spec)
    try:
        powers.check(world.detector().spec, ())
    except InvalidSpec:
        return
    list(powers.warnings(world.detector().spec))
    world.reconcile()


@pytest.mark.parametrize("uri", ["https://[models/gate.onnx", "s3://[bucket/a", "https://a℀.b/c"])
def test_an_address_that_no_parser_reads_is_refused_by_its_field(detector_with, uri):
    with pytest.raises(InvalidSpec, match=r"^spec\.model\.uri: .*write https://HOST/PATH"):
        detector_with(model={"uri": uri})
    with pytest.raises(InvalidSpec, match=r"^spec\.canary\.model\.uri: .*write https"):
        detector_with(canary={"model": {"uri": uri}, "weight": 10})


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hunter2@exam℀ple.com/a.onnx",
        "https://me:[hunter2]@example.com/a.onnx",
        f"https://me:{'x' * 600}hunter2@[example/a.onnx",
        "https://[example/a.onnx?sig=hunter2",
        "https://me:hunter2 x@[example/a.onnx",
        "https://me:x hunter2@[example/a.onnx",
    ],
)
def test_what_is_said_of_such_an_address_has_no_secret_in_it(detector_with, uri):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(model={"uri": uri})
    assert "hunter2" not in str(refusal.value)
    assert "xxx" not in str(refusal.value)


def test_an_address_within_what_is_quoted_has_no_secret_either(detector_with):
    with pytest.raises(InvalidSpec) as refusal:
        detector_with(canary={"model": {"url": "https://me:hunter2 x@h/a.onnx"}, "weight": 10})
    assert "canary.model.uri" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("port", "field"),
    [
        ({"containerPort": "web"}, "containerPort"),
        ({"containerPort": "9090"}, "containerPort"),
        ({"containerPort": 70_000}, "containerPort"),
        ({"containerPort": 9090, "protocol": ["TCP"]}, "protocol"),
    ],
)
def test_a_port_of_another_container_that_is_none_is_refused_by_its_field(
    detector_with, port, field
):
    side = {"name": "side", "image": "side:1", "ports": [port]}
    told = rf"ontainers\[side\]\.ports\[{port['containerPort']}\]\.{field}: must be"
    for kind in ("containers", "initContainers"):
        with pytest.raises(InvalidSpec, match=told):
            detector_with(podTemplate={"spec": {kind: [side]}})
