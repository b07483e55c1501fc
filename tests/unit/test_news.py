"""What changed, told once, and as a warning only when a person should look."""

from datetime import UTC, datetime

from yolofleet.api.status import RevisionStatus, Status
from yolofleet.plan.news import news


def conditions(**told):
    at = datetime(2030, 1, 1, tzinfo=UTC).isoformat()
    return [
        {"type": t, "status": s, "reason": r, "message": f"{r}!", "lastTransitionTime": at}
        for t, (s, r) in told.items()
    ]


def status(weight=100, revision="gate-1", **told):
    stable = RevisionStatus(revision=revision, weight=weight)
    return Status.model_validate({"stable": stable, "conditions": conditions(**told)})


CANARY = RevisionStatus(revision="gate-3", weight=10)


def told(before, after):
    return [(n.warning, n.reason) for n in news(before, after)]


def test_nothing_new_is_no_news():
    same = status(Ready=("True", "Serving"))
    assert told(same, same) == []


def test_a_new_detector_is_not_greeted_with_what_everybody_expects():
    after = status(Ready=("False", "NothingReady"), Progressing=("True", "Starting"), weight=0)
    assert told(Status(), after) == [(False, "Starting")]


def test_a_failure_is_a_warning_and_its_end_is_not():
    good, bad = status(Ready=("True", "Serving")), status(Ready=("False", "DigestMismatch"))
    assert told(good, bad) == [(True, "DigestMismatch")]
    assert told(bad, good) == [(False, "Serving")]


def test_another_message_for_the_same_reason_is_no_news():
    before, after = status(Ready=("True", "Serving")), status(Ready=("True", "Serving"))
    after.conditions[0] = after.conditions[0].model_copy(update={"message": "1 of 2"})
    assert told(before, after) == []


def test_a_promotion_tells_of_the_traffic_that_comes_with_it():
    before, after = status(), status(revision="gate-2")
    assert told(before, after) == [(False, "Promoted")]
    shared = before.model_copy(
        update={"stable": before.stable.model_copy(update={"weight": 90}), "canary": CANARY}
    )
    assert told(shared, after) == [(False, "Promoted"), (False, "TrafficShifted")]


def test_a_shift_is_told_once_though_the_route_was_not_as_asked_before():
    short = status(TrafficRouted=("False", "ShortOfCapacity"))
    routed = status(weight=90, TrafficRouted=("True", "Routed"))
    after = routed.model_copy(update={"canary": CANARY})
    assert told(short, after) == [(False, "TrafficShifted")]
    assert told(short, status(TrafficRouted=("True", "Routed"))) == [(False, "Routed")]


def test_traffic_that_is_halfway_is_no_news_yet():
    assert told(status(), status(weight=50)) == []
