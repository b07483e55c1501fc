"""The operator's own metrics, under controller-runtime's names."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from yolofleet.api.base import seconds
from yolofleet.api.names import DETECTOR_LABEL, Manifest
from yolofleet.api.rollout import APPROVAL
from yolofleet.api.status import Reason
from yolofleet.workloads.failures import went_blind
from yolofleet.workloads.pods import revision_of

CONTROLLER: Final = "yolodetector"
LAG_PERIOD_S: Final = 0.5  # at 0.1 this alone was nearly half of what an idle operator costs
_REMEMBERED_REQUESTS: Final = 4096  # that had no good answer; they are sent again soon, or never
LATE_S: Final = 1.0  # an event loop that is later than this serves nobody well
LATE_FOR_S: Final = 30.0  # and this long without being in time once is no hiccup

_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30)
_QUEUE_BUCKETS = (0.001, 0.01, 0.1, 1, 10, 60, 300)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """Every metric of one operator, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.queue = QueueMetrics(self.registry)
        self.workers = ReconcileMetrics(self.registry)
        self.requests = RequestMetrics(self.registry)
        self._master = Gauge(
            "leader_election_master_status",
            "Whether this replica leads (1) or waits (0).",
            ["name"],
            registry=self.registry,
        )
        self._repairs = Counter(
            "yolofleet_drift_repairs",
            "Fields of children put right after somebody else changed them.",
            ["kind", "field_class"],
            registry=self.registry,
        )
        self._events = Counter(
            "yolofleet_watch_events",
            "Watch events by kind of object and type; LISTED: from the list a watch begins with.",
            ["kind", "type"],
            registry=self.registry,
        )
        self._last_event = Gauge(
            "yolofleet_watch_last_event_timestamp_seconds",
            "When the last watch event of a kind came.",
            ["kind"],
            registry=self.registry,
        )
        self._relists = Counter(
            "yolofleet_relists",
            "Watches that lost their place and began anew.",
            ["kind"],
            registry=self.registry,
        )
        self._deaf = Gauge(
            "yolofleet_watch_deaf",
            "Whether a watch does not tell what lists find, or may not list it (1), or not (0).",
            registry=self.registry,
        )
        self._certificates = Counter(
            "certwatcher_read_certificate",
            "How often the webhook's certificate was read anew.",
            registry=self.registry,
        )
        self._bad_certificates = Counter(
            "certwatcher_read_certificate_errors",
            "How often that failed.",
            registry=self.registry,
        )
        self._lag = Histogram(
            "yolofleet_event_loop_lag_seconds",
            "By how much the event loop was late.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self._in_time_at = time.monotonic()

    def leading(self, name: str, leads: bool) -> None:
        """Note who leads."""
        self._master.labels(name).set(leads)

    def repaired(self, kind: str, field_class: str) -> None:
        """Count a field that others had changed."""
        self._repairs.labels(kind, field_class).inc()

    def watched(self, kind: str, type: str) -> None:
        """Count a watch event."""
        self._events.labels(kind, type).inc()
        self._last_event.labels(kind).set_to_current_time()

    def relisted(self, kind: str) -> None:
        """Count a watch that began anew."""
        self._relists.labels(kind).inc()

    def watch_deafness(self, failing: Callable[[], str]) -> None:
        """Tell at each scrape whether watches fail, in whatever words."""
        self._deaf.set_function(lambda: bool(failing()))

    def certificate_read(self, well: bool) -> None:
        """Count that the webhook's certificate was read, or could not be."""
        (self._certificates if well else self._bad_certificates).inc()

    async def measure_lag(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        while True:
            started = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_S)
            now = time.monotonic()
            lag = max(0.0, now - started - LAG_PERIOD_S)
            self._lag.observe(lag)
            if lag < LATE_S:
                self._in_time_at = now

    def late(self) -> str:
        """Say that the event loop lags all the time; nothing when it was in time a while ago."""
        late_for = time.monotonic() - self._in_time_at
        if late_for < LATE_FOR_S:
            return ""
        return f"the event loop has been more than {LATE_S:.0f} s late for {late_for:.0f} s"


class QueueMetrics:
    """client-go's metrics of a work queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ("name", "controller")

        def labelled(metric: Any) -> Any:
            return metric.labels(CONTROLLER, CONTROLLER)

        self._registry = registry
        self._depth = labelled(
            Gauge("workqueue_depth", "Keys that wait.", names, registry=registry)
        )
        self._adds = labelled(Counter("workqueue_adds", "Keys added.", names, registry=registry))
        self._retries = labelled(
            Counter("workqueue_retries", "Keys tried again.", names, registry=registry)
        )
        self._waited = labelled(
            Histogram(
                "workqueue_queue_duration_seconds",
                "How long keys waited.",
                names,
                buckets=_QUEUE_BUCKETS,
                registry=registry,
            )
        )
        self._worked = labelled(
            Histogram(
                "workqueue_work_duration_seconds",
                "How long keys were worked on.",
                names,
                buckets=_QUEUE_BUCKETS,
                registry=registry,
            )
        )
        self._unfinished = labelled(
            Gauge(
                "workqueue_unfinished_work_seconds",
                "Sum of the ages of what is worked on.",
                names,
                registry=registry,
            )
        )
        self._longest = labelled(
            Gauge(
                "workqueue_longest_running_processor_seconds",
                "Age of the oldest work that is not done.",
                names,
                registry=registry,
            )
        )

    def added(self, depth: int) -> None:
        """Count a key that now waits."""
        self._adds.inc()
        self._depth.set(depth)

    def taken(self, depth: int, waited_s: float) -> None:
        """Note how long a key waited."""
        self._depth.set(depth)
        self._waited.observe(waited_s)

    def finished(self, worked_s: float) -> None:
        """Note how long a key was worked on."""
        self._worked.observe(worked_s)

    def retried(self) -> None:
        """Count a key that is tried again."""
        self._retries.inc()

    def watch_work(self, working_since: Callable[[], Sequence[float]]) -> None:
        """Tell at each scrape for how long keys have been worked on."""
        self._unfinished.set_function(lambda: sum(working_since()))
        self._longest.set_function(lambda: max(working_since(), default=0.0))


class ReconcileMetrics:
    """controller-runtime's metrics of a controller."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Any:
            metric = Counter(f"controller_runtime_{name}", text, ["controller"], registry=registry)
            return metric.labels(CONTROLLER)

        self._total = Counter(
            "controller_runtime_reconcile",
            "Reconciles by result.",
            ["controller", "result"],
            registry=registry,
        )
        self._errors = counter("reconcile_errors", "Reconciles that failed.")
        self._terminal = counter("terminal_reconcile_errors", "Failures that a person must end.")
        self._panics = counter("reconcile_panics", "Reconciles that failed unexpectedly.")
        self._timeouts = counter("reconcile_timeouts", "Reconciles that took too long.")
        self._time = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "How long reconciles took.",
            ["controller"],
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        ).labels(CONTROLLER)
        self._limit = Gauge(
            "controller_runtime_max_concurrent_reconciles",
            "Workers.",
            ["controller"],
            registry=registry,
        ).labels(CONTROLLER)
        self._active = Gauge(
            "controller_runtime_active_workers",
            "Workers that reconcile now.",
            ["controller"],
            registry=registry,
        ).labels(CONTROLLER)

    def limited_to(self, workers: int) -> None:
        """Note how many workers there are."""
        self._limit.set(workers)

    def started(self) -> None:
        """Note that a worker began."""
        self._active.inc()

    def ended(self, outcome: str, seconds: float) -> None:
        """Note that a worker ended."""
        self._active.dec()
        self._total.labels(CONTROLLER, outcome).inc()
        self._time.observe(seconds)

    def failed(self, error: BaseException, *, terminal: bool, expected: bool) -> None:
        """Count a failure: one that a person must end, or one that nobody expected."""
        self._errors.inc()
        if terminal:
            self._terminal.inc()
        elif isinstance(error, TimeoutError):
            self._timeouts.inc()
        elif not expected:
            self._panics.inc()


class SentRequest(Protocol):
    """What is measured of a request."""

    @property
    def method(self) -> str:
        """Return the HTTP method."""

    @property
    def path(self) -> str:
        """Return the address."""


class RequestMetrics:
    """client-go's metrics of requests to the API server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "rest_client_requests",
            "Requests by answer.",
            ["code", "method", "host"],
            registry=registry,
        )
        self._retries = Counter(
            "rest_client_request_retries",
            "Requests sent again after a 429, a 5xx or no answer at all.",
            ["code", "verb", "host"],
            registry=registry,
        )
        self._unanswered: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._seconds = Histogram(
            "rest_client_request_duration_seconds",
            "How long requests took.",
            ["verb", "host"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )

    def observer(self, host: str) -> Callable[[SentRequest, str, float], None]:
        """Return what counts the requests sent to `host`."""

        def observe(request: SentRequest, code: str, seconds: float) -> None:
            place = request.method, request.path
            if failed := self._unanswered.pop(place, None):
                self._retries.labels(failed, request.method, host).inc()
            if code in ("<error>", "429") or code.startswith("5"):
                self._unanswered[place] = code
                if len(self._unanswered) > _REMEMBERED_REQUESTS:
                    self._unanswered.popitem(last=False)
            self._total.labels(code, request.method, host).inc()
            self._seconds.labels(request.method, host).observe(seconds)

        return observe


class WorldCollector:
    """Tells at each scrape what the cache holds: nothing to keep in step, nothing to forget.

    pods: those of which a server may have gone blind; what it counted itself ended with it.
    """

    def __init__(
        self,
        counts: Callable[[], Mapping[str, int]],
        detectors: Callable[[], Iterable[Mapping[str, Any]]],
        pods: Callable[[], Iterable[Manifest]] = tuple,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counts = counts
        self._detectors = detectors
        self._pods = pods
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of this moment."""
        children = GaugeMetricFamily("yolofleet_children", "Objects by kind.", labels=["kind"])
        for kind, number in self._counts().items():
            children.add_metric([kind], number)
        yield children
        conditions: dict[tuple[str, str], int] = {}
        weights = GaugeMetricFamily(
            "yolofleet_canary_weight",
            "Share of requests that the canary gets, in percent.",
            labels=["namespace", "detector"],
        )
        scaling, releases = _Scaling(), _Releases(self._now())
        for detector in self._detectors():
            scaling.add(detector)
            releases.add(detector)
            metadata, status = detector["metadata"], detector.get("status") or {}
            for condition in status.get("conditions") or ():
                key = (str(condition.get("type")), str(condition.get("status")))
                conditions[key] = conditions.get(key, 0) + 1
            if canary := status.get("canary"):
                weights.add_metric(
                    [metadata["namespace"], metadata["name"]], canary.get("weight") or 0
                )
        family = GaugeMetricFamily(
            "yolofleet_detector_condition",
            "Detectors by condition and its status.",
            labels=["type", "status"],
        )
        for (type_, status_), number in sorted(conditions.items()):
            family.add_metric([type_, status_], number)
        yield family
        yield weights
        yield from scaling.families.values()
        yield from releases.families
        yield _blind_ends(self._pods())


def _blind_ends(pods: Iterable[Manifest]) -> Metric:
    family = GaugeMetricFamily(
        "yolofleet_pod_blind_end_timestamp_seconds",
        "When the server of a pod ended because it saw its test picture no more, if its last end"
        " was that.",
        labels=["namespace", "detector", "revision", "pod"],
    )
    for pod in pods:
        if at := went_blind(pod):
            metadata = pod["metadata"]
            detector, revision = metadata["labels"].get(DETECTOR_LABEL, ""), revision_of(pod)
            who = [metadata["namespace"], detector, revision, metadata["name"]]
            family.add_metric(who, at.timestamp())
    return family


_LOST: Final = re.compile("MetricLost|FailedGet[A-Za-z]*Metric|FailedComputeMetricsReplicas")
"""Reasons of AutoscalingLimited for a metric that is lost: ours, and an autoscaler's own."""


class _Scaling:
    """What is exposed of the autoscaling of each detector that asks for some."""

    HELP: Final = {
        "info": "By what detectors are scaled; always 1.",
        "max_replicas": "The most replicas that a detector may have.",
        "held": "Whether replicas are held because a metric, or what brings it, is lost (1) or not"
        " (0).",
        "at_max": "Whether the load asks for more replicas than there may be (1) or not (0).",
        "floor": "The fewest replicas that the load lets the autoscaler choose.",
        "demand": "Replicas that the load asked for when the floor changed last.",
    }

    def __init__(self) -> None:
        more = {"info": ["provider"]}
        self.families = {
            name: GaugeMetricFamily(
                f"yolofleet_autoscaling_{name}",
                text,
                labels=["namespace", "detector", *more.get(name, ())],
            )
            for name, text in self.HELP.items()
        }

    def add(self, detector: Mapping[str, Any]) -> None:
        """Take in one detector as it is stored."""
        asked = (detector.get("spec") or {}).get("autoscaling")
        if asked is None:
            return
        metadata, status = detector["metadata"], detector.get("status") or {}
        who, known = [metadata["namespace"], metadata["name"]], status.get("autoscaling") or {}
        conditions = status.get("conditions") or ()
        limits = {c.get("reason") for c in conditions if c.get("type") == "AutoscalingLimited"}
        at_max = "TooManyReplicas" in limits
        self.families["info"].add_metric([*who, known.get("provider") or "builtin"], 1)
        self.families["max_replicas"].add_metric(who, asked.get("maxReplicas") or 0)
        lost = any(_LOST.fullmatch(str(reason)) for reason in limits)
        self.families["held"].add_metric(who, lost or bool(known.get("held")))
        self.families["at_max"].add_metric(who, at_max)
        for name in ("floor", "demand"):
            if (value := known.get(name)) is not None:
                self.families[name].add_metric(who, value)


class _Releases:
    """What serves of each detector, and how long its release has been where it is."""

    def __init__(self, now: float) -> None:
        self._now = now
        who = ["namespace", "detector"]
        self._ready = GaugeMetricFamily(
            "yolofleet_detector_ready", "Whether a detector serves (1) or not (0).", labels=who
        )
        self._replicas = GaugeMetricFamily(
            "yolofleet_detector_replicas",
            "Replicas of all revisions, by whether they can answer.",
            labels=[*who, "state"],
        )
        self._answered = GaugeMetricFamily(
            "yolofleet_detector_answered_ratio",
            "Share of requests that the router leads to revisions with a ready pod; absent while it"
            " leads none anywhere.",
            labels=who,
        )
        self._stalled = GaugeMetricFamily(
            "yolofleet_detector_stalled",
            "Whether a person has to put something right before a detector is as asked (1) or not"
            " (0).",
            labels=who,
        )
        self._age = GaugeMetricFamily(
            "yolofleet_rollout_step_age_seconds",
            "For how long the router has had the weight of a release's step; before that, and where"
            " there are no steps, for how long the release has been under way, anew once it goes on"
            " after a pause or after what it could not go on for.",
            labels=who,
        )
        self._hold = GaugeMetricFamily(
            "yolofleet_rollout_step_hold_seconds",
            "How long the step is to last; 0 where the release has none; absent where it waits for"
            " a person.",
            labels=who,
        )
        self.families = (
            self._ready,
            self._replicas,
            self._answered,
            self._stalled,
            self._age,
            self._hold,
        )

    def add(self, detector: Mapping[str, Any]) -> None:
        """Take in one detector as it is stored."""
        metadata, status = detector["metadata"], detector.get("status") or {}
        who = [metadata["namespace"], metadata["name"]]
        conditions = {c.get("type"): c for c in status.get("conditions") or ()}
        if ready := conditions.get("Ready"):
            self._ready.add_metric(who, ready.get("status") == "True")
        if stalled := conditions.get("Stalled"):
            self._stalled.add_metric(who, stalled.get("status") == "True")
        revisions = status.get("revisions") or ()
        for state in ("ready", "desired"):
            self._replicas.add_metric([*who, state], sum(r.get(state) or 0 for r in revisions))
        if led := sum(r.get("weight") or 0 for r in revisions):
            answered = sum(r.get("weight") or 0 for r in revisions if r.get("ready"))
            self._answered.add_metric(who, answered / led)
        if rollout := status.get("rollout"):
            progressing = conditions.get("Progressing", {})
            if at := _there_since(rollout, progressing):
                age = self._now - datetime.fromisoformat(at).timestamp()
                self._age.add_metric(who, max(age, 0.0))
            hold = rollout.get("hold")
            asks = hold == APPROVAL or progressing.get("reason") in _ASKING
            if not asks and not _is_held(detector.get("spec") or {}):
                self._hold.add_metric(who, seconds(hold) if hold else 0.0)


_ASKING: Final = (Reason.AWAITING_APPROVAL, Reason.NOT_JUDGED)
"""Reasons of Progressing for a release that goes on once a person says so, or raises replicas."""


def _there_since(rollout: Mapping[str, Any], progressing: Mapping[str, Any]) -> str:
    """Return since when a release is where it is; empty where nothing tells.

    Progressing alone does not: the time is that of its status, which may have been the same through
    a release before, or while nothing was released. But what was paused, or could not go on, has
    its time again from then on.
    """
    flipped, begun = progressing.get("lastTransitionTime"), rollout.get("begun")
    if since := rollout.get("since"):
        return str(since)
    if begun and progressing.get("status") != "True":
        return str(begun)
    return max(begun or "", flipped or "")  # both as the API server has times, in UTC


def _is_held(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("suspend") or (spec.get("rollout") or {}).get("paused"))
