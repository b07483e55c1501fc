"""Evidence that a share is beyond a limit, or within it, however often one looks.

A likelihood ratio is a supermartingale under every share on the good side of the limit, and so is
the mean of six of them: under any such share it ever exceeds 1/alpha with a probability of at most
alpha (Ville). So Fail and Pass may be asked at every look. Frames are not independent: logarithms
are divided by a design effect, measured from look to look; of answers and their times by a fixed
one and by how many pictures came in one request. What begins late is found by a CUSUM of the same
six terms. Sources: Howard, Ramdas, McAuliffe, Sekhon 2021; Kish 1965 (design effect).
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import ceil, exp, log, log2, sqrt
from operator import neg

ALPHA = 1e-4  # of a false alarm, for one check of one release
_PROOF = log(20)  # of a false pass: 0.05; Fail goes on being judged
PASS_LOOKS = 6
_PATIENT_LOOKS = 30  # scenes drift for minutes: what is not gross has to last
_MOST_OF_A_LOOK = 10**6
_PARTS = 1000  # of one: what is weighted is no whole number, and what is stored is one
_LATE_LOOKS = 720  # a fault may begin at any of so many looks, at alpha in all
_PRIOR_DESIGN, _PRIOR_LOOKS, _LEAST_DESIGN = 20.0, 10, 2.0

_SHARES = (0.05, 0.3, 0.6, 0.75, 0.85, 0.93)  # of the floor: what a bad one might keep
_ODDS = (1.25, 1.5, 2.0, 4.0, 10.0, 40.0)  # times those of the ceiling

Weights = tuple[tuple[float, float], ...]
"""Six alternatives; of each, what one counted object adds to the logarithm, and one not counted."""

_SMALLEST, _LARGEST = 1e-4, 0.999


@dataclass(frozen=True, slots=True)
class Limit:
    """What a share is held against, with the terms that prove it beyond and within."""

    share: float
    beyond: Weights
    within: Weights
    gross_at: float
    gross: tuple[int, ...]  # which alternatives are so far off that nobody need wait
    rises: bool  # whether more is worse

    def is_beyond(self, share: float) -> bool:
        """Say whether so many are more than good ones may be, or fewer; no proof of anything."""
        return share > self.share if self.rises else share < self.share

    def is_gross(self, k: int, n: int) -> bool:
        """Say whether `k` of `n` is far beyond."""
        return k > self.gross_at * n if self.rises else k < self.gross_at * n


@lru_cache(maxsize=512)
def floor(share: float) -> Limit:
    """Return the limit that good ones are at least `share` of all."""
    below = tuple((log(a), log((1 - a * share) / (1 - share))) for a in _SHARES)
    above = tuple((log((1 - a * (1 - share)) / share), log(a)) for a in _SHARES)
    return Limit(share, below, above, 0.7 * share, (0, 1, 2), rises=False)


@lru_cache(maxsize=512)
def ceiling(share: float) -> Limit:
    """Return the limit that bad ones are at most `share` of all."""
    share = min(max(share, _SMALLEST), _LARGEST)
    above = tuple(_at_odds(share, odds) for odds in _ODDS)
    below = tuple(_at_odds(share, 1 / odds) for odds in _ODDS)
    twice = 2 * share / (1 + share)
    return Limit(share, above, below, twice, (2, 3, 4, 5), rises=True)


def _at_odds(share: float, times: float) -> tuple[float, float]:
    odds = times * share / (1 - share)
    other = odds / (1 + odds)
    return log(other / share), log((1 - other) / (1 - share))


def mean_evidence(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of e-values, of which `logs` are the logarithms."""
    top = max(logs)
    return top + log(sum([exp(one - top) for one in logs]) / len(logs))


def _terms(k: int, n: int, weights: Weights, design: float) -> list[float]:
    return [(k * hit + (n - k) * miss) / design for hit, miss in weights]


def evidence(k: int, n: int, weights: Weights, design: float) -> float:
    """Return the logarithm of the e-value that `k` of `n` are."""
    return mean_evidence(_terms(k, n, weights, design))


@dataclass(frozen=True, slots=True)
class Tally:
    """All that is remembered of the looks at one share: `k` counted ones of `n`."""

    k: int = 0
    n: int = 0
    looks: int = 0  # at which there was something to count
    kk: int = 0
    kn: int = 0
    nn: int = 0
    failing: int = 0  # looks in a row that would have it fail
    run: int = 0  # looks since it was last as good as the limit
    late: tuple[float, ...] = (0.0,) * 6
    # Of the stable revision in the same looks, each of which weighs as it does here; in thousandths
    # of one counted here.
    beside: tuple[int, int] = (0, 0)
    # Of those counted in `k` and in `n`, how many came together with each, added up; see `cluster`.
    squared: tuple[int, int] = (0, 0)

    def plus(self, k: int, n: int) -> "Tally":
        """Return it with what one look counted, and no judgement.

        Of more than a million in one look, a million in that proportion: pods are not believed,
        and squares that do not fit into 64 bits would have the whole status refused.
        """
        n, k = max(n, 0), min(max(k, 0), n)
        if n > _MOST_OF_A_LOOK:
            n, k = _MOST_OF_A_LOOK, k * _MOST_OF_A_LOOK // n
        return Tally(  # not `replace`, which takes twice as long: 20 counts are added at each look
            self.k + k,
            self.n + n,
            self.looks + 1,
            self.kk + k * k,
            self.kn + k * n,
            self.nn + n * n,
            self.failing,
            self.run,
            self.late,
            self.beside,
            self.squared,
        )

    def together(self, k: int, n: int, of_bad: float, of_all: float) -> "Tally":
        """Return it with how many came together with each at a look that adds `k` of `n`."""
        bad, all_ = self.squared
        part = min(_MOST_OF_A_LOOK / n, 1.0) if n > 0 else 0.0
        return replace(
            self, squared=(bad + round(part * k * of_bad), all_ + round(part * n * of_all))
        )

    @property
    def cluster(self) -> float:
        """By how much one tells less than it would if each had come alone: they fail together.

        Kish's design effect of clusters of m that are all alike: the sum of m^2 over that of m.
        That of those that failed, if they came in larger ones: a large one among many small ones is
        one failure, whatever all others are.
        """
        bad, all_ = self.squared
        return max(1.0, all_ / max(self.n, 1), bad / max(self.k, 1))

    def compared(self, n: int, k_stable: int, n_stable: int) -> "Tally":
        """Return it with what the stable revision counted at a look that adds `n` here.

        Summed up as it is, a world that got worse while the weight grew would be the canary's fault
        (Simpson's paradox): most of its answers are of that time, and least of the stable one's.
        """
        if not n_stable:
            return self
        k, all_ = self.beside
        n = min(n, _MOST_OF_A_LOOK)
        bad = round(_PARTS * n * min(k_stable / n_stable, 1.0))
        return replace(self, beside=(k + bad, all_ + _PARTS * n))

    @property
    def share_beside(self) -> float:
        """The stable revision's share in the same looks."""
        return self.beside[0] / self.beside[1] if self.beside[1] else 0.0

    @property
    def share(self) -> float:
        """The share of counted ones."""
        return self.k / self.n if self.n else 0.0

    def design(self) -> float:
        """Return by how much a frame tells less than it would if all were independent.

        Batch means: each look is a batch. Few looks know little, so a guess counts for ten of them.
        """
        if not self.n:
            return _PRIOR_DESIGN
        p = (self.k + 1) / (self.n + 2)
        squares = self.kk - 2 * p * self.kn + p * p * self.nn
        measured = squares / (max(p * (1 - p), 0.01) * self.n / self.looks)
        total = _PRIOR_LOOKS * _PRIOR_DESIGN + max(measured, 0.0)
        return max(_LEAST_DESIGN, total / (_PRIOR_LOOKS + self.looks))


@dataclass(frozen=True, slots=True)
class Demand:
    """What is demanded of a share, and how sure one has to be."""

    limit: Limit
    least: int  # objects, pictures or requests before anything is said
    alpha: float = ALPHA
    design: float | None = None  # None: it is measured
    patient: bool = True  # whether what is not gross has to last
    lately: Limit | None = None  # what the last look is held against; None: the limit
    passes: float | None = None  # the share to be proved; None: the limit

    def design_of(self, tally: Tally) -> float:
        """Return the design effect to reckon with."""
        return tally.design() if self.design is None else self.design


def looked(tally: Tally, k: int, n: int, demand: Demand) -> Tally:
    """Return `tally` with what one more look counted: `k` of `n`. None at all is no look."""
    if n <= 0:
        return tally
    now = tally.plus(k, n)
    design = demand.design_of(now)
    beyond = (demand.lately or demand.limit).beyond
    more = _terms(now.k - tally.k, now.n - tally.n, beyond, design)
    late = [max(0.0, before) + one for before, one in zip(tally.late, more, strict=True)]
    run = now.run + 1 if max(late) > 0 else 0
    fails = now.n >= demand.least and (
        _fails(now, design, demand) or _fails_lately(late, run, now.looks, demand)
    )
    # As it is stored, so that whoever goes on from the status comes to the same.
    stored = tuple([round(min(max(0.0, one), 1e6), 2) for one in late])
    failing = now.failing + 1 if fails else 0
    counted = now.k, now.n, now.looks, now.kk, now.kn, now.nn
    return Tally(*counted, failing, run, stored, now.beside, now.squared)


def _fails(tally: Tally, design: float, demand: Demand) -> bool:
    lasts = not demand.patient or tally.looks >= _PATIENT_LOOKS
    if not lasts and not demand.limit.is_gross(tally.k, tally.n):
        return False
    found = evidence(tally.k, tally.n, demand.limit.beyond, design)
    return found >= log(2 / demand.alpha)


def _fails_lately(late: Sequence[float], run: int, looks: int, demand: Demand) -> bool:
    gross = late.index(max(late)) in demand.limit.gross
    if demand.patient and run < _PATIENT_LOOKS and not gross:
        return False
    return mean_evidence(late) >= _late_threshold(looks, demand)


def _late_threshold(looks: int, demand: Demand) -> float:
    return log(2 * max(_LATE_LOOKS, looks) / demand.alpha)


def has_failed(tally: Tally) -> bool:
    """Say whether it is proved to be beyond the limit: in two looks running."""
    return tally.failing >= 2


def turned_bad(tally: Tally, demand: Demand) -> bool:
    """Say whether it failed by the last looks alone: all of them together do not prove it."""
    return has_failed(tally) and not _fails(tally, demand.design_of(tally), demand)


def has_passed(tally: Tally, demand: Demand, limit: Limit | None = None) -> bool:
    """Say whether it is proved to be within the limit, and nothing speaks against it lately.

    limit: another one to prove than that which it fails by.
    """
    if tally.n < demand.least or tally.looks < PASS_LOOKS or tally.failing:
        return False
    if mean_evidence(tally.late) >= _late_threshold(tally.looks, demand):
        return False
    design = demand.design_of(tally)
    return evidence(tally.k, tally.n, (limit or demand.limit).within, design) >= _PROOF


# Latency: no quantile is ever estimated to decide. Whole histograms are compared, one of them moved
# by whole buckets.

BUCKETS = 99
FACTOR = 1.1
_QUANTILES = (0.5, 0.9, 0.99)
_LATENCY_DESIGN = 4.0
LATENCY_LEAST = 100

Counts = tuple[int, ...]
"""Answers by bucket: bucket i holds those that took up to 1.1^i ms; the last one all others."""


def slower_by(ratio: float) -> int:
    """Return in how many buckets a ratio is contained."""
    return max(1, next(j for j in range(BUCKETS) if FACTOR**j >= ratio - 1e-9))


def _beyond(counts: Counts, bucket: int) -> int:
    return sum(counts[bucket + 1 :])


def _places(stable: Counts, all_: int, design: float) -> Iterable[tuple[int, float, float]]:
    """Of each quantile: its bucket, and the least and the largest share that may be beyond it.

    Of buckets that are as near one with less beyond it: where all answers are in one bucket, that.
    One that is clearly past the quantile, with next to nothing beyond, may have as much as that.
    """
    beyond = [all_ - up_to for up_to in accumulate(stable)]
    for quantile in _QUANTILES:
        share = 1 - quantile
        bucket = _nearest(beyond, share * all_)
        above = beyond[bucket]
        noise = (design * above) ** 0.5
        least, most = (above - noise) / all_, (above + 3 * noise + 3) / (all_ + 6)
        yield bucket, share if most <= share else least, max(most, share)


def _nearest(beyond: Sequence[int], aim: float) -> int:
    """Return the first of those buckets beyond which are nearest to so many; rather fewer."""
    few = bisect_left(beyond, -aim, hi=BUCKETS - 1, key=neg)
    if few == BUCKETS - 1 or (few and beyond[few - 1] - aim < aim - beyond[few]):
        few = bisect_left(beyond, -beyond[few - 1], hi=few - 1, key=neg)
    return few


def latency_least(cluster: float) -> int:
    """Return of how many answers anything is said, where so many come together."""
    return ceil(LATENCY_LEAST * cluster)


def slowness(stable: Counts, canary: Counts, buckets: int, cluster: float = 1.0) -> float:
    """Return the evidence that the canary is slower by more than so many buckets.

    cluster: how many answers came together with each, and so took as long.
    """
    ns, n, design = sum(stable), sum(canary), _LATENCY_DESIGN * cluster
    if not ns or not n:
        return 0.0
    logs = []
    for bucket, _, at_most in _places(stable, ns, design):
        if at_most >= _LARGEST:  # nothing can be more
            logs.append(0.0)
            continue
        k = _beyond(canary, min(bucket + buckets, BUCKETS - 2))
        logs.append(evidence(k, n, ceiling(round(at_most, 4)).beyond, design))
    return mean_evidence(logs)


def is_slow(stable: Counts, canary: Counts, buckets: int, cluster: float = 1.0) -> bool:
    """Say whether this look would have it fail."""
    if sum(canary) < latency_least(cluster):
        return False
    return slowness(stable, canary, buckets, cluster) >= log(1 / ALPHA)


def is_in_time(
    stable: Counts, canary: Counts, buckets: int, stake: float = 1.0, cluster: float = 1.0
) -> bool:
    """Say whether it is proved at P50, P90 and P99 that it is slower by no more than so much.

    stake: how many times more of its own answers may be late, as it answers but a part of all.
    """
    ns, n = sum(stable), sum(canary)
    least, design = latency_least(cluster), _LATENCY_DESIGN * cluster
    if n < least or ns < least:
        return False
    for bucket, share, _ in _places(stable, ns, design):
        at_least = share * stake
        if at_least >= 0.9:
            continue  # even if nearly all of its answers were later, all together were in time
        k = _beyond(canary, min(bucket + buckets, BUCKETS - 2))
        within = ceiling(round(max(at_least, _SMALLEST), 4)).within
        if evidence(k, n, within, design) < _PROOF:
            return False
    return True


def quantile_ms(counts: Counts, quantile: float) -> float:
    """Return the upper edge of the bucket in which the quantile is, in milliseconds: to be told."""
    aim, seen = quantile * sum(counts), 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= aim and seen:
            return float(FACTOR**bucket)
    return 0.0


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon distance of two mixes, to base 2: from 0, alike, to 1.

    Source: Endres, Schindelin 2003, "A new metric for probability distributions".
    """
    n, m = sum(one.values()), sum(other.values())
    if not n or not m:
        return 0.0
    divergence = 0.0
    for name in one.keys() | other.keys():
        p, q = one.get(name, 0) / n, other.get(name, 0) / m
        middle = (p + q) / 2
        divergence += sum(share * log2(share / middle) / 2 for share in (p, q) if share)
    return sqrt(max(divergence, 0.0))
