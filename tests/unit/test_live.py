"""The shadow, from `spec.canary.shadow` to the file that pods re-read."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from yolofleet.api.analysis import AnalysisStatus
from yolofleet.api.names import RENDER_ANNOTATION
from yolofleet.plan.live import FRAMES_OF_A_POD, LASTS, RENEWED, shadow_in

V2 = {"uri": "https://m/b.onnx"}
KEYS = {"apiKeys": {"secretName": "gate-keys"}}
KEY = {"shadowKey": {"secretName": "gate-shadow"}}


def with_canary(world, shadow=100, **spec):
    world.edit(canary={"model": V2, "shadow": shadow}, **spec)
    world.settle()


def file(world):
    found = world.children.get(("ConfigMap", "gate-live"))
    return json.loads(found["data"]["live.json"]) if found else None


def wanted(world):
    """Return the text of the ConfigMap that a reconcile would have now."""
    found = [m for m in world.think().desired if m["kind"] == "ConfigMap"]
    return found[0]["data"]["live.json"] if found else None


@pytest.mark.parametrize("mesh", [True, False])
@pytest.mark.parametrize("weight", [0, 20])
def test_pods_are_told_whom_to_show_copies_whether_it_has_weight_or_not(world, mesh, weight):
    world.mesh = mesh
    world.edit(canary={"model": V2, "shadow": 40, "weight": weight})
    world.settle()
    told = file(world)["shadow"]
    assert told["revision"] == world.status().canary.revision
    assert (told["percent"], told["keep_frames"]) == (40, False)
    until = datetime.fromisoformat(told["until"])
    assert RENEWED < until - world.now <= LASTS


def test_a_detector_without_a_shadow_has_no_such_object_and_is_looked_at_no_more_often(world):
    world.settle()
    assert file(world) is None
    assert world.decide().requeue_after is None
    with_canary(world, shadow=0)
    assert file(world) is None
    assert world.decide().requeue_after is None


@pytest.mark.parametrize("canary", [None, {"model": V2, "shadow": 0}])
def test_it_goes_with_the_shadow(world, canary):
    with_canary(world)
    assert file(world)
    world.edit(canary=canary)
    world.settle()
    assert file(world) is None


def test_it_is_renewed_well_before_its_end_and_not_written_before(world):
    with_canary(world)
    text = wanted(world)
    until = datetime.fromisoformat(json.loads(text)["shadow"]["until"])
    again = world.decide().requeue_after
    assert world.now + again == until - RENEWED
    world.now += again - timedelta(seconds=1)
    assert wanted(world) == text
    world.now += timedelta(seconds=1)
    assert wanted(world) != text
    world.reconcile()
    assert world.decide().requeue_after == LASTS - RENEWED


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_leaves_no_shadow_that_lasts_for_days(world, days):
    with_canary(world)
    world.now += timedelta(days=days)
    world.reconcile()
    until = datetime.fromisoformat(file(world)["shadow"]["until"])
    assert timedelta() < until - world.now <= LASTS


def test_more_pods_of_the_canary_are_shown_more_and_more_senders_share_it(world):
    world.edit(replicas=4)
    world.edit(canary={"model": V2, "shadow": 100, "replicas": 2})
    world.settle()
    assert file(world)["shadow"]["max_per_second"] == FRAMES_OF_A_POD * 2 / 4


def test_a_pod_on_trial_is_shown_half_of_what_it_says_that_it_can_carry(world):
    analysis = {"strategy": "Canary", "steps": [STEP], "analysis": {}}
    world.edit(replicas=2, rollout=analysis)
    with_canary(world)
    revision = world.status().canary.revision
    assert file(world)["shadow"]["max_per_second"] == FRAMES_OF_A_POD / 2, "nobody knows yet"
    for told, of, shown in (
        (80.0, revision, 20),
        (80.0, "gate-00000000", 5),
        (1e300, revision, 1e5),
    ):
        world.analysis = AnalysisStatus(revision=of, capacity=told)
        assert json.loads(wanted(world))["shadow"]["max_per_second"] == shown


def test_another_canary_after_one_gets_a_shadow_and_a_token_of_its_own(world):
    with_canary(world)
    first = file(world)["shadow"]
    world.edit(canary={"model": {"uri": "https://m/c.onnx"}, "shadow": 100})
    seen = world.seen
    world.seen = lambda: seen().__class__(**{**_fields(seen()), "token": "f" * 64})
    world.settle()
    second = file(world)["shadow"]
    assert second["revision"] not in ("", first["revision"])
    assert (first["token"], second["token"]) == ("0123456789abcdef", "f" * 64)
    world.seen = seen
    world.settle()
    assert file(world)["shadow"]["token"] == "f" * 64, "it is kept"


def _fields(snapshot):
    return {name: getattr(snapshot, name) for name in snapshot.__slots__}


def test_where_keys_are_asked_for_the_users_key_is_used_and_no_token(world):
    with_canary(world, access=KEYS | KEY)
    assert file(world)["shadow"]["token"] is None
    assert "token" not in repr(world.decide().shadow)


def test_there_is_none_from_pods_that_cannot_know_its_key(world):
    """A key came with the canary: the stable revision is the one from before, and sends nothing."""
    world.edit(access=KEYS, rollout={"strategy": "Canary", "steps": [STEP]})
    world.settle()
    with_canary(world, access=KEYS | KEY)
    assert file(world) is None


STEP = {"weight": 10, "hold": "Approval"}


def test_there_is_none_from_pods_of_an_earlier_render_version(world):
    world.settle()
    [deployment] = world.deployments().values()
    record = json.loads(deployment["metadata"]["annotations"][RENDER_ANNOTATION])
    record["render"]["version"] = 3
    deployment["metadata"]["annotations"][RENDER_ANNOTATION] = json.dumps(record)
    del world.children["ControllerRevision", deployment["metadata"]["name"]]
    with_canary(world)
    assert file(world) is None


GOOD = {
    "revision": "gate-00000000",
    "percent": 1,
    "max_per_second": 1,
    "until": "2030-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"live.json": "{"},
        {"live.json": "[]"},
        {"live.json": 7},
        "x",
        *(
            {"live.json": json.dumps({"shadow": told})}
            for told in (
                None,
                [],
                7,
                GOOD | {"until": "2030-01-01T00:00:00"},
                GOOD | {"until": 7},
                GOOD | {"token": 7},
                GOOD | {"token": "not ours, but long enough"},
                GOOD | {"other": 7},
            )
        ),
    ],
)
def test_what_others_wrote_there_is_nothing_that_is_kept(world, data):
    with_canary(world)
    world.children["ConfigMap", "gate-live"]["data"] = data
    assert shadow_in(world.children["ConfigMap", "gate-live"]) is None
    assert json.loads(wanted(world))["shadow"]["token"] == "0123456789abcdef"


def test_pods_log_as_asked_whether_there_is_a_shadow_or_not(world):
    names = set(world.deployments())
    for level in ("debug", "error"):
        world.edit(logLevel=level)
        world.settle()
        assert file(world) == {"log_level": level}
    with_canary(world, logLevel="debug")
    assert file(world)["log_level"] == "debug"
    assert file(world)["shadow"]["percent"] == 100
    world.edit(canary=None, logLevel="info")
    world.settle()
    assert file(world) is None
    assert set(world.deployments()) >= names


def test_a_suspended_detector_renews_none_so_it_ends_by_itself(world):
    with_canary(world)
    until = datetime.fromisoformat(file(world)["shadow"]["until"])
    world.edit(suspend=True)
    world.now += timedelta(hours=1)
    world.reconcile()
    assert datetime.fromisoformat(file(world)["shadow"]["until"]) == until < world.now


def test_the_file_is_the_one_that_the_server_reads(world):
    with_canary(world)
    told = file(world)["shadow"]
    assert told["until"].endswith("Z")
    assert datetime.fromisoformat(told["until"]).tzinfo == UTC
    assert told.keys() == {
        "revision",
        "percent",
        "max_per_second",
        "until",
        "keep_frames",
        "token",
    }
