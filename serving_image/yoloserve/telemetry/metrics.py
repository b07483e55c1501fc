"""What Prometheus sees. Only the edges count; everything inside returns what there is to count."""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from yoloserve.core import EngineCore
from yoloserve.detections.postprocess import Detections
from yoloserve.detector import Answer
from yoloserve.errors import Blind, KeysUnavailable, Miss, OverQuota
from yoloserve.scheduling.admission import Places
from yoloserve.scheduling.connections import Connections, Cut
from yoloserve.telemetry.counting import Counting
from yoloserve.telemetry.histograms import Histogram, Histograms
from yoloserve.telemetry.latency import Latency
from yoloserve.telemetry.load import OFFERED, REFUSED, Recent
from yoloserve.telemetry.names import called
from yoloserve.telemetry.statistics import REASONS, Statistics
from yoloserve.telemetry.traffic import Traffic

# OpenTelemetry's buckets for HTTP begin at 5 ms, where a small detector has long answered.
SECONDS = (0.001, 0.002, 0.004, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5)
CONFIDENCES = 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0
STAGES = "decode", "preprocess", "queue", "inference", "postprocess"
OK = "ok"
# Outcomes that alerts, autoscalers or releases go by: a rate needs a zero to start from.
FROM_THE_START = (*OFFERED, OverQuota.code, Blind.code, KeysUnavailable.code)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "WEBSOCKET"})


class Metrics(Counting):
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statistics = Statistics()
        self.started = time.time()
        for collect in (ProcessCollector, PlatformCollector, GCCollector):
            collect(registry=self.registry)
        self.requests = _Requests()
        self.registry.register(self.requests)
        looks = _Looks()
        self.registry.register(looks)
        self.looks = looks.counts
        self._duration = self._histogram(
            "yoloserve_request_duration_seconds",
            "From the last byte of the body to the answer, of pictures answered in time",
            SECONDS,
        )
        self._stage = self._histogram(
            "yoloserve_stage_duration_seconds",
            "Time of each stage of a picture",
            SECONDS,
            ["stage"],
        )
        self._batch_size = self._histogram(
            "yoloserve_batch_size",
            "Images in each call of the engine",
            (1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self._per_image = self._histogram(
            "yoloserve_image_detections",
            "Objects found in each image",
            (0, 1, 2, 5, 10, 20, 50, 100, 300),
        )
        self._seen = _Seen()
        self.registry.register(self._seen)
        self._missed = Counter(
            "yoloserve_deadline_misses",
            "Pictures refused for their deadline: passed on arrival, dropped from the queue before "
            "any work of the engine, or computed and late",
            ["at"],
            registry=self.registry,
        )
        for miss in Miss:
            self._missed.labels(miss)
        self._http = self._histogram(
            "http_server_request_duration_seconds",
            "All of HTTP, by OpenTelemetry's names: from the head of a request to its answer's end",
            SECONDS,
            ["http_request_method", "http_route", "http_response_status_code"],
        )
        self.active = 0
        self._active = Gauge(
            "http_server_active_requests",
            "Requests of any kind, and streams, that are under way",
            registry=self.registry,
        )
        self._active.set_function(lambda: self.active)
        self._connections = Gauge(
            "yoloserve_connections", "Open connections, streams apart", registry=self.registry
        )
        self._streams = Gauge("yoloserve_streams", "Open streams", registry=self.registry)
        self._blind_in_a_row = Gauge(
            "yoloserve_probe_blind_in_a_row",
            "Of the last looks at the probe picture, those without a break that saw nothing",
            registry=self.registry,
        )
        self._blind = Gauge(
            "yoloserve_blind",
            "Whether the network does not see, so that nothing is answered (1) or not (0)",
            registry=self.registry,
        )
        self._cut = Counter(
            "yoloserve_connections_cut",
            "Connections and streams that were ended for what their client did, or did not",
            ["reason"],
            registry=self.registry,
        )
        for why in Cut:
            self._cut.labels(why)
        self._model = Gauge(
            "yoloserve_model_info",
            "What is served, as labels; always 1",
            ["name", "version", "revision", "sha256", "backend", "precision", "device"],
            registry=self.registry,
        )

    def watch(self, core: EngineCore) -> None:
        """Show the model, and from now on the queue as it is at each scrape."""
        info = core.info
        self._model.labels(
            info.name,
            info.version,
            info.revision,
            info.sha256,
            info.backend,
            info.precision,
            info.device,
        ).set(1)
        for outcome in FROM_THE_START:
            self.requests.count(Traffic.REQUEST, outcome, 0)
        self.registry.register(_Queue(core, self.requests.recent.per_second))
        self.registry.register(_Triton(core, self.statistics))

    def watch_fronts(self, fronts: "Fronts") -> None:
        """Show what other processes of this server have, too."""
        self._connections.set_function(lambda: fronts.open)
        self._active.set_function(lambda: self.active + fronts.active)
        listening = Gauge(
            "yoloserve_fronts",
            "Front processes that take connections",
            registry=self.registry,
        )
        listening.set_function(lambda: fronts.listening)
        self.registry.register(_Started(fronts))

    def watch_connections(self, connections: Connections) -> None:
        """Show the connections as they are at each scrape."""
        self._connections.set_function(lambda: connections.open)

    def watch_streams(self, streams: Places) -> None:
        """Show the streams as they are at each scrape."""
        self._streams.set_function(lambda: streams.taken)

    def watch_sight(self, blind_in_a_row: Callable[[], int]) -> None:
        """Show for how many looks it has been blind, as it is at each scrape."""
        self._blind_in_a_row.set_function(blind_in_a_row)
        self._blind.set_function(lambda: blind_in_a_row() > 0)

    def cut(self, why: Cut) -> None:
        """Count one connection that was ended."""
        self._cut.labels(why).inc()

    def batch_ran(self, size: int, _seconds: float) -> None:
        """Count one call of the engine; its time is counted with the answers, as their stage."""
        self.statistics.executed()
        self._batch_size.observe(size)

    def answered(
        self,
        answer: Answer,
        classes: tuple[str, ...],
        traffic: Traffic,
        waited_s: float,
        among: int = 1,
    ) -> None:
        """Count one answer sent in time; what it has in it only if a caller asked for it."""
        self.requests.answered(traffic, waited_s, among)
        if traffic is not Traffic.REQUEST:
            return
        self.statistics.answered(answer.timing, waited_s)
        self._duration.observe(waited_s)
        for stage in STAGES:
            self._stage.observe(getattr(answer.timing, stage), stage)
        self._per_image.observe(len(answer.detections))
        self._seen.count(answer.detections, classes)

    def refused(self, code: str, traffic: Traffic, images: int = 1, among: int = 1) -> None:
        """Count pictures that got no detections."""
        self.requests.count(traffic, code, images, max(images, among))
        if traffic is Traffic.REQUEST:
            self.statistics.refused(code, images)

    def missed(self, miss: Miss, images: int = 1) -> None:
        """Count pictures whose deadline was missed, by where."""
        self._missed.labels(miss).inc(images)

    def looked(self, sees: bool) -> None:
        """Count one look at the probe picture."""
        self.requests.count(Traffic.PROBE, OK if sees else Blind.code)
        self.looks["sees" if sees else "blind"] += 1

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request of HTTP; what callers invent makes no label."""
        known = method if method in METHODS else "_OTHER"
        self._http.observe(seconds, known, route, str(status))

    def seen_of_class(self) -> list[tuple[int, int]]:
        """List the classes that were seen in callers' pictures, and how often."""
        return self._seen.of_class()

    def text(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(
        self, name: str, description: str, edges: Sequence[float], labels: Sequence[str] = ()
    ) -> Histograms:
        histograms = Histograms(name, description, edges, labels)
        self.registry.register(histograms)
        return histograms


class Fronts(Protocol):
    """Processes that speak HTTP for this one."""

    started: int

    @property
    def ready(self) -> bool:
        """Say whether all of them take connections."""

    @property
    def listening(self) -> int:
        """Count those that take connections."""

    @property
    def open(self) -> int:
        """Count their connections."""

    @property
    def active(self) -> int:
        """Count the requests that are under way in them."""


class _Started(Collector):
    """Front processes that were started: more than there are had to be started anew."""

    def __init__(self, fronts: Fronts) -> None:
        self._fronts = fronts

    def collect(self) -> Iterator[Metric]:
        """Count them."""
        help_text = "Front processes that were started: those that ended were replaced"
        yield CounterMetricFamily("yoloserve_fronts_started", help_text, value=self._fronts.started)


class _Requests(Collector):
    """Pictures by source and outcome; both are of few, whatever callers send."""

    def __init__(self) -> None:
        self.counts = {traffic: Counts[str]() for traffic in Traffic}
        self.squared = Counts[str]()
        """Of callers' pictures by outcome: each adds how many its request has."""
        # The probe is watched for what it sees. How long it waits for its turn is no matter.
        self.latency: dict[Traffic, Latency] = {
            each: Latency() for each in Traffic if each is not Traffic.PROBE
        }
        self.recent = Recent()

    @property
    def offered(self) -> int:
        """Count what callers asked for that was answered, or would have been with more replicas."""
        return sum(self.counts[Traffic.REQUEST][outcome] for outcome in OFFERED)

    @property
    def refused(self) -> int:
        """Count what of that was not answered, for want of time or place."""
        return sum(self.counts[Traffic.REQUEST][outcome] for outcome in REFUSED)

    def count(self, traffic: Traffic, outcome: str, many: int = 1, among: int = 1) -> None:
        """Count pictures of a request that has so many; none: tell that there may be such."""
        self.counts[traffic][outcome] += many
        if traffic is not Traffic.REQUEST:
            return
        self.squared[outcome] += many * among
        if outcome in OFFERED:
            self.recent.count(many)

    def answered(self, traffic: Traffic, seconds: float, among: int) -> None:
        """Count one that was answered after so long."""
        self.count(traffic, OK, among=among)
        self.latency[traffic].count(seconds)

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted."""
        family = CounterMetricFamily(
            "yoloserve_requests",
            "Pictures to detect in, by what became of them: ok, canceled, or the code of the "
            "error; and by whom. A request of several is so many; one that was refused "
            "before they were counted as many as those before it on average. "
            "hurried: deadline_exceeded, by a deadline of the caller's shorter than the server's",
            labels=["outcome", "source"],
        )
        for traffic, counts in self.counts.items():
            for outcome, count in list(counts.items()):  # collected on a thread
                family.add_metric([outcome, traffic], count)
        yield family
        squared = CounterMetricFamily(
            "yoloserve_request_images_squared",
            "Sum over callers' pictures of how many their request has, by what became of them. "
            "Over yoloserve_requests it is the design effect of clusters (Kish 1965): of requests "
            "of n pictures n, which fail and wait together",
            labels=["outcome"],
        )
        for outcome, count in list(self.squared.items()):
            squared.add_metric([outcome], count)
        yield squared
        latency = HistogramMetricFamily(
            "yoloserve_latency_seconds",
            "From the last byte of the body to the answer, of pictures answered in time, by whom; "
            "each bucket is 1.1 times the one before, so that revisions can be compared",
            labels=["source"],
        )
        for traffic, histogram in self.latency.items():
            if OK in self.counts[traffic]:
                latency.add_metric([traffic], *histogram.shown())
        yield latency


class _Looks(Collector):
    """Looks at the probe picture."""

    def __init__(self) -> None:
        self.counts = {"sees": 0, "blind": 0}

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted."""
        family = CounterMetricFamily(
            "yoloserve_probe_looks",
            "Looks at the probe picture, by whether the network still sees what it saw at first",
            labels=["outcome"],
        )
        for outcome, count in self.counts.items():
            family.add_metric([outcome], count)
        yield family


class _Seen(Collector):
    """Detections by class and by confidence."""

    def __init__(self) -> None:
        self._classes: tuple[str, ...] = ()
        self._of_class = Counts[int]()
        self._confidence = Histogram(CONFIDENCES)

    def count(self, found: Detections, classes: tuple[str, ...]) -> None:
        """Count what was found in one image."""
        if self._classes is not classes:
            self._classes, self._of_class = classes, Counts()
        self._of_class.update(found.classes.tolist())
        for score in found.scores.tolist():
            self._confidence.count(score)

    def of_class(self) -> list[tuple[int, int]]:
        """List the classes that were seen, by number, and how often."""
        return sorted(self._of_class.items())

    def collect(self) -> Iterator[Metric]:
        """Tell what was counted; a class that was never seen is left out."""
        buckets, total = self._confidence.shown()
        yield HistogramMetricFamily(
            "yoloserve_detection_confidence",
            "Confidence of each detection",
            buckets=buckets,
            sum_value=total,
        )
        detections = CounterMetricFamily(
            "yoloserve_detections", "Objects found, by class", labels=["class"]
        )
        seen: dict[str, int] = {}  # a model may have two classes of one name: one series for both
        for index, count in self.of_class():
            name = called(self._classes[index])
            seen[name] = seen.get(name, 0) + count
        for name, count in seen.items():
            detections.add_metric([name], count)
        yield detections


class _Queue(Collector):
    """Gauges read when they are asked for; autoscalers look at these."""

    def __init__(self, core: EngineCore, offered_per_s: Callable[[], float]) -> None:
        self._core = core
        self._offered_per_s = offered_per_s

    def collect(self) -> Iterator[Metric]:
        """Read the queue."""
        capacity = self._core.capacity_per_s
        inside, batcher = self._core.admission.inside, self._core.batcher
        yield GaugeMetricFamily(
            "yoloserve_inflight_requests", "Requests admitted and not yet answered", value=inside
        )
        yield GaugeMetricFamily(
            "yoloserve_queue_requests", "Requests that wait for the engine", value=batcher.waiting
        )
        yield GaugeMetricFamily(
            "yoloserve_capacity_requests_per_second",
            "What the slowest stage can answer, from its recent work",
            value=capacity,
        )
        yield GaugeMetricFamily(
            "yoloserve_load_ratio",
            "Pictures of callers, those refused for want of time or place too, as a share of what "
            "can be answered: over the last 15 s",
            value=self._offered_per_s() / capacity if capacity else 0.0,
        )


class _Triton(Collector):
    """The same by Triton's names, for dashboards and autoscalers that know those."""

    def __init__(self, core: EngineCore, statistics: Statistics) -> None:
        self._core = core
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Read the statistics."""
        info, statistics = self._core.info, self._statistics
        model = info.name, info.version
        labels = ["model", "version"]

        def counter(name: str, help_text: str, value: float) -> Metric:
            family = CounterMetricFamily(f"nv_inference_{name}", help_text, labels=labels)
            family.add_metric(model, value)
            return family

        yield counter("request_success", "Images answered", statistics.succeeded)
        failure = CounterMetricFamily(
            "nv_inference_request_failure", "Images refused", labels=[*labels, "reason"]
        )
        for reason in REASONS:
            failure.add_metric((*model, reason), statistics.failed[reason])
        yield failure
        yield counter("count", "Images answered", statistics.succeeded)
        yield counter("exec_count", "Calls of the engine", statistics.executions)
        for name, seconds in (
            ("request", statistics.total_s),
            ("queue", statistics.queue_s),
            ("compute_input", statistics.input_s),
            ("compute_infer", statistics.infer_s),
            ("compute_output", statistics.output_s),
        ):
            yield counter(f"{name}_duration_us", "Cumulative time", seconds * 1e6)
        pending = GaugeMetricFamily(
            "nv_inference_pending_request_count", "Images that wait for the engine", labels=labels
        )
        pending.add_metric(model, self._core.batcher.waiting)
        yield pending
