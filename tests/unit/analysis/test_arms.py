"""The two revisions side by side: counted alike, bounded, and the same for whoever goes on."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from played_pods import CANARY, STABLE, Played, Server
from yolofleet.api.analysis import Analysis, Stage
from yolofleet.plan.judging import PUBLISHED_EVERY, is_news

LIVE = {"stage": Stage.LIVE, "weight": 20, "following": 100}


@pytest.fixture
def played():
    """Return a release that answers requests of its own."""
    return Played(arguments=dict(LIVE))


def arms(played):
    return {str(arm.name): arm for arm in played.status.arms}


def test_both_arms_tell_what_they_answered_found_and_how_long_it_took(played):
    stable, canary = played.stable[0], played.canary[0]
    for _ in range(10):
        played.look()
        stable.answers(80, ms=20, circle=100, square=60)
        stable.pair("circle", 100, 97)
        stable.requests["bad_image"] += 5  # the caller's
        canary.answers(20, ms=40, circle=30, square=10)
        canary.requests["internal"] += 1
    played.look()
    told = arms(played)
    one, other = told["stable"], told["canary"]
    assert (one.revision, one.requests, one.errors, one.images) == (STABLE, 800, 0, 800)
    assert (other.revision, other.requests, other.errors, other.images) == (CANARY, 210, 10, 200)
    assert one.objects == {"circle": 1000, "square": 600}
    assert other.objects == {"circle": 300, "square": 100}
    assert (one.kept, other.kept) == (None, 0.97)
    for arm, ms in ((one, 20), (other, 40)):
        assert ms <= arm.p50_ms <= ms * 1.1
        assert ms <= arm.p99_ms <= ms * 1.1


def test_in_the_dark_there_are_no_arms(played):
    played.arguments["stage"] = Stage.DARK
    for _ in range(3):
        played.stable[0].answers(80, circle=100)
        assert played.look().arms == []


def test_objects_count_of_times_at_which_both_answered_some(played):
    stable, canary = played.stable[0], played.canary[0]
    played.look()
    stable.answers(80, circle=100)
    played.look()
    stable.answers(80, circle=40)
    canary.answers(20, circle=10)
    played.look()
    told = arms(played)
    assert (told["stable"].objects, told["canary"].objects) == ({"circle": 40}, {"circle": 10})
    assert told["stable"].requests == 160


def test_an_arm_of_which_nothing_can_be_counted_is_left_out(played):
    played.look()
    played.canary[0].answers(20, circle=10)
    assert [str(arm.name) for arm in played.look().arms] == ["canary"]


def test_a_restart_and_the_status_in_between_change_no_sum(played):
    played.stored = True
    stable, canary = played.stable[0], played.canary[0]
    for at in range(2000, 2010):
        played.look()
        stable.answers(8, circle=10)
        canary.answers(2, circle=3)
        played.look()
        canary.restart(at)
    told = arms(played)
    assert told["stable"].objects == {"circle": 100}
    assert told["canary"].objects == {"circle": 30}


NAMES = st.sampled_from([f"a-class-with-{'a-long-' * (i % 9)}name-{i}" for i in range(40)])


@given(st.lists(st.tuples(st.dictionaries(NAMES, st.integers(0, 99), max_size=40), NAMES)))
def test_all_objects_are_counted_under_eight_names_and_one_for_the_rest(story):
    played = Played(arguments=dict(LIVE), stored=True)
    played.look()
    total = Counter()
    for found, more in story:
        played.stable[0].answers(10, **found)
        played.canary[0].answers(1, **{more: 1})
        total["stable"] += sum(found.values())
        total["canary"] += 1
        played.look()
    told = arms(played)
    for name, arm in told.items():
        assert sum(arm.objects.values()) == total[name]
        assert all(len(class_) <= 40 for class_ in arm.objects)
    assert len({name for arm in told.values() for name in arm.objects}) <= 9


def test_who_answers_nothing_more_changes_nothing(played):
    played.look()
    played.stable[0].answers(80, circle=100)
    played.canary[0].answers(20, circle=10)
    before = played.look()
    for _ in range(5):
        after = played.look()
        assert after.arms == before.arms
        assert not is_news(Analysis(), before, after, age=PUBLISHED_EVERY * 10)


def test_what_arms_add_is_told_no_more_than_once_a_minute(played):
    played.analysis = Analysis()
    played.look()
    played.stable[0].answers(80, circle=100)
    played.canary[0].answers(20, circle=10)
    before = played.look()
    played.stable[0].answers(80, circle=100)
    played.canary[0].answers(20, circle=10)
    after = played.look()
    assert before.arms != after.arms
    assert not is_news(Analysis(), before, after, age=PUBLISHED_EVERY / 2)
    assert is_news(Analysis(), before, after, age=PUBLISHED_EVERY)


def test_a_stranger_among_pods_cannot_make_it_long():
    played = Played(arguments=dict(LIVE))
    played.look()
    for server in (played.stable[0], played.canary[0]):
        server.answers(10, **{"x" * 255 + str(i): 2**53 for i in range(79)})
    status = played.look()
    told = [arm.model_dump(mode="json", by_alias=True) for arm in status.arms]
    assert len(json.dumps(told)) < 1600
    assert Server("x", STABLE).objects == {}
