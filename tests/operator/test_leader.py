"""Two replicas, one of which writes: election, hand-over, and loss, with real processes."""

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.forked import PATIENT_LEASE_S
from controlplane.kube import PATIENCE_S, Kube
from controlplane.process import OperatorProcess
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Client
from yolofleet.runtime.kind import LEASE
from yolofleet.runtime.leader import LEASE_SECONDS, RENEW_DEADLINE_S, Leader, LeadershipLost

NewOperator = Callable[..., OperatorProcess]
Eventually = Callable[..., Any]

SHORT_S = 3


@pytest.fixture
async def pair(
    new_operator: NewOperator, eventually: Eventually
) -> tuple[OperatorProcess, OperatorProcess]:
    """A leader and a standby, both with warm caches."""
    return await both(new_operator(), new_operator(), eventually)


async def both(
    leader: OperatorProcess, standby: OperatorProcess, eventually: Eventually
) -> tuple[OperatorProcess, OperatorProcess]:
    """Start them, one after the other."""
    leader.start()
    await leader.ready()
    await eventually(leader.leads)
    standby.start()
    await standby.ready()
    return leader, standby


async def test_one_leads_and_both_are_ready(
    pair: tuple[OperatorProcess, OperatorProcess], kube: Kube, namespace: str
) -> None:
    leader, standby = pair
    assert leader.leads()
    assert not standby.leads()
    lease = await kube.get(LEASE, namespace, "yolofleet")
    assert lease["spec"]["leaseDurationSeconds"] == PATIENT_LEASE_S, "not to be lost by chance"


async def test_after_sigterm_the_standby_leads(
    pair: tuple[OperatorProcess, OperatorProcess],
    eventually: Eventually,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
) -> None:
    leader, standby = pair
    leader.signal(signal.SIGTERM)
    await eventually(standby.leads)
    assert leader.wait() == 0
    assert leader.log(message="Lease released")
    await make_detector()

    async def made() -> Any:
        return await kube.list(kinds.DEPLOYMENT, namespace)

    await eventually(made)


async def test_after_sigkill_the_standby_leads_once_the_lease_has_run_out(
    pair: tuple[OperatorProcess, OperatorProcess],
    eventually: Eventually,
    kube: Kube,
    namespace: str,
) -> None:
    """Which it begins to do when the test makes it a short one: until then nobody can lead."""
    leader, standby = pair
    leader.kill()
    shortened = datetime.now(UTC)
    await kube.merge(LEASE, namespace, "yolofleet", {"spec": {"leaseDurationSeconds": SHORT_S}})
    await eventually(standby.leads)
    now = await kube.get(LEASE, namespace, "yolofleet")
    taken = datetime.fromisoformat(now["spec"]["acquireTime"])
    assert (taken - shortened).total_seconds() >= SHORT_S


@pytest.mark.nightly
async def test_a_leader_that_slept_writes_nothing_more(
    new_operator: NewOperator,
    eventually: Eventually,
    make_detector: Callable[..., Any],
    kube: Kube,
    namespace: str,
) -> None:
    """A frozen process wakes up after another was elected: it must end at once."""
    leader, standby = await both(new_operator(patient=False), new_operator(), eventually)
    leader.signal(signal.SIGSTOP)
    await eventually(standby.leads)
    await make_detector()
    leader.signal(signal.SIGCONT)
    assert await asyncio.to_thread(leader.wait) == 1
    assert leader.log(message="leadership lost; exiting")
    assert not leader.log(message="created")

    async def made() -> Any:
        return await kube.list(kinds.DEPLOYMENT, namespace)

    await eventually(made)


async def elected(
    client: Client, namespace: str, eventually: Eventually, **options: Any
) -> tuple[Leader, "asyncio.Task[None]"]:
    """Return a leader that may write, and the task that keeps its Lease; its clock stands still."""
    usual: dict[str, Any] = {"namespace": namespace, "name": "lease", "manager": "ours"}
    usual |= {"identity": "one", "clock": lambda: 100.0}
    leader = Leader(client, **(usual | options))
    running = asyncio.create_task(leader.run())
    await eventually(leader.may_write)
    return leader, running


async def test_a_lease_that_was_taken_ends_the_leadership(
    client: Client, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    leader, running = await elected(client, namespace, eventually)
    lease = await kube.get(LEASE, namespace, "lease")
    assert lease["spec"]["leaseDurationSeconds"] == LEASE_SECONDS
    taken = {"spec": {"holderIdentity": "two"}}
    await kube.merge(LEASE, namespace, "lease", taken)
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(running, PATIENCE_S)
    assert not leader.may_write()
    lease = await kube.get(LEASE, namespace, "lease")
    assert lease["spec"]["holderIdentity"] == "two"


async def test_a_lease_that_was_deleted_is_made_again(
    client: Client, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    leader, running = await elected(client, namespace, eventually)
    await kube.delete(LEASE, namespace, "lease")

    async def back() -> bool:
        lease = await kube.get(LEASE, namespace, "lease")
        return bool(lease["spec"]["holderIdentity"] == "one")

    await eventually(back)
    assert leader.may_write()
    assert not running.done()
    running.cancel()


async def test_a_leader_whose_clock_passed_the_deadline_may_not_write(
    client: Client, namespace: str, eventually: Eventually
) -> None:
    now = 100.0
    leader, running = await elected(client, namespace, eventually, clock=lambda: now)
    now += RENEW_DEADLINE_S
    assert not leader.may_write()
    running.cancel()


async def test_a_lease_that_was_given_back_is_taken_before_it_runs_out(
    client: Client, namespace: str, eventually: Eventually
) -> None:
    """For the one that takes it no time passes at all."""
    leader, running = await elected(client, namespace, eventually)
    running.cancel()
    await leader.release()
    _, running = await elected(client, namespace, eventually, identity="two")
    running.cancel()


async def test_a_lease_whose_last_renewal_was_on_its_way_is_given_back(
    client: Client, kube: Kube, namespace: str, eventually: Eventually
) -> None:
    """It changed behind our back, as when a renewal is cancelled before its answer."""
    leader, running = await elected(client, namespace, eventually)
    running.cancel()
    renewed = {"spec": {"renewTime": "2030-01-01T00:00:00.000000Z"}}
    await kube.merge(LEASE, namespace, "lease", renewed)
    await leader.release()
    lease = await kube.get(LEASE, namespace, "lease")
    assert lease["spec"].get("holderIdentity", "") == ""
