"""A release that is judged: dark first, on only by proof, and off for good by a failure."""

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from yolofleet.analysis.margins import margins_hash
from yolofleet.api.analysis import (
    Analysis,
    AnalysisStatus,
    Check,
    Failed,
    Restart,
    Stage,
    Sum,
    Verdict,
)
from yolofleet.api.names import FAILED_ANNOTATION, RETRY_ANNOTATION
from yolofleet.api.typed import Approval, approvals_in
from yolofleet.plan.judging import is_news

V1, V2, V3 = ({"uri": f"https://models/{n}.onnx"} for n in (1, 2, 3))
STEPS = [{"weight": 10, "hold": "2m"}, {"weight": 50, "hold": "5m"}]
JUDGED = {"strategy": "Canary", "steps": STEPS, "analysis": {}}
TENTH = {"model": V2, "weight": 10}
BLUE_GREEN = {"strategy": "BlueGreen", "analysis": {}}


def begun(world: Any, rollout: Any = JUDGED, **spec: Any) -> tuple[str, str]:
    """Bring the world to a settled V1, then ask for V2; return both revisions."""
    world.edit(model=V1, replicas=4, rollout=rollout, **spec)
    world.settle()
    world.edit(model=V2)
    world.reconcile()
    return world.status().stable.revision, world.status().rollout.revision


def shows(world: Any, verdict: Verdict, stage: Stage = Stage.DARK, **more: Any) -> None:
    """Let the pods of the trial have shown so much."""
    trial = world.decide().trial
    world.analysis = AnalysisStatus(
        revision=trial.revision,
        against=trial.against,
        stage=stage,
        following=trial.following,
        verdict=verdict,
        margins_hash=by(world),
        checks=[Check(name="kept", verdict=verdict, since=world.now)],
        **more,
    )


def by(world: Any) -> str:
    return margins_hash(world.detector().spec.rollout.analysis)


def fails(world: Any, stage: Stage = Stage.DARK) -> Failed:
    """Let the revision on trial fail, as `judge` says it."""
    failed = Failed(
        revision=world.decide().trial.revision,
        check="kept",
        at=world.now,
        message="keeps 0.71 of what is sure",
        margins_hash=by(world),
    )
    shows(world, Verdict.FAIL, stage, failed=[failed])
    return failed


@pytest.mark.parametrize(
    ("traffic", "incomparable", "unlike"),
    [
        ({}, "", ""),
        ({"stickyHeader": "X-Camera-Id"}, "cameras stay on one revision", ""),
        ({"provider": "service"}, "", "a plain Service spreads connections"),
    ],
)
def test_what_answers_other_cameras_is_no_match(world, traffic, incomparable, unlike):
    strategy = BLUE_GREEN if traffic.get("provider") else JUDGED
    begun(world, strategy, traffic=traffic)
    trial = world.decide().trial
    for told, expected in ((trial.incomparable, incomparable), (trial.unlike, unlike)):
        assert told.startswith(expected)
        assert bool(told) is bool(expected)


def turn(world: Any, minutes: float = 0) -> None:
    """Let pods follow and time pass, and the operator look twice."""
    world.run_pods()
    world.now += timedelta(minutes=minutes)
    world.reconcile()
    world.run_pods()
    world.reconcile()


def fail_in_the_dark(world: Any) -> None:
    """Let what was begun fail once it has pods, and be called off."""
    turn(world)
    fails(world)
    turn(world)
    turn(world)


@pytest.mark.parametrize("rollout", [None, BLUE_GREEN | {"analysis": {"mode": "Disabled"}}])
def test_what_was_shown_goes_with_what_asked_for_it(world, rollout):
    """Else a detector would tell for ever of a revision that was judged before the last ones."""
    begun(world, BLUE_GREEN)
    fail_in_the_dark(world)
    assert world.status().analysis.failed
    world.edit(model=V1, rollout=rollout)
    world.analysis = None  # nobody looks
    world.settle()
    assert world.status().analysis is None
    world.edit(rollout=BLUE_GREEN)
    world.settle()
    assert world.status().analysis is None, "no workload has it noted any more"


def paused_at_the_first_step(world: Any, new: str, *, minutes: int) -> Approval:
    """Let what has pods pass in the dark and fail at its first step; return what is offered."""
    shows(world, Verdict.PASS)
    turn(world, minutes=3)
    shows(world, Verdict.FAIL, Stage.LIVE)
    turn(world, minutes=minutes)
    assert world.weights()[new] == 10
    assert told(world).reason == "AwaitingApproval"
    (offered,) = approvals_in(told(world).message)
    return offered


def told(world: Any, kind: str = "Progressing") -> Any:
    return world.status().condition(kind)


@pytest.fixture(params=["Canary", "BlueGreen"])
def rollout(request: Any) -> Any:
    return JUDGED if request.param == "Canary" else BLUE_GREEN


class TestInTheDark:
    def test_a_new_revision_gets_pods_and_no_request_until_it_passed(self, world, rollout):
        old, new = begun(world, rollout)
        for _ in range(5):
            turn(world, minutes=30)
            assert world.ready(new) >= 1
            assert world.weights() == {old: 100, new: 0}
            assert world.replicas()[old] == 4
        shows(world, Verdict.INCONCLUSIVE, said="Waiting: 84 of 150 objects")
        turn(world, minutes=300)
        assert world.weights() == {old: 100, new: 0}
        assert told(world).reason == "NotEnoughData"
        assert "84 of 150" in told(world).message
        (offered,) = approvals_in(told(world).message)
        assert (offered.revision, offered.despite) == (new, "NotEnoughData")
        shows(world, Verdict.PASS)
        turn(world)
        assert world.weights().get(new, 0) > 0 or world.status().stable.revision == new

    def test_it_holds_for_its_time_although_it_passed(self, world):
        _, new = begun(world)
        turn(world)
        shows(world, Verdict.PASS)
        turn(world, minutes=1)
        assert world.weights()[new] == 0
        turn(world, minutes=1.1)
        assert world.weights()[new] == 10

    def test_a_whole_second_set_stands_in_the_dark_of_blue_green(self, world):
        old, new = begun(world, BLUE_GREEN)
        turn(world)
        assert world.replicas() == {old: 4, new: 4}
        assert world.status().stable.revision == old
        shows(world, Verdict.PASS)
        turn(world, minutes=3)
        turn(world)
        assert world.status().stable.revision == new

    def test_what_was_proved_in_the_dark_proves_nothing_of_a_step(self, world):
        _, new = begun(world)
        turn(world)
        shows(world, Verdict.PASS)
        turn(world, minutes=3)
        turn(world, minutes=60)
        assert world.weights()[new] == 10, "Live evidence is asked there"
        shows(world, Verdict.PASS, Stage.LIVE)
        turn(world)
        assert world.weights()[new] == 50

    def test_what_was_at_stake_at_one_step_is_not_all_that_is_at_the_next(self, world):
        _, new = begun(world)
        turn(world)
        shows(world, Verdict.PASS)
        turn(world, minutes=3)
        shows(world, Verdict.PASS, Stage.LIVE)
        for _ in range(3):
            turn(world, minutes=60)
        assert world.weights()[new] == 50
        shows(world, Verdict.PASS, Stage.LIVE)
        turn(world)
        turn(world)
        assert world.status().stable.revision == new

    @pytest.mark.parametrize("known", [{}, {"following": 0}, {"against": "gate-0badcafe"}])
    def test_what_is_only_stored_or_of_another_step_or_stable_lets_nobody_go_on(self, world, known):
        _, new = begun(world)
        turn(world)
        shows(world, Verdict.PASS)
        passed = world.analysis
        if known:
            world.analysis = passed.model_copy(update=known)
        else:
            world.raw["status"]["analysis"] = passed.model_dump(mode="json", by_alias=True)
            world.analysis = None
        turn(world, minutes=60)
        assert world.weights()[new] == 0
        world.analysis = passed
        turn(world)
        assert world.weights()[new] == 10

    def test_a_status_that_was_lost_in_the_dark_means_the_dark(self, world, rollout):
        old, new = begun(world, rollout)
        turn(world, minutes=3)
        world.raw["status"] = {}
        turn(world, minutes=3)
        assert world.weights() == {old: 100, new: 0}

    def test_other_limits_ask_for_other_proof(self, world):
        _, new = begun(world)
        turn(world)
        shows(world, Verdict.PASS)
        world.edit(rollout={**JUDGED, "analysis": {"minKept": 0.95}})
        turn(world, minutes=60)
        assert world.weights()[new] == 0

    def test_when_nothing_of_stable_is_ready_whoever_lives_answers_and_nothing_is_released(
        self, world, rollout
    ):
        old, new = begun(world, rollout)
        turn(world)
        world.broken = {V1["uri"]}
        turn(world)
        turn(world)
        assert world.weights() == {old: 0, new: 100}
        assert world.status().stable.revision == old
        world.broken = set()
        turn(world)
        turn(world)
        assert world.weights() == {old: 100, new: 0}
        assert world.status().stable.revision == old

    def test_what_cannot_be_judged_in_the_dark_goes_no_further_than_the_first_step(self, world):
        old, new = begun(world)
        turn(world)
        shows(world, Verdict.NOT_JUDGED)
        turn(world, minutes=3)
        shows(world, Verdict.NOT_JUDGED, Stage.LIVE)
        turn(world, minutes=300)
        assert world.weights() == {old: 90, new: 10}
        assert told(world).reason == "AwaitingApproval"

    def test_without_analysis_nothing_is_dark(self, world):
        _, new = begun(world, {"strategy": "Canary", "steps": STEPS})
        turn(world)
        assert world.weights()[new] == 10

    def test_a_dry_run_says_and_holds_nothing(self, world):
        _, new = begun(world, {**JUDGED, "analysis": {"mode": "DryRun"}})
        turn(world)
        shows(world, Verdict.FAIL)
        turn(world, minutes=3)
        assert world.weights()[new] == 10
        assert "DryRun" in told(world, "Analysed").message

    def test_swapped_in_place_the_first_pod_is_dark_too(self, world):
        old, new = begun(world, {"strategy": "InPlace", "analysis": {}})
        for _ in range(3):
            turn(world, minutes=3)
        assert world.replicas() == {old: 3, new: 1}
        assert world.weights() == {old: 100, new: 0}
        shows(world, Verdict.PASS)
        world.settle()
        assert world.status().stable.revision == new


GOLDEN = {"golden": {"configMap": "known", "minMAP50": 0.5}}


IN_PLACE = {"strategy": "InPlace", "analysis": {}}


class TestKnownPictures:
    def subject(self, world: Any) -> Any:
        return world.think().subject

    def test_pods_that_were_made_before_the_set_was_named_are_not_waited_for(self, world):
        """Nothing restarts for it, so that they would be waited for for ever."""
        begun(world)
        turn(world)
        world.edit(rollout={**JUDGED, "analysis": GOLDEN})
        assert "made before" in self.subject(world).untried
        world.edit(model=V3)
        turn(world)
        assert self.subject(world).untried == ""
        other = {"golden": {"configMap": "others", "minMAP50": 0.5}}
        world.edit(rollout={**JUDGED, "analysis": other})
        assert "made before" in self.subject(world).untried
        limits = {"golden": {**GOLDEN["golden"], "minMAP50": 0.9}}
        world.edit(rollout={**JUDGED, "analysis": limits})
        assert self.subject(world).untried == "", "other limits for the same set"


class TestTheOnlyReplica:
    """Swapped in place nothing runs beside it: it is judged by itself, or a person decides."""

    def swapped(self, world: Any) -> tuple[str, str]:
        world.edit(model=V1, replicas=1, rollout=IN_PLACE)
        world.settle()
        world.edit(model=V2)
        for _ in range(3):
            turn(world)
        return world.status().stable.revision, world.status().rollout.revision

    def test_it_serves_and_waits_for_a_person_in_words_that_say_how(self, world):
        _, new = self.swapped(world)
        assert world.ready(new) == 1
        subject = world.think().subject
        assert subject.alone
        assert "only replica's place" in subject.unpaired
        shows(world, Verdict.NOT_JUDGED, Stage.LIVE)
        turn(world, minutes=60)
        assert told(world).reason == "AwaitingApproval"
        assert "kubectl patch" in told(world).message
        approved = {"revision": new, "step": 1}
        world.edit(rollout={**IN_PLACE, "approved": approved})
        world.settle()
        assert world.status().stable.revision == new

    def test_what_passed_by_itself_is_released(self, world):
        _, new = self.swapped(world)
        shows(world, Verdict.PASS, Stage.LIVE)
        world.settle()
        assert world.status().stable.revision == new

    def test_what_failed_gives_the_place_back(self, world):
        old, new = self.swapped(world)
        fails(world, Stage.LIVE)
        for _ in range(6):
            turn(world, minutes=2)
        assert world.replicas() == {old: 1, new: 0}
        assert world.weights() == {old: 100}
        assert told(world).reason == "AnalysisFailed"


class TestFailure:
    @pytest.mark.parametrize("stage", Stage)
    def test_it_is_called_off_and_stays_so_however_often_it_is_asked_for(
        self, world, stage, rollout
    ):
        if stage is Stage.LIVE and rollout is BLUE_GREEN:
            stage = Stage.DARK
        old, new = begun(world, rollout)
        turn(world)
        if stage is Stage.LIVE:
            shows(world, Verdict.PASS)
            turn(world, minutes=3)
        fails(world, stage)
        for _ in range(8):
            turn(world, minutes=2)
        assert world.weights() == {old: 100}
        assert world.replicas() == {old: 4, new: 0}
        assert told(world).reason == "AnalysisFailed"
        assert "keeps 0.71" in told(world).message
        assert "kubectl" in told(world).message
        assert told(world, "Stalled").status == "True"
        assert told(world, "Released").status == "False"
        world.analysis = None
        for spec in ({"replicas": 5}, {"replicas": 4}):
            world.edit(**spec)
            turn(world, minutes=5)
        assert world.weights() == {old: 100}

    def test_capacity_comes_back_before_its_traffic_does(self, world):
        old, new = begun(world, {**JUDGED, "maxSurge": 1})
        turn(world)
        while world.weights()[new] < 50:
            shows(world, Verdict.PASS, world.decide().trial.stage)
            turn(world, minutes=3)
        fails(world, Stage.LIVE)
        world.reconcile()
        for _ in range(30):
            carried = 100 * world.ready(old) // 4
            assert world.weights()[old] <= max(carried, 50) + 25
            world.reconcile()
            world.run_pods(step=1)
            world.now += timedelta(seconds=20)
        assert world.weights() == {old: 100}
        assert world.replicas() == {old: 4, new: 0}

    def test_its_pictures_can_be_looked_at_for_an_hour_where_they_are_kept(self, world):
        _, new = begun(world, {**JUDGED, "analysis": {"keepFrames": True}})
        turn(world)
        assert world.decide().shadow.keep_frames
        fail_in_the_dark(world)
        left = world.decide().shadow
        assert (left.revision, left.percent, left.keep_frames) == (new, 0, True)
        turn(world, minutes=55)
        assert world.decide().shadow == left, "it is written once"
        assert world.decide().requeue_after <= left.until - world.now
        turn(world, minutes=6)
        assert world.decide().shadow is None
        assert ("ConfigMap", "gate-live") not in world.children

    @pytest.mark.parametrize("change", [{"model": V1}, {"rollout": JUDGED}])
    def test_they_are_gone_with_the_release_or_the_wish_for_them(self, world, change):
        begun(world, {**JUDGED, "analysis": {"keepFrames": True}})
        turn(world)
        fail_in_the_dark(world)
        assert world.decide().shadow
        world.edit(**change)
        turn(world)
        assert not (left := world.decide().shadow) or not left.keep_frames

    def test_of_others_nothing_is_left_to_look_at(self, world):
        begun(world)
        turn(world)
        fail_in_the_dark(world)
        assert world.decide().shadow is None

    def test_a_lost_status_brings_it_not_back(self, world):
        old, new = begun(world)
        turn(world)
        failed = fails(world)
        turn(world)
        turn(world)
        noted = world.deployments()[new]["metadata"]["annotations"][FAILED_ANNOTATION]
        assert Failed.model_validate_json(noted).check == failed.check
        world.raw["status"], world.analysis = {}, None
        for _ in range(5):
            turn(world, minutes=5)
        assert world.weights() == {old: 100}
        assert told(world).reason == "AnalysisFailed"
        assert world.status().analysis.failed[0].revision == new

    def test_nothing_is_done_before_the_failure_is_stored(self, world):
        _, new = begun(world)
        turn(world)
        fails(world)
        plan = world.decide()
        assert plan.called_off == {}
        assert plan.planned(new).replicas == 1
        assert world.think().status.analysis.failed

    def test_other_limits_or_no_analysis_have_it_tried_again(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        world.analysis = None
        world.edit(rollout={**JUDGED, "analysis": {"minKept": 0.6}})
        turn(world)
        assert world.status().rollout.revision == new
        assert world.weights()[new] == 0

    def test_a_person_has_it_judged_again_once_for_each_word(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        world.analysis = None
        world.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: f"{new}:1"}
        turn(world)
        assert world.status().rollout.revision == new
        assert world.status().analysis.retried == f"{new}:1"
        assert world.status().analysis.failed == []
        shows(world, Verdict.INCONCLUSIVE, retried=f"{new}:1")
        turn(world)
        fails(world)
        world.analysis = world.analysis.model_copy(update={"retried": f"{new}:1"})
        turn(world)
        turn(world)
        assert told(world).reason == "AnalysisFailed", "the same word does not count twice"
        world.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: f"{new}:2"}
        world.analysis = None
        turn(world)
        assert world.status().rollout.revision == new

    def test_a_word_counts_that_is_as_its_field_says_and_another_one_does_not(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        world.analysis = None
        [form] = re.findall(r"REVISION:\w+", str(Failed.model_fields["retried"].description))
        for word, counts in (("again", False), (form.replace("REVISION", new), True)):
            world.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: word}
            turn(world)
            assert (world.status().analysis.failed == []) is counts

    def test_a_word_counts_although_the_note_on_the_workload_cannot_be_taken_back(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        world.analysis = None
        note = world.deployments()[new]["metadata"]["annotations"][FAILED_ANNOTATION]
        world.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: f"{new}:1"}
        for _ in range(3):
            turn(world)
            world.deployments()[new]["metadata"]["annotations"][FAILED_ANNOTATION] = note
        assert world.status().rollout.revision == new
        assert world.status().analysis.failed == []

    def test_who_was_called_off_stays_away_in_a_dry_run(self, world):
        old, new = begun(world)
        fail_in_the_dark(world)
        world.edit(rollout={**JUDGED, "analysis": {"mode": "DryRun"}})
        for _ in range(5):
            turn(world, minutes=60)
        assert world.weights() == {old: 100}
        assert told(world).reason == "AnalysisFailed"
        world.raw["metadata"]["annotations"] = {RETRY_ANNOTATION: f"{new}:1"}
        turn(world)
        turn(world, minutes=3)
        assert world.weights()[new] == 10

    def test_a_person_releases_it_all_the_same(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        approved = {"revision": new, "step": 2, "despite": "AnalysisFailed"}
        world.edit(rollout={**JUDGED, "approved": approved})
        turn(world)
        while trial := world.decide().trial:
            fails(world, trial.stage)
            turn(world, minutes=3)
        assert world.status().stable.revision == new

    @pytest.mark.parametrize(
        ("strategy", "steps"),
        [(JUDGED, 2), ({"strategy": "Canary", "analysis": {}}, 4), (BLUE_GREEN, 1)],
        ids=["its own", "those that are usual", "none"],
    )
    def test_the_word_that_accepts_it_is_for_all_steps(self, world, strategy, steps):
        begun(world, strategy)
        fail_in_the_dark(world)
        [offered] = approvals_in(told(world).message)
        assert (offered.step, offered.despite) == (steps, "AnalysisFailed")

    def test_to_go_on_without_proof_takes_nothing_back_of_what_was_accepted(self, world):
        """By either of the two commands alone the other one was offered, in a circle."""
        _, new = begun(world)
        fail_in_the_dark(world)
        words = []
        for _ in range(40):
            if offered := list(approvals_in(told(world).message)):
                words.append((offered[0].step, offered[0].despite, offered[0].failed))
                world.edit(rollout={**JUDGED, "approved": asdict(offered[0])})
            turn(world)
            if (trial := world.decide().trial) is None:
                continue
            fails(world, trial.stage)
            waits = Check(name="errors", verdict="Inconclusive", since=world.now)
            world.analysis.checks.append(waits)
            turn(world, minutes=60)
            if world.status().stable.revision == new:
                break
        assert world.status().stable.revision == new
        without = [(step, "NotEnoughData", ["kept"]) for step in (1, 2)]
        assert words == [(2, "AnalysisFailed", None), *without]

    def test_what_fails_after_a_word_without_proof_is_called_off_still(self, world):
        _, new = begun(world)
        turn(world)
        approved = {"revision": new, "step": 2, "despite": "NotEnoughData", "failed": ["kept"]}
        world.edit(rollout={**JUDGED, "approved": approved})
        fails(world)
        turn(world)
        assert told(world).reason != "AnalysisFailed"
        turn(world)
        fails(world)
        world.analysis.checks.append(Check(name="errors", verdict="Fail", since=world.now))
        turn(world)
        turn(world)
        assert told(world).reason == "AnalysisFailed"

    def test_what_was_released_in_spite_of_it_can_be_rolled_back_to(self, world):
        _, new = begun(world, BLUE_GREEN)
        fail_in_the_dark(world)
        approved = {"revision": new, "step": 1, "despite": "AnalysisFailed"}
        world.edit(rollout={**BLUE_GREEN, "approved": approved})
        turn(world)
        while world.decide().trial:
            fails(world)
            turn(world, minutes=3)
        assert world.status().stable.revision == new
        world.edit(rollout=BLUE_GREEN, model=V3)
        turn(world)
        third = world.status().rollout.revision
        while world.decide().trial:
            shows(world, Verdict.PASS)
            turn(world, minutes=3)
        assert world.status().stable.revision == third
        world.edit(model=V2)
        world.settle()
        assert world.status().stable.revision == new

    def test_another_revision_is_judged_for_itself(self, world):
        _, new = begun(world)
        fail_in_the_dark(world)
        world.analysis = None
        world.edit(model=V3)
        turn(world)
        third = world.status().rollout.revision
        assert third != new
        world.edit(model=V2)
        turn(world)
        assert told(world).reason == "AnalysisFailed", "coming back to it is no new try"

    def test_what_cannot_be_read_holds_also_what_a_person_released_in_spite_of_a_failure(
        self, world
    ):
        _, new = begun(world)
        turn(world)
        approved = {"revision": new, "step": 2, "despite": "AnalysisFailed"}
        world.edit(rollout={**JUDGED, "approved": approved})
        turn(world)
        for verdict, weight in ((Verdict.ERROR, 0), (Verdict.INCONCLUSIVE, 0), (Verdict.PASS, 10)):
            fails(world)
            more = Check(name="errors", verdict=verdict, since=world.now)
            world.analysis.checks.append(more)
            turn(world, minutes=3)
            assert world.weights()[new] == weight, verdict

    def test_a_failure_that_had_no_consequence_is_news_once_it_has(self, world):
        begun(world)
        turn(world)
        fails(world)
        before = world.analysis.model_copy(update={"failed": []})  # in a dry run
        assert is_news(Analysis(), before, world.analysis, age=timedelta())
        assert not is_news(Analysis(), world.analysis, world.analysis, age=timedelta(hours=1))

    def test_evidence_is_stored_each_minute_also_by_a_clock_that_was_set_back(self, world):
        begun(world)
        turn(world)
        shows(world, Verdict.INCONCLUSIVE)
        more = world.analysis.model_copy(update={"sums": [Sum(name="kept", counts=[1, 2, 1])]})
        for age, stored in ((0, False), (59, False), (60, True), (-3600, True)):
            assert is_news(Analysis(), world.analysis, more, age=timedelta(seconds=age)) is stored

    def test_other_words_are_told_within_a_minute_and_other_numbers_are_none(self, world):
        begun(world)
        turn(world)
        shows(world, Verdict.INCONCLUSIVE)

        def says(message: str) -> AnalysisStatus:
            check = Check(name="kept", verdict="Inconclusive", since=world.now, message=message)
            return world.analysis.model_copy(update={"checks": [check]})

        before, after = says("0 of 150 objects"), says("0 of 150 objects; pods are busy")
        assert not is_news(Analysis(), before, after, age=timedelta(seconds=59))
        assert is_news(Analysis(), before, after, age=timedelta(seconds=60))
        more = says("1,234 of 150 objects")
        assert not is_news(Analysis(), before, more, age=timedelta(hours=1))

    def test_a_restart_is_stored_for_whoever_leads_next(self, world):
        begun(world)
        turn(world)
        shows(world, Verdict.INCONCLUSIVE)
        restarted = [Restart(pod="0a1b2c3d", at=world.now)]
        more = world.analysis.model_copy(update={"restarted": restarted})
        assert not is_news(Analysis(), world.analysis, more, age=timedelta(seconds=59))
        assert is_news(Analysis(), world.analysis, more, age=timedelta(seconds=60))

    def test_pause_keeps_its_weight_until_a_person_says(self, world):
        rollout = {**JUDGED, "analysis": {"onFailure": "Pause"}}
        _, new = begun(world, rollout)
        turn(world)
        offered = paused_at_the_first_step(world, new, minutes=300)
        assert (offered.step, offered.despite, offered.failed) == (1, None, ["kept"])
        world.edit(rollout={**rollout, "approved": asdict(offered)})
        turn(world)
        assert world.weights()[new] == 50

    @pytest.mark.parametrize("word", [{}, {"despite": "NotEnoughData"}, {"failed": ["added"]}])
    def test_no_word_of_before_a_failure_ends_its_pause(self, world, word):
        """That of a hold, of what nobody could prove in the dark, or of another failure."""
        rollout = {**JUDGED, "analysis": {"onFailure": "Pause"}}
        _, new = begun(world, rollout)
        turn(world)
        world.edit(rollout={**rollout, "approved": {"revision": new, "step": 1} | word})
        offered = paused_at_the_first_step(world, new, minutes=3)
        world.edit(rollout={**rollout, "approved": asdict(offered)})
        turn(world)
        assert world.weights()[new] == 50

    def test_a_step_that_waits_for_approval_tells_what_failed_there(self, world):
        steps = [{"weight": 10, "hold": "Approval"}, {"weight": 50, "hold": "2m"}]
        rollout = {**JUDGED, "steps": steps, "analysis": {"onFailure": "Pause"}}
        begun(world, rollout)
        turn(world)
        shows(world, Verdict.PASS)
        turn(world, minutes=3)
        assert [each.failed for each in approvals_in(told(world).message)] == [None]
        shows(world, Verdict.FAIL, Stage.LIVE, said="Failed: kept")
        turn(world, minutes=3)
        assert "waits for approval. Failed: kept. To go on: " in told(world).message
        assert [each.failed for each in approvals_in(told(world).message)] == [["kept"]]

    @pytest.mark.parametrize("approved", [{}, {"despite": "AnalysisFailed"}])
    def test_who_ends_a_pause_lets_what_failed_pass_and_nothing_unproved(self, world, approved):
        rollout = {**JUDGED, "analysis": {"onFailure": "Pause"}}
        _, new = begun(world, rollout)
        turn(world)
        shows(world, Verdict.PASS)
        turn(world, minutes=3)
        shows(world, Verdict.FAIL, Stage.LIVE)
        waits = Check(name="errors", verdict="Inconclusive", since=world.now)
        failed = world.analysis
        world.analysis = failed.model_copy(update={"checks": [*failed.checks, waits]})
        word = {"revision": new, "step": 1, "failed": ["kept"]}
        world.edit(rollout={**rollout, "approved": word | approved})
        turn(world, minutes=60)
        assert world.weights()[new] == 10
        assert told(world).reason == "Analysing"
        assert "; not proved yet: errors" in told(world).message
        turn(world, minutes=120)
        (offered,) = approvals_in(told(world).message)
        assert offered.despite == "NotEnoughData"
        if approved:
            world.analysis = failed
        else:
            world.edit(rollout={**rollout, "approved": asdict(offered)})
        turn(world)
        assert world.weights()[new] == 50


class TestCanaryByHand:
    def test_one_that_fails_gets_nothing_though_the_spec_says_ten(self, world):
        world.edit(model=V1, replicas=4, rollout={"analysis": {}}, canary=TENTH)
        world.settle()
        canary = world.status().canary.revision
        assert world.weights()[canary] == 10
        fails(world, Stage.LIVE)
        for _ in range(6):
            turn(world, minutes=2)
        assert world.weights() == {world.status().stable.revision: 100}
        assert told(world, "CanaryHealthy").reason == "AnalysisFailed"
        assert told(world, "Analysed").status == "False"

    def test_it_is_not_promoted_before_it_passed(self, world):
        world.edit(model=V1, replicas=4, rollout={"analysis": {}}, canary=TENTH)
        world.settle()
        old, canary = world.status().stable.revision, world.status().canary.revision
        shows(world, Verdict.INCONCLUSIVE, Stage.LIVE)
        world.edit(model=V2, canary=None)
        for _ in range(5):
            turn(world, minutes=60)
        assert world.status().stable.revision == old
        assert world.weights() == {old: 90, canary: 10}
        assert told(world).reason in ("Analysing", "NotEnoughData"), "not: who routes by it"
        shows(world, Verdict.PASS, Stage.LIVE)
        turn(world)
        turn(world)
        assert world.status().stable.revision == canary
