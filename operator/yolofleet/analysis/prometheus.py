"""The same counters where Prometheus has them: one query a look, and what its answer says of pods.

A vector of the last samples is asked for, with the time of the scrape that they came by. A pod that
is scraped by two jobs or two Prometheus is there twice: that which counted most is the latest, by
no clock. Nothing is believed: what is no evidence is a reason in words, never an exception.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from math import isclose, isfinite, log
from typing import Any, Final

import orjson
from pydantic import ValidationError

from yolofleet.analysis.evidence import FORMAT, Evidence, problem
from yolofleet.analysis.increments import OLDEST_S, Scrape
from yolofleet.analysis.statistics import BUCKETS, FACTOR

MOST_BYTES: Final = 16 * 1024 * 1024
AT_A_TIME: Final = 25
"""Pods in one query: their answer is short beside `MOST_BYTES`, and soon there and read."""

START: Final = "process_start_time_seconds"
_INFO: Final = "yoloserve_model_info"
_REQUESTS: Final = "yoloserve_requests_total"
_SQUARED: Final = "yoloserve_request_images_squared_total"
_DETECTIONS: Final = "yoloserve_detections_total"
_LATENCY: Final = "yoloserve_latency_seconds_bucket"
_CAPACITY: Final = "yoloserve_capacity_requests_per_second"
_PROBE_LOOKS: Final = "yoloserve_probe_looks_total"
_BLIND_IN_A_ROW: Final = "yoloserve_probe_blind_in_a_row"
_GOLDEN_STATE: Final = "yoloserve_golden_state"
_GOLDEN_DONE: Final = "yoloserve_golden_done"
_GOLDEN_IMAGES: Final = "yoloserve_golden_images"
_GOLDEN_MAP50: Final = "yoloserve_golden_map50"
_FRAMES: Final = "yoloserve_shadow_frames_total"
_EXPECTED: Final = "yoloserve_shadow_expected_total"
_KEPT: Final = "yoloserve_shadow_kept_total"
_CONFUSED: Final = "yoloserve_shadow_confused_total"
_SURE: Final = "yoloserve_shadow_sure_total"
_ONLY_STABLE: Final = "yoloserve_shadow_only_stable_total"
_ONLY_CANARY: Final = "yoloserve_shadow_only_canary_total"
_SEEN: Final = "yoloserve_shadow_seen_total"
_BLIND: Final = "yoloserve_shadow_blind_total"
_COMPUTE: Final = "yoloserve_shadow_compute_seconds_bucket"
_SCRAPED: Final = "scraped"
_SAID: Final = "said"

_OWN: Final[dict[str, tuple[str, ...]]] = {
    START: (),
    _INFO: ("revision", "name", "version", "sha256", "backend", "precision", "device"),
    _REQUESTS: ("source", "outcome"),
    _SQUARED: ("outcome",),
    _DETECTIONS: ("class",),
    _CAPACITY: (),
    _PROBE_LOOKS: ("outcome",),
    _BLIND_IN_A_ROW: (),
    _GOLDEN_STATE: ("state",),
    _GOLDEN_DONE: ("set_sha256",),
    _GOLDEN_IMAGES: (),
    _GOLDEN_MAP50: (),
    _LATENCY: ("source", "le"),
    _FRAMES: ("canary", "outcome"),
    _EXPECTED: ("canary", "class", "size"),
    _KEPT: ("canary", "class", "size"),
    _CONFUSED: ("canary", "class", "other"),
    _SURE: ("canary", "class"),
    _ONLY_STABLE: ("canary", "class"),
    _ONLY_CANARY: ("canary", "class"),
    _SEEN: ("canary",),
    _BLIND: ("canary",),
    _COMPUTE: ("canary", "arm", "le"),
    _SCRAPED: (),
    _SAID: (),
}
"""The labels that the server gives a metric; all others are those of whoever scrapes it."""

_OWN_OR_EXPORTED: Final = {
    name: [(label, f"exported_{label}") for label in own] for name, own in _OWN.items()
}
"""Prometheus gives way to a label that its target has."""

_OF_SHADOW: Final = [name for name, own in _OWN.items() if "canary" in own]
_OTHERS: Final = [name for name in _OWN if name not in (*_OF_SHADOW, _LATENCY, _SCRAPED, _SAID)]

_MARK: Final = "yolofleet_told"
_SIZES: Final = ("small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Scraped:
    """What a pod exposed when it was scraped last, and which scrape that was."""

    evidence: Evidence
    scrape: Scrape


class _NoEvidence(Exception):
    """Why that of a pod is none, in words."""


def in_parts(pods: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Return `pods` by as many as one query asks for."""
    names = sorted(pods)
    for first in range(0, len(names), AT_A_TIME):
        yield {name: pods[name] for name in names[first : first + AT_A_TIME]}


def query(pods: Mapping[str, str], *, namespace: str, canary: str) -> str:
    """Return what to ask for `pods`, by name and revision: all counters of theirs at once.

    Those that tell little come first, since each `or` reads all before it anew. Pods are known by
    the labels that Prometheus gives a target: `exported_namespace` and `exported_pod` are what any
    pod, of whatever namespace, can say of itself. Who has these is asked for the words alone, and
    once each: whoever says it of a thousand series fills no answer.
    """
    shadow, others = "|".join(_OF_SHADOW), "|".join(_OTHERS)
    where = f"namespace={_quoted(namespace)},pod=~{_any_of(pods)}"
    nameless = f'{_INFO}{{pod="",revision=~{_any_of(pods.values())}}}'
    exported = f"exported_namespace={_quoted(namespace)},exported_pod=~{_any_of(pods)}"
    counted = f"count by (exported_pod) ({_INFO}{{{exported}}})"
    said = f'label_replace({counted},"{_MARK}","{_SAID}","","")'
    scraped = f'label_replace(timestamp({START}{{{where}}}),"{_MARK}","{_SCRAPED}","","")'
    few = f'{{__name__=~"{others}",{where}}}'
    times = f'{_LATENCY}{{source="request",{where}}}'
    pairs = f'{{__name__=~"{shadow}",canary={_quoted(canary)},{where}}}'
    return " or ".join((nameless, said, scraped, few, times, pairs))


def _any_of(names: Iterable[str]) -> str:
    return _quoted("|".join(name.replace(".", "[.]") for name in sorted(set(names))))


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def read(
    body: bytes, pods: Mapping[str, str], *, status: int = HTTPStatus.OK
) -> dict[str, Scraped | str]:
    """Return what is stored of each of `pods`, by name and revision, or why nothing is."""
    try:
        targets, nameless, said = _targets(_result(body, status), pods)
    except _NoEvidence as error:
        return dict.fromkeys(pods, not_looked_up(str(error)))
    scraped: dict[str, Scraped | str] = {}
    for name, revision in pods.items():
        known = [_scraped(target, revision) for target in targets.get(name, {}).values()]
        good = [each for each in known if isinstance(each, Scraped)]
        if good:
            scraped[name] = max(good, key=_progress)
        elif known:
            scraped[name] = known[0]
        elif name in said:
            scraped[name] = (
                "is in Prometheus by `exported_namespace` and `exported_pod`, which any pod can say"
                " of itself: a job that federates needs honor_labels"
            )
        elif revision in nameless:
            scraped[name] = "is in Prometheus without the labels `namespace` and `pod`"
        else:
            scraped[name] = (
                "is not in Prometheus by `namespace` and `pod`: is its /metrics scraped?"
            )
    return scraped


def not_looked_up(why: str) -> str:
    """Say of a pod that Prometheus itself could not be asked."""
    return f"could not be looked up: {why}"


def _progress(one: Scraped) -> tuple[float, int, float]:
    return one.evidence.started, one.scrape.counted, one.scrape.at


_WHY: Final[dict[int, str]] = dict.fromkeys(
    (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
    "which is about who asks: see prometheus.tokenSecret in the operator's chart",
)


def _result(body: bytes, status: int) -> list[Any]:
    if len(body) > MOST_BYTES:
        raise _NoEvidence(f"Prometheus answers with more than {MOST_BYTES >> 20} MiB")
    why = _WHY.get(status, "not as its API does: see prometheus.url in the operator's chart")
    try:
        answer = orjson.loads(body)
        if "error" in answer and status not in _WHY:
            why = str(answer["error"])[:80]
        elif status == HTTPStatus.OK and answer["data"]["resultType"] == "vector":
            return list(answer["data"]["result"])
    except (ValueError, TypeError, KeyError):
        pass
    raise _NoEvidence(f"Prometheus answers {status}, {why}")


@dataclass(slots=True)
class _Target:
    """What one Prometheus has of one pod by one job, and how long ago that came."""

    series: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)
    asked_at: float = 0.0

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        return self.series.get(name, {})

    def number(self, name: str) -> float | None:
        return next(iter(self.of(name).values()), None)


_Targets = dict[str, dict[frozenset[tuple[str, str]], _Target]]


def _targets(result: Iterable[Any], pods: Mapping[str, str]) -> tuple[_Targets, set[str], set[str]]:
    """Sort the series by pod and by whoever scraped it; and name revisions whose pods have none.

    The last ones are the pods of which somebody says that a series is theirs.
    """
    targets: _Targets = {}
    nameless, said = set(), set()
    for name, labels, at, value in _series(result):
        own = tuple(
            [
                labels.pop(exported if exported in labels else each, "")
                for each, exported in _OWN_OR_EXPORTED[name]
            ]
        )
        if name == _SAID:
            said.add(labels.get("exported_pod", ""))
            continue
        pod = labels.get("pod", "")
        if pod in pods:
            of_pod = targets.setdefault(pod, {})
            target = of_pod.setdefault(frozenset(labels.items()), _Target())
            target.series.setdefault(name, {})[own] = value
            target.asked_at = at
        elif not pod and name == _INFO:
            nameless.add(own[0])
    return targets, nameless, said


def _series(result: Iterable[Any]) -> Iterator[tuple[str, dict[str, str], float, float]]:
    for series in result:
        try:
            labels, (at, value) = dict(series["metric"]), series["value"]
            name = labels.pop("__name__", "") or labels.pop(_MARK)
            number, at = float(value), float(at)
            if not all(isinstance(label, str) for label in labels.values()):
                continue
        except (KeyError, TypeError, ValueError):  # a native histogram, or none of what was asked
            continue
        if isinstance(name, str) and name in _OWN:
            yield name, labels, at, number


def _scraped(target: _Target, revision: str) -> Scraped | str:
    try:
        scraped_at = target.number(_SCRAPED)
        if scraped_at is None:
            raise _NoEvidence(f"tells no {START}")
        if not (age := target.asked_at - scraped_at) <= OLDEST_S:
            raise _NoEvidence(f"was last scraped {age:.0f} s ago; more than {OLDEST_S:.0f} is old")
        evidence = _evidence(target, revision)
        return Scraped(evidence, Scrape(scraped_at, _counted(target)))
    except _NoEvidence as error:
        return str(error)
    except ValidationError as error:
        return problem(error)


def _counted(target: _Target) -> int:
    """Return the sum of all that only grows: of two samples the later one has more, or the same."""
    return sum(
        int(value)
        for name in target.series
        if name.endswith(("_total", "_bucket"))
        for value in target.of(name).values()
        if isfinite(value)
    )


def _evidence(target: _Target, revision: str) -> Evidence:
    info = next(iter(target.of(_INFO)), None)
    if info is None:
        raise _NoEvidence(f"tells no {_INFO}: it is of no server, or one that is starting")
    if info[0] != revision:
        raise _NoEvidence(f"says that it is of {info[0][:63]!r}, not of {revision}")
    requests = _requests(target)
    images = requests.get("request", {}).get("ok", 0)
    squared = {outcome: _count(n) for (outcome,), n in target.of(_SQUARED).items()}
    capacity = target.number(_CAPACITY)
    known = capacity is not None and isfinite(capacity)
    latency = _histogram(_LATENCY, {le: n for (_, le), n in target.of(_LATENCY).items()}, images)
    return Evidence.model_validate(
        {
            "format": FORMAT,
            "revision": revision,
            "started": target.number(START),
            "requests": requests,
            "images_squared": squared or None,
            "images": images,
            "detections": {name: _count(n) for (name,), n in target.of(_DETECTIONS).items()},
            "latency": {"request": latency},
            "load": {"capacity_per_second": capacity if known else None},
            "probe": _probe(target),
            "golden": _golden(target),
            "shadow": {name: _shadow(target, name) for (name,) in _canaries(target)},
        }
    )


def _requests(target: _Target) -> dict[str, dict[str, int]]:
    requests: dict[str, dict[str, int]] = {}
    for (source, outcome), number in target.of(_REQUESTS).items():
        requests.setdefault(source, {})[outcome] = _count(number)
    if not requests or "" in requests:
        raise _NoEvidence(f"is of an older server: its {_REQUESTS} has no source")
    return requests


def _probe(target: _Target) -> dict[str, int] | None:
    """Return its looks; None where a part is missing: what is not stored is not seen either."""
    in_a_row, looks = target.number(_BLIND_IN_A_ROW), target.of(_PROBE_LOOKS)
    if in_a_row is None or not looks:
        return None
    counts = {outcome: _count(number) for (outcome,), number in looks.items()}
    sees, blind = counts.get("sees", 0), counts.get("blind", 0)
    return {"sees": sees, "blind": blind, "blind_in_a_row": _count(in_a_row)}


def _golden(target: _Target) -> dict[str, Any] | None:
    map50, images = target.number(_GOLDEN_MAP50), target.number(_GOLDEN_IMAGES)
    done = next(iter(target.of(_GOLDEN_DONE)), None)
    if done and map50 is not None:
        images = _count(images or 0.0)
        return {"state": "done", "set_sha256": done[0], "images": images, "map50": map50}
    state = next((state for (state,), on in target.of(_GOLDEN_STATE).items() if on), None)
    if state in (None, "done"):
        return None
    return {"state": state, "message": "the log of its pods says why"}


def _canaries(target: _Target) -> set[tuple[str]]:
    return {(canary,) for canary, _ in target.of(_FRAMES)}


def _shadow(target: _Target, canary: str) -> dict[str, Any]:
    def of(name: str) -> Iterator[tuple[tuple[str, ...], int]]:
        for (shown, *own), number in target.of(name).items():
            if shown == canary:
                yield tuple(own), _count(number)

    frames = {outcome: n for (outcome,), n in of(_FRAMES)}
    confused: dict[str, dict[str, int]] = {}
    for (name, called), n in of(_CONFUSED):
        confused.setdefault(name, {})[called] = n
    times: dict[str, dict[str, float]] = {"stable": {}, "canary": {}}
    for (arm, le), n in of(_COMPUTE):
        times.setdefault(arm, {})[le] = n
    compared = frames.get("compared", 0)
    return {
        "frames": frames,
        "expected": _by_size(of(_EXPECTED)),
        "kept": _by_size(of(_KEPT)),
        "confused": confused,
        "sure": {name: n for (name,), n in of(_SURE)},
        "only_stable": {name: n for (name,), n in of(_ONLY_STABLE)},
        "only_canary": {name: n for (name,), n in of(_ONLY_CANARY)},
        "seen": next((n for _, n in of(_SEEN)), 0),
        "blind": next((n for _, n in of(_BLIND)), 0),
        "compute": {arm: _histogram(_COMPUTE, each, compared) for arm, each in times.items()},
    }


def _by_size(counts: Iterable[tuple[tuple[str, ...], int]]) -> dict[str, tuple[int, ...]]:
    sized: dict[str, dict[str, int]] = {}
    for (name, size), n in counts:
        sized.setdefault(name, {})[size] = n
    return {name: tuple(row.get(size, 0) for size in _SIZES) for name, row in sized.items()}


def _count(number: float) -> int:
    if not (0 <= number <= 2**53 and number == int(number)):
        raise _NoEvidence(f"counts {number}")
    return int(number)


def _histogram(name: str, cumulative: Mapping[str, float], all_: int) -> dict[str, Any]:
    """Return counts by bucket. all_: how many it must have counted, but for those under way."""
    if not cumulative and not all_:
        return {"first": 0, "counts": ()}
    up_to = {_bucket(le): _count(number) for le, number in cumulative.items()}
    if sorted(up_to) != list(range(BUCKETS)):
        raise _NoEvidence(f"has not all buckets of {name}: a relabelling may drop some")
    edges = [up_to[number] for number in range(BUCKETS)]
    counts = [after - before for before, after in zip([0, *edges], edges, strict=False)]
    if min(counts) < 0:
        raise _NoEvidence(f"has buckets of {name} that are of different times")
    return {"first": 0, "counts": tuple(counts)}


@lru_cache(maxsize=4 * BUCKETS)
def _bucket(le: str) -> int:
    """Return which bucket ends there; -1: none of ours."""
    try:
        edge = float(le)
        number = BUCKETS - 1 if le == "+Inf" else round(log(edge / 0.001) / log(FACTOR))
    except (ValueError, OverflowError):
        return -1
    ours = le == "+Inf" or isclose(edge, 0.001 * FACTOR**number, rel_tol=1e-6)
    return number if ours and 0 <= number < BUCKETS else -1
