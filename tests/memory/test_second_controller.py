"""The runtime without a detector: another controller, which keeps an account for each Service."""

from typing import Final

from memory_cluster.operator import MemoryClient
from memory_cluster.server import Server
from yolofleet.runtime import client as requests
from yolofleet.runtime.changes import Action
from yolofleet.runtime.controller import Controller
from yolofleet.runtime.drift import Handling
from yolofleet.runtime.kind import Kind, kind_of
from yolofleet.runtime.objects import Manifest, identity
from yolofleet.runtime.queue import WorkQueue
from yolofleet.runtime.store import Entry, Store, entry_for
from yolofleet.runtime.writer import Writer

# Of each kind there is one in a process, and here the server declared these two before us.
SERVICE: Final = kind_of({"apiVersion": "v1", "kind": "Service"})
ACCOUNT: Final = kind_of({"apiVersion": "v1", "kind": "ServiceAccount"})
OURS: Final = Controller(
    SERVICE, "service", "own", "own-status", "own-handover", "own.io/applied", {"by": "own"}, "of"
)


class Accounts:
    """Ten lines: list, look at what is, write what differs, delete what nobody wants."""

    def __init__(self, client: MemoryClient) -> None:
        self.client, self.queue = client, WorkQueue(word=OURS.word)
        self.store = Store[Entry](OURS, (SERVICE, ACCOUNT), entry_for(OURS))
        self.writer = Writer(client, self.store, OURS, clock=lambda: 0.0)

    async def turn(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Take in all there is and reconcile each Service; return what was changed."""
        for kind in (SERVICE, ACCOUNT):
            found = await self.client.list(kind, lambda item, k=kind: self.store.entry_of(k, item))
            for key in self.store.replace_all(kind, found.items, found.version):
                self.queue.add(key)
        changes = []
        while key := self.queue.take():
            changes += await self.reconcile(key)
            self.queue.done(key)
        return changes

    async def reconcile(self, key: str) -> list[tuple[str, str, tuple[str, ...]]]:
        if (service := self.store.named(SERVICE, *key.split("/"))) is None:
            return []
        wanted, children = account(service), self.store.children(service.uid)
        applied = await self.writer.apply([wanted], over=children)
        done = applied.then(await self.writer.prune(service.uid, keep={identity(wanted)}))
        self.drifts = done.drifts
        return [(one.action, one.name, one.fields) for one in done.changes]


def account(service: Entry) -> Manifest:
    owner = {"apiVersion": "v1", "kind": "Service", "name": service.name, "uid": service.uid}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "labels": dict(OURS.labels) | {OURS.parent_label: service.name},
            "ownerReferences": [owner | {"controller": True}],
        },
        "automountServiceAccountToken": False,
    }


async def test_another_controller_makes_repairs_and_then_writes_nothing() -> None:
    client = MemoryClient(Server(lambda: 0.0))
    for name in ("a", "b"):
        metadata = {"name": name, "namespace": "shop"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}
        await client.send(requests.create(service, "user"))
    accounts = Accounts(client)
    assert await accounts.turn() == [(Action.CREATED, "a", ()), (Action.CREATED, "b", ())]
    assert await accounts.turn() == []

    theirs = {"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": True}
    theirs |= {"metadata": {"name": "a", "namespace": "shop"}}
    await client.send(requests.apply(theirs, "somebody", force=True))
    (change,) = await accounts.turn()
    assert change == (Action.APPLIED, "a", ("automountServiceAccountToken (taken)",))
    (drift,) = accounts.drifts
    assert drift.handling is Handling.REPAIRED
    assert await accounts.turn() == []


def test_a_kind_is_found_by_its_manifest_whoever_declared_it() -> None:
    other = Kind("shop.example.com", "v1", "Basket", "baskets")
    assert kind_of({"apiVersion": "shop.example.com/v1", "kind": "Basket"}) is other
