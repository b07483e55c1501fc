"""Pods that are played: they count what a script has them see, and are judged by the real thing."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from yolofleet.analysis.evidence import parse
from yolofleet.analysis.increments import Look, Memory, Pod, look
from yolofleet.analysis.judge import Standing, judge
from yolofleet.analysis.statistics import FACTOR
from yolofleet.api.analysis import Analysis, AnalysisStatus, Stage

STABLE, CANARY = "gate-05bb7f85", "gate-56544287"
START = datetime(2030, 1, 1, tzinfo=UTC)


def bucket_of(seconds: float) -> int:
    """Return where an answer that took so long is counted."""
    return next((i for i in range(98) if seconds <= 0.001 * FACTOR**i), 98)


@dataclass
class Server:
    """One pod: its counters since its process began."""

    uid: str
    revision: str
    compares: str = CANARY  # with whom, if it is of another revision
    started: float = 1000.0
    ready: bool = True
    restarts: int = 0
    answer: str | bytes | None = (
        None  # in place of evidence: what it says, or why it cannot be read
    )
    requests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    squared: dict[str, int] | None = field(default_factory=lambda: defaultdict(int))
    times: list[int] = field(default_factory=lambda: [0] * 99)
    sees: int = 3
    images: int = 0
    objects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    blind_in_a_row: int = 0
    golden: dict[str, Any] | None = None
    expected: dict[str, list[int]] = field(default_factory=dict)
    kept: dict[str, list[int]] = field(default_factory=dict)
    confused: dict[str, dict[str, int]] = field(default_factory=dict)
    sure: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    only_stable: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    only_canary: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    frames: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seen: int = 0
    blind: int = 0
    capacity: float | None = None
    tells_load: bool = False  # beside what judging looks at
    compute: dict[str, list[int]] = field(
        default_factory=lambda: {"stable": [0] * 99, "canary": [0] * 99}
    )

    def restart(self, at: float) -> None:
        """Begin anew, with all counters at zero."""
        fresh = Server(
            self.uid,
            self.revision,
            self.compares,
            at,
            restarts=self.restarts + 1,
            golden=self.golden,
        )
        self.__dict__.update(fresh.__dict__)

    def compare_with(self, canary: str) -> None:
        """Compare with another canary, from zero; with the same one it goes on."""
        if canary != self.compares:
            fresh = Server(self.uid, self.revision, canary)
            counted = "expected", "kept", "confused", "sure", "only_stable", "only_canary"
            for name in ("compares", *counted, "frames", "seen", "blind", "compute"):
                setattr(self, name, getattr(fresh, name))

    def pair(self, name: str, expected: int, kept: int, *, size: int = 1, added: int = 0) -> None:
        """Count objects that were expected of the canary, and those that it found."""
        for counted, n in ((self.expected, expected), (self.kept, kept)):
            counted.setdefault(name, [0, 0, 0])[size] += n
        self.sure[name] += kept + added

    def frame(self, n: int, *, blind: int = 0, failed: int = 0) -> None:
        """Count pictures with something sure in them."""
        self.seen += n - failed
        self.blind += blind
        self.frames["compared"] += n - failed
        self.frames["failed"] += failed

    def outcome(self, outcome: str, n: int, *, among: int = 1) -> None:
        """Count `n` pictures by what became of them, of requests of so many."""
        self.requests[outcome] += n
        if self.squared is not None:
            self.squared[outcome] += n * among

    def answers(self, n: int, *, ms: float = 20.0, among: int = 1, **found: int) -> None:
        """Count `n` pictures that it answered itself, and the objects that it found in them.

        among: of requests of how many.
        """
        self.outcome("ok", n, among=among)
        self.images += n
        self.times[bucket_of(ms / 1000)] += n
        for name, objects in found.items():
            self.objects[name] += objects

    def _offered(self) -> dict[str, float]:
        """Return what callers asked of it, each request 20 ms inside."""
        if not self.tells_load:
            return {}
        offered = sum(self.requests.values())
        return {"offered": offered, "inside_seconds": offered / 50}

    def evidence(self) -> bytes:
        """Return what `GET /evidence` answers."""
        shadow = {
            "frames": self.frames,
            "expected": self.expected,
            "kept": self.kept,
            "confused": self.confused,
            "sure": self.sure,
            "only_stable": self.only_stable,
            "only_canary": self.only_canary,
            "seen": self.seen,
            "blind": self.blind,
            "compute": {arm: {"first": 0, "counts": c} for arm, c in self.compute.items()},
        }
        return json.dumps(
            {
                "format": 1,
                "revision": self.revision,
                "started": self.started,
                "status": "ready",
                "requests": {"request": self.requests},
                "images_squared": self.squared,
                "images": self.images,
                "detections": self.objects,
                "latency": {"request": {"first": 0, "counts": self.times}},
                "load": {"capacity_per_second": self.capacity} | self._offered(),
                "probe": {"sees": self.sees, "blind": 0, "blind_in_a_row": self.blind_in_a_row},
                "golden": self.golden,
                "shadow": {self.compares: shadow} if self.revision != self.compares else {},
            }
        ).encode()

    def as_pod(self) -> Pod:
        """Return what a look gets of it."""
        told: Any = self.answer
        if not isinstance(told, str):
            told = parse(told if told is not None else self.evidence(), revision=self.revision)
        return Pod(self.uid, self.revision, self.ready, told, self.restarts)


@dataclass
class Played:
    """A release: pods, a clock, and whoever judges."""

    analysis: Analysis = field(default_factory=Analysis)
    stable: list[Server] = field(default_factory=lambda: [Server("s1", STABLE)])
    canary: list[Server] = field(default_factory=lambda: [Server("c1", CANARY)])
    now: datetime = START
    status: AnalysisStatus | None = None
    memory: Memory = field(default_factory=Memory)
    arguments: dict[str, Any] = field(default_factory=dict)
    stored: bool = False  # whether the status goes through the API server after each look
    backwards: bool = False  # whether pods are listed the other way round
    last: Look = field(default_factory=Look)

    def look(self) -> AnalysisStatus:
        """Look at the pods once, 10 seconds later."""
        self.now += timedelta(seconds=10)
        pods = [server.as_pod() for server in (*self.stable, *self.canary)]
        pods = pods[::-1] if self.backwards else pods
        against = self.arguments.get("against", STABLE)
        self.memory, self.last = look(self.memory, pods, canary=CANARY, stable=against)
        asked = {"revision": CANARY, "against": STABLE, "stage": Stage.DARK, **self.arguments}
        self.status = judge(self.analysis, self.status, self.last, Standing(**asked), now=self.now)
        if self.stored:
            told = json.loads(json.dumps(self.status.model_dump(mode="json", by_alias=True)))
            self.status = AnalysisStatus.model_validate(told)
        return self.status

    def verdicts(self) -> dict[str, str]:
        """Return what each check says."""
        assert self.status
        return {check.name: str(check.verdict) for check in self.status.checks}
