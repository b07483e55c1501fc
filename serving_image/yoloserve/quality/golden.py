"""The golden set: pictures whose objects are known, tried by the server itself beside its requests.

The pictures come from a mounted folder, which may change. Whatever is wrong with it is told, and is
no reason not to serve.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Literal

from yoloserve.detections.postprocess import UnnamedClass
from yoloserve.detector import Answer, Detector
from yoloserve.errors import InvalidSettings, Refusal
from yoloserve.quality.dataset import Labelled, read, require_objects
from yoloserve.quality.evaluation import whole_curve
from yoloserve.quality.scores import Scores, Tally
from yoloserve.scheduling.admission import Flow
from yoloserve.telemetry.evidence import Golden
from yoloserve.telemetry.names import MOST_NAMES, called

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0
BREATH_S = 0.05  # while requests wait
BREATHS = 40  # for each picture: a server that is always busy tries one every two seconds
MOST_PICTURES = 5_000
MOST_BYTES = 512 * 2**20
FLOW = Flow(camera="golden")


_Files = list[tuple[Path, int, int]]
"""Of each file: when it was written, and its bytes."""


@dataclass(frozen=True, slots=True)
class _Set:
    pictures: list[Labelled]
    sha256: str


class GoldenSet:
    """Tries the model on the set, and again whenever that is another one.

    One picture at a time, in turn with everybody's and in nobody's place; while requests wait, one
    now and then.
    """

    def __init__(
        self,
        folder: Path,
        detector: Detector,
        is_busy: Callable[[], bool],
        *,
        answered: Callable[[Answer], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._detector = detector
        self._is_busy = is_busy
        self._answered = answered
        self._sleep = sleep
        self._tried: _Files | None = None
        self.progress = _progress("running")

    async def run(self) -> None:
        """Try it, and look for another one, until cancelled."""
        while True:
            await self.look()
            await self._sleep(LOOK_AGAIN_S)

    async def look(self) -> None:
        """Try the set if its files are not those that were tried last, or found to be no set."""
        try:
            files = await asyncio.to_thread(_files, self._folder)
            if files == self._tried:
                return
            found = await asyncio.to_thread(_read, self._folder, self._detector.info.classes)
            self.progress = _progress("running", found.sha256, len(found.pictures))
            scores = await self._scores(found.pictures)
        except OSError as error:  # it may be read the next time
            self._fail(str(error))
            return
        except (InvalidSettings, Refusal) as error:
            self._tried = files
            self._fail(str(error))
            return
        except Exception as error:  # a fault of ours is told, and ends nothing
            log.exception("the golden set failed")
            self._fail(f"the server failed at it: {type(error).__name__}")
            return
        self._tried = files
        by_class = _by_class(scores, self._detector.info.classes)
        self.progress = _progress("done", found.sha256, len(found.pictures), scores.map50, by_class)
        log.info("golden set", extra={"map50": round(scores.map50, 4), "set": found.sha256})

    def _fail(self, why: str) -> None:
        if self.progress["message"] != why:
            log.warning("the golden set cannot be used", extra={"reason": why})
        self.progress = _progress("failed", message=why[:400])

    async def _scores(self, pictures: Sequence[Labelled]) -> Scores:
        tally = Tally(len(self._detector.info.classes))
        for picture in pictures:
            answer = await self._answer(picture)
            known = picture.truth(answer.width, answer.height)
            # At once, not all at the end: a thread in Python delays requests, and cannot be ended.
            await asyncio.to_thread(tally.add, answer.detections, known)
        return await asyncio.to_thread(tally.scores)

    async def _answer(self, picture: Labelled) -> Answer:
        encoded = await asyncio.to_thread(picture.path.read_bytes)
        options = whole_curve(self._detector.defaults)
        for _ in range(BREATHS):
            if not self._is_busy():
                break
            await self._sleep(BREATH_S)
        try:
            answer = await self._detector.aside(encoded, options, flow=FLOW)
        except (Refusal, UnnamedClass) as error:
            raise InvalidSettings(f"{picture.path.name}: {error}") from error
        self._answered(answer)
        return answer


def _progress(
    state: Literal["running", "done", "failed"],
    sha256: str = "",
    images: int = 0,
    map50: float | None = None,
    map50_class: dict[str, float] | None = None,
    message: str = "",
) -> Golden:
    return {
        "set_sha256": sha256,
        "state": state,
        "images": images,
        "map50": map50,
        "map50_class": map50_class or {},
        "message": message,
    }


def _files(folder: Path) -> _Files:
    """List the files of the set; what a mounted ConfigMap has beside them is none."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(p.startswith("..") for p in file.relative_to(folder).parts):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size))
    return found


def _read(folder: Path, names: Sequence[str]) -> _Set:
    """Read the set, on a thread; raises `InvalidSettings` with the file and what to do.

    Its hash is that of the files: models that call the classes by other numbers have the same set.
    """
    pictures, files = read(folder, names), _files(folder)
    if len(pictures) > MOST_PICTURES:
        raise InvalidSettings(f"the set has {len(pictures)} pictures, more than {MOST_PICTURES}")
    if (size := sum(size for _, _, size in files)) > MOST_BYTES:
        raise InvalidSettings(f"the set has {size >> 20} MiB, more than {MOST_BYTES >> 20}")
    require_objects(pictures)
    digest = hashlib.sha256()
    for file, _, _ in files:
        name, content = str(file.relative_to(folder)), hashlib.sha256(file.read_bytes())
        digest.update(name.encode() + b"\0" + content.digest())
    return _Set(pictures, digest.hexdigest())


def _by_class(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    """Return what each class reaches of which there is an object; of one name the last."""
    known = (
        (called(name), float(value))
        for name, value in zip(names, scores.table[:, 0], strict=True)
        if not isnan(value)
    )
    return dict(islice(known, MOST_NAMES))
