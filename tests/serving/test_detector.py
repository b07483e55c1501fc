"""What decoding may cost: the memory for all big pictures is that for one."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from yoloserve import detector


@pytest.mark.parametrize(("big_pixels", "at_once"), [(1, 1), (10**9, 2)])
async def test_big_pictures_are_decoded_one_at_a_time(
    serve: Callable[..., Any],
    jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    big_pixels: int,
    at_once: int,
) -> None:
    inside, most, lock, decode = [], [0], threading.Lock(), detector.decode_whole
    together = threading.Barrier(at_once, timeout=30)

    def watched(*asked: Any, **options: Any) -> Any:
        with lock:
            inside.append(1)
            most[0] = max(most[0], len(inside))
        together.wait()  # the pool must really get as far as it may
        try:
            return decode(*asked, **options)
        finally:
            with lock:
                inside.pop()

    monkeypatch.setattr(detector, "BIG_PIXELS", big_pixels)
    monkeypatch.setattr(detector, "decode_whole", watched)
    async with serve() as served:
        answers = await asyncio.gather(*(served.detect(jpeg) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert most[0] == at_once
