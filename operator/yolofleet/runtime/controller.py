"""Who a controller is: what it is called, how it signs what it writes and knows it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from yolofleet.runtime.kind import Kind
from yolofleet.runtime.objects import Manifest, controller_of


@dataclass(frozen=True, slots=True)
class Controller:
    """The names of one controller, whose children are made for parents of one kind."""

    parent: Kind
    word: str
    """What people call a parent: in log lines, say."""
    manager: str
    """The field manager of its children; `status_manager` that of the status of parents."""
    status_manager: str
    handover_manager: str
    """Keeps the replicas that are left to an autoscaler until that one sets them."""
    applied_annotation: str
    """On every child: hashes of what was last applied, part by part."""
    labels: Mapping[str, str]
    """On every child: what selects all of them."""
    parent_label: str
    """On every child: the name of its parent."""
    part_label: str = ""
    """On a child that is not called as its parent is: what it is called."""
    suffixes: tuple[str, ...] = ()
    """What a child may be called beside these: as its parent, a hyphen, and one of them."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What people are told of field managers whose names say little."""

    @property
    def managers(self) -> tuple[str, ...]:
        """The field managers that are its own."""
        return self.manager, self.status_manager, self.handover_manager

    @property
    def applied_path(self) -> tuple[str, str, str]:
        """Where in a child the hashes of what was last applied are."""
        return "metadata", "annotations", self.applied_annotation

    def selector(self, parent: str = "") -> str:
        """Return the label selector of what it made, of `parent` alone if that is named."""
        labels = dict(self.labels) | ({self.parent_label: parent} if parent else {})
        return ",".join(f"{name}={value}" for name, value in labels.items())

    def owner_key(self, manifest: Manifest) -> str:
        """Return "namespace/name" of the parent that `manifest` belongs to, or nothing."""
        metadata, controller = manifest["metadata"], controller_of(manifest)
        if controller.get("kind") == self.parent.name:
            return f"{metadata['namespace']}/{controller['name']}"
        parent = (metadata.get("labels") or {}).get(self.parent_label, "")
        return f"{metadata['namespace']}/{parent}" if parent else ""

    def is_free(self, manifest: Manifest, key: str) -> bool:
        """Say whether `manifest` is beyond doubt of the parent `key`, and nobody owns it any more.

        Its name and labels are what the controller gives, and nobody else controls it: restored
        from a backup, or left behind by `--cascade=orphan`. Of two parents of that name one is
        gone: who would take it for the other asks first which one is there.
        """
        metadata, (namespace, _, name) = manifest["metadata"], key.partition("/")
        labels, controller = metadata.get("labels") or {}, controller_of(manifest)
        ours = dict(self.labels) | {self.parent_label: name}
        owner = (controller.get("kind"), controller.get("name"))
        return (
            metadata.get("namespace") == namespace
            and ours.items() <= labels.items()
            and metadata["name"]
            in (name, labels.get(self.part_label), *(f"{name}-{end}" for end in self.suffixes))
            and (not controller or owner == (self.parent.name, name))
        )
