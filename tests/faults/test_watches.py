"""Faults 4, 5 and 7 to 9: what the operator hears of the world is late, torn, or never comes."""

import asyncio
import contextlib
import time
from typing import Any

import pytest

from controlplane.kube import eventually
from faults.faults import Forgotten, Held, HeldLines, Refused, Truncated, of
from faults.proxy import event_line, status_object
from faults.size import nightly, sized
from faults.stage import NAME, Stage
from faults.theatre import Theatre
from faults.traces import PROMOTE, STEADY, STEADY_CANARY, UPDATE, A, B, Trace
from yolofleet.cluster import kinds
from yolofleet.runtime.errors import Conflict
from yolofleet.runtime.kind import Kind

ABSENT = (
    kinds.NODE,
    kinds.HTTP_ROUTE,
    kinds.POD_MONITOR,
    kinds.SCALED_OBJECT,
    kinds.CLAIM_TEMPLATE,
    kinds.RAY_SERVICE,
    *kinds.GATEWAYS.values(),
)
WATCHED = [kind for kind in kinds.CACHED if kind not in ABSENT]
SOME_KINDS = [kinds.DETECTOR, kinds.DEPLOYMENT, kinds.VIRTUAL_SERVICE]
REPAIRED_S = 120.0  # a resync, which would repair it too, comes each ten minutes


class Deaf:
    """Inside the block the operator hears nothing of a kind.

    Afterwards its watch resumes, or (`forgotten`) is told that its place is forgotten.
    """

    def __init__(self, stage: Stage, kind: Kind, *, forgotten: bool = False) -> None:
        self._stage = stage
        self._kind = kind
        self._gone = Forgotten(of(kind.plural, "watch"), times=1 if forgotten else 0)
        self._held = Held(of(kind.plural, "watch", "list"), times=1_000_000)

    async def __aenter__(self) -> None:
        self._stage.proxy.faults += [self._held, self._gone]
        assert self._stage.proxy.cut(self._kind.plural), f"nobody watches {self._kind}"

    async def __aexit__(self, *_: object) -> None:
        self._held.release()


async def _listening(stage: Stage) -> None:
    """Wait until every kind is watched: the operator leads before its watches have begun."""
    await eventually(
        lambda: (
            {kind.plural for kind in WATCHED} <= {watch.call.kind for watch in stage.proxy.watches}
        )
    )


@pytest.mark.nightly
async def test_04_a_spec_that_changes_and_changes_back_unheard_is_no_change(
    theatre: Theatre,
) -> None:
    async with theatre.broken("4 gap: A, B, A", STEADY, retries=0) as stage:
        await _listening(stage)
        async with Deaf(stage, kinds.DETECTOR, forgotten=True):
            await stage.edit(model=B)
            await stage.edit(model=A)


@pytest.mark.nightly
async def test_04_a_route_that_changes_and_changes_back_unheard_stays(theatre: Theatre) -> None:
    async with theatre.broken("4 gap: A, B, A", STEADY_CANARY, safe=False) as stage:
        await _listening(stage)
        route = await stage.kube.get(kinds.VIRTUAL_SERVICE, stage.namespace, NAME)
        http = route["spec"]["http"]
        stolen = [{"route": [{"destination": {"host": "thief"}, "weight": 100}]}]
        async with Deaf(stage, kinds.VIRTUAL_SERVICE, forgotten=True):
            for told in (stolen, http):
                patch = {"spec": {"http": told}}
                await stage.kube.merge(kinds.VIRTUAL_SERVICE, stage.namespace, NAME, patch)


@pytest.mark.nightly
async def test_04_a_child_deleted_and_restored_unheard_is_taken_back(theatre: Theatre) -> None:
    """As a backup tool does: the same object, with another uid and other managers."""
    async with theatre.broken("4 gap: restored child", STEADY, counts=False, safe=False) as stage:
        await _listening(stage)
        service = await stage.kube.get(kinds.SERVICE, stage.namespace, NAME)
        async with Deaf(stage, kinds.SERVICE):
            await stage.kube.delete(kinds.SERVICE, stage.namespace, NAME)
            await stage.kube.create(_restorable(service))


async def test_04_a_whole_restore_with_new_uids_converges(theatre: Theatre) -> None:
    """Detector and children come back from a backup: the children's owner exists no more."""
    async with theatre.broken("4 gap: restore of all", STEADY, counts=False, safe=False) as stage:
        await _listening(stage)
        detector, children = await stage.detector(), await stage.children()
        async with Deaf(stage, kinds.DETECTOR):
            await stage.delete()
            await eventually(lambda: _no_children(stage))
            for manifest in (detector, *children.values()):
                with contextlib.suppress(Conflict):  # the operator knows of no deletion yet
                    await stage.kube.create(_restorable(manifest))


async def _no_children(stage: Stage) -> bool:
    return not await stage.children()


def _restorable(manifest: dict[str, Any]) -> dict[str, Any]:
    dropped = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in dropped}
    addresses = ("clusterIP", "clusterIPs")
    spec = {k: v for k, v in manifest.get("spec", {}).items() if k not in addresses}
    return manifest | {"metadata": metadata} | ({"spec": spec} if spec else {})


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["line", "watch", "answer"])
@pytest.mark.parametrize(
    "kind", [*sized([], [kinds.DEPLOYMENT]), kinds.SERVICE, kinds.PDB], ids=str
)
async def test_05_a_deletion_that_a_410_swallowed_is_repaired(
    theatre: Theatre, kind: Kind, how: str
) -> None:
    """The watch is told that its place is forgotten: what is listed anew tells of no deletion.

    Of PodDisruptionBudgets there was one, so that nothing at all is listed.
    """
    label = f"5 410 with deletion ({how})"
    async with theatre.broken(label, STEADY, counts=False, safe=False) as stage:
        await _listening(stage)
        name = next(n for k, n in await stage.children() if k == kind.name)
        gone = Refused(of(kind.plural, "watch"), times=1, status=410)
        async with Deaf(stage, kind, forgotten=how == "watch"):
            await stage.kube.delete(kind, stage.namespace, name)
            if how == "answer":
                stage.proxy.faults.append(gone)
        if how == "line":
            await eventually(lambda: kind.plural in {w.call.kind for w in stage.proxy.watches})
            await stage.proxy.tell(kind.plural, _error(410, "Expired"))
        elif how == "answer":
            await eventually(lambda: gone.struck)
        began = time.monotonic()
        await eventually(lambda: stage.kube.find(kind, stage.namespace, name), REPAIRED_S)
        theatre.measured["5 repaired after a 410, s"].append(time.monotonic() - began)


def _error(code: int, reason: str) -> bytes:
    return event_line("ERROR", status_object(code, reason))


HOLDS = [
    (kind, trace, seconds)
    for kind in sized(SOME_KINDS, WATCHED)
    for trace in sized([PROMOTE], [UPDATE, PROMOTE])
    for seconds in sized([4], [30, 120])
]


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "trace", "seconds"), HOLDS, ids=str)
async def test_07_a_kind_that_is_heard_of_late_and_all_at_once(
    theatre: Theatre, kind: Kind, trace: Trace, seconds: int
) -> None:
    async with theatre.broken(f"7 stale {seconds} s", trace, retries=2) as stage:
        await _listening(stage)
        held = HeldLines(of(kind.plural))
        with stage.proxy.suffering(held):
            await trace.step(stage)
            await asyncio.sleep(seconds)
            held.release()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sized([kinds.DETECTOR], SOME_KINDS), ids=str)
async def test_08_a_watch_that_is_open_and_silent(theatre: Theatre, kind: Kind) -> None:
    """Whole form: nobody ever breaks the connection; the silence itself must be noticed."""
    label = sized("8 silent stall 6 s", "8 silent stall without end")
    async with theatre.broken(label, UPDATE, retries=2) as stage:
        await _listening(stage)
        dead = {watch.call for watch in stage.proxy.watches if watch.call.kind == kind.plural}
        stage.proxy.faults.append(HeldLines(lambda call: call in dead))
        await UPDATE.step(stage)
        if not sized(False, True):
            await asyncio.sleep(6)
            stage.proxy.cut(kind.plural)


@pytest.mark.parametrize("told", [nightly("500"), nightly("403"), "truncated"])
@pytest.mark.parametrize("kind", sized([kinds.DETECTOR], SOME_KINDS), ids=str)
async def test_09_a_watch_that_tells_nonsense(theatre: Theatre, kind: Kind, told: str) -> None:
    async with theatre.broken(f"9 watch tells {told}", UPDATE, retries=2) as stage:
        await _listening(stage)
        if told == "truncated":
            stage.proxy.faults.append(Truncated(kind.plural))
        else:
            reason = {"500": "InternalError", "403": "Forbidden"}[told]
            assert await stage.proxy.tell(kind.plural, _error(int(told), reason))
        await UPDATE.step(stage)
