"""Every write, as the API server recorded it: who, what, and when it was answered.

A peer's manager comes as the same user as our operator, so that it is read the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from cluster import assets
from controlplane.plane import OPERATOR_USER, ControlPlane, control_plane
from yolofleet.api.names import PLURAL

OWNERS: Final = frozenset({PLURAL, "rayclusters", "inferenceservices"})
"""What users write, of ours and of the peers: all else that a manager writes is a child."""
_WRITES: Final = ["create", "update", "patch", "delete"]
POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": [OPERATOR_USER, "admin"], "verbs": _WRITES},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Write:
    """One write. at: when it was answered, in seconds since 1970; took: seconds."""

    at: float
    took: float
    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int

    @property
    def of_operator(self) -> bool:
        """Return whether the operator sent it, and it is neither its Lease nor an Event."""
        return self.user == OPERATOR_USER and self.resource not in ("leases", "events")

    @property
    def of_child(self) -> bool:
        """Return whether the operator changed a child with it."""
        return self.of_operator and self.resource not in OWNERS and self.code < 400


class Audit:
    """The audit log of a running API server."""

    def __init__(self, folder: Path) -> None:
        self._policy = folder / "audit-policy.yaml"
        self._log = folder / "audit.log"
        self._read_up_to = 0
        self.writes: list[Write] = []
        self.last = 0.0  # when the operator last wrote

    def arguments(self) -> list[str]:
        """Write the policy, and return what the API server is started with."""
        self._policy.write_text(yaml.safe_dump(POLICY))
        return [
            f"--audit-policy-file={self._policy}",
            f"--audit-log-path={self._log}",
            "--audit-log-mode=blocking",  # nothing is late or lost
            "--audit-log-maxsize=10000",  # one file
        ]

    def read(self) -> list[Write]:
        """Read what was written since the last time; return all."""
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read_up_to)
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read_up_to += len(whole)
            found = [_write(orjson.loads(line)) for line in whole.splitlines()]
            self.last = max([self.last, *(write.at for write in found if write.of_operator)])
            self.writes += found
        return self.writes

    def since(self, moment: float) -> list[Write]:
        """Return the writes answered after `moment`."""
        return [write for write in self.read() if write.at > moment]

    async def quiet(self, for_s: float = 3.0, timeout_s: float = 1800.0) -> float:
        """Wait until the operator has not written for `for_s`; return when it last did."""
        began = time.time()
        while time.time() - began < timeout_s:
            self.read()
            last = self.last
            if time.time() - max(last, began) > for_s:
                return last
            await asyncio.sleep(0.2)
        raise TimeoutError(f"the operator still writes after {timeout_s:.0f} s")


def _write(line: Any) -> Write:
    about = line.get("objectRef", {})
    received, answered = (
        _seconds(line["requestReceivedTimestamp"]),
        _seconds(line["stageTimestamp"]),
    )
    return Write(
        at=answered,
        took=answered - received,
        user=line["user"]["username"],
        verb=line["verb"],
        resource=about.get("resource", ""),
        subresource=about.get("subresource", ""),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=line.get("responseStatus", {}).get("code", 0),
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


SILENCE_S: Final = 1.0
"""What the operator writes about a detector after such a pause has another cause."""


def by_detector(write: Write) -> str:
    """Return the detector that a write is about; names of detectors are of one length (`fleet`)."""
    return write.name[:6]


def by_namespace(write: Write) -> str:
    """Return its namespace: a name that the API server makes up is not in its audit log."""
    return write.namespace


def last_effects(
    causes: Sequence[Write], writes: Iterable[Write], whose: Callable[[Write], str] = by_detector
) -> Iterator[float]:
    """Return for each cause the seconds until the last child of the same was written."""
    of: dict[str, list[float]] = {}
    for write in writes:
        if write.of_child:
            of.setdefault(whose(write), []).append(write.at)
    following: dict[str, float] = {}
    for cause in reversed(causes):
        until = following.get(whose(cause), float("inf"))
        following[whose(cause)] = cause.at
        effects = [at for at in sorted(of.get(whose(cause), ())) if cause.at < at < until]
        last = None
        for at in effects:
            if last is not None and at - last > SILENCE_S:
                break
            last = at
        if last is not None:
            yield last - cause.at


def repairs(causes: Iterable[Write], writes: Iterable[Write]) -> Iterator[float]:
    """Return for each cause the seconds until the operator wrote the same object."""
    of: dict[tuple[str, str], list[float]] = {}
    for write in writes:
        if write.of_child:
            of.setdefault((write.resource, write.name), []).append(write.at)
    for cause in causes:
        if after := [at for at in of.get((cause.resource, cause.name), ()) if at > cause.at]:
            yield min(after) - cause.at


@contextlib.contextmanager
def audited_plane() -> Iterator[tuple[ControlPlane, Audit]]:
    """Run a control plane without controllers, and have all that is written recorded."""
    audits: list[Audit] = []

    def configure(folder: Path) -> list[str]:
        audits.append(Audit(folder))
        return audits[0].arguments()

    with control_plane(assets.directory(), configure=configure, controllers=False) as plane:
        yield plane, audits[0]
