"""A release that is judged, as its user sees it: one that is blind is called off by itself."""

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from demo_cluster.detector import Detector, condition, told
from demo_cluster.errors import KubectlFailed, NotYet, WrongResult
from demo_cluster.forwarding import forwarded
from demo_cluster.kube import Manifest
from demo_cluster.load import Load, Target
from demo_cluster.pictures import ask
from demo_cluster.waiting import eventually

# What it is less sure of is not told: next to all.
BLIND: Final = {"inference": {"confidence": 0.98}}
CALLED_OFF_S: Final = 300.0
PICTURE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class CalledOff:
    """A release that was taken back.

    seconds: from the edit until it was. message: why, and what to type, as status has it. answers,
    exposed: what was asked meanwhile, and how much of it the revision called off answered.
    """

    revision: str
    check: str
    message: str
    seconds: float
    answers: int
    exposed: int


@contextmanager
def synced(detector: Detector) -> Iterator[None]:
    """Have the kubelet look at the pods again and again: else it mounts what changed once a minute.

    An annotation that changes makes it look.
    """
    done = threading.Event()

    def nudge() -> None:
        turn = 0
        while not done.wait(3):
            turn += 1
            of_it = f"--selector=yolofleet.io/detector={detector.name}"
            with suppress(KubectlFailed):  # a pod that goes meanwhile is not found
                detector.kubectl.run("annotate", "pods", of_it, "--overwrite", f"looked={turn}")

    thread = threading.Thread(target=nudge, name="nudge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def call_off(detector: Detector, load: Load) -> CalledOff:
    """Have `detector` release a blind revision; return how it was called off. Raises WrongResult.

    `load` has to go on meanwhile: it is what the revision is judged by.
    """
    stable = detector.raw()["status"]["stable"]["revision"]
    mark, started = load.answered, time.monotonic()
    detector.patch(BLIND)

    def look() -> Manifest:
        raw: Manifest = detector.acted_on()
        found = condition(raw, "Progressing")
        if (found.get("status"), found.get("reason")) != ("False", "AnalysisFailed"):
            raise NotYet(f"{told(found)}; {told(condition(raw, 'Analysed'))}")
        return raw

    raw = eventually(
        f"the blind revision of {detector.name} to be called off",
        look,
        within_s=CALLED_OFF_S,
        hint=detector.hint(),
    )
    took = time.monotonic() - started
    summary = load.summary(since=mark)
    failed: dict[str, Any] = raw["status"]["analysis"]["failed"][-1]
    if raw["status"]["stable"]["revision"] != stable:
        raise WrongResult(f"{raw['status']['stable']['revision']} is stable; it was {stable}")
    return CalledOff(
        revision=failed["revision"],
        check=failed["check"],
        message=condition(raw, "Progressing")["message"],
        seconds=took,
        answers=sum(summary.revisions.values()),
        exposed=summary.revisions.get(failed["revision"], 0),
    )


def make_frames_key(detector: Detector) -> str:
    """Make the Secret that `spec.access.framesKey` names; return the key in it."""
    key = secrets.token_hex(16)
    named = detector.name + "-frames"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": named}}
    detector.kubectl.apply(secret | {"stringData": {"key": key}})
    return key


def disagreement(detector: Detector, key: str) -> bytes:
    """Return the picture on which a pod of the stable revision and the other one differ most."""
    with forwarded(detector.kubectl, detector.name) as target:
        return eventually(
            "a picture on which the two differ",
            lambda: asyncio.run(most_different(target, key)),
            within_s=PICTURE_S,
            hint=detector.hint(),
        )


async def most_different(target: Target, key: str) -> bytes:
    """Return the first picture of a server, both answers side by side. Raises NotYet."""
    headers = {"X-Yoloserve-Frames-Key": key}
    told = orjson.loads(await ask(target, "/disagreements", headers=headers))
    if not told["frames"]:
        raise NotYet(f"{told['pod']} has none of {told['canary'] or 'any revision'}")
    return await ask(target, f"/disagreements/{told['frames'][0]['name']}.jpg", headers=headers)


def kept_by(detector: Detector, revision: str, *, within_s: float) -> float:
    """Return the share of the stable revision's objects that `revision` finds in copies."""

    def look() -> float:
        found = detector.raw()["status"].get("analysis") or {}
        arms = {arm["revision"]: arm for arm in found.get("arms") or ()}
        kept = arms.get(revision, {}).get("kept")
        if kept is None:
            raise NotYet(f"{list(arms)}; {told(condition(detector.raw(), 'Analysed'))}")
        return float(kept)

    return eventually(f"copies that {revision} answered", look, within_s=within_s)
