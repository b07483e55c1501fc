"""How many CPUs a container has, and what becomes of work on a thread."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from yoloserve.scheduling.concurrency import Threads, available_cpus

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, CORES),
        ({"cpu.max": "99900000 100000"}, CORES),  # more than the machine has
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ({"cpu.max": "nonsense"}, CORES),
        ({}, CORES),
    ],
)
def test_a_container_has_the_cpus_of_its_limit(
    tmp_path: Path, files: dict[str, str], cpus: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_cpus(tmp_path) == cpus


def test_half_a_cpu_more_is_a_thread_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert available_cpus(tmp_path) == 3


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(pool=1, lanes=0)
    yield threads
    threads.close()


async def test_work_that_nobody_waits_for_any_more_is_not_begun(threads: Threads) -> None:
    goes_on, begun = threading.Event(), list[str]()
    first = threads.run(goes_on.wait)
    second, third = (threads.run(begun.append, name) for name in ("second", "third"))
    second.cancel()
    goes_on.set()
    assert await first
    await third
    assert begun == ["third"]


async def test_who_leaves_while_the_work_is_done_is_told_nothing(threads: Threads) -> None:
    goes_on, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        goes_on.wait()

    unheard: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: unheard.append(fault))
    answer = threads.run(work)
    await asyncio.to_thread(begun.wait)
    answer.cancel()
    goes_on.set()
    assert await threads.run(int, "7") == 7  # after it: one thread
    assert not unheard


async def test_an_error_leaves_nothing_of_its_work_behind(threads: Threads) -> None:
    class Body:
        """What a request brought."""

    async def refused(body: Body) -> bool:
        try:
            await threads.run(decode, body)
        except ValueError:  # pytest.raises would keep it
            return True
        return False

    def decode(_: Body) -> None:
        raise ValueError("no picture")

    body = Body()
    held = weakref.ref(body)
    gc.disable()  # a circle would stay until it comes by
    try:
        assert await refused(body)
        del body
        threads.close()  # the thread has let go of it,
        await asyncio.sleep(0)  # and so has the loop, which has just told of the error
        assert held() is None
    finally:
        gc.enable()


async def test_where_there_is_no_thread_who_waits_hears_of_it(threads: Threads) -> None:
    threads.close()
    answer = threads.run(int)  # whoever began it counts on an answer
    with pytest.raises(RuntimeError, match="shutdown"):
        await answer
