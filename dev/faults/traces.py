"""What users do to a detector: where it starts from, and the one step that a fault falls into.

The same traces are played on a real API server (`faults.stage`) and on one in memory
(`memory_cluster`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from faults.size import AT_REST_S


class User(Protocol):
    """A place where somebody does things to the detector."""

    async def create(self, **spec: Any) -> Any:
        """Create the detector."""

    async def edit(self, **spec: Any) -> Any:
        """Change the detector; None removes a field."""

    async def delete(self) -> None:
        """Delete the detector."""


class Stage(User, Protocol):
    """A place that comes to rest."""

    async def settled(self) -> None:
        """Wait until the spec is reached."""

    async def rest(self, seconds: float) -> None:
        """Wait until the operator has written nothing for so long."""


Step = Callable[[User], Awaitable[Any]]

A: Final = {"uri": "demo://shapes"}
B: Final = {"uri": "demo://shapes-v2"}
TRAFFIC: Final = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
SPEC: Final[dict[str, Any]] = {"model": A, "replicas": 2, "traffic": TRAFFIC}


@dataclass(frozen=True)
class Trace:
    """Steps that each settle, then the step under test."""

    name: str
    before: tuple[Step, ...]
    step: Step

    async def prepare(self, stage: Stage) -> None:
        """Bring `stage`, whose operator runs, to where the step begins."""
        for step in self.before:
            await step(stage)
            await stage.settled()
        await stage.rest(AT_REST_S)

    def __str__(self) -> str:
        return self.name


def create(**spec: Any) -> Step:
    """Create the detector."""
    return lambda stage: stage.create(**{**SPEC, **spec})


def edit(**spec: Any) -> Step:
    """Change the detector."""
    return lambda stage: stage.edit(**spec)


def delete(stage: User) -> Awaitable[None]:
    """Delete the detector."""
    return stage.delete()


CANARY: Final = edit(canary={"model": B, "weight": 50})

CREATE: Final = Trace("create", (), create())
UPDATE: Final = Trace("update", (create(),), edit(model=B))
PROMOTE: Final = Trace("promote", (create(), CANARY), edit(model=B, canary=None))
ROLL_BACK: Final = Trace("roll-back", (create(), edit(model=B)), edit(model=A))
DELETE: Final = Trace("delete", (create(), CANARY), delete)


async def nothing(_stage: User) -> None:
    """Do nothing: what happens is others' doing."""


STEADY: Final = Trace("steady", (create(),), nothing)
STEADY_CANARY: Final = Trace("steady with canary", (create(), CANARY), nothing)
