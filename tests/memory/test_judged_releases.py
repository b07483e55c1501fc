"""A judged release on played pods: whatever is lost or refused, what failed stays called off."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from faults.traces import SPEC, B
from memory_cluster.at_a_write import AT_A_WRITE
from memory_cluster.controllers import revision_of
from memory_cluster.operator import DEFAULTS, nobody_answers
from memory_cluster.world import LOOK_S, NAMESPACE, World
from played_pods import Server, bucket_of
from played_prometheus import Prometheus, metrics
from yolofleet.api.analysis import Mode
from yolofleet.api.names import FAILED_ANNOTATION, RETRY_ANNOTATION, Manifest
from yolofleet.api.typed import approvals_in, retries_in
from yolofleet.cluster import kinds

ROLLOUT = {
    "strategy": "Canary",
    "steps": [{"weight": 10, "hold": "30s"}, {"weight": 50, "hold": "30s"}],
    "analysis": {},
}
C = {"uri": "https://models.example.com/c.onnx"}
FRAMES = 600  # of each pod, in each look


class Pods:
    """What the pods of a world count. keeps: the share that another revision than stable finds."""

    def __init__(self, world: World, keeps: float) -> None:
        self.world, self.keeps = world, keeps
        self.servers: dict[str, Server] = {}
        world.tells = self.tells
        if world.operator:
            world.operator.tells = self.tells

    def tells(self, url: str) -> bytes:
        return self.server(self.world.pod_at(url)).evidence()

    def server(self, pod: Manifest) -> Server:
        uid = pod["metadata"]["uid"]
        return self.servers.setdefault(uid, Server(uid, revision_of(pod)))

    def count(self) -> None:
        """Let every pod answer so many requests, and those of stable have copies compared."""
        stable = self.world.stable()
        pods = self.world.server.all(kinds.POD)
        shown = self.shown()
        for pod in pods:
            server = self.server(pod)
            server.requests["ok"] += FRAMES
            server.times[bucket_of(0.02)] += FRAMES
            if revision_of(pod) != stable or not shown:
                continue
            server.compare_with(shown)
            server.frame(FRAMES, blind=0 if self.keeps > 0.5 else FRAMES)
            for arm in server.compute.values():
                arm[bucket_of(0.01)] += FRAMES
            for size in range(3):
                server.pair("circle", FRAMES, round(FRAMES * self.keeps), size=size)

    def shown(self) -> str:
        """Return who is shown copies, and has pods."""
        live = self.world.server.find(kinds.CONFIG_MAP, NAMESPACE, "gate-live")
        told = json.loads(live["data"].get("live.json", "{}")) if live else {}
        revision = str((told.get("shadow") or {}).get("revision", ""))
        pods = self.world.server.all(kinds.POD)
        return revision if any(revision_of(pod) == revision for pod in pods) else ""


async def play(world: World, pods: Pods, looks: int) -> None:
    """Let pods answer and time pass, look by look."""
    await world.pass_looks(looks, first=pods.count)


async def fails(world: World, pods: Pods) -> None:
    """Let what is on trial find nothing until that is stored, and no moment longer."""
    pods.keeps = 0.0
    for _ in range(100):
        world.controllers.settle()
        pods.count()
        await world.pass_time(LOOK_S)
        if world.status()["analysis"]["failed"]:
            return


async def in_the_dark(keeps: float, **spec: Any) -> tuple[World, Pods]:
    """Return a world whose new revision has been looked at once."""
    world = World()
    await world.settle()
    await world.create(**SPEC | {"rollout": ROLLOUT} | spec)
    await world.settle()
    pods = Pods(world, keeps)
    await world.edit(model=B)
    await play(world, pods, 2)
    return world, pods


def weights(world: World) -> dict[str, int]:
    route = world.server.find(kinds.VIRTUAL_SERVICE, NAMESPACE, "gate")
    assert route
    return _weights(route)


def _weights(route: Manifest) -> dict[str, int]:
    to = route["spec"]["http"][-1]["route"]
    return {r["destination"]["host"].split(".")[0]: r["weight"] for r in to}


def exposed(world: World, revision: str) -> Iterator[int]:
    """Return every weight that `revision` had since faults were set."""
    for seen in world.happened():
        if seen.kind is kinds.VIRTUAL_SERVICE and seen.type != "DELETED":
            yield _weights(seen.manifest).get(revision, 0)


async def test_a_good_revision_walks_from_the_dark_to_the_end():
    world, pods = await in_the_dark(0.98)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    assert weights(world) == {old: 100, new: 0}
    await play(world, pods, 120)
    assert world.stable() == new
    assert set(exposed(world, new)) >= {0, 10, 50, 100}
    assert "analysis" in world.status()


def scraped(world: World, pods: Pods) -> None:
    """Have a Prometheus scrape all pods in the place of whoever asks them."""
    prometheus = Prometheus()

    async def ask(query: str) -> tuple[int, bytes]:
        prometheus.now = 1e9 + world.server.clock()
        for pod in world.server.all(kinds.POD):
            target = {"namespace": NAMESPACE, "pod": pod["metadata"]["name"]}
            prometheus.scrape(metrics(pods.server(pod)), **target)
        return await prometheus.ask(query)

    assert world.operator
    world.tells = world.operator.tells = nobody_answers
    world.prometheus = world.operator.prometheus = ask


@pytest.mark.parametrize("keeps", [0.0, 0.98])
async def test_by_way_of_prometheus_it_is_judged_as_by_the_pods(keeps: float):
    world = World()
    await world.settle()
    rollout = ROLLOUT | {"analysis": {"source": "Prometheus"}}
    await world.create(**SPEC | {"rollout": rollout})
    await world.settle()
    pods = Pods(world, keeps)
    scraped(world, pods)
    await world.edit(model=B)
    await play(world, pods, 2)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    await play(world, pods, 120 if keeps else 12)
    if keeps:
        assert world.stable() == new
        return
    assert weights(world) == {old: 100}
    assert set(exposed(world, new)) == {0}
    failed = world.status()["analysis"]["failed"]
    assert [(each["revision"], each["check"]) for each in failed] == [(new, "kept")]


async def test_the_source_may_change_on_the_way_and_restarts_nothing():
    world, pods = await in_the_dark(0.98)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    before = {pod["metadata"]["uid"] for pod in world.server.all(kinds.POD)}
    await play(world, pods, 3)
    scraped(world, pods)
    await world.edit(rollout=ROLLOUT | {"analysis": {"source": "Prometheus"}})
    await play(world, pods, 3)
    assert world.status()["analysis"]["looks"] > 3, "what was known is kept"
    assert world.status()["rollout"]["revision"] == new
    assert before <= {pod["metadata"]["uid"] for pod in world.server.all(kinds.POD)}
    await play(world, pods, 110)
    assert world.stable() == new != old


async def test_a_blind_one_is_called_off_before_anybody_sees_it():
    world, pods = await in_the_dark(0.0)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    await play(world, pods, 12)
    assert weights(world) == {old: 100}
    assert set(exposed(world, new)) <= {0}
    assert world.condition("Progressing")["reason"] == "AnalysisFailed"
    assert world.server.find(kinds.DEPLOYMENT, NAMESPACE, new)["spec"]["replicas"] == 0
    assert [each["revision"] for each in world.status()["analysis"]["failed"]] == [new]
    assert world.condition("Analysed")["status"] == "False"


@pytest.mark.parametrize("weight", [0, 10])
async def test_what_failed_loses_its_weight_as_soon_as_that_is_stored(weight):
    """Our own write of it wakes nobody: without a look of its own it would keep it for a minute."""
    world, pods = await in_the_dark(0.98 if weight else 0.0)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    for _ in range(100):
        if weights(world).get(new) == weight:
            break
        await play(world, pods, 1)
    await fails(world, pods)
    assert weights(world) == {old: 100 - weight, new: weight}
    await world.pass_time(0.2)
    assert weights(world) == {old: 100}


async def test_the_command_that_is_told_has_it_judged_again_each_time():
    world, pods = await in_the_dark(0.0)
    new, words = world.status()["rollout"]["revision"], []
    for keeps in (0.0, 0.0, 0.98):
        await play(world, pods, 12)
        assert world.condition("Progressing")["reason"] == "AnalysisFailed"
        (word,) = retries_in(world.condition("Analysed")["message"])
        assert retries_in(world.condition("Progressing")["message"]) == [word]
        words.append(word)
        pods.keeps = keeps
        metadata = {"annotations": {RETRY_ANNOTATION: word}}
        world.merge(kinds.DETECTOR, "gate", {"metadata": metadata})
        await play(world, pods, 3)
    assert words == [f"{new}:2", f"{new}:2.1", f"{new}:2.2"]
    await play(world, pods, 120)
    assert world.stable() == new


async def test_one_that_turns_bad_later_goes_back():
    world, pods = await in_the_dark(0.98)
    old, new = world.stable(), world.status()["rollout"]["revision"]
    for _ in range(100):
        await play(world, pods, 1)
        if weights(world).get(new):
            break
    assert weights(world) == {old: 90, new: 10}
    pods.keeps = 0.0
    await play(world, pods, 15)
    assert weights(world) == {old: 100}
    assert world.stable() == old


async def test_a_third_spec_is_judged_for_itself_and_the_second_as_if_it_was_new():
    world, pods = await in_the_dark(0.98)
    old, second = world.stable(), world.status()["rollout"]["revision"]
    for _ in range(100):
        if weights(world).get(second) == 10:
            break
        await play(world, pods, 1)
    pods.keeps = 0.0
    await world.edit(model=C)
    await play(world, pods, 12)
    third = world.status()["analysis"]["revision"]
    assert weights(world) == {old: 100}
    assert [each["revision"] for each in world.status()["analysis"]["failed"]] == [third]
    pods.keeps = 0.98
    await world.edit(model=B)
    await play(world, pods, 60)
    assert world.stable() == second
    assert max(exposed(world, third)) == 0


async def test_of_two_canaries_in_a_row_one_that_fails_says_nothing_of_the_other():
    world = World()
    await world.settle()
    await world.create(**SPEC | {"rollout": {"analysis": {}}})
    await world.settle()
    pods = Pods(world, 0.98)
    await world.edit(canary={"model": B, "weight": 10})
    await play(world, pods, 10)
    good = world.status()["canary"]["revision"]
    pods.keeps = 0.0
    await world.edit(canary={"model": C, "weight": 20})
    await play(world, pods, 10)
    assert weights(world) == {world.stable(): 100}
    assert world.condition("CanaryHealthy")["reason"] == "AnalysisFailed"
    pods.keeps = 0.98
    await world.edit(canary={"model": B, "weight": 20})
    await play(world, pods, 10)
    assert weights(world)[good] == 20
    await world.edit(model=B, canary=None)
    await play(world, pods, 12)
    assert world.stable() == good


async def test_a_live_file_of_somebody_else_holds_the_release_and_is_told_and_left_alone():
    world = World()
    await world.settle()
    metadata = {"name": "gate-live", "namespace": NAMESPACE}
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
    world.send("POST", kinds.CONFIG_MAP.path(NAMESPACE), theirs)
    await world.create(**SPEC | {"rollout": ROLLOUT})
    await world.settle()
    pods = Pods(world, 0.98)
    await world.edit(model=B)
    await play(world, pods, 30)
    new = world.status()["rollout"]["revision"]
    assert weights(world) == {world.stable(): 100, new: 0}
    assert world.condition("Progressing")["reason"] == "ResourceConflict"
    assert "gate-live" in world.condition("Progressing")["message"]
    assert world.server.find(kinds.CONFIG_MAP, NAMESPACE, "gate-live")["data"] == {"a": "b"}


async def test_pods_that_nobody_can_read_hold_a_release_for_ever_and_are_told():
    world, pods = await in_the_dark(0.98)
    old, new = world.stable(), world.status()["rollout"]["revision"]

    def fails(_url: str) -> bytes:
        raise TimeoutError

    world.operator.tells = fails
    await play(world, pods, 40)
    assert weights(world) == {old: 100, new: 0}
    told = world.condition("Progressing")
    assert told["reason"] == "AnalysisUnavailable"
    assert told["message"].endswith("spec.rollout.analysis.source: Prometheus")
    assert "port 8081" in world.condition("Analysed")["message"]
    for kind in ("Analysed", "Progressing", "Stalled"):
        for word in ("NetworkPolicy", "STRICT", "sidecar", "spec.runtime.image", "excludeInbound"):
            assert word in world.condition(kind)["message"], (kind, word)
    assert "not rolled back" in world.condition("Progressing")["message"]
    assert not list(approvals_in(world.condition("Progressing")["message"]))
    await world.pass_time(7200)
    await play(world, pods, 2)
    assert weights(world) == {old: 100, new: 0}
    assert world.condition("Progressing")["reason"] == "AnalysisUnavailable"
    (offered,) = approvals_in(world.condition("Progressing")["message"])
    assert offered.despite == "NotEnoughData"
    world.operator.tells = pods.tells
    await play(world, pods, 30)
    assert weights(world).get(new), "once they are read, it goes on by what they tell"


async def test_pods_whose_port_is_given_to_another_container_are_not_asked_and_a_person_decides():
    world, pods = await in_the_dark(0.98)
    old, asked = world.stable(), set()

    def tells(url: str) -> bytes:
        body = pods.tells(url)
        asked.add(json.loads(body)["revision"])
        return body

    world.operator.tells = tells
    other = {"name": "agent", "image": "agent:1", "ports": [{"containerPort": 8081}]}
    await world.edit(podTemplate={"spec": {"containers": [other]}}, model=C)
    await play(world, pods, 60)
    new = world.status()["rollout"]["revision"]
    assert weights(world) == {old: 90, new: 10}
    assert new not in asked
    assert world.condition("Progressing")["reason"] == "AwaitingApproval"
    told = world.condition("Analysed")
    assert told["reason"] == "NotJudged"
    assert "port 8081: give it another" in told["message"]
    assert world.condition("Ready")["status"] == "True"


async def test_a_stable_of_before_is_no_match_and_a_person_decides_at_the_first_step(monkeypatch):
    """An upgrade restarts nothing: its pods have no port that tells what they counted."""
    monkeypatch.setattr("yolofleet.workloads.revision.RENDER_VERSION", 3)
    world = World()
    await world.settle()
    await world.create(**SPEC | {"rollout": ROLLOUT})
    await world.settle()
    monkeypatch.undo()
    pods = Pods(world, 0.98)
    old = world.stable()
    tells = pods.tells

    def only_new(url: str) -> bytes:
        body = tells(url)
        if old in body.decode():
            raise ConnectionRefusedError
        return body

    world.operator.tells = only_new
    await world.edit(model=B)
    await play(world, pods, 60)
    new = world.status()["rollout"]["revision"]
    assert weights(world) == {old: 90, new: 10}
    assert world.condition("Progressing")["reason"] == "AwaitingApproval"
    assert "earlier version" in world.condition("Analysed")["message"]


async def test_a_new_leader_goes_on_from_what_the_status_has():
    world, pods = await in_the_dark(0.98)
    await play(world, pods, 8)
    before = {c["name"]: c["samples"] for c in world.status()["analysis"]["checks"]}
    world.operator = None
    await play(world, pods, 8)
    after = {c["name"]: c["samples"] for c in world.status()["analysis"]["checks"]}
    assert after["kept"] > before["kept"] > 0


async def proved_at_the_last_step() -> tuple[World, Pods, str]:
    """Return a world whose new revision has passed at 50 %, where it is to stay a little longer."""
    world, pods = await in_the_dark(0.98)
    new = world.status()["rollout"]["revision"]
    for _ in range(100):
        await play(world, pods, 1)
        said = world.status()["analysis"]["said"]
        if weights(world).get(new) == 50 and said.startswith("Passed") and said.endswith("at 50 %"):
            return world, pods, new
    raise AssertionError(world.status())


async def away(world: World, seconds: float, how: str) -> None:
    """Let nobody look for so long: the operator is gone, or is not to."""
    if how == "suspended":
        await world.edit(suspend=True)
        await world.pass_time(1)
        await world.pass_time(seconds)
        await world.edit(suspend=False)
    else:
        world.operator = None
        world.server.clock.seconds += seconds
    await world.pass_time(0.5)


@pytest.mark.parametrize("how", ["gone", "suspended"])
@pytest.mark.parametrize("readable", [True, False], ids=["failing", "silent"])
async def test_nobody_is_released_on_what_was_proved_before_hours_without_a_look(how, readable):
    world, pods, new = await proved_at_the_last_step()

    def tells(url: str) -> bytes:
        server = pods.server(world.pod_at(url))
        if server.revision == new:
            if not readable:
                raise ConnectionRefusedError
            server.requests["internal"] += 20 * FRAMES
        return server.evidence()

    world.tells = world.operator.tells = tells
    await away(world, 7200, how)
    for _ in range(20):
        world.controllers.settle()
        await world.pass_time(LOOK_S)
        assert world.stable() != new
    assert bool(world.status()["analysis"].get("failed")) is readable


@pytest.mark.parametrize(("seconds", "looks"), [(5, 1), (7200, 7)])
async def test_after_an_outage_a_pass_is_believed_again_by_looks_as_many_as_it_was_long(
    seconds, looks
):
    world, pods, new = await proved_at_the_last_step()
    await away(world, seconds, "gone")
    world.server.clock.seconds += 30  # the step's time is over
    assert world.stable() != new
    took = 0
    while world.stable() != new:
        await play(world, pods, 1)
        took += 1
        assert took <= looks
    assert took == looks


@pytest.mark.parametrize("gone", [True, False], ids=["outage", "watched"])
async def test_looks_at_which_none_of_its_pods_was_ready_make_up_for_no_gap(gone):
    world, pods, new = await proved_at_the_last_step()
    was = world.controllers.ready
    down = [True]
    world.controllers.ready = lambda pod: was(pod) and not (down[0] and revision_of(pod) == new)

    def follow() -> None:
        for pod in world.server.all(kinds.POD):
            if revision_of(pod) == new:
                world.controllers._run(pod)

    follow()
    if gone:
        await away(world, 7200, "gone")
    for _ in range(20):
        world.controllers.settle()
        await world.pass_time(LOOK_S)
    assert world.stable() != new
    down[0] = False
    follow()
    took = 0
    while world.stable() != new:
        await play(world, pods, 1)
        took += 1
        assert took < 40
    assert took >= 7


async def without_its_last_pod(**rollout: Any) -> tuple[World, Pods, str, Callable[[], None]]:
    """Return a world whose new revision walked all steps with one pod of three, and what ends it.

    That is the word by which its other pods get ready.
    """
    world, pods = await in_the_dark(0.98, replicas=3, rollout=ROLLOUT | rollout)
    new = world.status()["rollout"]["revision"]
    was, room = world.controllers.ready, [2]
    first: list[str] = []

    def ready(pod: Manifest) -> bool:
        uid = pod["metadata"]["uid"]
        if revision_of(pod) == new and uid not in first:
            if len(first) >= room[0]:
                return False
            first.append(uid)
        return was(pod)

    def others_are_there() -> None:
        room[0] = 3
        for pod in of_the_new():
            world.controllers._run(pod)

    def of_the_new() -> list[Manifest]:
        return [pod for pod in world.server.all(kinds.POD) if revision_of(pod) == new]

    world.controllers.ready = ready
    for pod in of_the_new():
        world.controllers._run(pod)
    for _ in range(100):
        await play(world, pods, 1)
        if world.status()["rollout"]["weight"] == 100:
            break
    await play(world, pods, 2)
    assert world.stable() != new
    assert world.status()["rollout"]["weight"] == 100
    return world, pods, new, others_are_there


WAYS = pytest.mark.parametrize(
    "rollout", [{}, {"strategy": "BlueGreen", "steps": []}], ids=["Canary", "BlueGreen"]
)


@WAYS
async def test_who_only_lacked_pods_is_not_released_on_what_was_seen_before_an_outage(rollout):
    world, pods, new, others_are_there = await without_its_last_pod(**rollout)
    others_are_there()
    pods.keeps = 0.0
    await away(world, 7200, "gone")
    for _ in range(30):
        world.controllers.settle()
        pods.count()
        await world.pass_time(LOOK_S)
        assert world.stable() != new
    assert [each["revision"] for each in world.status()["analysis"]["failed"]] == [new]


@WAYS
async def test_who_only_lacked_pods_is_released_some_looks_after_an_outage(rollout):
    world, pods, new, others_are_there = await without_its_last_pod(**rollout)
    others_are_there()
    before = weights(world)
    await away(world, 7200, "gone")
    await play(world, pods, 5)
    assert world.stable() != new
    assert weights(world) == before
    told = world.condition("Progressing")["message"]
    assert told.endswith(f"it is looked at anew; {world.stable()} keeps serving")
    await play(world, pods, 3)
    assert world.stable() == new


async def test_who_answers_all_is_released_though_nothing_beside_it_comes_back():
    world, pods, new, others_are_there = await without_its_last_pod()
    old, was = world.stable(), world.controllers.ready
    world.controllers.ready = lambda pod: revision_of(pod) != old and was(pod)
    for pod in world.server.all(kinds.POD):
        world.controllers._run(pod)
    await play(world, pods, 30)
    assert world.stable() == old
    others_are_there()
    await play(world, pods, 3)
    assert world.stable() == new


@WAYS
async def test_what_pauses_while_its_last_pod_starts_waits_for_a_person(rollout):
    world, pods, new, others_are_there = await without_its_last_pod(
        **rollout, analysis={"onFailure": "Pause"}
    )
    before = weights(world)
    pods.keeps = 0.0
    await play(world, pods, 10)
    others_are_there()
    await play(world, pods, 20)
    assert world.stable() != new
    assert weights(world) == before
    assert world.condition("Progressing")["reason"] == "AwaitingApproval"
    (offered,) = approvals_in(world.condition("Progressing")["message"])
    world.merge(kinds.DETECTOR, "gate", offered.patch())
    await play(world, pods, 3)
    assert world.stable() == new


async def test_what_failed_before_an_outage_is_called_off_before_anybody_looks():
    world, pods, new = await proved_at_the_last_step()
    await fails(world, pods)
    assert weights(world)[new] == 50
    await away(world, 7200, "gone")
    assert weights(world) == {world.stable(): 100}


async def test_short_steps_wait_for_what_is_at_stake_at_each():
    """By less than a look of holding, what was asked of one step was once enough for all."""
    world, pods = await in_the_dark(0.98)
    new = world.status()["rollout"]["revision"]
    steps = [{"weight": weight, "hold": "1s"} for weight in (1, 10, 50)]
    await world.edit(rollout=ROLLOUT | {"steps": steps})
    went: list[tuple[int, float]] = []
    while world.stable() != new:
        world.controllers.settle()
        if world.server.clock.seconds % LOOK_S < 1:
            pods.count()
        await world.pass_time(1)
        share = weights(world).get(new, 0)
        if not went or went[-1][0] != share:
            went.append((share, world.server.clock.seconds))
        assert world.server.clock.seconds < 7200
    assert [share for share, _ in went] == [0, 1, 10, 50, 100]
    assert all(over - begun >= LOOK_S - 1 for (_, begun), (_, over) in pairwise(went[1:]))


async def test_a_settled_detector_is_not_looked_at():
    world, pods = await in_the_dark(0.98)
    await play(world, pods, 120)
    assert world.operator.sampler.rounds.next_look_s() is None
    await world.settle()
    assert not world.restless


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"]
)
@pytest.mark.parametrize("what", AT_A_WRITE)
async def test_whatever_goes_wrong_with_a_write_what_failed_is_called_off(what, every):
    """At writes from the first look on: nobody sees it, and it stays away."""
    prepared, pods = await in_the_dark(0.0)
    prepared.suffer()
    await play(prepared, pods, 6)
    first = 1 + list(AT_A_WRITE).index(what) % every
    for number in range(first, len(prepared.writes()) + 1, every):
        world, pods = await in_the_dark(0.0)
        new = world.status()["rollout"]["revision"]
        world.suffer(AT_A_WRITE[what](number, world))
        await play(world, pods, 6)
        world.heal()
        await world.settle()
        assert set(exposed(world, new)) <= {0}, (what, number)
        assert world.condition("Progressing")["reason"] == "AnalysisFailed", (what, number)
        noted = world.server.find(kinds.DEPLOYMENT, NAMESPACE, new)["metadata"]["annotations"]
        assert FAILED_ANNOTATION in noted
        assert not world.failures


@pytest.mark.parametrize(
    ("usual", "rollout", "said", "called_off"),
    [
        (Mode.ENFORCE, {}, "Failed: kept", True),
        (Mode.DRY_RUN, {}, "Would fail: kept", False),
        (Mode.DISABLED, {}, "", False),
        (Mode.ENFORCE, {"analysis": {"mode": "Disabled"}}, "", False),
        (Mode.DISABLED, {"analysis": {}}, "Failed: kept", True),
    ],
)
async def test_a_cluster_judges_releases_of_detectors_that_do_not_say_it(
    usual, rollout, said, called_off
):
    asked = {key: value for key, value in ROLLOUT.items() if key != "analysis"} | rollout
    world = World()
    world.defaults = replace(DEFAULTS, analysis=usual)
    await world.settle()
    await world.create(**SPEC | {"rollout": asked})
    await world.settle()
    before, pods = world.stable(), Pods(world, keeps=0.1)
    await world.edit(model=B)
    await play(world, pods, 8)
    told = world.status().get("analysis", {}).get("said", "")
    assert told.startswith(said)
    assert bool(told) == bool(said)
    await play(world, pods, 30)
    assert (world.stable() == before) is called_off
