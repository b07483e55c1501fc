"""The client against a real API server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.installation import ISTIO_CRDS
from controlplane.kube import Kube, connect
from controlplane.plane import OPERATOR, ControlPlane
from yolofleet.cluster import kinds
from yolofleet.runtime import client as requests
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeading,
    Untrusted,
)
from yolofleet.runtime.kind import LEASE


def a_service(namespace: str, name: str = "gate", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"of": name}},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


async def test_a_server_that_is_not_proved_is_not_taken_for_one_that_is_away(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """Its certificate is of an authority that only the kubeconfig names."""
    config = yaml.safe_load(plane.kubeconfig(OPERATOR).read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    async with connect(tmp_path / "config") as client:
        with pytest.raises(Untrusted, match="CERTIFICATE_VERIFY_FAILED"):
            await client.serves(kinds.POD)


async def test_applying_creates_and_then_changes_an_object(client: Client, namespace: str) -> None:
    made = await client.send(requests.apply(a_service(namespace), "yolofleet", force=True))
    assert made["spec"]["selector"] == {"app": "gate"}
    changed = a_service(namespace, selector={"app": "door"})
    answer = await client.send(requests.apply(changed, "yolofleet", force=True))
    assert answer["metadata"]["uid"] == made["metadata"]["uid"]
    assert answer["spec"]["selector"] == {"app": "door"}


async def test_applying_with_a_uid_never_creates(client: Client, namespace: str) -> None:
    service = a_service(namespace)
    service["metadata"]["uid"] = "0c1b7f6e-0000-4000-8000-000000000000"
    with pytest.raises(Conflict):
        await client.send(requests.apply(service, "yolofleet", force=True))
    assert await client.find(kinds.SERVICE, namespace, "gate") is None


async def test_what_was_created_without_an_apply_keeps_what_a_later_apply_drops(
    client: Client, namespace: str
) -> None:
    """A creation refuses what is there, in one request, but leaves a second manager of ours."""
    service = a_service(namespace)
    service["metadata"]["annotations"] = {"note": "of ours"}
    await client.send(requests.create(service, "yolofleet"))
    answer = await client.send(requests.apply(a_service(namespace), "yolofleet", force=True))
    assert answer["metadata"]["annotations"] == {"note": "of ours"}
    managers = [(m["manager"], m["operation"]) for m in answer["metadata"]["managedFields"]]
    assert sorted(managers) == [("yolofleet", "Apply"), ("yolofleet", "Update")]


async def test_an_apply_without_force_takes_over_what_contradicts_nothing(
    client: Client, namespace: str
) -> None:
    """So a name is looked at before the first apply to it: an account has nothing to contradict."""
    theirs = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "gate", "namespace": namespace},
    }
    made = await client.send(requests.create(theirs, "somebody"))
    ours = theirs | {"metadata": theirs["metadata"] | {"labels": {"of": "ours"}}}
    answer = await client.send(requests.apply(ours, "yolofleet", force=False))
    assert answer["metadata"]["uid"] == made["metadata"]["uid"]
    assert answer["metadata"]["labels"] == {"of": "ours"}


async def test_without_force_a_field_of_another_manager_is_a_conflict(
    client: Client, namespace: str
) -> None:
    await client.send(requests.apply(a_service(namespace), "somebody", force=True))
    other = a_service(namespace, selector={"app": "ours"})
    with pytest.raises(Conflict, match="somebody"):
        await client.send(requests.apply(other, "yolofleet", force=False))


async def test_lists_are_read_in_pages_and_shrunk_as_they_come(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await client.send(
            requests.apply(a_service(namespace, f"gate-{number}"), "yolofleet", force=True)
        )
    monkeypatch.setattr(requests, "PAGE", 3)
    listing = await client.list(
        kinds.SERVICE, lambda item: (item["kind"], item["metadata"]["name"]), namespace=namespace
    )
    assert sorted(listing.items) == [("Service", f"gate-{number}") for number in range(7)]
    assert listing.version > 0


async def test_a_list_can_be_narrowed_by_label(client: Client, namespace: str) -> None:
    for name in ("gate", "door"):
        await client.send(requests.apply(a_service(namespace, name), "yolofleet", force=True))
    listing = await client.list(
        kinds.SERVICE,
        lambda item: item["metadata"]["name"],
        namespace=namespace,
        selector="of=door",
    )
    assert listing.items == ["door"]


async def test_what_is_wrong_names_the_field(client: Client, namespace: str) -> None:
    with pytest.raises(Invalid, match=r"spec\.ports"):
        await client.send(requests.apply(a_service(namespace, ports=[]), "yolofleet", force=True))


async def test_what_is_not_there_is_not_found(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound):
        await client.send(requests.get(kinds.SERVICE, namespace, "nothing"))
    assert await client.find(kinds.SERVICE, namespace, "nothing") is None


async def test_what_is_not_allowed_is_forbidden(plane: ControlPlane, namespace: str) -> None:
    async with connect(plane.kubeconfig(OPERATOR)) as client:
        with pytest.raises(Forbidden, match="leases"):
            await client.list(LEASE, lambda item: item, namespace=namespace)


async def test_deleting_is_refused_for_another_uid_or_version(
    client: Client, kube: Kube, namespace: str
) -> None:
    live = await client.send(requests.apply(a_service(namespace), "yolofleet", force=True))
    for field in ("uid", "resourceVersion"):
        metadata = live["metadata"] | {field: "1"}
        with pytest.raises(Conflict):
            await client.send(requests.delete(live | {"metadata": metadata}))
    await client.send(requests.delete(live))
    assert await kube.find(kinds.SERVICE, namespace, "gate") is None


async def test_which_kinds_are_served(
    client: Client, optional_kinds: Any, eventually: Callable[..., Any]
) -> None:
    assert await client.serves(kinds.DEPLOYMENT)
    assert not await client.serves(kinds.VIRTUAL_SERVICE)
    await optional_kinds.install(ISTIO_CRDS)
    await eventually(lambda: client.serves(kinds.VIRTUAL_SERVICE))
    await optional_kinds.remove()


async def test_nothing_is_written_without_leave(plane: ControlPlane, namespace: str) -> None:
    async with connect(plane.kubeconfig(), may_write=lambda: False) as client:
        with pytest.raises(NotLeading):
            await client.send(requests.apply(a_service(namespace), "yolofleet", force=True))
        assert await client.find(kinds.SERVICE, namespace, "gate") is None


async def test_each_request_is_counted(plane: ControlPlane, namespace: str) -> None:
    seen = []
    async with connect(
        plane.kubeconfig(), observe=lambda request, code, _: seen.append((request.method, code))
    ) as client:
        await client.find(kinds.SERVICE, namespace, "nothing")
        await client.send(requests.apply(a_service(namespace), "yolofleet", force=True))
    assert seen == [("GET", "404"), ("PATCH", "201")]
