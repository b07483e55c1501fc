"""A network that is made slower, or to fail, or blind, from some moment on."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from yoloserve.engine import starting
from yoloserve.engine.backends.base import Outputs, Tensors
from yoloserve.engine.starting import Engine
from yoloserve.model.metadata import Metadata
from yoloserve.settings import Settings

PREFIX = "TROUBLED_"


class TroubleFailure(Exception):
    """What a runtime would raise."""


class Trouble(BaseModel):
    """What is wrong with a network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slower: float = Field(1, ge=1, le=100)
    failures: float = Field(0, ge=0, le=1)
    blind: bool = False
    after_s: float = Field(0, ge=0)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read `TROUBLED_*`; raise ValidationError for what cannot be."""
        own = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX)
        }
        return cls.model_validate(own)


class Troubled:
    """A backend that is another engine, and worse."""

    def __init__(
        self,
        engine: Engine,
        trouble: Trouble,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.device, self.precision = engine.info.device, engine.info.precision
        self.metadata = Metadata(names=engine.info.classes)
        self.input_size = engine.input_size
        self.lanes, self.max_batch = engine.lanes, engine.max_batch
        self._engine = engine
        self._trouble = trouble
        self._clock, self._sleep = clock, sleep
        self._begins = clock() + trouble.after_s
        self._calls = 0
        self._counting = threading.Lock()  # lanes are threads

    def infer(self, lane: int, tensors: Tensors) -> Outputs:
        """Run one batch; raise TroubleFailure where this call is to fail."""
        began = self._clock()
        outputs = np.stack(self._engine.infer(lane, list(tensors)))
        if began < self._begins:
            return outputs
        self._sleep((self._clock() - began) * (self._trouble.slower - 1))
        if self._fails():
            raise TroubleFailure("a failure that was asked for")
        return np.zeros_like(outputs) if self._trouble.blind else outputs

    def _fails(self) -> bool:
        """Spread failures evenly: of any n calls, `share * n` fail, up to one."""
        with self._counting:
            self._calls += 1
            number, share = self._calls, self._trouble.failures
        return int(number * share) > int((number - 1) * share)


def start(settings: Settings) -> Engine:
    """Load what the settings ask for, as the server does, and give it the trouble it is to have."""
    engine = starting.start(settings)
    return Engine(Troubled(engine, Trouble.read(os.environ)), engine.info, engine.head)
