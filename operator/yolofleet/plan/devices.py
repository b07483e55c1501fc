"""Devices that a detector asks for: which of those of the cluster would do, and are free; pure."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from yolofleet.api.accelerator import Accelerator
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.plan.inventory import ANYWHERE, Holder, Inventory, Suitable
from yolofleet.plan.selectors import selector
from yolofleet.workloads import claims
from yolofleet.workloads.accelerators import place
from yolofleet.workloads.claims import Ask, class_of


@dataclass(frozen=True, slots=True)
class Offer:
    """Of devices that would do, on one node: how many there are, are free, and are one's own."""

    offered: int
    free: int
    own: int

    def __add__(self, other: "Offer") -> "Offer":
        """Return what both are together."""
        return Offer(self.offered + other.offered, self.free + other.free, self.own + other.own)


@dataclass(frozen=True, slots=True)
class Offers:
    """By node, what there is of what is asked for. whole: whether each surely is such a one."""

    by_node: Mapping[str, Offer]
    whole: bool


def offers(asked: Ask, inventory: Inventory, key: str, gone: Callable[[Holder], bool]) -> Offers:
    """Return what of `asked` there is, as the detector `key` finds it.

    gone: says whose claim outlived its pod: it is taken away, and its devices are as good as free.
    """
    suitable = _suitable(asked, inventory)
    found = {}
    for node, (number, holders) in suitable.by_node.items():
        held = [holder for holder in holders if not gone(holder)]
        own = sum(holder.detector == key for holder in held)
        found[node] = Offer(number, number - len(held), own)
    return Offers(found, suitable.whole)


def _suitable(asked: Ask, inventory: Inventory) -> Suitable:
    """Return which devices would do: the same for all detectors that ask so."""
    if (known := inventory.suitable.get(asked)) is None:
        known = inventory.suitable[asked] = _chosen(asked, inventory)
    return known


def _chosen(asked: Ask, inventory: Inventory) -> Suitable:
    classes = inventory.classes or {}
    if asked.device_class not in classes:
        return Suitable({}, True)
    read = [selector(each) for each in (*classes[asked.device_class], *asked.selectors)]
    numbers, holders = Counter[str](), dict[str, list[Holder]]()
    sure = all(each.whole for each in read)
    for device in inventory.devices:
        if not all(each.holds(device) for each in read):
            continue
        numbers[device.node] += 1
        sure = sure and not device.intricate and all(each.reads(device) for each in read)
        if (holder := inventory.held.get(device.id)) and not device.shared:
            holders.setdefault(device.node, []).append(holder)
    by_node = {node: (number, tuple(holders.get(node, ()))) for node, number in numbers.items()}
    return Suitable(by_node, sure and ANYWHERE not in by_node)


@dataclass(frozen=True, slots=True)
class Devices:
    """What a detector finds of the devices that it asks for.

    by_ask: by their name, and by node. unsure: of which only the scheduler can tell for sure.
    templates: by the name of each, what the claims made from it ask for, and how many. listed: the
    uids of its own pods whose claims are among what was listed.
    """

    by_ask: Mapping[str, Mapping[str, Offer]] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    templates: Mapping[str, tuple[Ask, int]] = field(default_factory=dict)
    blind: bool = False
    listed: frozenset[str] = frozenset()

    def younger(self, pods: Iterable[Manifest]) -> dict[str, Counter[str]]:
        """Return by node what its own `pods` there claimed since claims were listed, by class."""
        found: dict[str, Counter[str]] = {}
        for pod in pods:
            for claim in pod.get("spec", {}).get("resourceClaims") or ():
                known = self.templates.get(claim.get("resourceClaimTemplateName", ""))
                if known and pod["metadata"]["uid"] not in self.listed:
                    ask, count = known
                    found.setdefault(place(pod), Counter())[ask.device_class] += count
        return found

    def on(self, node: str, younger: Mapping[str, int]) -> dict[str, Offer]:
        """Return what there is on `node`. younger: held there beside what was listed, by class."""
        found = {}
        for name, by_node in self.by_ask.items():
            if reached := [by_node[place] for place in (node, ANYWHERE) if place in by_node]:
                there = sum(reached[1:], start=reached[0])
                more = min(younger.get(class_of(name), 0), there.free)
                found[name] = Offer(there.offered, there.free - more, there.own + more)
        return found


def devices_for(
    detector: Detector,
    children: Iterable[Manifest],
    inventory: Inventory,
    gone: Callable[[Holder], bool] = lambda _: False,
) -> Devices:
    """Return what `detector` finds of the devices that its spec, or a revision of it, asks for."""
    made = (child for child in children if child["kind"] == claims.KIND)
    templates = {name: (ask, count) for name, ask, count in claims.asked_in(made)}
    asks = {ask for ask, _ in templates.values()} | {Ask.of(each) for each in _claimed(detector)}
    found = {ask.name: offers(ask, inventory, detector.key, gone) for ask in asks}
    return Devices(
        {name: offer.by_node for name, offer in found.items()},
        frozenset(name for name, offer in found.items() if not offer.whole),
        templates,
        inventory.blind,
        frozenset(each.pod for each in inventory.held.values() if each.detector == detector.key),
    )


def needs_devices(detector: Detector, children: Iterable[Manifest]) -> bool:
    """Say whether a revision of `detector` claims devices: in its spec, or in a child."""
    return bool(_claimed(detector)) or any(child["kind"] == claims.KIND for child in children)


def claims_in_vain(detector: Detector, device_classes: Collection[str] | None) -> bool:
    """Say whether a spec claims devices of a class that is not there: no node can bring any."""
    known = device_classes or ()
    return any(each.device_class_name not in known for each in _claimed(detector))


def _claimed(detector: Detector) -> list[Accelerator]:
    spec, canary = detector.spec, detector.spec.canary
    asked = (spec.accelerator, canary.accelerator if canary else None)
    return [each for each in asked if each is not None]
