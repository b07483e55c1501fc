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


def test_a_promotion_and_a_shift_of_traffic_are_told():
    before, after = status(), status(revision="gate-2")
    assert told(before, after) == [(False, "Promoted"), (False, "TrafficShifted")]


def test_traffic_that_is_halfway_is_no_news_yet():
    assert told(status(), status(weight=50)) == []
