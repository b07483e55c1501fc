"""The runtime without a detector: another controller, of two kinds.

It keeps an account for each Service, and settings for each account.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

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
SETTINGS: Final = kind_of({"apiVersion": "v1", "kind": "ConfigMap"})


def controller(parent: Kind, word: str) -> Controller:
    mine = f"own-{word}"
    return Controller(
        parent,
        word,
        mine,
        f"{mine}-status",
        f"{mine}-handover",
        f"own.io/{word}",
        {"by": mine},
        "of",
    )


Change = tuple[str, str, tuple[str, ...]]


class Key(NamedTuple):
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Children:
    """Ten lines: list, look at what is, write what differs, delete what nobody wants."""

    def __init__(
        self,
        client: MemoryClient,
        queue: WorkQueue[Key],
        of: Controller,
        made: Callable[[Entry, Controller], Manifest],
        kind: Kind,
    ) -> None:
        self.client, self.queue, self.of, self.made = client, queue, of, made
        self.kinds = (of.parent, kind)
        self.store = Store[Entry](of, self.kinds, entry_for(of))
        self.writer = Writer(client, self.store, of, clock=lambda: 0.0)

    async def look(self) -> None:
        for kind in self.kinds:
            found = await self.client.list(kind, lambda item, k=kind: self.store.entry_of(k, item))
            for name in self.store.replace_all(kind, found.items, found.version):
                self.queue.add(Key(self.of.parent, name))

    async def reconcile(self, name: str) -> list[Change]:
        if (parent := self.store.named(self.of.parent, *name.split("/"))) is None:
            return []
        wanted, children = self.made(parent, self.of), self.store.children(parent.uid)
        applied = await self.writer.apply([wanted], over=children)
        done = applied.then(await self.writer.prune(parent.uid, keep={identity(wanted)}))
        self.drifts = done.drifts
        return [(one.action, one.name, one.fields) for one in done.changes]


class Both:
    """Both kinds, from one queue."""

    def __init__(self, client: MemoryClient) -> None:
        self.queue = WorkQueue[Key](word="object")
        services = Children(client, self.queue, controller(SERVICE, "service"), account, ACCOUNT)
        accounts = Children(client, self.queue, controller(ACCOUNT, "account"), settings, SETTINGS)
        self.of = {SERVICE: services, ACCOUNT: accounts}

    async def turn(self) -> list[tuple[str, *Change]]:
        """Take in all there is and reconcile it; return what was changed, and for whom."""
        for children in self.of.values():
            await children.look()
        changes = []
        while key := self.queue.take():
            done = await self.of[key.kind].reconcile(key.name)
            changes += [(str(key), *change) for change in done]
            self.queue.done(key)
        return changes


def child(kind: str, parent: Entry, of: Controller, **body: Any) -> Manifest:
    owner = {"apiVersion": "v1", "kind": of.parent.name, "name": parent.name, "uid": parent.uid}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": parent.name,
            "namespace": parent.namespace,
            "labels": dict(of.labels) | {of.parent_label: parent.name},
            "ownerReferences": [owner | {"controller": True}],
        },
    } | body


def account(service: Entry, of: Controller) -> Manifest:
    return child("ServiceAccount", service, of, automountServiceAccountToken=False)


def settings(account: Entry, of: Controller) -> Manifest:
    return child("ConfigMap", account, of, data={"account": account.name, "of": "shop"})


async def test_another_controller_makes_repairs_and_then_writes_nothing() -> None:
    client = MemoryClient(Server(lambda: 0.0))
    for name in ("a", "b"):
        metadata = {"name": name, "namespace": "shop"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}
        await client.send(requests.create(service, "user"))
    both = Both(client)
    assert await both.turn() == [
        ("Service shop/a", Action.CREATED, "a", ()),
        ("Service shop/b", Action.CREATED, "b", ()),
    ]
    assert await both.turn() == [
        ("ServiceAccount shop/a", Action.CREATED, "a", ()),
        ("ServiceAccount shop/b", Action.CREATED, "b", ()),
    ]
    assert await both.turn() == []

    theirs = {"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": True}
    theirs |= {"metadata": {"name": "a", "namespace": "shop"}}
    await client.send(requests.apply(theirs, "somebody", force=True))
    (change,) = await both.turn()
    taken = ("automountServiceAccountToken (taken)",)
    assert change == ("Service shop/a", Action.APPLIED, "a", taken)
    (drift,) = both.of[SERVICE].drifts
    assert drift.handling is Handling.REPAIRED
    assert await both.turn() == []


class BesideAController(MemoryClient):
    """As soon as settings are applied, a controller of the cluster writes there too."""

    async def send(self, request: requests.Request) -> Manifest:
        answer = await super().send(request)
        if request.content_type == requests.APPLY and "data" in answer:
            seen = {"op": "add", "path": "/metadata/annotations/seen"}
            seen["value"] = answer["metadata"]["resourceVersion"]
            await super().send(requests.json_patch(answer, [seen], "else"))
        return answer


async def test_a_repair_is_told_although_the_rest_of_it_came_too_late() -> None:
    """What was set is put right by one write, what was added by the next, which may be stale."""
    server = Server(lambda: 0.0)
    person, metadata = MemoryClient(server), {"name": "a", "namespace": "shop"}
    theirs = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    await person.send(requests.create(theirs, "user"))
    both = Both(BesideAController(server))
    await both.turn()
    theirs |= {"kind": "ConfigMap", "data": {"account": "b", "more": "c"}}
    first, rest = (
        ("ServiceAccount shop/a", action, "a", (field,))
        for action, field in (
            (Action.APPLIED, "data.account (taken)"),
            (Action.REVERTED, "data.more (added)"),
        )
    )
    await person.send(requests.apply(theirs, "somebody", force=True))

    settings = both.of[ACCOUNT]
    assert await both.turn() == [first]
    (drift,) = settings.drifts
    assert (drift.fields, drift.handling) == (
        ("data.account (set by somebody)",),
        Handling.REPAIRED,
    ), "no more is told than was put right"

    await person.send(requests.apply(theirs, "somebody", force=True))
    assert await both.turn() == [first]
    assert settings.drifts[-1].handling is Handling.CONTESTED, "a fight, though unfinished"

    both.queue.add(Key(ACCOUNT, "shop/a"))
    assert await both.turn() == [rest]
    assert any("data.more (added by somebody)" in drift.fields for drift in settings.drifts)


def test_a_kind_is_found_by_its_manifest_whoever_declared_it() -> None:
    other = Kind("shop.example.com", "v1", "Basket", "baskets")
    assert kind_of({"apiVersion": "shop.example.com/v1", "kind": "Basket"}) is other
