"""What pods claim of devices: the template that each pod of a revision gets its claim from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from yolofleet.api.accelerator import Accelerator
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child
from yolofleet.workloads.revision import Revision

KIND: Final = "ResourceClaimTemplate"
NAME: Final = "accelerator"
"""Of the claim in the pod, and of its one request."""

_WHERE: Final = " where "


@dataclass(frozen=True, slots=True)
class Ask:
    """What devices are asked for: of a class, and such as all `selectors` hold of."""

    device_class: str
    selectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, accelerator: Accelerator) -> "Ask":
        """Return what a spec asks for, whatever the number."""
        return cls(accelerator.device_class_name, tuple(accelerator.selectors))

    @property
    def name(self) -> str:
        """Return what such devices are counted under, beside the names of extended resources."""
        such = f"{_WHERE}{' && '.join(self.selectors)}" if self.selectors else ""
        return f"{self.device_class}{such}"


def class_of(name: str) -> str:
    """Return the class of the devices that are counted under `name`; a resource is its own."""
    return name.partition(_WHERE)[0]


def claimed(revision: Revision) -> dict[str, int]:
    """Return how many devices one pod of `revision` claims, by their name."""
    asked = revision.accelerator
    return {Ask.of(asked).name: asked.count} if asked else {}


# writing


def claim_template(detector: Detector, revision: Revision, asked: Accelerator) -> Manifest:
    """Return the template of the claims of a revision's pods; nobody can change it.

    What the API server would fill in is written out: so it is kept as it is written. The claims
    have the labels of their pods, by which it is known whose they are.
    """
    exactly: dict[str, Any] = {
        "deviceClassName": asked.device_class_name,
        "allocationMode": "ExactCount",
        "count": asked.count,
    }
    if asked.selectors:
        exactly["selectors"] = [{"cel": {"expression": each}} for each in asked.selectors]
    return child(
        "resource_claim_template.yaml.j2",
        detector,
        revision.name,
        revision=revision.name,
        requests=[{"name": NAME, "exactly": exactly}],
    )


def pod_claims(revision: Revision) -> list[dict[str, str]] | None:
    """Return the claims of a pod of `revision`; None: it has none."""
    if revision.accelerator is None:
        return None
    return [{"name": NAME, "resourceClaimTemplateName": revision.name}]


def container_claims(revision: Revision) -> dict[str, list[dict[str, str]]]:
    """Return what of them is the server's, as a part of its `resources`."""
    return {"claims": [{"name": NAME}]} if revision.accelerator else {}


# reading


def asked_in(templates: Iterable[Manifest]) -> Iterator[tuple[str, Ask, int]]:
    """Return what templates of ours ask for: the name of each, the devices, and how many."""
    for template in templates:
        for request in template["spec"]["spec"].get("devices", {}).get("requests", ()):
            exactly: Mapping[str, Any] = request.get("exactly") or {}
            selectors = (each["cel"]["expression"] for each in exactly.get("selectors") or ())
            ask = Ask(exactly.get("deviceClassName", ""), tuple(selectors))
            yield template["metadata"]["name"], ask, int(exactly.get("count", 1))
