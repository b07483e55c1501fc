"""How a changed spec reaches the whole traffic."""

from enum import StrEnum
from math import ceil
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from yolofleet.api.analysis import Analysis
from yolofleet.api.base import ApiModel, Rule, at_most_ten_years, seconds

APPROVAL = "Approval"
"""The hold of a step that ends by an edit of the resource."""


class Strategy(StrEnum):
    """How the new revision takes over."""

    BLUE_GREEN = "BlueGreen"
    CANARY = "Canary"
    IN_PLACE = "InPlace"


Surge = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^([1-9][0-9]{0,2}|([1-9][0-9]?|100)%)$",
        }
    ),
]
"""Replicas, or a share of them in percent."""


def _a_hold(text: str) -> str:
    if text != APPROVAL:
        seconds(text)
    return text


Hold = Annotated[
    str,
    AfterValidator(_a_hold),
    WithJsonSchema(
        {"type": "string", "maxLength": 16, "pattern": f"^([1-9][0-9]*(ms|s|m|h)|{APPROVAL})$"}
    ),
]


class Step(ApiModel):
    """A part of the traffic, and for how long."""

    rules = (at_most_ten_years("hold", "spec.rollout.steps.hold"),)

    weight: Annotated[int, Field(ge=0, le=99)] = Field(
        description="Percent of requests that the new revision answers. 0, only as the first step"
        " and with analysis: dark, it is judged by copies of requests and answers none."
    )
    hold: Hold = Field(
        description="How long the router has had this weight before the next step: a duration such"
        f" as 2m, or {APPROVAL}, which waits for spec.rollout.approved."
    )


class Despite(StrEnum):
    """What a person lets a revision pass in spite of."""

    ANALYSIS_FAILED = "AnalysisFailed"
    NOT_ENOUGH_DATA = "NotEnoughData"


CheckName = Annotated[str, Field(max_length=63)]


class Approved(ApiModel):
    """The word of a person, bound to one revision so that it never lets another pass."""

    revision: Annotated[str, Field(min_length=1, max_length=63)] = Field(
        description="The revision on its way, as status.rollout.revision names it."
    )
    step: Annotated[int, Field(ge=1, le=20)] = Field(
        description="Up to and including which step, counted from 1."
    )
    despite: Despite | None = Field(
        default=None,
        description="AnalysisFailed: the revision goes on although checks of analysis failed; the"
        " others are still asked. NotEnoughData: it goes on up to that step although nothing is"
        " proved yet; what fails later still calls it off.",
    )
    failed: Annotated[list[CheckName], Field(max_length=10)] | None = Field(
        default=None,
        description="The checks of analysis in spite of whose failure it goes on, by name. A pause"
        " ends up to that step where all that failed are named; what fails later pauses anew.",
    )


class Rollout(ApiModel):
    """The way from one stable revision to the next."""

    rules = (
        Rule(
            "!has(self.strategy) || self.strategy != 'Canary' || size(self.steps) > 0 ||"
            " (has(self.analysis) && self.analysis.mode != 'Disabled')",
            "spec.rollout.steps: strategy Canary walks steps; give at least one, for example"
            " {weight: 10, hold: 5m}, or analysis, with which it walks 1, 5, 25 and 50 %",
            ".steps",
        ),
        Rule(
            "size(self.steps) == 0 || (has(self.strategy) && self.strategy == 'Canary')",
            "spec.rollout.steps: only strategy Canary walks steps; set strategy to Canary, or"
            " remove steps",
            ".steps",
        ),
        Rule(
            "self.steps.map(s, s.weight).isSorted() &&"
            " self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight))",
            "spec.rollout.steps: the weights must rise from step to step",
            ".steps",
        ),
        Rule(
            "size(self.steps) == 0 || self.steps[0].weight > 0 || has(self.analysis)",
            "spec.rollout.steps: a step of weight 0 is there to judge in the dark; add analysis"
            " ({} judges all with defaults), or begin with a weight of at least 1",
            ".steps",
        ),
        Rule(
            "!has(self.maxSurge) || (has(self.strategy) && self.strategy == 'Canary')",
            "spec.rollout.maxSurge: BlueGreen always runs a whole second set and InPlace never more"
            " than the replicas; set strategy to Canary, or remove maxSurge",
            ".maxSurge",
        ),
        Rule(
            "!has(self.maxSurge) || type(self.maxSurge) != int || self.maxSurge > 0",
            "spec.rollout.maxSurge: must be at least 1; for no pod beyond the replicas set strategy"
            " to InPlace",
            ".maxSurge",
        ),
    )

    strategy: Strategy | None = Field(
        default=None,
        description="BlueGreen: a whole second set of replicas, then all traffic at once. Canary:"
        " the traffic goes over in `steps`, and the operator promotes at the end. InPlace: replica"
        " by replica, never more pods than replicas; with one replica that is an outage. Absent:"
        " BlueGreen, or InPlace where accelerators for a second set are missing and there are at"
        " least two replicas, neither a canary nor autoscaling.",
    )
    steps: Annotated[list[Step], Field(max_length=20)] = Field(
        default=[],
        description="Of strategy Canary: the weights on the way to 100, rising. With analysis and"
        " none given they are 1 and 5 for 2m each, 25 and 50 for 5m each. A roll-back to a revision"
        " that was released before skips them.",
    )
    max_surge: Surge | None = Field(
        default=None,
        description="Of strategy Canary: pods beyond the replicas, as a number or percent (rounded"
        " up). The stable revision gives replicas up as ready new ones take their part of the"
        " traffic. Absent: a whole second set.",
    )
    paused: bool = Field(
        default=False,
        description="true: a release under way stays where it is, weights and replicas, until it is"
        " false again. Putting the former spec back calls it off.",
    )
    approved: Approved | None = Field(
        default=None,
        description=f"Ends the hold of steps that wait for {APPROVAL}, and lets a revision go on"
        " that analysis called off.",
    )
    analysis: Analysis | None = Field(
        default=None,
        description="Judges every new revision, and a canary set by hand, by what it detects, how"
        " fast and how often it fails, and calls it off by itself. {} judges all with defaults."
        " Absent: as the chart's analysis.default says, by default not at all. Changing it makes no"
        " new revision and restarts nothing.",
    )

    def surge(self, strategy: Strategy, full: int) -> int:
        """Return how many pods there may be beyond `full` replicas."""
        if strategy is Strategy.IN_PLACE:
            return 0
        if self.max_surge is None:
            return full
        given = str(self.max_surge)
        part = ceil(full * int(given[:-1]) / 100) if given.endswith("%") else int(given)
        return min(part, full)
