"""The checks, each of which says what was measured, against which limit, and what is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from yolofleet.analysis.arms import (
    CLASS_SHIFT,
    LEAST_OBJECTS,
    LOOKS,
    are_enough,
    objects,
    shift,
)
from yolofleet.analysis.evidence import Golden
from yolofleet.analysis.statistics import (
    FACTOR,
    PASS_LOOKS,
    Demand,
    Tally,
    ceiling,
    has_failed,
    has_passed,
    is_in_time,
    latency_least,
    quantile_ms,
    slower_by,
    turned_bad,
)
from yolofleet.analysis.sums import (
    ADDED,
    CLASS,
    COMPUTE,
    COPIES,
    COPIES_AT_FAULT,
    KEPT,
    LATENCY,
    LEAST_COPIES,
    LEAST_OF_STRATUM,
    REQUESTS,
    REQUESTS_AT_FAULT,
    SEES_NOTHING,
    Sums,
    demand,
    stratum,
)
from yolofleet.api.analysis import Analysis, Arm, ArmName, GoldenResult, Verdict
from yolofleet.api.names import shortened

_BLIND_LOOKS = 3
RESTARTS = 2  # of one pod: one of each of two is a node that was drained, or one out of memory
_HOLDS_FROM = 0.05  # the share of all objects from which a class or size has to be proved


@dataclass(frozen=True, slots=True)
class Case:
    """What there is to judge by.

    looks: how often it was looked at. golden, golden_stable: how far the run over the known
    pictures is, where one is asked for. untried: why its pods have not the set that is asked for.
    probed: whether they looked at their own picture; None: none told. unpaired: why no copies are
    compared; left_out: why most are not; unknown: objects of classes that it does not have, as the
    stable revision's pods count them; unreadable: why nothing was read at this look.
    stake: how much more of its own answers may be bad than of all, as it answers but a part.
    mute: why its pods tell nothing. incomparable: why its own answers are no match for the stable
    revision's; unlike: why the pictures are none in which it found things. restarts: the most of
    one pod lately. arms: what each answered itself.
    """

    analysis: Analysis
    sums: Sums
    against: str
    looks: int
    live: bool
    stake: float
    golden: Golden | None
    golden_stable: Golden | None
    result: GoldenResult | None
    probed: bool | None
    untried: str
    blind_in_a_row: int
    restarts: int
    unpaired: str
    incomparable: str
    unlike: str
    mute: str
    unreadable: str
    left_out: str
    unknown: Mapping[str, int]
    arms: Sequence[Arm]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of a case."""

    verdict: Verdict
    message: str
    value: float | None = None
    limit: float | None = None
    n: int = 0


def golden(case: Case) -> Finding:
    """Does it find the objects that are known to be there?"""
    asked = case.analysis.golden
    if asked is None:
        return Finding(Verdict.NOT_JUDGED, "no set is named in spec.rollout.analysis.golden")
    if case.untried:
        return Finding(Verdict.NOT_JUDGED, case.untried)
    result = case.result
    if result is None:
        run = case.golden
        if run is not None and run.state == "failed":
            return Finding(Verdict.ERROR, f"its set cannot be used: {run.message}")
        return Finding(Verdict.INCONCLUSIVE, "the run over the known pictures is not over yet")
    floors = [asked.min_map50] if asked.min_map50 is not None else []
    if result.against is not None:
        floors.append(result.against - asked.max_drop)
    elif case.golden_stable and case.golden_stable.state not in ("done", "failed"):
        return Finding(Verdict.INCONCLUSIVE, f"the run of {case.against} is not over yet")
    measured = f"mAP50 is {result.map50:.3f} on {result.images} known pictures"
    if not floors:
        message = f"{measured}, and nothing says what it should be: give golden.minMAP50"
        return Finding(Verdict.NOT_JUDGED, message, result.map50, n=result.images)
    limit = max(floors)
    beside = f"; {case.against} has {result.against:.3f}" if result.against is not None else ""
    return Finding(
        Verdict.PASS if result.map50 >= limit else Verdict.FAIL,
        f"{measured} (at least {limit:.3f}{beside})",
        result.map50,
        limit,
        result.images,
    )


def probe(case: Case) -> Finding:
    """Does it go on seeing, and running?"""
    if case.blind_in_a_row >= _BLIND_LOOKS:
        message = f"is blind to its own picture, {case.blind_in_a_row} times in a row"
        return Finding(Verdict.FAIL, message, case.blind_in_a_row, _BLIND_LOOKS)
    if case.restarts >= RESTARTS:
        message = f"one pod of it restarted {case.restarts} times in 10 minutes"
        return Finding(Verdict.FAIL, message, case.restarts, RESTARTS)
    if case.probed is None:
        return Finding(Verdict.INCONCLUSIVE, "no pod of it told yet whether it sees")
    if not case.against and case.looks < PASS_LOOKS:  # nothing else keeps it from passing at once
        return Finding(
            Verdict.INCONCLUSIVE, f"{case.looks} of {PASS_LOOKS} looks at it", n=case.looks
        )
    if not case.probed:
        message = "no pod of it looked at its own picture yet; with an interval of 0 none ever does"
        return Finding(Verdict.NOT_JUDGED, message)
    return Finding(Verdict.PASS, "sees its own picture, and does not restart")


def kept(case: Case) -> Finding:
    """Does it find what the stable revision is sure of?"""
    tally, asked = case.sums.tally(KEPT), demand(KEPT, case.sums, case.analysis)
    finding = _of_share(
        tally, asked, f"keeps {tally.share:.2f} of what {case.against} is sure of", "objects"
    )
    if case.unknown:
        finding = replace(finding, message=f"{finding.message}; {_unknown(case.unknown)}")
    if tally.n < asked.least and not case.left_out and (lacks := _too_little_sure(case)):
        finding = replace(finding, message=f"{finding.message}; {lacks}")
    return _of_copies(case, finding)


def _of_copies(case: Case, finding: Finding) -> Finding:
    """Say also why most pictures are not compared, where more of them may be what it waits for."""
    if finding.verdict is not Verdict.INCONCLUSIVE or not case.left_out:
        return finding
    return replace(finding, message=f"{finding.message}; {case.left_out}")


def _too_little_sure(case: Case) -> str:
    """Say so where the stable revision is sure of something in few of the pictures: it may last."""
    copies, seen = case.sums.tally(COPIES), case.sums.tally(SEES_NOTHING).n
    compared = copies.n - copies.k
    if compared < LEAST_COPIES or seen * 10 >= compared:
        return ""
    return (
        f"{case.against} is sure of something in {seen:,} of {compared:,} pictures: either little"
        " comes by, or what does scores too near to its inference.confidence"
    )


def _unknown(classes: Mapping[str, int]) -> str:
    names = sorted(classes, key=lambda name: (-classes[name], name))
    named = ", ".join(shortened(name, 20) for name in names[:3]) + ", …" * (len(names) > 3)
    return f"it has no class {named} ({sum(classes.values()):,})"


def kept_by_class(case: Case) -> Finding:
    """Does it, for each class?"""
    return _of_strata(case, case.sums.classes())


def kept_by_size(case: Case) -> Finding:
    """Does it, for small, medium and large objects?"""
    return _of_strata(case, case.sums.sizes())


def sees_nothing(case: Case) -> Finding:
    """Are there pictures full of things in which it finds none?"""
    tally, asked = case.sums.tally(SEES_NOTHING), demand(SEES_NOTHING, case.sums, case.analysis)
    message = f"finds nothing in {tally.share:.2f} of the pictures with something sure in them"
    return _of_copies(case, _of_share(tally, asked, message, "pictures"))


def added(case: Case) -> Finding:
    """Is it sure of things that the stable revision does not see?"""
    tally, asked = case.sums.tally(ADDED), demand(ADDED, case.sums, case.analysis)
    message = f"{tally.share:.2f} of what it is sure of, {case.against} does not see"
    return _of_copies(case, _of_share(tally, asked, message, "objects"))


def errors(case: Case) -> Finding:
    """Does it answer, and in time?

    Where the two answer other callers, one of them may load either alone: then of its own requests
    only those count that no caller can have fail.
    """
    found = []
    if not case.unpaired:
        for name, what in ((COPIES, "failed or were late"), (COPIES_AT_FAULT, "failed")):
            finding = _of_errors(case, name, f"of copied requests {what}", "copies")
            found.append(_of_copies(case, finding))
    if case.live and not case.incomparable:
        found.append(_of_errors(case, REQUESTS, "of its requests failed", "requests"))
    if case.live:
        of_itself = "of its requests failed by no load"
        found.append(_of_errors(case, REQUESTS_AT_FAULT, of_itself, "requests"))
    return _worst(found, case.unpaired)


def _of_errors(case: Case, name: str, what: str, of: str) -> Finding:
    tally, asked = case.sums.tally(name), demand(name, case.sums, case.analysis)
    stake = case.stake if of == "requests" else 1.0
    return _of_share(tally, asked, f"{tally.share:.3f} {what}", of, stake=stake, digits=3)


def latency(case: Case) -> Finding:
    """Does it answer as fast?"""
    found = []
    if not case.unpaired:
        computes = _of_times(case, COMPUTE, "computes the same pictures", 1.0)
        found.append(_of_copies(case, computes))
    if case.live and not case.incomparable:
        found.append(_of_times(case, LATENCY, "answers", case.stake))
    return _worst(found, case.unpaired or case.incomparable)


def class_shift(case: Case) -> Finding:
    """Does it find another mix of classes? Asked where no copies tell."""
    if not case.unpaired:
        return Finding(Verdict.NOT_JUDGED, "copies of requests are compared")
    if case.incomparable or case.unlike:
        return Finding(Verdict.NOT_JUDGED, case.incomparable or case.unlike)
    stable, canary = objects(case.arms, ArmName.STABLE), objects(case.arms, ArmName.CANARY)
    limit, n = case.analysis.max_class_shift, min(sum(stable.values()), sum(canary.values()))
    if not are_enough(case.arms):  # no release waits for it: it proves nothing good
        message = f"{n:,} of {LEAST_OBJECTS:,} objects of each to compare the mixes of classes of"
        return Finding(Verdict.NOT_JUDGED, message, None, limit, n)
    far, tally = shift(case.arms), case.sums.tally(CLASS_SHIFT)
    verdict = Verdict.FAIL if tally.failing >= LOOKS else Verdict.INCONCLUSIVE
    message = f"its mix of classes is {far:.2f} from that of {case.against} (limit {limit:.2f}"
    return Finding(
        verdict if tally.failing else Verdict.PASS,
        f"{message}; {n:,} objects; {_most_changed(stable, canary)})",
        round(far, 4),
        limit,
        n,
    )


def _most_changed(stable: Mapping[str, int], canary: Mapping[str, int]) -> str:
    shares = {
        name: (
            stable.get(name, 0) / sum(stable.values()),
            canary.get(name, 0) / sum(canary.values()),
        )
        for name in sorted(stable.keys() | canary.keys())
    }
    name, (was, now) = max(shares.items(), key=lambda each: abs(each[1][0] - each[1][1]))
    return f"{name} {was:.0%} → {now:.0%}"


Judge = Callable[[Case], Finding]

CHECKS: tuple[tuple[str, Judge], ...] = (
    ("golden", golden),
    ("probe", probe),
    ("kept", kept),
    ("keptByClass", kept_by_class),
    ("keptBySize", kept_by_size),
    ("seesNothing", sees_nothing),
    ("added", added),
    ("errors", errors),
    ("latency", latency),
    (CLASS_SHIFT, class_shift),
)
OF_ITSELF = ("golden", "probe")
"""What needs no other revision."""
OF_KEPT = ("kept", "keptByClass", "keptBySize")
OF_COPIES = (*OF_KEPT, "seesNothing", "added")
"""What needs that the same pictures go to both revisions."""


def found(name: str, check: Judge, case: Case) -> Finding:
    """Return what a check says, or why it cannot say anything."""
    if name in OF_ITSELF:
        finding = check(case)
        if finding.verdict is Verdict.INCONCLUSIVE and (case.mute or case.unreadable):
            verdict = Verdict.NOT_JUDGED if case.mute else Verdict.ERROR
            return Finding(verdict, case.mute or case.unreadable)
        return finding
    if case.mute:
        return Finding(Verdict.NOT_JUDGED, case.mute)
    if not case.against:
        return Finding(Verdict.NOT_JUDGED, "nothing is released that it could be compared with")
    if case.unpaired and (name in OF_COPIES or not case.live):
        return Finding(Verdict.NOT_JUDGED, case.unpaired)
    if case.unreadable:
        return Finding(Verdict.ERROR, case.unreadable)
    return check(case)


def _of_share(
    tally: Tally, asked: Demand, message: str, of: str, *, stake: float = 1.0, digits: int = 2
) -> Finding:
    limit, passes = asked.limit.share, asked.passes or asked.limit.share
    if stake > 1:
        passes = min(passes * stake, 0.5)
    proof = ceiling(passes) if passes != limit else None
    measured = f"{message} (limit {limit:.{digits}f}; {tally.k:,} of {tally.n:,} {of})"
    measured += _lately(tally, asked)
    verdict = _verdict(tally, passed=has_passed(tally, asked, proof))
    if proof and verdict is Verdict.PASS and asked.limit.is_beyond(tally.share):
        measured += f", and up to {passes:.{digits}f} at this step"
    if proof and verdict is Verdict.INCONCLUSIVE and passes < tally.share <= limit:
        measured += f", and to pass {passes:.{digits}f}"
    return Finding(
        verdict,
        measured if tally.n >= asked.least else f"{tally.n:,} of {asked.least:,} {of}",
        round(tally.share, 4) if tally.n else None,
        round(limit, 4),
        tally.n,
    )


def _verdict(tally: Tally, *, passed: bool) -> Verdict:
    if has_failed(tally):
        return Verdict.FAIL
    return Verdict.PASS if passed else Verdict.INCONCLUSIVE


def _of_strata(case: Case, names: Iterable[str]) -> Finding:
    """Judge all strata with enough objects, and name the others.

    A rare one may fail; but it would hold every release until enough of it came by, so only those
    that make up a good part have to pass.
    """
    tallies = {name: case.sums.tally(name) for name in names}
    judged = {name: tally for name, tally in tallies.items() if tally.n >= LEAST_OF_STRATUM}
    few = sorted(set(tallies) - set(judged))
    if not judged:
        most = max((tally.n for tally in tallies.values()), default=0)
        message = f"{most} of {LEAST_OF_STRATUM} objects of the most frequent one"
        return Finding(Verdict.INCONCLUSIVE, message, n=most)
    asked = demand(next(iter(judged)), case.sums, case.analysis)
    failed = {name: tally for name, tally in judged.items() if has_failed(tally)}
    total = sum(tally.n for tally in tallies.values())
    most = max(tally.n for tally in judged.values())
    holding = {
        name: tally
        for name, tally in judged.items()
        if tally.n >= min(_HOLDS_FROM * total, most) and not has_passed(tally, asked)
    }
    name, tally = min((failed or holding or judged).items(), key=lambda item: item[1].share)
    verdict = Verdict.FAIL if failed else Verdict.INCONCLUSIVE if holding else Verdict.PASS
    rest = f"; too few to judge: {', '.join(map(_short, few))}" if few else ""
    missing = name in map(stratum, case.unknown)
    if verdict is Verdict.PASS and asked.limit.is_beyond(tally.share):
        rest = f"; too rare to hold a release{rest}"
    what = f"{_short(name)}, a class that it does not have" if missing else _short(name)
    message = f"keeps {tally.share:.2f} of {what} (limit {asked.limit.share:.2f};"
    return Finding(
        verdict,
        f"{message} {tally.k:,} of {tally.n:,} objects){_lately(tally, asked)}{rest}",
        round(tally.share, 4),
        asked.limit.share,
        tally.n,
    )


def _lately(tally: Tally, asked: Demand) -> str:
    """Say so where the share of all does not show why it failed."""
    return f", and worse in the last {tally.run} looks" if turned_bad(tally, asked) else ""


def _short(stratum: str) -> str:
    return stratum.removeprefix(CLASS).removeprefix("size ")


def _of_times(case: Case, name: str, does: str, stake: float) -> Finding:
    stable, canary = case.sums.pair(name)
    tally, buckets = case.sums.tally(name), slower_by(case.analysis.max_p99_ratio)
    limit, n = round(FACTOR**buckets, 2), sum(canary)
    least = latency_least(tally.cluster)
    if n < least:
        message = f"{n} of {least} answers to compare the times of"
        return Finding(Verdict.INCONCLUSIVE, message, None, limit, n)
    proved = is_in_time(stable, canary, buckets, stake, tally.cluster)
    passed = proved and tally.looks >= PASS_LOOKS and not tally.failing
    message = ", ".join(
        f"P{quantile * 100:.0f} {quantile_ms(stable, quantile):.3g}"
        f" → {quantile_ms(canary, quantile):.3g} ms"
        for quantile in (0.5, 0.99)
    )
    slow, fast = quantile_ms(canary, 0.99), quantile_ms(stable, 0.99)
    return Finding(
        _verdict(tally, passed=passed),
        f"{does} in {message} (limit ×{limit}; {n:,} answers)",
        round(slow / fast, 2) if fast else None,
        limit,
        n,
    )


_ORDER = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)


def _worst(found: list[Finding], otherwise: str) -> Finding:
    if not found:
        return Finding(Verdict.NOT_JUDGED, otherwise)
    return min(found, key=lambda finding: (_ORDER.index(finding.verdict), -_nearness(finding)))


def _nearness(finding: Finding) -> float:
    return (finding.value or 0.0) / (finding.limit or 1.0)
