"""The runtime without a detector: another controller, which keeps an account for each Service."""

from typing import Any, Final

from memory_cluster.operator import MemoryClient
from memory_cluster.server import Server
from yolofleet.runtime import client as requests
from yolofleet.runtime.compare import differences
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.kind import Kind, kind_of
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.ownership import ownership_of
from yolofleet.runtime.queue import WorkQueue
from yolofleet.runtime.wish import wish_of, with_wish

SERVICE: Final = Kind("", "v1", "Service", "services")
ACCOUNT: Final = Kind("", "v1", "ServiceAccount", "serviceaccounts")
OURS: Final = Controller(
    SERVICE, "service", "own", "own-status", "own-handover", "own.io/applied", {"by": "own"}, "of"
)


def account(service: Manifest) -> Manifest:
    meta: Manifest = {k: service["metadata"][k] for k in ("name", "namespace")}
    labels = dict(OURS.labels) | {OURS.parent_label: meta["name"]}
    made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta | {"labels": labels}}
    return with_wish(made, wish_of(made), OURS.applied_annotation)


async def reconcile(key: str, client: MemoryClient) -> None:
    namespace, _, name = key.partition("/")
    if (service := await client.find(SERVICE, namespace, name)) is None:
        return
    wanted, live = account(service), await client.find(ACCOUNT, namespace, name)
    applied = ownership_of(live, OURS).applied_fields() if live else {}
    if not live or differences(wanted, live, applied):
        await client.send(requests.apply(wanted, OURS.manager, force=True))


async def turn(queue: WorkQueue, client: MemoryClient) -> int:
    """Reconcile every Service; return how many writes that took."""
    before = len(client.calls)
    for key in (await client.list(SERVICE, _key)).items:
        queue.add(key)
    while key := queue.take():
        await reconcile(key, client)
        queue.done(key)
    return len(client.calls) - before


def _key(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


async def test_another_controller_makes_repairs_and_then_writes_nothing() -> None:
    client = MemoryClient(Server(lambda: 0.0))
    queue = WorkQueue(clock=lambda: 0.0, word=OURS.word)
    for name in ("a", "b"):
        service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": []}}
        service["metadata"] = {"name": name, "namespace": "shop"}
        await client.send(requests.create(service, "user"))
    assert await turn(queue, client) == 2
    assert await turn(queue, client) == 0
    made = await client.find(ACCOUNT, "shop", "a")
    assert made is not None
    assert OURS.owner_key(made) == "shop/a"
    assert OURS.is_free(made, "shop/a")
    assert not OURS.is_free(made, "shop/b")
    labels = made["metadata"]["labels"] | {"by": "somebody"}
    theirs = {"apiVersion": "v1", "kind": "ServiceAccount"}
    theirs |= {"metadata": {"name": "a", "namespace": "shop", "labels": labels}}
    await client.send(requests.apply(theirs, "somebody", force=True))
    assert await turn(queue, client) == 1
    assert await turn(queue, client) == 0


def test_a_kind_is_found_by_its_manifest_whoever_declared_it() -> None:
    other = Kind("shop.example.com", "v1", "Basket", "baskets")
    assert kind_of({"apiVersion": "shop.example.com/v1", "kind": "Basket"}) is other
    assert OURS.selector("a") == "by=own,of=a"
