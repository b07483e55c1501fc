"""What `kubectl yd` shows and would change, of real specs and statuses, without a cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_cluster.server import merge_patched as merged
from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import AnalysisStatus, Check, Failed, Stage, Verdict
from yolofleet.api.names import RECORD_KEY, RETRY_ANNOTATION
from yolofleet.api.rollout import Despite
from yolofleet.api.seen import GOOD_WHEN_FALSE, Seen
from yolofleet.api.status import ConditionType, Reason
from yolofleet.api.typed import Approval, approvals_in, patching, retries_in, retrying
from yolofleet.cli import edits
from yolofleet.cli.__main__ import main
from yolofleet.cli.edits import NothingToDo, approval_in
from yolofleet.cli.kubectl import Changed, Forbidden, Kubectl, failure
from yolofleet.cli.kubectl import Failed as SaidNo
from yolofleet.cli.merging import difference, kept, removed, touched
from yolofleet.cli.operators import NoPage, page
from yolofleet.cli.ownership import LAST_APPLIED, defaults, owned
from yolofleet.cli.pods import state_in_words
from yolofleet.cli.tree import tree
from yolofleet.cli.watching import World as Watched
from yolofleet.cli.watching import changes
from yolofleet.cli.why import why

EDGE = {"spec": {"nodeSelector": {"node-role.kubernetes.io/edge": ""}}}
V1, V2, V3 = ({"uri": f"https://models/{n}.onnx"} for n in (1, 2, 3))
APPROVAL = [{"weight": 10, "hold": "Approval"}, {"weight": 50, "hold": "5m"}]
JUDGED = {"strategy": "Canary", "steps": APPROVAL, "analysis": {}}
NOW = datetime(2030, 1, 1, 0, 30, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[2]


def seen(world: Any) -> Seen:
    """Return the world's detector as kubectl reads it after the operator has looked at it."""
    metadata = world.raw["metadata"] | {"resourceVersion": "7"}
    status = world.raw.get("status") or {}
    return Seen({**world.raw, "metadata": metadata, "status": status})


def send(world: Any, edit: edits.Edit) -> None:
    """Make the change, as the API server makes a merge patch."""
    world.raw = merged(world.raw, edit.patch)
    world.raw["metadata"]["generation"] += "spec" in edit.patch


def record(world: Any, name: str) -> Any:
    return world.children["ControllerRevision", name]


def released(world: Any, **spec: Any) -> str:
    world.edit(**spec)
    world.settle()
    name: str = world.status().stable.revision
    return name


# promote, abort, roll back


def test_a_canary_is_promoted_as_the_pods_that_run(world: Any) -> None:
    released(world, model=V1 | {"sha256": "a" * 64}, inference={"iou": 0.5, "confidence": 0.4})
    inference = {"confidence": 0.25}
    world.edit(canary={"model": V2, "inference": inference, "podTemplate": EDGE, "weight": 50})
    world.settle()
    on_trial = world.status().canary.revision
    send(world, edits.promote(seen(world)))
    assert world.raw["spec"]["model"] == V2, "a digest of another model would refuse this one"
    assert world.raw["spec"]["inference"] == {"iou": 0.5, "confidence": 0.25}
    assert "canary" not in world.raw["spec"]
    world.settle()
    assert world.status().stable.revision == on_trial


ON_PODS = {"engine": "deployment"}  # as the API server fills it in
CLAIM = {"deviceClassName": "gpu.example.com"}
LIMITED = {"limits": {"nvidia.com/gpu": "1", "memory": "2Gi"}}


@pytest.mark.parametrize(
    ("spec", "canary", "sent"),
    [
        ({}, {"accelerator": CLAIM}, {"accelerator": CLAIM}),
        (
            {"accelerator": CLAIM},
            {"resources": LIMITED},
            {"accelerator": None, "resources": LIMITED},
        ),
        ({"resources": {}}, {"model": V2}, {"model": {"uri": V2["uri"]}}),
        ({}, {"runtime": {"engine": "ray"}}, {"runtime": {"engine": "ray"}}),
        (
            {"runtime": {"engine": "ray", "ray": {"version": "2.60.0"}}, "rayServe": {}},
            {"runtime": {"engine": "deployment"}},
            {"runtime": {"engine": "deployment", "ray": None}, "rayServe": None},
        ),
        (
            {"runtime": {"engine": "ray", "ray": {"version": "2.60.0"}}, "rayServe": {}},
            {"model": V2},
            {"model": {"uri": V2["uri"]}},
        ),
        (  # Ray's own part is replaced whole, as the operator does
            {"runtime": {"engine": "ray", "ray": {"redis": {"address": "a:1"}, "head": {"x": {}}}}},
            {"runtime": {"ray": {"head": {"y": {}}}}},
            {"runtime": {"ray": {"redis": None, "head": {"x": None, "y": {}}}}},
        ),
    ],
)
def test_a_promotion_takes_all_that_makes_the_canary(spec: Any, canary: Any, sent: Any) -> None:
    metadata = {"name": "gate", "namespace": "shop", "resourceVersion": "7"}
    asked = Seen({"metadata": metadata, "spec": {**spec, "canary": canary}})
    assert edits.promote(asked).patch == {"spec": {**sent, "canary": None}}


@pytest.mark.parametrize(
    ("recorded", "spec", "sent"),
    [
        ({"runtime": {}}, {"runtime": ON_PODS}, None),  # of before engines
        ({"runtime": {}}, {"runtime": {"engine": "ray"}}, {"runtime": {"engine": "deployment"}}),
        ({"runtime": {}}, {"runtime": ON_PODS, "accelerator": CLAIM}, {"accelerator": None}),
        ({"accelerator": CLAIM}, {"runtime": ON_PODS, "accelerator": CLAIM}, None),
        (
            {"runtime": {"backend": "auto"}},
            {"runtime": {"backend": "auto", "engine": "ray", "ray": {}}, "rayServe": {}},
            {"runtime": {"engine": "deployment", "ray": None}, "rayServe": None},
        ),
    ],
)
def test_a_roll_back_leaves_engines_and_claims_that_a_record_does_not_know(
    recorded: Any, spec: Any, sent: Any
) -> None:
    metadata = {"name": "gate", "namespace": "shop", "resourceVersion": "7"}
    asked = Seen({"metadata": metadata, "spec": spec})
    kept = {"metadata": {"name": "gate-1"}, "data": {RECORD_KEY: json.dumps({"whole": recorded})}}
    if sent is None:
        with pytest.raises(NothingToDo):
            edits.roll_back(asked, kept)
    else:
        assert edits.roll_back(asked, kept).patch == {"spec": sent}


def test_nothing_is_promoted_without_a_canary(world: Any) -> None:
    released(world)
    with pytest.raises(NothingToDo, match=r"no spec\.canary.*kubectl yd explain gate"):
        edits.promote(seen(world))


@pytest.mark.parametrize(
    "spec",
    [
        {"model": V2},
        {"model": V2 | {"sha256": "b" * 64, "classes": ["car"]}, "inference": {"imageSize": 320}},
        {"runtime": {"precision": "fp32"}, "resources": {"limits": {"memory": "3Gi"}}},
        {"access": {"apiKeys": {"secretName": "k"}, "allowFrom": [], "corsOrigins": ["*"]}},
        {"podTemplate": {"spec": {"tolerations": [{"key": "a"}]}}},
        {"podTemplate": EDGE},
        {"podTemplate": {"spec": {"nodeSelector": {}, "tolerations": [], "schedulerName": ""}}},
    ],
)
def test_a_roll_back_makes_the_very_revision_again(world: Any, spec: Any) -> None:
    first = released(world, model=V1, inference={"iou": 0.5})
    second = released(world, **spec)
    assert second != first
    for name in (first, second):
        send(world, edits.roll_back(seen(world), record(world, name)))
        world.settle()
        assert world.status().stable.revision == name
    with pytest.raises(NothingToDo, match=f"asks for {second} already"):
        edits.roll_back(seen(world), record(world, second))


def test_a_roll_back_leaves_alone_what_is_no_part_of_a_revision(world: Any) -> None:
    first = released(world, model=V1)
    peers = [{"podSelector": {"matchLabels": {"app": "x"}}}]
    keys = {"secretName": "k", "key": "keys"}
    world.edit(model=V2, replicas=7, access={"apiKeys": keys, "allowFrom": peers})
    world.settle()
    send(world, edits.roll_back(seen(world), record(world, first)))
    assert world.raw["spec"]["replicas"] == 7
    assert world.raw["spec"]["access"]["allowFrom"] == peers
    assert "apiKeys" not in world.raw["spec"]["access"]


def test_a_record_that_cannot_be_read_is_told(world: Any) -> None:
    first = released(world, model=V1)
    broken = {**record(world, first), "data": {"record": "{"}}
    with pytest.raises(NothingToDo, match=f"record of {first} cannot be read.*from Git"):
        edits.roll_back(seen(world), broken)


def test_abort_puts_the_stable_spec_back_while_a_release_goes_on(world: Any) -> None:
    first = released(world, model=V1, rollout={"strategy": "Canary", "steps": APPROVAL})
    world.edit(model=V2)
    world.settle()
    assert edits.is_called_off_by_the_spec(seen(world))
    send(world, edits.abort_release(seen(world), record(world, first)))
    world.settle()
    assert world.status().stable.revision == first
    assert world.status().rollout is None


def test_abort_removes_the_canary_where_nothing_else_goes_on(world: Any) -> None:
    released(world, canary={"model": V2, "weight": 10})
    assert not edits.is_called_off_by_the_spec(seen(world))
    send(world, edits.abort_canary(seen(world)))
    assert "canary" not in world.raw["spec"]
    world.settle()
    with pytest.raises(NothingToDo, match="nothing to abort"):
        edits.abort_canary(seen(world))


def test_abort_leaves_the_canary_where_the_operator_has_yet_to_see_a_release(world: Any) -> None:
    released(world, model=V1, canary={"model": V3, "weight": 10}, rollout=JUDGED)
    world.edit(model=V2)
    assert not edits.is_called_off_by_the_spec(seen(world))
    with pytest.raises(NothingToDo, match="has not seen the last edit"):
        edits.abort_canary(seen(world))


def test_pause_and_resume(world: Any) -> None:
    released(world)
    send(world, edits.pause(seen(world)))
    assert world.raw["spec"]["rollout"] == {"paused": True}
    with pytest.raises(NothingToDo, match="paused already; kubectl yd resume gate"):
        edits.pause(seen(world))
    send(world, edits.resume(seen(world)))
    assert world.raw["spec"]["rollout"] == {"paused": False}
    with pytest.raises(NothingToDo, match="not paused"):
        edits.resume(seen(world))


# what messages tell people to type


def test_approve_types_what_the_message_says(world: Any) -> None:
    released(world, model=V1, rollout={"strategy": "Canary", "steps": APPROVAL})
    with pytest.raises(NothingToDo, match="nothing to approve: Progressing says Settled"):
        edits.approve(seen(world))
    world.edit(model=V2)
    with pytest.raises(NothingToDo, match="has not seen the last edit"):
        edits.approve(seen(world))
    world.settle()
    edit = edits.approve(seen(world))
    assert edit.typed in world.status().condition("Progressing").message
    send(world, edit)
    world.settle()
    assert world.weights()[world.status().rollout.revision] == 50


def test_a_word_for_one_step_is_none_for_another(world: Any) -> None:
    """Two people saw step 1, and both approve."""
    steps = [{"weight": weight, "hold": "Approval"} for weight in (10, 90)]
    released(world, model=V1, rollout={"strategy": "Canary", "steps": steps})
    world.edit(model=V2)
    world.settle()
    revision = world.status().rollout.revision
    step = approval_in(seen(world), "Progressing").step
    said = f"kubectl yd approve gate --revision {revision} --step {step} -n shop\n"
    assert why(seen(world), ()).endswith(f"In short:\n  {said}")
    send(world, edits.approve(seen(world), revision=revision, step=step))
    world.settle()
    with pytest.raises(NothingToDo, match=rf"step {step + 1} of {revision}.*--step {step + 1}"):
        edits.approve(seen(world), revision=revision, step=step)
    with pytest.raises(NothingToDo, match="another step waits"):
        edits.approve(seen(world), revision="gate-00000000")
    assert world.weights()[revision] == 90
    send(world, edits.approve(seen(world), revision=revision, step=step + 1))
    world.settle()
    assert world.status().stable.revision == revision


def judged(world: Any, verdict: Verdict, **more: Any) -> None:
    trial = world.decide().trial
    by = margins_hash(world.detector().spec.rollout.analysis)
    failed = Failed(revision=trial.revision, check="kept", at=world.now, margins_hash=by)
    world.analysis = AnalysisStatus(
        revision=trial.revision,
        against=trial.against,
        stage=Stage.DARK,
        verdict=verdict,
        said="kept 0.71",
        margins_hash=by,
        checks=[Check(name="kept", verdict=verdict, since=world.now, value=0.71, limit=0.8)],
        failed=[failed] if verdict is Verdict.FAIL else [],
        **more,
    )
    world.now += timedelta(minutes=20)
    world.settle(rounds=2)


def on_trial(world: Any) -> None:
    released(world, model=V1, rollout=JUDGED)
    world.edit(model=V2)
    world.settle(rounds=2)


def test_what_was_called_off_is_accepted_or_judged_again_and_never_just_approved(
    world: Any,
) -> None:
    on_trial(world)
    going = world.status().rollout.revision
    judged(world, Verdict.FAIL)
    message = world.status().condition("Progressing").message
    with pytest.raises(NothingToDo, match=r"called off.*kubectl yd retry gate.*yd accept gate"):
        edits.approve(seen(world))
    with pytest.raises(NothingToDo, match="called off"):
        edits.approve(seen(world), revision=going, step=99)
    again = edits.retry(seen(world))
    assert again.typed in message
    assert again.patch["metadata"]["annotations"][RETRY_ANNOTATION].startswith(f"{going}:")
    accepted = edits.accept(seen(world))
    assert accepted.typed in message
    assert edits.is_called_off_by_the_spec(seen(world)), "abort puts the former spec back"
    send(world, accepted)
    assert world.detector().spec.rollout.approved.despite is Despite.ANALYSIS_FAILED


def test_what_has_not_proved_enough_goes_on_by_a_word_of_its_own(world: Any) -> None:
    on_trial(world)
    with pytest.raises(NothingToDo, match="nothing to approve"):
        edits.approve(seen(world))
    world.now = world.now.replace(year=2031)
    judged(world, Verdict.INCONCLUSIVE)
    with pytest.raises(NothingToDo, match=r"not proved enough yet.*--without-proof"):
        edits.approve(seen(world))
    edit = edits.approve(seen(world), without_proof=True)
    assert edit.patch["spec"]["rollout"]["approved"]["despite"] == "NotEnoughData"


@pytest.mark.parametrize("command", [edits.accept, edits.retry])
def test_nothing_is_accepted_that_did_not_fail(world: Any, command: Any) -> None:
    released(world)
    with pytest.raises(NothingToDo, match="no revision of gate was called off"):
        command(seen(world))


def test_an_approval_takes_back_in_spite_of_what_an_earlier_one_was(world: Any) -> None:
    released(world)
    earlier = {"revision": "a", "step": 3, "despite": "AnalysisFailed", "failed": ["kept"]}
    world.edit(rollout={"approved": earlier})
    world.raw = merged(world.raw, Approval("b", 1).patch())
    assert world.raw["spec"]["rollout"]["approved"] == {"revision": "b", "step": 1}


names = st.from_regex(r"[a-z][a-z0-9]{0,9}-[0-9a-f]{8}", fullmatch=True)
said = st.builds(
    Approval,
    names,
    st.integers(1, 20),
    st.sampled_from([None, *map(str, Despite)]),
    st.sampled_from([None, ["kept", "keptByClass"]]),
)


@given(st.lists(said, max_size=3), names, st.text(alphabet="ab .;'{}", max_size=9))
def test_commands_are_read_back_from_among_other_words(
    given: list[Approval], revision: str, words: str
) -> None:
    typed = [patching("gate", "shop", each.patch()) for each in given]
    words_again = [f"{revision}:7", f"{revision}:7.12"]
    again = ". ".join(retrying("gate", "shop", each) for each in words_again)
    message = f"{words.replace(chr(39), '')} To go on: " + ". ".join([*typed, again]) + ". Else"
    assert list(approvals_in(message)) == given
    assert retries_in(message) == words_again


def test_a_command_that_was_cut_off_is_none() -> None:
    typed = patching("gate", "shop", Approval("gate-1", 1).patch())
    assert list(approvals_in(typed[:-9])) == []
    assert list(approvals_in(patching("gate", "shop", {"spec": {"suspend": True}}))) == []


# merge patches


@pytest.mark.parametrize(
    ("now", "wanted", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {}, {"a": None}),
        (None, {"a": None, "b": {"c": None}, "d": ""}, {"b": {}, "d": ""}),
        ({}, {"zero": 0, "no": False}, {"zero": 0, "no": False}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1]}, {"a": []}, {"a": []}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_the_difference_of_two_specs(now: Any, wanted: Any, patch: Any) -> None:
    assert difference(now, wanted) == patch


leaves = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
keys = st.sampled_from("abc")
specs = st.recursive(
    st.dictionaries(keys, leaves, max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(specs, specs)
def test_a_difference_makes_one_of_the_other_and_touches_no_more(now: Any, wanted: Any) -> None:
    patch = difference(now, wanted)
    assert merged(now, patch) == wanted
    assert bool(patch) == (now != wanted)
    assert set(removed(patch)) <= set(touched(patch))
    assert merged({}, kept(patch)) == kept(patch)


# whose fields they are


def managed(manager: str, fields: Any, **more: Any) -> Seen:
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": fields, **more}
    return Seen({"metadata": {"managedFields": [entry]}})


MODEL = {"f:spec": {"f:model": {".": {}, "f:uri": {}}, "f:rollout": {"f:steps": {}}}}


@pytest.mark.parametrize(
    ("manager", "path", "is_owned"),
    [
        ("argocd-controller", "spec.model.uri", True),
        ("kustomize-controller", "spec.model.uri", True),
        ("helm-controller", "spec.model.uri", True),
        ("helm", "spec.model.uri", True),
        ("kubectl-edit", "spec.model.uri", False),
        ("argocd-controller", "spec.model.sha256", False),  # a field that Git does not have
        ("argocd-controller", "spec.model", True),  # with all that is in it
        ("argocd-controller", "spec.rollout.approved.step", False),
        ("argocd-controller", "spec.rollout.steps.0", True),  # a part of a whole
        ("argocd-controller", "metadata.annotations.yolofleet-io/retry", False),
    ],
)
def test_what_a_gitops_tool_has_set_is_its_own(manager: str, path: str, is_owned: bool) -> None:
    found = owned(managed(manager, MODEL), [tuple(path.split("."))])
    assert bool(found) is is_owned
    if found:
        assert str(found[0]).startswith(f"{path} is set by {manager} (")


def test_a_tool_that_writes_the_status_owns_no_spec() -> None:
    assert not owned(managed("argocd-controller", MODEL, subresource="status"), [("spec", "model")])


def as_fields(value: Any) -> Any:
    """Return what a manager owns that stored `value`."""
    if not isinstance(value, dict):
        return {}
    return {".": {}} | {f"f:{name}": as_fields(each) for name, each in value.items()}


def made_by_update(manager: str, given: Any, *, noted: bool) -> Seen:
    """Return what is stored when a tool makes a detector by a plain create: defaults and all."""
    annotations = {LAST_APPLIED: json.dumps({"spec": given})} if noted else {}
    spec = {**defaults(), **given, "model": {**defaults()["model"], **given["model"]}}
    fields = as_fields({"metadata": {"annotations": annotations}, "spec": spec})
    entry = {"manager": manager, "operation": "Update", "fieldsV1": fields}
    return Seen({"metadata": {"managedFields": [entry], "annotations": annotations}, "spec": spec})


@pytest.mark.parametrize(("manager", "noted"), [("argocd-controller", True), ("helm", False)])
def test_defaults_are_of_no_tool_that_made_the_detector(manager: str, noted: bool) -> None:
    given = {"model": V1, "rollout": {"steps": APPROVAL, "paused": True}}
    made = made_by_update(manager, given, noted=noted)
    paths = ["model.uri", "model.sha256", "rollout.paused", "resources.limits.memory", "replicas"]
    found = owned(made, [("spec", *path.split(".")) for path in paths])
    assert [".".join(each.path) for each in found] == ["spec.model.uri", "spec.rollout.paused"]


def test_a_default_that_git_says_too_is_the_tools_where_that_is_noted() -> None:
    given = {"model": V1, "rollout": {"paused": False}, "replicas": 1}
    paused = [("spec", "rollout", "paused")]
    assert owned(made_by_update("argocd-controller", given, noted=True), paused)
    assert not owned(made_by_update("helm", given, noted=False), paused)


# the tree, and why


def pod(name: str, revision: str, **status: Any) -> Any:
    labels = {"yolofleet.io/detector": "gate", "yolofleet.io/revision": revision}
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": status,
    }


READY = {"conditions": [{"type": "Ready", "status": "True"}]}
PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "no such\n image"}}


def test_the_tree_has_revisions_pods_weights_the_step_and_verdicts(world: Any) -> None:
    on_trial(world)
    judged(world, Verdict.INCONCLUSIVE)
    old, new = world.status().stable.revision, world.status().rollout.revision
    crashed = {"state": PULL, "restartCount": 2}
    pods = [
        pod("b", old, **READY),
        pod("a", new, containerStatuses=[crashed]),
        {**pod("z", old, **READY), "metadata": {**pod("z", old)["metadata"], "namespace": "x"}},
    ]
    lines = tree([seen(world)], pods, now=world.now, wide=True).splitlines()
    told = [" ".join(line.split()) for line in lines]
    assert told == [
        "NAME ROLE WEIGHT READY STATUS",
        f"shop/gate 2/2 Serving, Analysing · {world.status().url}",
        f"├─ {old} Stable 100 % 2/2 https://models/1.onnx",
        "│ └─ b yes ready, on n1",
        f"├─ {new} Target 0 % 1/1 https://models/2.onnx",
        "│ └─ a no ImagePullBackOff: no such image, on n1, 2 restarts",
        f"├─ Canary 0 % {new}, Analysing, since 21 min",
        f"└─ analysis {new}: kept 0.71",
        "└─ kept Inconclusive 0.71 (limit 0.8)",
    ]
    columns = {line.index(word) for line, word in zip(lines[1:3], ("2/2", "2/2"), strict=True)}
    assert columns == {lines[0].index("READY")}


def test_the_tree_counts_steps_as_they_are_walked(world: Any) -> None:
    """Who is judged and names none walks those that are usual; an older operator does not tell."""
    released(world, model=V1, rollout={"strategy": "Canary", "analysis": {"mode": "DryRun"}})
    world.edit(model=V2)
    for _ in range(4):  # some minutes of it in the dark
        world.reconcile()
        world.run_pods()
        world.now += timedelta(minutes=1)
    assert "─ step 1 of 4 " in tree([seen(world)], [], now=world.now, wide=False)
    del world.raw["status"]["rollout"]["steps"]
    assert "─ step 1  " in tree([seen(world)], [], now=world.now, wide=False)


def test_a_detector_that_nobody_has_seen_is_told_as_such(world: Any) -> None:
    assert "not seen by the operator yet" in tree([seen(world)], [], now=NOW, wide=False)
    told = why(seen(world), [])
    assert "The operator has not said anything of it" in told
    assert "watchNamespaces" in told


def test_a_detector_that_is_fine_needs_no_explanation(world: Any) -> None:
    released(world)
    assert why(seen(world), []) == (
        "shop/gate: Serving, Released\n\nNothing is wrong: it serves, and the spec is reached.\n"
    )


def test_what_is_being_deleted_is_told_with_what_that_waits_for(world: Any) -> None:
    released(world)
    at = {"deletionTimestamp": "2030-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    world.raw["metadata"] |= at
    said = "being deleted since 2030-01-01T00:00:00Z (waits for foregroundDeletion)"
    told = why(seen(world), [])
    assert told.startswith(f"shop/gate: {said}\n\nIt goes once")
    assert "Nothing is wrong" not in told
    assert said in tree([seen(world)], [], now=NOW, wide=False)


def test_what_is_being_deleted_is_not_edited(started: Any, tmp_path: Path) -> None:
    metadata = DETECTOR["metadata"] | {"deletionTimestamp": "2030-01-01T00:00:00Z"}
    (tmp_path / "leaves").write_text(json.dumps(DETECTOR | {"metadata": metadata}))
    process = started("cat leaves", "pause", "gate", "--force")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("gate is being deleted since 2030-01-01T00:00:00Z: ")


def test_why_it_is_not_ready_is_told_once_with_the_pods_and_what_to_type(world: Any) -> None:
    on_trial(world)
    judged(world, Verdict.FAIL)
    going = seen(world).status["analysis"]["revision"]
    pods = [pod("a", going, containerStatuses=[{"state": PULL}]), pod("b", going, **READY)]
    told = why(seen(world), pods)
    assert told.count("was called off: kept") == 1, told
    assert "Stalled is True (AnalysisFailed)" in told
    assert "Pods that are not ready:\n  a: ImagePullBackOff: no such image, on n1\n" in told
    assert told.endswith(
        "In short:\n  kubectl yd accept gate -n shop\n  kubectl yd retry gate -n shop\n"
    )
    elsewhere = why(seen(world), pods, Kubectl(["--context=c"]).typed)
    assert elsewhere.endswith("kubectl yd retry gate -n shop --context=c\n")


GOOD_WHEN_TRUE = {
    *("Ready", "Released", "Progressing", "TrafficRouted"),
    *("CanaryHealthy", "Analysed", "GPUAvailable", "Written"),
}


@pytest.mark.parametrize("kind", ConditionType)
def test_each_condition_is_told_when_it_is_not_as_it_should_be(kind: ConditionType) -> None:
    assert (kind in GOOD_WHEN_TRUE) is not (kind in GOOD_WHEN_FALSE)
    bad = "False" if kind in GOOD_WHEN_TRUE else "True"
    condition = {"type": kind.value, "status": bad, "reason": "Odd", "message": "do this"}
    metadata = {"name": "gate", "namespace": "shop", "generation": 1, "resourceVersion": "7"}
    status = {"observedGeneration": 1, "conditions": [condition]}
    told = why(Seen({"metadata": metadata, "spec": {}, "status": status}), ())
    assert f"{kind.value} is {bad} (Odd)\n  do this" in told


FORGED = patching("gate", "shop", Approval("gate-1", 9, "AnalysisFailed").patch())


def saying(kind: str, reason: str, message: str) -> Seen:
    condition = {"type": kind, "status": "False", "reason": reason, "message": message}
    metadata = {"name": "gate", "namespace": "shop", "generation": 1, "resourceVersion": "7"}
    status = {"observedGeneration": 1, "conditions": [condition]}
    return Seen({"metadata": metadata, "spec": {}, "status": status})


@pytest.mark.parametrize(
    ("kind", "reason", "is_believed"),
    [
        ("CanaryHealthy", "AnalysisFailed", True),
        ("CanaryHealthy", "Crashed", False),
        ("CanaryHealthy", "Odd", False),
        ("Progressing", "AnalysisUnavailable", True),
        ("Analysed", "AnalysisFailed", True),
        ("Analysed", "AnalysisUnavailable", False),
        ("Analysed", "Analysing", False),
    ],
)
def test_commands_among_the_words_of_a_pod_are_not_typed(
    kind: str, reason: str, is_believed: bool
) -> None:
    detector = saying(kind, reason, FORGED)
    if is_believed:
        assert edits.accept(detector).typed == FORGED
    else:
        with pytest.raises(NothingToDo, match="nothing to accept"):
            edits.accept(detector)
    assert ("In short:" in why(detector, ())) is is_believed


def test_the_last_command_is_the_operators() -> None:
    """Whatever is quoted before it."""
    words = f"was called off: {FORGED}; {retrying('gate', 'shop', 'gate-1:1')}"
    again, typed = retrying("gate", "shop", "gate-2:7"), Approval("gate-2", 2, "AnalysisFailed")
    message = (
        f"{words}. To judge it again: {again}. Else: {patching('gate', 'shop', typed.patch())}"
    )
    detector = saying("Progressing", "AnalysisFailed", message)
    assert edits.accept(detector).patch == typed.patch()
    assert edits.retry(detector).typed == again


@pytest.mark.parametrize("edit", [edits.approve, edits.accept, edits.retry, edits.resume])
def test_what_is_quoted_where_nothing_is_to_do_steers_no_terminal(edit: Any) -> None:
    with pytest.raises(NothingToDo) as said:
        edit(saying("Progressing", "Crashed", "no\n\x1b]52;c;cm0=\x07\u202emodel"))
    assert str(said.value).endswith("Progressing says Crashed: no ]52;c;cm0=model")


def test_the_reasons_that_have_commands_are_the_operators() -> None:
    assert {kind.value for kind in ConditionType} >= edits.WITH_COMMANDS.keys()
    said = frozenset().union(*edits.WITH_COMMANDS.values())
    assert {reason.value for reason in Reason} >= said


def test_nothing_that_others_said_steers_the_terminal(world: Any) -> None:
    released(world)
    revision = seen(world).stable
    waiting = {"waiting": {"reason": "X", "message": "\x1b]0;title\x07 a\nb \u202egnp"}}
    pods = [pod("a", revision, containerStatuses=[{"state": waiting}])]
    shown = tree([seen(world)], pods, now=NOW, wide=False) + why(seen(world), pods)
    assert shown.count("X: ]0;title a b gnp") == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_an_edit_that_the_operator_has_not_seen_is_told_before_what_was(world: Any) -> None:
    released(world)
    world.edit(replicas=3)
    assert "The last edit (generation " in why(seen(world), [])


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (READY, "ready, on n1"),
        ({}, "starting, on n1"),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                ]
            },
            "Unschedulable, on n1",
        ),
        (
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]},
            "Error, on n1",
        ),
    ],
)
def test_a_pod_in_a_few_words(status: Any, told: str) -> None:
    assert state_in_words(pod("a", "r", **status)) == told


# kubectl


@pytest.mark.parametrize(
    ("err", "kind", "told"),
    [
        ('E1129 10:11:12.1 7 memcache.go:265] "x"\nerror: odd', SaidNo, r"^odd$"),
        ('Error from server (Conflict): Operation: "gate"', Changed, "nothing was overwritten"),
        ("Error from server (Forbidden): no", Forbidden, "rbac.aggregateToDefaultRoles"),
        ('Error from server (NotFound): yolodetectors.yolofleet.io "x"', SaidNo, "yd get -A"),
        ('error: the server doesn\'t have a resource type "y"', SaidNo, "not installed"),
        (
            "Error from server (NotFound): could not find the requested resource",
            SaidNo,
            "--context",
        ),
        (
            'Error from server (Forbidden): admission webhook "a.b" denied the request: no',
            SaidNo,
            "not for want of rights",
        ),
        (
            "Error from server (Forbidden): pods is forbidden: cannot list at the cluster scope",
            Forbidden,
            "say by -n",
        ),
        ("Unable to connect to the server: dial tcp: refused", SaidNo, "cannot be reached"),
        ("The connection to the server a:1 was refused - did", SaidNo, "cannot be reached"),
        ("error: You must be logged in to the server (Unauthorized)", SaidNo, "Log in again"),
        ("", SaidNo, "without a word"),
    ],
)
def test_what_kubectl_says_no_to_is_told_with_the_fix(err: str, kind: type, told: str) -> None:
    error = failure(err)
    assert type(error) is kind
    with pytest.raises(kind, match=told):
        raise error


def test_a_watch_is_followed_from_event_to_event() -> None:
    def event(type_: str, name: str) -> Any:
        return {"type": type_, "object": {"metadata": {"namespace": "shop", "name": name}}}

    watched = Watched()
    for kind in ("ADDED", "MODIFIED"):
        watched.take("pods", event(kind, "a"))
    watched.take("pods", event("ADDED", "b"))
    watched.take("pods", event("DELETED", "a"))
    assert [each["metadata"]["name"] for each in watched.all("pods")] == ["b"]
    watched.former.add("pods")  # its watch began anew
    assert len(watched.all("pods")) == 1, "until the new list comes"
    watched.take("pods", event("ADDED", "c"))
    watched.take("pods", event("ADDED", "d"))
    assert [each["metadata"]["name"] for each in watched.all("pods")] == ["c", "d"]
    watched.forget("pods")
    assert watched.all("pods") == []


def added(name: str) -> str:
    metadata = {"namespace": "shop", "name": name}
    return json.dumps({"type": "ADDED", "object": {"metadata": metadata}})


def shown(world: Watched, kind: str = "detectors") -> list[str]:
    return [each["metadata"]["name"] for each in world.all(kind)]


@pytest.fixture
def watching(tmp_path: Path) -> Any:
    """`watching(first, then)` is what comes of watches that print these lines."""

    def watch(first: str, then: str = "exec sleep 60", **others: str) -> Any:
        script = f"[ -f again ] && {{ {then}; exit; }}; touch again; {first}"

        def start(script: str) -> Any:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            command = ["bash", "-c", script]
            return lambda: subprocess.Popen(command, cwd=tmp_path, text=True, **pipes)

        scripts = {"detectors": script} | others
        starts = {kind: start(script) for kind, script in scripts.items()}
        return contextlib.closing(changes(starts, frozenset({"pods"})))

    return watch


ERROR = json.dumps({"type": "ERROR", "object": {"kind": "Status", "metadata": {}, "code": 410}})


@pytest.mark.parametrize("ends", ["true", f"echo '{ERROR}'; exec sleep 60"])
def test_a_watch_that_ends_begins_anew_and_shows_what_was_meanwhile(
    ends: str, watching: Any
) -> None:
    again = f"sleep 0.5; echo '{added('b')}'; exec sleep 60"
    with watching(f"echo '{added('a')}'; {ends}", again) as worlds:
        seen = [shown(next(worlds))]
        while seen[-1] != ["b"]:
            seen.append(shown(next(worlds)))
    assert [] not in seen


def test_what_is_gone_when_a_watch_begins_anew_is_forgotten_in_time(
    watching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolofleet.cli.watching.ANEW_S", 0.3)
    with watching(f"echo '{added('a')}'") as worlds:
        while shown(next(worlds)):
            pass


def test_a_watch_that_is_cut_off_in_the_middle_of_a_word_is_told(watching: Any) -> None:
    cut = added("b")[:20]
    script = f"echo '{added('a')}'; echo -n '{cut}'; kill -9 $$"
    with watching(script) as worlds, pytest.raises(SaidNo, match="middle of a word"):
        list(worlds)


def test_what_may_be_listed_and_not_watched_is_not_shown_as_it_was_once(watching: Any) -> None:
    no = "echo 'Error from server (Forbidden): unknown (get pods)' >&2; exit 1"
    with watching("exec sleep 60", pods=f"echo '{added('p')}'; {no}") as worlds:
        while not (world := next(worlds)).hidden:
            pass
    assert shown(world, "pods") == []


def test_an_answer_that_is_nested_too_deep_is_no_traceback(started: Any) -> None:
    deep = "[" * 5000 + "]" * 5000
    process = started(f"echo '{{\"items\":{deep}}}'", "get")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("a podTemplate among what kubectl answered is nested too deep")


def test_an_answer_that_is_cut_off_is_no_traceback(started: Any) -> None:
    for command in (["get"], ["explain", "gate"], ["pause", "gate"]):
        process = started("echo '{\"items\":['", *command)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        assert err.startswith("kubectl was ended in the middle of a word")


def test_where_all_is_quiet_the_same_comes_again_for_ages_to_grow(
    watching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolofleet.cli.watching.REDRAW_S", 0.3)
    with watching(f"echo '{added('a')}'; exec sleep 60") as worlds:
        assert [shown(next(worlds)) for _ in range(3)] == [["a"]] * 3


MUCH = "yes 'E0102 03:04:05.678901 1 portforward.go:1] it cannot be reached' | head -n 20000 >&2"


def test_what_complains_without_end_is_read_on(watching: Any) -> None:
    no = "echo 'error: gone' >&2; exit 1"
    with watching(f"{MUCH}; echo '{added('a')}'; sleep 1; {no}") as worlds:
        assert shown(next(worlds)) == ["a"]
        with pytest.raises(SaidNo, match="gone"):
            list(worlds)


def test_a_watch_that_begins_anew_after_many_complaints_leaves_no_thread_behind(
    watching: Any,
) -> None:
    """pytest makes errors of what threads raise."""
    with watching(f"{MUCH} & echo '{ERROR}'; exec sleep 60", f"echo '{added('b')}'") as worlds:
        while shown(next(worlds)) != ["b"]:
            pass


def test_who_holds_stderr_of_kubectl_holds_up_no_end(started: Any, tmp_path: Path) -> None:
    """A helper that gives credentials may stay when kubectl is killed."""
    pods = json.dumps({"items": [operator_pod("a", LEASE, PORT)]})
    (tmp_path / "pods").write_text(pods)
    script = "[ $1 = get ] && exec cat pods\nsleep 60 & echo $! > child; exec sleep 60"
    process = started(script, "dashboard")
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    ("arguments", "fails", "status", "told"),
    [
        (["get", "gate"], "nothing", 0, ""),
        (["get", "gate"], "yolodetectors", 1, "lost"),
        (["get", "gate", "-w"], "--watch", 1, "lost"),
        (["dashboard"], "port-forward", 1, "lost"),
    ],
)
def test_what_logs_in_for_kubectl_and_stays_holds_up_no_answer(
    arguments: list[str], fails: str, status: int, told: str, started: Any, tmp_path: Path
) -> None:
    """kubectl hands its stderr on to it, and to whatever agent it begins."""
    script = (
        "sleep 60 >&- & echo $! >> agents\n"
        f"case $* in *{fails}*) echo 'error: lost' >&2; exit 1;; *pods*) exec cat pods;; esac\n"
        "exec cat list"
    )
    (tmp_path / "pods").write_text(json.dumps({"items": [operator_pod("a", LEASE, PORT)]}))
    process = started(script, *arguments)
    try:
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        for agent in (tmp_path / "agents").read_text().split():
            os.kill(int(agent), signal.SIGKILL)
    assert (process.returncode, err.strip()) == (status, told)


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [("gate", 1, "there is no detector gate in this namespace"), ("", 0, "-A shows those of all")],
)
def test_what_is_not_there_is_told_and_not_awaited_in_silence(
    name: str, status: int, told: str, started: Any
) -> None:
    script = "case $* in *--watch*) exec sleep 60;; esac\necho '{\"items\": []}'"
    process = started(script, "get", *filter(None, [name]), "-w", start_new_session=True)
    assert told in process.stderr.readline()
    if not status:
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == status


def test_who_may_not_watch_pods_is_told_so_once(started: Any, tmp_path: Path) -> None:
    script = (
        "case $* in *pods*) echo 'Error from server (Forbidden): no' >&2; exit 1;; esac\n"
        "case $* in *--watch*) ;; *) exec cat list;; esac\n"
        "cat event; sleep 0.5; sed s/Serving/Odd/ event; sleep 0.5; exit 1"
    )
    (tmp_path / "event").write_text(json.dumps({"type": "ADDED", "object": DETECTOR}) + "\n")
    out, err = started(script, "get", "-w").communicate(timeout=30)
    assert "Odd" in out
    assert err.count("Pods are not shown") == 1


# the page of the fleet


def operator_pod(name: str, *variables: str, ready: bool = True) -> Any:
    env = [{"name": each.partition("=")[0], "value": each.partition("=")[2]} for each in variables]
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": name, "namespace": "yolofleet"},
        "spec": {"containers": [{"env": [*env, {"name": "POD", "valueFrom": {}}]}]},
        "status": {"conditions": conditions},
    }


LEASE, PORT = "YOLOFLEET_LEASE_NAME=x", "YOLOFLEET_FLEET_PORT=8083"


def test_the_page_is_that_of_a_ready_pod_of_our_operator() -> None:
    pods = [
        operator_pod("others", PORT),
        operator_pod("a", LEASE, PORT, ready=False),
        operator_pod("b", LEASE, PORT),
    ]
    assert page(pods) == ("yolofleet", "b", 8083)
    elsewhere = operator_pod("c", LEASE, PORT)
    elsewhere["metadata"]["namespace"] = "shop"
    with pytest.raises(NoPage, match="operators in shop, yolofleet: say by -n"):
        page([*pods, elsewhere])
    with pytest.raises(NoPage, match=r"fleetPage\.enabled to true"):
        page([operator_pod("a", LEASE)])
    with pytest.raises(NoPage, match="no operator was found here"):
        page([operator_pod("others")])


def test_the_page_is_forwarded_from_the_operators_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl = tmp_path / "kubectl"
    pods = json.dumps({"items": [operator_pod("a", LEASE, PORT)]})
    kubectl.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f"[ $1 = get ] && {{ cat {tmp_path}/pods; exit; }}\n"
        f"{MUCH}\n"
        "echo 'Forwarding from 127.0.0.1:4321 -> 8083'; echo 'Forwarding from [::1]:4321 -> 8083'\n"
        "echo 'error: lost connection to pod' >&2; exit 1\n"
    )
    kubectl.chmod(0o755)
    (tmp_path / "pods").write_text(pods)
    monkeypatch.setenv("KUBECTL", str(kubectl))
    assert main(["dashboard", "--context", "c", "-n", "yolofleet", "--port", "0"]) == 1
    said = capsys.readouterr()
    assert said.out == "The fleet: http://localhost:4321/  (Ctrl-C ends it)\n"
    assert said.err == "lost connection to pod\n"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[1] == "port-forward pod/a 0:8083 --namespace=yolofleet --context=c"


CONFLICT = "Error from server (Conflict): the object has been modified"


@pytest.mark.parametrize(
    ("generations", "status", "patches"),
    [
        ((1, 1), 0, 2),  # the operator wrote its status: the same is sent again
        ((1, 2), 1, 2),  # somebody has edited it: told, and not overwritten
        ((1,) * 9, 1, 6),  # never taken: told in the end
    ],
)
def test_an_edit_meets_writes_of_the_status(
    generations: tuple[int, ...],
    status: int,
    patches: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = 2 if status == 0 else 99
    for number, generation in enumerate(generations, 1):
        metadata = {"name": "gate", "namespace": "shop", "uid": "u", "generation": generation}
        metadata["resourceVersion"] = str(number)
        detector = {"metadata": metadata, "spec": {"canary": {"weight": 1}}}
        (tmp_path / f"get{number}").write_text(json.dumps(detector))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"#!/bin/sh\ncd {tmp_path}\necho >> $1.log\nn=$(wc -l < $1.log)\n"
        "[ $1 = get ] && exec cat get$n\n"
        f'[ $n -ge {taken} ] && exec echo \'{{"metadata": {{"resourceVersion": "99"}}}}\'\n'
        f"echo '{CONFLICT}' >&2; exit 1\n"
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(kubectl))
    assert main(["pause", "gate"]) == status
    said = capsys.readouterr()
    assert said.out.count("kubectl patch yd gate") == 1
    assert ("nothing was overwritten" in said.err) is bool(status)
    assert len((tmp_path / "patch.log").read_text().splitlines()) == patches


DETECTOR = {
    "metadata": {"name": "gate", "namespace": "shop", "resourceVersion": "7", "generation": 1},
    "spec": {},
    "status": {
        "revisions": [{"name": "gate-05bb7f85", "role": "Stable"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Serving"}],
    },
}


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """`started(SCRIPT, "get", "gate")` is the plugin as a process; SCRIPT is its kubectl."""

    def start(script: str, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        kubectl.chmod(0o755)
        (tmp_path / "one").write_text(json.dumps(DETECTOR))
        (tmp_path / "list").write_text(json.dumps({"items": [DETECTOR]}))
        known = {"KUBECTL": str(kubectl), "PYTHONPATH": str(REPOSITORY / "operator")}
        environment = os.environ | known | more.pop("environment", {})
        command = [sys.executable, "-m", "yolofleet.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.Popen(command, env=environment, text=True, **pipes)

    return start


ANSWERS = """case "$*" in
*pods*) echo '{"items": []}';;
patch*) sed 's/"7"/"8"/' one;;
get*io\\ gate*) cat one;;
*) cat list;;
esac"""


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["pause", "gate"], 130, "nobody knows whether gate was changed"),
        (["get", "gate"], 130, ""),
        (["get", "gate", "-w"], 0, ""),
        (["dashboard"], 0, ""),
    ],
)
def test_ctrl_c_ends_well_only_what_would_go_on_for_ever(
    arguments: list[str], status: int, told: str, started: Any, tmp_path: Path
) -> None:
    process = started("touch asked; exec sleep 60", *arguments, start_new_session=True)
    while not (tmp_path / "asked").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, told in err, "Traceback" in err) == (status, True, False), err


@pytest.mark.parametrize(("command", "status"), [("pause", 141), ("get", 0)])
def test_an_edit_that_nobody_reads_of_is_not_made_and_does_not_end_well(
    command: str, status: int, started: Any, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = f"[ $1 = patch ] && touch patched; {ANSWERS}"
    process = started(script, command, "gate", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert not (tmp_path / "patched").exists()
    assert "Exception ignored" not in err


def test_a_terminal_that_knows_no_lines_shows_the_rest(started: Any) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = started(ANSWERS, "get", environment=environment)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "?? gate-05bb7f85" in out


def test_a_patch_larger_than_an_argument_may_be_is_sent_by_a_file_of_the_callers(
    started: Any, tmp_path: Path
) -> None:
    template = {"metadata": {"annotations": {"note": "x" * 200_000}}}
    wish = DETECTOR | {"spec": {"canary": {"podTemplate": template}}}
    (tmp_path / "wish").write_text(json.dumps(wish))
    keep = "stat -c %a $file > mode; cat $file > sent; echo $file > name"
    script = f"for file; do case $file in --patch-file=*) file=${{file#*=}}; {keep};; esac; done"
    process = started(f"{script}\ncat wish", "promote", "gate")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    sent = json.loads((tmp_path / "sent").read_text())
    assert sent["metadata"] == {"resourceVersion": "7"}
    assert sent["spec"] == {"podTemplate": template, "canary": None}
    assert (tmp_path / "mode").read_text() == "600\n"
    assert not Path((tmp_path / "name").read_text().strip()).exists()


def test_flags_are_handed_on_as_given_and_said_with_each_command(
    started: Any, tmp_path: Path
) -> None:
    groups = ["--as-group", "a", "--as-group", "b"]
    flags = ["--context", "my own", "--token", "hunter2", "-n", "shop", *groups]
    out, _ = started(f'echo "$@" >> asked; {ANSWERS}', "pause", "gate", *flags).communicate()
    handed = "--namespace=shop --context=my own --token=hunter2 --as-group=a --as-group=b\n"
    assert (tmp_path / "asked").read_text().count(handed) == 2
    typed, done = out.splitlines()
    assert typed.endswith("}' '--context=my own' --as-group=a --as-group=b")
    assert "kubectl yd get gate -n shop -w '--context=my own'" in done
    assert "hunter2" not in out


def test_a_flag_that_is_not_known_whole_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pause", "gate", "--dry"])
    assert "unrecognized arguments: --dry" in capsys.readouterr().err


def test_it_starts_without_what_takes_long_to_import() -> None:
    code = "import json, sys, yolofleet.cli.__main__; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(REPOSITORY / "operator")}
    out = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    loaded = {name.partition(".")[0] for name in json.loads(out.stdout)}
    assert not loaded & {"kopf", "kubernetes", "aiohttp", "pydantic", "orjson", "yaml"}
