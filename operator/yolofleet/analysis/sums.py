"""What is counted of a judged release, and what is demanded of each count.

All of it is in the status: whoever goes on from there comes to the same verdicts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import accumulate
from math import ceil
from operator import sub

from yolofleet.analysis.evidence import Histogram, Sizes
from yolofleet.analysis.increments import (
    ERRORS,
    FAULTS,
    MOST_TOGETHER,
    OF_COPIES,
    Answers,
    Failures,
    Look,
    Pairs,
    summed,
)
from yolofleet.analysis.statistics import (
    ALPHA,
    Counts,
    Demand,
    Tally,
    ceiling,
    floor,
    is_slow,
    looked,
    slower_by,
)
from yolofleet.api.analysis import Analysis, AnalysisStatus, ArmName, Confusion, Latencies, Sum
from yolofleet.api.names import shortened

KEPT, SEES_NOTHING, ADDED, COPIES, REQUESTS = "kept", "seesNothing", "added", "copies", "requests"
COPIES_AT_FAULT, REQUESTS_AT_FAULT = "copies at fault", "requests at fault"
"""Of both, what no load excuses: how much of what the revision took up did it fail of itself."""
_AT_FAULT = {COPIES_AT_FAULT: COPIES, REQUESTS_AT_FAULT: REQUESTS}
COMPUTE, LATENCY = "compute", "latency"
SIZES = ("size small", "size medium", "size large")
CLASS = "class "
OTHERS = "other classes"

LEAST_OBJECTS, LEAST_OF_STRATUM, LEAST_FRAMES, LEAST_COPIES, LEAST_REQUESTS = 150, 30, 50, 100, 20
_MOST_CLASSES = 12
_MOST_CONFUSED = 5
_OF_FAILURES = {COPIES, COPIES_AT_FAULT, REQUESTS, REQUESTS_AT_FAULT}
_OF_KNOWN_DESIGN = _OF_FAILURES | {COMPUTE, LATENCY}
_BURSTS = 3.0  # the design effect of errors, which come in bursts
_MOST_EXCUSED = 0.1  # of errors: where stable has more, what has as many is held, and not let pass


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything counted since a revision is judged."""

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    times: Mapping[str, Counts] = field(default_factory=dict)
    confused: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def tally(self, name: str) -> Tally:
        """Return the count of that name."""
        return self.tallies.get(name, Tally())

    def pair(self, name: str) -> tuple[Counts, Counts]:
        """Return how long the answers of the stable and of the judged revision took."""
        none = Histogram().whole()
        return self.times.get(f"{name} stable", none), self.times.get(f"{name} canary", none)

    def classes(self) -> list[str]:
        """Return the names of the counts by class."""
        return [*_classes(self.tallies), *([OTHERS] if OTHERS in self.tallies else [])]

    def sizes(self) -> list[str]:
        """Return the names of the counts by size."""
        return [name for name in SIZES if name in self.tallies]


def demand(name: str, sums: Sums, analysis: Analysis) -> Demand:
    """Return what is demanded of the count of that name."""
    if name == KEPT:
        return Demand(floor(analysis.min_kept), LEAST_OBJECTS)
    if name == SEES_NOTHING:
        return Demand(ceiling(analysis.max_blind), LEAST_FRAMES)
    if name == ADDED:
        return Demand(ceiling(analysis.max_added), LEAST_OBJECTS)
    if name in _OF_FAILURES:
        tally = sums.tally(name)
        of_copies = name in (COPIES, COPIES_AT_FAULT)
        least = LEAST_COPIES if of_copies else ceil(LEAST_REQUESTS * tally.cluster)
        share = max(analysis.max_error_rate, 2 * round(tally.share_beside, 4))
        passes = min(share, max(analysis.max_error_rate, _MOST_EXCUSED))
        design = _BURSTS * tally.cluster
        return Demand(ceiling(share), least, design=design, patient=False, passes=passes)
    names, share = (
        (sums.sizes(), analysis.min_kept_by_size)
        if name in SIZES
        else (sums.classes(), analysis.min_kept_by_class)
    )
    judged = sum(sums.tally(each).n >= LEAST_OF_STRATUM for each in names)
    return Demand(floor(share), LEAST_OF_STRATUM, ALPHA / max(judged, 1))


def plus(sums: Sums, look: Look, analysis: Analysis, *, paired: bool, weight: int | None) -> Sums:
    """Return the sums with what one look adds.

    paired: whether copies count; weight: how many percent of requests it answers itself; None:
    none of these count.
    """
    if paired:
        sums = _plus_pairs(sums, look.pairs, look.stable, analysis)
    if weight is not None:
        sums = _plus_answers(sums, look, analysis, weight)
    return sums


def _plus_pairs(sums: Sums, pairs: Pairs, stable: Answers, analysis: Analysis) -> Sums:
    expected = Counter({name: sum(sizes) for name, sizes in pairs.expected.items()})
    expected.update(pairs.unknown)
    kept = {name: _of(pairs.kept, name, sizes) for name, sizes in pairs.expected.items()}
    known = sum(sum(sizes) for sizes in kept.values())
    more = max(pairs.sure - known, 0)
    found = Counter({name: sum(sizes) for name, sizes in kept.items()})
    sums = _with_first_classes(sums, expected)
    counted = [
        (KEPT, known, expected.total()),
        *_by_size(pairs.expected.values(), kept.values()),
        *_by_class(sums, expected, found),
        (SEES_NOTHING, pairs.blind, pairs.seen),
        (ADDED, more, more + known),
    ]
    sums = _looked(sums, counted, analysis)
    failed, late = pairs.failed, pairs.late
    copies = Failures(failed + late, pairs.compared + failed + late)
    sums = _failures(sums, COPIES, copies, stable.failures(OF_COPIES), analysis)
    copies = Failures(failed, pairs.compared + failed)
    sums = _failures(sums, COPIES_AT_FAULT, copies, stable.failures(OF_COPIES & FAULTS), analysis)
    sums = _with_worse_classes(sums, expected, found, analysis)
    sums = _timed(sums, COMPUTE, pairs.stable_compute, pairs.canary_compute, analysis)
    confused = Counter(sums.confused) + Counter(pairs.confused)
    return replace(sums, confused=dict(_most(confused)))


def _of(kept: Mapping[str, Sizes], name: str, expected: Sizes) -> Sizes:
    """Never more than was expected: pods are not believed."""
    small, medium, large = map(min, kept.get(name, (0, 0, 0)), expected)
    return small, medium, large


def _most(confused: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    shown = Counter[tuple[str, str]]()
    for (name, called), times in confused.items():
        shown[shortened(name, 40), shortened(called, 40)] += times
    ranked = sorted(shown.items(), key=lambda item: (-item[1], item[0]))
    return [item for item in ranked if item[1] > 0][:_MOST_CONFUSED]


def _by_size(expected: Iterable[Sizes], kept: Iterable[Sizes]) -> Iterable[tuple[str, int, int]]:
    all_, found = _added(expected), _added(kept)
    return [(name, k, n) for name, k, n in zip(SIZES, found, all_, strict=True) if n]


def _added(all_: Iterable[Sizes]) -> tuple[int, ...]:
    return tuple(map(sum, zip((0, 0, 0), *all_, strict=True)))


def _by_class(
    sums: Sums, expected: Mapping[str, int], kept: Mapping[str, int]
) -> list[tuple[str, int, int]]:
    counted: dict[str, list[int]] = {}
    for name, n in expected.items():
        own = stratum(name)
        both = counted.setdefault(own if own in sums.tallies else OTHERS, [0, 0])
        both[0] += kept[name]
        both[1] += n
    return [(name, k, n) for name, (k, n) in sorted(counted.items()) if n]


def stratum(name: str) -> str:
    """Return the name of the count of a class."""
    return CLASS + shortened(name, 50)


def _with_first_classes(sums: Sums, expected: Mapping[str, int]) -> Sums:
    """Give the first dozen classes a count of their own."""
    tallies = dict(sums.tallies)
    for name in sorted(expected, key=lambda name: (-expected[name], name)):
        if expected[name] and len(_classes(tallies)) < _MOST_CLASSES:
            tallies.setdefault(stratum(name), Tally())
    return replace(sums, tallies=tallies)


def _with_worse_classes(
    sums: Sums, expected: Mapping[str, int], kept: Mapping[str, int], analysis: Analysis
) -> Sums:
    """Give another class that looks bad the count of one that does not.

    It begins at zero and with the next look: what it was chosen for is no evidence.
    """
    tallies = dict(sums.tallies)
    for name in sorted(expected):
        bad = kept[name] < analysis.min_kept_by_class * expected[name]
        if bad and stratum(name) not in tallies:
            _replace_the_best(tallies, stratum(name), analysis)
    return replace(sums, tallies=tallies)


def _classes(tallies: Mapping[str, Tally]) -> list[str]:
    return [name for name in tallies if name.startswith(CLASS)]


def _replace_the_best(tallies: dict[str, Tally], stratum: str, analysis: Analysis) -> None:
    best = max(_classes(tallies), key=lambda each: (tallies[each].share, each))
    if tallies[best].share <= analysis.min_kept_by_class or max(tallies[best].late) > 0:
        return
    gone, rest = tallies.pop(best), tallies.get(OTHERS, Tally())
    tallies[OTHERS] = replace(
        rest,
        k=rest.k + gone.k,
        n=rest.n + gone.n,
        looks=max(rest.looks, gone.looks),
        kk=rest.kk + gone.kk,
        kn=rest.kn + gone.kn,
        nn=rest.nn + gone.nn,
    )
    tallies[stratum] = Tally()


def _looked(sums: Sums, counted: Iterable[tuple[str, int, int]], analysis: Analysis) -> Sums:
    asked = cache(partial(demand, sums=sums, analysis=analysis))
    tallies = dict(sums.tallies)
    for name, k, n in counted:
        if n > 0:
            tallies[name] = looked(sums.tally(name), k, n, asked(_like(name)))
    return replace(sums, tallies=tallies)


def _failures(sums: Sums, name: str, its: Failures, stable: Failures, analysis: Analysis) -> Sums:
    """Add what failed at one look, beside what did of the stable revision's own requests.

    A fault that begins late is looked for by what that one did since it began, as near as a look
    tells: what both do for a minute is none.
    """
    k, n = its.bad, its.all_
    if n <= 0:
        return sums
    tally = sums.tally(name).compared(n, stable.bad, stable.all_)
    tally = tally.together(k, n, its.together_bad, its.together)
    asked = demand(name, replace(sums, tallies={name: tally.plus(k, n)}), analysis)
    twice = 2 * round(stable.bad / stable.all_, 4) if stable.all_ else 0.0
    asked = replace(asked, lately=ceiling(max(asked.limit.share, twice)))
    return replace(sums, tallies={**sums.tallies, name: looked(tally, k, n, asked)})


def _like(name: str) -> str:
    """Return one name for all counts of which the same is demanded: all sizes, and all classes."""
    if name in SIZES:
        return SIZES[0]
    return OTHERS if name.startswith(CLASS) else name


def _plus_answers(sums: Sums, look: Look, analysis: Analysis, weight: int) -> Sums:
    canary, stable = look.canary, look.stable
    for name, ends in ((REQUESTS, ERRORS), (REQUESTS_AT_FAULT, FAULTS)):
        sums = _failures(sums, name, canary.failures(ends), stable.failures(ends), analysis)
    if sum(canary.latency):
        sums = _thinned(sums, weight)
    times = stable.latency, canary.latency
    return _timed(sums, LATENCY, *times, analysis, canary.together_good)


def _timed(
    sums: Sums,
    name: str,
    stable: Counts,
    canary: Counts,
    analysis: Analysis,
    together: float = 1.0,
) -> Sums:
    """Add times of both arms; the tally of that name counts looks, and those that speak against.

    together: how many answers of the canary's came together with each.
    """
    if not sum(canary):
        return sums
    ours, its = sums.pair(name)
    ours, its = summed(ours, stable), summed(its, canary)
    n = sum(canary)
    tally = sums.tally(name).together(0, n, 0.0, together).plus(0, n)
    slow = is_slow(ours, its, slower_by(analysis.max_p99_ratio), tally.cluster)
    tally = replace(tally, failing=tally.failing + 1 if slow else 0)
    times = {**sums.times, f"{name} stable": ours, f"{name} canary": its}
    return replace(sums, tallies={**sums.tallies, name: tally}, times=times)


def _thinned(sums: Sums, weight: int) -> Sums:
    """Take of stable's times before this step as few as it had answered for each of the canary's.

    Or most of them are of the first step, and a world that got slower since is the canary's fault.
    """
    weight = min(max(weight, 1), 99)
    tally, (ours, _) = sums.tally(LATENCY), sums.pair(LATENCY)
    before = tally.beside[1]  # the largest weight so far
    if weight <= before:
        return sums
    if before:  # else they are the first, or an older operator's
        part = before / (100 - before) * (100 - weight) / weight
        # Rounded are the sums: buckets of a tail, each rounded by itself, may all be lost.
        up_to = [round(part * n) for n in accumulate(ours)]
        ours = tuple(map(sub, up_to, [0, *up_to]))
    tallies = {**sums.tallies, LATENCY: replace(tally, beside=(0, weight))}
    return replace(sums, tallies=tallies, times={**sums.times, f"{LATENCY} stable": ours})


def read(status: AnalysisStatus) -> Sums:
    """Return the sums that a status holds; of those that nobody can read, none."""
    tallies = {each.name: _tally(each) for each in status.sums}
    requests = tallies.get(REQUESTS)
    stable = next((arm for arm in status.arms if arm.name is ArmName.STABLE), None)
    if requests and stable and not any(requests.beside):  # as an older operator sums up
        tallies[REQUESTS] = requests.compared(requests.n, stable.errors, stable.requests)
    for name, all_ in _AT_FAULT.items():  # not there where it is the same; nor by an older operator
        if name not in tallies and all_ in tallies:
            tallies[name] = tallies[all_]
    return Sums(
        tallies=tallies,
        times={
            each.name: Histogram(first=each.first, counts=tuple(each.counts)).whole()
            for each in status.latency
        },
        confused={(each.name, each.called): each.times for each in status.confused},
    )


def _tally(stored: Sum) -> Tally:
    counts = stored.counts + [0] * (10 - len(stored.counts))
    k, n, looks, kk, kn, nn, failing, run, *beside = counts
    known = stored.late or []
    late = tuple(known[:6]) + (0.0,) * (6 - len(known))
    k_beside, n_beside = beside
    whole = 0 <= k <= n and 0 <= looks <= n and (looks or not n) and 0 <= k_beside <= n_beside
    if not whole:  # written by somebody else
        return Tally()
    rest = failing, run, late, (k_beside, n_beside)
    if stored.name in _OF_KNOWN_DESIGN:  # 0 by an older operator: nothing came together
        squared = min(max(kk, k), MOST_TOGETHER * k), min(max(nn, n), MOST_TOGETHER * n)
        return Tally(k, n, looks, 0, 0, 0, *rest, squared)
    return Tally(k, n, looks, kk, kn, nn, *rest)


def written(sums: Sums) -> dict[str, list[Sum] | list[Latencies] | list[Confusion]]:
    """Return the fields of the status that hold them."""
    none = {name: Tally() for name, all_ in _AT_FAULT.items() if all_ in sums.tallies}
    return {
        "sums": [
            _sum(name, tally)
            for name, tally in {**none, **sums.tallies}.items()
            if tally != sums.tallies.get(_AT_FAULT.get(name, ""))
        ],
        "latency": [_latencies(name, counts) for name, counts in sums.times.items()],
        "confused": [
            Confusion(name=name, called=called, times=times)
            for (name, called), times in _most(sums.confused)
        ],
    }


def _sum(name: str, tally: Tally) -> Sum:
    squares = tally.kk, tally.kn, tally.nn
    if name in _OF_KNOWN_DESIGN:
        # Where each came alone, nothing is written.
        squared = tally.squared if tally.squared != (tally.k, tally.n) else (0, 0)
        squares = squared[0], 0, squared[1]
    counts = [tally.k, tally.n, tally.looks, *squares, tally.failing, tally.run, *tally.beside]
    while len(counts) > 1 and not counts[-1]:  # a status is small; what is left out is read as 0
        counts.pop()
    return Sum(name=name, counts=counts, late=list(tally.late) if any(tally.late) else None)


def _latencies(name: str, counts: Counts) -> Latencies:
    used = [bucket for bucket, count in enumerate(counts) if count]
    if not used:
        return Latencies(name=name)
    return Latencies(name=name, first=used[0], counts=list(counts[used[0] : used[-1] + 1]))
