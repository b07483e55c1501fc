"""What admission refuses and warns of beyond CEL: free-form fields, and what other detectors have.

Everything here is also survived when it gets past: the operator tells it in the status. Admission
only tells it earlier, to the person who can still change it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from yolofleet.api.access import wrong_blocks
from yolofleet.api.base import MOST_PROBLEMS, InvalidSpec
from yolofleet.api.detector import Detector, DetectorSpec, Provider, mistakes
from yolofleet.api.names import Manifest, revision_of, revisions_prefix
from yolofleet.plan import powers
from yolofleet.plan.revisions import CANARY_EQUAL, canary_is_equal
from yolofleet.routers.choice import ROUTERS, Absent, router_of
from yolofleet.routers.claims import Claim, Crossing
from yolofleet.routers.exposure import Allowed, expose

_MOST_COMPARED = 2_000
"""Mistakes of what is stored and of what would take its place: a small object can have 100,000."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the API server is told. refusals: none of them may remain for the object to pass."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What else there is. taken: what others route, or asked for, of what this one does.

    child_of: whose child has that name already. allowed: what the admin lets detectors route;
    forbidden: what no podTemplate may take; routers: what there is to route by;
    absent: the gateways of each that are not there; crossed: which hosts of others
    share requests with its own; shut: what gateways keep for other namespaces, and for whom.
    """

    keys: Iterable[str]
    taken: Mapping[Claim, str]
    child_of: str = ""
    allowed: Allowed = field(default_factory=Allowed)
    forbidden: frozenset[powers.Power] = frozenset()
    routers: frozenset[Provider] = frozenset()
    absent: Absent = field(default_factory=dict)
    crossed: tuple[Crossing, ...] = ()
    shut: Mapping[Claim, str] = field(default_factory=dict)


def judge(new: Manifest, old: Manifest | None, around: Neighbours) -> Verdict:
    """Say whether `new` may be stored in the place of `old` (None: it is created)."""
    if "deletionTimestamp" in new["metadata"]:
        return Verdict()  # it is on its way out, and must not be held up
    if old is not None and old.get("spec") == new.get("spec"):
        return Verdict()  # labels and the like; what is wrong was wrong before, and is in status
    detector, wrong = _read(new, around)
    known = _before(old, new, wrong if detector else (), around) if old else ()
    before = Counter(map(_anywhere, known))
    refusals, warnings = list[str](), list[str]()
    for each in wrong:
        where = _anywhere(each)
        told = warnings if before[where] > 0 else refusals
        before[where] -= 1
        if len(told) <= MOST_PROBLEMS:  # with one more, which says that there are
            told.append(each)
        elif told is refusals:
            break
    if detector:
        if old is None:
            refusals += _taken_name(detector, around)
        warnings += _doubts(detector.spec)
        warnings += (f"spec.traffic.hosts: {each}" for each in around.crossed)
    return Verdict(tuple(refusals), tuple(warnings))


def _before(
    old: Manifest, new: Manifest, denied: Iterable[str], around: Neighbours
) -> Iterable[str]:
    """Return what was wrong with `old`: as far as it cannot be parsed, with what `new` left as is.

    denied: what is of `new`, which can be parsed. That a canary is equal is said of more than one
    part of the spec, and so of none that is left.
    """
    was, wrong = _read(old, around)
    if was:
        return wrong
    left = [
        each for each in denied if each != CANARY_EQUAL and _part(new, each) == _part(old, each)
    ]
    return chain(wrong, left)


def _part(raw: Manifest, message: str) -> object:
    """Return the part of the spec of which `message` speaks."""
    name = re.match(r"spec\.(\w+)", message)
    return raw["spec"].get(name[1]) if name else None


def _anywhere(message: str) -> str:
    """Return `message` without the places in lists: they shift as others come and go."""
    path, colon, what = message.partition(": ")
    return re.sub(r"\[\d+\]|\.\d+(?=\.|$)", "", path) + colon + what


def _read(raw: Manifest, around: Neighbours) -> tuple[Detector | None, Iterable[str]]:
    """Read what may not be stored yet: the detector, if it is one, and all that is wrong with it.

    What cannot be parsed is not asked what of it would be done: that is told once it can be.
    """
    try:
        metadata = {"uid": "", "generation": 1} | raw["metadata"]
        detector = Detector.parse(raw | {"metadata": metadata})
    except InvalidSpec as error:
        if len(error.problems) <= MOST_PROBLEMS:
            return None, error.problems
        return None, islice(mistakes(raw["spec"]), _MOST_COMPARED)
    return detector, _denied(raw, detector, around)


def _denied(raw: Manifest, detector: Detector, around: Neighbours) -> tuple[str, ...]:
    """Return what would not be done although it can be parsed, and why."""
    by = router_of(raw, around.routers, around.absent)
    exposure = expose(
        detector,
        None,
        around.taken,
        around.allowed,
        bare=by.TAKES_ALL_HOSTS,
        shut=around.shut,
        most=by.MOST_HOSTS,
    )
    return (
        *(denial.message for denial in exposure.denials),
        *([CANARY_EQUAL] if canary_is_equal(detector.spec) else []),
        *powers.refusals(detector.spec, around.forbidden),
        *wrong_blocks(detector.spec.access),
    )


def _taken_name(detector: Detector, around: Neighbours) -> Iterator[str]:
    """Refuse names that another detector's revisions have, or may come to have."""
    if around.child_of and around.child_of != detector.name:
        yield (
            f"metadata.name: {detector.name} is the name of an object that belongs to the"
            f" detector {around.child_of}; choose another name"
        )
        return
    for key in around.keys:
        namespace, _, other = key.partition("/")
        if namespace != detector.namespace or other == detector.name:
            continue
        if _looks_like_revision(detector.name, other) or _looks_like_revision(other, detector.name):
            yield could_be_one(detector.name, other)


def could_be_one(name: str, other: str) -> str:
    """Say that of two detectors one could be a revision of the other, by its name."""
    longer, shorter = sorted((name, other), key=len, reverse=True)
    return (
        f"metadata.name: {longer} could be the name of a revision of the detector {shorter};"
        f" choose another name than {name}"
    )


def _looks_like_revision(name: str, detector: str) -> bool:
    return revision_of(name) == revisions_prefix(detector)


def _doubts(spec: DetectorSpec) -> Iterator[str]:
    """Warn of what works today and may surprise tomorrow; a warning is cut at 256 characters."""
    models = [("spec.model", spec.model)]
    if spec.canary and spec.canary.model:
        models.append(("spec.canary.model", spec.canary.model))
    for path, model in models:
        if model.uri.startswith(("https://", "http://")) and not model.sha256:
            yield (
                f"{path}.sha256: is not set, so pods that start later may load another file from"
                " the same address; pin it (sha256sum FILE)"
            )
    yield from _sticks_where(spec)
    yield from powers.warnings(spec)
    asked = spec.rollout.analysis
    if asked and asked.keep_frames and not spec.access.frames_key:
        yield (
            "spec.rollout.analysis.keepFrames: keeps nothing without spec.access.framesKey, which"
            " names the Secret whose key shows the pictures"
        )
    image = spec.runtime.image
    if image and "@" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest"):
        yield (
            f"spec.runtime.image: {image} may be another image tomorrow; name a version or a digest"
        )


def _sticks_where(spec: DetectorSpec) -> Iterator[str]:
    router = ROUTERS.get(spec.traffic.provider)
    if spec.traffic.sticky_header and router and router.STICKS:
        yield f"spec.traffic.stickyHeader: {router.STICKS}"
