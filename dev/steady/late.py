"""A pytest plugin: what threads of a pool do begins late, and ends late, by chance.

What a test takes for done, because on an idle machine it nearly always is, shows in one run instead
of in one of fifty. `python -m steady --late 30 PATH` uses it; the seed of a run draws the times.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

MOST_MS: Final = "STEADY_LATE_MS"  # in the environment
SEED: Final = "YOLOFLEET_FAULTS_SEED"

_submit = ThreadPoolExecutor.submit
_drawn = random.Random(os.environ.get(SEED, "1"))


def _late(
    pool: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **named: Any
) -> Future[Any]:
    most_s = float(os.environ[MOST_MS]) / 1000
    # Mostly little, at times much: what is always as late keeps its order.
    before, after = (most_s * _drawn.random() ** 3 for _ in range(2))
    given: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = [(args, named)]

    def job() -> Any:
        time.sleep(before)
        args, named = given.pop()
        try:
            return work(*args, **named)
        finally:
            del args, named  # an error that leads here must not keep them
            time.sleep(after)

    return _submit(pool, job)


def pytest_configure() -> None:
    """Let all pools of this process be late from now on."""
    ThreadPoolExecutor.submit = _late  # type: ignore[assignment,method-assign]


def pytest_unconfigure() -> None:
    """Let them be as they were."""
    ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign]
