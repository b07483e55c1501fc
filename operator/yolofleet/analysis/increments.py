"""What one look adds: differences of the counters that pods have published, look by look.

Only what both revisions showed in the same look counts. A pod seen for the first time shows where
its counters stand, and adds nothing: whoever looked before may have counted all that. No clock is
asked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from yolofleet.analysis.evidence import Evidence, Golden, Histogram, Shadow, Sizes
from yolofleet.api.typed import mere_words

MOST_TOGETHER = 1024  # pictures in one request: no server takes more
_MOST = 10**9  # of anything that one pod counts between two looks
FAULTS = frozenset({"internal", "blind", "keys_unavailable"})
"""Of a pod's outcomes, those that its revision answers for whatever it is asked, and how often."""
ERRORS = FAULTS | {"overloaded", "deadline_exceeded"}
"""And those that one caller may bring about. `fetches_full` is no model's fault."""
OF_COPIES = ERRORS - {"overloaded", "keys_unavailable"}
"""Those of which a copy fails, too: it shows a key of its own, and is dropped where pods are busy.
"""

_NO_TIMES = Histogram().whole()
_NOTHING = Shadow()


OLDEST_S = 120.0
"""What was scraped longer ago says nothing of now."""

_SAME = (
    f"is in Prometheus by one and the same scrape for more than {OLDEST_S:.0f} s: is it scraped"
    " once a minute, and is what answers no cache?"
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """By which of Prometheus' scrapes something came. counted: the sum of all counters."""

    at: float
    counted: int

    def is_no_later_than(self, seen: "Scrape") -> bool:
        """Say whether it adds nothing to what was `seen` of the same process.

        Of two Prometheus one may be behind; the clock of neither is asked, unless one stays behind.
        """
        behind = self.counted < seen.counted and self.at < seen.at + OLDEST_S
        return self.at == seen.at or behind


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a judged release, as it is at this look.

    told: what it answered; words, when that was no evidence; None, when it was not asked.
    restarts: how often kubelet restarted its container. scrape: None, when it was asked itself.
    """

    uid: str
    revision: str
    ready: bool
    evidence: Evidence | str | None = None
    restarts: int = 0
    scrape: Scrape | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pod answered last, and at which look."""

    look: int
    evidence: Evidence | None
    restarts: int
    scrape: Scrape | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The raw values by pod. It is never stored: who begins without it begins with baselines."""

    looks: int = 0
    pods: Mapping[str, Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failures:
    """How many of some pictures failed.

    together_bad, together: how many pictures the request of each had, of those that failed and of
    all, on average over pictures: of requests of sixteen, sixteen; 1 where no server tells so.
    """

    bad: int
    all_: int
    together_bad: float = 1.0
    together: float = 1.0


@dataclass(frozen=True, slots=True)
class Answers:
    """How requests went that a revision answered itself; what is counted is pictures.

    errors: by outcome. squared: of pictures by outcome, how many their requests have, added up.
    """

    good: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    latency: tuple[int, ...] = _NO_TIMES
    images: int = 0
    objects: Mapping[str, int] = field(default_factory=dict)
    squared: Mapping[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        """How many failed, however they did."""
        return sum(self.errors.values())

    @property
    def together_good(self) -> float:
        """How many pictures came with each that was answered, itself included, on average."""
        return self.squared.get("ok", self.good) / self.good if self.good else 1.0

    def failures(self, outcomes: Set[str]) -> Failures:
        """Return how many ended so, of these and of those that were answered."""
        counted = {name: n for name, n in self.errors.items() if name in outcomes}
        bad = sum(counted.values())
        all_ = self.good + bad
        squared = sum(self.squared.get(name, n) for name, n in counted.items())
        squared_all = squared + self.squared.get("ok", self.good)
        return Failures(
            bad, all_, squared / bad if bad else 1.0, squared_all / all_ if all_ else 1.0
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """How two answers to the same picture compare, by what the stable revision found."""

    compared: int = 0
    failed: int = 0
    late: int = 0
    expected: Mapping[str, Sizes] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)  # expected, but of no class it has
    kept: Mapping[str, Sizes] = field(default_factory=dict)
    confused: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sure: int = 0
    seen: int = 0
    blind: int = 0
    stable_compute: tuple[int, ...] = _NO_TIMES
    canary_compute: tuple[int, ...] = _NO_TIMES


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the pods of a release showed.

    unreadable: why too few could be read, in words. waiting: whose pods there are none of.
    left_out: why most pictures were not compared. unknown: what the stable one is sure of, since
    its pods began, of classes that the judged one does not have. probed: whether any looked at its
    own picture; None: none said. restarts: how often each pod did, by uid; those that did not are
    left out. golden: of one pod each that is furthest; of the stable revision, of the same set.
    capacity: how many pictures a second a pod of the judged revision can carry, by the one that
    carries least.
    """

    canary: Answers = Answers()
    stable: Answers = Answers()
    pairs: Pairs = Pairs()
    golden: Golden | None = None
    golden_stable: Golden | None = None
    probed: bool | None = None
    blind_in_a_row: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    unreadable: str = ""
    waiting: str = ""
    left_out: str = ""
    unknown: Mapping[str, int] = field(default_factory=dict)
    capacity: float | None = None


def is_repeated(memory: Memory, pods: Iterable[Pod]) -> bool:
    """Say whether a pod was not scraped since the last look: then there is nothing to look at yet.

    Pods are scraped one after the other, and what counts is what all showed meanwhile.
    """
    return any(_repeats(pod, memory.pods.get(pod.uid)) for pod in pods if pod.ready)


def without_repeated(memory: Memory, pods: Iterable[Pod]) -> list[Pod]:
    """Return `pods`, of which those that answered the same for too long answered nothing.

    That is no question of when they were scraped, which is what a cached answer lies about.
    """
    return [
        replace(pod, evidence=_SAME) if _repeats(pod, memory.pods.get(pod.uid)) else pod
        for pod in pods
    ]


def _repeats(pod: Pod, seen: Seen | None) -> bool:
    if not (
        isinstance(pod.evidence, Evidence) and pod.scrape and seen and seen.evidence and seen.scrape
    ):
        return False
    if pod.evidence.started != seen.evidence.started:  # of the process before, or of the one after
        return pod.evidence.started < seen.evidence.started and pod.scrape.at <= seen.scrape.at
    return pod.scrape.is_no_later_than(seen.scrape)


def look(memory: Memory, pods: Iterable[Pod], *, canary: str, stable: str) -> tuple[Memory, Look]:
    """Return what `pods` show now beyond what `memory` holds, and what to remember.

    stable: empty where there is none to compare with.
    """
    known = sorted({pod.uid: pod for pod in pods}.values(), key=lambda pod: pod.uid)
    mine = [pod for pod in known if pod.revision == canary]
    others = [pod for pod in known if stable and pod.revision == stable]
    arms = [(canary, mine), *([(stable, others)] if stable else [])]
    unreadable = next(filter(None, (_unreadable(*arm) for arm in arms)), "")
    waiting = next((name for name, arm in arms if not any(pod.ready for pod in arm)), "")
    number = memory.looks + 1
    bare = Look(
        golden=_furthest(mine),
        golden_stable=_furthest(others),
        probed=_probed(mine),
        blind_in_a_row=max(
            (evidence.probe.blind_in_a_row for _, evidence in _readable(mine) if evidence.probe),
            default=0,
        ),
        restarts={
            pod.uid: often for pod in mine if (often := _restarts(pod, memory.pods.get(pod.uid)))
        },
        unreadable=unreadable,
        waiting=f"no pod of {waiting} is ready" if waiting else "",
        capacity=_least_capacity(mine),
    )
    if unreadable or waiting:
        kept = {pod.uid: _unread(pod, memory.pods.get(pod.uid)) for pod in (*mine, *others)}
        return Memory(number, kept), bare
    return (
        Memory(number, {pod.uid: _read(pod, memory, number) for pod in (*mine, *others)}),
        replace(
            bare,
            canary=_answers(mine, memory),
            stable=_answers(others, memory),
            pairs=_pairs(others, memory, canary),
            left_out=_left_out(others, canary),
            unknown=_unknown(others, canary),
        ),
    )


def _readable(pods: Iterable[Pod]) -> list[tuple[Pod, Evidence]]:
    return [(pod, pod.evidence) for pod in pods if pod.ready and isinstance(pod.evidence, Evidence)]


def _unreadable(name: str, pods: list[Pod]) -> str:
    """Say why fewer than half of the ready ones of a revision were read."""
    ready = [pod for pod in pods if pod.ready]
    read = len(_readable(ready))
    if 2 * read >= len(ready):
        return ""
    why = next((pod.evidence for pod in ready if isinstance(pod.evidence, str)), "was not asked")
    return f"{read} of {len(ready)} ready pods of {name} could be read: one {mere_words(why)}"


def _unread(pod: Pod, seen: Seen | None) -> Seen:
    """Keep what was known: what pods count meanwhile is not lost."""
    return replace(seen, restarts=pod.restarts) if seen else Seen(0, None, pod.restarts)


def _read(pod: Pod, memory: Memory, number: int) -> Seen:
    if pod.ready and isinstance(pod.evidence, Evidence):
        return Seen(number, pod.evidence, pod.restarts, pod.scrape)
    return _unread(pod, memory.pods.get(pod.uid))


def _restarts(pod: Pod, seen: Seen | None) -> int:
    """Count by kubelet's word alone: a process that began anew tells so a look later, again."""
    return max(pod.restarts - seen.restarts, 0) if seen else 0


def _probed(pods: list[Pod]) -> bool | None:
    looks = [
        evidence.probe.sees + evidence.probe.blind
        for _, evidence in _readable(pods)
        if evidence.probe
    ]
    return any(looks) if looks else None


def _least_capacity(pods: list[Pod]) -> float | None:
    capacities = (evidence.load.capacity_per_second for _, evidence in _readable(pods))
    return min(filter(None, capacities), default=None)


def _furthest(pods: list[Pod]) -> Golden | None:
    results = [evidence.golden for _, evidence in _readable(pods) if evidence.golden]
    done = [golden for golden in results if golden.state == "done" and golden.map50 is not None]
    if done:  # the same model, the same pictures: were they to differ, the worst would count
        return min(done, key=lambda golden: golden.map50 or 0.0)
    return results[0] if results else None


def _before(now: Evidence, seen: Seen) -> Evidence | None:
    """Return what to subtract; None after a restart: counters began anew."""
    return seen.evidence if seen.evidence and seen.evidence.started == now.started else None


def _more(now: int, before: int) -> int:
    """Return what was added; no more than any pod could, or sums of it would fit in no status."""
    return min(now - before if now >= before else now, _MOST)


def _more_by_bucket(now: Histogram, before: Histogram) -> tuple[int, ...]:
    return tuple(map(_more, now.whole(), before.whole()))


def summed(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Return the counts of both, bucket by bucket."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _answers(pods: list[Pod], memory: Memory) -> Answers:
    """Sum up what they answered since the last look.

    A pod that was not read then is passed over: what it tells is of another time than the others.
    """
    good = images = 0
    latency = _NO_TIMES
    objects, errors, squared = Counter[str](), Counter[str](), Counter[str]()
    for pod, now in _readable(pods):
        seen = memory.pods.get(pod.uid)
        if seen is None or seen.look != memory.looks or not seen.evidence:
            continue
        before = _before(now, seen)
        old = before.of_requests() if before else {}
        new = {name: _more(count, old.get(name, 0)) for name, count in now.of_requests().items()}
        good += new.get("ok", 0)
        errors.update({name: n for name, n in new.items() if name in ERRORS})
        squared.update(_more_squared(now, before, new))
        times = before.latency.get("request", Histogram()) if before else Histogram()
        latency = summed(latency, _more_by_bucket(now.latency.get("request", Histogram()), times))
        images += _more(now.images, before.images if before else 0)
        counted = before.detections if before else {}
        for name, count in now.detections.items():
            objects[name] += _more(count, counted.get(name, 0))
    return Answers(good, errors, latency, images, objects, squared)


def _more_squared(now: Evidence, before: Evidence | None, new: Mapping[str, int]) -> dict[str, int]:
    """Return what `new` pictures add of how many their requests have: 1 each, if it is not told.

    No less than that, and no more than any server takes in one request: pods are not believed.
    """
    told = now.images_squared or {}
    old = (before.images_squared if before else None) or {}
    return {
        name: min(max(_more(told.get(name, 0), old.get(name, 0)), n), MOST_TOGETHER * n)
        for name, n in new.items()
    }


def _pairs(pods: list[Pod], memory: Memory, canary: str) -> Pairs:
    """Sum up what they compared; each pair was seen by one process, so no pod waits for another."""
    sums = Pairs()
    for pod, now in _readable(pods):
        seen = memory.pods.get(pod.uid)
        sent = now.shadow.get(canary)
        if seen is None or not seen.evidence or sent is None:
            continue
        before = _before(now, seen)
        old = before.shadow.get(canary, _NOTHING) if before else _NOTHING
        sums = _plus(sums, sent, old)
    return sums


def _plus(sums: Pairs, now: Shadow, old: Shadow) -> Pairs:
    return Pairs(
        compared=sums.compared + _more(now.frames.compared, old.frames.compared),
        failed=sums.failed + _more(now.frames.failed, old.frames.failed),
        late=sums.late + _more(now.frames.late, old.frames.late),
        expected=_sized(sums.expected, now.expected, old.expected),
        unknown=Counter(sums.unknown) + _by_class(now.only_stable, old.only_stable),
        kept=_sized(sums.kept, now.kept, old.kept),
        confused=_confused(sums.confused, now, old),
        sure=sums.sure
        + _by_class(now.sure, old.sure).total()
        + _by_class(now.only_canary, old.only_canary).total(),
        seen=sums.seen + _more(now.seen, old.seen),
        blind=sums.blind + _more(now.blind, old.blind),
        stable_compute=summed(
            sums.stable_compute, _more_by_bucket(now.compute.stable, old.compute.stable)
        ),
        canary_compute=summed(
            sums.canary_compute, _more_by_bucket(now.compute.canary, old.compute.canary)
        ),
    )


_WHY_NOT: Mapping[str, str] = {
    "unreachable": "its pods cannot be reached, or do not take the shadow's key",
    "skipped_options": "requests have options of their own",
    "skipped_size": "they are larger than 8 MiB, or have too many boxes",
    "skipped_rate": "its pods are shown no more a second",
    "skipped_busy": "pods are busy",
    "skipped_repeated": "they came before, byte for byte",
}


def _left_out(pods: list[Pod], canary: str) -> str:
    """Say why most pictures were not compared, since these pods began; empty where they were."""
    shadows = [evidence.shadow.get(canary, _NOTHING) for _, evidence in _readable(pods)]
    counts = {why: sum(getattr(shadow.frames, why) for shadow in shadows) for why in _WHY_NOT}
    most = max(counts, key=lambda why: counts[why])
    if counts[most] <= sum(shadow.frames.compared for shadow in shadows):
        return ""
    return f"{counts[most]:,} pictures were not compared: {_WHY_NOT[most]}"


def _unknown(pods: list[Pod], canary: str) -> Mapping[str, int]:
    shadows = (evidence.shadow.get(canary, _NOTHING) for _, evidence in _readable(pods))
    return sum((Counter(shadow.only_stable) for shadow in shadows), Counter[str]())


def _by_class(now: Mapping[str, int], old: Mapping[str, int]) -> Counter[str]:
    return Counter({name: _more(n, old.get(name, 0)) for name, n in now.items()})


def _sized(
    sums: Mapping[str, Sizes], now: Mapping[str, Sizes], old: Mapping[str, Sizes]
) -> dict[str, Sizes]:
    added = dict(sums)
    for name, sizes in now.items():
        before, so_far = old.get(name, (0, 0, 0)), added.get(name, (0, 0, 0))
        small, medium, large = map(_more, sizes, before)
        added[name] = (so_far[0] + small, so_far[1] + medium, so_far[2] + large)
    return added


def _confused(
    sums: Mapping[tuple[str, str], int], now: Shadow, old: Shadow
) -> Counter[tuple[str, str]]:
    counted = Counter(sums)
    for name, others in now.confused.items():
        for called, times in others.items():
            counted[name, called] += _more(times, old.confused.get(name, {}).get(called, 0))
    return counted
