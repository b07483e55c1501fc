"""A release from the first apply to a roll-back, told once and looked at from many sides.

Requests come through the ingress all the time.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from demo_cluster import pictures, release
from demo_cluster.detector import Detector
from demo_cluster.errors import NotYet
from demo_cluster.kube import ROUTES, Manifest
from demo_cluster.load import Load, Summary, Target, wait_until_served
from demo_cluster.release import Promotion
from demo_cluster.waiting import eventually

CANARY = {"model": {"uri": "demo://shapes-v2"}}
MATCH = [{"headers": {"x-canary": {"exact": "always"}}}]
WEIGHT = 10
REQUESTS = 1200


@dataclass
class Story:
    """What was seen, in order."""

    detector: Detector
    target: Target
    first: str = ""
    second: str = ""
    split: Summary | None = None
    matched: list[str] = field(default_factory=list)
    promotion: Promotion | None = None
    promoted: Summary | None = None
    rolled_back: Summary | None = None
    everything: Summary | None = None
    restarts: int = -1
    routes: list[Manifest] = field(default_factory=list)


def fleet_of(routed: Callable[[str], Manifest]) -> dict[str, Manifest]:
    return {"gate": {"replicas": 2, "traffic": routed("gate")}}


@pytest.fixture(scope="module")
def story(fleet, target, images) -> Iterator[Story]:
    detector = fleet["gate"]
    story = Story(detector, target("gate"))
    detector.wait_ready()
    data = [image.data for image in images]
    wait_until_served(story.target, data, within_s=300)
    story.first = asyncio.run(pictures.detect(story.target, images[0]))["model"]["revision"]
    with (
        detector.kubectl.watched(ROUTES, "gate") as watch,
        Load(story.target, data) as load,
    ):
        tell_of_canary(story, load, images)
        tell_of_promotion(story, load)
    story.everything = load.summary()
    story.restarts = detector.restarts()
    story.routes = watch.versions
    yield story
    detector.leave()


def tell_of_canary(story: Story, load: Load, images: Any) -> None:
    story.detector.patch({"canary": {**CANARY, "weight": WEIGHT, "match": MATCH}})
    story.detector.wait_for("CanaryHealthy")
    story.second = story.detector.wait_weight(WEIGHT)["revision"]

    def answered_by_header() -> str:
        header = {"x-canary": "always"}
        answer = asyncio.run(pictures.detect(story.target, images[0], header))
        if answer["model"]["revision"] != story.second:
            raise NotYet(f"{answer['model']['revision']} answered")
        return str(answer["model"]["revision"])

    eventually("the router to know the header", answered_by_header, within_s=300)
    mark = load.answered
    load.wait_for(REQUESTS, within_s=300)
    story.split = load.summary(since=mark, until=mark + REQUESTS)
    story.matched = [answered_by_header() for _ in range(20)]


def tell_of_promotion(story: Story, load: Load) -> None:
    release.shift(story.detector, 50)
    story.promotion = release.promote(story.detector)
    story.promoted = after_the_switch(load, story.second)
    release.roll_back(story.detector, {"uri": "demo://shapes"})
    story.rolled_back = after_the_switch(load, story.first)


def after_the_switch(load: Load, revision: str) -> Summary:
    load.wait_answered_by(revision, within_s=300)
    mark = load.answered
    load.wait_for(200, within_s=300)
    return load.summary(since=mark, until=mark + 200)


def test_objects_are_found_through_the_ingress(story, images):
    answers = [asyncio.run(pictures.detect(story.target, image)) for image in images]
    found = sum(
        pictures.found(image.objects, answer["detections"])
        for image, answer in zip(images, answers, strict=True)
    )
    assert found >= 0.7 * sum(len(image.objects) for image in images)
    for answer in answers:
        scores = [detection["confidence"] for detection in answer["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert {"name", "version", "sha256", "revision"} <= answer["model"].keys()


def test_the_picture_with_its_boxes_comes_back_as_jpeg(story, images):
    drawn = asyncio.run(pictures.annotated(story.target, images[0]))
    assert drawn.startswith(b"\xff\xd8")
    assert drawn != images[0].data


@pytest.mark.parametrize("path", ["/", "/docs", "/metrics", "/health/ready"])
def test_people_and_prometheus_reach_their_pages(story, path):
    assert asyncio.run(pictures.page(story.target, path))


def test_the_canary_answers_its_share(story):
    release.check_share(story.split, story.second, WEIGHT)


def test_requests_with_the_header_go_to_the_canary_whatever_its_weight(story):
    assert set(story.matched) == {story.second}


def test_after_promotion_the_canarys_revision_answers_everything(story):
    assert set(story.promoted.revisions) == {story.second}


def test_promotion_keeps_the_pods_of_the_canary(story):
    assert story.promotion.kept
    assert story.promotion.kept <= story.promotion.after


def test_after_the_roll_back_the_first_revision_answers_everything(story):
    assert set(story.rolled_back.revisions) == {story.first}


def test_no_request_failed(story):
    assert story.everything.failures == {}
    assert story.everything.requests > REQUESTS


def test_no_container_restarted(story):
    assert story.restarts == 0


def test_the_weights_sum_to_100_at_every_moment(story, split_of):
    splits = [split_of(route) for route in story.routes]
    assert len(splits) > 4
    assert all(sum(split.values()) == 100 for split in splits), splits


def test_two_revisions_are_all_there_ever_were(story, split_of):
    assert {name for route in story.routes for name in split_of(route)} == {
        story.first,
        story.second,
    }


def test_promotions_and_shares_are_told_as_events(story, events):
    assert story.second in events("gate", "Promoted")["message"]
    assert events("gate", "TrafficShifted")["type"] == "Normal"
