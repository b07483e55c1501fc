"""Which of several replicas may write: the holder of a Lease, as client-go elects it.

Time is only ever measured on our own monotonic clock, from the moment we saw a record: clocks of
different machines are never compared. After a loss nothing is written any more, not even to
clean up, because the next leader may be at work already.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from yolofleet.runtime import client as requests
from yolofleet.runtime.client import Client
from yolofleet.runtime.errors import ClusterError, Stale, Unanswered, Untrusted
from yolofleet.runtime.kind import LEASE
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.patience import Patience

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15  # others wait so long after our last renewal
RENEW_DEADLINE_S: Final = 10.0  # we stop so long after it: five seconds before others may begin
RETRY_S: Final = 2.0
MARGIN_S: Final = 0.05  # so that it is over when we look
LOOK_S: Final = 1.0  # a standby counts from when it saw a renewal, so it looks more often
UNPROVED_S: Final = 60.0  # that a server may be whose certificate authority we do not know
REQUEST_TIMEOUT_S: Final = RENEW_DEADLINE_S / 2  # so that a hung request leaves time for another


class LeadershipLost(Exception):
    """The Lease could not be renewed in time: the process must end, without another write."""


class Leader:
    """Takes part in the election for one Lease."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        manager: str,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[bool], None] = lambda _leading: None,
    ) -> None:
        self._client = client
        self._address = {"namespace": namespace, "name": name}
        self._identity = identity
        self._manager = manager
        self._clock = clock
        self._changed = changed
        self._renewed_at = float("-inf")
        self._seen: tuple[str, float] = ("", float("-inf"))  # record's version, since when
        self._lease: Manifest | None = None
        self._patience = Patience(UNPROVED_S, clock)
        self._answered = clock(), datetime.now(UTC)
        self.elected = asyncio.Event()

    def may_write(self) -> bool:
        """Return whether nobody else can lead yet; asked before every write."""
        return self.elected.is_set() and self._clock() - self._renewed_at < RENEW_DEADLINE_S

    def unheard(self) -> str:
        """Say since when the API server has not answered; nothing while it does."""
        last, then = self._answered
        if self._clock() - last < RENEW_DEADLINE_S:
            return ""
        return f"the API server has not answered since {then:%Y-%m-%d %H:%M:%S} UTC"

    async def run(self) -> None:
        """Wait to be elected, then renew until cancelled. Raises `LeadershipLost`.

        Raises `Untrusted` where a new process may know the server's authority, and we do not.
        """
        while not await self._try():
            left = self._left()
            await asyncio.sleep(min(LOOK_S, left + MARGIN_S) if left > 0 else LOOK_S)
        self.elected.set()
        self._changed(True)
        logger.info("elected", extra={"fields": {"identity": self._identity}})
        while self._clock() - self._renewed_at < RENEW_DEADLINE_S:
            await asyncio.sleep(RETRY_S)
            await self._try()
        self._changed(False)
        raise LeadershipLost(f"the Lease was not renewed for {RENEW_DEADLINE_S:.0f} s")

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait for its end."""
        if not self.may_write() or self._lease is None:
            return
        self.elected.clear()
        self._changed(False)
        try:
            try:
                await self._give_back(self._lease)
            except Stale:  # a renewal was on its way when we were told to end
                now = await self._client.find(LEASE, **self._address)
                if now and now["spec"].get("holderIdentity") == self._identity:
                    await self._give_back(now)
        except ClusterError as error:
            logger.warning("Lease not released", extra={"fields": {"error": str(error)}})
        else:
            logger.info("Lease released", extra={"fields": {"identity": self._identity}})

    async def _give_back(self, lease: Manifest) -> None:
        spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
        await self._client.send(requests.update(lease | {"spec": spec}, self._manager))

    async def _try(self) -> bool:
        """Acquire or renew once; return whether we hold the Lease."""
        started = self._clock()  # the Lease counts from before the request, not after
        held = False
        failure: ClusterError | None = None
        try:
            held = await self._acquire_or_renew()
        except Stale as error:
            self._lease, failure = None, error  # another was faster, or deleted it: look again
        except ClusterError as error:
            logger.warning("Lease not renewed", extra={"fields": {"error": str(error)}})
            failure = error
        self._judge(failure)
        if held:
            self._renewed_at = started
        return held

    def _judge(self, failure: ClusterError | None) -> None:
        """Note whether the server answered; raise `failure` where only a new process helps."""
        if not isinstance(failure, Unanswered):
            self._answered = self._clock(), datetime.now(UTC)
        if not isinstance(failure, Untrusted):
            self._patience.renew()
        elif self._patience.ends():
            raise failure

    async def _acquire_or_renew(self) -> bool:
        if not self.elected.is_set() or self._lease is None:
            self._lease = await self._client.find(
                LEASE, self._address["namespace"], self._address["name"]
            )
        if self._lease is None:
            self._lease = await self._client.send(requests.create(self._new(), self._manager))
            return True
        if not self._free(self._lease):
            if self.elected.is_set():  # another took it: we were away for too long
                self._renewed_at = float("-inf")
            return False
        renewed = self._lease | {"spec": self._spec(self._lease.get("spec") or {})}
        self._lease = await self._client.send(requests.update(renewed, self._manager))
        return True

    def _free(self, lease: Manifest) -> bool:
        """Return whether we hold `lease`, or nobody does, or its holder is silent for too long."""
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        holder = (lease.get("spec") or {}).get("holderIdentity") or ""
        return holder in ("", self._identity) or self._left() < 0

    def _left(self) -> float:
        """Return for how many seconds more the Lease is its silent holder's."""
        spec = (self._lease or {}).get("spec") or {}
        lasts = spec.get("leaseDurationSeconds") or LEASE_SECONDS
        return float(lasts) - (self._clock() - self._seen[1])

    def _new(self) -> Manifest:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": dict(self._address),
            "spec": self._spec({}),
        }

    def _spec(self, old: Manifest) -> Manifest:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people; never compared
        ours = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": old.get("acquireTime", stamp) if ours else stamp,
            "renewTime": stamp,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if ours else bool(old)),
        }
