"""Pull images, or build them: decided from what this machine can do, and said aloud."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import StrEnum

from cluster import engine, versions
from cluster.errors import NotPossibleHere
from cluster.steps import output, say

PROBE_S = 45


class Mode(StrEnum):
    """How the cluster gets its images."""

    PULL = "pull"
    BUILD = "build"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision looks at."""

    wish: str  # YOLOFLEET_IMAGES: "pull", "build", or empty for whichever works
    pulls: bool  # a registry answers the engine
    go: bool
    root: bool


def decide(facts: Facts) -> tuple[Mode, str]:
    """Return the mode and the reason for it; raise NotPossibleHere where neither works."""
    if facts.wish not in {"", *Mode}:
        raise NotPossibleHere(f"YOLOFLEET_IMAGES is {facts.wish!r}: give `pull`, `build` or none.")
    if facts.wish == Mode.PULL or (not facts.wish and facts.pulls):
        asked = "YOLOFLEET_IMAGES asks for it" if facts.wish else "a registry answers"
        return Mode.PULL, asked
    missing = [
        *([] if facts.go else ["Go 1.25 or newer"]),
        *([] if facts.root else ["root (debootstrap makes a root file system)"]),
    ]
    why = "YOLOFLEET_IMAGES asks for it" if facts.wish else "no image can be pulled here"
    if missing:
        raise NotPossibleHere(
            f"The images have to be built ({why}), and that needs {' and '.join(missing)}."
            " Or give the Docker engine a way to a container registry."
        )
    return Mode.BUILD, why


def current() -> Mode:
    """Look at this machine and return its mode; starts the engine if it has to."""
    engine.ensure()
    wish = os.environ.get("YOLOFLEET_IMAGES", "")
    probe = ["docker", "pull", "--quiet", versions.PAUSE_IMAGE]
    facts = Facts(
        wish=wish,
        pulls=not wish and output(probe, timeout_s=PROBE_S) is not None,
        go=shutil.which("go") is not None,
        root=os.geteuid() == 0,
    )
    mode, why = decide(facts)
    say(f"Images: {mode} ({why})")
    return mode
