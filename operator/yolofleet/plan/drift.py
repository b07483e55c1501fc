"""How it is told what others changed of a detector's objects."""

from collections.abc import Iterator, Sequence

from yolofleet.api.status import Condition, ConditionType, Reason, Status
from yolofleet.plan.conditions.statement import Statement
from yolofleet.plan.news import News
from yolofleet.runtime.drift import OVER_ONCE_REPORTED, Drift, Handling

_ADVICE = {
    Handling.REPAIRED: "put right",
    Handling.LEFT: "left, as spec.driftPolicy Report says; undo it, or set the policy to Enforce",
    Handling.CONTESTED: "changed again after it was put right; stop the other writer, or set"
    " spec.driftPolicy to Report. What would kill pods each time is left to it meanwhile",
    Handling.DELETED: "by whom, the API server does not say (its audit log may); stop who does it."
    " It is made again ever more seldom, at least once a minute",
    Handling.NOT_KEPT: "a mutating webhook or the API server makes something else of what is"
    " written there; that very value is left, any other is put right",
}


_REASONS = {
    Handling.CONTESTED: Reason.CONTESTED,
    Handling.DELETED: Reason.CONTESTED,
    Handling.LEFT: Reason.LEFT_IN_PLACE,
    Handling.REPAIRED: Reason.REPAIRED,
    Handling.NOT_KEPT: Reason.NOT_KEPT,
}


def drifted(before: Status, drifts: Sequence[Drift] | None) -> Statement | None:
    """Return what to say of drift; None for a detector that never had any.

    drifts: what was found of every object; None when nobody looked.
    """
    kind, was = ConditionType.DRIFTED, before.condition(ConditionType.DRIFTED)
    for handling in (Handling.DELETED, Handling.CONTESTED, Handling.LEFT, Handling.REPAIRED):
        if found := [str(drift) for drift in drifts or () if drift.handling is handling]:
            message = f"{'; '.join(found)}; {_ADVICE[handling]}"
            return Statement(kind, handling is not Handling.REPAIRED, _REASONS[handling], message)
    if was is None:
        return None
    if drifts is None or was.reason == Reason.REPAIRED:  # the last repair stays readable
        return Statement(kind, was.status == "True", was.reason, was.message)
    return Statement(kind, False, Reason.AS_DESIRED, "every object is as desired")


def drift_news(before: Status, after: Status, drifts: Sequence[Drift]) -> Iterator[News]:
    """Tell of each repair, and of other drift when what is to be said of it changes."""
    for drift in drifts:
        if drift.handling in OVER_ONCE_REPORTED:
            yield News(True, _REASONS[drift.handling], f"{drift}; {_ADVICE[drift.handling]}")
    condition = after.condition(ConditionType.DRIFTED)
    if (
        condition
        and condition.status == "True"
        and _words(condition) != _words(before.condition(ConditionType.DRIFTED))
    ):
        yield News(True, condition.reason, condition.message)


def _words(condition: Condition | None) -> tuple[str, str]:
    return (condition.status, condition.message) if condition else ("", "")
