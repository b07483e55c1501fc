"""Revisions: what makes one, its name, and the record of it.

A revision is immutable. Its name is a hash of what changes the pods and of nothing else. What it
was rendered with (image, render version) is recorded beside that, so that a new operator, or other
defaults, render a running revision exactly as it is. The record is on its Deployment, where older
operators look for it, and in a ControllerRevision, which stays when somebody deletes the former.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from yolofleet.api.accelerator import Accelerator
from yolofleet.api.access import Guard
from yolofleet.api.analysis import Golden
from yolofleet.api.base import ApiModel, seconds
from yolofleet.api.detector import (
    DetectorSpec,
    Engine,
    Inference,
    Model,
    Ray,
    Resources,
    Runtime,
)
from yolofleet.api.names import revision_name
from yolofleet.api.pod_template import PodTemplate
from yolofleet.runtime.amounts import POD, RESOURCES, Places, respelled

RENDER_VERSION = 4
"""Raise it when builders make other pods of the same revision; keep rendering the older ones.

2: pods that ask for an accelerator tolerate its usual taint. 3: pods run as the ServiceAccount
of their detector. 4: pods tell their evidence on a port of its own, and read what may change while
they run.
"""

FIRST_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}
"""By part and field: the default that a field came with, once it has another.

The API server has written that default into every detector it stored. Measured by the new one, it
would be a choice of the user's, and an upgrade would make a new revision of the whole fleet.
"""


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Where the pictures are whose objects are known: a ConfigMap, or a volume of the pods."""

    config_map: str = ""
    volume: str = ""

    @classmethod
    def of(cls, golden: Golden) -> "GoldenSet":
        """Return where the set is that a spec names."""
        return cls(golden.config_map or "", golden.volume or "")


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable way to run a detector. Everything its pods depend on, and nothing else."""

    name: str
    model: Model
    runtime: Runtime
    inference: Inference
    resources: Resources
    guard: Guard
    pod_template: PodTemplate
    image: str
    pull_policy: str
    drain_seconds: int
    render_version: int
    golden: GoldenSet | None = None
    accelerator: Accelerator | None = None

    def __hash__(self) -> int:
        """Return the hash of what tells revisions apart; two are equal that are alike in all."""
        return hash((self.name, self.image, self.render_version))

    def record(self) -> str:
        """Return what it is remembered by; `recorded` reads it back."""
        rendered: dict[str, Any] = {
            "version": self.render_version,
            "image": self.image,
            "pullPolicy": self.pull_policy,
            "drainSeconds": self.drain_seconds,
        }
        if self.golden:
            rendered["golden"] = asdict(self.golden)
        return _as_text({"render": rendered, "spec": identity(self), "whole": _whole(self)})


_OF_RAY: Final = {"engine", "ray"}


def _whole(revision: "Revision") -> dict[str, Any]:
    """Return every part with its defaults, which a later version may have changed.

    What is only Ray's is left out elsewhere: records of Deployments stay as they were before it.
    """
    whole = {
        name: part.model_dump(mode="json", by_alias=True) for name, part in _parts(revision).items()
    }
    if revision.runtime.engine is Engine.DEPLOYMENT:
        whole["runtime"] = {k: v for k, v in whole["runtime"].items() if k not in _OF_RAY}
    return whole


def _parts(revision: "Revision | DetectorSpec") -> dict[str, ApiModel]:
    guard = revision.guard if isinstance(revision, Revision) else revision.access.guard
    parts: dict[str, ApiModel] = {
        "model": revision.model,
        "runtime": _as_run(revision.runtime),
        "inference": revision.inference,
        "resources": revision.resources,
        "access": guard,
        "podTemplate": revision.pod_template,
    }
    return parts | ({"accelerator": revision.accelerator} if revision.accelerator else {})


def _as_run(runtime: Runtime) -> Runtime:
    """Return `runtime` without what only another engine would have: a canary inherits that."""
    if runtime.engine is Engine.RAY:
        return runtime if runtime.ray else runtime.model_copy(update={"ray": Ray()})
    return runtime.model_copy(update={"ray": None}) if runtime.ray else runtime


def identity(revision: "Revision | DetectorSpec") -> dict[str, Any]:
    """Return what changes the pods. Defaults are left out: a later default is no new revision."""
    dumped = {name: _undefaulted(name, part) for name, part in _parts(revision).items()}
    return {name: part for name, part in dumped.items() if part}


def _undefaulted(name: str, part: ApiModel) -> dict[str, Any]:
    dumped = part.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for field, first in FIRST_DEFAULTS.get(name, {}).items():
        dumped.pop(field, None)
        if (value := part.model_dump(mode="json", by_alias=True)[field]) != first:
            dumped[field] = value
    return dumped


_AMOUNTS: Places = {"resources": RESOURCES, "podTemplate": {"spec": POD}}


def meaning(revision: "Revision | DetectorSpec") -> dict[str, Any]:
    """Return what two of the same pods have in common, in whatever words they were asked for.

    A revision's name is made of its words, and stays: 0.5 in the place of 500m finds it by this.
    """
    fields: dict[str, Any] = respelled(identity(revision), _AMOUNTS)
    if deadline := fields.get("inference", {}).get("deadline"):
        fields["inference"] = fields["inference"] | {"deadline": seconds(deadline)}
    return fields


def named(detector: str, identity: Mapping[str, Any]) -> str:
    """Return the name of the revision with this identity."""
    return revision_name(detector, hashlib.sha256(_as_text(identity).encode()).hexdigest())


def revision_of(
    spec: DetectorSpec,
    name: str,
    *,
    image: str,
    pull_policy: str,
    drain_seconds: int,
    render_version: int | None = None,
    golden: GoldenSet | None = None,
) -> Revision:
    """Return the revision of what `spec` says of the pods.

    render_version: by which it was rendered first; None: it is now, by the present one.
    """
    return Revision(
        name=name,
        model=spec.model,
        runtime=_as_run(spec.runtime),
        inference=spec.inference,
        resources=spec.resources,
        guard=spec.access.guard,
        pod_template=spec.pod_template,
        image=image,
        pull_policy=pull_policy,
        drain_seconds=drain_seconds,
        render_version=RENDER_VERSION if render_version is None else render_version,
        golden=golden,
        accelerator=spec.accelerator,
    )


def rendered_as(revision: Revision, other: Revision) -> Revision:
    """Return `revision` in its own words, rendered as `other` is."""
    return replace(
        revision,
        image=other.image,
        pull_policy=other.pull_policy,
        drain_seconds=other.drain_seconds,
        render_version=other.render_version,
        golden=other.golden,
    )


@lru_cache(maxsize=2048)  # each reconcile reads the few of its detector, several times
def recorded(detector: str, name: str, record: str) -> Revision | None:
    """Read back the revision `name`; None when its record was edited, or is of a later version."""
    try:
        written = json.loads(record)
        spec = DetectorSpec.model_validate(written["whole"])
        rendered = written["render"]
        revision = revision_of(
            spec,
            named(detector, written["spec"]),
            image=str(rendered["image"]),
            pull_policy=str(rendered["pullPolicy"]),
            drain_seconds=int(rendered["drainSeconds"]),
            render_version=int(rendered["version"]),
            golden=GoldenSet(**rendered["golden"]) if "golden" in rendered else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
    return revision if revision.name == name else None


def read_back(name: str, record: str) -> Revision | None:
    """Read back the revision `name`, of whichever detector it is."""
    return recorded(name.rpartition("-")[0], name, record)


def _as_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
