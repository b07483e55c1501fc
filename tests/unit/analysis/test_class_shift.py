"""Mixes of classes: beyond the limit a release pauses, and mixes that are alike never get there."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from played_pods import CANARY, Played
from yolofleet.analysis.arms import LEAST_IMAGES, LEAST_OBJECTS
from yolofleet.analysis.judge import consequence
from yolofleet.analysis.statistics import distance
from yolofleet.api.analysis import Analysis, Golden, OnFailure, Stage, Verdict

WHY = "the pods of gate-05bb7f85 have none of what they are compared by"
MIXES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000))


def release(**arguments):
    """Return one without copies, which known pictures judge."""
    analysis = Analysis(golden=Golden(config_map="known", min_map50=0.8))
    played = Played(analysis, arguments={"stage": Stage.LIVE, "weight": 25, "unpaired": WHY})
    played.arguments |= arguments
    played.look()
    return played


def shown(played, stable, canary, *, looks=1, images=1100):
    """Have both arms find so many objects at each of some looks."""
    for _ in range(looks):
        played.stable[0].answers(images, **stable)
        played.canary[0].answers(images, **canary)
        played.look()
    [check] = [each for each in played.status.checks if each.name == "classShift"]
    return check


LIKE = {"person": 700, "car": 500}
OTHER = {"person": 200, "car": 1000}


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        ({"a": 1}, {"a": 7}, 0.0),
        ({"a": 1}, {"b": 1}, 1.0),
        ({"a": 1, "b": 1}, {"a": 1}, sqrt(1.5 - 0.75 * np.log2(3))),
        ({}, {"a": 1}, 0.0),
    ],
)
def test_the_distance_of_two_mixes(one, other, far):
    assert distance(one, other) == pytest.approx(far)


@given(MIXES, MIXES)
def test_the_distance_is_alike_both_ways_and_within_0_and_1(one, other):
    assert 0 <= distance(one, other) <= 1 + 1e-9
    assert distance(one, other) == pytest.approx(distance(other, one))


def test_another_mix_in_three_looks_running_pauses_and_never_rolls_back():
    played = release()
    assert shown(played, LIKE, OTHER).verdict is Verdict.INCONCLUSIVE
    assert shown(played, LIKE, OTHER).verdict is Verdict.INCONCLUSIVE
    check = shown(played, LIKE, OTHER)
    assert check.verdict is Verdict.FAIL
    assert "its mix of classes is 0.37 from that of gate-05bb7f85 (limit 0.20" in check.message
    assert "person 58% → 17%" in check.message
    assert played.status.verdict is Verdict.FAIL
    assert consequence(played.analysis, played.status) is OnFailure.PAUSE
    assert played.status.failed == []


def test_looks_at_which_nobody_asks_are_none():
    played = release()
    shown(played, LIKE, OTHER)
    for _ in range(9):
        played.look()
    [check] = [each for each in played.status.checks if each.name == "classShift"]
    assert check.verdict is Verdict.INCONCLUSIVE


def test_a_mix_that_is_alike_passes_and_another_limit_lets_more_pass():
    assert shown(release(), LIKE, LIKE).verdict is Verdict.PASS
    played = release()
    played.analysis = played.analysis.model_copy(update={"max_class_shift": 0.4})
    assert shown(played, LIKE, OTHER, looks=5).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("objects", "images"), [(LEAST_OBJECTS - 1, LEAST_IMAGES), (LEAST_OBJECTS, LEAST_IMAGES - 1)]
)
def test_too_few_objects_or_pictures_tell_nothing_and_hold_nothing(objects, images):
    played = release()
    check = shown(played, LIKE, {"car": objects}, images=images)
    assert check.verdict is Verdict.NOT_JUDGED
    assert f"{objects:,} of {LEAST_OBJECTS:,} objects" in check.message
    check = shown(played, {}, {"car": 1}, images=1, looks=3)
    assert check.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"unpaired": ""}, "copies of requests are compared"),
        ({"incomparable": "they match"}, "they match"),
        ({"unlike": "each camera stays"}, "each camera stays"),
        ({"stage": Stage.DARK}, WHY),
        ({"against": ""}, "nothing is released"),
    ],
)
def test_where_pictures_are_compared_or_are_not_alike_it_is_not_judged(arguments, told):
    check = shown(release(**arguments), LIKE, OTHER, looks=5)
    assert check.verdict is Verdict.NOT_JUDGED
    assert told in check.message


def test_equal_mixes_never_get_there_however_requests_are_drawn():
    """Cameras differ, frames are crowds of one class, and each is drawn by weight: 1 to 50 %.

    The hardest moment is the first: at the fewest pictures, with a dozen classes.
    """
    rng, farthest = np.random.default_rng(12), 0.0
    for weight in (0.01, 0.05, 0.25, 0.5):
        for _ in range(50):
            cameras = rng.dirichlet(np.full(12, 0.3), 20)  # each sees mostly one or two classes
            mix = cameras.mean(axis=0)
            frames = [round(LEAST_IMAGES * (1 - weight) / weight), LEAST_IMAGES]
            found = []
            for n in frames:
                classes = rng.choice(12, size=n, p=mix)
                crowds = rng.geometric(1 / 8, n)  # 8 of one class in a frame
                objects = np.bincount(classes, crowds, 12).astype(int)
                found.append(dict(enumerate(objects.tolist())))
            farthest = max(farthest, distance(*found))
    assert 0.01 < farthest < 0.15


def test_it_goes_on_from_the_status_alone():
    played = release()
    played.stored = True
    shown(played, LIKE, OTHER, looks=2)
    assert shown(played, LIKE, OTHER).verdict is Verdict.FAIL
    assert played.status.revision == CANARY
