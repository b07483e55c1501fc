"""The record of a revision does not die with its Deployment."""

import copy
import json
from dataclasses import replace

import pytest

from yolofleet.api.names import RENDER_ANNOTATION
from yolofleet.workloads.revision import recorded

OLD, NEW = {"uri": "https://models/old.onnx"}, {"uri": "https://models/new.onnx"}
APPROVAL = {"strategy": "Canary", "steps": [{"weight": 10, "hold": "Approval"}]}


def records(world):
    return {name: m for (kind, name), m in world.children.items() if kind == "ControllerRevision"}


def texts(world):
    return {name: kept["data"]["record"] for name, kept in records(world).items()}


def notes(world):
    return {
        name: deployment["metadata"]["annotations"][RENDER_ANNOTATION]
        for name, deployment in world.deployments().items()
    }


def ready(world):
    return world.status().condition("Ready")


def in_mid_release(world, *, mesh=True, **spec):
    """Release `OLD`, and begin a release of `NEW` that waits for a person; return both names."""
    world.mesh = mesh
    world.edit(model=OLD, replicas=2, rollout=APPROVAL, **spec)
    world.settle()
    old = world.status().stable.revision
    world.edit(model=NEW)
    world.settle(3)
    return old, world.decide().target


def test_each_revision_has_one_record_written_before_its_deployment(world):
    old, new = in_mid_release(world)
    written = [(m["kind"], m["metadata"]["name"]) for m in world.think().desired]
    assert set(records(world)) == {old, new}
    for name in (old, new):
        assert written.index(("ControllerRevision", name)) < written.index(("Deployment", name))
    assert texts(world) == notes(world)
    assert [records(world)[name]["revision"] for name in (old, new)] == [1, 2]


@pytest.mark.parametrize("mesh", [True, False])
def test_a_deleted_deployment_of_stable_is_made_again_and_serves_as_it_did(world, mesh):
    old, new = in_mid_release(world, mesh=mesh)
    pods = world.deployments()[old]["spec"]["template"]
    weights = world.weights()
    del world.children["Deployment", old]
    world.defaults = replace(world.defaults, image_cpu="serve:later")
    world.reconcile()
    assert world.status().stable.revision == old
    assert world.deployments()[old]["spec"]["template"] == pods
    assert world.selected() == old
    world.settle(4)
    assert world.weights() == weights
    assert world.ready(old) == 2
    assert world.status().stable.revision == old
    assert world.decide().target == new
    assert world.status().rollout.step == 1


def test_what_is_done_about_a_deleted_deployment_is_told_until_it_serves(world):
    old, new = in_mid_release(world)
    del world.children["Deployment", old]
    world.reconcile()
    told = ready(world)
    assert (told.status, told.reason) == ("False", "DeploymentDeleted")
    assert f"{old} was deleted" in told.message
    assert "made again from its record" in told.message
    assert f"meanwhile requests go to {new}, which is not released" in told.message
    world.reconcile()
    assert ready(world).reason == "DeploymentDeleted"
    assert "0 of 2 replicas are ready" in ready(world).message
    assert world.status().condition("Stalled").status == "False"
    world.settle()
    assert ready(world).reason == "Serving"


def test_a_suspended_detector_says_what_keeps_it_from_being_made_again(world):
    old, _ = in_mid_release(world)
    world.edit(suspend=True)
    del world.children["Deployment", old]
    world.reconcile()
    assert "once spec.suspend is false" in ready(world).message
    assert ("Deployment", old) not in world.children


@pytest.mark.parametrize("unreadable", [True, False])
def test_what_cannot_be_made_again_waits_for_a_person(world, unreadable):
    old, _ = in_mid_release(world)
    del world.children["Deployment", old]
    if unreadable:
        records(world)[old]["data"] = {"record": "{}"}
    else:
        del world.children["ControllerRevision", old]
    world.settle()
    assert world.status().condition("Stalled").status == "True"
    assert ready(world).reason == "DeploymentDeleted"
    assert "put the spec back" in ready(world).message
    assert (old in records(world)) is unreadable
    world.edit(model=OLD)
    world.settle()
    assert world.status().condition("Stalled").status == "False"
    assert ready(world).reason == "Serving"


def test_without_a_release_the_deployment_comes_back_with_the_image_that_it_had(world):
    world.edit(model=OLD)
    world.settle()
    old = world.status().stable.revision
    pods = world.deployments()[old]["spec"]["template"]
    del world.children["Deployment", old]
    world.defaults = replace(world.defaults, image_cpu="serve:later")
    world.reconcile()
    assert ready(world).reason == "DeploymentDeleted"
    assert world.deployments()[old]["spec"]["template"] == pods


def test_a_new_detector_whose_record_alone_could_be_written_lost_nothing(world):
    world.reconcile()
    for name in world.deployments():
        del world.children["Deployment", name]
    world.reconcile()
    assert ready(world).reason == "NothingReady"


def test_a_canary_comes_back_from_its_record(world):
    world.edit(model=OLD, canary={"model": NEW, "weight": 20})
    world.settle()
    canary, weights = world.status().canary.revision, world.weights()
    pods = world.deployments()[canary]["spec"]["template"]
    del world.children["Deployment", canary]
    world.defaults = replace(world.defaults, image_cpu="serve:later")
    world.settle()
    assert world.deployments()[canary]["spec"]["template"] == pods
    assert world.weights() == weights


def test_an_upgrade_fills_records_in_and_changes_nothing_else(world):
    old, new = in_mid_release(world)
    for name in (old, new):
        del world.children["ControllerRevision", name]
    before = copy.deepcopy(world.children)
    world.defaults = replace(world.defaults, image_cpu="serve:later")
    world.reconcile()
    filled = records(world)
    assert {name: m["data"]["record"] for name, m in filled.items()} == notes(world)
    assert [filled[name]["revision"] for name in (old, new)] == [1, 2], "not by age"
    assert {key: m for key, m in world.children.items() if m not in filled.values()} == before


def test_a_record_that_was_deleted_comes_back_with_its_number(world):
    old, new = in_mid_release(world)
    for name in (old, new):
        before = copy.deepcopy(records(world))
        del world.children["ControllerRevision", name]
        world.reconcile()
        assert records(world) == before


def _as_an_earlier_version(text):
    """Return a record without a default that a later version came with."""
    written = json.loads(text)
    del written["whole"]["model"]["allowBlind"]
    return json.dumps(written)


def test_what_is_written_down_stays_word_by_word_although_versions_write_more(world):
    world.settle()
    [name] = world.deployments()
    text = _as_an_earlier_version(texts(world)[name])
    world.deployments()[name]["metadata"]["annotations"][RENDER_ANNOTATION] = text
    del world.children["ControllerRevision", name]
    world.reconcile()
    assert texts(world) == notes(world) == {name: text}
    world.reconcile()
    assert texts(world) == notes(world) == {name: text}


def test_a_note_that_was_edited_is_put_right_from_the_record(world):
    world.settle()
    [name] = world.deployments()
    before = copy.deepcopy(world.deployments()[name])
    world.deployments()[name]["metadata"]["annotations"][RENDER_ANNOTATION] = "{}"
    world.defaults = replace(world.defaults, image_cpu="serve:later")
    world.reconcile()
    assert world.deployments()[name] == before


def test_what_can_be_read_is_not_given_up_for_what_cannot(world):
    """A note alone, of which somebody edited what is not hashed to the name."""
    world.settle()
    [name] = world.deployments()
    edited = notes(world)[name].replace('"confidence":0.25', '"confidence":0.9')
    world.deployments()[name]["metadata"]["annotations"][RENDER_ANNOTATION] = edited
    del world.children["ControllerRevision", name]
    world.reconcile()
    for text in (texts(world)[name], notes(world)[name]):
        assert recorded("gate", name, text) is not None


@pytest.mark.parametrize("data", [{"record": "{}"}, {"other": 1}, [], None])
def test_what_is_no_record_is_replaced_by_what_the_deployment_says(world, data):
    world.settle()
    [name] = world.deployments()
    records(world)[name]["data"] = data
    world.reconcile()
    assert texts(world) == notes(world)


def test_an_image_that_was_never_to_be_had_is_not_kept_in_the_record(world):
    world.scheduler = True
    world.broken = {world.raw["spec"]["model"]["uri"]}
    world.reconcile()
    world.run_pods()
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    for pod in world.pods:
        pod["metadata"] |= {"creationTimestamp": world.now.isoformat(), "uid": "p"}
        pod["status"] = {
            "containerStatuses": [{"name": "yoloserve", "state": {"waiting": waiting}}]
        }
    world.defaults = replace(world.defaults, image_cpu="serve:mended")
    world.reconcile()
    [(name, text)] = texts(world).items()
    assert json.loads(text)["render"]["image"] == "serve:mended"
    assert notes(world) == {name: text}


def test_records_go_with_the_deployments_of_former_revisions(world):
    for number in range(5):
        world.edit(model={"uri": f"https://models/{number}.onnx"}, rollout={"revisionHistory": 1})
        world.edit(rollout=None, revisionHistory=1)
        world.settle()
    assert set(records(world)) == set(world.deployments())
    assert len(records(world)) == 2
    assert sorted(m["revision"] for m in records(world).values()) == [4, 5]


def test_a_former_revision_whose_deployment_was_deleted_stays_one_to_roll_back_to(world):
    world.edit(model=OLD)
    world.settle()
    old = world.status().stable.revision
    pods = world.deployments()[old]["spec"]["template"]
    world.edit(model=NEW)
    world.settle()
    del world.children["Deployment", old]
    world.reconcile()
    assert world.replicas()[old] == 0
    assert world.deployments()[old]["spec"]["template"] == pods


def test_a_former_revision_is_known_as_released_without_its_deployment(world):
    """So that going back to it needs no steps, and whoever lost all else goes on from it."""
    world.edit(model=OLD, rollout=APPROVAL)
    world.settle()
    old = world.status().stable.revision
    del world.children["Deployment", old]
    del world.children["Service", "gate"]
    world.raw["status"] = {}
    world.edit(model=NEW)
    world.settle()
    assert world.status().stable.revision == old


def test_a_paused_target_whose_deployment_was_deleted_has_its_replicas_back(world):
    _, new = in_mid_release(world)
    world.edit(rollout={**APPROVAL, "paused": True})
    world.settle(3)
    assert world.replicas()[new] == 1
    del world.children["Deployment", new]
    world.settle(3)
    assert world.replicas()[new] == 1


SECRETS = {
    "access": {"apiKeys": {"secretName": "keys", "key": "k"}},
    "podTemplate": {
        "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [
                {
                    "name": "yoloserve",
                    "env": [
                        {
                            "name": "TOKEN",
                            "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}},
                        }
                    ],
                }
            ],
        }
    },
}


def _strings(value):
    if isinstance(value, dict):
        return set(value).union(*map(_strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(_strings, value))
    return {value} if isinstance(value, str) else set()


def test_a_record_holds_what_the_spec_says_and_so_names_of_secrets_only(world):
    """Nothing but the spec and the operator's defaults goes in: a Secret is read by nobody."""
    world.edit(**SECRETS)
    world.reconcile()
    [(name, text)] = texts(world).items()
    said = json.loads(text)
    spec = world.detector().spec.model_dump(mode="json", by_alias=True)
    assert _strings(said["whole"]) <= _strings(spec)
    assert _strings(said["spec"]) <= _strings(spec)
    assert said["render"].keys() == {"version", "image", "pullPolicy", "drainSeconds"}
    assert {"keys", "pull", "token"} <= _strings(said)
    revision = recorded("gate", name, text)
    assert revision is not None
    assert revision.record() == text


def test_records_can_be_told_apart_by_their_labels(world):
    world.reconcile()
    [(name, kept)] = records(world).items()
    labels = kept["metadata"]["labels"]
    assert labels["yolofleet.io/detector"] == "gate"
    assert labels["yolofleet.io/revision"] == name
    assert labels["app.kubernetes.io/managed-by"] == "yolofleet"
    assert kept["metadata"]["ownerReferences"][0]["uid"] == world.detector().uid
