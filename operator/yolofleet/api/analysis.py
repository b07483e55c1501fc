"""What a new revision is judged by, and what was found: `spec.rollout.analysis` and its status."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from yolofleet.api.base import ApiModel, Duration, Rule, Since, Time, at_most_ten_years, countable

Share = Annotated[float, Field(ge=0.1, le=0.99)]
Name = Annotated[str, Field(max_length=63)]


class Mode(StrEnum):
    """Whether what is found has consequences."""

    ENFORCE = "Enforce"
    DRY_RUN = "DryRun"
    DISABLED = "Disabled"


class OnFailure(StrEnum):
    """What happens to a revision that failed."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class Source(StrEnum):
    """Where the counters come from."""

    PODS = "Pods"
    PROMETHEUS = "Prometheus"


class Golden(ApiModel):
    """Pictures whose objects are known: the one check that needs no other revision."""

    rules = (
        Rule(
            "has(self.configMap) != has(self.volume)",
            "spec.rollout.analysis.golden: give either configMap, for pictures of up to 1 MiB in"
            " all, or volume, which names one of spec.podTemplate.spec.volumes",
        ),
    )

    config_map: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        default=None,
        description="A ConfigMap of the detector's namespace that holds the set: pictures, beside"
        " each its labels as YOLO writes them (a.jpg, a.txt), and data.yaml or classes.txt.",
    )
    volume: Annotated[str, Field(min_length=1, max_length=63)] | None = Field(
        default=None,
        description="One of spec.podTemplate.spec.volumes that holds the set, in the same layout or"
        " with folders images/ and labels/.",
    )
    min_map50: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        alias="minMAP50",
        description="The least mean average precision at an overlap of 0.5. Absent: only the stable"
        " revision's result counts, where there is one; `yoloserve evaluate` tells what a model"
        " reaches.",
    )
    max_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.03,
        description="How far below the stable revision's result on the same set it may be.",
    )


class Analysis(ApiModel):
    """How a new revision is judged against the stable one."""

    rules = (
        Rule(
            f"!has(self.interval) || ({countable('interval')} &&"
            " duration(self.interval) >= duration('2s') &&"
            " duration(self.interval) <= duration('5m'))",
            "spec.rollout.analysis.interval: must be from 2s to 5m; 10s is a good one",
            ".interval",
            "self.interval",
        ),
        Rule(
            f"!has(self.maxHold) || !{countable('maxHold')} ||"
            " duration(self.maxHold) >= duration('1m')",
            "spec.rollout.analysis.maxHold: must be at least 1m; what is not proved by then is"
            " told, and still held",
            ".maxHold",
            "self.maxHold",
        ),
        at_most_ten_years("maxHold", "spec.rollout.analysis.maxHold"),
    )

    interval: Duration = Field(
        default="10s", description="How often the pods' counters are read, 2s to 5m."
    )
    source: Source = Field(
        default=Source.PODS,
        description="Where they are read. Pods: each pod is asked, on port 8081. Prometheus: where"
        " the operator may not reach pods; the one that prometheus.url of its chart names, which"
        " scrapes them at least every minute: what is new is looked at. A change makes no new"
        " revision and restarts nothing.",
    )
    max_hold: Duration = Field(
        default="2h",
        description="After this long without a verdict it is told as NotEnoughData in the condition"
        " Progressing. The release is held all the same: missing data promotes nothing.",
    )
    mode: Mode = Field(
        default=Mode.ENFORCE,
        description="Enforce: a revision that fails is called off, and none goes on unproved."
        " DryRun: verdicts are told and have no consequences, and what was called"
        " off before stays so. Disabled: nothing is judged, though"
        " the chart's analysis.default says so for all.",
    )
    on_failure: OnFailure = Field(
        default=OnFailure.ROLLBACK,
        description="Rollback: a revision that fails gets no request any more, and is not tried"
        " again until a person says so. Pause: it keeps its weight and waits for a person.",
    )
    golden: Golden | None = Field(
        default=None,
        description="Pictures whose objects are known, which every revision is to find before it"
        " gets a request. The first one of a detector gets them as soon as it is ready, and is"
        " judged meanwhile. At most 5,000 pictures and 512 MiB.",
    )
    min_kept: Share = Field(
        default=0.8,
        description="Of the objects that the stable revision is sure of, the least share that the"
        " new one has to find too, on the same pictures. Honest retrainings keep more; of the same"
        " model, quantised or exported anew, 0.95 may be asked.",
    )
    min_kept_by_class: Share = Field(
        default=0.7, description="The same for each class with enough objects."
    )
    min_kept_by_size: Share = Field(
        default=0.7,
        description="The same for small objects (less than 32² pixels), medium ones (less than 96²)"
        " and large ones.",
    )
    max_blind: Annotated[float, Field(ge=0.001, le=0.9)] = Field(
        default=0.05,
        description="Of the pictures in which the stable revision is sure of something, the largest"
        " share in which the new one may find nothing at all.",
    )
    max_added: Annotated[float, Field(ge=0.01, le=0.95)] = Field(
        default=0.4,
        description="Of the objects that the new revision is sure of, the largest share that the"
        " stable one did not find. A better model finds more: beyond this the release is paused. It"
        " is rolled back only where that is more than 0.6 of what it is sure of, and there is no"
        " `golden`, which could tell that all this is there.",
    )
    max_error_rate: Annotated[float, Field(ge=0.0001, le=0.5)] = Field(
        default=0.01,
        description="The largest share of requests that may fail or be late, or twice the stable"
        " revision's own of the same kind where that is more.",
    )
    max_p99_ratio: Annotated[float, Field(ge=1.05, le=10)] = Field(
        default=1.2,
        description="How many times slower it may answer, at P50, P90 and P99. Compared in whole"
        " steps of a tenth, rounded up: 1.2 lets 1.21 pass.",
    )
    max_class_shift: Annotated[float, Field(ge=0.05, le=1)] = Field(
        default=0.2,
        description="How far the mix of classes that it finds may be from the stable revision's, as"
        " the Jensen-Shannon distance: 0 is alike, 1 has nothing in common. Asked only where no"
        " copies are compared and requests are drawn by weight; beyond it the release is paused,"
        " not rolled back.",
    )
    keep_frames: bool = Field(
        default=False,
        description="true: pods of the stable revision keep the few dozen pictures on which the two"
        " differ most, in memory: for an hour, until another revision is released, or until this is"
        " false again. People may be seen in them: whoever shows access.framesKey sees them, and"
        " without one none is kept. A change makes no new revision and restarts nothing; pods"
        " follow it within about a minute.",
    )


class Verdict(StrEnum):
    """What the evidence says so far."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    NOT_JUDGED = "NotJudged"


class Stage(StrEnum):
    """What the judged revision answers."""

    DARK = "Dark"  # copies of requests only
    LIVE = "Live"  # its weight of the requests, or those that match


class Check(ApiModel):
    """What one check found."""

    name: Name = Field(description="Which one.")
    verdict: Verdict = Field(
        description="Pass: proved to be within the limit. Fail: proved to be beyond it."
        " Inconclusive: neither yet. Error: what it needs could not be read. NotJudged: there is"
        " nothing to judge by."
    )
    since: Time = Field(description="When the verdict became this one.")
    value: float | None = Field(default=None, description="What was measured.")
    limit: float | None = Field(default=None, description="What it is held against.")
    samples: int = Field(default=0, description="Of how many objects, pictures or requests.")
    message: Annotated[str, Field(max_length=200)] = Field(
        default="", description="The same in words, and what is missing."
    )


class Sum(ApiModel):
    """The evidence of one check, or of one class or size: a few numbers, for the operator."""

    name: Name = Field(description="Of what.")
    counts: Annotated[list[int], Field(max_length=10)] = Field(
        description="Counted: good or bad ones, all, looks, and sums of squares, by which it is"
        " known how much pictures of one camera, or of one request, resemble each other."
    )
    late: Annotated[list[float], Field(max_length=6)] | None = Field(
        default=None, description="Evidence of a fault that began late."
    )


class Latencies(ApiModel):
    """How long answers took: counts by whole steps of a tenth, for the operator."""

    name: Name = Field(description="Of whose answers.")
    first: Annotated[int, Field(ge=0, le=98)] = Field(
        default=0, description="Which step the first count is of: up to 1 ms × 1.1^first."
    )
    counts: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=99)] = Field(
        default=[], description="Answers in that step and those after it."
    )


class Confusion(ApiModel):
    """Objects of one class that the judged revision calls another."""

    name: Name = Field(description="The class by the stable revision.")
    called: Name = Field(description="The class by the judged revision.")
    times: int = Field(description="How often.")


class ArmName(StrEnum):
    """Which of the two."""

    STABLE = "stable"
    CANARY = "canary"


class Arm(ApiModel):
    """What one of the two revisions answered itself, since the other answers some too."""

    name: ArmName = Field(description="stable, or the judged one: canary.")
    revision: Name = Field(description="Its name.")
    requests: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Requests that it answered, or that failed."
    )
    errors: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Of these, those that failed or were late, by no fault of callers."
    )
    images: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Pictures in which `objects` were found: of times at which both answered some.",
    )
    objects: Annotated[dict[str, int], Field(max_length=9)] = Field(
        default={}, description="How many of each class it found; of eight classes, and the rest."
    )
    p50_ms: float | None = Field(
        default=None, description="The time within which half of its answers came, in ms."
    )
    p99_ms: float | None = Field(default=None, description="The same for 99 % of them.")
    kept: float | None = Field(
        default=None,
        description="Of the objects that the stable revision is sure of, the share that it found on"
        " the same pictures; where copies are compared.",
    )


class GoldenResult(ApiModel):
    """What the set of known pictures gave."""

    set: Annotated[str, Field(max_length=64)] = Field(description="SHA-256 of the set.")
    map50: float = Field(description="Mean average precision of the judged revision.")
    against: float | None = Field(
        default=None, description="That of the stable revision, on the same set."
    )
    images: int = Field(default=0, description="Pictures in the set.")


class Restart(ApiModel):
    """One restart of a server, in the same pod."""

    pod: Annotated[str, Field(max_length=8)] = Field(
        description="Which one: the first eight digits of its uid."
    )
    at: Time = Field(description="When it was seen.")


class Failed(ApiModel):
    """A revision that was called off, and is not tried again by itself."""

    revision: Name = Field(description="Its name.")
    check: Name = Field(description="The check that it failed.")
    at: Time = Field(description="When.")
    message: Annotated[str, Field(max_length=200)] = Field(
        default="", description="What was measured."
    )
    margins_hash: Annotated[str, Field(max_length=16)] = Field(
        description="By which limits: with others it is judged again."
    )
    retried: Annotated[str, Field(max_length=128)] = Field(
        default="",
        description="The value of the annotation yolofleet.io/retry at that time. With another one"
        " that begins with the name of this revision and a colon (REVISION:ANYTHING) it is judged"
        " again; whatever else stands there is passed over.",
    )


class AnalysisStatus(ApiModel):
    """How a revision is judged. All that must be remembered is here: a new leader goes on."""

    revision: Name = Field(default="", description="Which one is judged, or was last.")
    against: Name = Field(
        default="", description="The stable revision that it is compared with; empty: none."
    )
    stage: Stage = Field(
        default=Stage.DARK,
        description="Dark: it gets copies of requests. Live: it answers some itself.",
    )
    verdict: Verdict = Field(default=Verdict.INCONCLUSIVE, description="All checks taken together.")
    said: Annotated[str, Field(max_length=100)] = Field(
        default="", description="The same in a few words."
    )
    since: Since | None = Field(default=None, description="When the verdict became this one.")
    started_at: Since | None = Field(default=None, description="Since when it is judged.")
    margins_hash: Annotated[str, Field(max_length=16)] = Field(
        default="", description="By which limits it is judged; others begin anew."
    )
    retried: Annotated[str, Field(max_length=128)] = Field(
        default="", description="The last value of the annotation yolofleet.io/retry acted on."
    )
    following: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0,
        description="Up to what percent of the requests the verdict is for: what is at stake at the"
        " step that it is at. 0: for none, while it is looked at anew after nobody could for a"
        " while.",
    )
    looks: int = Field(default=0, description="How often its pods were read.")
    looked_at: Time | None = Field(
        default=None,
        description="Until when no more than a few looks in a row were missed, or found nobody.",
    )
    unreadable: int = Field(
        default=0, description="How many of the last looks in a row found too few pods readable."
    )
    restarted: Annotated[list[Restart], Field(max_length=16)] = Field(
        default=[], description="Which of its pods restarted in the last 10 minutes."
    )
    golden: GoldenResult | None = Field(
        default=None, description="What the set of known pictures gave."
    )
    capacity: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="How many pictures a second each of its pods can carry, as they told; rough, as"
        " it stays until it is half as much again, or a third less. They are shown copies of"
        " requests at half of that, and at 10 a second until it is known.",
    )
    checks: Annotated[list[Check], Field(max_length=10)] = Field(
        default=[], description="What each check found."
    )
    arms: Annotated[list[Arm], Field(max_length=2)] = Field(
        default=[],
        description="What each of the two answered itself, side by side; empty while the judged one"
        " answers nothing. Shown, for people; by itself it decides nothing.",
    )
    confused: Annotated[list[Confusion], Field(max_length=5)] = Field(
        default=[], description="Classes that are taken for each other most often."
    )
    sums: Annotated[list[Sum], Field(max_length=25)] = Field(
        default=[], description="The evidence, for the operator."
    )
    latency: Annotated[list[Latencies], Field(max_length=4)] = Field(
        default=[], description="How long answers took, for the operator."
    )
    failed: Annotated[list[Failed], Field(max_length=5)] = Field(
        default=[],
        description="The last revisions that were called off. They are not tried again until the"
        " limits change, or a person says so.",
    )
