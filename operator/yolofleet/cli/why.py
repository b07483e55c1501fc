"""Why a detector is not as asked, and what to type: from its conditions, status and pods; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from yolofleet.api.plain import plain
from yolofleet.api.seen import Raw, Seen
from yolofleet.cli import pods as of_pod
from yolofleet.cli.edits import WITH_COMMANDS, approval_in, approving, retry_in

_LEAVING: Final = (
    "It goes once whoever has put a finalizer there has taken it away: foregroundDeletion is"
    " Kubernetes' own, and goes with the last of its pods. No edit keeps it; apply its manifest"
    " again once it is gone."
)


OPERATOR: Final = "kubectl get deploy -A -l app.kubernetes.io/name=yolofleet"

Typed = Callable[[str], str]


def why(seen: Seen, pods: Sequence[Raw], typed: Typed = str) -> str:
    """Return what stands between the detector and its spec, each reason once, with the fix.

    typed: a command with what else has to be typed to reach the cluster.
    """
    parts = [f"{seen.namespace}/{seen.name}: {seen.summary}"]
    if seen.leaving:
        parts += [_LEAVING, *_pods(seen, pods)]
        return "\n\n".join(parts) + "\n"
    parts += _unseen(seen, typed)
    parts += _conditions(seen)
    parts += _pods(seen, pods)
    if len(parts) == 1:
        parts.append("Nothing is wrong: it serves, and the spec is reached.")
    parts += _commands(seen, typed)
    return "\n\n".join(parts) + "\n"


def _unseen(seen: Seen, typed: Typed) -> Iterator[str]:
    if not seen.status.get("conditions"):
        yield (
            "The operator has not said anything of it. Does it run, and does it watch this"
            f" namespace (the chart's watchNamespaces)?\n  {typed(OPERATOR)}"
        )
    elif seen.unseen:
        generation = seen.raw["metadata"]["generation"]
        observed = seen.status.get("observedGeneration", 0)
        yield (
            f"The last edit (generation {generation}) has not been seen by the operator, which is"
            f" at {observed}; what follows is of before. It takes seconds; after that see whether"
            f" the operator runs:\n  {typed(OPERATOR)}"
        )


def _conditions(seen: Seen) -> Iterator[str]:
    for condition in seen.unmet():
        head = f"{condition['type']} is {condition['status']} ({condition['reason']})"
        yield f"{head}\n  {plain(condition.get('message', ''))}"


def _pods(seen: Seen, pods: Sequence[Raw]) -> Iterator[str]:
    waiting = [
        f"  {pod['metadata']['name']}: {plain(of_pod.state_in_words(pod))}"
        for pod in of_pod.pods_of(seen, pods)
        if not of_pod.is_ready(pod) and not pod["metadata"].get("deletionTimestamp")
    ]
    if waiting:
        yield "\n".join(["Pods that are not ready:", *waiting])


def _commands(seen: Seen, typed: Typed) -> Iterator[str]:
    """Return what to type of this plugin where messages have the commands in full."""
    found = []
    for kind in WITH_COMMANDS:
        if offered := approval_in(seen, kind):
            if offered.despite in (None, "NotEnoughData"):
                found.append(approving(seen.name, offered))
            else:
                found.append(f"kubectl yd accept {seen.name}")
        if retry_in(seen, kind):
            found.append(f"kubectl yd retry {seen.name}")
    if found:
        commands = [f"{each} -n {seen.namespace}" for each in dict.fromkeys(found)]
        lines = [f"  {typed(each)}" for each in commands]
        yield "\n".join(["In short:", *lines])
