"""Whether custom resource definitions are established.

`kubectl wait --for=condition=Established` fails at one that has no condition yet: their list is
null in the moment after it was made ("accessor error: <nil> is of the type <nil>").
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

WITHIN_S: Final = 120
PAUSE_S: Final = 0.2


def is_established(definition: dict[str, Any]) -> bool:
    """Say whether the API server serves what a definition defines."""
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def await_established(told: Callable[[], str]) -> None:
    """Wait until all definitions are; told: what `kubectl get -o json` prints of them.

    Raises `TimeoutError` with those that are not.
    """
    until = time.monotonic() + WITHIN_S
    while True:
        found = json.loads(told())
        each = found.get("items", [found])
        lacking = [one["metadata"]["name"] for one in each if not is_established(one)]
        if each and not lacking:
            return
        if time.monotonic() > until:
            raise TimeoutError(f"not established within {WITHIN_S} s: {lacking or 'there is none'}")
        time.sleep(PAUSE_S)
