"""What of a status is news: what a person may want to read as an Event."""

from collections.abc import Iterator
from dataclasses import dataclass

from yolofleet.api.status import Condition, ConditionType, Reason, Status

Shares = dict[str, int]
"""By revision, the percent of requests that it gets."""


@dataclass(frozen=True, slots=True)
class News:
    """Something that changed and that a person may want to read: an Event."""

    warning: bool
    reason: str
    message: str


def news(before: Status, after: Status) -> Iterator[News]:
    """Tell what changed from one status to the next; each change once."""
    was, now = before.stable, after.stable
    promoted = bool(was and now and was.revision != now.revision)
    if was and now and promoted:
        yield News(
            False, "Promoted", f"{now.revision} is the stable revision now, {was.revision} was"
        )
    shifted = _shifted(_shares(before), _shares(after), promoted=promoted)
    for condition in after.conditions:
        if condition.type in _NO_NEWS:
            continue
        old = before.condition(ConditionType(condition.type))
        if old and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if condition.status == "Unknown" or (old is None and condition.reason in _EXPECTED):
            continue
        if condition.reason == Reason.ROUTED and (shifted or not (old and old.status == "False")):
            continue  # the shares say it
        yield News(_bad(condition), condition.reason, condition.message)
    if shifted:
        split = ", ".join(f"{share} % {name}" for name, share in _shares(after).items())
        yield News(False, "TrafficShifted", split)


def _shifted(before: Shares, after: Shares, *, promoted: bool) -> bool:
    """Say whether the shares are news: not halfway, nor where who was promoted took over whole."""
    if promoted and len(before) == len(after) == 1:
        return False
    return bool(before) and before != after and sum(after.values()) == 100


_NO_NEWS = {
    ConditionType.DRIFTED,  # `drift_news` tells it, each time
    ConditionType.WRITTEN,  # Progressing does, in the same words
    ConditionType.RELEASED,  # these three sum up what the others tell
    ConditionType.RECONCILING,
    ConditionType.STALLED,
}

_EXPECTED = (Reason.NOTHING_READY,)
"""Of a detector that was just made, these are no news."""


def _bad(condition: Condition) -> bool:
    usual = {
        Reason.SETTLED,
        Reason.SUSPENDED,
        Reason.PAUSED,
        Reason.NOTHING_READY,
        Reason.SCALED_TO_ZERO,
        Reason.SHORT_OF_CAPACITY,  # mostly a canary that starts; one that fails says so itself
    }
    if condition.type == ConditionType.AUTOSCALING_LIMITED:
        return condition.status == "True"
    return condition.status == "False" and condition.reason not in usual


def _shares(status: Status) -> Shares:
    return {r.revision: r.weight for r in (status.stable, status.canary) if r and r.weight}
