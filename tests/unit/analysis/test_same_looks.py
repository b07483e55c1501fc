"""What stable did in the same looks: a world that changes for both is no revision's fault."""

import random

import pytest

from played_pods import Played, bucket_of
from yolofleet.api.analysis import AnalysisStatus, Check, Stage, Verdict


def step(
    played: Played,
    *,
    weight: int,
    looks: int,
    fail: tuple[int, int] = (0, 0),
    copies_fail: int = 0,
    ms: tuple[float, float] = (20.0, 20.0),
) -> None:
    """Let 200 requests a look be answered by both, of 1,000 of each so many not at all."""
    stage = Stage.LIVE if weight else Stage.DARK
    played.arguments = {"stage": stage, "weight": weight}
    shares = 200 - 2 * weight, 2 * weight
    owed, dice = [0, 0], random.Random(weight)
    for number in range(looks):
        for at, ([pod], n) in enumerate(zip((played.stable, played.canary), shares, strict=True)):
            owed[at] += n * fail[at]
            failed, owed[at] = divmod(owed[at], 1000)
            for _ in range(n - failed):
                pod.answers(1, ms=ms[at] * dice.lognormvariate(0, 0.35))
            pod.requests["internal"] += failed
        [stable] = played.stable
        late = copies_fail // 5 + (number % 5 < copies_fail % 5)
        stable.frame(200, failed=late)
        for size in range(3):
            stable.pair("circle", 100, 99, size=size)
        for arm in stable.compute.values():
            arm[bucket_of(0.02)] += 200 - late
        if played.look().verdict is Verdict.FAIL:
            break


def found(played: Played, name: str) -> Check:
    assert played.status
    return next(check for check in played.status.checks if check.name == name)


def errors(played: Played) -> tuple[Verdict, float | None]:
    return found(played, "errors").verdict, found(played, "errors").limit


def test_copies_that_fail_as_often_as_the_stable_revisions_own_requests_are_no_fault_of_a_model():
    """3 % of both are late: a slow node, or too little CPU."""
    played = Played(stored=True)
    played.look()
    step(played, weight=0, looks=120, fail=(30, 0), copies_fail=30)
    assert errors(played) == (Verdict.PASS, pytest.approx(0.06, abs=0.001))


@pytest.mark.parametrize("copies_fail", [30, 70])
def test_copies_that_fail_more_often_than_that_are(copies_fail: int):
    played = Played()
    played.look()
    fail = 0 if copies_fail == 30 else 10
    step(played, weight=0, looks=360, fail=(fail, 0), copies_fail=copies_fail)
    assert errors(played)[0] is Verdict.FAIL


@pytest.mark.parametrize("before", [1, 50], ids=["while the weight grows", "at one weight"])
def test_that_requests_of_both_fail_for_two_minutes_calls_nothing_off(before: int):
    played = Played(stored=True)
    played.look()
    step(played, weight=before, looks=60, fail=(1, 1))
    step(played, weight=50, looks=12, fail=(100, 100))
    step(played, weight=50, looks=60, fail=(1, 1))
    assert errors(played)[0] is Verdict.PASS


def test_that_its_own_fail_alone_does():
    played = Played(stored=True)
    played.look()
    step(played, weight=1, looks=60, fail=(1, 1))
    step(played, weight=50, looks=12, fail=(1, 100))
    assert errors(played)[0] is Verdict.FAIL


def test_what_the_stable_one_failed_before_excuses_nothing():
    """An incident of the stable revision, while hardly anything was the canary's to answer."""
    played = Played()
    played.look()
    step(played, weight=1, looks=60, fail=(100, 0))
    step(played, weight=50, looks=90, fail=(1, 60))
    assert errors(played)[0] is Verdict.FAIL


def test_that_both_are_twice_as_slow_from_a_step_on_calls_nothing_off():
    played = Played(stored=True)
    played.look()
    step(played, weight=5, looks=60)
    step(played, weight=50, looks=150, ms=(40, 40))
    assert found(played, "latency").verdict is Verdict.PASS


def test_that_both_are_faster_from_a_step_on_hides_nothing():
    """Half as slow again as the stable one, all the time; only its early answers were as fast."""
    played = Played(stored=True)
    played.look()
    step(played, weight=5, looks=60, ms=(20, 20))
    step(played, weight=50, looks=200, ms=(10, 15))
    assert found(played, "latency").verdict is Verdict.FAIL


def test_what_an_older_operator_summed_up_goes_on():
    played = Played(stored=True)
    played.look()
    step(played, weight=50, looks=20, fail=(50, 50))
    assert played.status
    told = played.status.model_dump(mode="json", by_alias=True)
    for sums in told["sums"]:
        sums["counts"] = sums["counts"][:8]
    played.status = AnalysisStatus.model_validate(told)
    step(played, weight=50, looks=1, fail=(0, 50))
    assert errors(played)[1] == pytest.approx(2 * 0.05 * 20 / 21, abs=0.002)
    counted = {times.name: sum(times.counts) for times in played.status.latency}
    assert counted["latency stable"] == 1900 + 100
