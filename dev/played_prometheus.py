"""A Prometheus that is played: it holds what pods told when it scraped them, and answers queries.

Of PromQL it knows what the operator asks: selectors, `timestamp` and `count by` with a label added,
and `or`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from played_pods import Server
from yolofleet.analysis.statistics import FACTOR

Series = tuple[str, dict[str, str], float]
"""Name, labels and value of a sample."""

LOOKBACK_S = 300.0
_SELECTOR = re.compile(r"(?P<name>[a-z_]*)\{(?P<matchers>[^}]*)\}")
_MATCHER = re.compile(r'(?P<label>\w+)(?P<how>=~|=)"(?P<value>[^"]*)"')
_EDGES = [*(repr(0.001 * FACTOR**number) for number in range(98)), "+Inf"]


@dataclass
class Prometheus:
    """What it scraped, by target: the labels that it gives it."""

    now: float = 1_900_000_000.0
    scrapes: dict[tuple[tuple[str, str], ...], tuple[float, list[Series]]] = field(
        default_factory=dict
    )

    def scrape(self, told: Iterable[Series], **target: str) -> None:
        """Take what a target tells now; what it told before is over."""
        self.scrapes[tuple(sorted(target.items()))] = self.now, list(told)

    def vector(self, query: str) -> list[dict[str, Any]]:
        """Return what the query selects, each set of labels but once on either side of an `or`."""
        found: list[dict[str, Any]] = []
        for part in query.split(" or "):
            known = {_signature(each["metric"]) for each in found}
            told = list(self._part(part))
            if by := re.match(r"label_replace\(count by \((\w+)\)", part):
                told = self._counted(told, by[1], part)
            found += [each for each in told if _signature(each["metric"]) not in known]
        return found

    def answer(self, query: str) -> bytes:
        """Return the body that its API answers."""
        data = {"resultType": "vector", "result": self.vector(query)}
        return json.dumps({"status": "success", "data": data}).encode()

    async def ask(self, query: str) -> tuple[int, bytes]:
        """Answer as the operator is answered."""
        return 200, self.answer(query)

    def _counted(self, told: Iterable[dict[str, Any]], by: str, part: str) -> list[dict[str, Any]]:
        numbers = Counter(each["metric"].get(by, "") for each in told)
        return [
            {"metric": {by: name} | _added(part), "value": [self.now, str(number)]}
            for name, number in numbers.items()
        ]

    def _part(self, part: str) -> Iterable[dict[str, Any]]:
        selector = _SELECTOR.search(part)
        assert selector, part
        matchers = list(_MATCHER.finditer(selector["matchers"]))
        for target, (at, told) in self.scrapes.items():
            if self.now - at > LOOKBACK_S:
                continue
            for name, own, value in told:
                labels = _labels(dict(target), own) | {"__name__": name}
                if selector["name"] not in ("", name) or not all(_is(labels, m) for m in matchers):
                    continue
                if part.startswith("label_replace(timestamp("):
                    del labels["__name__"]
                    labels, value = labels | _added(part), at
                yield {"metric": labels, "value": [self.now, repr(value)]}


def _added(part: str) -> dict[str, str]:
    """Return the label that `label_replace` adds."""
    added = re.search(r'"(\w+)","(\w+)","",""', part)
    assert added, part
    return {added[1]: added[2]}


def _labels(target: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Add a target's labels: what it has itself of these gives way. Empty ones are none."""
    kept = {f"exported_{name}" if name in target else name: own[name] for name in own if own[name]}
    return {**kept, **target}


def _is(labels: Mapping[str, str], matcher: re.Match[str]) -> bool:
    value = labels.get(matcher["label"], "")
    if matcher["how"] == "=":
        return value == matcher["value"]
    return bool(re.fullmatch(matcher["value"], value))


def _signature(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, labels[name]) for name in labels if name != "__name__"))


def metrics(server: Server) -> list[Series]:
    """Return what a played pod shows in `/metrics`."""
    shadow = "yoloserve_shadow"
    told: list[Series] = [
        ("process_start_time_seconds", {}, server.started),
        ("yoloserve_model_info", {"revision": server.revision, "name": "gate"}, 1),
        ("yoloserve_capacity_requests_per_second", {}, server.capacity or float("inf")),
        ("yoloserve_probe_looks_total", {"outcome": "sees"}, server.sees),
        ("yoloserve_probe_looks_total", {"outcome": "blind"}, 0),
        ("yoloserve_probe_blind_in_a_row", {}, server.blind_in_a_row),
    ]
    for outcome, n in {"ok": 0, **server.requests}.items():
        told.append(("yoloserve_requests_total", {"source": "request", "outcome": outcome}, n))
    for outcome, n in (server.squared or {}).items():
        told.append(("yoloserve_request_images_squared_total", {"outcome": outcome}, n))
    for name, n in server.objects.items():
        told.append(("yoloserve_detections_total", {"class": name}, n))
    told += _histogram("yoloserve_latency_seconds", {"source": "request"}, server.times)
    if server.golden:
        state = {"state": server.golden["state"]}
        told.append(("yoloserve_golden_state", state, 1))
    if server.golden and server.golden["state"] == "done":
        golden = "yoloserve_golden"
        told.append((f"{golden}_map50", {}, server.golden["map50"]))
        told.append((f"{golden}_images", {}, server.golden.get("images", 0)))
        told.append((f"{golden}_done", {"set_sha256": server.golden["set_sha256"]}, 1))
    if server.revision == server.compares:
        return told
    canary = {"canary": server.compares}
    for outcome, n in {"compared": 0, **server.frames}.items():
        told.append((f"{shadow}_frames_total", canary | {"outcome": outcome}, n))
    for what, rows in (("expected", server.expected), ("kept", server.kept)):
        for name, row in rows.items():
            for size, n in zip(("small", "medium", "large"), row, strict=True):
                told.append((f"{shadow}_{what}_total", canary | {"class": name, "size": size}, n))
    for name, others in server.confused.items():
        for other, n in others.items():
            labels = canary | {"class": name, "other": other}
            told.append((f"{shadow}_confused_total", labels, n))
    for what in ("sure", "only_stable", "only_canary"):
        for name, n in getattr(server, what).items():
            told.append((f"{shadow}_{what}_total", canary | {"class": name}, n))
    told.append((f"{shadow}_seen_total", canary, server.seen))
    told.append((f"{shadow}_blind_total", canary, server.blind))
    for arm, counts in server.compute.items():
        told += _histogram(f"{shadow}_compute_seconds", canary | {"arm": arm}, counts)
    return told


def _histogram(name: str, labels: dict[str, str], counts: Iterable[int]) -> list[Series]:
    edges = zip(_EDGES, accumulate(counts), strict=True)
    return [(f"{name}_bucket", labels | {"le": le}, n) for le, n in edges]


def text(told: Iterable[Series]) -> str:
    """Write series as a target does."""
    lines = []
    for name, labels, value in told:
        own = ",".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
        lines.append(f"{name}{{{own}}} {'+Inf' if value == float('inf') else repr(value)}\n")
    return "".join(lines)
