"""What kubelet tells of a pod, read in one place."""

from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.api.pod_template import EVIDENCE_PORT, SERVER_CONTAINER


def condition(pod: Manifest, type: str) -> Manifest | None:
    """Return the condition of that type; None: nobody set it yet."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == type), None)


def is_ready(pod: Manifest) -> bool:
    """Say whether requests are led to `pod`: it is ready, and stays."""
    ready = condition(pod, "Ready")
    return bool(ready and ready["status"] == "True") and stays(pod)


def stays(pod: Manifest) -> bool:
    """Say whether `pod` is one to count on: nobody has taken it away, and it has not ended."""
    return "deletionTimestamp" not in pod["metadata"] and not has_ended(pod)


def has_ended(pod: Manifest) -> bool:
    """Say whether `pod` never runs again: its node gave it up, and another takes its place."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def revision_of(pod: Manifest) -> str:
    """Return the revision that `pod` is of; empty where it does not say."""
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def evidence_url(pod: Manifest) -> str:
    """Return where `pod` tells what it counted; empty while it has no address."""
    address = (pod.get("status") or {}).get("podIP", "")
    host = f"[{address}]" if ":" in address else address
    _, port = EVIDENCE_PORT
    return f"http://{host}:{port}/evidence" if host else ""


def restarts(pod: Manifest) -> int:
    """Return how often the server began anew; what runs beside it restarts for its own reasons."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    own = (each for each in containers if each["name"] == SERVER_CONTAINER)
    return sum(int(each.get("restartCount", 0)) for each in own)
