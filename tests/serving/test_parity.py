"""The same boxes as the public YOLO package, and the same whoever else is asking."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yoloserve.agreement import MARGIN, Agreement, agreement
from yoloserve.concurrency import Threads
from yoloserve.detector import Answer, Detector
from yoloserve.engine import start
from yoloserve.postprocess import Detections, Options
from yoloserve.settings import BackendName, PrecisionName, Profile, Settings

ROOT = Path(__file__).parents[2]
# What the package answered, recorded by `python -m parity record`; rows of x1 y1 x2 y2 score class.
REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())
PICTURES = sorted((ROOT / "examples" / "images").glob("*.jpg"))
RUNTIMES = [BackendName.OPENVINO, BackendName.ONNXRUNTIME, BackendName.TORCH]
CONFIDENCE = 0.25
OPTIONS = Options(CONFIDENCE - MARGIN, 0.7, 300)


def detector(cache: Path, **given: object) -> Detector:
    engine = start(Settings(cache_dir=cache, precision=PrecisionName.FP32, **given))
    return Detector(
        engine, Threads(2, engine.lanes), max_pixels=10**8, deadline_s=600, defaults=OPTIONS
    )


async def asked(server: Detector, pictures: list[bytes]) -> list[Answer]:
    """Ask for all pictures at once."""
    deadline = server.clock() + 600
    return await asyncio.gather(
        *(server.detect(picture, OPTIONS, deadline=deadline) for picture in pictures)
    )


def recorded(model: str, picture: str) -> Detections:
    rows = np.array(REFERENCE["answers"][model][picture], np.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize("model", ["shapes", "shapes-v2"])
async def test_the_boxes_are_those_of_the_public_package(
    model: str, backend: BackendName, tmp_path: Path
) -> None:
    server = detector(tmp_path, model=f"demo://{model}", backend=backend)
    names = list(REFERENCE["answers"][model])
    answers = await asked(server, [(ROOT / name).read_bytes() for name in names])
    await server.close()
    total = Agreement()
    for name, answer in zip(names, answers, strict=True):
        expected = recorded(model, name)
        total += agreement(answer.detections, expected, confidence=CONFIDENCE)
    assert total.both >= 30
    assert (total.missing, total.extra) == (0, 0)
    assert total.worst_iou >= 0.99
    assert total.worst_score <= 0.01


@pytest.mark.parametrize("backend", [BackendName.OPENVINO, BackendName.ONNXRUNTIME])
def test_an_answer_is_the_same_alone_batched_and_in_a_crowd(
    backend: BackendName, tmp_path: Path
) -> None:
    pictures = [path.read_bytes() for path in PICTURES]

    async def alone() -> list[Answer]:
        server = detector(tmp_path, backend=backend)
        answers = [(await asked(server, [picture]))[0] for picture in pictures]
        await server.close()
        return answers

    expected = asyncio.run(alone())

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        crowd=st.lists(st.integers(0, len(pictures) - 1), min_size=2, max_size=12),
        profile=st.sampled_from(Profile),
    )
    def same(crowd: list[int], profile: Profile) -> None:
        async def together() -> list[Answer]:
            server = detector(tmp_path, backend=backend, profile=profile, max_batch=4)
            answers = await asked(server, [pictures[index] for index in crowd])
            await server.close()
            return answers

        for index, answer in zip(crowd, asyncio.run(together()), strict=True):
            one, other = answer.detections, expected[index].detections
            assert one.classes.tolist() == other.classes.tolist()
            np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)

    same()
