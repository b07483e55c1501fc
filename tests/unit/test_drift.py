"""What is said of what others changed: in the condition, and in Events."""

from datetime import UTC, datetime

import pytest

from yolofleet.api.status import Status
from yolofleet.plan.drift import drift_news, drifted
from yolofleet.plan.status import with_statement
from yolofleet.runtime.drift import Drift, Handling

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FIELD = "spec.template.spec.hostNetwork (added by kubectl-edit)"


def a_drift(handling, *fields):
    return Drift("Deployment", "gate-1", fields or (FIELD,), handling)


def after(before, drifts):
    told = drifted(before, drifts)
    fresh = Status(observed_generation=7)
    return with_statement(fresh, told, before, NOW) if told else fresh


def said(status):
    [condition] = status.conditions
    return condition.status, condition.reason


@pytest.mark.parametrize(
    ("handling", "status", "reason", "advice"),
    [
        (Handling.REPAIRED, "False", "DriftRepaired", "put right"),
        (Handling.LEFT, "True", "DriftLeft", "set the policy to Enforce"),
        (Handling.CONTESTED, "True", "DriftContested", "stop the other writer"),
    ],
)
def test_the_condition_names_object_field_writer_and_what_to_do(handling, status, reason, advice):
    [told] = after(Status(), [a_drift(handling)]).conditions
    assert (told.type, told.status, told.reason) == ("Drifted", status, reason)
    assert told.message.startswith(f"Deployment gate-1: {FIELD}; ")
    assert advice in told.message
    assert told.observed_generation == 7


def test_a_detector_that_never_drifted_says_nothing():
    assert after(Status(), []).conditions == []
    assert after(Status(), None).conditions == []


def test_drift_that_is_gone_is_over_and_a_repair_stays_readable():
    left = after(Status(), [a_drift(Handling.LEFT)])
    assert said(after(left, [])) == ("False", "AsDesired")
    repaired = after(Status(), [a_drift(Handling.REPAIRED)])
    assert after(repaired, []) == repaired


def test_what_nobody_looked_at_is_as_it_was():
    left = after(Status(), [a_drift(Handling.LEFT)])
    assert after(left, None) == left


def test_the_worst_is_told():
    both = [a_drift(Handling.REPAIRED), a_drift(Handling.CONTESTED)]
    assert said(after(Status(), both)) == ("True", "DriftContested")


def test_a_message_names_some_fields_and_counts_the_rest():
    told = str(a_drift(Handling.LEFT, *(f"spec.field{n}" for n in range(20))))
    assert "spec.field7 and 12 more" in told
    assert "spec.field8" not in told


def test_each_repair_is_news_and_other_drift_once():
    repaired = [a_drift(Handling.REPAIRED)]
    told = after(Status(), repaired)
    for before in (Status(), told):
        [news] = drift_news(before, told, repaired)
        assert (news.warning, news.reason) == (True, "DriftRepaired")
    left = [a_drift(Handling.LEFT)]
    told = after(Status(), left)
    [news] = drift_news(Status(), told, left)
    assert news.reason == "DriftLeft"
    assert list(drift_news(told, told, left)) == []
    more = [*left, a_drift(Handling.LEFT, "spec.paused (set by x)")]
    assert len(list(drift_news(told, after(told, more), more))) == 1
