"""What tests and benchmarks do to a cluster, as a user or another controller would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes import config
from kubernetes.client import Configuration

from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import APPLY, Client, Request
from yolofleet.runtime.credentials import Credentials, credentials_of
from yolofleet.runtime.errors import ClusterError, NotFound
from yolofleet.runtime.kind import CRD, EVENT, LEASE, Kind

MERGE: Final = "application/merge-patch+json"

NAMESPACE: Final = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
REPLICA_SET: Final = Kind("apps", "v1", "ReplicaSet", "replicasets")
_RBAC = ("rbac.authorization.k8s.io", "v1")
CLUSTER_ROLE: Final = Kind(*_RBAC, "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING: Final = Kind(
    *_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
RESOURCE_QUOTA: Final = Kind("", "v1", "ResourceQuota", "resourcequotas")
LIMIT_RANGE: Final = Kind("", "v1", "LimitRange", "limitranges")
CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps")
_ADMISSION = ("admissionregistration.k8s.io", "v1")
POLICY: Final = Kind(
    *_ADMISSION, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False
)
POLICY_BINDING: Final = Kind(
    *_ADMISSION,
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
KINDS: Final = (
    *kinds.CACHED,
    kinds.CLAIM,
    kinds.DEVICE_CLASS,
    kinds.DEVICE_SLICE,
    CRD,
    LEASE,
    EVENT,
    NAMESPACE,
    REPLICA_SET,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    RESOURCE_QUOTA,
    LIMIT_RANGE,
    CONFIG_MAP,
    POLICY,
    POLICY_BINDING,
)


class Kube:
    """A person with kubectl, with the name of a field manager of their own."""

    def __init__(self, client: Client, manager: str = "kubectl-edit") -> None:
        self.client = client
        self._manager = manager

    def acting_as(self, manager: str) -> Kube:
        """Return the same cluster as seen by another field manager."""
        return Kube(self.client, manager)

    async def create(self, manifest: Manifest) -> Manifest:
        """Make an object."""
        path = _kind(manifest).path(manifest["metadata"].get("namespace", ""))
        return await self.client.send(Request("POST", path, self._query(), manifest))

    async def apply(self, manifest: Manifest, *, force: bool = True) -> Manifest:
        """Apply an object on the server's side."""
        metadata = manifest["metadata"]
        path = _kind(manifest).path(metadata.get("namespace", ""), metadata["name"])
        query = self._query() | {"force": "true" if force else "false"}
        return await self.client.send(Request("PATCH", path, query, manifest, APPLY))

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Manifest, subresource: str = ""
    ) -> Manifest:
        """Change fields of an object as `kubectl patch --type=merge` does; None removes one."""
        path = kind.path(namespace, name, subresource)
        return await self.client.send(Request("PATCH", path, self._query(), patch, MERGE))

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """Read an object. Raises `NotFound`."""
        return await self.client.send(Request("GET", kind.path(namespace, name)))

    async def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Read an object; None if there is none."""
        return await self.client.find(kind, namespace, name)

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Manifest]:
        """Read all objects of a kind."""
        listing = await self.client.list(
            kind, lambda item: item, namespace=namespace, selector=selector
        )
        return listing.items

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object, if there is one; what it owns goes in the background."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self.client.send(Request("DELETE", kind.path(namespace, name), body=body))
        except NotFound:
            return

    async def install(self, *paths: Path) -> None:
        """Apply the manifests of YAML files, and wait until their CRDs are served."""
        for path in paths:
            for manifest in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
                await self.apply(manifest)
                if manifest["kind"] == "CustomResourceDefinition":
                    await self._served(manifest)

    async def _served(self, definition: Manifest) -> None:
        spec = definition["spec"]
        version = spec["versions"][0]["name"]
        kind = Kind(spec["group"], version, spec["names"]["kind"], spec["names"]["plural"])

        async def listable() -> bool:
            await self.list(kind)
            return await self.client.serves(kind)  # which operators ask for

        await eventually(listable)

    def _query(self) -> dict[str, str]:
        return {"fieldManager": self._manager}


PATIENCE_S: Final = 180.0
"""What takes three seconds may take a minute on a busy machine; only failures wait for so long."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.2  # asking costs the API server, and many ask at once


async def eventually(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Return what `condition` (sync or async) returns as soon as that is true.

    The cluster's errors, failed assertions and lost connections count as not yet; the last one
    explains the failure.
    """
    deadline = time.monotonic() + timeout_s
    last: Any = None
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            last = condition()
            if isinstance(last, Awaitable):
                last = await last
            if last:
                return last
        except (ClusterError, AssertionError, LookupError, ValueError, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s; at last: {last!r}")
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.1, LONGEST_PAUSE_S)


async def always(condition: Callable[[], Awaitable[Any]], for_s: float) -> None:
    """Fail as soon as `condition` is not true during `for_s` seconds."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        found = await condition()
        assert found, f"not for {for_s:.0f} s: {found!r}"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def connect(kubeconfig: Path, **options: Any) -> AsyncIterator[Client]:
    """Give a client for `kubeconfig`, who waits for an API server that gets no processor."""
    found = credentials_from(kubeconfig)
    patient = {"timeout_s": PATIENCE_S, "connect_s": PATIENCE_S}
    async with found.session() as session:
        yield Client(found, session, **(patient | options))


def credentials_from(kubeconfig: Path) -> Credentials:
    """Read the credentials of `kubeconfig`."""
    found = Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=found)
    return credentials_of(found)


def _kind(manifest: Manifest) -> Kind:
    for kind in KINDS:
        if (kind.api_version, kind.name) == (manifest["apiVersion"], manifest["kind"]):
            return kind
    raise KeyError(f"{manifest['apiVersion']} {manifest['kind']} is not a kind that tests know")
