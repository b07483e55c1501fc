"""The floor that the operator keeps an autoscaler at: by what pods say, and only by that."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.plan.floor import EVERY, OLDEST, WINDOW, Floor, Look, PodLoad, Targets, begun, floor

START = datetime(2030, 1, 1, tzinfo=UTC)
BOUNDS = Targets(1, 20, load=70)
CAPACITY = 10.0  # a pod's; so each gets seven requests a second at most


@dataclass
class Fleet:
    """Pods that answer what they are asked, and who looks at them."""

    pods: int = 1
    targets: Targets = BOUNDS
    now: datetime = START
    told: dict[str, PodLoad] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    floors: list[int] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.seen = begun(self.pods, self.now)
        self.scaled(self.pods)

    def scaled(self, pods: int) -> None:
        while len(self.told) < pods:
            self.made += 1
            self.told[f"pod-{self.made}"] = PodLoad(self.made, 0, 0.0, CAPACITY)
        for uid in list(self.told)[pods:]:
            del self.told[uid]

    def asked(self, per_second: float, inside: float = 0.0) -> Floor:
        """Let them be asked so much until the next look, each its part; then look."""
        seconds = EVERY.total_seconds()
        self.now += EVERY
        for uid, told in self.told.items():
            part = seconds / len(self.told)
            self.told[uid] = replace(
                told,
                offered=told.offered + round(per_second * part),
                inside_seconds=told.inside_seconds + inside * part,
            )
        return self.looked()

    def looked(self) -> Floor:
        pods = {uid: None if uid in self.silent else told for uid, told in self.told.items()}
        self.seen = floor(Look(self.now, pods), self.targets, self.seen)
        self.floors.append(self.seen.replicas)
        return self.seen

    def follows(self) -> None:
        """Let the autoscaler do what the floor says."""
        self.scaled(self.seen.replicas)


def test_it_is_what_the_offered_load_needs_and_says_why() -> None:
    fleet = Fleet()
    fleet.looked()
    seen = fleet.asked(30)
    assert seen.replicas == 5
    assert seen.demand == pytest.approx(30 / 7)
    assert seen.reason == "floor 5: 30.0 requests a second, 7.0 each"
    assert not seen.lost


def test_refused_requests_count_so_that_one_look_is_enough_for_three_times_the_load() -> None:
    fleet = Fleet()
    fleet.looked()
    fleet.asked(5)
    assert fleet.asked(3 * CAPACITY).replicas == ceil(3 / 0.7)


def test_it_goes_by_the_larger_of_two_demands() -> None:
    fleet = Fleet(targets=Targets(1, 20, load=70, in_flight=4))
    fleet.looked()
    assert fleet.asked(7, inside=20).reason == "floor 5: 20.0 in flight, 4 each"
    assert fleet.asked(70, inside=4).reason == "floor 10: 70.0 requests a second, 7.0 each"


def test_new_pods_add_what_they_got_and_no_more() -> None:
    """What one pod did before the others came was once taken for what each of them does."""
    fleet = Fleet()
    fleet.looked()
    for _ in range(8):
        fleet.asked(30)
        fleet.follows()
    assert set(fleet.floors[1:]) == {5}


def test_a_pod_that_was_not_ready_for_a_while_is_counted_from_where_it_stood() -> None:
    fleet = Fleet(pods=2)
    fleet.looked()
    fleet.asked(10)
    gone, told = fleet.told.popitem()
    fleet.now += EVERY
    seen = floor(Look(fleet.now, dict(fleet.told), frozenset({gone})), BOUNDS, fleet.seen)
    fleet.now += EVERY
    back = floor(Look(fleet.now, {**fleet.told, gone: told}), BOUNDS, seen)
    assert back.demand == 0


@pytest.mark.parametrize("looks", [1, 3])
def test_what_an_old_pod_counted_before_anybody_looked_is_of_no_time(looks: int) -> None:
    """It was not ready when a new leader began: all of a day was once of fifteen seconds."""
    fleet = Fleet(pods=3)
    for uid, told in fleet.told.items():
        fleet.told[uid] = replace(told, offered=1_000_000)
    late, told = fleet.told.popitem()
    for _ in range(looks):
        fleet.now += EVERY
        look = Look(fleet.now, dict(fleet.told), frozenset({late}))
        fleet.seen = floor(look, BOUNDS, fleet.seen)
    fleet.told[late] = replace(told, offered=told.offered + 50)
    for _ in range(2):
        assert fleet.asked(7).demand == pytest.approx(1.0, abs=0.1)
        assert fleet.seen.replicas == 3


@pytest.mark.parametrize("back", [timedelta(seconds=2), timedelta(hours=1), timedelta(days=1)])
def test_a_clock_that_is_set_back_keeps_the_peak_for_five_minutes_and_no_longer(
    back: timedelta,
) -> None:
    fleet = Fleet()
    fleet.looked()
    fleet.asked(60)
    fleet.follows()
    fleet.now -= back
    for _ in range(WINDOW // EVERY - 2):
        assert fleet.asked(7).replicas == 9
    for _ in range(4):  # the very look may tell nothing
        fleet.asked(7)
    assert fleet.seen.replicas == 2


def test_a_pod_that_begins_anew_counts_from_zero() -> None:
    fleet = Fleet()
    fleet.looked()
    fleet.asked(7)
    fleet.told["pod-1"] = PodLoad(500.0, 0, 0.0, CAPACITY)
    assert fleet.asked(7).demand == pytest.approx(1.0)


def test_it_goes_down_only_to_what_the_last_five_minutes_asked_for() -> None:
    fleet = Fleet()
    fleet.looked()
    fleet.asked(60)
    looks = WINDOW // EVERY
    for _ in range(looks - 1):
        fleet.follows()
        assert fleet.asked(7).replicas == 9
    assert fleet.asked(7).replicas == 2, "with some room above the one that it needs"


def test_what_takes_over_keeps_the_number_for_five_minutes() -> None:
    fleet = Fleet(pods=6)
    fleet.looked()
    for _ in range(WINDOW // EVERY - 1):
        assert fleet.asked(1).replicas == 6
    assert fleet.asked(1).replicas == 1


def test_without_data_it_holds_and_says_so_after_a_minute_and_for_as_long_as_it_lasts() -> None:
    fleet = Fleet()
    fleet.looked()
    fleet.asked(30)
    fleet.follows()
    fleet.silent = frozenset(list(fleet.told)[:3])
    for _ in range(OLDEST // EVERY - 1):
        assert not fleet.asked(1).lost
    for _ in range(WINDOW // EVERY * 2):
        seen = fleet.asked(1)
        assert (seen.replicas, seen.lost) == (5, "2 of 5 ready pods tell their load")
    fleet.silent = frozenset()
    assert not fleet.asked(1).lost
    for _ in range(WINDOW // EVERY - 1):
        assert fleet.asked(1).replicas == 5, "nobody saw what was asked for meanwhile"


def test_those_that_answer_speak_for_the_others_where_they_are_most() -> None:
    fleet = Fleet(pods=4)
    fleet.looked()
    fleet.silent = frozenset({"pod-4"})
    assert fleet.asked(28).demand == pytest.approx(4.0)


def test_no_pod_that_is_ready_is_no_loss() -> None:
    seen = begun(3, START)
    later = floor(Look(START + timedelta(hours=1), {}), BOUNDS, seen)
    assert (later.replicas, later.lost) == (3, "")


def test_while_no_pod_knows_what_it_can_do_nothing_moves_unless_nothing_is_asked() -> None:
    fleet = Fleet(pods=3)
    fleet.told = {uid: PodLoad(1.0, 0, 0.0, None) for uid in fleet.told}
    fleet.looked()
    assert fleet.asked(30).demand is None
    assert fleet.asked(0).demand == 0


def test_what_is_not_known_may_ask_for_more_and_never_for_less() -> None:
    fleet = Fleet(pods=3, targets=Targets(1, 20, load=70, in_flight=4))
    fleet.told = {uid: PodLoad(1.0, 0, 0.0, None) for uid in fleet.told}
    fleet.looked()
    for _ in range(2 * WINDOW // EVERY):
        seen = fleet.asked(30, inside=1)
    assert (seen.replicas, seen.lost) == (3, "0 of 3 ready pods tell how much they can answer")
    assert fleet.asked(30, inside=20).replicas == 5


def test_a_pod_that_claims_a_multiple_takes_no_replicas_from_all() -> None:
    fleet = Fleet(pods=5)
    fleet.told["pod-1"] = replace(fleet.told["pod-1"], capacity=1e5)
    fleet.looked()
    assert fleet.asked(35).demand == pytest.approx(35 / (0.7 * 12))


def test_more_than_there_may_be_is_told_for_as_long_as_the_window_remembers_it() -> None:
    fleet = Fleet(targets=Targets(1, 3, load=70))
    fleet.looked()
    assert not fleet.asked(21).beyond
    assert fleet.asked(22).beyond
    for _ in range(WINDOW // EVERY - 1):
        assert fleet.asked(1).beyond
    assert not fleet.asked(1).beyond


def test_a_canary_does_not_say_what_a_stable_replica_can_do() -> None:
    fleet = Fleet(pods=2)
    slow = PodLoad(2.0, 0, 0.0, 1.0, counts=False)
    fleet.told["pod-2"] = slow
    fleet.looked()
    fleet.told["pod-2"] = PodLoad(2.0, 75, 0.0, 1.0, counts=False)
    assert fleet.asked(0).demand == pytest.approx(5 / 7)


def test_bounds_that_were_edited_hold_at_once_even_without_data() -> None:
    fleet = Fleet(pods=6)
    fleet.targets = Targets(1, 4, load=70)
    fleet.silent = frozenset(fleet.told)
    assert fleet.looked().replicas == 4
    fleet.targets = Targets(5, 9, load=70)
    assert fleet.looked().replicas == 5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("load", [4.0, 6.9, 7.1, 20.0, 34.9, 35.0, 62.0])
def test_noise_of_a_fifth_turns_it_round_at_most_once_in_an_hour(seed: int, load: float) -> None:
    noise, fleet = random.Random(seed), Fleet()
    fleet.looked()
    for _ in range(240):
        fleet.asked(load * noise.uniform(0.8, 1.2))
        fleet.follows()
    settled = fleet.floors[20:]  # five minutes
    moves = [after - before for before, after in pairwise(settled) if after != before]
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(moves))
    assert turns <= 1, settled


LOOKS = st.lists(
    st.tuples(st.floats(0, 200), st.floats(0, 40), st.integers(0, 6), st.booleans()), max_size=40
)


@given(LOOKS, st.integers(1, 4), st.integers(0, 8))
def test_whatever_happens_it_stays_in_its_bounds_and_falls_only_on_what_it_knows(
    looks: Any, least: int, more: int
) -> None:
    fleet = Fleet(pods=2, targets=Targets(least, least + more, load=70, in_flight=4))
    for per_second, inside, silent, follows in looks:
        before = fleet.seen
        fleet.silent = frozenset(list(fleet.told)[:silent])
        now = fleet.asked(per_second, inside)
        assert least <= now.replicas <= least + more
        enough = 2 * len(fleet.told.keys() - fleet.silent) >= len(fleet.told) > 0
        if not enough or before.memory.asked is None:
            assert now.replicas == fleet.targets.bounded(before.replicas)
        if now.replicas < before.replicas <= least + more:
            assert enough
            assert now.replicas >= now.demand
        if follows:
            fleet.follows()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(0, 50))
def test_more_load_never_asks_for_less(loads: list[float], more: float) -> None:
    small, large = Fleet(), Fleet()
    small.looked(), large.looked()
    for load in loads:
        assert large.asked(load + more).replicas >= small.asked(load).replicas


WILD = st.builds(
    PodLoad,
    started=st.floats(allow_nan=False, allow_infinity=False),
    offered=st.integers(0, 2**53),
    inside_seconds=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    capacity=st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)


@given(st.lists(st.tuples(WILD, WILD), min_size=1, max_size=6))
def test_whatever_pods_claim_there_is_a_floor_in_the_bounds(claims: Any) -> None:
    """A capacity of next to nothing once asked for infinitely many, which is no number."""
    targets = Targets(2, 9, load=1, in_flight=1)
    seen, now = begun(2, START), START
    for pods in claims:
        now += EVERY
        seen = floor(
            Look(now, {str(number): pod for number, pod in enumerate(pods)}), targets, seen
        )
        assert 2 <= seen.replicas <= 9
