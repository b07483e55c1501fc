"""Devices of the cluster: which there are, and who has them, as drivers publish it; pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from yolofleet.api.names import DETECTOR_LABEL, Manifest
from yolofleet.plan.selectors import Device
from yolofleet.runtime.objects import controller_uid
from yolofleet.workloads.claims import Ask

DeviceId = tuple[str, str, str]

ANYWHERE: Final = ""
"""The node of devices that are reached from several: they are counted on each."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a device. detector: "namespace/name"; empty: somebody else. pod: its uid."""

    detector: str = ""
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Suitable:
    """By node, how many devices would do, and who has some. whole: whether each surely would."""

    by_node: Mapping[str, tuple[int, tuple[Holder, ...]]]
    whole: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is of devices, as it was read.

    classes: by name, the selectors of each DeviceClass; None: the API is not there, or not for us.
    held: who has each device that is allocated.
    blind: whether claims of other namespaces could not be seen. suitable: what of it would do, by
    what was asked for: worked out once for all detectors.
    """

    classes: Mapping[str, tuple[str, ...]] | None = None
    devices: tuple[Device, ...] = ()
    held: Mapping[DeviceId, Holder] = field(default_factory=dict)
    blind: bool = False
    suitable: dict[Ask, Suitable] = field(default_factory=dict, repr=False, compare=False)


def devices_in(slices: Iterable[Manifest]) -> Iterator[Device]:
    """Return the devices of the newest generation of each pool."""
    slices = list(slices)
    newest: dict[tuple[str, str], int] = {}
    for each in slices:
        pool, generation = _pool(each)
        newest[pool] = max(newest.get(pool, generation), generation)
    for each in slices:
        pool, generation = _pool(each)
        if generation == newest[pool]:
            for device in each["spec"].get("devices") or ():
                yield _device(*pool, each["spec"].get("nodeName", ANYWHERE), device)


def _pool(slice_: Manifest) -> tuple[tuple[str, str], int]:
    spec = slice_["spec"]
    return (spec["driver"], spec["pool"]["name"]), int(spec["pool"].get("generation", 0))


def _device(driver: str, pool: str, node: str, device: Mapping[str, Any]) -> Device:
    attributes = {
        _whole(driver, name): next((value[each] for each in _READ if each in value), None)
        for name, value in (device.get("attributes") or {}).items()
    }
    capacity = {
        _whole(driver, name): value.get("value")
        for name, value in (device.get("capacity") or {}).items()
    }
    return Device(
        driver,
        pool,
        device["name"],
        device.get("nodeName", node),
        attributes,
        capacity,
        intricate=any(device.get(name) for name in _INTRICATE),
        shared=bool(device.get(_SHARED)),
    )


_READ: Final = ("string", "int", "bool")
"""What attributes are compared with. To CEL a version, or a list, is neither of them."""

_SHARED: Final = "allowMultipleAllocations"
_INTRICATE: Final = ("taints", "consumesCounters", "bindingConditions", _SHARED)
"""By what of a device only the scheduler can tell whether it can be had."""


def _whole(driver: str, name: str) -> str:
    """Return the name of an attribute with its domain, which is the driver's where none is said."""
    return name if "/" in name else f"{driver}/{name}"


def class_in(device_class: Manifest) -> tuple[str, ...]:
    """Return the selectors of a DeviceClass."""
    selectors = (device_class.get("spec") or {}).get("selectors") or ()
    return tuple(each.get("cel", {}).get("expression", "") for each in selectors)


def held_by(claim: Manifest) -> Iterator[tuple[DeviceId, Holder]]:
    """Return the devices that `claim` has, and whose it is. Who only looks on holds none."""
    metadata = claim["metadata"]
    detector = (metadata.get("labels") or {}).get(DETECTOR_LABEL)
    holder = Holder(
        f"{metadata['namespace']}/{detector}" if detector else "", controller_uid(claim)
    )
    allocation = (claim.get("status") or {}).get("allocation") or {}
    for result in (allocation.get("devices") or {}).get("results") or ():
        if not result.get("adminAccess"):
            yield (result["driver"], result["pool"], result["device"]), holder
