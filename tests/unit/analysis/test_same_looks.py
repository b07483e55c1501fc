"""What stable did in the same looks: a world that changes for both is no revision's fault."""

import pytest

from played_pods import Played, bucket_of
from yolofleet.api.analysis import Stage, Verdict


def step(
    played: Played,
    *,
    weight: int,
    looks: int,
    fail: tuple[int, int] = (0, 0),
    copies_fail: int = 0,
    following: int = 100,
) -> None:
    """Let 200 requests a look be answered by both, of 1,000 of each so many not at all."""
    stage = Stage.LIVE if weight else Stage.DARK
    played.arguments = {"stage": stage, "weight": weight, "following": following}
    shares = 200 - 2 * weight, 2 * weight
    owed = [0, 0]
    for number in range(looks):
        for at, ([pod], n) in enumerate(zip((played.stable, played.canary), shares, strict=True)):
            owed[at] += n * fail[at]
            failed, owed[at] = divmod(owed[at], 1000)
            pod.answers(n - failed)
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


def errors(played: Played) -> tuple[Verdict, float | None]:
    assert played.status
    check = next(check for check in played.status.checks if check.name == "errors")
    return check.verdict, check.limit


def test_copies_that_fail_as_often_as_the_stable_revisions_own_requests_are_no_fault_of_a_model():
    """3 % of both are late: a slow node, or too little CPU."""
    played = Played(stored=True)
    played.look()
    step(played, weight=0, looks=120, fail=(30, 0), copies_fail=30)
    assert errors(played) == (Verdict.PASS, 0.06)


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
