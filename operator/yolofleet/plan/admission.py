"""What admission refuses and warns of beyond CEL: free-form fields, and what other detectors have.

Everything here is also survived when it gets past: the operator tells it in the status. Admission
only tells it earlier, to the person who can still change it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector, DetectorSpec
from yolofleet.api.names import HASH_DIGITS, MAX_NAME, Manifest, shortened
from yolofleet.plan.revision import CANARY_EQUAL, canary_is_equal

Claim = tuple[str, str]
"""A gateway (NAMESPACE/NAME, or mesh) and a host name on it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the API server is told. refusals: none of them may remain for the object to pass."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What else there is. claims: by detector key; child_of: whose child has that name already."""

    keys: Iterable[str]
    claims: Mapping[str, frozenset[Claim]]
    child_of: str = ""


def judge(new: Manifest, old: Manifest | None, around: Neighbours) -> Verdict:
    """Say whether `new` may be stored in the place of `old` (None: it is created)."""
    if "deletionTimestamp" in new["metadata"]:
        return Verdict()  # it is on its way out, and must not be held up
    if old is not None and old.get("spec") == new.get("spec"):
        return Verdict()  # labels and the like; what is wrong was wrong before, and is in status
    fresh = {"uid": "", "generation": 1} | new["metadata"]
    try:
        detector = Detector.parse(new | {"metadata": fresh})
    except InvalidSpec as error:
        return Verdict((str(error),))
    claimed = claims(new) - (claims(old) if old else frozenset())
    refusals = [*_taken_hosts(detector.key, claimed, around)]
    if canary_is_equal(detector.spec) and not _was_equal(old):
        refusals.append(CANARY_EQUAL)
    if old is None:
        refusals += _taken_name(detector, around)
    return Verdict(tuple(refusals), tuple(_doubts(detector.spec)))


def _was_equal(old: Manifest | None) -> bool:
    """Say whether the canary was equal before: then it holds up no other edit."""
    try:
        return old is not None and canary_is_equal(Detector.parse(old).spec)
    except InvalidSpec:
        return False


def claims(raw: Manifest) -> frozenset[Claim]:
    """Return the hosts that a detector routes, with each gateway that it routes them on.

    One that is on its way out claims nothing. Reads what the API server stores without parsing it:
    it is asked of all detectors at once.
    """
    if "deletionTimestamp" in raw["metadata"]:
        return frozenset()
    traffic = raw.get("spec", {}).get("traffic") or {}
    namespace = raw["metadata"]["namespace"]
    hosts = (str(host).lower() for host in traffic.get("hosts") or ())
    gateways = [str(gateway) for gateway in traffic.get("gateways") or ()] or ["mesh"]
    return frozenset(
        (
            gateway if gateway == "mesh" or "/" in gateway else f"{namespace}/{gateway}",
            host if "." in host or gateway != "mesh" else f"{host}.{namespace}",
        )
        for host in hosts
        for gateway in gateways
    )


def _taken_hosts(key: str, claimed: frozenset[Claim], around: Neighbours) -> Iterator[str]:
    for other, theirs in sorted(around.claims.items()):
        for gateway, host in sorted(claimed & theirs) if other != key else ():
            where = "inside the mesh" if gateway == "mesh" else f"on the gateway {gateway}"
            yield (
                f"spec.traffic.hosts: {host} {where} is routed by the detector {other} already;"
                " choose another host or gateway, or remove it there first"
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
            longer, shorter = sorted((detector.name, other), key=len, reverse=True)
            yield (
                f"metadata.name: {longer} could be the name of a revision of the detector"
                f" {shorter}; choose another name than {detector.name}"
            )


def _looks_like_revision(name: str, detector: str) -> bool:
    prefix, _, digest = name.rpartition("-")
    looks = len(digest) == HASH_DIGITS and set(digest) <= set("0123456789abcdef")
    return looks and prefix == shortened(detector, MAX_NAME - HASH_DIGITS - 1)


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
    image = spec.runtime.image
    if image and "@" not in image and image.rpartition("/")[2].partition(":")[2] in ("", "latest"):
        yield (
            f"spec.runtime.image: {image} may be another image tomorrow; name a version or a digest"
        )
