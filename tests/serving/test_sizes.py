"""Networks compiled for one size: in the background, few of them, and never in anybody's way."""

import logging
import threading

import numpy as np
import pytest

from yoloserve.engine.backends import sizes
from yoloserve.engine.backends.sizes import CompiledSizes, rounded
from yoloserve.engine.starting import start
from yoloserve.settings import BackendName, PrecisionName, Settings

WIDE, TALL, SQUARE = (384, 640), (640, 384), (640, 640)


@pytest.fixture
def compiled() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def two(compiled) -> CompiledSizes[str]:
    def compile_for(size: tuple[int, int]) -> str:
        compiled.append(size)
        return f"{size[0]} x {size[1]}"

    return CompiledSizes(compile_for, most=2, seen=2)


def ask(cache: CompiledSizes[str], *asked: tuple[int, int]) -> list[str | None]:
    answers = []
    for size in asked:
        answers.append(cache.find(size))
        cache.settle()
    return answers


def test_a_size_that_comes_again_is_compiled_and_then_used(two, compiled) -> None:
    assert ask(two, WIDE, WIDE, WIDE) == [None, None, "384 x 640"]
    assert compiled == [WIDE]


def test_a_size_that_came_once_is_not_compiled(two, compiled) -> None:
    ask(two, WIDE, TALL)
    assert compiled == []


def test_finding_does_not_wait_for_the_compiler() -> None:
    may_end = threading.Event()
    cache = CompiledSizes(lambda _size: may_end.wait(60) and "done", seen=2)
    assert [cache.find(WIDE) for _ in range(5)] == [None] * 5
    may_end.set()
    cache.settle()
    assert cache.find(WIDE) == "done"


def test_sizes_that_come_in_turn_do_not_push_each_other_out(two, compiled) -> None:
    ask(two, *([WIDE, TALL, SQUARE] * 5))
    assert compiled == [WIDE, TALL]


def test_a_size_nobody_asks_for_any_more_gives_its_place_up(
    two, compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "STALE", 5)
    ask(two, WIDE, WIDE, *[TALL] * 6)
    assert ask(two, SQUARE, SQUARE, SQUARE)[-1] == "640 x 640"
    assert ask(two, WIDE) == [None]


def test_a_size_that_cannot_be_compiled_is_told_and_not_tried_again(caplog) -> None:
    def fails(_size: tuple[int, int]) -> str:
        raise RuntimeError("no memory")

    cache = CompiledSizes(fails, seen=2)
    with caplog.at_level(logging.WARNING):
        assert ask(cache, *[WIDE] * 5) == [None] * 5
    assert [record.reason for record in caplog.records] == ["no memory"]


def test_a_size_of_its_own_answers_like_the_general_network(tmp_path) -> None:
    settings = Settings(
        cache_dir=tmp_path, backend=BackendName.OPENVINO, precision=PrecisionName.FP32
    )
    engine = start(settings)
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (192, 320, 3), np.uint8)
    backend = engine._backend
    before = engine.infer(0, [wide])[0]
    assert not backend.sizes.find((192, 320))
    backend.sizes.prepare((192, 320))
    assert backend.sizes.find((192, 320))
    after = engine.infer(0, [wide])[0]
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, {1}), (2, {1, 2}), (6, {1, 2, 4, 6}), (16, {1, 2, 4, 8, 16})],
)
def test_batches_are_rounded_up_to_a_few_sizes(most: int, sizes: set[int]) -> None:
    counts = range(1, most + 1)
    assert {rounded(count, most) for count in counts} == sizes
    assert all(count <= rounded(count, most) <= min(2 * count - 1, most) for count in counts)
