"""Detectors as a tree: each with its revisions, and these with their pods; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from yolofleet.api.plain import plain
from yolofleet.api.seen import Raw, Seen
from yolofleet.cli import pods as of_pod

HEAD: Final = ("NAME", "ROLE", "WEIGHT", "READY", "STATUS")


@dataclass(frozen=True, slots=True)
class Line:
    """One line before it is aligned; below: what hangs on it."""

    name: str
    role: str = ""
    weight: str = ""
    ready: str = ""
    says: str = ""
    below: tuple[Line, ...] = ()


def tree(
    detectors: Iterable[Seen], pods: Sequence[Raw], *, now: datetime | None, wide: bool
) -> str:
    """Return the text; wide: whether detectors are of several namespaces.

    now: what ages are told by; without it times are told, which stay true in a file.
    """
    rows: list[tuple[str, ...]] = [HEAD]
    for seen in sorted(detectors, key=lambda each: (each.namespace, each.name)):
        top = _detector(seen, of_pod.pods_of(seen, pods), now, wide=wide)
        rows += _drawn(top, "", "")
    return "\n".join(_aligned(rows)) + "\n"


def _drawn(line: Line, before: str, under: str) -> Iterator[tuple[str, ...]]:
    yield (before + line.name, line.role, line.weight, line.ready, plain(line.says))
    for number, each in enumerate(line.below, 1):
        last = number == len(line.below)
        yield from _drawn(
            each, under + ("└─ " if last else "├─ "), under + ("   " if last else "│  ")
        )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    for *cells, says in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join([*padded, says]).rstrip()


def _detector(seen: Seen, pods: Sequence[Raw], now: datetime | None, *, wide: bool) -> Line:
    shown = {each["name"] for each in seen.revisions}
    stray = [pod for pod in pods if of_pod.revision_of(pod) not in shown]
    below = [_revision(seen, each, pods) for each in seen.revisions]
    below += [_pod(pod) for pod in stray]
    below += [line for line in (_step(seen, now), _analysis(seen)) if line]
    return Line(
        name=f"{seen.namespace}/{seen.name}" if wide else seen.name,
        ready=str(seen.status.get("ready") or ""),
        says=" · ".join(filter(None, (seen.summary, str(seen.status.get("url") or "")))),
        below=tuple(below),
    )


def _revision(seen: Seen, serving: Raw, pods: Sequence[Raw]) -> Line:
    name = serving["name"]
    own = [pod for pod in pods if of_pod.revision_of(pod) == name]
    return Line(
        name=name,
        role=str(serving.get("role", "")),
        weight=f"{serving.get('weight', 0)} %",
        ready=f"{serving.get('ready', 0)}/{serving.get('desired', 0)}",
        says=" · ".join(filter(None, (str(serving.get("model") or ""), _failed(seen, name)))),
        below=tuple(_pod(pod) for pod in own),
    )


def _failed(seen: Seen, name: str) -> str:
    for failed in (seen.status.get("analysis") or {}).get("failed") or ():
        if failed["revision"] == name:
            return f"called off: {failed['check']}"
    return ""


def _pod(pod: Raw) -> Line:
    ready = "yes" if of_pod.is_ready(pod) else "no"
    return Line(name=pod["metadata"]["name"], ready=ready, says=of_pod.state_in_words(pod))


def _step(seen: Seen, now: datetime | None) -> Line | None:
    release = seen.release
    if not release:
        return None
    step, steps = int(release.get("step") or 0), int(release.get("steps") or 0)
    of = f" of {steps}" if steps else ""  # an older operator does not tell
    where = f"step {step}{of}" if step else str(release.get("strategy") or "release")
    since = _since(str(release.get("since") or ""), now)
    reason = str(seen.condition("Progressing").get("reason") or "")
    says = ", ".join(filter(None, (str(release["revision"]), reason, since)))
    return Line(name=where, weight=f"{release.get('weight', 0)} %", says=says)


def _analysis(seen: Seen) -> Line | None:
    found = seen.status.get("analysis") or {}
    if not found.get("revision"):
        return None
    checks = tuple(Line(name=each["name"], says=_check(each)) for each in found.get("checks") or ())
    says = f"{found['revision']}: {found.get('said') or found.get('verdict', '')}"
    return Line(name="analysis", says=says, below=checks)


def _check(check: Raw) -> str:
    words = [str(check["verdict"])]
    if (value := check.get("value")) is not None:
        words.append(f"{value:.3g}")
    if (limit := check.get("limit")) is not None:
        words.append(f"(limit {limit:.3g})")
    line = " ".join(words)
    return f"{line}: {check['message']}" if check.get("message") else line


def _since(time: str, now: datetime | None) -> str:
    if not time or now is None:
        return time and f"since {time}"
    since = datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone(UTC)
    seconds = max(int((now - since).total_seconds()), 0)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"since {seconds // size} {unit}"
    return f"since {seconds} s"
