"""Pictures of one request fail together and wait together: so many are not so many proofs."""

import math
import random
from itertools import pairwise

import pytest

from played_pods import Played, bucket_of
from yolofleet.analysis.increments import ERRORS, summed
from yolofleet.analysis.statistics import (
    BUCKETS,
    Counts,
    Tally,
    is_in_time,
    is_slow,
    latency_least,
    slower_by,
)
from yolofleet.analysis.sums import LATENCY, REQUESTS, read
from yolofleet.api.analysis import Analysis, Check, Stage, Sum, Verdict


def live(*, weight: int = 1, stored: bool = False) -> Played:
    played = Played(stored=stored)
    played.look()
    played.arguments = {"stage": Stage.LIVE, "weight": weight, "following": 5}
    return played


def look(played: Played, good: int, bad: int = 0, *, among: int = 16, single: int = 0) -> Check:
    """Look once; good, bad: requests of the canary, of so many pictures; single: of one each."""
    stable, canary = played.stable[0], played.canary[0]
    stable.answers(99 * among * max(good + bad, 1), among=among)
    stable.frame(99 * among)
    canary.answers(good * among, among=among)
    canary.outcome("overloaded", bad * among, among=among)
    canary.answers(single)
    return errors(played)


def errors(played: Played) -> Check:
    return next(check for check in played.look().checks if check.name == "errors")


@pytest.mark.parametrize(
    ("per_look", "stored"), [(1, False), (2, False), (5, False), (8, False), (8, True)]
)
def test_two_requests_that_fail_in_one_look_call_no_good_release_off(
    per_look: int, stored: bool
) -> None:
    played = live(stored=stored)
    for _ in range(1000 // per_look):
        look(played, per_look)
    look(played, per_look, 2)
    for _ in range(3):
        assert look(played, per_look).verdict is not Verdict.FAIL


@pytest.mark.parametrize(("among", "before"), [(16, 3), (64, 200), (128, 2000)])
def test_one_that_fails_among_few_calls_nothing_off(among: int, before: int) -> None:
    played = live()
    for _ in range(before // 2):
        look(played, 2, among=among)
    look(played, 1, 1, among=among)
    assert look(played, 2, among=among).verdict is not Verdict.FAIL


def test_a_large_one_that_fails_among_small_ones_is_one_failure() -> None:
    played = live()
    for _ in range(100):
        look(played, 0, single=100)
    look(played, 0, 1, among=64, single=100)
    for _ in range(3):
        assert look(played, 0, single=100).verdict is not Verdict.FAIL


@pytest.mark.parametrize("among", [1, 16, 64])
def test_one_batch_in_ten_that_fails_calls_it_off_as_soon_as_one_picture_in_ten(among: int) -> None:
    played = live()
    verdicts = [look(played, 9, 1, among=among).verdict for _ in range(30)]
    assert verdicts.index(Verdict.FAIL) == 25


def test_small_ones_that_fail_among_large_ones_do_too() -> None:
    played = live()
    verdicts = set()
    for _ in range(60):
        played.canary[0].outcome("internal", 10)
        verdicts.add(look(played, 5, single=20).verdict)
    assert Verdict.FAIL in verdicts


def test_of_an_older_server_each_counts_as_if_it_came_alone() -> None:
    messages = []
    for older in (True, False):
        played = live()
        for pod in (*played.stable, *played.canary) if older else ():
            pod.squared = None
        messages.append([look(played, 9, 1, among=1).message for _ in range(30)])
    assert messages[0] == messages[1]


@pytest.mark.parametrize("rate", [1, 2])
def test_what_an_older_stable_one_did_not_count_lets_no_bad_one_pass(rate: int) -> None:
    """How many pictures of its requests failed nobody knows: it is taken at its word."""
    played = live(weight=5)
    stable, canary = played.stable[0], played.canary[0]
    stable.squared = None
    verdicts = set()
    for _ in range(60):
        stable.answers((1900 - 19 * rate) * 16)
        stable.outcome("deadline_exceeded", 19 * rate * 16)
        canary.answers(70 * 16, among=16)
        canary.outcome("deadline_exceeded", 30 * 16, among=16)
        verdicts.add(errors(played).verdict)
    assert Verdict.FAIL in verdicts
    assert Verdict.PASS not in verdicts


def test_no_pod_makes_itself_unjudgeable() -> None:
    """It may tell that all came in one request; no server takes more than 1024 in one."""
    played = live()
    canary = played.canary[0]
    for _ in range(3):
        canary.answers(10**6)
        canary.outcome("internal", 10**6, among=2**30)
        look(played, 0)
    assert errors(played).verdict is Verdict.FAIL
    assert played.last.canary.failures(ERRORS).together_bad == 1.0, "of none"


def test_fewer_than_there_were_are_not_believed() -> None:
    played = live()
    assert played.canary[0].squared is not None
    for _ in range(8):
        check = look(played, 90, 10, among=1)
        played.canary[0].squared.clear()
    assert check.verdict is Verdict.FAIL


def test_it_takes_as_many_requests_as_ever_to_say_anything() -> None:
    played = live()
    played.arguments["unpaired"] = "no copies"
    assert look(played, 19).message == "304 of 320 requests"
    latency = next(each for each in played.look().checks if each.name == "latency")
    assert latency.message == "304 of 1600 answers to compare the times of"


def test_how_they_came_is_in_the_status_and_an_older_operator_leaves_none_of_it() -> None:
    played = live(stored=True)
    look(played, 9, 1)
    look(played, 9, 1)
    assert played.status is not None
    sums = read(played.status)
    assert sums.tally(REQUESTS).squared == (2 * 16**2, 20 * 16**2)
    assert sums.tally(REQUESTS).cluster == sums.tally(LATENCY).cluster == 16
    for each in played.status.sums:
        if each.name in (REQUESTS, LATENCY):
            each.counts[3:6] = 0, 0, 0
    assert read(played.status).tally(REQUESTS).cluster == 1
    look(played, 9, 1)
    assert 1 < read(played.status).tally(REQUESTS).cluster < 16


def test_where_each_came_alone_a_status_is_as_it_was() -> None:
    played = live(stored=True)
    look(played, 9, 1, among=1)
    assert played.status is not None
    written = next(each for each in played.status.sums if each.name == REQUESTS)
    assert written.counts[:6] == [1, 10, 1, 0, 0, 0]


@pytest.mark.parametrize("squared", [-5, 0, 2**62])
def test_what_somebody_else_wrote_makes_no_cluster_that_is_none(squared: int) -> None:
    played = live(stored=True)
    look(played, 9, 1)
    assert played.status is not None
    for each in played.status.sums:
        if each.name == REQUESTS:
            each.counts[3], each.counts[5] = squared, squared
    assert 1 <= read(played.status).tally(REQUESTS).cluster <= 1024
    assert Sum(name="x", counts=[squared]).counts == [squared]


def times(dice: random.Random, requests: int, *, slower: float = 1.0) -> Counts:
    """Return the times of pictures of requests of sixteen, which all wait as long."""
    counts = [0] * BUCKETS
    for _ in range(requests):
        counts[bucket_of(0.1 * slower * dice.lognormvariate(0, 0.35))] += 16
    return tuple(counts)


def is_called_off(seed: int, cluster: float) -> bool:
    """Play forty looks at a good release, each at one request of either revision."""
    dice, buckets = random.Random(seed), slower_by(Analysis().max_p99_ratio)
    ours = its = (0,) * BUCKETS
    slow = [False]
    for _ in range(40):
        ours, its = summed(ours, times(dice, 1)), summed(its, times(dice, 1))
        slow.append(is_slow(ours, its, buckets, cluster))
    return any(map(all, pairwise(slow)))


def test_times_of_pictures_that_wait_together_call_no_good_release_off() -> None:
    assert any(is_called_off(seed, 1.0) for seed in range(40)), "as if each had come alone"
    assert not any(is_called_off(seed, 16.0) for seed in range(40))


def test_pictures_that_wait_together_twice_as_long_are_slow_and_as_long_are_in_time() -> None:
    dice, buckets = random.Random(0), slower_by(Analysis().max_p99_ratio)
    ours, its = times(dice, 8000), times(dice, 400, slower=2)
    assert is_slow(ours, its, buckets, cluster=16)
    assert is_in_time(ours, ours, buckets, cluster=16)
    few = times(dice, 99)
    assert not is_in_time(ours, few, buckets, cluster=16)
    assert not is_slow(ours, times(dice, 99, slower=9), buckets, cluster=16)
    assert latency_least(16) == 100 * 16


def test_a_million_in_one_look_are_as_clustered_as_they_came() -> None:
    tally = Tally().together(10**6, 10**7, 16.0, 16.0).plus(10**6, 10**7)
    assert math.isclose(tally.cluster, 16.0)
