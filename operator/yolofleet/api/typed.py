"""What a person types to let a release go on: put into messages, and read back out of them.

The operator says the command, with the revision and the step that it speaks of. `kubectl yd` types
that very command, so that there is no second opinion on what it has to be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from yolofleet.api.names import RETRY_ANNOTATION
from yolofleet.api.plain import plain

_ANNOTATION: Final = re.escape(RETRY_ANNOTATION)
_PATCH: Final = re.compile(r"kubectl patch yd \S+ -n \S+ --type merge -p '([^']*)'")
_RETRY: Final = re.compile(
    rf"kubectl annotate yd \S+ -n \S+ --overwrite {_ANNOTATION}=(\S+:\d+(?:\.\d+)?)"
)


@dataclass(frozen=True, slots=True)
class Approval:
    """The word by which `revision` goes on, up to `step`.

    despite: what it goes on in spite of; failed: the checks that failed, and are let pass.
    """

    revision: str
    step: int
    despite: str | None = None
    failed: list[str] | None = None

    def patch(self) -> dict[str, Any]:
        """Return it as a merge patch.

        All is always said: that of an earlier approval would stay, and hold for this one.
        """
        return {"spec": {"rollout": {"approved": asdict(self)}}}


def patching(name: str, namespace: str, patch: dict[str, Any]) -> str:
    """Return the command that sends `patch`."""
    text = json.dumps(patch, separators=(",", ":")).replace("'", "'\\''")
    return f"kubectl patch yd {name} -n {namespace} --type merge -p '{text}'"


def retrying(name: str, namespace: str, again: str) -> str:
    """Return the command that has a revision judged again; again: REVISION:NUMBER[.NUMBER]."""
    return f"kubectl annotate yd {name} -n {namespace} --overwrite {RETRY_ANNOTATION}={again}"


def approvals_in(message: str) -> Iterator[Approval]:
    """Return the approvals that `message` has commands for, in their order."""
    for text in _PATCH.findall(message):
        try:
            yield Approval(**json.loads(text)["spec"]["rollout"]["approved"])
        except (ValueError, KeyError, TypeError):
            continue  # another command, or one that was cut off


def retries_in(message: str) -> list[str]:
    """Return what `message` has commands for to have judged again."""
    return _RETRY.findall(message)


def mere_words(text: str) -> str:
    """Return what others said on one line, with no command in it that is read back out."""
    return plain(text).replace("kubectl", "kube ctl")
