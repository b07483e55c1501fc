"""Why pods do not serve: what kubelet, scheduler and the server say of them, in plain words."""

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from yolofleet.api.names import Manifest
from yolofleet.api.plain import plain
from yolofleet.api.pod_template import MOUNTS, SERVER_CONTAINER
from yolofleet.api.status import Reason
from yolofleet.workloads.pods import condition, has_ended, revision_of

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: the server's word that its settings or its model cannot work."""

EXIT_BLIND = 79
"""The server's word that it saw its test picture no more, and is to be started anew."""

PATIENCE = timedelta(minutes=1)
"""What may put itself right (a node that is added, a gateway that starts) is given this long."""

ENDS_TO_DESPAIR = 2
"""A container that ended this often will end again: the first time may have been the network."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod does not serve, in words for a person.

    lasting: it will not put itself right. since: when it began, where time decides that. foremost:
    whoever says so knows better than pods do.
    """

    reason: str
    message: str
    lasting: bool = True
    since: datetime | None = None
    foremost: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an Event says of a pod. when: its last time, as text that sorts."""

    reason: str
    message: str
    when: str = ""

    @property
    def rank(self) -> tuple[bool, str]:
        """Return what sorts the most telling to the end: the cause, then the youngest."""
        return bool(_ABSENT.search(self.message) or _KEY.search(self.message)), self.when


SLOW_TO_START = timedelta(seconds=20)
"""A container that is being created for so long waits for something: an image, or a volume."""

ASK_AGAIN = timedelta(minutes=1)
"""How often to ask why, while it does."""

DEADLINE = timedelta(minutes=10)
"""As the progressDeadlineSeconds of Deployments, which hold only until all pods were ready once."""


def stuck(pod: Manifest, now: datetime) -> bool:
    """Say whether `pod` has a node, and its containers are long about to be created."""
    since = _creating_since(pod)
    return since is not None and now - since >= SLOW_TO_START


def went_blind(pod: Manifest) -> datetime | None:
    """Return when the server in `pod` ended because it saw no more, if its last end was that."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        states = (container.get("state"), container.get("lastState"))  # the younger one first
        ends = [state["terminated"] for state in states if state and state.get("terminated")]
        if container["name"] == SERVER_CONTAINER and ends and ends[0].get("exitCode") == EXIT_BLIND:
            return moment(ends[0].get("finishedAt"))
    return None


def waits_for_image(pod: Manifest) -> bool:
    """Say whether an image of `pod` cannot be pulled."""
    status = pod.get("status", {})
    containers = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    waiting = ((c.get("state") or {}).get("waiting") or {} for c in containers)
    return any(WAITING.get(each.get("reason", "")) == Reason.IMAGE_PULL_FAILED for each in waiting)


def next_look_at(pods: Iterable[Manifest], now: datetime) -> timedelta | None:
    """Return when time alone changes what is to be said of `pods`."""
    looks = []
    for pod in pods:
        if since := _creating_since(pod):
            looks.append(since + SLOW_TO_START - now if not stuck(pod, now) else ASK_AGAIN)
        if since := _unready_since(pod):
            looks.append(since + DEADLINE - now)
    return min((look for look in looks if look > timedelta()), default=None)


def failures_by_revision(
    pods: Iterable[Manifest], complaints: Mapping[str, Complaint], now: datetime
) -> dict[str, Failure]:
    """Return by revision what keeps a pod of it from serving; the newest pod speaks.

    complaints: by the uid of a pod, what its Events say. A pod that has ended stays for long, and
    says nothing any more once there is another in its place.
    """
    failures: dict[str, Failure] = {}
    in_turn = sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", "")))
    youngest = {revision_of(pod): pod for pod in in_turn}
    for pod in in_turn:
        revision = revision_of(pod)
        if "deletionTimestamp" in pod["metadata"]:
            continue
        if has_ended(pod) and pod is not youngest[revision]:
            continue
        complaint = complaints.get(pod["metadata"].get("uid", ""))
        if (failure := pod_failure(pod, now, complaint)) is not None:
            failures[revision] = failure
    return failures


WAITING = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONFIG_REFUSED,
    "CreateContainerError": Reason.CONFIG_REFUSED,
    "RunContainerError": Reason.CONFIG_REFUSED,
}

_FIRST_TRY = "ErrImagePull"  # it is tried again, and is ImagePullBackOff when that fails too

_FIXES = {
    Reason.IMAGE_PULL_FAILED: ". Check the name in spec.runtime.image, and the registry's"
    " credentials: in spec.podTemplate.spec.imagePullSecrets, or those that the namespace's"
    " ServiceAccount default names when a pod is made"
}


def pod_failure(pod: Manifest, now: datetime, said: Complaint | None = None) -> Failure | None:
    """Say why `pod` does not serve; None while it starts or when it does."""
    status = pod.get("status", {})
    if has_ended(pod) and status.get("reason"):
        return _given_up(pod, now)
    if (placed := condition(pod, "PodScheduled")) and placed["status"] == "False":
        return _unscheduled(pod, placed, now)
    for container in (
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ):
        if container.get("ready"):
            continue
        if (failure := _container_failure(container)) is not None:
            return failure
    return _not_created(pod, now, said) or _late(pod, now)


def _given_up(pod: Manifest, now: datetime) -> Failure:
    """Pass on why its node took `pod` not in, or put it out. Another is to come in its place."""
    status, since = pod["status"], moment(pod["metadata"].get("creationTimestamp"))
    words = f"{status['reason']}: {status.get('message') or 'it does not say why'}"
    lasting = since is not None and now - since >= PATIENCE
    message = f"a node gave a pod up: {plain(words)[:500]}"
    return Failure(Reason.START_FAILED, message, lasting, since)


def _unscheduled(pod: Manifest, said: Mapping[str, Any], now: datetime) -> Failure:
    """Pass on the scheduler's words. A node may be on its way."""
    since = moment(said.get("lastTransitionTime"))
    since = since or moment(pod["metadata"].get("creationTimestamp"))  # not all schedulers say when
    message = said.get("message", "")
    lasting = since is not None and now - since >= PATIENCE
    if said.get("reason") == "SchedulingGated":
        gates = ", ".join(g["name"] for g in pod.get("spec", {}).get("schedulingGates") or ())
        message = f"it waits for whoever takes its scheduling gates away: {gates}"
        return Failure(Reason.UNSCHEDULABLE, message, lasting, since)
    message = _what_is_absent(pod, message) or f"no node fits: {message}{_room(message)}"
    return Failure(Reason.UNSCHEDULABLE, message, lasting, since)


_MAKES_ROOM: Final = {
    r"Insufficient (cpu|memory)": "lower spec.resources.requests",
    r"untolerated taint \{(?!node(-role)?\.kubernetes\.io/)": "tolerate the taint in"
    " spec.podTemplate.spec.tolerations",
    r"match Pod's node affinity/selector": "change nodeSelector or affinity in"
    " spec.podTemplate.spec",
}
"""By words of the scheduler, what of a detector lets its pods onto a node.

Taints of Kubernetes' own say that a node is not to be used now, or not for this.
"""


def _room(message: str) -> str:
    """Say what would help where the scheduler says `message`, as far as it is the detector's."""
    found = [fix for words, fix in _MAKES_ROOM.items() if re.search(words, message)]
    if not found:
        return ""
    end = "" if message.endswith(".") else "."
    return f"{end} Add a node, or {', or '.join(found)}"


_BEFORE_START = ("ContainerCreating", "PodInitializing")


def _creating_since(pod: Manifest) -> datetime | None:
    """Return since when `pod` has a node that is about to create its first container."""
    status = pod.get("status", {})
    containers = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    waiting = [(c.get("state") or {}).get("waiting", {}).get("reason") for c in containers]
    if not waiting or any(reason not in _BEFORE_START for reason in waiting):
        return None
    placed = condition(pod, "PodScheduled") or {}
    return moment(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None


def _not_created(pod: Manifest, now: datetime, said: Complaint | None) -> Failure | None:
    """Pass on what the kubelet says of a pod that it cannot start."""
    since = _creating_since(pod)
    if since is None or said is None:
        return None
    message = _what_is_absent(pod, said.message) or _REPEATED.sub("", said.message).strip()
    mounting = said.reason in ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
    reason = Reason.MOUNT_FAILED if mounting else Reason.START_FAILED
    return Failure(reason, message, now - since >= PATIENCE, since)


_ABSENT = re.compile(r'(secret|configmap|persistentvolumeclaim)s? "([^"]+)" (?:is )?not found')
_KEY = re.compile(r"references non-existent (?:secret|config) key: (\S+)")
_VOLUME = re.compile(r'volume "([^"]+)"')
_REPEATED = re.compile(r'pod "[^"]*"|rpc error: code = \w+ desc = ')
_KINDS = {
    "secret": "Secret",
    "configmap": "ConfigMap",
    "persistentvolumeclaim": "PersistentVolumeClaim",
}


def _what_is_absent(pod: Manifest, message: str) -> str:
    """Say in plain words what `message` misses, and which field asks for it; nothing if nothing."""
    named = _VOLUME.search(message)
    volume = named[1] if named else ""
    if key := _KEY.search(message):
        return (
            f"volume {volume} cannot be mounted: its Secret or ConfigMap has no key {key[1]}; add"
            f" it, or change {_field(volume)}"
        )
    absent = [(_KINDS[kind], name) for kind, name in _ABSENT.findall(message)]
    if not absent:
        return ""
    namespace = pod["metadata"].get("namespace", "")
    things = ", ".join(dict.fromkeys(f"{kind} {name}" for kind, name in absent))
    volume = volume or _volume_of_claim(pod, absent[0][1])
    are = "are" if len(set(absent)) > 1 else "is"
    return (
        f"volume {volume} cannot be mounted: {things} {are} not in namespace {namespace}; create"
        f" what is missing, or change {_field(volume)}"
    )


def _field(volume: str) -> str:
    """Return the field of a detector that asks for `volume`."""
    ours = (mount.field for mount in MOUNTS if mount.volume == volume)
    return next(ours, "spec.podTemplate.spec.volumes")


def _volume_of_claim(pod: Manifest, claim: str) -> str:
    for volume in pod.get("spec", {}).get("volumes") or ():
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim:
            return str(volume["name"])
    return claim


def _unready_since(pod: Manifest) -> datetime | None:
    """Return since when `pod` is not ready, or there."""
    if (ready := condition(pod, "Ready")) is None:
        return moment(pod["metadata"].get("creationTimestamp"))
    return moment(ready.get("lastTransitionTime")) if ready["status"] == "False" else None


def _late(pod: Manifest, now: datetime) -> Failure | None:
    """Say that `pod` is not ready for very long, and what each container is at."""
    since = _unready_since(pod)
    if since is None or now - since < DEADLINE:
        return None
    where = f"kubectl -n {pod['metadata'].get('namespace', '')}"
    status = pod.get("status", {})
    unready = [
        c
        for c in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
        if not c.get("ready") and not (c.get("state") or {}).get("terminated")
    ]
    if not unready:
        message = "no scheduler or kubelet took it up; check spec.podTemplate.spec.schedulerName"
        return Failure(
            Reason.DEADLINE_EXCEEDED, f"a pod waits for ten minutes: {message}", since=since
        )
    message = ", ".join(f"container {c['name']} {_at(c)}" for c in unready)
    name = pod["metadata"]["name"]
    return Failure(
        Reason.DEADLINE_EXCEEDED,
        f"a pod has not been ready for ten minutes: {message}; see {where} describe pod {name}, and"
        f" {where} logs {name}",
        since=since,
    )


def _at(container: Mapping[str, Any]) -> str:
    waiting = (container.get("state") or {}).get("waiting")
    if waiting:
        return f"waits ({waiting.get('reason', 'nobody says why')})"
    return "runs and is not ready"


def _container_failure(container: Mapping[str, Any]) -> Failure | None:
    state, last = container.get("state", {}), container.get("lastState", {})
    waiting = state.get("waiting", {})
    if reason := WAITING.get(waiting.get("reason", "")):
        image = container.get("image", "")
        words = plain(waiting.get("message") or waiting["reason"])  # of its registry, too
        message = f"image {image}: {words}"
        lasting = waiting["reason"] != _FIRST_TRY
        return Failure(reason, message + _FIXES.get(reason, ""), lasting)
    ended = state.get("terminated") or last.get("terminated")
    if not ended:
        return None
    lasting = container.get("restartCount", 0) >= ENDS_TO_DESPAIR
    if ended.get("reason") == "OOMKilled":
        ours = container["name"] == SERVER_CONTAINER
        limit = "spec.resources.limits.memory" if ours else "its limit in spec.podTemplate.spec"
        message = f"container {container['name']} was killed for memory; raise {limit}"
        return Failure(Reason.OUT_OF_MEMORY, message, lasting)
    if ended.get("exitCode") == EXIT_CONFIG and container["name"] == SERVER_CONTAINER:
        return _by_server(ended.get("message", ""))
    if ended.get("exitCode"):
        return Failure(
            Reason.CRASHED,
            f"container {container['name']} exited with code {_code(ended)}:"
            f" {plain(ended.get('message') or '')[-500:] or 'it said nothing'}",
            lasting,
        )
    return None


def _code(ended: Mapping[str, Any]) -> str:
    """Return the exit code with what it means: a signal, or what the runtime calls it."""
    code = int(ended["exitCode"])
    try:
        meaning = signal.Signals(code - 128).name
    except ValueError:
        meaning = ended.get("reason") or "Error"
    return f"{code} ({meaning})"


def _by_server(message: str) -> Failure:
    """Read what the server left in its termination log: its own reason and message.

    A pod runs what a user gave it. A reason of ours would be taken for our own word, by people and
    by what acts on reasons; text that is no Unicode could not be written into the status.
    """
    try:
        stated = orjson.loads(message)
        reason, said = str(stated["reason"]), str(stated["message"])
    except (ValueError, KeyError, TypeError):
        reason, said = "", message
    if _REASON.fullmatch(reason) and reason not in _OURS:
        return Failure(reason, plain(said)[:1500])
    return Failure(Reason.CRASHED, f"the server refused to start: {plain(said)[:500]}")


_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_OURS: Final = frozenset(reason.value for reason in Reason)


def moment(text: object) -> datetime | None:
    """Read a time as the API server writes it; None for what is none."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
