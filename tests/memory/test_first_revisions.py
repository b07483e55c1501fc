"""What a detector is released on first: it serves, is judged by itself, and is then left alone."""

from dataclasses import replace
from typing import Any

import pytest

from faults.traces import SPEC, A, B
from memory_cluster.at_a_write import AT_A_WRITE
from memory_cluster.controllers import revision_of
from memory_cluster.operator import DEFAULTS
from memory_cluster.server import MERGE
from memory_cluster.world import NAMESPACE, World
from played_pods import Server
from yolofleet.api.analysis import Mode
from yolofleet.api.names import RELEASED_ANNOTATION, RETRY_ANNOTATION
from yolofleet.api.typed import retries_in
from yolofleet.cluster import kinds

SET = {"golden": {"configMap": "known", "minMAP50": 0.6}}
GOOD = {"state": "done", "set_sha256": "5e7", "map50": 0.9, "images": 20}
BAD = {**GOOD, "map50": 0.2}


class Told:
    """What pods tell, and how often they were asked. golden: of their known pictures."""

    def __init__(self, world: World, golden: dict[str, Any] | None = None, **server: Any) -> None:
        self.world, self.golden, self.server = world, golden, server
        self.asked = 0
        self.worse: set[str] = set()  # revisions that find little of what is known, all the same
        self.listen()

    def listen(self) -> None:
        self.world.tells = self
        if self.world.operator:
            self.world.operator.tells = self

    def __call__(self, url: str) -> bytes:
        self.asked += 1
        revision = revision_of(self.world.pod_at(url))
        golden = BAD if revision in self.worse else self.golden
        return Server("any", revision, golden=golden, **self.server).evidence()


async def made(
    golden: dict[str, Any] | None = GOOD,
    analysis: Any = SET,
    usual: Mode = Mode.DISABLED,
    **server: Any,
) -> tuple[World, Told]:
    """Return a world whose detector was just made, with all of its pods."""
    world = World()
    world.defaults = replace(DEFAULTS, analysis=usual)
    told = Told(world, golden, **server)
    await world.settle()
    rollout = {"analysis": analysis} if analysis is not None else {}
    await world.create(**SPEC | {"rollout": rollout})
    for _ in range(10):
        world.controllers.settle()
        await world.pass_time(0.5)
    return world, told


def mark(world: World) -> str:
    """Return what the workload of the released revision says of that."""
    made = world.server.find(kinds.DEPLOYMENT, NAMESPACE, world.stable())
    assert made
    return str(made["metadata"]["annotations"][RELEASED_ANNOTATION])


def judge_again(world: World, word: str) -> None:
    world.merge(kinds.DETECTOR, "gate", {"metadata": {"annotations": {RETRY_ANNOTATION: word}}})


def at_rest(world: World, told: Told) -> bool:
    """Say whether no pod is asked, nothing is written, and nobody waits for a time."""
    return world.operator.sampler.rounds.next_look_s() is None and not world.restless


async def test_it_serves_at_once_passes_and_is_looked_at_no_more():
    world, told = await made()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Released")["status"] == "True"
    assert mark(world) == "unproved"
    await world.pass_looks(8)
    assert world.status()["analysis"]["said"] == "Passed 2/2 at 100 %"
    assert world.status()["analysis"].get("against", "") == ""
    assert world.condition("Analysed")["status"] == "True"
    assert mark(world) == "true"
    asked = told.asked
    await world.pass_looks(20)
    assert told.asked == asked
    await world.settle()
    assert at_rest(world, told)


@pytest.mark.parametrize("usual", [Mode.ENFORCE, Mode.DRY_RUN])
async def test_so_it_is_by_the_charts_default(usual):
    world, told = await made(None, None, usual=usual)
    await world.pass_looks(8)
    assert world.status()["analysis"]["said"] == "Passed 1/1 at 100 %"
    assert mark(world) == "true"
    asked = told.asked
    await world.pass_looks(5)
    assert told.asked == asked


async def test_another_default_is_told_of_one_that_failed():
    world, told = await made(None, None, usual=Mode.ENFORCE, blind_in_a_row=3)
    await world.pass_looks(3)
    for usual, said in ((Mode.DRY_RUN, "Would fail: probe"), (Mode.ENFORCE, "Failed: probe")):
        world.defaults, world.operator = replace(DEFAULTS, analysis=usual), None
        await world.pass_looks(2)
        assert world.status()["analysis"]["said"] == said
        stalled = world.condition("Stalled")["status"]
        assert stalled == ("True" if usual is Mode.ENFORCE else "False")
        assert ("DryRun" in world.condition("Analysed")["message"]) is (usual is Mode.DRY_RUN)
    await world.settle()
    assert at_rest(world, told)


async def test_without_known_pictures_it_passes_by_its_own():
    world, told = await made(None, {})
    await world.pass_looks(8)
    assert world.status()["analysis"]["said"] == "Passed 1/1 at 100 %"
    await world.settle()
    assert at_rest(world, told)


@pytest.mark.parametrize(
    ("golden", "server", "check"),
    [(BAD, {}, "golden"), (GOOD, {"blind_in_a_row": 3}, "probe")],
)
@pytest.mark.parametrize("on_failure", ["Rollback", "Pause"])
async def test_one_that_fails_goes_on_serving_and_a_person_is_told(
    on_failure, golden, server, check
):
    world, told = await made(golden, SET | {"onFailure": on_failure}, **server)
    await world.pass_looks(8)
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Released")["status"] == "False"
    stalled = world.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "AnalysisFailed")
    assert f"failed {check}" in stalled["message"]
    assert "nothing to go back to" in stalled["message"]
    assert "kubectl annotate" in stalled["message"]
    assert "kubectl patch" in stalled["message"]
    assert world.status()["analysis"]["said"] == f"Failed: {check}"
    await world.settle()
    assert at_rest(world, told)


async def test_one_that_failed_is_accepted_by_a_persons_word():
    world, told = await made(BAD)
    await world.pass_looks(8)
    approved = {"revision": world.stable(), "step": 1, "despite": "AnalysisFailed"}
    await world.edit(rollout={"analysis": SET, "approved": approved})
    await world.settle()
    assert world.condition("Released")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False"
    assert mark(world) == "true"
    await world.edit(rollout={"analysis": SET})
    await world.pass_looks(8)
    assert world.condition("Stalled")["status"] == "False", "said once"
    assert at_rest(world, told)


@pytest.mark.parametrize("on_failure", ["Rollback", "Pause"])
async def test_one_that_failed_is_judged_again_by_a_persons_word(on_failure):
    world, told = await made(BAD, SET | {"onFailure": on_failure})
    await world.pass_looks(8)
    told.golden = GOOD
    judge_again(world, f"{world.stable()}:2")
    await world.pass_looks(10)
    assert world.condition("Released")["status"] == "True"
    assert world.condition("Analysed")["status"] == "True"
    assert mark(world) == "true"
    await world.settle()
    assert at_rest(world, told)


async def test_in_a_dry_run_it_is_told_and_nothing_comes_of_it():
    world, told = await made(BAD, SET | {"mode": "DryRun"})
    await world.pass_looks(8)
    assert world.status()["analysis"]["said"] == "Would fail: golden"
    assert world.condition("Released")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False"
    assert "DryRun" in world.condition("Analysed")["message"]
    await world.settle()
    assert at_rest(world, told)


@pytest.mark.parametrize("asked", [{"analysis": None}, {"analysis": {}}], ids=["later", "upgraded"])
async def test_one_that_was_released_before_is_not_judged_for_it(asked):
    world, told = await made(BAD, asked["analysis"] and SET)
    if asked["analysis"] is not None:  # made by an operator that knew of none of this
        for kind in (kinds.DEPLOYMENT, kinds.RECORD):
            for each in world.server.all(kind):
                patch = {"metadata": {"annotations": {RELEASED_ANNOTATION: "true"}}}
                world.merge(kind, each["metadata"]["name"], patch)
        world.operator = None
    asked_before = told.asked
    await world.edit(rollout={"analysis": SET})
    await world.pass_looks(10)
    assert told.asked == asked_before
    assert world.condition("Released")["status"] == "True"


async def test_a_suspended_one_is_not_looked_at_and_goes_on_later():
    world, told = await made()
    await world.pass_looks(2)
    await world.edit(suspend=True)
    await world.settle()
    asked = told.asked
    await world.pass_looks(5)
    assert told.asked == asked
    await world.edit(suspend=False)
    await world.pass_looks(8)
    assert mark(world) == "true"


async def test_a_set_that_cannot_be_used_is_told_and_asked_for_until_patience_ends():
    world, told = await made({"state": "failed", "message": "no labels"}, SET | {"maxHold": "5m"})
    await world.pass_looks(8)
    assert world.condition("Analysed")["reason"] == "AnalysisUnavailable"
    assert "no labels" in world.condition("Analysed")["message"]
    assert world.condition("Released")["status"] == "True"
    await world.pass_looks(30)
    assert world.condition("Analysed")["reason"] == "NotEnoughData"
    assert "not looked at any more" in world.condition("Analysed")["message"]
    assert "kubectl annotate" in world.condition("Analysed")["message"]
    await world.settle()
    assert at_rest(world, told)
    words = set()
    for golden in (told.golden, told.golden, GOOD):
        told.golden = golden
        (word,) = retries_in(world.condition("Analysed")["message"])
        judge_again(world, word)
        words.add(word)
        await world.pass_looks(40)
    assert len(words) == 3, "what was typed before would do nothing"
    assert mark(world) == "true"


async def test_pods_that_nobody_can_read_are_told_and_serve_and_are_not_asked_for_ever():
    world, told = await made(GOOD, SET | {"maxHold": "5m"})

    def fails(_url: str) -> bytes:
        told.asked += 1
        raise TimeoutError

    world.operator.tells = fails
    await world.pass_looks(8)
    assert world.condition("Analysed")["reason"] == "AnalysisUnavailable"
    assert "NetworkPolicy" in world.condition("Analysed")["message"]
    assert world.condition("Released")["status"] == "True"
    assert world.condition("Stalled")["status"] == "False", "nothing that works stops"
    await world.pass_looks(30)
    asked = told.asked
    await world.pass_looks(10)
    assert told.asked == asked
    assert world.condition("Analysed")["reason"] == "NotEnoughData"
    await world.settle()
    assert at_rest(world, told)


@pytest.mark.parametrize("why", ["at zero replicas", "suspended", "no operator"])
async def test_patience_does_not_end_while_nobody_looks(why):
    world, told = await made(GOOD, SET | {"maxHold": "5m"})
    await world.pass_looks(2)
    if why == "no operator":
        world.operator = None
        await world.pass_time(3600)
    else:
        before, after = {
            "at zero replicas": ({"replicas": 0}, {"replicas": 1}),
            "suspended": ({"suspend": True}, {"suspend": False}),
        }[why]
        await world.edit(**before)
        await world.settle()
        await world.pass_looks(40)
        await world.edit(**after)
    await world.pass_looks(10)
    assert world.condition("Analysed")["reason"] == "Passing"
    assert mark(world) == "true"
    await world.settle()
    assert at_rest(world, told)


async def test_nothing_is_said_of_one_that_nobody_looks_at_any_more():
    world, told = await made()
    await world.pass_looks(2)
    await world.edit(rollout={"analysis": None})
    await world.settle()
    asked = told.asked
    await world.edit(rollout={"analysis": SET})
    await world.pass_looks(10)
    assert told.asked == asked, "it was released while nothing was asked of it"
    assert world.condition("Analysed") == {}


async def test_a_word_to_judge_one_again_that_is_done_with_wipes_out_nothing():
    world, _ = await made()
    await world.pass_looks(8)
    judge_again(world, f"{world.stable()}:2")
    await world.pass_looks(3)
    assert world.status()["analysis"]["said"] == "Passed 2/2 at 100 %"


async def test_a_canary_of_the_same_time_goes_first_and_what_failed_is_no_measure_for_one():
    world, told = await made({**GOOD, "state": "running"})
    first = world.stable()
    await world.edit(canary={"model": B, "weight": 10})
    await world.pass_time(0.5)
    told.worse, told.golden = {first}, GOOD
    await world.pass_looks(3)
    assert world.status()["analysis"]["against"] == first
    await world.edit(canary=None)
    await world.pass_looks(8)
    assert world.status()["analysis"]["said"] == "Failed: golden"
    assert world.condition("Stalled")["reason"] == "AnalysisFailed"
    await world.edit(canary={"model": B, "weight": 10})
    await world.pass_looks(10)
    assert world.status()["analysis"].get("against", "") == ""
    assert world.status()["analysis"]["said"] == "Passed 2/2 at 10 %"
    assert first in world.condition("Stalled")["message"]
    await world.edit(model=B, canary=None)
    await world.pass_looks(20)
    assert world.stable() != first
    assert world.condition("Released")["status"] == "True"


async def test_one_at_zero_replicas_is_judged_once_it_serves():
    world = World()
    told = Told(world, BAD)
    await world.settle()
    await world.create(**SPEC | {"replicas": 0, "rollout": {"analysis": SET}})
    await world.settle()
    assert told.asked == 0
    assert at_rest(world, told)
    await world.edit(replicas=1)
    await world.pass_looks(8)
    assert world.condition("Stalled")["reason"] == "AnalysisFailed"


async def test_other_limits_judge_one_that_failed_again():
    world, told = await made(BAD)
    await world.pass_looks(8)
    await world.edit(rollout={"analysis": {"golden": {"configMap": "known", "minMAP50": 0.1}}})
    await world.pass_looks(10)
    assert world.condition("Released")["status"] == "True"
    assert mark(world) == "true"
    await world.settle()
    assert at_rest(world, told)


async def test_what_comes_after_one_that_failed_may_fail_too_and_the_first_goes_on_serving():
    world, told = await made(BAD)
    await world.pass_looks(8)
    first = world.stable()
    await world.edit(model=B)
    await world.pass_looks(12)
    assert world.stable() == first
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["reason"] == "AnalysisFailed"
    assert first not in world.condition("Progressing")["message"].partition(":")[0]
    assert len(world.status()["analysis"]["failed"]) == 2
    await world.settle()
    assert at_rest(world, told)


async def test_what_comes_after_one_that_failed_is_judged_by_itself_too():
    world, told = await made(BAD)
    await world.pass_looks(8)
    bad = world.stable()
    told.worse, told.golden = {bad}, GOOD
    await world.edit(model=B)
    await world.pass_looks(3)
    assert world.status()["analysis"].get("against", "") == ""
    good = world.status()["rollout"]["revision"]
    await world.pass_looks(25)
    assert world.stable() == good
    assert world.condition("Released")["status"] == "True"
    await world.edit(model=A)
    await world.pass_looks(3)
    assert world.stable() == good, "it failed: nobody goes back to it unasked"
    assert world.condition("Progressing")["reason"] == "AnalysisFailed"
    assert bad in world.condition("Progressing")["message"]


async def test_what_comes_after_one_that_is_not_done_with_is_compared_with_it():
    world, _ = await made({**GOOD, "state": "running"})
    await world.pass_looks(2)
    first = world.stable()
    await world.edit(model=B)
    await world.pass_looks(3)
    assert world.status()["analysis"]["against"] == first
    await world.edit(model=A)
    await world.pass_looks(3)
    assert world.status()["analysis"]["revision"] == first
    assert world.status()["analysis"].get("against", "") == ""


async def test_what_comes_after_one_that_never_ran_does_not_wait_for_it():
    """Its address was wrong, say: nothing could ever be compared with it."""
    world = World()
    told = Told(world, GOOD)
    await world.settle()
    runs, refused = world.controllers._run, {"waiting": {"reason": "ImagePullBackOff"}}

    def has_no_image(pod: Any) -> None:
        if B["uri"] not in str(pod["spec"]):
            runs(pod)
            return
        names = [container["name"] for container in pod["spec"]["containers"]]
        state = [{"name": name, "ready": False, "state": refused} for name in names]
        world.controllers._tell(pod, "kubelet", {"containerStatuses": state})

    world.controllers._run = has_no_image
    await world.create(**SPEC | {"model": B, "rollout": {"analysis": SET}})
    await world.settle()
    first = world.stable()
    assert world.condition("Stalled")["status"] == "True"
    await world.edit(model=A)
    await world.pass_looks(30)
    assert world.stable() != first
    assert world.condition("Released")["status"] == "True"
    await world.settle()
    assert at_rest(world, told)


async def test_a_status_that_is_lost_has_it_judged_again_or_knows_what_it_failed():
    for golden, reason in ((GOOD, "Released"), (BAD, "AnalysisFailed")):
        world, told = await made(golden)
        await world.pass_looks(3 if golden is GOOD else 8)
        world.send(
            "PATCH", kinds.DETECTOR.path(NAMESPACE, "gate") + "/status", {"status": None}, MERGE
        )
        world.operator = None
        await world.pass_looks(10)
        assert world.condition("Released")["reason"] == reason
        assert world.condition("Ready")["status"] == "True"
        await world.settle()
        assert at_rest(world, told)


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"]
)
@pytest.mark.parametrize("what", AT_A_WRITE)
@pytest.mark.parametrize("golden", [GOOD, BAD], ids=["good", "bad"])
async def test_whatever_goes_wrong_with_a_write_it_is_judged_once(golden, what, every):
    async def begun() -> World:
        world = World()
        Told(world, golden)
        await world.settle()
        return world

    async def ends(world: World) -> None:
        await world.create(**SPEC | {"rollout": {"analysis": SET}})
        await world.pass_looks(9)

    prepared = await begun()
    prepared.suffer()
    await ends(prepared)
    first = 1 + list(AT_A_WRITE).index(what) % every
    for number in range(first, len(prepared.writes()) + 1, every):
        world = await begun()
        world.suffer(AT_A_WRITE[what](number, world))
        await ends(world)
        world.heal()
        await world.pass_looks(8)
        await world.settle()
        reason = "Released" if golden is GOOD else "AnalysisFailed"
        assert world.condition("Released")["reason"] == reason, (what, number)
        assert mark(world) == ("true" if golden is GOOD else "unproved"), (what, number)
        assert world.operator.sampler.rounds.next_look_s() is None
        assert not world.failures
