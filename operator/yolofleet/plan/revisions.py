"""Which revisions a spec asks for: the one to be released on, and the one on trial."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from yolofleet.api.base import REMEMBERED, ApiModel
from yolofleet.api.detector import Backend, Canary, Detector, DetectorSpec, Engine
from yolofleet.plan.defaults import Defaults
from yolofleet.workloads.revision import GoldenSet, Revision, identity, meaning, named, revision_of

CANARY_EQUAL = (
    "spec.canary: is equal to the stable revision, in other words; change its model, runtime,"
    " inference, resources, accelerator or podTemplate, or remove canary"
)


def stable_revision(detector: Detector, defaults: Defaults) -> Revision:
    """Return the revision that the spec asks for."""
    return _revision(_asked(detector)[0], defaults)


def canary_revision(detector: Detector, defaults: Defaults) -> Revision | None:
    """Return the revision on trial; None without one, or when it equals the stable one."""
    trial = _asked(detector)[1]
    return _revision(trial, defaults) if trial else None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a revision is made of, and its name."""

    name: str
    spec: DetectorSpec


@lru_cache(maxsize=REMEMBERED)
def _asked(detector: Detector) -> tuple[_Asked, _Asked | None]:
    """Return what the spec asks to be released on, and what to be on trial."""
    spec, canary = detector.spec, detector.spec.canary
    stable = _Asked(named(detector.name, identity(spec)), spec)
    if canary is None or canary_is_equal(spec):
        return stable, None
    trial = spec.model_copy(update=_overrides(spec, canary))
    return stable, _Asked(named(detector.name, identity(trial)), trial)


def canary_is_equal(spec: DetectorSpec) -> bool:
    """Say whether the canary is the spec's own revision, in these words or in others."""
    if spec.canary is None:
        return False
    return meaning(spec.model_copy(update=_overrides(spec, spec.canary))) == meaning(spec)


def _overrides(spec: DetectorSpec, canary: Canary) -> dict[str, Any]:
    """Return the parts in which the canary differs: small parts by field, the others whole."""
    update: dict[str, Any] = {
        "runtime": spec.runtime.model_copy(update=_given(canary.runtime)),
        "inference": spec.inference.model_copy(update=_given(canary.inference)),
    }
    if canary.model is not None:
        update["model"] = canary.model
    if canary.resources is not None:
        update["resources"] = canary.resources
    if canary.accelerator is not None:
        update["accelerator"] = canary.accelerator
    elif canary.resources and canary.resources.accelerators:
        update["accelerator"] = None  # they take its place: pods would have both
    if canary.pod_template is not None:
        update["pod_template"] = canary.pod_template
    return update


def _given(part: ApiModel) -> dict[str, Any]:
    """Return the fields that the user wrote, were they those of the default: they win."""
    return {name: getattr(part, name) for name in part.model_fields_set}


def _revision(asked: _Asked, defaults: Defaults) -> Revision:
    spec = asked.spec
    return revision_of(
        spec,
        asked.name,
        image=spec.runtime.image or _image(spec, defaults),
        pull_policy=defaults.image_pull_policy,
        drain_seconds=defaults.drain_seconds,
        golden=_golden(spec),
    )


def _golden(spec: DetectorSpec) -> GoldenSet | None:
    """Return what a revision made now is tried on; one that runs keeps what it was made with."""
    golden = spec.rollout.analysis and spec.rollout.analysis.golden
    return GoldenSet.of(golden) if golden else None


def _image(spec: DetectorSpec, defaults: Defaults) -> str:
    if spec.runtime.engine is Engine.RAY:
        return defaults.image_ray
    if spec.resources.accelerators or spec.accelerator:
        return defaults.image_gpu
    if spec.runtime.backend is Backend.TORCH:
        return defaults.image_torch
    return defaults.image_cpu
