"""What the HorizontalPodAutoscaler says of itself: that it has no metrics, or is at its limit."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from yolofleet.api.names import Manifest
from yolofleet.api.status import Reason
from yolofleet.workloads.failures import moment

AUTOSCALER: Final = "HorizontalPodAutoscaler"


@dataclass(frozen=True, slots=True)
class Limit:
    """Why an autoscaler cannot do what is asked of it. since: None when nobody knows.

    computes: whether it comes to a number by itself at all.
    """

    reason: str
    words: str
    since: datetime | None
    computes: bool = True

    @property
    def message(self) -> str:
        """What that means where nobody else moves it."""
        return self.words if self.computes else f"spec.autoscaling has no effect: {self.words}"

    @property
    def message_with_a_floor(self) -> str:
        """What it means where the operator moves its minReplicas, which it obeys all the same."""
        return (
            self.words
            if self.computes
            else f"replicas go up with the load, never down: {self.words}"
        )


def limit(autoscalers: Iterable[Manifest]) -> Limit | None:
    """Return the worst that the autoscaler says; the youngest one speaks."""
    by_age = sorted(autoscalers, key=lambda each: each["metadata"].get("creationTimestamp", ""))
    if not by_age or "deletionTimestamp" in by_age[-1]["metadata"]:
        return None
    conditions = {c["type"]: c for c in (by_age[-1].get("status") or {}).get("conditions") or ()}
    for kind in ("AbleToScale", "ScalingActive"):
        if (condition := conditions.get(kind, {})).get("status") == "False":
            if condition.get("reason") == "ScalingDisabled":
                continue  # at zero replicas an autoscaler sleeps
            return _limit(condition, _words(condition), computes=False)
    if (condition := conditions.get("ScalingLimited", {})).get(
        "reason"
    ) == Reason.TOO_MANY_REPLICAS:
        if condition.get("status") != "True":
            return None
        return _limit(condition, too_many(by_age[-1]["spec"].get("maxReplicas")))
    return None


def too_many(most: int) -> str:
    """Say that the load asks for more than `most` replicas."""
    return (
        f"the load asks for more than spec.autoscaling.maxReplicas ({most}); raise it, or give"
        " each replica more in spec.resources"
    )


def _limit(condition: Manifest, words: str, *, computes: bool = True) -> Limit:
    since = moment(condition.get("lastTransitionTime"))
    return Limit(condition.get("reason", ""), words, since, computes)


_POD = re.compile(r"\b(?:of )?[Pp]od \S+")
_ADVICE = (
    (
        re.compile(r"missing request for (\S+)"),
        "; set resources.requests.{0} for every container, those of spec.podTemplate too",
    ),
    (
        re.compile(r"could not find the requested resource|no matches for|metrics\.k8s\.io"),
        "; install metrics-server, or set spec.replicas in the place of spec.autoscaling",
    ),
)


def _words(condition: Manifest) -> str:
    """Return the autoscaler's own words, without the pod it happened to look at, and what to do."""
    words = _POD.sub("of a pod", condition.get("message") or condition.get("reason", ""))
    for pattern, advice in _ADVICE:
        if found := pattern.search(words):
            return words + advice.format(*found.groups())
    return words
