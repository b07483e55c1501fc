"""An answer is the same alone, in a batch and in a crowd, whatever the others ask for."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yoloserve.core import EngineCore
from yoloserve.detections.postprocess import Head, Options
from yoloserve.detector import Answer, Detector
from yoloserve.engine.starting import Engine, ModelInfo, start
from yoloserve.images.letterbox import InputSize
from yoloserve.model.metadata import Metadata
from yoloserve.scheduling.admission import Flow
from yoloserve.scheduling.batching import OnBatch
from yoloserve.scheduling.concurrency import Threads
from yoloserve.settings import BackendName, PrecisionName, Profile, Settings

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.jpg"))
PICTURES = [path.read_bytes() for path in EXAMPLES]
RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH]
PLACES, CLASSES = 30, 3
NEVER = float("inf")
THREADS = 3
R = TypeVar("R")

options = st.builds(
    Options,
    confidence=st.sampled_from([0.1, 0.25, 0.6]),
    iou=st.sampled_from([0.0, 0.3, 0.7]),
    max_detections=st.sampled_from([1, 3, 300]),
    classes=st.sampled_from([None, frozenset({0}), frozenset({1, 2})]),
)
asked = st.lists(st.tuples(st.integers(0, 5), options), min_size=2, max_size=16)
Asked = list[tuple[int, Options]]


@dataclass
class Hashing:
    """A network whose answer is made of the very pixels it is shown, and of nothing else."""

    input_size: InputSize
    lanes: int
    max_batch: int
    device: str = "cpu"
    precision: PrecisionName = PrecisionName.FP32
    metadata: Metadata = field(default_factory=Metadata)

    def infer(self, _lane: int, tensors: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self._one(tensor) for tensor in tensors])

    def _one(self, tensor: NDArray[np.uint8]) -> NDArray[np.float32]:
        rng = np.random.default_rng(crc32(tensor.tobytes()))
        boxes = rng.uniform(5, 60, (4, PLACES))
        return np.concatenate((boxes, rng.uniform(0, 1, (CLASSES, PLACES)))).astype(np.float32)


class Held(Threads):
    """Lanes that begin when they may: until then, callers gather for batches."""

    def __init__(self, pool: int, lanes: int) -> None:
        super().__init__(pool, lanes)
        self.may_run = asyncio.Event()

    async def run_on(self, lane: int, work: Callable[..., R], *args: object) -> R:
        await self.may_run.wait()
        return await super().run_on(lane, work, *args)


def detector_of(
    engine: Engine, threads: Threads, on_batch: OnBatch = lambda _size, _seconds: None
) -> tuple[EngineCore, Detector]:
    limits = {"max_pixels": 10**8, "deadline_s": 10**6}
    core = EngineCore(engine, threads, **limits, on_batch=on_batch)
    return core, Detector(core, threads, **limits, defaults=Options(0.25, 0.7, 300))


async def at_once(server: Detector, crowd: Asked, pictures: Sequence[bytes]) -> list[Answer]:
    """Ask for some one by one and for the rest in one request, all at the same moment."""
    half = len(crowd) // 2
    together = crowd[-1][1]
    singles = [
        server.detect(pictures[number], wanted, deadline=NEVER, flow=Flow(camera=str(number % 2)))
        for number, wanted in crowd[:half]
    ]
    several = server.detect_each(
        [pictures[number] for number, _ in crowd[half:]], together, deadline=NEVER
    )
    *each, rest = await asyncio.gather(*singles, several)
    assert all(isinstance(answer, Answer) for answer in rest)
    return [*each, *rest]


def alone(engine: Engine, crowd: Asked, pictures: Sequence[bytes]) -> list[Answer]:
    """Ask for each as nobody else is there, with what it was asked for in the crowd."""
    half, together = len(crowd) // 2, crowd[-1][1]

    async def one_by_one() -> list[Answer]:
        core, server = detector_of(engine, Threads(THREADS, engine.lanes))
        answers = [
            await server.detect(pictures[n], wanted if i < half else together, deadline=NEVER)
            for i, (n, wanted) in enumerate(crowd)
        ]
        await core.close()
        return answers

    return asyncio.run(one_by_one())


def in_a_crowd(
    engine: Engine, crowd: Asked, pictures: Sequence[bytes], batches: list[int]
) -> list[Answer]:
    async def all_at_once() -> list[Answer]:
        threads = Held(THREADS, engine.lanes)
        core, server = detector_of(engine, threads, lambda size, _: batches.append(size))
        asking = asyncio.create_task(at_once(server, crowd, pictures))
        singles = len(crowd) // 2
        inside = singles + min(len(crowd) - singles, core.batcher.parallel + 1)
        # ASYNC110: the count is the batcher's, and nobody's event.
        while core.batcher._submitted < inside and not asking.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        threads.may_run.set()
        answers = await asking
        await core.close()
        return answers

    return asyncio.run(all_at_once())


def flat(colour: int, width: int, height: int) -> bytes:
    """Encode a picture unlike the others; PNG, so that its pixels stay what they are."""
    return cv2.imencode(".png", np.full((height, width, 3), colour, np.uint8))[1].tobytes()


def hashing(lanes: int, max_batch: int) -> Engine:
    size = InputSize(64, 64, dynamic=True)  # tensors of several shapes, which share no batch
    info = ModelInfo(
        *("gate", "1", "0" * 64, "", ("a", "b", "c"), BackendName.ONNXRUNTIME),
        *(PrecisionName.FP32, "cpu", size),
    )
    return Engine(Hashing(size, lanes, max_batch), info, Head.ANCHOR_FREE)


@pytest.mark.parametrize("examples", [30, pytest.param(300, marks=pytest.mark.nightly)])
def test_whatever_runs_beside_it_an_answer_is_the_same_to_the_last_bit(examples: int) -> None:
    sizes = [(64, 64), (64, 64), (64, 30), (128, 60), (30, 64), (64, 64)]
    pictures = [flat(40 * number + 10, *size) for number, size in enumerate(sizes)]
    batches: list[int] = []

    @settings(max_examples=examples, deadline=None)
    @given(crowd=asked, lanes=st.integers(1, 3), max_batch=st.integers(1, 8))
    def same(crowd: Asked, lanes: int, max_batch: int) -> None:
        expected = alone(hashing(1, 1), crowd, pictures)
        answers = in_a_crowd(hashing(lanes, max_batch), crowd, pictures, batches)
        for one, other in zip(answers, expected, strict=True):
            assert (one.width, one.height) == (other.width, other.height)
            np.testing.assert_array_equal(one.detections.boxes, other.detections.boxes)
            np.testing.assert_array_equal(one.detections.scores, other.detections.scores)
            np.testing.assert_array_equal(one.detections.classes, other.detections.classes)

    same()
    assert max(batches) >= 4  # there were batches to be mixed up in


@pytest.mark.parametrize("examples", [8, pytest.param(30, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("backend", RUNTIMES)
def test_a_real_network_answers_alike_alone_batched_and_in_a_crowd(
    backend: BackendName, examples: int, tmp_path: Path
) -> None:
    given_ = {"backend": backend, "precision": PrecisionName.FP32, "cache_dir": tmp_path}
    engines = {
        profile: start(Settings(profile=profile, max_batch=4, **given_)) for profile in Profile
    }
    batches: list[int] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(crowd=asked, profile=st.sampled_from(Profile))
    def same(crowd: Asked, profile: Profile) -> None:
        expected = alone(engines[Profile.REALTIME], crowd, PICTURES)
        for one, other in zip(
            in_a_crowd(engines[profile], crowd, PICTURES, batches), expected, strict=True
        ):
            assert one.detections.classes.tolist() == other.detections.classes.tolist()
            # A batch is added up in another order than a single picture.
            np.testing.assert_allclose(one.detections.boxes, other.detections.boxes, atol=0.05)
            np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=1e-3)

    same()
    assert max(batches) >= 2
