"""The API server's words of an object, with fields as the user wrote them."""

import pytest

from yolofleet.plan.fields import Origin, as_the_user_wrote, of_a_pod, origin, steady
from yolofleet.plan.inventory import Inventory

TEMPLATE = {
    "metadata": {"labels": {"team": "x"}},
    "spec": {
        "containers": [
            {"name": "proxy", "image": "proxy:1", "env": [{"name": "A", "value": "1"}]},
            {"name": "yoloserve", "env": [{"name": "MINE", "value": "1"}]},
        ],
        "initContainers": [{"name": "fetch", "image": "fetch:1"}],
        "volumes": [{"name": "shm", "emptyDir": {}}],
        "tolerations": [{"operator": "Exists"}],
        "imagePullSecrets": [{"name": "registry"}],
    },
}


@pytest.fixture
def deployment(world):
    world.edit(podTemplate=TEMPLATE)
    world.reconcile()
    [made] = world.deployments().values()
    return made


def place(deployment, listed, name):
    """Return where in a list of the whole pod something is."""
    names = [each["name"] for each in deployment["spec"]["template"]["spec"][listed]]
    return f"{listed}[{names.index(name)}]"


@pytest.mark.parametrize(
    ("listed", "name", "rest", "written"),
    [
        ("containers", "yoloserve", ".resources.requests", "spec.resources.requests"),
        ("containers", "yoloserve", ".resources.limits[cpu]", "spec.resources.limits[cpu]"),
        ("containers", "yoloserve", ".image", "spec.runtime.image"),
        (
            *("containers", "yoloserve", ".securityContext"),
            "spec.podTemplate.spec.containers[yoloserve].securityContext",
        ),
        ("containers", "proxy", ".image", "spec.podTemplate.spec.containers[proxy].image"),
        (
            *("containers", "proxy", ".env[0].name"),
            "spec.podTemplate.spec.containers[proxy].env[A].name",
        ),
        (
            *("initContainers", "fetch", ".resources"),
            "spec.podTemplate.spec.initContainers[fetch].resources",
        ),
        (
            *("volumes", "shm", ".emptyDir.sizeLimit"),
            "spec.podTemplate.spec.volumes[shm].emptyDir.sizeLimit",
        ),
        (
            "imagePullSecrets",
            "registry",
            ".name",
            "spec.podTemplate.spec.imagePullSecrets[registry].name",
        ),
    ],
)
def test_a_field_of_the_pods_is_named_where_it_was_written(deployment, listed, name, rest, written):
    """`spec.template.spec.containers[1]` is in no detector, and 1 is not the place there."""
    where = f"spec.{place(deployment, listed, name)}{rest}"
    told = f'Deployment.apps "gate-1" is invalid: spec.template.{where}: Invalid value: "x": no'
    expected = f'Deployment.apps "gate-1" is invalid: {written}: Invalid value: "x": no'
    assert as_the_user_wrote(deployment, told, Origin()) == expected
    of_pod = f"is invalid: {where}: Invalid value"
    assert (
        of_a_pod(deployment["spec"]["template"], of_pod, Origin())
        == f"is invalid: {written}: Invalid value"
    )


@pytest.mark.parametrize(
    ("told", "written"),
    [
        (".spec.template.spec.hostnames: field not", "spec.podTemplate.spec.hostnames: field not"),
        (
            '.spec.template.spec.containers[name="proxy"].resource: field not declared',
            "spec.podTemplate.spec.containers[proxy].resource: field not declared",
        ),
        (
            '.spec.template.spec.containers[name="yoloserve"].resources.limits: expected map',
            "spec.resources.limits: expected map",
        ),
        ("spec.template.labels: Invalid", "spec.podTemplate.metadata.labels: Invalid"),
        (
            "spec.template.spec.tolerations[0].effect: R",
            "spec.podTemplate.spec.tolerations[0].effect: R",
        ),
        ("spec.template.spec.containers[9].x: no", "spec.podTemplate.spec.containers[9].x: no"),
        ("spec.strategy.type: Invalid", "spec.strategy.type: Invalid"),
        ("myspec.template.spec: no", "myspec.template.spec: no"),
        ("quota of spec. Nothing else", "quota of spec. Nothing else"),
    ],
)
def test_other_words_for_fields_are_understood_and_what_is_none_stays(deployment, told, written):
    assert as_the_user_wrote(deployment, told, Origin()) == written


def test_what_the_canary_asked_for_is_named_in_the_canary(detector_with, world):
    cpu = {"requests": {"cpu": "1"}}
    world.edit(canary={"resources": cpu, "runtime": {"image": "mine:2"}, "podTemplate": TEMPLATE})
    world.settle()
    spec, seen = world.detector().spec, world.observed().revisions
    canary = world.decide().canary
    of = origin(spec, seen[canary].revision)
    assert (of.resources, of.image) == ("spec.canary.resources", "spec.canary.runtime.image")
    assert of.pod_template == "spec.canary.podTemplate"
    [stable] = seen.keys() - {canary}
    assert origin(spec, seen[stable].revision) == Origin()


def test_what_is_said_of_pods_that_cannot_be_made_is_told_with_the_users_field(world):
    """As where a LimitRange gives a limit below the request; with a new name at each try."""
    world.settle()
    [deployment] = world.deployments().values()
    told = 'Pod "gate-1-x2x" is invalid: spec.containers[0].resources.requests: Invalid value: "2"'
    refused = {"type": "ReplicaFailure", "status": "True", "message": told}
    deployment["status"] = {"conditions": [refused]}
    [seen] = world.observed().revisions.values()
    assert seen.failure.message.endswith('invalid: spec.resources.requests: Invalid value: "2"')
    assert "x2x" not in seen.failure.message


def test_a_pod_that_a_policy_quotes_whole_is_told_by_its_beginning(world):
    """A ReplicaSet passes on all that a webhook said: 64 kB took half a minute, at each look."""
    world.settle()
    [deployment] = world.deployments().values()
    told = f"denied the request: container <side> has an invalid image <{'spec[' * 400_000}>"
    refused = {"type": "ReplicaFailure", "status": "True", "message": told}
    deployment["status"] = {"conditions": [refused]}
    [seen] = world.observed().revisions.values()
    assert len(seen.failure.message) < 20_000


def test_a_place_without_an_end_is_looked_for_in_no_more_than_a_name():
    said = "spec[" * 100_000
    assert len(of_a_pod({}, said, Origin())) < 5 * len(said)


def test_what_is_claimed_is_called_as_it_was_written_by_whose_claim_it_is(world):
    world.inventory = Inventory({"gpu.example.com": ()})
    asked = {"deviceClassName": "gpu.example.com"}
    odd = {"accelerator": asked | {"selectors": ["odd("]}}
    world.edit(accelerator=asked, canary=odd)
    thought = world.think()
    templates = [m for m in thought.desired if m["kind"] == "ResourceClaimTemplate"]
    by_name = {p.revision.name: p.revision for p in thought.plan.revisions}
    said = {
        as_the_user_wrote(
            template,
            "spec.spec.devices.requests[0].exactly.selectors[0].cel.expression: no CEL",
            origin(thought.detector.spec, by_name[template["metadata"]["name"]]),
        )
        for template in templates
    }
    assert said == {
        "spec.accelerator.selectors[0].cel.expression: no CEL",
        "spec.canary.accelerator.selectors[0].cel.expression: no CEL",
    }


def test_a_peer_is_not_counted_by_its_place_behind_our_own_pods():
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "gate"}}
    said = "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value"
    told = as_the_user_wrote(policy, said, Origin())
    assert told == "spec.access.allowFrom.ipBlock.except[0]: Invalid value"


@pytest.mark.parametrize("value", ["a" * 500_000, ":1" * 250_000])
def test_a_long_value_that_is_quoted_is_looked_through_once(value: str) -> None:
    """The API server quotes what it refuses: 500 kB held the operator for minutes."""
    said = f'Invalid value: "{value}": a label is shorter'
    assert steady(said) == said


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("read tcp 10.0.0.1:4711->10.0.0.2:443: reset", "read tcp 10.0.0.2:443: reset"),
        ("[::1]:5->[::1]:6443: reset", "[::1]:6443: reset"),
        ("a:1->b, or c:2->d:3", "a:1->b, or d:3"),
    ],
)
def test_our_side_of_a_connection_is_left_out(said: str, told: str) -> None:
    assert steady(said) == told
