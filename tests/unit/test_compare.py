"""What differs between desired and live, given who set which field."""

import copy
from typing import Any

import pytest

from yolofleet.runtime.compare import How, additions, differences

DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "gate", "namespace": "shop", "labels": {"app": "gate"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [
                    {
                        "name": "server",
                        "args": ["serve", "--fast"],
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
                    }
                ],
            }
        },
    },
}
APPLIED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:spec": {
                "f:nodeSelector": {},
                "f:containers": {
                    'k:{"name":"server"}': {
                        ".": {},
                        "f:name": {},
                        "f:args": {},
                        "f:ports": {
                            'k:{"containerPort":8080,"protocol":"TCP"}': {
                                ".": {},
                                "f:name": {},
                                "f:containerPort": {},
                                "f:protocol": {},
                            }
                        },
                        "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}},
                    }
                },
            }
        },
    },
}


def a_live() -> dict[str, Any]:
    """Return what the API server makes of DESIRED: canonical amounts, and its defaults."""
    live = copy.deepcopy(DESIRED)
    live["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    live["spec"] |= {"revisionHistoryLimit": 10}
    pod = live["spec"]["template"]["spec"]
    pod["dnsPolicy"] = "ClusterFirst"
    pod["containers"][0]["resources"]["requests"] = {"cpu": "500m", "memory": "1Gi"}
    pod["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    return live


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def found(desired: dict[str, Any], live: dict[str, Any], applied: dict[str, Any]) -> list[str]:
    return [str(difference) for difference in differences(desired, live, applied)]


def test_defaults_and_other_spellings_of_amounts_are_no_differences() -> None:
    assert found(DESIRED, a_live(), APPLIED) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["spec"].update(replicas=3), "spec.replicas (changed)"),
        (lambda d: d["metadata"]["labels"].update(app="x"), "metadata.labels.app (changed)"),
        (lambda d: d["metadata"]["labels"].update(b="c"), "metadata.labels.b (missing)"),
        (lambda d: d["spec"].pop("replicas"), "spec.replicas (dropped)"),
        (
            lambda d: pod_of(d)["containers"][0].update(args=["serve"]),
            "spec.template.spec.containers.server.args (changed)",
        ),
        (
            lambda d: pod_of(d).update(nodeSelector={"disk": "hdd"}),
            "spec.template.spec.nodeSelector (changed)",
        ),
        (
            lambda d: pod_of(d)["containers"][0]["resources"]["requests"].update(cpu="501m"),
            "spec.template.spec.containers.server.resources.requests.cpu (changed)",
        ),
        (
            lambda d: pod_of(d)["containers"].append({"name": "second"}),
            "spec.template.spec.containers.second (missing)",
        ),
        (
            lambda d: pod_of(d)["containers"][0].update(ports=[]),
            "spec.template.spec.containers.server.ports.8080/TCP (dropped)",
        ),
    ],
)
def test_a_changed_wish_is_found(change: Any, expected: str) -> None:
    desired = copy.deepcopy(DESIRED)
    change(desired)
    assert found(desired, a_live(), APPLIED) == [expected]


def test_an_item_that_another_took_is_found_and_counts_as_drift() -> None:
    applied = copy.deepcopy(APPLIED)
    del applied["f:spec"]["f:replicas"]
    live = a_live()
    live["spec"]["replicas"] = 9
    (difference,) = differences(DESIRED, live, applied)
    assert (difference.how, difference.drift) == (How.TAKEN, True)
    assert difference.field_class == "spec.replicas"


def test_a_whole_list_that_another_extended_is_found() -> None:
    live = a_live()
    pod_of(live)["containers"][0]["args"].append("--evil")
    assert found(DESIRED, live, APPLIED) == ["spec.template.spec.containers.server.args (changed)"]


def test_an_object_that_we_never_applied_differs_in_all_we_want() -> None:
    assert {d.how for d in differences(DESIRED, a_live(), {})} == {How.UNOWNED}
    desired = DESIRED | {"metadata": {"labels": {"app": "mine"}}}
    assert "metadata.labels (taken)" in found(desired, a_live(), {})


def test_a_number_is_not_a_truth_value() -> None:
    desired = {"spec": {"paused": True}}
    assert found(desired, {"spec": {"paused": 1}}, {"f:spec": {"f:paused": {}}})


def test_ports_without_a_protocol_are_tcp() -> None:
    desired = copy.deepcopy(DESIRED)
    del pod_of(desired)["containers"][0]["ports"][0]["protocol"]
    assert found(desired, a_live(), APPLIED) == [
        "spec.template.spec.containers.server.ports.8080/TCP.protocol (dropped)"
    ]


@pytest.mark.parametrize(
    ("change", "foreign", "paths"),
    [
        (
            lambda pod: pod.update(hostNetwork=True),
            {"f:hostNetwork": {}},
            [("hostNetwork",)],
        ),
        (
            lambda pod: pod["containers"].insert(0, {"name": "spy"}),
            {"f:containers": {'k:{"name":"spy"}': {".": {}, "f:name": {}}}},
            [("containers", 0)],
        ),
        (
            lambda pod: pod["containers"][0].update(env=[{"name": "A"}]),
            {"f:containers": {'k:{"name":"server"}': {"f:env": {'k:{"name":"A"}': {}}}}},
            [("containers", 0, "env")],
        ),
        (
            lambda pod: pod.update(serviceAccountName="robot", serviceAccount="robot"),
            {"f:serviceAccountName": {}},
            [("serviceAccountName",), ("serviceAccount",)],
        ),
        (lambda pod: pod, {"f:hostNetwork": {}}, []),
        (lambda pod: pod, {"f:nodeSelector": {}}, []),
    ],
)
def test_what_others_added_is_found_where_it_is(
    change: Any, foreign: dict[str, Any], paths: list[tuple[Any, ...]]
) -> None:
    live = a_live()
    change(pod_of(live))
    tree = {"f:spec": {"f:template": {"f:spec": foreign}}}
    inside = ("spec", "template", "spec")
    assert [d.path for d in additions(DESIRED, live, tree)] == [(*inside, *p) for p in paths]


def test_replicas_that_an_autoscaler_set_are_no_addition() -> None:
    desired = copy.deepcopy(DESIRED)
    del desired["spec"]["replicas"]
    assert additions(desired, a_live(), {"f:spec": {"f:replicas": {}}}) == []


def test_a_key_that_is_no_longer_wanted_in_a_map_owned_whole_is_a_change():
    service = {"spec": {"selector": {"app": "gate"}}}
    live = {"spec": {"selector": {"app": "gate", "revision": "one"}}}
    [found] = differences(service, live, {"f:spec": {"f:selector": {}}})
    assert (found.how, found.path) == (How.CHANGED, ("spec", "selector"))
    assert not differences(live, live, {"f:spec": {"f:selector": {}}})


@pytest.mark.parametrize(
    ("field", "wanted", "more"),
    [
        ("selector", {"app": "gate"}, {"app": "gate", "thief": "1"}),
        (
            "podSelector",
            {"matchLabels": {"app": "gate"}},
            {"matchLabels": {"app": "gate", "thief": "1"}},
        ),
    ],
)
def test_a_label_that_another_put_into_our_selector_is_drift(
    field: str, wanted: dict[str, Any], more: dict[str, Any]
) -> None:
    """It then owns the selector as a whole, and we own nothing of it."""
    [found] = differences({"spec": {field: wanted}}, {"spec": {field: more}}, {})
    assert (found.how, found.path) == (How.TAKEN, ("spec", field))


@pytest.mark.parametrize(
    ("want", "have"),
    [
        ({"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "0.5Gi"}}]},
         {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "512Mi"}}]}),
        ({"overhead": {"cpu": 0.25}}, {"overhead": {"cpu": "250m"}}),
        ({"initContainers": [{"name": "a", "resources": {"requests": {"cpu": "100u"}}}]},
         {"initContainers": [{"name": "a", "resources": {"requests": {"cpu": "1m"}}}]}),
    ],
)  # fmt: skip
def test_what_the_api_server_respells_is_no_difference(want: Any, have: Any) -> None:
    desired, live = ({"spec": {"template": {"spec": spec}}} for spec in (want, have))
    applied = {"f:spec": {"f:template": {"f:spec": {f"f:{next(iter(want))}": {}}}}}
    assert found(desired, live, applied) == []


@pytest.mark.parametrize(
    "place",
    [
        lambda text: {"metadata": {"labels": {"storage": text}}},
        lambda text: {"metadata": {"annotations": {"limits": text}}},
        lambda text: {"spec": {"template": {"spec": {"containers": [{"env": [{"value": text}]}]}}}},
        lambda text: {"spec": {"ports": [{"value": text}]}},
    ],
)
def test_text_that_looks_like_an_amount_is_compared_as_text(place: Any) -> None:
    """A label, or an environment variable, of 1000m in the place of 1 was taken for the same."""
    desired, live = place("1"), place("1000m")
    top, below = next(iter(desired.items()))
    applied = {f"f:{top}": {f"f:{next(iter(below))}": {}}}
    assert len(found(desired, live, applied)) == 1
