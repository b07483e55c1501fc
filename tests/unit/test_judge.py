"""What admission refuses beyond CEL, and what it lets pass."""

from typing import Any

import pytest

from yolofleet.api.base import MOST_PROBLEMS
from yolofleet.plan.admission import Neighbours, Verdict, judge
from yolofleet.plan.powers import Power
from yolofleet.routers.claims import wanted
from yolofleet.routers.exposure import Allowed

PUBLIC = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}


def a_detector(
    name: str = "gate", namespace: str = "shop", labels: Any = None, **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"model": {"uri": "demo://shapes"}, **spec},
    }


def with_container(**fields: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "yoloserve", **fields}]}}
    return a_detector(podTemplate=template)


def around(
    *others: dict[str, Any],
    child_of: str = "",
    allowed: Allowed | None = None,
    forbidden: frozenset[Power] = frozenset(),
) -> Neighbours:
    keys = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in others]
    taken = {claim: key for other, key in zip(others, keys, strict=True) for claim in wanted(other)}
    return Neighbours(keys, taken, child_of, allowed or Allowed(), forbidden)


def refusal(verdict: Verdict) -> str:
    [told] = verdict.refusals
    return told


@pytest.mark.parametrize(
    ("provider", "told"),
    [("istio", ""), ("gateway", "needs a gateway"), ("service", "has no effect")],
)
def test_where_cameras_may_not_stay_on_a_revision_that_is_told(provider: str, told: str) -> None:
    traffic = {"provider": provider, "stickyHeader": "X-Camera-Id"}
    warnings = judge(a_detector(traffic=traffic), None, around()).warnings
    expected = [f"spec.traffic.stickyHeader: {told}"] if told else []
    assert [each[: len(expected[0])] for each in warnings] == expected
    assert all(len(each) <= 256 for each in warnings)


def test_of_more_mistakes_than_are_told_the_new_ones_are_refused_and_old_ones_may_go() -> None:
    def with_labels(*names: str, **values: str) -> dict[str, Any]:
        return a_detector(podTemplate={"spec": {"nodeSelector": dict.fromkeys(names) | values}})

    many = [f"k{n:03}" for n in range(150)]
    mended = judge(with_labels(*many, k000="x"), with_labels(*many), around())
    assert not mended.refusals
    assert mended.warnings
    worse = judge(with_labels(*many, "new"), with_labels(*many), around())
    assert "nodeSelector.new: is null" in refusal(worse)
    all_new = judge(with_labels(*many), None, around())
    assert len(all_new.refusals) == MOST_PROBLEMS + 1


def test_what_the_admin_forbids_is_refused_to_whoever_brings_it() -> None:
    taken = a_detector(podTemplate={"spec": {"hostNetwork": True}})
    forbidden = around(forbidden=frozenset({Power.HOST_NAMESPACES}))
    assert "spec.podTemplate.spec.hostNetwork" in refusal(judge(taken, None, forbidden))
    grown = a_detector(podTemplate={"spec": {"hostNetwork": True}}, replicas=3)
    assert not judge(grown, taken, forbidden).refusals, "an edit is refused for what it brings"
    [warning] = judge(taken, None, around()).warnings
    assert "hostNetwork" in warning


def test_a_sound_detector_passes_without_a_word() -> None:
    assert judge(a_detector(), None, around()) == Verdict()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (with_container(image="mine:1"), "containers[yoloserve].image: use spec.runtime.image"),
        (with_container(command=["sh"]), "containers[yoloserve].command: is YoloFleet"),
        (with_container(env=[{"value": "1"}]), "env[0]: every item needs a name"),
        (
            a_detector(podTemplate={"metadata": {"labels": {"a": 1}}}),
            "metadata.labels: must map names to strings",
        ),
        (
            a_detector(canary={"podTemplate": {"spec": {"containers": None}}, "weight": 1}),
            "spec.canary.podTemplate.spec.containers: is null",
        ),
    ],
)
def test_a_pod_template_that_cannot_be_honoured_is_refused(wrong: Any, told: str) -> None:
    assert told in refusal(judge(wrong, None, around()))
    assert told in refusal(judge(wrong, a_detector(), around(a_detector())))


def test_what_was_wrong_before_may_be_labelled_and_deleted() -> None:
    wrong = with_container(image="mine:1")
    labelled = wrong | {"metadata": wrong["metadata"] | {"labels": {"a": "b"}}}
    assert not judge(labelled, wrong, around()).refusals
    going = with_container(image="mine:2")
    going["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert not judge(going, wrong, around()).refusals


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"cidr": "fd00:::/8"}, "allowTo[0].to[0].ipBlock.cidr: "),
        ({"cidr": "10.0.0.0/8", "except": ["::x/1"]}, "allowTo[0].to[0].ipBlock.except[0]: "),
        ({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}, "not a part of"),
        ({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}, "10.0.0.0/8 is not a part of 10.0.0.0"),
        ({"cidr": "10.0.0.0/8", "except": ["fd00::/16"]}, "fd00::/16 is not a part of 10.0.0.0/8"),
    ],
)
def test_addresses_that_no_network_policy_could_hold_are_refused(block: Any, told: str) -> None:
    def reaching(block: Any) -> dict[str, Any]:
        return a_detector(access={"allowTo": [{"to": [{"ipBlock": block}]}]})

    assert told in refusal(judge(reaching(block), None, around()))
    right = {"cidr": "10.1.2.3/8", "except": ["10.1.0.0/16"]}
    assert judge(reaching(right), None, around()) == Verdict()


@pytest.mark.parametrize("patch", [{"suspend": True}, {"rollout": {"paused": True}}])
def test_an_edit_is_not_held_up_by_what_was_stored_before_its_rule(patch: dict[str, Any]) -> None:
    """Least of all the one that stops what is done by the last spec that could be followed."""
    stored = with_container(command=["sh"])
    verdict = judge(stored | {"spec": stored["spec"] | patch}, stored, around())
    assert not verdict.refusals
    [still] = verdict.warnings
    assert "containers[yoloserve].command" in still


def test_only_what_an_edit_brings_is_refused() -> None:
    stored = with_container(command=["sh"])
    worse = with_container(command=["sh"], image="mine:1")
    verdict = judge(worse, stored, around())
    assert "containers[yoloserve].image" in refusal(verdict)
    assert [each.partition(": ")[0] for each in verdict.warnings] == [
        "spec.podTemplate.spec.containers[yoloserve].command"
    ]
    assert judge(with_container(), worse, around()) == Verdict(), "all put right"


def test_what_one_fault_hid_is_told_when_that_is_put_right() -> None:
    """The rules that look at the whole cannot look while a field is not of its form."""
    hidden = with_container(command=["sh"])
    stored = hidden | {"spec": hidden["spec"] | {"replicas": "many"}}
    paused = stored | {"spec": stored["spec"] | {"suspend": True}}
    verdict = judge(paused, stored, around())
    assert not verdict.refusals
    assert verdict.warnings[0].startswith("spec.replicas: ")
    assert "containers[yoloserve].command" in refusal(judge(hidden, stored, around()))
    assert not judge(with_container(), stored, around()).refusals


RIGHT = {"ipBlock": {"cidr": "10.0.0.0/8"}}
WRONG = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}
STEP = {"weight": 1, "hold": "1m"}
NO_STEP = {"weight": 5, "hold": "soon"}
UNREAD = {"inference": {"deadline": "soon"}}
MANY_POWERS = {"podTemplate": {"spec": {"hostNetwork": True}}}


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"access": {"allowFrom": [RIGHT, WRONG]}}, {"access": {"allowFrom": [WRONG]}}, ""),
        ({"access": {"allowFrom": [WRONG]}}, {"access": {"allowFrom": [WRONG] * 2}}, "From[1]"),
        (
            {"access": {"allowTo": [{"to": [RIGHT]}, {"to": [RIGHT, WRONG]}]}},
            {"access": {"allowTo": [{"to": [WRONG]}]}},
            "",
        ),
        ({"access": {"allowFrom": [WRONG]}}, {"access": {"allowTo": [{"to": [WRONG]}]}}, "To[0]"),
        ({"rollout": {"steps": [STEP, NO_STEP]}}, {"rollout": {"steps": [NO_STEP]}}, ""),
        ({"rollout": {"steps": [NO_STEP]}}, {"rollout": {"steps": [NO_STEP] * 2}}, "steps.1.hold"),
        # What could not be read is put right: what is left as it was beside it was there.
        (UNREAD | {"access": {"allowFrom": [WRONG]}}, {"access": {"allowFrom": [WRONG]}}, ""),
        (
            UNREAD | {"access": {"allowFrom": [RIGHT]}},
            {"access": {"allowFrom": [WRONG]}},
            "From[0]",
        ),
        (UNREAD | {"traffic": PUBLIC}, {"traffic": PUBLIC}, ""),
        (UNREAD, {"traffic": PUBLIC}, "gate.example.com"),
        (UNREAD | MANY_POWERS, MANY_POWERS, ""),
        (UNREAD, MANY_POWERS, "hostNetwork"),
        (
            UNREAD | {"canary": {"model": {"uri": "demo://shapes"}, "weight": 1}},
            {"canary": {"model": {"uri": "demo://shapes"}, "weight": 1}},
            "spec.canary: is equal",
        ),
    ],
)
def test_what_was_wrong_before_is_known_wherever_it_stands(
    before: dict[str, Any], after: dict[str, Any], refused: str
) -> None:
    some = around(allowed=Allowed(hosts=("a",)), forbidden=frozenset({Power.HOST_NAMESPACES}))
    verdict = judge(a_detector(**after), a_detector(**before), some)
    assert [refused in each for each in verdict.refusals] == ([True] if refused else [])
    assert verdict.warnings or refused


@pytest.mark.parametrize(
    ("theirs", "clash"),
    [
        (PUBLIC, True),
        (PUBLIC | {"hosts": ["other.example.com", "GATE.example.com"]}, True),
        (PUBLIC | {"hosts": ["other.example.com"]}, False),
        (PUBLIC | {"gateways": ["istio-system/private"]}, False),
        (PUBLIC | {"gateways": ["mesh", "istio-system/public"]}, True),
        (PUBLIC | {"gateways": ["public"]}, False),  # in the other's own namespace
        ({"hosts": ["gate.example.com"]}, False),  # inside the mesh only
        ({}, False),
    ],
)
def test_a_host_of_another_detector_on_the_same_gateway_is_refused(
    theirs: dict[str, Any], clash: bool
) -> None:
    other = a_detector("door", "yard", traffic=theirs)
    verdict = judge(a_detector(traffic=PUBLIC), None, around(other))
    assert bool(verdict.refusals) is clash
    if clash:
        assert "gate.example.com on the gateway istio-system/public" in refusal(verdict)
        assert "taken by the detector yard/door already" in refusal(verdict)


@pytest.mark.parametrize("host", ["door.yard", "payments.shop"])
def test_what_clients_call_a_service_by_is_refused_inside_the_mesh_alone(host: str) -> None:
    service = host.partition(".")[0]
    told = refusal(judge(a_detector(traffic={"hosts": [host]}), None, around()))
    assert f"is also what clients call the Service {service}" in told
    assert not judge(a_detector(traffic=PUBLIC | {"hosts": [host]}), None, around()).refusals
    assert not judge(a_detector(traffic={"hosts": ["gate.shop"]}), None, around()).refusals


def test_what_the_admin_does_not_allow_is_refused_unless_it_was_there() -> None:
    some = around(allowed=Allowed(hosts=("*.cams.example.com",), gateways=("istio-system/*",)))
    allowed = {"hosts": ["a.cams.example.com"], "gateways": ["istio-system/public"]}
    assert not judge(a_detector(traffic=allowed), None, some).refusals
    told = refusal(judge(a_detector(traffic=PUBLIC), None, some))
    assert "traffic.allowedHosts of the chart" in told
    elsewhere = allowed | {"gateways": ["public"]}
    told = refusal(judge(a_detector(traffic=elsewhere), None, some))
    assert "spec.traffic.gateways: shop/public is not among" in told
    assert not judge(
        a_detector(traffic=PUBLIC, replicas=2), a_detector(traffic=PUBLIC), some
    ).refusals


def test_a_clash_that_was_there_does_not_hold_up_other_edits() -> None:
    before = a_detector(traffic=PUBLIC)
    after = a_detector(traffic=PUBLIC, replicas=3)
    other = a_detector("door", traffic=PUBLIC)
    assert not judge(after, before, around(before, other)).refusals


def test_a_detector_on_its_way_out_holds_no_host() -> None:
    other = a_detector("door", traffic=PUBLIC)
    other["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert not judge(a_detector(traffic=PUBLIC), None, around(other)).refusals


@pytest.mark.parametrize(
    ("name", "other", "clash"),
    [
        ("gate-7c9f1b2a", "gate", True),
        ("gate", "gate-7c9f1b2a", True),
        ("gate-7c9f1b2", "gate", False),
        ("gate-7c9f1bzz", "gate", False),
        ("gate-7c9f1b2a", "door", False),
        ("gate", "gate", False),
    ],
)
def test_a_name_that_a_revision_of_another_could_have_is_refused(
    name: str, other: str, clash: bool
) -> None:
    verdict = judge(a_detector(name), None, around(a_detector(other)))
    assert bool(verdict.refusals) is clash
    elsewhere = judge(a_detector(name), None, around(a_detector(other, "yard")))
    assert not elsewhere.refusals


def test_a_name_that_a_child_of_another_has_is_refused_and_ones_own_is_not() -> None:
    verdict = judge(a_detector("gate-canary"), None, around(child_of="door"))
    assert "belongs to the detector door" in refusal(verdict)
    assert not judge(a_detector("gate"), None, around(child_of="gate")).refusals


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"model": {"uri": "https://models.example.com/a.onnx"}}, "spec.model.sha256: is not set"),
        (
            {"rollout": {"analysis": {"keepFrames": True}}},
            "spec.rollout.analysis.keepFrames: keeps nothing without spec.access.framesKey",
        ),
        (
            {"canary": {"model": {"uri": "http://models.example.com/a.onnx"}, "weight": 1}},
            "spec.canary.model.sha256: is not set",
        ),
        ({"runtime": {"image": "registry:5000/serve"}}, "spec.runtime.image"),
        ({"runtime": {"image": "serve:latest"}}, "spec.runtime.image"),
    ],
)
def test_what_may_surprise_tomorrow_is_warned_of(spec: dict[str, Any], told: str) -> None:
    verdict = judge(a_detector(**spec), None, around())
    assert not verdict.refusals
    [warning] = verdict.warnings
    assert told in warning
    assert len(warning) <= 256


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "https://models.example.com/a.onnx", "sha256": "0" * 64}},
        {"runtime": {"image": "registry:5000/serve:1"}},
        {"runtime": {"image": "serve@sha256:0"}},
    ],
)
def test_what_is_pinned_is_not_warned_of(spec: dict[str, Any]) -> None:
    assert judge(a_detector(**spec), None, around()) == Verdict()
